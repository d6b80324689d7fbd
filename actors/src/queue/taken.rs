//! Tasks between a claim and the answer to who made it.

use super::{
    actor::{Claimer, give_back},
    claim::Leased,
    handle::QueueHandle,
};

/// Tasks that a worker is about to be handed, of one claim or of several. Dropped before that, as when
/// its call ended meanwhile, they go back to the queue: nobody runs them.
#[derive(Debug)]
pub struct Taken {
    queue: QueueHandle,
    to: Claimer,
    tasks: Vec<Leased>,
}

impl Taken {
    /// None yet, for this worker and the principal that it is, which claims them of `queue`.
    pub fn new(queue: QueueHandle, to: Claimer) -> Self {
        Self { queue, to, tasks: Vec::new() }
    }

    /// Those that there are.
    pub fn tasks(&self) -> &[Leased] {
        &self.tasks
    }

    /// Adds one that the worker claimed.
    pub fn add(&mut self, leased: Leased) {
        self.tasks.push(leased);
    }

    /// Takes the last one out.
    pub fn pop(&mut self) -> Option<Leased> {
        self.tasks.pop()
    }

    /// They are the worker's from now on: what becomes of them, it says or its leases do.
    pub fn hand_over(mut self) -> Vec<Leased> {
        std::mem::take(&mut self.tasks)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let grants = self.tasks.drain(..).map(|leased| leased.grant).collect();
        give_back(&self.queue.door, self.to.clone(), grants);
    }
}
