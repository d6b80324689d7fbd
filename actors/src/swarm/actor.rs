//! The shell: starts the swarm's task, lets callers to it, and ends with the task.

use std::sync::Arc;

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture,
    WrapFuture, fut::ActorFutureExt,
};
use tokio::task::{JoinError, JoinHandle};
use toolmesh_net::{NetError, NetHandle, Published, StartError, Status};

use crate::kit::{Obituary, Permit};

/// Starts a swarm that tells what happens where the argument says.
pub(super) type Starter =
    Arc<dyn Fn(Published) -> Result<(NetHandle, JoinHandle<()>), StartError> + Send + Sync>;

/// Asks for the way to the swarm's task. The permit comes back with it, so that it counts as long
/// as the caller uses it.
#[derive(Message)]
#[rtype(result = "Result<(NetHandle, Permit), NetError>")]
pub(super) struct Lane(pub(super) Permit);

/// Ends the swarm.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) Permit);

/// The actor behind the swarm's door.
pub(super) struct Swarm {
    start: Starter,
    published: Published,
    /// Absent until the task is started, and once the swarm must end.
    net: Option<NetHandle>,
    obituary: Obituary,
}

impl Swarm {
    pub(super) fn new(start: Starter, published: Published, obituary: Obituary) -> Self {
        Self { start, published, net: None, obituary }
    }

    /// The task is gone: as wanted, or the shell goes too and both are made anew.
    fn ended(&mut self, outcome: Result<(), JoinError>, ctx: &mut Context<Self>) {
        if self.net.take().is_none() {
            return ctx.stop();
        }
        let how = match outcome {
            Err(error) if error.is_panic() => "it panicked",
            _ => "it ended by itself",
        };
        self.fail(&format!("the mesh is down: {how}; restart the node if it stays so"), ctx);
    }

    fn fail(&mut self, reason: &str, ctx: &mut Context<Self>) {
        tracing::error!(reason, "the swarm failed");
        self.published.status.send_replace(Status::down(reason));
        self.published.members.send_replace(Arc::default());
        self.obituary.fault();
        ctx.stop();
    }
}

impl Actor for Swarm {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match (self.start)(self.published.clone()) {
            Ok((net, task)) => {
                self.net = Some(net);
                let ended = |outcome, actor: &mut Self, ctx: &mut Context<Self>| {
                    actor.ended(outcome, ctx);
                };
                ctx.spawn(task.into_actor(self).map(ended));
            }
            Err(error) => self.fail(&error.to_string(), ctx),
        }
    }
}

impl Handler<Lane> for Swarm {
    type Result = MessageResult<Lane>;

    fn handle(&mut self, Lane(permit): Lane, _: &mut Self::Context) -> Self::Result {
        let net = self.net.clone().ok_or(NetError::Stopped);
        MessageResult(net.map(|net| (net, permit)))
    }
}

impl Handler<Stop> for Swarm {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Stop(permit): Stop, _: &mut Self::Context) -> Self::Result {
        let net = self.net.take();
        Box::pin(async move {
            let _permit = permit;
            if let Some(net) = net {
                net.stop().await;
            }
        })
    }
}
