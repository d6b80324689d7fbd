//! What a store holds after what was written, and a machine from that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::super::*;

/// The records.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) tasks: BTreeMap<TaskId, TaskRecord>,
    pub(super) states: BTreeMap<TaskId, StateRecord>,
    pub(super) progress: BTreeMap<TaskId, ProgressRecord>,
    pub(super) results: BTreeMap<TaskId, ResultRecord>,
    /// Tags, metadata and answers.
    pub(super) annotations: BTreeMap<(TaskId, &'static str), String>,
    pub(super) paused: bool,
    pub(super) drained: BTreeSet<Arc<str>>,
}

impl Kept {
    /// Takes a write; an error says which rule it breaks.
    pub(super) fn write(&mut self, write: &Write) -> Result<(), String> {
        let broken = self.breaks(write);
        self.put(write);
        broken.map_or(Ok(()), Err)
    }

    /// Takes a write, whatever it is.
    pub(super) fn put(&mut self, write: &Write) {
        match write.clone() {
            Write::Task(record) => {
                self.tasks.insert(record.id, *record);
            }
            Write::State(id, record) => {
                self.states.insert(id, *record);
            }
            Write::Progress(id, Some(record)) => {
                self.progress.insert(id, record);
            }
            Write::Progress(id, None) => {
                self.progress.remove(&id);
            }
            Write::Result(id, record) => {
                self.results.insert(id, *record);
            }
            Write::Tags(id, tags) => {
                self.annotations.insert((id, "tags"), tags.join(","));
            }
            Write::Metadata(id, text) => {
                self.annotations.insert((id, "metadata"), text);
            }
            Write::Answers(id, text) => {
                self.annotations.insert((id, "answers"), text);
            }
            Write::Paused(paused) => self.paused = paused,
            Write::Drained(worker, true) => drop(self.drained.insert(worker)),
            Write::Drained(worker, false) => drop(self.drained.remove(&worker)),
            Write::Forget { id, annotated } => {
                self.tasks.remove(&id);
                self.states.remove(&id);
                self.progress.remove(&id);
                self.results.remove(&id);
                if annotated {
                    self.annotations.retain(|(of, _), _| *of != id);
                }
            }
        }
    }

    /// Which rule a write breaks.
    fn breaks(&self, write: &Write) -> Option<String> {
        let known = |id: &TaskId| self.tasks.contains_key(id);
        let problem = match write {
            Write::Task(record) => {
                known(&record.id).then_some("I2, I12: a task is written a second time")
            }
            Write::State(id, record) => {
                let before = self.states.get(id);
                let was_final = before.is_some_and(|before| before.state.is_final());
                let most = record.max_attempts;
                if !known(id) {
                    Some("I2: a state of no task")
                } else if was_final && before.map(|before| before.state) != Some(record.state) {
                    Some("I8: a final state is left")
                } else if before.is_some_and(|before| before.fence > record.fence) {
                    Some("I5: a fence falls")
                } else if most > 0 && record.attempts > most {
                    Some("I7: more attempts than there may be")
                } else if (record.state == State::Running) != record.lease.is_some() {
                    Some("a task runs without a lease, or has one and does not run")
                } else {
                    None
                }
            }
            Write::Result(id, _) => {
                self.results.contains_key(id).then_some("I4: a result is written a second time")
            }
            Write::Progress(id, Some(_)) => (!known(id)).then_some("I2: progress of no task"),
            Write::Forget { id, .. } => (!known(id)).then_some("a task is forgotten twice"),
            _ => None,
        };
        problem.map(|problem| format!("{problem}: {write:?}"))
    }

    /// What is left over of tasks that are not kept.
    pub(super) fn orphans(&self) -> usize {
        let gone = |id: &&TaskId| !self.tasks.contains_key(id);
        self.states.keys().filter(gone).count()
            + self.progress.keys().filter(gone).count()
            + self.results.keys().filter(gone).count()
            + self.annotations.keys().map(|(id, _)| id).filter(gone).count()
    }

    /// The machine that begins with these records.
    pub(super) fn load(&self, config: Config, now: Now, node: &str) -> (Machine, Step) {
        let mut machine = Machine::new(config);
        self.tasks.values().for_each(|record| machine.restore_task(record));
        for (id, record) in &self.states {
            machine.restore_state(*id, record.clone());
        }
        for (id, record) in &self.progress {
            machine.restore_progress(*id, record.clone());
        }
        machine.restore_paused(self.paused);
        self.drained.iter().for_each(|worker| machine.restore_drained(worker.clone()));
        let step = machine.start(now, node);
        (machine, step)
    }
}
