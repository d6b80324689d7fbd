//! Sessions of the revisions before 2026-07-28: who holds how many, and whose each is.
//!
//! rmcp keeps the sessions; this table bounds them, binds each to its principal and makes room by
//! ending the one that has been idle longest.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::Stream;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_server::session::{
        ServerSseMessage, SessionId, SessionManager,
        local::{LocalSessionManager, SessionConfig},
    },
};
use toolmesh_core::{limits, principal::Principal, time::millis};

use super::{Limits, admission::Refused};
use crate::kit::Clock;

/// How many sessions there are, for who only counts them.
#[derive(Debug, Clone, Default)]
pub struct SessionCount(Arc<AtomicUsize>);

impl SessionCount {
    /// Sessions now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// rmcp's session manager behind the table.
#[derive(Debug)]
pub(super) struct Sessions {
    inner: LocalSessionManager,
    table: Mutex<Table>,
    total: usize,
    per_principal: usize,
    clock: Clock,
    count: SessionCount,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<SessionId, Session>,
    /// Places promised to `initialize` requests that are under way.
    promised: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Session {
    /// Known once its `initialize` was answered.
    owner: Option<Arc<str>>,
    last_used: u64,
}

/// A place for a session that is being made.
#[derive(Debug)]
pub(super) struct Promise {
    sessions: Arc<Sessions>,
    owner: Arc<str>,
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        if let Some(promised) = table.promised.get_mut(&self.owner) {
            *promised -= 1;
            if *promised == 0 {
                table.promised.remove(&self.owner);
            }
        }
    }
}

impl Promise {
    /// The session was made: from now on it is its owner's.
    pub(super) fn keep(self, id: &str) {
        let mut table = self.sessions.table();
        if let Some(session) = table.open.get_mut(id) {
            session.owner = Some(self.owner.clone());
        }
    }
}

impl Sessions {
    pub(super) fn new(limits: &Limits, clock: Clock, count: SessionCount) -> Arc<Self> {
        let mut config = SessionConfig::default();
        config.keep_alive = Some(limits.session_idle);
        let mut inner = LocalSessionManager::default();
        inner.session_config = config;
        Arc::new(Self {
            inner,
            table: Mutex::default(),
            total: limits.sessions,
            per_principal: limits.sessions_per_principal,
            clock,
            count,
        })
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises a place for one more session of `principal`, ending an idle one if need be.
    pub(super) async fn promise(
        self: &Arc<Self>,
        principal: &Principal,
    ) -> Result<Promise, Refused> {
        loop {
            let idle = {
                let mut table = self.table();
                let owned = |owner: &Arc<str>| *owner == principal.id;
                let own =
                    table.open.values().filter(|s| s.owner.as_ref().is_some_and(owned)).count()
                        + table.promised.get(&principal.id).copied().unwrap_or(0);
                // A session that is being made is still in its promise, so it is not counted twice.
                let all = table.open.values().filter(|s| s.owner.is_some()).count()
                    + table.promised.values().sum::<usize>();
                if own < self.per_principal && all < self.total {
                    *table.promised.entry(principal.id.clone()).or_default() += 1;
                    let (sessions, owner) = (self.clone(), principal.id.clone());
                    return Ok(Promise { sessions, owner });
                }
                let only_own = own >= self.per_principal;
                self.longest_idle(&table, only_own.then_some(&principal.id))
            };
            let Some(idle) = idle else {
                let reason = "as many sessions as there may be, and none is idle";
                return Err(Refused { reason, retry_after: limits::SESSION_EVICTABLE_AFTER });
            };
            tracing::debug!(session = %idle, "ending the session that was idle longest");
            metrics::counter!("toolmesh_sessions_evicted_total").increment(1);
            self.end(&idle).await;
        }
    }

    fn longest_idle(&self, table: &Table, of: Option<&Arc<str>>) -> Option<SessionId> {
        let idle_since =
            self.clock.now_ms().checked_sub(millis(limits::SESSION_EVICTABLE_AFTER))?;
        let candidates = table.open.iter().filter(|(_, session)| {
            session.last_used <= idle_since
                && session.owner.as_ref().is_some_and(|owner| of.is_none_or(|of| owner == of))
        });
        candidates.min_by_key(|(_, session)| session.last_used).map(|(id, _)| id.clone())
    }

    /// Whether `principal` may use the session; using it counts as activity.
    pub(super) fn touch(&self, id: &str, principal: &Principal) -> bool {
        let now = self.clock.now_ms();
        match self.table().open.get_mut(id) {
            Some(session) if session.owner.as_ref() == Some(&principal.id) => {
                session.last_used = now;
                true
            }
            _ => false,
        }
    }

    /// When the session was used last, in the node's milliseconds.
    pub(super) fn last_used(&self, id: &str) -> Option<u64> {
        self.table().open.get(id).map(|session| session.last_used)
    }

    async fn end(&self, id: &SessionId) {
        self.forget(id);
        if let Err(error) = self.inner.close_session(id).await {
            tracing::debug!(%error, "the session had ended");
        }
    }

    fn forget(&self, id: &SessionId) {
        let mut table = self.table();
        table.open.remove(id);
        self.counted(&table);
    }

    fn counted(&self, table: &Table) {
        self.count.0.store(table.open.len(), Ordering::Relaxed);
        metrics::gauge!("toolmesh_sessions")
            .set(u32::try_from(table.open.len()).unwrap_or(u32::MAX));
    }
}

impl SessionManager for Sessions {
    type Error = <LocalSessionManager as SessionManager>::Error;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let (id, transport) = self.inner.create_session().await?;
        let mut table = self.table();
        let session = Session { owner: None, last_used: self.clock.now_ms() };
        table.open.insert(id.clone(), session);
        self.counted(&table);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.inner.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.forget(id);
        self.inner.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.inner.create_stream(id, message).await
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Self::Error> {
        self.inner.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.inner.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.inner.resume(id, last_event_id).await
    }
}
