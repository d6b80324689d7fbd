//! The shell: holds what announces and what listens.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use tokio::{
    sync::{Mutex, mpsc},
    task::AbortHandle,
    time::{self, MissedTickBehavior},
};
use toolmesh_core::{announcement::Announcement, limits, time::millis};

use super::{Announcements, Around};
use crate::{
    kit::{Obituary, Permit},
    queue::QueueError,
    swarm::Announced,
};

/// Announces no more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) Permit);

/// Where announcements come from; a fresh actor takes over what the one before left.
pub(super) type Source = Arc<Mutex<mpsc::Receiver<Announced>>>;

/// The actor behind the announcer's door.
#[derive(Debug)]
pub(super) struct Announcer {
    around: Around,
    source: Source,
    heard: Announcements,
    tasks: Vec<AbortHandle>,
    _obituary: Obituary,
}

impl Announcer {
    pub(super) fn new(
        around: Around,
        source: Source,
        heard: Announcements,
        obituary: Obituary,
    ) -> Self {
        Self { around, source, heard, tasks: Vec::new(), _obituary: obituary }
    }

    fn end(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Actor for Announcer {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let announcing = tokio::spawn(announce(self.around.clone()));
        let listening =
            tokio::spawn(listen(self.around.clone(), self.source.clone(), self.heard.clone()));
        self.tasks = [announcing, listening].map(|task| task.abort_handle()).into();
    }
}

impl Handler<Stop> for Announcer {
    type Result = ();

    fn handle(&mut self, Stop(permit): Stop, _: &mut Self::Context) {
        self.end();
        drop(permit);
    }
}

/// Announces how things are whenever that changed, and now and then anyway.
async fn announce(around: Around) {
    let mut last: Option<(Announcement, u64)> = None;
    let mut ticks = time::interval(limits::ANNOUNCEMENT_INTERVAL_MIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let longest = millis(limits::ANNOUNCEMENT_INTERVAL_MAX);
    loop {
        ticks.tick().await;
        if !around.view.is_connected() {
            last = None; // Who comes is told at once.
            continue;
        }
        let now = around.clock.unix_ms();
        let said = match present(&around).await {
            Ok(said) => said,
            Err(error) => {
                tracing::debug!(%error, "nothing is announced: the queue does not say how it is");
                continue;
            }
        };
        let is_old = |(before, at): &(Announcement, u64)| {
            before.says_as(&said) && now.saturating_sub(*at) < longest
        };
        if last.as_ref().is_some_and(is_old) {
            continue;
        }
        let said = said.numbered(now);
        let told = match said.write() {
            Ok(bytes) => around.swarm.announce(bytes).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match told {
            Ok(()) => {
                metrics::counter!("toolmesh_mesh_announcements_total", "direction" => "sent")
                    .increment(1);
                last = Some((said, now));
            }
            Err(error) => tracing::debug!(error, "an announcement is lost; the next one comes"),
        }
    }
}

/// How things are at this node.
async fn present(around: &Around) -> Result<Announcement, QueueError> {
    let status = around.queue.status().await?;
    let offer = around.worker.offer();
    let all = around.queue.settings().kinds_of_nodes();
    // A paused queue gives nothing, however much waits.
    let waiting = status.kinds.into_iter().filter(|(_, queued, _)| *queued > 0 && !status.paused);
    Ok(Announcement {
        task_types: all.filter(|kind| offer.takes(kind)).collect(),
        slots: offer.slots,
        free_slots: around.worker.free_slots(),
        labels: offer.labels.into_iter().collect(),
        waiting: waiting.map(|(kind, queued, _)| (kind, queued)).collect(),
        ..Announcement::default()
    })
}

/// Keeps what known nodes announce.
async fn listen(around: Around, source: Source, heard: Announcements) {
    let mut source = source.lock().await;
    while let Some(Announced { author, said }) = source.recv().await {
        let author = author.to_string();
        if around.view.alias(&author).is_some() && heard.take(&author, said) {
            metrics::counter!("toolmesh_mesh_announcements_total", "direction" => "heard")
                .increment(1);
        }
    }
}
