//! Whether the tables of a machine agree with its tasks, and what must be equal after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::super::{task::Task, *};

/// Compares every table with the tasks; returns where they differ.
pub(super) fn audit(machine: &Machine, now: u64) -> Vec<String> {
    let mut problems = Vec::new();
    let mut claim = |holds: bool, what: String| {
        if !holds {
            problems.push(what);
        }
    };
    let mut counts = Counts::default();
    let (mut kinds, mut classes, mut submitters) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut workers, mut waiting_by_kind, mut running_by_kind) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut lines, mut timers, mut keys, mut ended) = (BTreeMap::new(), 0, 0, 0);
    for (slot, task) in &machine.tasks {
        let slot = machine::slot_of(slot);
        let id = task.id;
        *kinds.entry(task.kind).or_insert(0_usize) += 1;
        *submitters.entry(task.submitter).or_insert(0_usize) += 1;
        claim(machine.ids.get(&id) == Some(&slot), format!("{id}: not among the ids"));
        if task.key != [0; 16] {
            keys += 1;
            claim(machine.keys.get(&task.key) == Some(&slot), format!("{id}: its key is lost"));
        }
        if task.timer > 0 {
            timers += 1;
            let noted = machine.timers.contains(&(task.timer, slot));
            claim(noted, format!("{id}: its timer is lost"));
        }
        let due = task.due(now).map_or(0, |due| due.max(1));
        let known = task.timer == due || (task.timer > 0 && task.timer <= now);
        claim(known, format!("{id}: due at {due}, noted for {}", task.timer));
        if !task.state.is_final() {
            *classes.entry(task.class).or_insert(0_usize) += 1;
        }
        claim(
            task.in_lane == (task.in_lane && task.state == State::Queued && task.asks().is_none()),
            format!("{id}: in line, but {:?}", task.state),
        );
        claim(
            task.lease().is_some() == (task.state == State::Running),
            format!("{id}: {:?} with lease {:?}", task.state, task.lease()),
        );
        match task.state {
            State::Queued => {
                *waiting_by_kind.entry(task.kind).or_insert(0_usize) += 1;
                if task.in_lane {
                    counts.queued += 1;
                    *lines.entry(task.class).or_insert(0_usize) += 1;
                } else {
                    counts.delayed += 1;
                    let waits = task.asks().is_some() || task.not_before > now || task.timer > 0;
                    claim(waits, format!("{id}: waits for nothing"));
                }
            }
            State::Running => {
                counts.running += 1;
                *running_by_kind.entry(task.kind).or_insert(0_u32) += 1;
                if let Some(lease) = task.lease() {
                    let key = (lease.record.worker.clone(), lease.record.principal.clone());
                    *workers.entry(key).or_insert(0_usize) += 1;
                }
            }
            State::Completed => counts.completed += 1,
            State::Failed => counts.failed += 1,
            State::Cancelled => counts.cancelled += 1,
        }
        if task.state.is_final() {
            ended += 1;
            let (mine, other) = match task.state {
                State::Failed => (&machine.ended.dead, &machine.ended.done),
                _ => (&machine.ended.done, &machine.ended.dead),
            };
            let place = (task.since, slot);
            let noted = mine.contains(&place) && !other.contains(&place);
            claim(noted, format!("{id}: not noted as ended"));
        }
    }
    let have = machine.counts;
    let live = (have.queued, have.delayed, have.running);
    claim(live == (counts.queued, counts.delayed, counts.running), format!("live: {have:?}"));
    let over = (have.completed, have.failed, have.cancelled);
    claim(over == (counts.completed, counts.failed, counts.cancelled), format!("ended: {have:?}"));
    claim(machine.ids.len() == machine.tasks.len(), "ids of no task".to_owned());
    claim(machine.keys.len() == keys, "keys of no task".to_owned());
    claim(machine.timers.len() == timers, "timers of no task".to_owned());
    claim(machine.ended.len() == ended, "ends of no task".to_owned());
    for (number, name, kind) in machine.kinds.iter() {
        let holders = kinds.get(&number).copied().unwrap_or(0);
        claim(machine.kinds.holders(number) == holders && holders > 0, format!("kind {name}"));
        let waits = waiting_by_kind.get(&number).copied().unwrap_or(0);
        let runs = running_by_kind.get(&number).copied().unwrap_or(0);
        claim((kind.queued, kind.running) == (waits, runs), format!("kind {name}: {kind:?}"));
        let of_it = classes
            .keys()
            .filter(|class| machine.classes.key(**class).is_some_and(|class| class.kind == number));
        let of_it: BTreeSet<_> = of_it.copied().collect();
        claim(kind.classes == of_it, format!("kind {name}: classes {:?}", kind.classes));
    }
    claim(machine.kinds.len() == kinds.len(), "kinds of no task".to_owned());
    for (number, key, class) in machine.classes.iter() {
        let holders = classes.get(&number).copied().unwrap_or(0);
        claim(machine.classes.holders(number) == holders && holders > 0, format!("class {key:?}"));
        let waits = lines.get(&number).copied().unwrap_or(0);
        claim(class.len() == waits, format!("class {key:?}: {} wait, not {waits}", class.len()));
    }
    claim(machine.classes.len() == classes.len(), "classes of no task".to_owned());
    for (number, key, ()) in machine.submitters.iter() {
        let holders = submitters.get(&number).copied().unwrap_or(0);
        let held = machine.submitters.holders(number) == holders && holders > 0;
        claim(held, format!("submitter {key}"));
    }
    claim(machine.submitters.len() == submitters.len(), "submitters of no task".to_owned());
    let turns = machine.turns.known().all(|number| submitters.contains_key(number));
    claim(turns, "turns of no submitter".to_owned());
    for (key, worker) in &machine.workers.by_key {
        let runs = workers.get(key).copied().unwrap_or(0);
        claim(worker.running == runs, format!("worker {key:?} runs {runs}: {worker:?}"));
    }
    problems
}

