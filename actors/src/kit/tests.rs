use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Actor, AtomicResponse, Context, Handler, Message, WrapFuture, fut::ActorFutureExt};
use tokio::sync::{Notify, mpsc};

use super::*;

/// Answers how many messages it saw; panics on demand; waits at a gate on demand.
struct Counter {
    seen: usize,
    gate: Arc<Notify>,
    _obituary: Option<Obituary>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "usize")]
struct Count(#[expect(dead_code, reason = "held until the work is done")] Permit);

#[derive(Message)]
#[rtype(result = "()")]
struct Wait(Permit);

#[derive(Message)]
#[rtype(result = "()")]
struct Panic(#[expect(dead_code, reason = "held until the work is done")] Permit);

impl Handler<Count> for Counter {
    type Result = usize;
    fn handle(&mut self, _: Count, _: &mut Self::Context) -> usize {
        self.seen += 1;
        self.seen
    }
}

impl Handler<Wait> for Counter {
    type Result = AtomicResponse<Self, ()>;
    fn handle(&mut self, Wait(permit): Wait, _: &mut Self::Context) -> Self::Result {
        let gate = self.gate.clone();
        AtomicResponse::new(Box::pin(
            async move {
                gate.notified().await;
                drop(permit);
            }
            .into_actor(self)
            .map(|(), _, _| ()),
        ))
    }
}

impl Handler<Panic> for Counter {
    type Result = ();
    #[expect(clippy::panic, reason = "what the test is about")]
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("on demand");
    }
}

/// Counts what it is flooded with, each of which takes a while.
struct Flooded(Arc<AtomicUsize>);

impl Actor for Flooded {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Drip(#[expect(dead_code, reason = "held until the work is done")] Permit);

impl Handler<Drip> for Flooded {
    type Result = ();
    fn handle(&mut self, _: Drip, ctx: &mut Self::Context) {
        breathe(self, ctx);
        for turn in 0..20_000 {
            std::hint::black_box(turn);
        }
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counter(gate: &Arc<Notify>, obituary: Option<Obituary>) -> Counter {
    Counter { seen: 0, gate: gate.clone(), _obituary: obituary }
}

#[actix::test]
async fn a_full_door_says_busy_at_once_and_opens_again() {
    let gate = Arc::new(Notify::new());
    let door = Door::new(3);
    door.bind(counter(&gate, None).start());
    for _ in 0..3 {
        assert_eq!(door.tell(Wait), Ok(()));
    }
    assert_eq!(door.ask(Count).await, Err(DoorError::Busy));
    assert_eq!(door.inside(), 3);
    for _ in 0..3 {
        gate.notify_one();
        tokio::task::yield_now().await;
    }
    while door.inside() > 0 {
        gate.notify_one();
        tokio::task::yield_now().await;
    }
    assert_eq!(door.ask(Count).await, Ok(1));
}

#[actix::test]
async fn a_closed_door_admits_nothing() {
    let door = Door::new(1);
    door.bind(counter(&Arc::default(), None).start());
    door.close();
    assert_eq!(door.ask(Count).await, Err(DoorError::Closed));
}

#[actix::test]
async fn an_actor_that_panics_is_made_anew_behind_the_same_door_until_its_budget_is_spent() {
    let (fatal, mut faults) = mpsc::channel(4);
    let supervisor = Supervisor::start(Clock::manual(), fatal);
    let door = Door::new(8);
    let made = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Notify::new());
    let budget = Row {
        on_fault: OnFault::Restart { times: 2, within: Duration::from_secs(60) },
        ..row("router")
    };
    let count = made.clone();
    let _supervised = supervisor
        .supervise(budget, "counter".into(), door.clone(), move |obituary| {
            count.fetch_add(1, Ordering::SeqCst);
            counter(&gate, Some(obituary))
        })
        .await;
    assert_eq!(door.ask(Count).await, Ok(1));
    for deaths in 1..=2 {
        assert_eq!(door.ask(Panic).await, Err(DoorError::Gone));
        while made.load(Ordering::SeqCst) <= deaths {
            tokio::task::yield_now().await;
        }
        assert_eq!(door.ask(Count).await, Ok(1), "fresh state, same door");
    }
    assert_eq!(door.ask(Panic).await, Err(DoorError::Gone));
    assert_eq!(faults.recv().await.map(|fault| fault.actor), Some("counter".to_owned()));
}

#[actix::test]
async fn stopping_follows_the_table_and_leaves_the_late_behind() {
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut stopper = Stopper::default();
    for name in ["store", "gateway", "router"] {
        let order = order.clone();
        stopper.add(row(name), name.into(), move || async move { order.borrow_mut().push(name) });
    }
    let stuck = Row { drain: Duration::from_millis(5), ..row("link") };
    stopper.add(stuck, "link stuck".into(), std::future::pending::<()>);
    let stopped = stopper.stop(Duration::from_secs(10)).await;
    assert_eq!(*order.borrow(), ["gateway", "router", "store"]);
    assert_eq!(stopped.late, ["link stuck"]);
}

#[test]
fn the_stop_order_fits_the_deadline() {
    let mut orders: Vec<_> = TABLE.iter().map(|row| (row.stop_order, row.drain)).collect();
    orders.sort();
    orders.dedup_by_key(|(order, _)| *order);
    let sum: Duration = orders.iter().map(|(_, drain)| *drain).sum();
    assert!(sum <= toolmesh_core::limits::STOP_TIME, "{sum:?}");
}

/// As on a node: the actors on one thread, those who ask on others.
#[test]
#[expect(clippy::unwrap_used, reason = "a failure here fails the test")]
fn a_flooded_actor_lets_the_others_have_their_turn() {
    const ASKERS: usize = 64;
    const DRIPS: usize = 2_000;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let runtime = std::cell::Cell::new(Some(runtime));
    let system = actix::System::with_tokio_rt(move || runtime.take().unwrap());
    system.block_on(async {
        let (seen, (flooded, other)) = (Arc::default(), (Door::new(ASKERS), Door::new(1)));
        flooded.bind(Flooded(Arc::clone(&seen)).start());
        other.bind(counter(&Arc::default(), None).start());
        let askers: Vec<_> = (0..ASKERS)
            .map(|_| {
                let flooded = flooded.clone();
                tokio::spawn(async move {
                    for _ in 0..DRIPS {
                        flooded.ask(Drip).await.unwrap();
                    }
                })
            })
            .collect();
        while seen.load(Ordering::SeqCst) < ASKERS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(other.ask(Count).await, Ok(1));
        let seen = seen.load(Ordering::SeqCst);
        assert!(seen < ASKERS * DRIPS, "the others waited for all {seen}");
        askers.iter().for_each(tokio::task::JoinHandle::abort);
    });
}
