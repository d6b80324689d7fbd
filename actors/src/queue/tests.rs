//! The shell: answers after its commit, hands over what waits, and gives back what nobody takes.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{collections::BTreeSet, sync::Arc, task::Poll, time::Duration};

use tokio::sync::mpsc;
use toolmesh_core::{
    limits,
    principal::Role,
    queue::{
        Asker, Claim, OnLost, Outcome, Proof, Refusal, RetryPolicy, Spec, State, Submitter, TaskId,
        content_digest, key_digest,
    },
};
use toolmesh_store::{
    Durability, Load, MemoryRecords, Records, State as Stored, Store, Work, Write,
    records::QueueState,
};

use super::*;
use crate::{
    kit::{Clock, Fault, Supervisor},
    store::StoreHandle,
};

struct Rig {
    queue: QueueHandle,
    faults: mpsc::Receiver<Fault>,
    clock: Clock,
    _store: StoreHandle,
}

/// A queue over what `records` hold, at the time that `clock` shows.
async fn rig(records: &Arc<MemoryRecords>, clock: &Clock) -> Rig {
    let (fatal, faults) = mpsc::channel(4);
    let supervisor = Supervisor::start(clock.clone(), fatal.clone());
    let store = Store::in_memory(records.clone(), move |error| {
        let _gone = fatal.try_send(Fault { actor: "store".into(), reason: error.to_string() });
    });
    let store =
        StoreHandle::start(store.unwrap(), Stored::default(), "the operator's", &supervisor).await;
    let kept = QueueState::from_records(records.as_ref()).unwrap();
    let queue = QueueHandle::start(Settings::default(), kept, &store, clock.clone(), &supervisor);
    Rig { queue: queue.await.unwrap(), faults, clock: clock.clone(), _store: store }
}

fn spec(payload: &str) -> Spec {
    Spec {
        kind: "render".into(),
        model: String::new(),
        payload: payload.to_owned(),
        priority: 5,
        key: None,
        content: content_digest("render", "", payload),
        tags: vec!["t".to_owned()],
        metadata: None,
        requires: Vec::new(),
        session: None,
        sticky: None,
        timeout_ms: None,
        max_attempts: 3,
        not_before: 0,
        deadline: None,
        retry: RetryPolicy::default(),
        on_lost: OnLost::Retry,
        retries_asked: false,
    }
}

fn ada() -> Submitter {
    Submitter { id: "ada".into(), role: Role::Client }
}

fn asker(name: &str) -> Asker {
    Asker { id: name.into(), is_operator: false }
}

fn claim(worker: &str) -> Claim {
    Claim {
        worker: worker.into(),
        principal: "w".into(),
        is_node: false,
        is_member: false,
        kinds: None,
        labels: BTreeSet::new(),
        session: None,
        takes_large: true,
        only: None,
        max_tasks: 1,
        lease_ms: 30_000,
        wait: None,
    }
}

fn proof(worker: &str, leased: &Leased) -> Proof {
    let (id, fence) = (leased.grant.id, leased.grant.fence);
    Proof { worker: worker.into(), principal: "w".into(), id, fence }
}

#[actix::test]
async fn what_was_answered_survives_the_loss_of_power() {
    let (records, clock) = (Arc::new(MemoryRecords::default()), Clock::manual());
    let rig_one = rig(&records, &clock).await;
    let id = rig_one.queue.submit(ada(), spec("1"), None).await.unwrap().id;
    let leased = rig_one.queue.claim(claim("one"), None).await.unwrap().tasks.remove(0);
    assert_eq!((leased.grant.id, leased.kept.task.spec.payload.as_str()), (id, "1"));
    let done = Outcome::Completed("[1]".to_owned());
    assert_eq!(rig_one.queue.finish(proof("one", &leased), done).await, Ok(State::Completed));
    records.lose_power();

    let again = rig(&records, &clock).await;
    let shown = again.queue.show(asker("ada"), id).await.unwrap();
    assert_eq!(shown.view.state, State::Completed);
    assert_eq!(shown.result.unwrap().result.as_deref(), Some("[1]"));
    assert_eq!(shown.kept.task.spec.tags, ["t"]);
    let foreign = again.queue.show(asker("bob"), id).await.unwrap_err();
    assert_eq!(foreign, Refusal::NotFound(id).into());
}

