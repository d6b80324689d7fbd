//! What is shown, and why each task is where it is.

use super::*;

fn ids(page: &Page) -> Vec<TaskId> {
    page.tasks.iter().map(|task| task.id).collect()
}

#[test]
fn every_state_says_why_it_is_where_it_is() {
    let mut rig = Rig::new();
    let why = |rig: &Rig, id| rig.view(id).why;
    let id = rig.submit(Spec { requires: names(&["gpu"]), ..spec("work") });
    assert_eq!(why(&rig, id), "no worker for tasks of type work is here");
    rig.ids(worker("w"));
    assert_eq!(why(&rig, id), "no worker here has the labels gpu");
    let session = rig.submit(Spec { session: Some(name("s1")), ..spec("work") });
    assert_eq!(why(&rig, session), "no worker of session s1 is here that fits");
    let sticky = rig.submit(Spec { sticky: Some(name("w")), priority: 1, ..spec("work") });
    assert_eq!(why(&rig, sticky), "waits for its turn at worker w, about 0 before it");
    rig.ok(Input::Alive { worker: name("u"), principal: name("token:u") });
    let sticky = Some(name("u"));
    let sticky = rig.submit(Spec { sticky, requires: names(&["x"]), ..spec("work") });
    assert_eq!(why(&rig, sticky), "waits for worker u, which is here");
    let plain = rig.submit(spec("work"));
    let next = rig.submit(spec("work"));
    assert_eq!(why(&rig, next), "waits for its turn, about 1 before it");
    let delayed = rig.submit(Spec { not_before: START + 2_500, ..spec("work") });
    assert_eq!(why(&rig, delayed), "waits 3 s more for its time");
    let grant = rig.take("w");
    assert_eq!(grant.id, plain);
    rig.ms += 2_000;
    assert_eq!(why(&rig, plain), "runs at worker w, for 2 s");
    rig.finish("w", &grant, failed("no memory"));
    assert_eq!(why(&rig, plain), "waits 1 s more for its next attempt; before: no memory");
    rig.pass(1_000);
    assert_eq!(why(&rig, plain), "waits for its turn, about 0 before it; before: no memory");
    let grant = rig.take("w");
    rig.ok(Input::Ask { proof: proof("w", &grant), asks: name("{}") });
    assert_eq!(why(&rig, plain), "waits for input of its submitter");
    let grant = rig.take("w");
    rig.finish("w", &grant, completed());
    assert_eq!(why(&rig, next), "it ended with a result");
    rig.cancel("alice", delayed, false);
    assert_eq!(why(&rig, delayed), "not needed");
    let late = rig.submit(Spec { deadline: Some(rig.ms + 1), ..spec("work") });
    rig.pass(1);
    assert_eq!(why(&rig, late), "its deadline passed before it had ended");
}

