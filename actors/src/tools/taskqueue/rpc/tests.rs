//! Operations as Python peers ask them, of a queue in memory.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod ends;
mod large;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use toolmesh_core::{
    limits,
    policy::{self, Policy, Standing},
    principal::Principal,
};
use toolmesh_store::{MemoryRecords, State, Store, records::QueueState};

use super::{super::Asked, TaskQueueTools, object};
use crate::{
    announcer::Announcements,
    child::Guard,
    kit::{Clock, Fault, Supervisor},
    link::{Instance, Surroundings, tests::rig::Notebook},
    queue::{QueueHandle, Settings},
    router::{RouterHandle, View},
    store::StoreHandle,
    worker::{self, WorkerHandle},
};

/// A node's tools of the queue, at a time that is turned by hand.
struct Rig {
    tools: TaskQueueTools,
    clock: Clock,
    _faults: mpsc::Receiver<Fault>,
    _store: StoreHandle,
}

impl Rig {
    async fn new() -> Self {
        let (fatal, faults) = mpsc::channel(4);
        let clock = Clock::manual();
        let supervisor = Supervisor::start(clock.clone(), fatal);
        let store = Store::in_memory(Arc::new(MemoryRecords::default()), |_| {}).unwrap();
        let store =
            StoreHandle::start(store, State::default(), "the operator's", &supervisor).await;
        let (kept, settings) = (QueueState::default(), Settings::default());
        let queue = QueueHandle::start(settings, kept, &store, clock.clone(), &supervisor);
        let queue = queue.await.unwrap();
        let guard = Arc::new(Guard::default());
        let memory = Arc::new(Notebook::default());
        let instance = Instance::random();
        let around = Surroundings { guard: guard.clone(), memory, mesh: None, instance };
        let router =
            RouterHandle::start(View::default(), clock.clone(), supervisor.clone(), around).await;
        let heard = Announcements::new(clock.clone());
        let offers = worker::Settings {
            offer: worker::Offer::default(),
            commands: std::collections::BTreeMap::new(),
            lease_ms: 30_000,
        };
        let worker =
            WorkerHandle::start(offers, queue.clone(), router.clone(), guard, heard, &supervisor)
                .await;
        let tools = TaskQueueTools::new(queue, worker, router, ("12D3KooWNode", "here"));
        Self { tools, clock, _faults: faults, _store: store }
    }

    /// Asks as the peer `of`.
    async fn ask_as(&self, of: &str, op: &str, mut request: Value) -> Value {
        let caller = policy::Caller { peer_id: of, node: None, standing: Standing::Member };
        let who = Principal::peer(of, Policy::default().grant(&caller));
        request["op"] = op.into();
        let mut result = self.tools.rpc(who, object(request)).await;
        result["structuredContent"].take()
    }

    async fn ask(&self, op: &str, request: Value) -> Value {
        self.ask_as("12D3KooWPeer", op, request).await
    }

    /// As [`ask`](Self::ask), for what is done.
    async fn done(&self, op: &str, request: Value) -> Value {
        let answer = self.ask(op, request).await;
        assert_eq!(answer["ok"], true, "{op}: {answer}");
        answer
    }

    /// Submits a task of type `embed`, and returns its id.
    async fn submit(&self, payload: Value) -> Value {
        let work = json!({"task_type": "embed", "payload": payload});
        self.done("submit", work).await["task_id"].take()
    }

    async fn row(&self, id: &Value) -> Value {
        self.done("get", json!({"task_id": id})).await["task"].take()
    }

    /// A worker over MCP, which is `local`, claims a task.
    async fn claim_over_mcp(&self, worker: &str) -> Value {
        let arguments = object(json!({"worker_id": worker}));
        let mut told =
            self.tools.claim(Asked { who: Principal::local(), arguments }).await.unwrap();
        told["structuredContent"]["tasks"][0].take()
    }
}
