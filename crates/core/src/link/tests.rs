use proptest::prelude::*;

use super::*;

fn policy() -> Policy {
    Policy {
        backoff_min_ms: 100,
        backoff_max_ms: 400,
        failures_to_park: 4,
        park_min_ms: 1_000,
        park_max_ms: 4_000,
        healthy_after_ms: 5_000,
    }
}

fn ended(machine: &Machine, answered: bool) -> Input {
    Input::Ended { attempt: machine.attempt(), reason: "it died".into(), answered }
}

/// Drives a fresh machine through its first connect.
fn started() -> Machine {
    let mut machine = Machine::new(policy());
    assert_eq!(machine.apply(0, 0.0, Input::Tick), [Effect::Connect { attempt: 1 }]);
    machine
}

#[test]
fn a_healthy_session_that_dies_is_back_after_the_shortest_wait() {
    let mut machine = started();
    for round in 1..=50 {
        machine.apply(round * 10, 0.0, Input::Connected { attempt: machine.attempt() });
        let input = ended(&machine, true);
        let effects = machine.apply(round * 10, 0.0, input);
        assert_eq!(effects, [Effect::WakeAt(round * 10 + 100)]);
        machine.apply(round * 10 + 100, 0.0, Input::Tick);
        assert_eq!(machine.state(), &State::Starting);
    }
    assert_eq!(machine.restarts(), 50);
}

#[test]
fn a_crash_loop_waits_longer_and_is_parked_with_its_reason() {
    let mut machine = started();
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let input = ended(&machine, false);
        machine.apply(now, 0.0, input);
        let until = machine.state().until().unwrap_or_default();
        waits.push((machine.state().name(), until - now));
        now = until;
        machine.apply(now, 0.0, Input::Tick);
    }
    assert_eq!(
        waits,
        [
            ("backing_off", 100),
            ("backing_off", 200),
            ("backing_off", 400),
            ("parked", 1_000),
            ("parked", 2_000),
            ("parked", 4_000),
            ("parked", 4_000)
        ]
    );
}

#[test]
fn an_operator_restarts_a_parked_link_at_once_and_with_a_clean_slate() {
    let mut machine = started();
    for _ in 0..4 {
        let input = ended(&machine, false);
        machine.apply(0, 0.0, input);
        if machine.state().name() == "parked" {
            break;
        }
        machine.apply(10_000, 0.0, Input::Tick);
    }
    assert_eq!(machine.state().reason(), Some("it died"));
    assert_eq!(machine.apply(0, 0.0, Input::Restart), [Effect::Connect { attempt: 5 }]);
    let input = ended(&machine, false);
    assert_eq!(machine.apply(0, 0.0, input), [Effect::WakeAt(100)]);
}

#[test]
fn news_of_an_old_session_is_ignored() {
    let mut machine = started();
    machine.apply(0, 0.0, Input::Restart);
    assert_eq!(machine.attempt(), 2);
    let old = Input::Ended { attempt: 1, reason: "closed".into(), answered: true };
    assert_eq!(machine.apply(1, 0.0, old), []);
    machine.apply(2, 0.0, Input::Connected { attempt: 1 });
    assert_eq!(machine.state(), &State::Starting);
}

#[test]
fn a_stopped_link_stays_stopped() {
    let mut machine = started();
    assert_eq!(machine.apply(1, 0.0, Input::Stop), [Effect::Close { attempt: 1 }]);
    for input in [Input::Tick, Input::Restart, Input::Connected { attempt: 1 }] {
        assert_eq!(machine.apply(9_000, 0.0, input), []);
        assert_eq!(machine.state(), &State::Stopped);
    }
}

proptest! {
    /// Whatever happens: at most one session at a time, never silent while it waits, waits bounded.
    #[test]
    fn one_session_at_a_time_and_no_wait_without_end(
        inputs in prop::collection::vec((0_u8..6, 0_u64..3_000, 0.0_f64..1.0), 0..200),
    ) {
        let mut machine = Machine::new(policy());
        let (mut now, mut open) = (0, None::<u64>);
        for (kind, pass, chance) in inputs {
            now += pass;
            let attempt = machine.attempt();
            let input = match kind {
                0 => Input::Connected { attempt },
                1 => Input::Ended { attempt, reason: "x".into(), answered: pass % 2 == 0 },
                2 => Input::Restart,
                3 => Input::Ended { attempt: attempt.saturating_sub(1), reason: "old".into(), answered: false },
                _ => Input::Tick,
            };
            if matches!(input, Input::Ended { attempt: ended, .. } if Some(ended) == open) {
                open = None;
            }
            for effect in machine.apply(now, chance, input) {
                match effect {
                    Effect::Connect { attempt } => {
                        prop_assert!(open.is_none(), "two sessions");
                        open = Some(attempt);
                    }
                    Effect::Close { attempt } => {
                        prop_assert_eq!(open, Some(attempt));
                        open = None;
                    }
                    Effect::WakeAt(at) => prop_assert!(at <= now + policy().park_max_ms),
                }
            }
            if let Some(until) = machine.state().until() {
                prop_assert!(until <= now + policy().park_max_ms);
            }
            prop_assert_eq!(
                open.is_some(),
                matches!(machine.state(), State::Starting | State::Ready { .. })
            );
        }
    }
}
