//! How a node stops: in the order of the supervision table, each step with its own deadline, all
//! of it with another.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{LocalBoxFuture, join_all};

use super::Row;

type Step = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()>>;

/// How stopping went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Names of what did not finish in its time and was left behind.
    pub late: Vec<String>,
}

/// Collects what must be stopped and stops it in order.
#[derive(Default)]
pub struct Stopper {
    steps: BTreeMap<u8, Vec<(String, Duration, Step)>>,
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopper").field("orders", &self.steps.keys()).finish()
    }
}

impl Stopper {
    /// Adds `stop`, the way to stop `name`, at the place of its row.
    pub fn add<F>(&mut self, row: Row, name: String, stop: impl FnOnce() -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let step: Step = Box::new(move || Box::pin(stop()));
        self.steps.entry(row.stop_order).or_default().push((name, row.drain, step));
    }

    /// Stops everything: equal places at once, places one after the other, each within its drain
    /// time, all within `deadline`.
    pub async fn stop(self, deadline: Duration) -> Stopped {
        let mut late = Vec::new();
        let end = tokio::time::Instant::now() + deadline;
        for steps in self.steps.into_values() {
            let running = steps.into_iter().map(|(name, drain, step)| async move {
                let until = (tokio::time::Instant::now() + drain).min(end);
                tokio::time::timeout_at(until, step()).await.err().map(|_late| name)
            });
            late.extend(join_all(running).await.into_iter().flatten());
        }
        Stopped { late }
    }
}
