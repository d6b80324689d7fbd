//! What is shown of the queue, and why each task is where it is.

use std::{ops::Bound, sync::Arc};

use super::{
    class::ClassKey,
    id::{Fence, OwnerPrefix, TaskId},
    input::{Asker, Now},
    machine::{Counts, Machine},
    record::{Dead, Failure, LeaseRecord, LogLine, State},
    refusal::Refusal,
    spec::{OnLost, placed_by},
    task::{Slot, Task},
};
use crate::limits;

/// About where in line a task is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Tasks that probably go before it.
    pub ahead: usize,
    /// Whether there are at least so many.
    pub at_least: bool,
    /// Until it probably ends, in milliseconds, where tasks of its type ended lately.
    pub eta_ms: Option<u64>,
}

/// A task as it is shown: what the machine knows of it. The rest is in its record.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// Its type.
    pub kind: Arc<str>,
    /// Whose it is.
    pub submitter: Arc<str>,
    /// Where it is.
    pub state: State,
    /// Why it is there, for people.
    pub why: String,
    /// 1 to 10.
    pub priority: u8,
    /// Attempts that began.
    pub attempts: u16,
    /// Attempts at most; 0 is no limit.
    pub max_attempts: u16,
    /// What becomes of it when its worker is lost.
    pub on_lost: OnLost,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted: u64,
    /// Since when it is where it is.
    pub since: u64,
    /// When it may be run, where that is to come.
    pub not_before: Option<u64>,
    /// When it must have ended.
    pub deadline: Option<u64>,
    /// About where in line it is.
    pub position: Option<Position>,
    /// Who runs it.
    pub lease: Option<LeaseView>,
    /// The session that its worker must have.
    pub session: Option<Arc<str>>,
    /// The worker that goes before others.
    pub sticky: Option<Arc<str>>,
    /// Labels that its worker must have.
    pub requires: Vec<Arc<str>>,
    /// How far it is; JSON.
    pub progress: Option<Arc<str>>,
    /// The last lines of its log while it runs.
    pub logs: Vec<LogLine>,
    /// The last thing that went wrong.
    pub failure: Option<Failure>,
    /// Why it is a dead letter.
    pub dead: Option<Dead>,
    /// What it needs of its submitter to go on; JSON.
    pub asks: Option<Arc<str>>,
    /// Whether its tags or metadata were replaced.
    pub annotated: bool,
}

/// The present lease of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseView {
    /// The worker.
    pub worker: Arc<str>,
    /// Until it ends without a heartbeat, in milliseconds.
    pub expires_in_ms: u64,
    /// When the attempt began, in milliseconds since 1970.
    pub started: u64,
    /// Whether it was asked to give the task up.
    pub cancel_requested: bool,
}

/// Which tasks are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// Of this type.
    pub kind: Option<String>,
    /// Run by this worker at present.
    pub worker: Option<String>,
    /// Of at least this priority.
    pub priority_min: u8,
    /// Older than this one, which ended the page before.
    pub before: Option<TaskId>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The tasks, the newest first.
    pub tasks: Vec<TaskView>,
    /// Where the next page begins, if there may be one.
    pub next: Option<TaskId>,
}

/// The queue as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// How every id begins.
    pub owner: OwnerPrefix,
    /// Whether nothing is given to workers.
    pub paused: bool,
    /// How many tasks there are.
    pub counts: Counts,
    /// Waiting and running tasks by type.
    pub kinds: Vec<(Arc<str>, usize, u32)>,
    /// When the oldest waiting task was submitted, in milliseconds since 1970.
    pub oldest: Option<u64>,
    /// Workers that are there.
    pub workers: usize,
    /// Claims that wait for a task.
    pub waiting_claims: usize,
}

/// A worker as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its name.
    pub worker: Arc<str>,
    /// The principal that it is.
    pub principal: Arc<str>,
    /// Types that it runs; `None`: all.
    pub kinds: Option<Vec<Arc<str>>>,
    /// Labels that it has.
    pub labels: Vec<Arc<str>>,
    /// Tasks that it runs.
    pub running: usize,
    /// Attempts that it completed since the node started.
    pub completed: u64,
    /// Attempts that failed with it.
    pub failed: u64,
    /// Mean time of its last attempts, in milliseconds.
    pub mean_ms: Option<u64>,
    /// What 95 of a hundred of them did not exceed.
    pub p95_ms: Option<u64>,
    /// How long ago it was heard of, in milliseconds.
    pub seen_ms_ago: u64,
    /// `active`, `idle`, `draining` or `away`.
    pub state: &'static str,
}