#[test]
fn a_list_is_of_ones_own_tasks_the_newest_first() {
    let mut rig = Rig::new();
    let mut alices = Vec::new();
    for number in 0..7 {
        rig.ms += 1_000;
        alices.push(rig.submit_by("alice", spec("work")));
        if number % 2 == 0 {
            rig.submit_by("bob", Spec { priority: 8, ..spec("other") });
        }
    }
    alices.reverse();
    let list = |rig: &Rig, by: &str, filter: &Filter, limit| {
        rig.machine.list(&asker(by), filter, limit, rig.now())
    };
    let mut filter = Filter::default();
    let mut found = Vec::new();
    loop {
        let page = list(&rig, "alice", &filter, 3);
        assert!(page.tasks.len() <= 3);
        found.extend(ids(&page));
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(found, alices);
    assert_eq!(list(&rig, "operator", &Filter::default(), 100).tasks.len(), 11);
    assert_eq!(list(&rig, "carol", &Filter::default(), 100).tasks.len(), 0);
    // A page that ends where everything ends says so.
    assert_eq!(list(&rig, "alice", &Filter::default(), 7).next, None);
    assert!(list(&rig, "alice", &Filter::default(), 6).next.is_some());
    assert_eq!(list(&rig, "operator", &Filter::default(), 11).next, None);
    let grant = rig.take("w");
    let running = Filter { state: Some(State::Running), ..Filter::default() };
    assert_eq!(ids(&list(&rig, "operator", &running, 9)), [grant.id]);
    let at_worker = Filter { worker: Some("w".to_owned()), ..Filter::default() };
    assert_eq!(ids(&list(&rig, "operator", &at_worker, 9)), [grant.id]);
    let at_nobody = Filter { worker: Some("v".to_owned()), ..Filter::default() };
    assert_eq!(list(&rig, "operator", &at_nobody, 9).tasks.len(), 0);
    let of_kind = Filter { kind: Some("other".to_owned()), ..Filter::default() };
    assert_eq!(list(&rig, "operator", &of_kind, 9).tasks.len(), 4);
    let high = Filter { priority_min: 8, ..Filter::default() };
    assert_eq!(list(&rig, "operator", &high, 9).tasks.len(), 4);
}

#[test]
fn a_page_with_a_rare_filter_looks_at_so_many_and_says_where_to_go_on() {
    let mut rig = Rig::new();
    let rare = rig.submit(spec("rare"));
    for chance in 0..limits::QUEUE_LIST_LOOK as u64 {
        let by = Submitter { id: "alice".into(), role: Role::Client };
        let now = Now { ms: START + 1_000, chance };
        let input = Input::Submit { by, spec: Box::new(spec("work")), id: None };
        assert!(rig.machine.apply(now, input).reply.is_ok());
    }
    let filter = Filter { kind: Some("rare".to_owned()), ..Filter::default() };
    let page = rig.machine.list(&asker("alice"), &filter, 10, rig.now());
    assert_eq!(page.tasks, []);
    assert!(page.next.is_some());
    let filter = Filter { before: page.next, ..filter };
    let page = rig.machine.list(&asker("alice"), &filter, 10, rig.now());
    assert_eq!((ids(&page), page.next), (vec![rare], None));
}

#[test]
fn dead_letters_come_in_pages_and_none_is_missed() {
    let mut rig = Rig::new();
    let mut all = Vec::new();
    for number in 0..12_u64 {
        // Four at a time in one millisecond, and ids in no order of the table.
        rig.ms += u64::from(number % 4 == 0);
        rig.chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
        let id = rig.submit(Spec { max_attempts: 1, ..spec("work") });
        let grant = rig.take("w");
        rig.finish("w", &grant, failed("x"));
        all.push((rig.ms, id));
    }
    all.sort_unstable();
    all.reverse();
    for limit in [1, 3, 5, 12, 50] {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let (page, more) = rig.machine.dead_letters(before, limit, rig.now());
            assert!(page.len() <= limit);
            found.extend(page.iter().map(|task| (task.since, task.id)));
            before = found.last().copied();
            if !more {
                break;
            }
        }
        assert_eq!(found, all, "pages of {limit}");
    }
}

#[test]
fn a_position_is_an_estimate_that_says_so() {
    let mut rig = Rig::new();
    let first = rig.submit(spec("work"));
    let ids: Vec<TaskId> = (0..5).map(|_| rig.submit(spec("work"))).collect();
    let high = rig.submit(Spec { priority: 9, ..spec("work") });
    let position = |rig: &Rig, id| rig.view(id).position;
    let at = |ahead, eta_ms| Some(Position { ahead, at_least: false, eta_ms });
    assert_eq!(position(&rig, first), at(1, None));
    assert_eq!(position(&rig, ids[4]), at(6, None));
    assert_eq!(position(&rig, high), at(0, None));
    let grant = rig.take("w");
    assert_eq!(position(&rig, high), None, "it does not wait any more");
    rig.ms += 2_000;
    rig.finish("w", &grant, completed());
    assert_eq!(position(&rig, first), at(0, Some(2_000)));
    assert_eq!(position(&rig, ids[2]), at(3, Some(8_000)));
    let delayed = rig.submit(Spec { not_before: rig.ms + 1, ..spec("work") });
    assert_eq!(position(&rig, delayed), None);
}

