//! Which worker gets which task.

use super::*;

#[test]
fn a_node_runs_tools_and_commands_and_others_run_the_rest() {
    let mut rig = Rig::new();
    let [tool, command, other] =
        ["tool.call", "command.build", "tool.called"].map(|kind| rig.submit(spec(kind)));
    let all = |of| Claim { max_tasks: 10, ..worker(of) };
    assert_eq!(rig.ids(all("w")), [other]);
    assert_eq!(rig.ids(all(NODE)), [tool, command]);
    // Naming the type does not help.
    rig.submit(spec("tool.call"));
    assert_eq!(rig.ids(Claim { kinds: Some(names(&["tool.call"])), ..worker("w") }), []);
}

#[test]
fn a_member_gets_calls_of_tools_that_it_reaches_and_commands_that_it_names() {
    let mut rig = Rig::new();
    let placed = |tool: &str| {
        let mut placed = spec("tool.call");
        placed.place_by(tool);
        placed
    };
    let [call, command, other] =
        ["tool.call", "command.build", "work"].map(|kind| rig.submit(spec(kind)));
    let [here, there] = ["x", "y"].map(|tool| rig.submit(placed(tool)));
    let labels = || names(&["tool:x", "tool:z"]);
    let all = |of| Claim { max_tasks: 10, labels: labels(), ..worker(of) };
    let kinds = |kinds: &[&str]| Some(names(kinds));
    let named = Claim { kinds: kinds(&["tool.call", "work"]), ..all(MEMBER) };
    assert_eq!(rig.ids(named), [here], "no command, nothing of others, no tool that is elsewhere");
    assert_eq!(rig.ids(all(MEMBER)), [], "nor because it names nothing");
    assert_eq!(rig.ids(Claim { kinds: kinds(&["command.build"]), ..all(MEMBER) }), [command]);
    assert_eq!(rig.ids(all(NODE)), [call], "what is placed elsewhere is not for this node");
    assert_eq!(rig.ids(Claim { labels: names(&["tool:y"]), ..all(NODE) }), [there]);
    assert_eq!(rig.ids(all("w")), [other]);
}

#[test]
fn what_is_too_large_waits_for_who_takes_it_and_is_in_nobodys_way() {
    let mut rig = Rig::new();
    let of = |bytes| Spec { payload: "7".repeat(bytes), ..spec("work") };
    let large = rig.submit(of(limits::QUEUE_RPC_PAYLOAD_BYTES + 1));
    let fits = rig.submit(of(limits::QUEUE_RPC_PAYLOAD_BYTES));
    let small = || Claim { takes_large: false, max_tasks: 9, ..worker("rpc") };
    let waits = Claim { wait: Some((1, START + 60_000)), ..small() };
    assert_eq!(rig.ids(small()), [fits]);
    assert_eq!(rig.ok(Input::Claim(waits)), Reply::Waiting);
    let why = "it is too large for the workers here: over task_queue.rpc none gets it";
    assert_eq!(rig.view(large).why, why);
    assert_eq!(rig.ids(worker("w")), [large]);
}

#[test]
fn a_claim_of_no_tasks_is_told_whether_there_are_any() {
    let mut rig = Rig::new();
    let none = || Claim { max_tasks: 0, ..worker("w") };
    let more = |more| Granted { more, ..Granted::default() };
    let told = |granted| Ok(Reply::Claimed(granted));
    assert_eq!(rig.apply(Input::Claim(none())).reply, told(more(false)));
    let waits = Claim { wait: Some((1, START + 60_000)), ..none() };
    assert_eq!(rig.ok(Input::Claim(waits.clone())), Reply::Waiting);
    rig.submit(spec("tool.call"));
    let step = rig.try_submit("alice", spec("work"), None);
    assert_eq!(step.grants, [(1, more(true))]);
    assert_eq!(rig.apply(Input::Claim(waits)).reply, told(more(true)), "at once where there are");
    rig.submit(spec("work"));
    let mut granted = Vec::new();
    for _ in 0..3 {
        let step = rig.apply(Input::Claim(worker("w")));
        let Ok(Reply::Claimed(claimed)) = step.reply else { continue };
        granted.push((claimed.tasks.len(), claimed.more));
    }
    assert_eq!(granted, [(1, true), (1, false), (0, false)]);
}

