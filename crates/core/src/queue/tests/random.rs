//! Random operations on the machine and on the model of it: both answer the same, give the same
//! tasks to the same workers and stand the same after every step, and what was written loads again.

use proptest::prelude::*;

use super::{audit::snapshot, model::*, *};

/// An operation. Numbers pick among what there is.
#[derive(Debug, Clone)]
enum Op {
    Submit { by: u8, kind: u8, priority: u8, key: Option<u8>, content: u8, with: With },
    Claim { worker: u8, max_tasks: usize, lease_ms: u64, wait: Option<u64>, picky: bool },
    Withdraw(u8),
    Beat { which: usize, stale: bool },
    Finish { which: usize, stale: bool, outcome: Outcome, digest: u64 },
    GiveBack { which: usize, stale: bool, asks: bool },
    Answer(usize),
    Cancel { which: usize, force: bool },
    Prioritise { which: usize, priority: u8 },
    Delay { which: usize, ms: u64 },
    Attempts { which: usize, most: u16 },
    Pause(bool),
    Drain { worker: u8, on: bool },
    Purge { state: Option<State>, older_ms: u64 },
    Pass(u64),
    Restart,
}

/// What a task may have.
#[derive(Debug, Clone)]
struct With {
    delay: u64,
    deadline: Option<u64>,
    timeout: Option<u64>,
    max_attempts: u16,
    fail: bool,
    retries_asked: bool,
    label: bool,
    session: bool,
}

const KINDS: [&str; 4] = ["tool.call", "work", "few", "other"];
const WORKERS: [&str; 5] = [NODE, "w1", "w2", "w3", MEMBER];

