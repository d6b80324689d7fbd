//! Keeps the lease of a task that runs here: heartbeats with its progress and log, until it ends.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{limits, queue::LogLine};

use super::{
    handle::Shared,
    run::Signals,
    source::{Held, Source, Untold},
};
use crate::queue::QueueHandle;

/// What is to be told with the next heartbeat.
#[derive(Debug, Default)]
struct News {
    progress: Option<Arc<str>>,
    logs: Vec<LogLine>,
}

/// How a lease stood at its end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// Whether the task is another's or nobody's by now.
    pub(super) is_lost: bool,
    /// Whether it was to be given up.
    pub(super) cancel_requested: bool,
}

/// A lease that is kept until [`Lease::end`] or until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    queue: QueueHandle,
    news: Arc<(Mutex<News>, Notify)>,
    stop: CancellationToken,
    keeping: Option<JoinHandle<Told>>,
}

impl Lease {
    /// Keeps a lease that `source` gave, which holds `lease_ms` milliseconds. Its `cancel` fires
    /// when the task is to be given up, or is lost.
    pub(super) fn keep(
        shared: &Shared,
        source: Source,
        held: Held,
        lease_ms: u64,
        signals: Signals,
    ) -> Self {
        let (queue, news) = (shared.queue.clone(), Arc::<(Mutex<News>, Notify)>::default());
        let stop = CancellationToken::new();
        let keeper = Keeper {
            source,
            held,
            news: news.clone(),
            pause: Duration::from_millis(lease_ms / 3),
            signals,
        };
        let keeping = tokio::spawn(keeper.run(stop.clone()));
        Self { queue, news, stop, keeping: Some(keeping) }
    }

    /// Tells of progress; what was not told yet is replaced.
    pub(super) fn progress(&self, progress: Arc<str>) {
        locked(&self.news.0).progress = Some(progress);
        self.news.1.notify_one();
    }

    /// Adds a line to the task's log.
    pub(super) fn log(&self, stream: &str, mut message: String) {
        if let Some((end, _)) = message.char_indices().nth(limits::QUEUE_LOG_CHARS) {
            message.truncate(end);
        }
        let at = self.queue.now_ms();
        let mut news = locked(&self.news.0);
        if news.logs.len() == limits::QUEUE_LOG_LINES_AT_ONCE {
            news.logs.remove(0);
        }
        news.logs.push(LogLine { at, stream: stream.to_owned(), message });
        drop(news);
        self.news.1.notify_one();
    }

    /// Tells what is left to be told and keeps the lease no more; it holds as long as it does.
    pub(super) async fn end(mut self) -> Told {
        self.stop.cancel();
        match self.keeping.take() {
            Some(keeping) => keeping.await.unwrap_or_default(),
            None => Told::default(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn locked(news: &Mutex<News>) -> MutexGuard<'_, News> {
    news.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeper {
    source: Source,
    held: Held,
    news: Arc<(Mutex<News>, Notify)>,
    pause: Duration,
    signals: Signals,
}

impl Keeper {
    async fn run(self, stop: CancellationToken) -> Told {
        let mut told = Told::default();
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(self.pause) => false,
                // Asked for during a heartbeat, it is followed by another one.
                () = self.signals.ask.notified() => false,
                () = self.news.1.notified() => {
                    // What comes at once is told together.
                    tokio::select! {
                        () = stop.cancelled() => true,
                        () = tokio::time::sleep(limits::WORKER_REPORT) => false,
                    }
                }
            };
            let News { progress, logs } = std::mem::take(&mut *locked(&self.news.0));
            // A task that ends without news ends without another heartbeat.
            if stopping && progress.is_none() && logs.is_empty() {
                return told;
            }
            match self.source.heartbeat(self.held, progress, logs).await {
                Ok(cancel_requested) => {
                    if cancel_requested {
                        told.cancel_requested = true;
                        self.signals.cancel.cancel();
                    }
                }
                Err(Untold::Refused(_)) => {
                    told.is_lost = true;
                    self.signals.cancel.cancel();
                    return told;
                }
                // The next one comes in time.
                Err(error) => tracing::debug!(%error, "a heartbeat was not taken"),
            }
            if stopping {
                return told;
            }
        }
    }
}