#[test]
fn who_only_asks_is_not_told_of_a_task_that_another_claim_takes() {
    let mut rig = Rig::new();
    let until = START + 60_000;
    let asks = Claim { max_tasks: 0, wait: Some((1, until)), ..worker("a") };
    assert_eq!(rig.ok(Input::Claim(asks)), Reply::Waiting);
    let takes = Claim { wait: Some((2, until)), ..worker("b") };
    assert_eq!(rig.ok(Input::Claim(takes)), Reply::Waiting);
    let answered = |step: Step| -> Vec<_> {
        let told = step.grants.into_iter();
        told.map(|(ticket, granted)| (ticket, granted.tasks.len(), granted.more)).collect()
    };
    assert_eq!(answered(rig.try_submit("alice", spec("work"), None)), [(2, 1, false)]);
    assert_eq!(answered(rig.try_submit("alice", spec("work"), None)), [(1, 0, true)]);
}

#[test]
fn a_worker_gets_the_types_that_it_names_and_no_more_than_it_wants() {
    let mut rig = Rig::new();
    let [a, _b, c, d] = ["a", "b", "c", "a"].map(|kind| rig.submit(spec(kind)));
    let kinds = Some(names(&["a", "c", "unheard of"]));
    assert_eq!(rig.ids(Claim { kinds: kinds.clone(), max_tasks: 2, ..worker("w") }), [a, c]);
    assert_eq!(rig.ids(Claim { kinds, max_tasks: 2, ..worker("w") }), [d]);
}

#[test]
fn a_worker_has_all_labels_that_a_task_requires() {
    let mut rig = Rig::new();
    let id = rig.submit(Spec { requires: names(&["big", "gpu"]), ..spec("work") });
    for labels in [&[][..], &["gpu"], &["big", "cpu"]] {
        assert_eq!(rig.ids(Claim { labels: names(labels), ..worker("w") }), []);
    }
    let labels = names(&["big", "cpu", "gpu"]);
    assert_eq!(rig.ids(Claim { labels, ..worker("w") }), [id]);
}

#[test]
fn a_session_is_for_workers_of_that_session_and_for_nodes() {
    let mut rig = Rig::new();
    let session = Some(name("s"));
    let id = rig.submit(Spec { session: session.clone(), ..spec("work") });
    let free = rig.submit(spec("work"));
    let tool = rig.submit(Spec { session: session.clone(), ..spec("tool.call") });
    assert_eq!(rig.ids(Claim { session: Some(name("t")), ..worker("v") }), [free]);
    assert_eq!(rig.ids(Claim { session, ..worker("w") }), [id]);
    assert_eq!(rig.ids(worker(NODE)), [tool]);
}

#[test]
fn a_sticky_task_waits_for_its_worker_while_that_is_here() {
    let mut rig = Rig::new();
    let sticky = || Spec { sticky: Some(name("w")), ..spec("work") };
    // Nobody of that name is here: anybody may.
    let id = rig.submit(sticky());
    assert_eq!(rig.ids(worker("v")), [id]);
    rig.cancel("alice", id, true);
    rig.ok(Input::Alive { worker: name("w"), principal: name("token:w") });
    let id = rig.submit(sticky());
    assert_eq!(rig.ids(worker("v")), []);
    rig.pass(limits::QUEUE_WORKER_AWAY_MS);
    assert_eq!(rig.ids(worker("v")), [], "it is here to the last millisecond");
    rig.pass(1);
    assert_eq!(rig.ids(worker("v")), [id]);
    rig.cancel("alice", id, true);
    // Whoever has a lease is here.
    let id = rig.submit(sticky());
    let grant = rig.take("w");
    assert_eq!(grant.id, id);
    for _ in 0..10 {
        rig.pass(20_000);
        rig.beat("w", &grant);
    }
    let id = rig.submit(sticky());
    assert_eq!(rig.ids(worker("v")), []);
    assert_eq!(rig.ids(worker("w")), [id]);
}