#[actix::test]
async fn a_claim_that_need_not_be_synced_is_lost_with_the_power_and_one_that_must_is_kept() {
    let (records, clock) = (Arc::new(MemoryRecords::default()), Clock::manual());
    let one = rig(&records, &clock).await;
    let once = Spec { on_lost: OnLost::Fail, ..spec("once") };
    let once = one.queue.submit(ada(), once, None).await.unwrap().id;
    assert_eq!(one.queue.claim(claim("one"), None).await.unwrap().tasks.len(), 1);
    let often = one.queue.submit(ada(), spec("often"), None).await.unwrap().id;
    assert_eq!(one.queue.claim(claim("one"), None).await.unwrap().tasks.len(), 1);
    records.lose_power();

    let again = rig(&records, &clock).await;
    let state = async |id| again.queue.view(asker("ada"), id).await.unwrap().state;
    assert_eq!((state(once).await, state(often).await), (State::Running, State::Queued));
}

#[actix::test]
async fn a_waiting_claim_is_answered_when_a_task_comes_and_a_wait_when_it_ends() {
    let rig = rig(&Arc::default(), &Clock::manual()).await;
    let (queue, waiting) = (rig.queue.clone(), rig.queue.clone());
    let claimed = actix::spawn(async move {
        waiting.claim(claim("one"), Some(Duration::from_secs(60))).await.unwrap()
    });
    while queue.status().await.unwrap().waiting_claims == 0 {
        tokio::task::yield_now().await;
    }
    let id = queue.submit(ada(), spec("1"), None).await.unwrap().id;
    let leased = claimed.await.unwrap().tasks.remove(0);
    assert_eq!(leased.grant.id, id);

    let waiter = rig.queue.clone();
    let ended = actix::spawn(async move {
        waiter.wait(asker("ada"), id, Duration::from_secs(60)).await.unwrap()
    });
    tokio::task::yield_now().await;
    queue.finish(proof("one", &leased), Outcome::Completed("1".into())).await.unwrap();
    assert_eq!(ended.await.unwrap().state, State::Completed);
}

#[actix::test]
async fn what_may_be_repeated_begins_before_the_disk_is_done_and_nothing_else_does() {
    for on_lost in [OnLost::Retry, OnLost::Fail] {
        let records = Arc::<MemoryRecords>::default();
        let rig = rig(&records, &Clock::manual()).await;
        let committer = rig.queue.shared.committer.clone();
        let mut claimed = Box::pin(rig.queue.claim(claim("one"), Some(Duration::from_secs(60))));
        assert!(futures::poll!(&mut claimed).is_pending());
        while rig.queue.status().await.unwrap().waiting_claims == 0 {
            tokio::task::yield_now().await;
        }
        // The committer waits in between, so that what comes meanwhile is one batch; and there, when
        // the batch is written and not synced.
        let hold = |key: &str| {
            let (sender, receiver) = std::sync::mpsc::sync_channel::<()>(1);
            let (reached, is_reached) = tokio::sync::oneshot::channel();
            let write = Write::Put { key: key.into(), value: Vec::new() };
            let process = Durability::Process;
            committer.submit_with(Work::Completion, process, vec![write], move |_| {
                let _ = reached.send(());
                let _ = receiver.recv_timeout(Duration::from_secs(20));
            });
            (sender, is_reached)
        };
        let (first, is_first) = hold("first");
        is_first.await.unwrap();
        let mut submitted = Box::pin(rig.queue.submit(ada(), Spec { on_lost, ..spec("1") }, None));
        while committer.health().waiting == 0 {
            assert!(futures::poll!(&mut submitted).is_pending());
            tokio::task::yield_now().await;
        }
        let (written, is_written) = hold("written");
        let syncs = records.syncs();
        drop(first);
        is_written.await.unwrap();
        assert!(futures::poll!(&mut submitted).is_pending(), "acknowledged before it was synced");
        let (begun, now) = match on_lost {
            OnLost::Retry => (Some(claimed.as_mut().await.unwrap()), records.syncs()),
            OnLost::Fail => {
                assert!(futures::poll!(&mut claimed).is_pending(), "begun before it was synced");
                (None, records.syncs())
            }
        };
        assert_eq!(now, syncs);
        drop(written);
        let id = submitted.await.unwrap().id;
        let begun = match begun {
            Some(begun) => begun,
            None => claimed.await.unwrap(),
        };
        assert_eq!((begun.tasks[0].grant.id, records.syncs()), (id, syncs + 1));
    }
}

