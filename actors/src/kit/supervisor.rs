//! What happens when an actor ends, as a table, and who brings it back.

use std::{collections::HashMap, time::Duration};

use actix::{Actor, Addr, Context};
use tokio::sync::mpsc;
use toolmesh_core::time::millis;

use super::{Clock, Door};

/// What a panic in an actor does to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFault {
    /// A fresh actor from its records takes over; more often than `times` in `within` the node
    /// stops, because something is wrong that a restart does not mend.
    Restart {
        /// Restarts allowed.
        times: u32,
        /// In this time.
        within: Duration,
    },
    /// As `Restart`, but more often than that the node goes on without the actor, which says so
    /// itself: nothing that was promised depends on it.
    GoWithout {
        /// Restarts allowed.
        times: u32,
        /// In this time.
        within: Duration,
    },
    /// The node stops: going on could lose what was promised.
    StopNode,
}

/// One row of the supervision table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The kind of actor.
    pub name: &'static str,
    /// What a panic does.
    pub on_fault: OnFault,
    /// Place in the stop order; smaller stops earlier.
    pub stop_order: u8,
    /// Time to finish what is inside when the node stops.
    pub drain: Duration,
}

const MINUTE: Duration = Duration::from_secs(60);

/// Every kind of actor: doors close from the top, the store goes last.
pub const TABLE: [Row; 10] = [
    Row {
        name: "gateway",
        on_fault: OnFault::StopNode,
        stop_order: 1,
        drain: toolmesh_core::limits::DRAIN_TIME,
    },
    Row {
        name: "router",
        on_fault: OnFault::Restart { times: 5, within: MINUTE },
        stop_order: 2,
        drain: Duration::from_secs(2),
    },
    Row {
        name: "tools",
        on_fault: OnFault::Restart { times: 10, within: MINUTE },
        stop_order: 2,
        drain: Duration::from_secs(2),
    },
    Row {
        name: "worker",
        on_fault: OnFault::Restart { times: 5, within: MINUTE },
        stop_order: 1,
        drain: toolmesh_core::limits::DRAIN_TIME,
    },
    Row {
        name: "announcer",
        on_fault: OnFault::GoWithout { times: 3, within: MINUTE },
        stop_order: 1,
        drain: Duration::from_secs(1),
    },
    Row {
        name: "queue",
        on_fault: OnFault::StopNode,
        stop_order: 4,
        drain: Duration::from_secs(1),
    },
    Row {
        name: "link",
        on_fault: OnFault::Restart { times: 10, within: MINUTE },
        stop_order: 3,
        drain: Duration::from_secs(4),
    },
    Row {
        name: "registry",
        on_fault: OnFault::GoWithout { times: 10, within: MINUTE },
        stop_order: 3,
        drain: Duration::from_secs(1),
    },
    Row {
        name: "swarm",
        on_fault: OnFault::GoWithout { times: 3, within: MINUTE },
        stop_order: 4,
        drain: Duration::from_secs(1),
    },
    Row {
        name: "store",
        on_fault: OnFault::StopNode,
        stop_order: 5,
        drain: Duration::from_secs(5),
    },
];

/// The row of `name`; an unknown name stops the node on a fault, which is the safe choice.
pub fn row(name: &str) -> Row {
    TABLE.into_iter().find(|row| row.name == name).unwrap_or(Row {
        name: "unknown",
        on_fault: OnFault::StopNode,
        stop_order: 1,
        drain: Duration::from_secs(1),
    })
}

/// Why the node must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{actor} failed: {reason}")]
pub struct Fault {
    /// Which actor, by its full name.
    pub actor: String,
    /// What happened.
    pub reason: String,
}

enum News {
    Died { id: u64 },
    Watch { id: u64, name: String, row: Row, restart: Restart },
    Forget { id: u64 },
}

type Restart = Box<dyn Fn(Obituary) + Send>;

/// Held by an actor as a field: tells the supervisor when the actor is dropped by a panic, or
/// says itself that it cannot go on.
#[derive(Debug)]
pub struct Obituary {
    id: u64,
    news: mpsc::WeakSender<News>,
}

impl Obituary {
    /// Has the supervisor do as after a panic. The actor stops itself next, and says this once.
    pub fn fault(&self) {
        // Restart budgets keep deaths far below the lane's capacity.
        if let Some(news) = self.news.upgrade()
            && news.try_send(News::Died { id: self.id }).is_err()
        {
            tracing::error!(id = self.id, "obituary lost: the supervisor's lane is full");
        }
    }
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fault();
        }
    }
}