impl Machine {
    /// Shows the task `id` to `asker`.
    ///
    /// # Errors
    /// There is none, or it is another's.
    pub fn view(&self, asker: &Asker, id: TaskId, now: Now) -> Result<TaskView, Refusal> {
        let slot = self.owned(asker, id)?;
        let task = self.task(slot).ok_or(Refusal::NotFound(id))?;
        Ok(self.view_of(task, now))
    }

    /// Shows a task, for those who were found to be allowed to know of it.
    pub fn view_of_any(&self, id: TaskId, now: Now) -> Option<TaskView> {
        let task = self.task(*self.ids.get(&id)?)?;
        Some(self.view_of(task, now))
    }

    /// Lists tasks that `asker` may know of, the newest first: at most `limit`, and fewer where
    /// many others would have to be looked at.
    pub fn list(&self, asker: &Asker, filter: &Filter, limit: usize, now: Now) -> Page {
        let upper = filter.before.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.ids.range((Bound::Unbounded, upper)).rev();
        let (mut tasks, mut last, mut more) = (Vec::new(), None, false);
        for (looked, (id, slot)) in all.enumerate() {
            if tasks.len() == limit || looked == limits::QUEUE_LIST_LOOK {
                more = true;
                break;
            }
            last = Some(*id);
            let Some(task) = self.task(*slot) else { continue };
            if self.is_listed(asker, filter, task) {
                tasks.push(self.view_of(task, now));
            }
        }
        Page { tasks, next: last.filter(|_| more) }
    }

    /// Whether workers of this name are given no more tasks.
    pub fn is_drained(&self, worker: &Arc<str>) -> bool {
        self.workers.is_drained(worker)
    }

    /// Lists dead letters, the newest last one first.
    pub fn dead_letters(
        &self,
        before: Option<(u64, TaskId)>,
        limit: usize,
        now: Now,
    ) -> (Vec<TaskView>, bool) {
        let upper = before.map_or(u64::MAX, |(since, _)| since);
        let set = self.ended.dead.range(..=(upper, Slot::MAX)).rev();
        let tasks = set.filter_map(|(_, slot)| self.task(*slot));
        let is_older = |task: &&Task| before.is_none_or(|before| (task.since, task.id) < before);
        let mut found: Vec<&Task> = Vec::new();
        for task in tasks.filter(is_older) {
            // Those that failed in one millisecond stand there in no order that a cursor knows.
            if found.len() > limit && found.last().is_some_and(|last| last.since > task.since) {
                break;
            }
            found.push(task);
        }
        found.sort_by_key(|task| std::cmp::Reverse((task.since, task.id)));
        let more = found.len() > limit;
        found.truncate(limit);
        (found.into_iter().map(|task| self.view_of(task, now)).collect(), more)
    }

    /// Lists tasks that `asker` may know of, the oldest first: at most `limit`, of any of `kinds` or of
    /// all without one. Where many others would have to be looked at there are fewer.
    pub fn oldest(
        &self,
        asker: &Asker,
        filter: &Filter,
        kinds: &[String],
        limit: usize,
        now: Now,
    ) -> Vec<TaskView> {
        let all = self.ids.values().take(limits::QUEUE_LIST_LOOK);
        let is_of = |task: &&Task| {
            let kind = self.kinds.key(task.kind);
            kinds.is_empty()
                || kind.is_some_and(|kind| kinds.iter().any(|wanted| **wanted == **kind))
        };
        let tasks = all
            .filter_map(|slot| self.task(*slot))
            .filter(|task| self.is_listed(asker, filter, task))
            .filter(is_of);
        let mut found: Vec<&Task> = Vec::new();
        for task in tasks {
            // Ids of older versions are in order of seconds, and within one in none.
            let second = |task: &Task| task.submitted / 1_000;
            if found.len() >= limit && found.last().is_some_and(|last| second(last) < second(task))
            {
                break;
            }
            found.push(task);
        }
        found.sort_by_key(|task| task.sequence);
        found.truncate(limit);
        found.into_iter().map(|task| self.view_of(task, now)).collect()
    }

    /// The number of a task's last lease, and that lease while it holds. `None`: there is no such
    /// task, or it was never leased. It is asked for those who cannot keep the number themselves, so
    /// whoever asks compares whose the lease is.
    pub fn last_lease(&self, id: TaskId) -> Option<(Fence, Option<LeaseRecord>)> {
        let task = self.task(*self.ids.get(&id)?)?;
        let lease = task.lease().map(|lease| lease.record.clone());
        (task.fence > 0).then_some((Fence(task.fence), lease))
    }

