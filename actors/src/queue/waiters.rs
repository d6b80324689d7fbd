//! Who waits for a task to end or to ask. They are told how it is then, once that is committed, so
//! that they need not ask again; who missed it asks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use toolmesh_core::queue::{TaskId, TaskView};

/// Those who wait, by task. Cheap to clone. Each waits in a request of its own, and requests are
/// bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiters(Arc<Mutex<ByTask>>);

/// What tells those who wait for a task, and how many they are.
type ByTask = HashMap<TaskId, (watch::Sender<Option<Arc<TaskView>>>, usize)>;

/// One who waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    waiters: Waiters,
    id: TaskId,
    /// How the task was when it ended or asked, since this one waits.
    pub(super) news: watch::Receiver<Option<Arc<TaskView>>>,
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
        Waiter { waiters: self.clone(), id, news: news.subscribe() }
    }

    /// Whether anybody waits for `id`.
    pub(super) fn has(&self, id: TaskId) -> bool {
        self.map().contains_key(&id)
    }

    /// Tells everybody who waits for a task how it is.
    pub(super) fn tell(&self, view: TaskView) {
        if let Some((news, _)) = self.map().get(&view.id) {
            news.send_replace(Some(Arc::new(view)));
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
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use toolmesh_core::principal::Role;
    use toolmesh_core::queue::{
        Asker, Config, Input, Machine, Now, OnLost, Reply, Spec, Submitter,
    };

    use super::*;

    fn view() -> TaskView {
        let mut machine = Machine::new(Config::default());
        let by = Submitter { id: "a".into(), role: Role::Client };
        let spec = Box::new(Spec::plain("x", &serde_json::Value::Null, OnLost::Retry, 1));
        let now = Now { ms: 1, chance: 1 };
        let step = machine.apply(now, Input::Submit { by, spec, id: None });
        let Ok(Reply::Submitted { id, .. }) = step.reply else { unreachable!("it is submitted") };
        machine.view(&Asker { id: "a".into(), is_operator: false }, id, now).unwrap()
    }

    #[tokio::test]
    async fn who_waits_is_told_and_nobody_is_left_behind() {
        let (waiters, view) = (Waiters::default(), view());
        let (mut one, mut two) = (waiters.wait(view.id), waiters.wait(view.id));
        assert!(waiters.has(view.id) && !waiters.has(TaskId::from_bytes([2; 16])));
        waiters.tell(view.clone());
        for waiter in [&mut one, &mut two] {
            waiter.news.changed().await.unwrap();
            assert_eq!(waiter.news.borrow().as_deref(), Some(&view));
        }
        let late = waiters.wait(view.id);
        assert!(!late.news.has_changed().unwrap(), "what was told before is no news");
        drop((one, two, late));
        assert!(waiters.map().is_empty());
    }
}
