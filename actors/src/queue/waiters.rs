//! Who waits for a task to end or to ask. News is a nudge: whoever is woken asks again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use toolmesh_core::queue::TaskId;

/// Those who wait, by task. Cheap to clone. Each waits in a request of its own, and requests are
/// bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiters(Arc<Mutex<ByTask>>);

/// What tells those who wait for a task, and how many they are.
type ByTask = HashMap<TaskId, (Arc<Notify>, usize)>;

/// One who waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    waiters: Waiters,
    id: TaskId,
    pub(super) news: Arc<Notify>,
}

impl Waiters {
    fn map(&self) -> MutexGuard<'_, ByTask> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `id` from now on.
    pub(super) fn wait(&self, id: TaskId) -> Waiter {
        let mut map = self.map();
        let (news, count) = map.entry(id).or_default();
        *count += 1;
        Waiter { waiters: self.clone(), id, news: news.clone() }
    }

    /// Tells everybody who waits for `id`.
    pub(super) fn tell(&self, id: TaskId) {
        if let Some((news, _)) = self.map().get(&id) {
            news.notify_waiters();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut map = self.waiters.map();
        if let Some((_, count)) = map.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                map.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_and_nobody_is_left_behind() {
        let waiters = Waiters::default();
        let id = TaskId::from_bytes([1; 16]);
        let (one, two) = (waiters.wait(id), waiters.wait(id));
        {
            let told = (one.news.notified(), two.news.notified());
            waiters.tell(id);
            waiters.tell(TaskId::from_bytes([2; 16]));
            tokio::join!(told.0, told.1);
        }
        drop((one, two));
        assert!(waiters.map().is_empty());
    }
}
