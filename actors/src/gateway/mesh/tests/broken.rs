//! The property of all connectors, for the mesh: a stream that breaks at any byte hangs no call,
//! and no call is reported not started that started.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use toolmesh_core::call::CallError;

use super::rig::{Cut, Far, Near};
use crate::link::tests::rig::{PATIENCE, times};

/// Calls that are under way when it breaks.
const CALLS: usize = 8;

/// What became of a number of calls.
#[derive(Debug, Default)]
struct Tally {
    ok: usize,
    not_started: usize,
    unknown: usize,
}

/// Makes calls over a stream that breaks, and holds what was said of them against what was done.
async fn round(far: &Far, name: &str, cut: Cut, tally: &mut Tally) {
    let wires = far.wires(true);
    *wires.cut.lock().unwrap() = Some(cut);
    let near = Near::start(&wires).await;
    near.past_its_start().await;
    let calls = (0..CALLS).map(|number| {
        let id = format!("{name}-{number}");
        // Arguments of different length, so that a cut falls anywhere.
        let arguments = json!({"id": id, "padding": "x".repeat(number * 137)});
        let call = near.call("unsafe_increment", arguments);
        async { (id, tokio::time::timeout(PATIENCE, call).await) }
    });
    let outcomes = futures::future::join_all(calls).await;
    assert!(tokio::time::timeout(PATIENCE, near.link.stop()).await.is_ok(), "{name} does not stop");
    for (id, outcome) in outcomes {
        let started = times(&far.log, "increment", &id);
        match outcome.unwrap_or_else(|_| unreachable!("{id} hangs at {cut:?}")) {
            Ok(_) => {
                assert_eq!(started, 1, "{id} was answered at {cut:?}");
                tally.ok += 1;
            }
            Err(error @ CallError::NotStarted { .. }) => {
                assert_eq!(started, 0, "{id} ran at {cut:?} and is reported {error:?}");
                tally.not_started += 1;
            }
            Err(CallError::Answered(error)) => unreachable!("{id} is refused: {error}"),
            Err(error) => {
                assert!(started <= 1, "{id} ran {started} times at {cut:?}: {error:?}");
                tally.unknown += 1;
            }
        }
    }
}

#[actix::test]
async fn a_stream_cut_at_any_byte_of_the_caller() {
    let far = Far::start("fixture-server").await;
    let (mut chance, mut tally) = (StdRng::seed_from_u64(11), Tally::default());
    for number in 0..40 {
        let cut = Cut::Up(chance.random_range(0..9_000));
        round(&far, &format!("up-{number}"), cut, &mut tally).await;
    }
    assert!(tally.ok > 0 && tally.not_started > 0 && tally.unknown > 0, "{tally:?}");
    far.stop().await;
}

#[actix::test]
async fn a_stream_cut_at_any_byte_of_the_called() {
    let far = Far::start("fixture-server").await;
    let (mut chance, mut tally) = (StdRng::seed_from_u64(12), Tally::default());
    for number in 0..40 {
        let cut = Cut::Down(chance.random_range(0..24_000));
        round(&far, &format!("down-{number}"), cut, &mut tally).await;
    }
    assert!(tally.ok > 0 && tally.not_started > 0 && tally.unknown > 0, "{tally:?}");
    far.stop().await;
}
