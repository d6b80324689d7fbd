//! What a submitter changes of its task.

use super::{
    id::TaskId,
    input::{Asker, Change, Now, Reply},
    machine::Machine,
    record::{State, Write},
    refusal::Refusal,
};

impl Machine {
    pub(super) fn update(
        &mut self,
        now: Now,
        asker: &Asker,
        id: TaskId,
        change: Change,
    ) -> Result<Reply, Refusal> {
        let slot = self.owned(asker, id)?;
        let Change { tags, metadata, timeout_ms, max_attempts, not_before } = change;
        let task = self.task(slot).ok_or(Refusal::NotFound(id))?;
        let runs_differently =
            timeout_ms.is_some() || max_attempts.is_some() || not_before.is_some();
        if task.state.is_final() && runs_differently {
            return Err(Refusal::Ended { id, state: task.state });
        }
        if task.state == State::Running && not_before.is_some() {
            return Err(Refusal::Running(id));
        }
        // One that waits must have an attempt left: it would be run beyond its limit otherwise.
        let least = task.attempts.saturating_add(u16::from(task.state == State::Queued));
        if let Some(attempts) = max_attempts.filter(|given| (1..least).contains(given)) {
            let began = task.attempts;
            return Err(Refusal::OutOfRange(format!(
                "max_attempts: {began} attempts began already, and {attempts} leaves no other: use \
                 {least} or more, or cancel the task"
            )));
        }
        self.dequeue(slot);
        let Some(task) = self.task_mut(slot) else { return Err(Refusal::NotFound(id)) };
        task.annotated |= tags.is_some() || metadata.is_some();
        if let Some(attempts) = max_attempts {
            task.max_attempts = attempts;
        }
        if let Some(time) = timeout_ms {
            task.more_mut().timeout_ms = Some(time);
        }
        if let Some(not_before) = not_before {
            task.not_before = not_before;
        }
        self.out.writes.extend(tags.map(|tags| Write::Tags(id, tags)));
        self.out.writes.extend(metadata.map(|metadata| Write::Metadata(id, metadata)));
        self.enqueue(slot, now.ms);
        self.keep_state(slot);
        self.out.sync = true;
        self.shown(slot, id, now)
    }

    pub(super) fn prioritise(
        &mut self,
        now: Now,
        asker: &Asker,
        id: TaskId,
        priority: u8,
    ) -> Result<Reply, Refusal> {
        let slot = self.owned(asker, id)?;
        let state = self.task(slot).ok_or(Refusal::NotFound(id))?.state;
        match state {
            State::Queued => {}
            State::Running => return Err(Refusal::Running(id)),
            _ => return Err(Refusal::Ended { id, state }),
        }
        self.dequeue(slot);
        if let Some(task) = self.task_mut(slot) {
            task.priority = priority;
        }
        self.enqueue(slot, now.ms);
        self.keep_state(slot);
        self.out.sync = true;
        self.shown(slot, id, now)
    }

    fn shown(&self, slot: super::task::Slot, id: TaskId, now: Now) -> Result<Reply, Refusal> {
        let task = self.task(slot).ok_or(Refusal::NotFound(id))?;
        Ok(Reply::Task(Box::new(self.view_of(task, now))))
    }
}