#[actix::test]
async fn a_claim_whose_maker_is_gone_keeps_no_task() {
    let rig = rig(&Arc::default(), &Clock::manual()).await;
    let mut waiting = Box::pin(rig.queue.claim(claim("gone"), Some(Duration::from_secs(60))));
    assert!(futures::poll!(&mut waiting).is_pending());
    while rig.queue.status().await.unwrap().waiting_claims == 0 {
        tokio::task::yield_now().await;
    }
    drop(waiting);
    let id = rig.queue.submit(ada(), spec("1"), None).await.unwrap().id;
    let leased = rig.queue.claim(claim("here"), None).await.unwrap().tasks.remove(0);
    assert_eq!((leased.grant.id, leased.grant.attempt), (id, 1), "no attempt was counted");
}

#[actix::test]
async fn a_claim_given_up_on_its_way_gives_back_what_it_got() {
    let rig = rig(&Arc::default(), &Clock::manual()).await;
    let id = rig.queue.submit(ada(), spec("1"), None).await.unwrap().id;
    // What is new is read at once.
    rig.clock.advance((limits::QUEUE_NEW_S + 1) * 1_000);
    let state = async || rig.queue.show(asker("ada"), id).await.unwrap().view.state;
    // Given up when the task is on its way to it, and when what it is to do is being read.
    for polls in [1, 2] {
        loop {
            let wait = Some(Duration::from_secs(60));
            let mut claiming = Box::pin(rig.queue.claim(claim("gone"), wait));
            assert!(futures::poll!(&mut claiming).is_pending());
            while state().await != State::Running {
                tokio::task::yield_now().await;
            }
            let again = if polls == 2 { futures::poll!(&mut claiming) } else { Poll::Pending };
            let Poll::Ready(claimed) = again else { break };
            // It was read in no time; that one is not what is meant.
            let leased = claimed.unwrap().tasks.remove(0);
            rig.queue.release(proof("gone", &leased), String::new()).await.unwrap();
        }
        let back = async { while state().await != State::Queued {} };
        tokio::time::timeout(Duration::from_secs(10), back).await.unwrap();
    }
    let leased = rig.queue.claim(claim("here"), None).await.unwrap().tasks.remove(0);
    assert_eq!((leased.grant.id, leased.grant.attempt), (id, 1), "no attempt was counted");
}

#[actix::test]
#[expect(clippy::panic, reason = "a store that panics is what is tested")]
async fn a_read_that_panics_is_an_error_wherever_it_runs() {
    let rig = rig(&Arc::default(), &Clock::manual()).await;
    let new = rig.queue.submit(ada(), spec("1"), None).await.unwrap().id;
    for ids in
        [vec![new], vec![TaskId::from_bytes([0; 16])], vec![new; limits::QUEUE_READ_HERE + 1]]
    {
        let panics = |_: &dyn Records| -> Result<(), QueueError> { panic!("told to") };
        let read = rig.queue.read_of(ids.into_iter(), panics).await;
        assert!(matches!(read, Err(QueueError::Record(_))), "{read:?}");
    }
}

