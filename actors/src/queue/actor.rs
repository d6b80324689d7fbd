//! The shell of the queue's machine: reads the clock, applies, commits, then lets go.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle};
use tokio::sync::{broadcast, oneshot};
use toolmesh_core::queue::{
    Claim, Event, Grant, Granted, Input, Machine, Now, Proof, Reply, Step, TaskView, Ticket,
};
use toolmesh_store::{CommitError, Durability, Work, Write, records};

use super::{error::QueueError, figures, handle::Shared, waiters::Waiters};
use crate::kit::{self, Door, Obituary, Permit};

/// When the machine is woken that could not be asked, because nothing can be kept at the moment.
const AGAIN_MS: u64 = 200;

/// How often the figures of `/metrics` are made anew.
const FIGURES: Duration = Duration::from_secs(1);

/// An input of the machine that is answered at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Apply {
    pub(super) input: Input,
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Reply, QueueError>>,
    pub(super) permit: Permit,
}

/// Where the tasks of a claim go.
pub(super) type Grants = oneshot::Sender<Result<Granted, QueueError>>;

/// A claim, which is answered at once or when there is a task.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ClaimTasks {
    pub(super) claim: Claim,
    pub(super) grants: Grants,
    pub(super) permit: Permit,
}

/// Says what a question found, or why it may not be said.
pub(super) type Answer = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Looks at the machine and says later what it saw.
pub(super) type Question = Box<dyn FnOnce(&Machine, Now) -> Answer + Send>;

/// A question: looked at in its turn, answered after all that came before is committed.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Look {
    pub(super) question: Question,
    pub(super) permit: Permit,
}

/// The tasks of a claim could not be handed over: nobody runs them.
#[derive(Message)]
#[rtype(result = "()")]
struct GiveBack {
    to: Claimer,
    tasks: Vec<Grant>,
    permit: Permit,
}

/// A worker and the principal that it is.
pub(super) type Claimer = (Arc<str>, Arc<str>);

/// A claim that waited: who made it, where its tasks go, and what it came to.
type Served = (Claimer, Grants, Granted);

/// Who is told what came of an input.
enum Asker {
    /// Who waits for a reply.
    Reply(oneshot::Sender<Result<Reply, QueueError>>, Permit),
    /// Who wants tasks.
    Claim(Claimer, Option<Ticket>, Grants, Permit),
    /// Nobody.
    Nobody,
}

/// The actor behind the queue's door.
pub(super) struct Queue {
    machine: Machine,
    shared: Arc<Shared>,
    door: Door<Queue>,
    /// Who made each claim that waits, and where its tasks go.
    waiting: HashMap<Ticket, (Claimer, Grants)>,
    /// When the machine wants to be woken, in milliseconds, and what will do it.
    wake: Option<(u64, SpawnHandle)>,
    obituary: Obituary,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new(
        machine: Machine,
        shared: Arc<Shared>,
        door: Door<Self>,
        obituary: Obituary,
    ) -> Self {
        Self { machine, shared, door, waiting: HashMap::new(), wake: None, obituary }
    }

    fn now(&self) -> Now {
        Now { ms: self.shared.clock.unix_ms(), chance: rand::random() }
    }