#[test]
fn a_claim_that_waits_gets_a_sticky_task_once_its_worker_has_gone() {
    let mut rig = Rig::new();
    rig.ok(Input::Alive { worker: name("w"), principal: name("token:w") });
    let id = rig.submit(Spec { sticky: Some(name("w")), ..spec("work") });
    let wait = Some((1, START + 200_000));
    assert_eq!(rig.ok(Input::Claim(Claim { wait, ..worker("v") })), Reply::Waiting);
    // Other inputs come all the time and put nothing off.
    let mut granted = None;
    for second in 1..120 {
        rig.ms += 1_000;
        let step = rig.apply(Input::Alive { worker: name("x"), principal: name("token:x") });
        if let Some((ticket, found)) = step.grants.first() {
            assert_eq!(granted, None);
            assert_eq!((*ticket, found.tasks.first().map(|grant| grant.id)), (1, Some(id)));
            granted = Some(second * 1_000);
        }
        let latest = rig.ms + limits::QUEUE_LOOK_AGAIN_MS;
        assert!(granted.is_some() || step.wake_at.is_some_and(|at| at <= latest));
    }
    let latest = limits::QUEUE_WORKER_AWAY_MS + limits::QUEUE_LOOK_AGAIN_MS + 1_000;
    let in_time = granted.is_some_and(|at| (limits::QUEUE_WORKER_AWAY_MS..=latest).contains(&at));
    assert!(in_time, "{granted:?}");
}

#[test]
fn as_many_of_a_type_run_as_may() {
    let mut rig = Rig::with(Config { running: vec![(name("few"), 2)], ..config() });
    let few: Vec<TaskId> = (0..4).map(|_| rig.submit(spec("few"))).collect();
    let many = rig.submit(spec("many"));
    let mut grants = rig.claim(Claim { max_tasks: 10, ..worker("w") });
    let given: Vec<TaskId> = grants.iter().map(|grant| grant.id).collect();
    assert_eq!(given, [few[0], few[1], many]);
    assert_eq!(rig.view(few[2]).why, "as many tasks of its type run as may, 2");
    let ends: [fn(&mut Rig, &Grant) -> Step; 3] = [
        |rig, grant| {
            let proof = proof("w", grant);
            rig.apply(Input::Finish { proof, outcome: completed(), digest: 1 })
        },
        |rig, grant| rig.cancel("alice", grant.id, true),
        |rig, _| {
            rig.ms += LEASE;
            rig.apply(Input::Tick)
        },
    ];
    for (ticket, end) in (0..).zip(ends) {
        let wait = Some((ticket, rig.ms + 60_000));
        let claim = Claim { wait, kinds: Some(names(&["few"])), ..worker("w") };
        assert_eq!(rig.ok(Input::Claim(claim)), Reply::Waiting);
        let step = end(&mut rig, &grants.remove(0));
        let given = step.grants.into_iter().flat_map(|(_, granted)| granted.tasks);
        // What ended makes room for who waits.
        assert_eq!(given.inspect(|grant| grants.insert(0, grant.clone())).count(), 1);
        let running = rig.machine.kinds.iter().find(|(_, of, _)| ***of == *"few");
        assert!(running.is_some_and(|(_, _, kind)| kind.running <= 2));
    }
}

