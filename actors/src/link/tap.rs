//! The tap on a link's wire: the connectors of MCP pass every message through it.
//!
//! rmcp's typed model drops fields it does not know and refuses results with unknown content, its
//! progress tokens are its own, and progress may overtake. The tap works on the messages as they
//! are on the wire: it knows when a call was handed over, hands raw results to their callers, and
//! passes progress on in wire order. rmcp sees an empty result and keeps its books.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, EmptyResult, GetMeta, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::RpcError;

/// `_meta` key that ties a request to its slot between the session and the tap; never on the wire.
const SLOT_KEY: &str = "dev.toolmesh/slot";
const PROGRESS_KEY: &str = "progressToken";

/// What a server answered, as it was on the wire.
pub(super) type Answer = Result<Value, RpcError>;

const QUEUED: u8 = 0;
const STARTED: u8 = 1;
const ABANDONED: u8 = 2;

/// One call on its way.
#[derive(Debug)]
pub(super) struct Slot {
    progress: Option<mpsc::Sender<Map<String, Value>>>,
    answer: Mutex<Option<oneshot::Sender<Answer>>>,
    state: AtomicU8,
    /// Whether rmcp wants the typed result too.
    typed: bool,
}

impl Slot {
    /// Claims the right to write the request's first byte. `false`: its caller has gone.
    pub(super) fn start(&self) -> bool {
        self.state
            .compare_exchange(QUEUED, STARTED, Ordering::SeqCst, Ordering::SeqCst)
            .map_or_else(|state| state == STARTED, |_| true)
    }

    /// The request did not reach the server after all: the connection was refused before a byte.
    pub(super) fn unstart(&self) {
        self.state.store(QUEUED, Ordering::SeqCst);
    }

    /// Gives the call up. `true`: not one byte was or will be written.
    pub(super) fn abandon(&self) -> bool {
        self.state
            .compare_exchange(QUEUED, ABANDONED, Ordering::SeqCst, Ordering::SeqCst)
            .map_or_else(|state| state == ABANDONED, |_| true)
    }

    /// Whether nobody waits for it any more, so that nothing of it is written.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state.load(Ordering::SeqCst) == ABANDONED
    }

    /// The slot of a call whose caller has gone already.
    fn abandoned() -> Self {
        Self {
            progress: None,
            answer: Mutex::default(),
            state: AtomicU8::new(ABANDONED),
            typed: false,
        }
    }

    fn deliver(&self, answer: Answer) {
        let sender = lock(&self.answer).take();
        if let Some(sender) = sender {
            // The caller may have gone; then nobody wants the answer.
            let _gone = sender.send(answer);
        }
    }
}

/// A slot as its caller holds it; forgotten by the tap when dropped.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) slot: Arc<Slot>,
    pub(super) answer: oneshot::Receiver<Answer>,
    key: u64,
    tap: Arc<Tap>,
}

impl Open {
    /// The `_meta` entry that must ride in the request.
    pub(super) fn meta(&self) -> (String, Value) {
        (SLOT_KEY.to_owned(), self.key.into())
    }

    /// Whether the server has answered.
    pub(super) fn is_answered(&self) -> bool {
        lock(&self.slot.answer).is_none()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tap.forget(self.key);
    }
}

#[derive(Debug)]
struct Entry {
    slot: Arc<Slot>,
    id: Option<RequestId>,
    token: Option<String>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    by_id: HashMap<RequestId, u64>,
    /// Requests of rmcp's own that are not answered yet.
    own: HashSet<RequestId>,
    by_token: HashMap<String, u64>,
}

impl Table {
    fn slot(&self, key: u64) -> Option<Arc<Slot>> {
        self.entries.get(&key).map(|entry| entry.slot.clone())
    }
}

/// Whose answer a message is.
enum Asked {
    /// A call's.
    Call(Arc<Slot>),
    /// rmcp's, or it is no answer.
    Own,
    /// Nobody's.
    Never,
}

/// The tap of one session.
#[derive(Debug)]
pub(super) struct Tap {
    table: Mutex<Table>,
    keys: AtomicU64,
    /// Fires when the wire is gone, after everything read from it was delivered.
    pub(super) ended: CancellationToken,
    /// Why the wire is gone, for people; the first reason stays.
    reason: Mutex<Option<String>>,
    /// Nobody listens where the server should be.
    unreachable: AtomicBool,
    answers: AtomicU64,
    dropped_progress: AtomicU64,
}