/// A task with names in place of numbers, and without what a restart changes.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    record: StateRecord,
    kind: Arc<str>,
    submitter: Arc<str>,
    class: String,
    sequence: u64,
    submitted: u64,
    key: [u8; 16],
    content: u64,
    on_lost: OnLost,
    retries_asked: bool,
    in_lane: bool,
    retry: RetryPolicy,
    deadline: Option<u64>,
    progress: Option<Arc<str>>,
    logs: Vec<LogLine>,
}

/// What a machine must have again after a restart.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    tasks: BTreeMap<TaskId, Shown>,
    counts: [usize; 6],
    kinds: BTreeMap<Arc<str>, (usize, u32)>,
    done: BTreeSet<(u64, TaskId)>,
    dead: BTreeSet<(u64, TaskId)>,
    paused: bool,
}

/// What `machine` must have again after a restart.
pub(super) fn snapshot(machine: &Machine) -> Snapshot {
    let shown = |task: &Task| Shown {
        record: task.record(),
        kind: machine.kinds.key(task.kind).cloned().unwrap_or_default(),
        submitter: machine.submitters.key(task.submitter).cloned().unwrap_or_default(),
        class: match machine.classes.key(task.class) {
            Some(class) if !task.state.is_final() => {
                format!("{:?} {:?} {:?}", class.requires, class.session, class.sticky)
            }
            _ => String::new(),
        },
        sequence: task.sequence,
        submitted: task.submitted,
        key: task.key,
        content: task.content,
        on_lost: task.on_lost,
        retries_asked: task.retries_asked,
        in_lane: task.in_lane,
        retry: task.retry(),
        deadline: task.deadline(),
        progress: task.more.as_ref().and_then(|more| more.progress.clone()),
        logs: task.more.iter().flat_map(|more| more.logs.iter().cloned()).collect(),
    };
    let by_id = |set: &BTreeSet<(u64, task::Slot)>| {
        let ids = set.iter().filter_map(|(since, slot)| Some((*since, machine.task(*slot)?.id)));
        ids.collect()
    };
    let counts = machine.counts;
    Snapshot {
        tasks: machine.tasks.iter().map(|(_, task)| (task.id, shown(task))).collect(),
        counts: [
            counts.queued,
            counts.delayed,
            counts.running,
            counts.completed,
            counts.failed,
            counts.cancelled,
        ],
        kinds: machine
            .kinds
            .iter()
            .map(|(_, name, kind)| (name.clone(), (kind.queued, kind.running)))
            .collect(),
        done: by_id(&machine.ended.done),
        dead: by_id(&machine.ended.dead),
        paused: machine.paused,
    }
}