    fn is_listed(&self, asker: &Asker, filter: &Filter, task: &Task) -> bool {
        let is_own = || self.submitters.key(task.submitter).is_some_and(|owner| asker.is_of(owner));
        let kind = |kind: &String| self.kinds.key(task.kind).is_some_and(|key| **key == **kind);
        let worker =
            |worker: &String| task.lease().is_some_and(|lease| *lease.record.worker == **worker);
        (asker.is_operator || is_own())
            && filter.state.is_none_or(|state| task.state == state)
            && task.priority >= filter.priority_min
            && filter.kind.as_ref().is_none_or(kind)
            && filter.worker.as_ref().is_none_or(worker)
    }

    /// Shows the queue as a whole.
    pub fn status(&self, now: Now) -> QueueView {
        let kinds = self.kinds.iter().filter(|(_, _, kind)| kind.queued > 0 || kind.running > 0);
        let kinds =
            kinds.map(|(_, name, kind)| (name.clone(), kind.queued, kind.running)).collect();
        let oldest = self.classes.iter().filter_map(|(_, _, class)| class.oldest());
        let oldest = oldest.filter_map(|slot| self.task(slot)).map(|task| task.submitted).min();
        let workers = self.workers.by_key.values().filter(|worker| worker.is_here(now.ms)).count();
        QueueView {
            owner: self.config.owner,
            paused: self.paused,
            counts: self.counts,
            kinds,
            oldest,
            workers,
            waiting_claims: self.waiting.len(),
        }
    }

    /// Shows the workers that are known, by name.
    pub fn workers(&self, now: Now) -> Vec<WorkerView> {
        let view =
            |((name, principal), worker): (&super::workers::WorkerKey, &super::workers::Worker)| {
                let mut times: Vec<u64> = worker.times.iter().copied().collect();
                times.sort_unstable();
                let sum = times.iter().fold(0_u64, |sum, time| sum.saturating_add(*time));
                let mean = sum.checked_div(times.len() as u64);
                WorkerView {
                    worker: name.clone(),
                    principal: principal.clone(),
                    kinds: worker.kinds.as_ref().map(|kinds| kinds.iter().cloned().collect()),
                    labels: worker.labels.iter().cloned().collect(),
                    running: worker.running,
                    completed: worker.completed,
                    failed: worker.failed,
                    mean_ms: mean,
                    p95_ms: times.get((times.len() * 95).div_ceil(100).saturating_sub(1)).copied(),
                    seen_ms_ago: now.ms.saturating_sub(worker.seen),
                    state: match worker {
                        worker if worker.draining => "draining",
                        worker if worker.running > 0 => "active",
                        worker if worker.is_here(now.ms) => "idle",
                        _ => "away",
                    },
                }
            };
        self.workers.by_key.iter().map(view).collect()
    }

    pub(super) fn view_of(&self, task: &Task, now: Now) -> TaskView {
        let class = self.classes.key(task.class).filter(|_| !task.state.is_final());
        TaskView {
            id: task.id,
            kind: self.kinds.key(task.kind).cloned().unwrap_or_default(),
            submitter: self.submitters.key(task.submitter).cloned().unwrap_or_default(),
            state: task.state,
            why: self.why(task, class, now),
            priority: task.priority,
            attempts: task.attempts,
            max_attempts: task.max_attempts,
            on_lost: task.on_lost,
            submitted: task.submitted,
            since: task.since,
            not_before: (task.state == State::Queued && task.not_before > now.ms)
                .then_some(task.not_before),
            deadline: task.deadline(),
            position: self.position(task, now),
            lease: task.lease().map(|lease| LeaseView {
                worker: lease.record.worker.clone(),
                expires_in_ms: lease.expires.saturating_sub(now.ms),
                started: lease.started,
                cancel_requested: task.cancel_requested(),
            }),
            session: class.and_then(|class| class.session.clone()),
            sticky: class.and_then(|class| class.sticky.clone()),
            requires: class.map(|class| class.requires.clone()).unwrap_or_default(),
            progress: task.more.as_ref().and_then(|more| more.progress.clone()),
            logs: task.more.iter().flat_map(|more| more.logs.iter().cloned()).collect(),
            failure: task.failure().cloned(),
            dead: task.dead,
            asks: task.asks().cloned(),
            annotated: task.annotated,
        }
    }