impl Tap {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            keys: AtomicU64::new(1),
            ended: CancellationToken::new(),
            reason: Mutex::default(),
            unreachable: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            dropped_progress: AtomicU64::new(0),
        })
    }

    /// Opens a slot for a request that is about to be made.
    pub(super) fn open(
        self: &Arc<Self>,
        progress: Option<mpsc::Sender<Map<String, Value>>>,
        typed: bool,
    ) -> Open {
        let (sender, answer) = oneshot::channel();
        let slot = Arc::new(Slot {
            progress,
            answer: Mutex::new(Some(sender)),
            state: AtomicU8::new(QUEUED),
            typed,
        });
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { slot: slot.clone(), id: None, token: None };
        lock(&self.table).entries.insert(key, entry);
        Open { slot, answer, key, tap: self.clone() }
    }

    fn forget(&self, key: u64) {
        let mut table = lock(&self.table);
        let Some(entry) = table.entries.remove(&key) else { return };
        if let Some(id) = entry.id {
            table.by_id.remove(&id);
        }
        if let Some(token) = entry.token {
            table.by_token.remove(&token);
        }
    }

    /// Requests that were answered on this session.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Counts a request that was answered past the tap.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Says why the wire is gone, and that it is.
    pub(super) fn end(&self, reason: impl Into<String>) {
        lock(&self.reason).get_or_insert_with(|| reason.into());
        self.ended.cancel();
    }

    /// Says that nobody listens where the server should be, so that trying again soon is in vain.
    pub(super) fn end_unreachable(&self, reason: impl Into<String>) {
        self.unreachable.store(true, Ordering::SeqCst);
        self.end(reason);
    }

    /// Whether nobody listens where the server should be.
    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::SeqCst)
    }

    /// Why the wire is gone.
    pub(super) fn reason(&self) -> String {
        lock(&self.reason).clone().unwrap_or_else(|| "the session was closed".to_owned())
    }

    /// Sees a message before it is written: takes our mark off and returns its slot.
    pub(super) fn outgoing(&self, message: &mut ClientJsonRpcMessage) -> Option<Arc<Slot>> {
        let JsonRpcMessage::Request(request) = message else { return None };
        // rmcp's own token of a subscription is part of its lifecycle.
        let keeps_token = matches!(request.request, ClientRequest::SubscriptionsListenRequest(_));
        let meta = &mut request.request.get_meta_mut().0.0;
        let Some(key) = meta.shift_remove(SLOT_KEY).as_ref().and_then(Value::as_u64) else {
            if !keeps_token {
                meta.shift_remove(PROGRESS_KEY); // Nobody listens to rmcp's own.
            }
            lock(&self.table).own.insert(request.id.clone());
            return None;
        };
        let mut table = lock(&self.table);
        let Some(slot) = table.slot(key) else {
            // Its caller gave it up while rmcp had it, and was told that it was not started.
            return Some(Arc::new(Slot::abandoned()));
        };
        let token = if slot.progress.is_some() {
            meta.get(PROGRESS_KEY).map(token_key)
        } else {
            meta.shift_remove(PROGRESS_KEY);
            None
        };
        if let Some(token) = &token {
            table.by_token.insert(token.clone(), key);
        }
        table.by_id.insert(request.id.clone(), key);
        if let Some(entry) = table.entries.get_mut(&key) {
            entry.id = Some(request.id.clone());
            entry.token = token;
        }
        Some(slot)
    }

    /// Sees a message as it was read. Returns what rmcp shall see of it: nothing for progress that
    /// went to its caller, an empty result for an answer that did.
    ///
    /// # Errors
    /// The message is no JSON-RPC message that a server may send.
    pub(super) fn incoming(
        &self,
        mut message: Value,
    ) -> Result<Option<ServerJsonRpcMessage>, serde_json::Error> {
        if let Some(progress) = message.as_object_mut().filter(|m| is_progress(m)) {
            let params = progress.shift_remove("params");
            let Some(Value::Object(params)) = params else { return Ok(None) };
            self.progress(params);
            return Ok(None);
        }
        let slot = match self.asked_for(&message) {
            Asked::Call(slot) => slot,
            Asked::Own => return serde_json::from_value(message).map(Some),
            // It came too late, or was never asked for, which rmcp would take amiss.
            Asked::Never => return Ok(None),
        };
        self.answered();
        if slot.typed {
            let seen = serde_json::from_value(message.clone());
            slot.deliver(answer(&mut message));
            return seen.map(Some);
        }
        let id = message.get("id").cloned().unwrap_or_default();
        slot.deliver(answer(&mut message));
        let id: RequestId = serde_json::from_value(id)?;
        Ok(Some(JsonRpcMessage::response(ServerResult::EmptyResult(EmptyResult {}), id)))
    }

    fn asked_for(&self, message: &Value) -> Asked {
        let answers = |key: &str| message.get(key).is_some();
        if answers("method") || !(answers("result") || answers("error")) {
            return Asked::Own; // No answer at all.
        }
        let Some(id) = message.get("id").filter(|id| !id.is_null()) else { return Asked::Own };
        let Ok(id) = serde_json::from_value::<RequestId>(id.clone()) else { return Asked::Never };
        let number = match &id {
            // Some servers answer a numeric id as a string.
            RequestId::String(text) => text.parse().ok().map(RequestId::Number),
            RequestId::Number(_) => None,
        };
        let mut table = lock(&self.table);
        for id in std::iter::once(id).chain(number) {
            if table.own.remove(&id) {
                return Asked::Own;
            }
            if let Some(slot) = table.by_id.remove(&id).and_then(|key| table.slot(key)) {
                return Asked::Call(slot);
            }
        }
        Asked::Never
    }

    fn progress(&self, params: Map<String, Value>) {
        let Some(token) = params.get(PROGRESS_KEY).map(token_key) else { return };
        let slot = {
            let table = lock(&self.table);
            table.by_token.get(&token).and_then(|key| table.slot(*key))
        };
        let Some(progress) = slot.as_ref().and_then(|slot| slot.progress.as_ref()) else { return };
        if progress.try_send(params).is_err() {
            self.dropped_progress.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("toolmesh_progress_dropped_total").increment(1);
        }
    }
}