fn with() -> impl Strategy<Value = With> {
    let times = (
        prop_oneof![4 => Just(0), 1 => 1_u64..5_000],
        prop::option::weighted(0.2, 1_000_u64..40_000),
        prop::option::weighted(0.2, 1_000_u64..8_000),
    );
    let rest = (0_u16..4, any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    (times, rest, prop::bool::weighted(0.2)).prop_map(|(times, rest, session)| {
        let ((delay, deadline, timeout), (max_attempts, fail, retries_asked, label)) =
            (times, rest);
        With { delay, deadline, timeout, max_attempts, fail, retries_asked, label, session }
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let ran = prop_oneof![Just(Ran::No), Just(Ran::Yes), Just(Ran::Unknown)];
    let failed = (ran, prop::bool::weighted(0.8)).prop_map(|(ran, again)| Outcome::Failed {
        failure: error("it broke"),
        result: None,
        ran,
        again,
    });
    prop_oneof![2 => Just(completed()), 3 => failed, 1 => Just(Outcome::CANCELLED)]
}

fn op() -> impl Strategy<Value = Op> {
    let which = || 0_usize..40;
    let key = prop::option::weighted(0.3, 0_u8..4);
    let wait = prop::option::weighted(0.4, 0_u64..10_000);
    let state = prop_oneof![
        Just(None),
        Just(Some(State::Completed)),
        Just(Some(State::Failed)),
        Just(Some(State::Cancelled)),
    ];
    prop_oneof![
        12 => (0_u8..3, 0_u8..4, 4_u8..7, key, 0_u8..2, with()).prop_map(
            |(by, kind, priority, key, content, with)| Op::Submit {
                by, kind, priority, key, content, with,
            }),
        12 => (0_u8..5, 0_usize..4, 1_000_u64..9_000, wait, prop::bool::weighted(0.2)).prop_map(
            |(worker, max_tasks, lease_ms, wait, picky)| Op::Claim {
                worker, max_tasks, lease_ms, wait, picky,
            }),
        1 => (0_u8..40).prop_map(Op::Withdraw),
        3 => (which(), prop::bool::weighted(0.1)).prop_map(
            |(which, stale)| Op::Beat { which, stale }),
        8 => (which(), prop::bool::weighted(0.2), outcome(), 0_u64..3).prop_map(
            |(which, stale, outcome, digest)| Op::Finish { which, stale, outcome, digest }),
        2 => (which(), prop::bool::weighted(0.1), any::<bool>()).prop_map(
            |(which, stale, asks)| Op::GiveBack { which, stale, asks }),
        2 => which().prop_map(Op::Answer),
        3 => (which(), any::<bool>()).prop_map(|(which, force)| Op::Cancel { which, force }),
        2 => (which(), 4_u8..7).prop_map(|(which, priority)| Op::Prioritise { which, priority }),
        2 => (which(), 0_u64..5_000).prop_map(|(which, ms)| Op::Delay { which, ms }),
        1 => (which(), 0_u16..5).prop_map(|(which, most)| Op::Attempts { which, most }),
        1 => prop::bool::weighted(0.3).prop_map(Op::Pause),
        1 => (0_u8..5, prop::bool::weighted(0.4)).prop_map(
            |(worker, on)| Op::Drain { worker, on }),
        1 => (state, 0_u64..10_000).prop_map(
            |(state, older_ms)| Op::Purge { state, older_ms }),
        8 => (1_u64..6_000).prop_map(Op::Pass),
        1 => Just(Op::Restart),
    ]
}

/// The machine beside the model.
struct Pair {
    rig: Rig,
    model: Model,
    /// Leases that were given, present and past ones.
    proofs: Vec<Proof>,
    known: BTreeSet<Arc<str>>,
    tickets: Ticket,
}

/// What both came to, in the same words.
type Said = Result<Option<State>, &'static str>;

impl Pair {
    fn new() -> Self {
        let few = (name("few"), 1);
        let (retention_ms, dead_retention_ms, tasks) = (15_000, 25_000, 12);
        let running = vec![few];
        let config = Config { retention_ms, dead_retention_ms, tasks, running, ..config() };
        let mut model = Model::default();
        model.now = START;
        model.limits = vec![(name("few"), 1)];
        model.retention = (retention_ms, dead_retention_ms);
        model.capacity = tasks;
        let known = BTreeSet::new();
        Self { rig: Rig::with(config), model, proofs: Vec::new(), known, tickets: 0 }
    }

    fn task(&self, which: usize) -> TaskId {
        let nobody = TaskId::new(OWNER, 0, 0);
        let items = &self.model.items;
        items.get(which % items.len().max(1)).map_or(nobody, |item| item.id)
    }

    /// A lease that somebody has, or had.
    fn proof(&self, which: usize, stale: bool) -> Option<Proof> {
        let held: Vec<&Proof> = match stale {
            true => self.proofs.iter().collect(),
            false => {
                let leases = self.model.items.iter().filter_map(|item| item.lease.as_ref());
                leases.map(|held| &held.proof).collect()
            }
        };
        held.get(which % held.len().max(1)).map(|proof| (*proof).clone())
    }

    /// Applies an input, and compares who was given what and what was answered. `model` says what
    /// the model answers, given what the machine granted.
    fn both(&mut self, input: Input, model: impl FnOnce(&mut Model, &Step, &[Grant]) -> Said) {
        let shown = format!("{input:?}");
        let claim = match &input {
            Input::Claim(claim) => Some(claim.clone()),
            _ => None,
        };
        let step = self.rig.apply(input);
        let direct: &[Grant] = match &step.reply {
            Ok(Reply::Claimed(granted)) => &granted.tasks,
            _ => &[],
        };
        let later = step.grants.iter().flat_map(|(_, granted)| &granted.tasks);
        let all: Vec<Grant> = direct.iter().chain(later).cloned().collect();
        let mut served = Vec::new();
        if claim.is_some() {
            served.extend(self.model.serve(&all));
        }
        let said = model(&mut self.model, &step, &all);
        served.extend(self.model.serve(&all));
        let given = |granted: &Granted| -> Given {
            granted.tasks.iter().map(|grant| (grant.id, grant.attempt)).collect()
        };
        let grants: Vec<_> = step.grants.iter().map(|(of, to)| (*of, given(to))).collect();
        assert_eq!(grants, served, "who waited for {shown}");
        let answered: Said = match &step.reply {
            Ok(Reply::State { state, .. } | Reply::Submitted { state, .. }) => Ok(Some(*state)),
            Ok(_) => Ok(None),
            Err(refusal) => Err(refusal.code()),
        };
        assert_eq!(answered, said, "the answer to {shown}");
        assert!(step.reply.is_ok() || !step.sync, "what is refused is not kept");
        self.note(&all);
        self.compare(&shown);
    }

    /// Remembers leases; each has a greater number than all before.
    fn note(&mut self, grants: &[Grant]) {
        let mut new: Vec<Proof> = Vec::new();
        for grant in grants {
            let item = self.model.items.iter().find(|item| item.id == grant.id);
            new.extend(item.and_then(|item| item.last.clone()).map(|(proof, _)| proof));
        }
        new.sort_by_key(|proof| proof.fence);
        for proof in new {
            assert!(self.proofs.last().is_none_or(|last| last.fence < proof.fence), "I5");
            self.proofs.push(proof);
        }
    }

    fn compare(&self, after: &str) {
        let machine = &self.rig.machine;
        let mut found: Vec<_> = machine
            .tasks
            .iter()
            .map(|(_, task)| {
                let cancel = task.cancel_requested() && !task.state.is_final();
                (task.id, task.state, task.attempts, task.dead, cancel, task.priority)
            })
            .collect();
        found.sort_unstable_by_key(|(id, ..)| *id);
        let mut expected: Vec<_> = self
            .model
            .items
            .iter()
            .map(|item| {
                let cancel = item.cancel && !item.state.is_final();
                (item.id, item.state, item.attempts, item.dead, cancel, item.spec.priority)
            })
            .collect();
        expected.sort_unstable_by_key(|(id, ..)| *id);
        assert_eq!(found, expected, "after {after}");
        for item in &self.model.items {
            let most = item.spec.max_attempts;
            assert!(most == 0 || item.attempts <= most, "I7: {item:?}");
            let has_result = self.rig.kept.results.contains_key(&item.id);
            assert_eq!(has_result, item.state.is_final(), "I4: {item:?}");
        }
        let counts = machine.counts;
        let ended = counts.completed + counts.failed + counts.cancelled;
        assert_eq!(counts.live() + ended, self.rig.kept.tasks.len(), "I11");
    }

    /// Loads what was written: it is what is held.
    fn reload(&self) {
        let mut config = self.rig.machine.config.clone();
        config.epoch += 1;
        // Nobody's leases end with the node.
        let (machine, step) = self.rig.kept.load(config, self.rig.now(), "nobody");
        assert_eq!(snapshot(&machine), snapshot(&self.rig.machine));
        assert_eq!(step.writes, []);
        assert_eq!(self.rig.kept.orphans(), 0);
        assert_eq!(audit::audit(&machine, self.rig.ms), Vec::<String>::new());
    }
}

impl Pair {
    fn run(&mut self, op: Op) {
        let operator = || asker("operator");
        match op {
            Op::Submit { by, kind, priority, key, content, with } => {
                self.submit(by, kind, priority, key.map(|key| (key, content)), &with);
            }
            Op::Claim { worker: of, max_tasks, lease_ms, wait, picky } => {
                let of = WORKERS[of as usize];
                self.tickets += 1;
                self.known.insert(name(of));
                let claim = Claim {
                    kinds: picky.then(|| names(&["few", "tool.call"])),
                    labels: match of {
                        "w1" => BTreeSet::new(),
                        NODE | MEMBER => names(&["gpu", "tool:x"]),
                        _ => names(&["gpu"]),
                    },
                    session: (of == "w2").then(|| name("s")),
                    max_tasks,
                    lease_ms,
                    wait: wait.map(|ms| (self.tickets, self.model.now + ms)),
                    ..worker(of)
                };
                self.both(Input::Claim(claim.clone()), |model, step, grants| {
                    let given = model.claim(&claim, grants);
                    let direct = match &step.reply {
                        Ok(Reply::Claimed(granted)) => {
                            let tasks = granted.tasks.iter();
                            Some(tasks.map(|grant| (grant.id, grant.attempt)).collect::<Vec<_>>())
                        }
                        _ => None,
                    };
                    assert_eq!(direct, given, "what {claim:?} is given");
                    Ok(None)
                });
            }
            Op::Withdraw(back) => {
                let ticket = self.tickets.saturating_sub(back.into());
                self.both(Input::Withdraw(ticket), |model, _, _| {
                    model.withdraw(ticket);
                    Ok(None)
                });
            }
            Op::Beat { which, stale } => {
                let Some(proof) = self.proof(which, stale) else { return };
                let progress = Some(name("{}"));
                let input = Input::Heartbeat { proof: proof.clone(), progress, logs: Vec::new() };
                self.both(input, |model, _, _| {
                    let now = model.now;
                    let item = model.proved(&proof).ok_or("stale_fence")?;
                    if let Some(held) = &mut item.lease {
                        held.expires = now + held.lease_ms;
                    }
                    Ok(None)
                });
            }
            Op::Finish { which, stale, outcome, digest } => {
                let Some(proof) = self.proof(which, stale) else { return };
                let input =
                    Input::Finish { proof: proof.clone(), outcome: outcome.clone(), digest };
                self.both(input, |model, _, _| model.finish(&proof, &outcome, digest).map(Some));
            }
            Op::GiveBack { which, stale, asks } => {
                let Some(proof) = self.proof(which, stale) else { return };
                let input = match asks {
                    true => Input::Ask { proof: proof.clone(), asks: name("{}") },
                    false => Input::Release { proof: proof.clone(), reason: String::new() },
                };
                self.both(input, |model, _, _| model.give_back(&proof, asks).map(Some));
            }
            Op::Answer(which) => {
                let id = self.task(which);
                let (asked, answers) = (None, "{}".to_owned());
                let input = Input::Answer { asker: operator(), id, asked, answers };
                self.both(input, |model, _, _| {
                    let item = model.find(id).ok_or("not_found")?;
                    let asked = std::mem::take(&mut item.asks);
                    if asked { Ok(Some(item.state)) } else { Err("conflict") }
                });
            }
            Op::Cancel { which, force } => {
                let id = self.task(which);
                let input = Input::Cancel { asker: operator(), id, reason: String::new(), force };
                self.both(input, |model, _, _| model.cancel(id, force).map(Some));
            }
            Op::Prioritise { which, priority } => {
                let id = self.task(which);
                let input = Input::Prioritise { asker: operator(), id, priority };
                self.both(input, |model, _, _| {
                    let item = model.find(id).ok_or("not_found")?;
                    match item.state {
                        State::Queued => item.spec.priority = priority,
                        State::Running => return Err("conflict"),
                        _ => return Err("finished"),
                    }
                    Ok(None)
                });
            }
            Op::Delay { which, ms } => {
                let (id, not_before) = (self.task(which), self.model.now + ms);
                let change = Change { not_before: Some(not_before), ..Change::default() };
                self.both(Input::Update { asker: operator(), id, change }, |model, _, _| {
                    let item = model.find(id).ok_or("not_found")?;
                    match item.state {
                        State::Queued => item.not_before = not_before,
                        State::Running => return Err("conflict"),
                        _ => return Err("finished"),
                    }
                    Ok(None)
                });
            }
            Op::Attempts { which, most } => {
                let id = self.task(which);
                let change = Change { max_attempts: Some(most), ..Change::default() };
                self.both(Input::Update { asker: operator(), id, change }, |model, _, _| {
                    let item = model.find(id).ok_or("not_found")?;
                    let waits = item.state == State::Queued;
                    if item.state.is_final() {
                        return Err("finished");
                    }
                    if most != 0 && most < item.attempts + u16::from(waits) {
                        return Err("out_of_range");
                    }
                    item.spec.max_attempts = most;
                    Ok(None)
                });
            }
            Op::Pause(paused) => self.both(Input::Pause(paused), |model, _, _| {
                model.pause(paused);
                Ok(None)
            }),
            Op::Drain { worker, on } => {
                let worker = name(WORKERS[worker as usize]);
                let known = self.known.contains(&worker)
                    || self.model.is_drained(&worker)
                    || *worker == *NODE;
                self.both(Input::Drain { worker: worker.clone(), on }, |model, _, _| {
                    if !known {
                        return Err("not_found");
                    }
                    model.drain(&worker, on);
                    Ok(None)
                });
            }
            Op::Purge { state, older_ms } => {
                let before = self.model.now - older_ms;
                self.both(Input::Purge { state, before }, |model, step, _| {
                    let removed = model.forget(|item| {
                        let is_meant = state.is_none_or(|state| item.state == state);
                        item.state.is_final() && item.since < before && is_meant
                    });
                    assert_eq!(step.reply, Ok(Reply::Purged { removed, more: false }));
                    Ok(None)
                });
            }
            Op::Pass(ms) => {
                self.rig.ms += ms;
                self.both(Input::Tick, |model, _, _| {
                    model.pass(model.now + ms);
                    Ok(None)
                });
            }
            Op::Restart => {
                self.reload();
                self.rig.restart();
                self.model.restart();
                let workers = self.rig.machine.workers.by_key.keys();
                self.known = workers.map(|(of, _)| of.clone()).collect();
                self.compare("a restart");
            }
        }
    }

    fn submit(&mut self, by: u8, kind: u8, priority: u8, key: Option<(u8, u8)>, with: &With) {
        let (by, kind) = (format!("p{by}"), KINDS[kind as usize]);
        let now = self.model.now;
        let content = key.map_or(0, |(_, content)| content);
        let fail = with.fail;
        let spec = Spec {
            priority,
            key: key.map(|(key, _)| key_digest("p", &key.to_string())),
            content: content_digest(kind, "", &content.to_string()),
            requires: match with.label {
                true if kind == "tool.call" => names(&["tool:x"]),
                true => names(&["gpu"]),
                false => Vec::new(),
            },
            session: with.session.then(|| name("s")),
            timeout_ms: with.timeout,
            max_attempts: with.max_attempts,
            not_before: if with.delay > 0 { now + with.delay } else { 0 },
            deadline: with.deadline.map(|ms| now + ms),
            on_lost: if fail { OnLost::Fail } else { OnLost::Retry },
            retries_asked: with.retries_asked,
            ..spec(kind)
        };
        self.rig.chance += 1;
        let submitter = Submitter { id: by.as_str().into(), role: Role::Client };
        let input = Input::Submit { by: submitter, spec: Box::new(spec.clone()), id: None };
        self.both(input, |model, step, _| {
            let given = match &step.reply {
                Ok(Reply::Submitted { id, .. }) => Some(*id),
                _ => None,
            };
            let is_new = given.is_some_and(|id| model.find(id).is_none());
            let created = matches!(&step.reply, Ok(Reply::Submitted { created: true, .. }));
            assert_eq!(created, is_new, "I12");
            let id = model.submit(&name(&by), &spec, given)?;
            assert_eq!(given, Some(id), "I12: one task of one key");
            Ok(model.find(id).map(|item| item.state))
        });
        // Chance stays so small that nothing is taken off a wait: the model throws no dice.
        self.rig.chance &= 0xff;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_does_what_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::new();
        for op in ops {
            pair.run(op);
        }
        pair.reload();
        // Left alone, everything that waits for nobody ends or can be run, and is forgotten then.
        pair.run(Op::Pause(false));
        for _ in 0..40 {
            pair.run(Op::Pass(30_000));
        }
        let machine = &pair.rig.machine;
        prop_assert_eq!(machine.counts.running, 0);
        for (_, task) in &machine.tasks {
            prop_assert!(task.in_lane || task.asks().is_some(), "I6: {:?}", task);
        }
    }
}