#[test]
fn a_paused_queue_takes_tasks_and_gives_none() {
    let mut rig = Rig::new();
    let runs = rig.submit(spec("work"));
    let grant = rig.take("w");
    assert!(rig.apply(Input::Pause(true)).sync);
    let id = rig.submit(spec("work"));
    let wait = Some((9, START + 100_000));
    assert_eq!(rig.ok(Input::Claim(Claim { wait, ..worker("w") })), Reply::Waiting);
    let Reply::Claimed(granted) = rig.ok(Input::Claim(worker("v"))) else {
        unreachable!("it does not wait")
    };
    assert!(granted.paused && granted.tasks.is_empty());
    assert_eq!(rig.view(id).why, "the queue is paused; an operator resumes it");
    // What runs goes on.
    assert!(rig.beat("w", &grant).reply.is_ok());
    assert_eq!(rig.finish("w", &grant, completed()), State::Completed);
    assert_eq!(rig.view(runs).state, State::Completed);
    let grants = rig.apply(Input::Pause(false)).grants;
    assert_eq!(grants.len(), 1, "who waited is served at once");
    assert!(rig.apply(Input::Pause(true)).sync);
    rig.restart();
    assert!(rig.machine.status(rig.now()).paused, "a pause outlives the node");
}

#[test]
fn a_drained_worker_gets_no_more_and_is_told() {
    let mut rig = Rig::new();
    let first = rig.submit(spec("work"));
    let grant = rig.take("w");
    let wait = Some((1, START + 50_000));
    assert_eq!(rig.ok(Input::Claim(Claim { wait, ..worker("w") })), Reply::Waiting);
    let step = rig.apply(Input::Drain { worker: name("w"), on: true });
    let told = Granted { draining: true, ..Granted::default() };
    assert_eq!(step.grants, [(1, told.clone())], "a claim that waits is answered at once");
    let second = rig.submit(spec("work"));
    assert_eq!(rig.ok(Input::Claim(Claim { wait, ..worker("w") })), Reply::Claimed(told));
    assert!(rig.view(second).why.contains("take no more tasks"), "{}", rig.view(second).why);
    let alive = rig.beat("w", &grant).reply;
    assert!(matches!(alive, Ok(Reply::Alive { draining: true, .. })));
    assert_eq!(rig.finish("w", &grant, completed()), State::Completed);
    assert_eq!(rig.state(first), State::Completed);
    rig.ok(Input::Drain { worker: name("w"), on: false });
    assert_eq!(rig.ids(worker("w")), [second]);
    let unknown = Input::Drain { worker: name("nobody"), on: true };
    assert_eq!(rig.refused(unknown), "not_found");
}

#[test]
fn a_worker_is_drained_until_that_is_taken_back_whether_or_not_it_is_known_meanwhile() {
    let mut rig = Rig::new();
    rig.ok(Input::Claim(worker("w")));
    let step = rig.apply(Input::Drain { worker: name("w"), on: true });
    assert_eq!((step.writes, step.sync), (vec![Write::Drained(name("w"), true)], true));
    let again = rig.apply(Input::Drain { worker: name("w"), on: true });
    assert_eq!((again.reply, again.writes), (Ok(Reply::Done), Vec::new()));
    rig.restart();
    assert!(rig.machine.is_drained(&name("w")));
    let id = rig.submit(spec("work"));
    assert_eq!(rig.ids(worker("w")), []);
    rig.restart();
    // Nobody of that name was seen since.
    let step = rig.apply(Input::Drain { worker: name("w"), on: false });
    assert_eq!((step.writes, step.sync), (vec![Write::Drained(name("w"), false)], true));
    assert_eq!(rig.ids(worker("w")), [id]);
    rig.restart();
    assert!(!rig.machine.is_drained(&name("w")));
}

#[test]
fn the_nodes_own_worker_is_drained_before_it_ever_claims() {
    let mut rig = Rig::new();
    rig.restart();
    rig.ok(Input::Drain { worker: name(NODE), on: true });
    rig.restart();
    assert!(rig.machine.is_drained(&name(NODE)));
    let call = rig.submit(spec("tool.call"));
    assert_eq!(rig.ids(worker(NODE)), []);
    rig.ok(Input::Drain { worker: name(NODE), on: false });
    assert_eq!(rig.ids(worker(NODE)), [call]);
}