fn is_progress(message: &Map<String, Value>) -> bool {
    message.get("method").and_then(Value::as_str) == Some("notifications/progress")
        && !message.contains_key("id")
}

fn token_key(token: &Value) -> String {
    token.as_str().map_or_else(|| token.to_string(), str::to_owned)
}

fn answer(message: &mut Value) -> Answer {
    let Some(object) = message.as_object_mut() else { return Ok(Value::Null) };
    if let Some(error) = object.shift_remove("error") {
        return Err(serde_json::from_value(error.clone()).unwrap_or_else(|_| RpcError {
            code: -32603,
            message: format!("the server answered with an error that is none: {error}"),
            data: None,
        }));
    }
    Ok(object.shift_remove("result").unwrap_or_default())
}

/// A poisoned lock only says that a holder panicked; the tables stay usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rmcp::model::CustomRequest;
    use serde_json::json;

    use super::*;

    /// rmcp's next message: a call with the mark of `open`.
    fn call(open: &Open) -> ClientJsonRpcMessage {
        let mut request = ClientRequest::CustomRequest(CustomRequest::new("tools/call", None));
        request.get_meta_mut().0.0.extend([open.meta()]);
        ClientJsonRpcMessage::request(request, RequestId::Number(1))
    }

    #[test]
    fn a_call_that_was_given_up_while_rmcp_had_it_is_never_written() {
        let tap = Tap::new();
        let open = tap.open(None, false);
        let mut message = call(&open);
        assert!(open.slot.abandon(), "not a byte was written");
        drop(open);
        let slot = tap.outgoing(&mut message);
        assert!(slot.is_some_and(|slot| !slot.start()), "and not a byte will be");
    }

    #[test]
    fn a_call_is_either_started_or_given_up() {
        let tap = Tap::new();
        let open = tap.open(None, false);
        let slot = tap.outgoing(&mut call(&open));
        assert!(slot.is_some_and(|slot| slot.start()) && !open.slot.abandon());
        let mut open = open;
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"new": [null]}});
        assert!(tap.incoming(answer).is_ok_and(|seen| seen.is_some()), "rmcp keeps its books");
        assert_eq!(open.answer.try_recv(), Ok(Ok(json!({"new": [null]}))));
    }
}