    /// Takes an input, commits what it leads to, and then tells whoever is to be told.
    fn apply(&mut self, input: Input, work: Work, asker: Asker, ctx: &mut Context<Self>) {
        let slot = match self.shared.committer.reserve(work) {
            Ok(slot) => slot,
            Err(why) => {
                // Nothing was passed to the machine: what is due by now is looked at soon.
                self.schedule(Some(self.shared.clock.unix_ms() + AGAIN_MS), ctx);
                return refuse(asker, why.into());
            }
        };
        let now = self.now();
        let step = self.machine.apply(now, input);
        let durability = match step.must_be_synced(!matches!(asker, Asker::Nobody)) {
            true => Durability::Disk,
            false => Durability::Process,
        };
        let Step { writes, reply, grants, events, wake_at, .. } = step;
        self.schedule(wake_at, ctx);
        let kept: Result<Vec<Vec<Write>>, _> =
            writes.into_iter().map(records::keep_queue).collect();
        let writes = match kept {
            Ok(writes) => writes.concat(),
            Err(error) => {
                // What is too large is refused before: the machine is ahead of what is kept.
                tracing::error!(%error, "the queue cannot keep what it decided: the node stops");
                self.obituary.fault();
                return refuse(asker, error.into());
            }
        };
        let served = grants.into_iter().filter_map(|(ticket, granted)| {
            let (claimer, grants) = self.waiting.remove(&ticket)?;
            Some((claimer, grants, granted))
        });
        // What may be repeated begins while it is synced that it was submitted, or what made room for
        // it; what must not be begins when that and its start are.
        let (early, served): (Vec<Served>, Vec<Served>) =
            served.partition(|(_, _, granted)| granted.may_be_repeated());
        let asker = self.park(asker, &reply);
        let seen = self.waited_for(&events, now);
        let (door, waiters, news) =
            (self.door.clone(), self.shared.waiters.clone(), self.shared.news.clone());
        let release = move |outcome: Result<(), CommitError>| {
            if let Err(why) = outcome {
                refuse(asker, why.into());
                return serve(&door, served, Err(why));
            }
            // Each of them is woken in turn: first who waits for what was done, last who did it.
            tell(&waiters, seen, &news, events);
            serve(&door, served, Ok(()));
            release(&door, asker, reply);
        };
        if early.is_empty() {
            return slot.submit_with(durability, writes, release);
        }
        let door = self.door.clone();
        let begin = move |outcome| serve(&door, early, outcome);
        slot.submit_staged(durability, writes, begin, release);
    }

    /// How the tasks are that ended or ask and that somebody waits for.
    fn waited_for(&self, events: &[Event], now: Now) -> Vec<TaskView> {
        let told = events.iter().filter_map(|event| match event {
            Event::Ended(id) | Event::Asks(id) if self.shared.waiters.has(*id) => Some(*id),
            _ => None,
        });
        // Who waits was found to be somebody who may know of it.
        told.filter_map(|id| self.machine.view_of_any(id, now)).collect()
    }

    /// Keeps who has to wait for a task; everybody else is returned.
    fn park(
        &mut self,
        asker: Asker,
        reply: &Result<Reply, toolmesh_core::queue::Refusal>,
    ) -> Asker {
        match asker {
            Asker::Claim(claimer, Some(ticket), grants, _) if *reply == Ok(Reply::Waiting) => {
                self.waiting.insert(ticket, (claimer, grants));
                Asker::Nobody
            }
            other => other,
        }
    }

    fn schedule(&mut self, wake_at: Option<u64>, ctx: &mut Context<Self>) {
        let Some(at) = wake_at else { return };
        if self.wake.is_some_and(|(present, _)| present <= at) {
            return;
        }
        let wait = Duration::from_millis(at.saturating_sub(self.shared.clock.unix_ms()));
        let timer = ctx.run_later(wait, |queue, ctx| {
            queue.wake = None;
            queue.apply(Input::Tick, Work::Completion, Asker::Nobody, ctx);
        });
        if let Some((_, before)) = self.wake.replace((at, timer)) {
            ctx.cancel_future(before);
        }
    }
}

/// Tells who asked that it was not done.
fn refuse(asker: Asker, why: QueueError) {
    // Who is gone by now needs no answer.
    let _gone = match asker {
        Asker::Reply(reply, _) => reply.send(Err(why)).is_err(),
        Asker::Claim(_, _, grants, _) => grants.send(Err(why)).is_err(),
        Asker::Nobody => {
            tracing::debug!(error = %why, "a tick of the queue was not kept; the next one is");
            false
        }
    };
}