    pub(super) fn position(&self, task: &Task, _: Now) -> Option<Position> {
        if !task.in_lane {
            return None;
        }
        let (ahead, at_least) = self.classes.get(task.class)?.ahead(
            task.priority,
            task.submitter,
            task.sequence,
            limits::QUEUE_POSITION_LOOK,
        );
        let kind = self.kinds.get(task.kind)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an estimate, never negative"
        )]
        let eta_ms = kind.run_ms.map(|mean| {
            let at_once = f64::from(kind.running.max(1));
            (mean * ((ahead as f64 / at_once).floor() + 1.0)) as u64
        });
        Some(Position { ahead, at_least, eta_ms })
    }

    fn why(&self, task: &Task, class: Option<&ClassKey>, now: Now) -> String {
        let failed = task.failure().map(|failure| failure.message.as_str());
        let after = failed.map(|why| format!("; before: {why}")).unwrap_or_default();
        match task.state {
            State::Completed => "it ended with a result".to_owned(),
            State::Cancelled => {
                let reason = task.more.as_ref().and_then(|more| more.cancel.as_deref());
                reason.or(failed).unwrap_or("it was given up").to_owned()
            }
            State::Failed => {
                let why = failed.unwrap_or("it failed");
                match task.dead {
                    Some(Dead::Exhausted) => {
                        format!("all {} attempts failed, the last: {why}", task.attempts)
                    }
                    Some(Dead::OutcomeUnknown) => {
                        format!(
                            "it may have run and is not repeated unasked: {why}; check, then resubmit it"
                        )
                    }
                    _ => why.to_owned(),
                }
            }
            State::Running => match task.lease() {
                Some(lease) => {
                    let worker = &lease.record.worker;
                    let since = now.ms.saturating_sub(lease.started) / 1_000;
                    let stop = if task.cancel_requested() {
                        ", which was asked to give it up"
                    } else {
                        ""
                    };
                    format!("runs at worker {worker}{stop}, for {since} s")
                }
                None => "runs".to_owned(),
            },
            State::Queued if task.asks().is_some() => "waits for input of its submitter".to_owned(),
            State::Queued if !task.in_lane => {
                let wait = task.not_before.saturating_sub(now.ms).div_ceil(1_000);
                let what = if task.attempts > 0 { "its next attempt" } else { "its time" };
                format!("waits {wait} s more for {what}{after}")
            }
            State::Queued => self.why_queued(task, class, now) + &after,
        }
    }

    fn why_queued(&self, task: &Task, class: Option<&ClassKey>, now: Now) -> String {
        if self.paused {
            return "the queue is paused; an operator resumes it".to_owned();
        }
        let Some((class, kind)) =
            class.and_then(|class| Some((class, self.kinds.get(class.kind)?)))
        else {
            return "waits".to_owned();
        };
        if let Some(limit) = kind.limit.filter(|limit| kind.running >= *limit) {
            return format!("as many tasks of its type run as may, {limit}");
        }
        let name = self.kinds.key(class.kind).cloned().unwrap_or_default();
        let here: Vec<_> =
            self.workers.by_key.iter().filter(|(_, worker)| worker.is_here(now.ms)).collect();
        let runs = here.iter().filter(|(_, worker)| worker.runs(&name));
        let sticky = class.sticky.as_ref().filter(|_| self.is_kept(class, now));
        let fitting = runs.clone().filter(|((id, _), worker)| {
            worker.has(class, &name) && sticky.is_none_or(|sticky| sticky == id)
        });
        if fitting.clone().all(|(_, worker)| worker.draining) && fitting.clone().count() > 0 {
            return "the workers that could run it take no more tasks".to_owned();
        }
        if fitting.count() > 0 {
            let ahead = self.position(task, now).map_or(0, |position| position.ahead);
            let at = sticky.map(|sticky| format!(" at worker {sticky}")).unwrap_or_default();
            return format!("waits for its turn{at}, about {ahead} before it");
        }
        if runs.count() == 0 {
            return format!("no worker for tasks of type {name} is here");
        }
        if let Some(sticky) = sticky {
            return format!("waits for worker {sticky}, which is here");
        }
        if let Some(tool) = class.requires.iter().find_map(|label| placed_by(label)) {
            return format!(
                "no node that has the tool {tool}, and what else it needs, takes tasks"
            );
        }
        if class.is_large {
            return "it is too large for the workers here: over task_queue.rpc none gets it"
                .to_owned();
        }
        match &class.session {
            Some(session) => format!("no worker of session {session} is here that fits"),
            None => format!("no worker here has the labels {}", class.requires.join(", ")),
        }
    }
}