/// Says that an actor is wanted. When this is dropped, the supervisor forgets the actor.
#[derive(Debug)]
pub struct Supervised {
    id: u64,
    news: mpsc::WeakSender<News>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // A lane that is full or gone leaves one entry behind, which does nothing.
        if let Some(news) = self.news.upgrade() {
            let _left_behind = news.try_send(News::Forget { id: self.id });
        }
    }
}

/// Brings actors back according to [`TABLE`], from a factory and never from the old value.
#[derive(Debug, Clone)]
pub struct Supervisor {
    news: mpsc::Sender<News>,
    ids: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("News")
    }
}

impl Supervisor {
    /// Starts a supervisor on the current arbiter. A fault that must stop the node is sent to
    /// `fatal`, whose reader may be gone when the node stops anyway.
    pub fn start(clock: Clock, fatal: mpsc::Sender<Fault>) -> Self {
        let (news, inbox) = mpsc::channel(toolmesh_core::limits::DOOR);
        actix::spawn(watch(clock, news.downgrade(), inbox, fatal));
        Self { news, ids: std::sync::Arc::default() }
    }

    /// Starts an actor of kind `row`, called `name`, on the current arbiter, behind `door`, and
    /// starts it again from `factory` when it panics and its row says so. It is watched as long as
    /// the returned value is kept.
    pub async fn supervise<A>(
        &self,
        row: Row,
        name: String,
        door: Door<A>,
        factory: impl Fn(Obituary) -> A + Send + 'static,
    ) -> Supervised
    where
        A: Actor<Context = Context<A>>,
    {
        let id = self.ids.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let restart = move |obituary| {
            let addr: Addr<A> = factory(obituary).start();
            door.bind(addr);
        };
        restart(Obituary { id, news: self.news.downgrade() });
        let watched = News::Watch { id, name, row, restart: Box::new(restart) };
        if self.news.send(watched).await.is_err() {
            tracing::debug!("supervisor is gone: the node is stopping");
        }
        Supervised { id, news: self.news.downgrade() }
    }
}

struct Watched {
    name: String,
    row: Row,
    restart: Restart,
    deaths: Vec<u64>,
}

async fn watch(
    clock: Clock,
    news: mpsc::WeakSender<News>,
    mut inbox: mpsc::Receiver<News>,
    fatal: mpsc::Sender<Fault>,
) {
    let mut actors: HashMap<u64, Watched> = HashMap::new();
    // An actor may die before its entry arrives here.
    let mut early_deaths: Vec<u64> = Vec::new();
    while let Some(item) = inbox.recv().await {
        let id = match item {
            News::Watch { id, name, row, restart } => {
                actors.insert(id, Watched { name, row, restart, deaths: Vec::new() });
                if !early_deaths.contains(&id) {
                    continue;
                }
                early_deaths.retain(|early| *early != id);
                id
            }
            News::Died { id } if !actors.contains_key(&id) => {
                early_deaths.push(id);
                continue;
            }
            News::Died { id } => id,
            News::Forget { id } => {
                actors.remove(&id);
                continue;
            }
        };
        let Some(watched) = actors.get_mut(&id) else { continue };
        let again = match watched.row.on_fault {
            OnFault::StopNode => false,
            OnFault::Restart { times, within } | OnFault::GoWithout { times, within } => {
                let now = clock.now_ms();
                let window = millis(within);
                watched.deaths.retain(|death| now.saturating_sub(*death) < window);
                watched.deaths.push(now);
                watched.deaths.len() <= times as usize
            }
        };
        metrics::counter!("toolmesh_actor_panics_total", "actor" => watched.row.name).increment(1);
        if again {
            tracing::error!(actor = watched.name, "actor failed; starting it again");
            (watched.restart)(Obituary { id, news: news.clone() });
        } else if matches!(watched.row.on_fault, OnFault::GoWithout { .. }) {
            tracing::error!(actor = watched.name, "actor failed; the node goes on without it");
        } else {
            tracing::error!(actor = watched.name, "actor failed; stopping the node");
            let fault =
                Fault { actor: watched.name.clone(), reason: "it panicked; see the log".into() };
            if fatal.try_send(fault).is_err() {
                tracing::debug!("a stop is already under way");
            }
        }
    }
}