#[test]
fn as_many_workers_are_drained_as_are_known() {
    let mut rig = Rig::new();
    let named = |number: usize| name(&format!("w{number:04}"));
    for number in 0..=limits::QUEUE_WORKERS {
        rig.ok(Input::Claim(Claim { worker: named(number), ..worker("w") }));
        let step = rig.apply(Input::Drain { worker: named(number), on: true });
        assert_eq!(step.reply, Ok(Reply::Done));
        // The one that is not known any more makes room.
        let first = number == limits::QUEUE_WORKERS;
        assert_eq!(step.writes.contains(&Write::Drained(named(0), false)), first);
    }
    let again = rig.apply(Input::Drain { worker: named(1), on: true });
    assert_eq!((again.reply, again.writes), (Ok(Reply::Done), Vec::new()));
}

#[test]
fn workers_are_bounded_and_the_longest_silent_one_makes_room() {
    let mut rig = Rig::new();
    let alive = |of: usize| {
        let of = format!("w{of}");
        Input::Alive { worker: of.as_str().into(), principal: of.as_str().into() }
    };
    for number in 0..limits::QUEUE_WORKERS {
        rig.ms += 1;
        rig.ok(alive(number));
    }
    rig.ok(alive(0));
    rig.ok(alive(limits::QUEUE_WORKERS));
    let known = rig.machine.workers(rig.now());
    assert_eq!(known.len(), limits::QUEUE_WORKERS);
    let is_known = |of: &str| known.iter().any(|worker| *worker.worker == *of);
    assert!(is_known("w0") && !is_known("w1"), "the first was heard of since");
}

#[test]
fn when_all_workers_have_tasks_a_new_one_is_refused() {
    let mut rig = Rig::new();
    // Not by way of the rig: it looks at everything after every step.
    for number in 0..limits::QUEUE_WORKERS {
        let now = Now { ms: START, chance: number as u64 };
        let by = Submitter { id: "alice".into(), role: Role::Client };
        rig.machine.apply(now, Input::Submit { by, spec: Box::new(spec("work")), id: None });
        let step = rig.machine.apply(now, Input::Claim(worker(&format!("w{number}"))));
        assert!(matches!(step.reply, Ok(Reply::Claimed(granted)) if granted.tasks.len() == 1));
    }
    assert_eq!(rig.refused(Input::Claim(worker("one more"))), "busy");
    let alive = Input::Alive { worker: name("one more"), principal: name("p") };
    assert_eq!(rig.refused(alive), "busy");
    assert_eq!(rig.ids(worker("w5")), []);
}

#[test]
fn a_sticky_task_does_not_wait_for_a_worker_that_never_takes_it() {
    type Make = fn(&mut Rig);
    let table: [(&str, Make); 4] = [
        ("takes other types", |rig| {
            rig.ids(Claim { kinds: Some(names(&["other"])), ..worker("w") });
        }),
        ("has not its labels", |rig| drop(rig.ids(worker("w")))),
        ("is of another session", |rig| {
            let session = Some(name("t"));
            rig.ids(Claim { session, labels: names(&["gpu"]), ..worker("w") });
        }),
        ("is drained", |rig| {
            let session = Some(name("s"));
            rig.ids(Claim { session, labels: names(&["gpu"]), ..worker("w") });
            rig.ok(Input::Drain { worker: name("w"), on: true });
        }),
    ];
    for (what, make) in table {
        let mut rig = Rig::new();
        make(&mut rig);
        let sticky = Some(name("w"));
        let session = Some(name("s"));
        let requires = names(&["gpu"]);
        let id = rig.submit(Spec { sticky, session: session.clone(), requires, ..spec("work") });
        let other = Claim { session, labels: names(&["gpu"]), ..worker("v") };
        assert_eq!(rig.ids(other), [id], "w {what}");
    }
    // A tool is run by nodes, whatever worker its submitter names.
    let mut rig = Rig::new();
    rig.ids(worker("w"));
    let id = rig.submit(Spec { sticky: Some(name("w")), ..spec("tool.call") });
    assert_eq!(rig.ids(worker(NODE)), [id]);
}