#[actix::test]
async fn tasks_of_several_claims_go_back_unless_they_are_handed_over() {
    let rig = rig(&Arc::default(), &Clock::manual()).await;
    for payload in ["1", "2"] {
        rig.queue.submit(ada(), spec(payload), None).await.unwrap();
    }
    let take = async || {
        let mut taken = Taken::new(rig.queue.clone(), ("far".into(), "w".into()));
        for _ in 0..2 {
            let mut claimed = rig.queue.claim(claim("far"), None).await.unwrap();
            taken.add(claimed.tasks.remove(0));
        }
        taken
    };
    let first = take().await;
    let ids: Vec<_> = first.tasks().iter().map(|leased| leased.grant.id).collect();
    drop(first);
    // What goes back is in line before the next claim.
    let second = take().await;
    let again: Vec<_> = second.tasks().iter().map(|leased| leased.grant.id).collect();
    assert_eq!(again, ids);
    assert!(second.tasks().iter().all(|leased| leased.grant.attempt == 1), "nobody ran them");
    let handed = second.hand_over();
    for leased in &handed {
        let done = Outcome::Completed("1".into());
        assert_eq!(rig.queue.finish(proof("far", leased), done).await, Ok(State::Completed));
    }
}

#[actix::test]
async fn time_alone_ends_a_lease() {
    let (records, clock) = (Arc::new(MemoryRecords::default()), Clock::manual());
    let rig = rig(&records, &clock).await;
    let id = rig.queue.submit(ada(), spec("1"), None).await.unwrap().id;
    let leased = rig.queue.claim(claim("frozen"), None).await.unwrap().tasks.remove(0);
    rig.clock.advance(30_000);
    let stale = rig.queue.heartbeat(proof("frozen", &leased), None, Vec::new()).await;
    assert_eq!(stale.unwrap_err(), Refusal::StaleFence(id).into());
    let next = rig.queue.claim(claim("other"), None).await.unwrap().tasks.remove(0);
    assert!(next.grant.fence > leased.grant.fence);
    let late = rig.queue.finish(proof("frozen", &leased), Outcome::Completed("old".into())).await;
    assert_eq!(late.unwrap_err(), Refusal::StaleFence(id).into());
}

#[actix::test]
async fn the_same_key_makes_one_task_over_restarts() {
    let (records, clock) = (Arc::new(MemoryRecords::default()), Clock::manual());
    let keyed = || Spec { key: Some(key_digest("ada", "k")), ..spec("1") };
    let id = rig(&records, &clock).await.queue.submit(ada(), keyed(), None).await.unwrap().id;
    records.lose_power();
    let again = rig(&records, &clock).await.queue.submit(ada(), keyed(), None).await.unwrap();
    assert_eq!((again.id, again.created), (id, false));
}

#[actix::test]
async fn a_disk_that_breaks_acknowledges_nothing_more() {
    let (records, clock) = (Arc::new(MemoryRecords::default()), Clock::manual());
    let mut rig = rig(&records, &clock).await;
    records.fail_commits();
    let lost = rig.queue.submit(ada(), spec("1"), None).await.unwrap_err();
    assert_eq!((lost.code(), lost.is_retryable()), ("store_failed", false));
    assert_eq!(rig.faults.recv().await.map(|fault| fault.actor), Some("store".to_owned()));
}

#[actix::test]
async fn a_stop_ends_every_wait_and_takes_no_task_with_it() {
    let (records, clock) = (Arc::new(MemoryRecords::default()), Clock::manual());
    let rig = rig(&records, &clock).await;
    let hour = Duration::from_secs(3_600);
    let later = Spec { not_before: u64::MAX, ..spec("later") };
    let id = rig.queue.submit(ada(), later, None).await.unwrap().id;
    let waits = async {
        tokio::join!(
            rig.queue.claim(claim("one"), Some(hour)),
            rig.queue.wait(asker("ada"), id, hour)
        )
    };
    let (waited, ()) = tokio::join!(waits, async { rig.queue.end_waits() });
    let (claimed, seen) = (waited.0.unwrap(), waited.1.unwrap());
    assert!(claimed.tasks.is_empty() && claimed.draining);
    assert_eq!(seen.state, State::Queued);
    // Who comes later does not wait either, and who does not wait is given what there is.
    assert!(rig.queue.claim(claim("one"), Some(hour)).await.unwrap().tasks.is_empty());
    rig.queue.submit(ada(), spec("now"), None).await.unwrap();
    assert_eq!(rig.queue.claim(claim("one"), None).await.unwrap().tasks.len(), 1);
}