/// Tells who asked what came of it, which is committed by now.
fn release(door: &Door<Queue>, asker: Asker, reply: Result<Reply, toolmesh_core::queue::Refusal>) {
    match asker {
        Asker::Reply(to, _permit) => {
            let _nobody_waits = to.send(reply.map_err(QueueError::from));
        }
        Asker::Claim(claimer, _, grants, permit) => {
            drop(permit); // What cannot be handed over needs a place.
            match reply {
                Ok(Reply::Claimed(granted)) => hand_over(door, claimer, grants, granted),
                Ok(_) => hand_over(door, claimer, grants, Granted::default()),
                Err(refusal) => {
                    let _nobody_waits = grants.send(Err(refusal.into()));
                }
            }
        }
        Asker::Nobody => {}
    }
}

/// Hands over what claims came to that waited.
fn serve(door: &Door<Queue>, served: Vec<Served>, outcome: Result<(), CommitError>) {
    for (claimer, grants, granted) in served {
        match outcome {
            Ok(()) => hand_over(door, claimer, grants, granted),
            Err(why) => {
                let _nobody_waits = grants.send(Err(why.into()));
            }
        }
    }
}

/// Hands tasks over; they come back from who is gone.
fn hand_over(door: &Door<Queue>, to: Claimer, grants: Grants, granted: Granted) {
    if let Err(Ok(granted)) = grants.send(Ok(granted)) {
        give_back(door, to, granted.tasks);
    }
}

/// Gives tasks back that nobody runs.
pub(super) fn give_back(door: &Door<Queue>, to: Claimer, tasks: Vec<Grant>) {
    if tasks.is_empty() {
        return;
    }
    if let Err(error) = door.tell(|permit| GiveBack { to, tasks, permit }) {
        tracing::debug!(%error, "tasks whose worker went away wait for their leases to end");
    }
}

fn tell(
    waiters: &Waiters,
    seen: Vec<TaskView>,
    news: &broadcast::Sender<Event>,
    events: Vec<Event>,
) {
    seen.into_iter().for_each(|view| waiters.tell(view));
    for event in events {
        // Nobody may listen, and who lags reads again.
        let _nobody_listens = news.send(event);
    }
}

impl Actor for Queue {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What is due was not told to this one.
        self.apply(Input::Tick, Work::Completion, Asker::Nobody, ctx);
        ctx.run_interval(FIGURES, |queue, _| figures::publish(&queue.machine, queue.now()));
    }
}

impl Handler<Apply> for Queue {
    type Result = ();

    fn handle(&mut self, message: Apply, ctx: &mut Self::Context) {
        kit::breathe(self, ctx);
        let Apply { input, work, reply, permit } = message;
        self.apply(input, work, Asker::Reply(reply, permit), ctx);
    }
}

impl Handler<ClaimTasks> for Queue {
    type Result = ();

    fn handle(&mut self, message: ClaimTasks, ctx: &mut Self::Context) {
        kit::breathe(self, ctx);
        let ClaimTasks { claim, grants, permit } = message;
        if grants.is_closed() {
            return; // Nobody would run what it gets.
        }
        let claimer = (claim.worker.clone(), claim.principal.clone());
        let ticket = claim.wait.map(|(ticket, _)| ticket);
        let asker = Asker::Claim(claimer, ticket, grants, permit);
        self.apply(Input::Claim(claim), Work::Completion, asker, ctx);
    }
}

impl Handler<Look> for Queue {
    type Result = ();

    fn handle(&mut self, Look { question, permit }: Look, ctx: &mut Self::Context) {
        kit::breathe(self, ctx);
        let answer = question(&self.machine, self.now());
        self.shared.committer.ask(move |outcome| {
            drop(permit);
            answer(outcome);
        });
    }
}

impl Handler<GiveBack> for Queue {
    type Result = ();

    fn handle(&mut self, message: GiveBack, ctx: &mut Self::Context) {
        let GiveBack { to: (worker, principal), tasks, permit } = message;
        for grant in tasks {
            let proof = Proof {
                worker: worker.clone(),
                principal: principal.clone(),
                id: grant.id,
                fence: grant.fence,
            };
            let release = Input::Release { proof, reason: String::new() };
            self.apply(release, Work::Completion, Asker::Nobody, ctx);
        }
        drop(permit);
    }
}
