//! The machine is total: no input at any time ends in a panic.

use proptest::prelude::*;

use super::*;

/// Numbers at the ends of their range and anywhere.
fn wild() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), any::<u64>(), 0_u64..100_000]
}

fn wild_spec() -> impl Strategy<Value = Spec> {
    let numbers = (wild(), prop::option::of(wild()), prop::option::of(wild()), any::<u16>());
    let retry = (wild(), any::<f32>(), wild(), any::<f32>());
    (numbers, retry, any::<bool>(), any::<u8>()).prop_map(|(numbers, retry, fail, priority)| {
        let (not_before, timeout_ms, deadline, max_attempts) = numbers;
        let (backoff_ms, factor, max_ms, jitter) = retry;
        Spec {
            priority,
            timeout_ms,
            max_attempts,
            not_before,
            deadline,
            retry: RetryPolicy { backoff_ms, factor, max_ms, jitter },
            on_lost: if fail { OnLost::Fail } else { OnLost::Retry },
            sticky: fail.then(|| name("w")),
            ..spec("work")
        }
    })
}

/// Makes an input for the lease that was given last.
type Make = fn(&Grant, u64) -> Input;

const ABOUT_A_LEASE: [Make; 8] = [
    |grant, _| Input::Heartbeat {
        proof: proof("w", grant),
        progress: Some(name("")),
        logs: Vec::new(),
    },
    |grant, digest| Input::Finish { proof: proof("w", grant), outcome: completed(), digest },
    |grant, digest| Input::Finish { proof: proof("w", grant), outcome: failed(""), digest },
    |grant, _| Input::Release { proof: proof("w", grant), reason: "x".to_owned() },
    |grant, _| Input::Ask { proof: proof("w", grant), asks: name("") },
    |grant, number| Input::Cancel {
        asker: asker("operator"),
        id: grant.id,
        reason: String::new(),
        force: number % 2 == 0,
    },
    |grant, number| Input::Prioritise {
        asker: asker("operator"),
        id: grant.id,
        priority: number.to_le_bytes()[0],
    },
    |grant, number| Input::Update {
        asker: asker("operator"),
        id: grant.id,
        change: Change {
            not_before: Some(number),
            timeout_ms: Some(number),
            max_attempts: Some(u16::from(number.to_le_bytes()[0])),
            ..Change::default()
        },
    },
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_time_and_no_number_ends_in_a_panic(
        steps in prop::collection::vec((wild(), wild(), 0_usize..14, wild_spec()), 1..60),
    ) {
        let retention = Config { retention_ms: 50_000, dead_retention_ms: u64::MAX, ..config() };
        let mut machine = Machine::new(retention);
        let mut kept = Kept::default();
        let mut grants: Vec<Grant> = Vec::new();
        for (ms, number, which, spec) in steps {
            let input = match (which, grants.last()) {
                (0..8, Some(grant)) => ABOUT_A_LEASE[which](grant, number),
                (8, _) => {
                    let wait = Some((number, number));
                    Input::Claim(Claim { wait, lease_ms: number, ..worker("w") })
                }
                (9, _) => Input::Tick,
                (10, _) => Input::Purge { state: None, before: number },
                (11, _) => Input::Claim(Claim { lease_ms: number, ..worker("v") }),
                _ => {
                    let by = Submitter { id: "alice".into(), role: Role::Client };
                    Input::Submit { by, spec: Box::new(spec), id: None }
                }
            };
            let now = Now { ms, chance: number };
            let step = machine.apply(now, input);
            step.writes.iter().for_each(|write| kept.put(write));
            if let Ok(Reply::Claimed(granted)) = step.reply {
                grants.extend(granted.tasks);
            }
            grants.extend(step.grants.into_iter().flat_map(|(_, granted)| granted.tasks));
            let page = machine.list(&asker("operator"), &Filter::default(), 100, now);
            prop_assert_eq!(page.tasks.len(), kept.tasks.len());
            machine.status(now);
            machine.workers(now);
            let (loaded, _) = kept.load(config(), now, NODE);
            prop_assert!(loaded.ids.len() <= kept.tasks.len());
        }
    }
}