#[test]
fn the_queue_and_its_workers_are_shown() {
    let mut rig = Rig::new();
    let claim = || Claim { kinds: Some(names(&["work"])), labels: names(&["gpu"]), ..worker("w") };
    for took in [100, 200, 300] {
        rig.submit(spec("work"));
        let grant = rig.claim(claim()).remove(0);
        rig.ms += took;
        let outcome = if took == 300 { failed("x") } else { completed() };
        rig.finish("w", &grant, outcome);
    }
    rig.submit(spec("other"));
    rig.ms += 500;
    let [view] = rig
        .machine
        .workers(rig.now())
        .try_into()
        .unwrap_or_else(|found| unreachable!("one worker, not {found:?}"));
    assert_eq!((view.completed, view.failed, view.running), (2, 1, 0));
    assert_eq!((view.mean_ms, view.p95_ms, view.seen_ms_ago), (Some(200), Some(300), 500));
    assert_eq!(
        (view.state, view.labels, view.kinds),
        ("idle", names(&["gpu"]), Some(names(&["work"])))
    );
    let status = rig.machine.status(rig.now());
    assert_eq!((status.workers, status.oldest), (1, Some(START + 600)));
    assert_eq!((status.counts.queued, status.counts.delayed, status.counts.completed), (1, 1, 2));
    assert_eq!(status.counts.submitted_total, 4);
    assert_eq!(status.kinds, [(name("work"), 1, 0), (name("other"), 1, 0)]);
    rig.pass(1_000);
    let grant = rig.claim(claim());
    assert_eq!(rig.machine.workers(rig.now())[0].state, "active");
    rig.finish("w", &grant[0], completed());
    rig.ok(Input::Drain { worker: name("w"), on: true });
    assert_eq!(rig.machine.workers(rig.now())[0].state, "draining");
    rig.ok(Input::Drain { worker: name("w"), on: false });
    rig.pass(limits::QUEUE_WORKER_AWAY_MS + 1);
    assert_eq!(rig.machine.workers(rig.now())[0].state, "away");
}

#[test]
fn the_oldest_come_in_the_order_they_were_submitted_though_in_one_second() {
    let mut rig = Rig::new();
    let submit = |rig: &mut Rig, kind: &str| {
        rig.ms += 300;
        rig.submit_by("bob", spec("other"));
        rig.submit_by("alice", spec(kind))
    };
    let kinds = ["a", "b", "a", "c", "a", "a", "b", "a"];
    let alices: Vec<TaskId> = kinds.iter().map(|kind| submit(&mut rig, kind)).collect();
    let oldest = |filter: &Filter, kinds: &[&str], limit| {
        let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        let tasks = rig.machine.oldest(&asker("alice"), filter, &kinds, limit, rig.now());
        tasks.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    let all = Filter::default();
    assert_eq!(oldest(&all, &[], 100), alices);
    for limit in 0..=alices.len() {
        assert_eq!(oldest(&all, &[], limit), alices[..limit]);
    }
    assert_eq!(oldest(&all, &["b", "c", "none"], 100), [alices[1], alices[3], alices[6]]);
    let running = Filter { state: Some(State::Running), ..Filter::default() };
    assert!(oldest(&running, &[], 100).is_empty());
}

#[test]
fn the_last_lease_of_a_task_is_known_and_present_only_while_it_holds() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    assert_eq!(rig.machine.last_lease(id), None);
    let grant = rig.take("w");
    let held = LeaseRecord {
        worker: name("w"),
        principal: proof("w", &grant).principal,
        fence: grant.fence,
        lease_ms: grant.lease_ms,
    };
    assert_eq!(rig.machine.last_lease(id), Some((grant.fence, Some(held))));
    rig.finish("w", &grant, completed());
    assert_eq!(rig.machine.last_lease(id), Some((grant.fence, None)));
}
