//! The shell: starts the swarm's task, passes commands on, and ends with the task.

use std::sync::Arc;

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture,
    fut::ActorFutureExt,
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
};
use toolmesh_net::{NetError, NetHandle, PeerAddress, PeerView, StartError, Status};

use crate::kit::{Obituary, Permit};

/// Starts a swarm that publishes how it is on the given watch.
pub(super) type Starter = Arc<
    dyn Fn(watch::Sender<Status>) -> Result<(NetHandle, JoinHandle<()>), StartError> + Send + Sync,
>;

/// Connects to a peer.
#[derive(Message)]
#[rtype(result = "Result<(), NetError>")]
pub(super) struct Connect {
    pub(super) address: PeerAddress,
    pub(super) permit: Permit,
}

/// Asks for the connected peers.
#[derive(Message)]
#[rtype(result = "Result<Vec<PeerView>, NetError>")]
pub(super) struct Peers(pub(super) Permit);

/// Ends the swarm.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) Permit);

/// The actor behind the swarm's door.
pub(super) struct Swarm {
    start: Starter,
    status: watch::Sender<Status>,
    /// Absent until the task is started, and once the swarm must end.
    net: Option<NetHandle>,
    obituary: Obituary,
}

impl Swarm {
    pub(super) fn new(start: Starter, status: watch::Sender<Status>, obituary: Obituary) -> Self {
        Self { start, status, net: None, obituary }
    }

    fn net(&self) -> Result<NetHandle, NetError> {
        self.net.clone().ok_or(NetError::Stopped)
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
        self.status.send_replace(Status::down(reason));
        self.obituary.fault();
        ctx.stop();
    }
}

impl Actor for Swarm {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match (self.start)(self.status.clone()) {
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

impl Handler<Connect> for Swarm {
    type Result = ResponseFuture<Result<(), NetError>>;

    fn handle(
        &mut self,
        Connect { address, permit }: Connect,
        _: &mut Self::Context,
    ) -> Self::Result {
        let net = self.net();
        Box::pin(async move {
            let _permit = permit;
            net?.connect(address).await
        })
    }
}

impl Handler<Peers> for Swarm {
    type Result = ResponseFuture<Result<Vec<PeerView>, NetError>>;

    fn handle(&mut self, Peers(permit): Peers, _: &mut Self::Context) -> Self::Result {
        let net = self.net();
        Box::pin(async move {
            let _permit = permit;
            net?.peers().await
        })
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
