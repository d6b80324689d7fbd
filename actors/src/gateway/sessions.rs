//! Sessions of the revisions before 2026-07-28: who holds how many, and whose each is.
//!
//! rmcp keeps the sessions; this table bounds them, binds each to its principal, ends those that
//! have been idle for long, and makes room by ending the one that has been idle longest. One with a
//! request under way or an open stream is not idle, however long that takes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_server::session::{
        ServerSseMessage, SessionId, SessionManager,
        local::{LocalSessionManager, SessionConfig},
    },
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{limits, principal::Principal, time::millis};

use super::{
    Limits,
    admission::Refused,
    resume::{self, Leftovers},
};
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
    leftovers: Leftovers,
    total: usize,
    per_principal: usize,
    idle: Duration,
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
    /// When its last request or stream ended, in the node's milliseconds.
    last_used: u64,
    /// Requests under way and open streams.
    in_use: usize,
    /// Requests and streams that ever were.
    uses: u64,
}

impl Session {
    fn is_idle_since(&self, at: u64) -> bool {
        self.in_use == 0 && self.last_used <= at
    }
}

/// A request or a stream of a session; while there is one, the session is not idle.
#[derive(Debug)]
pub(super) struct Use {
    sessions: Arc<Sessions>,
    id: SessionId,
}

impl Drop for Use {
    fn drop(&mut self) {
        let now = self.sessions.clock.now_ms();
        if let Some(session) = self.sessions.table().open.get_mut(&self.id) {
            session.in_use -= 1;
            session.last_used = now;
        }
    }
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
        config.keep_alive = None; // It would count messages alone; see `expire`.
        let mut inner = LocalSessionManager::default();
        inner.session_config = config;
        Arc::new(Self {
            inner,
            table: Mutex::default(),
            leftovers: Leftovers::default(),
            total: limits.sessions,
            per_principal: limits.sessions_per_principal,
            idle: limits.session_idle,
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
                let idle = self.longest_idle(&table, only_own.then_some(&principal.id));
                self.take(&mut table, idle.as_slice());
                idle
            };
            let Some(idle) = idle else {
                let reason = "as many sessions as there may be, and none is idle";
                return Err(Refused { reason, retry_after: limits::SESSION_EVICTABLE_AFTER });
            };
            tracing::debug!(session = %idle, "ending the session that was idle longest");
            metrics::counter!("toolmesh_sessions_evicted_total").increment(1);
            self.close(&idle).await;
        }
    }

    fn longest_idle(&self, table: &Table, of: Option<&Arc<str>>) -> Option<SessionId> {
        let idle_since =
            self.clock.now_ms().checked_sub(millis(limits::SESSION_EVICTABLE_AFTER))?;
        let candidates = table.open.iter().filter(|(_, session)| {
            session.is_idle_since(idle_since)
                && session.owner.as_ref().is_some_and(|owner| of.is_none_or(|of| owner == of))
        });
        candidates.min_by_key(|(_, session)| session.last_used).map(|(id, _)| id.clone())
    }

    /// Lets `principal` use the session, until what this returns is dropped. `None`: there is no
    /// such session, or it is another's.
    pub(super) fn enter(self: &Arc<Self>, id: &str, principal: &Principal) -> Option<Use> {
        let mut table = self.table();
        let session = table.open.get_mut(id)?;
        if session.owner.as_ref() != Some(&principal.id) {
            return None;
        }
        session.in_use += 1;
        session.uses += 1;
        drop(table);
        Some(Use { sessions: self.clone(), id: id.into() })
    }

    /// How often the session was used: who knows an earlier number sees whether it was used since.
    pub(super) fn uses(&self, id: &str) -> Option<u64> {
        self.table().open.get(id).map(|session| session.uses)
    }

    /// Ends the sessions that have been idle for as long as one may be.
    pub(super) async fn expire(&self) {
        let expired: Vec<SessionId> = {
            let Some(idle_since) = self.clock.now_ms().checked_sub(millis(self.idle)) else {
                return;
            };
            let mut table = self.table();
            let idle = table.open.iter().filter(|(_, session)| session.is_idle_since(idle_since));
            let idle: Vec<_> = idle.map(|(id, _)| id.clone()).collect();
            self.take(&mut table, &idle);
            idle
        };
        for id in &expired {
            tracing::debug!(session = %id, "ending a session that was idle for its time");
            self.close(id).await;
        }
    }

    /// Ends idle sessions in their time, until `stop`.
    pub(super) async fn keep_expiring(self: Arc<Self>, stop: CancellationToken) {
        let pause = (self.idle / 5).min(limits::SESSION_CHECK);
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            self.expire().await;
        }
    }

    /// Takes sessions that are idle out of the table, in the same breath as they were found to be so:
    /// who comes a moment later finds none, instead of one that is closed under its call.
    fn take(&self, table: &mut Table, idle: &[SessionId]) {
        for id in idle {
            table.open.remove(id);
        }
        self.counted(table);
    }

    async fn close(&self, id: &SessionId) {
        if let Err(error) = self.inner.close_session(id).await {
            tracing::debug!(%error, "the session had ended");
        }
    }

    fn forget(&self, id: &SessionId) {
        self.take(&mut self.table(), std::slice::from_ref(id));
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
        let now = self.clock.now_ms();
        let session = Session { owner: None, last_used: now, in_use: 0, uses: 0 };
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
        Ok(self.leftovers.follow(id, self.inner.create_stream(id, message).await?))
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
        // rmcp would send the last event again, and has forgotten what is answered.
        match self.inner.resume(id, resume::after(&last_event_id)).await {
            Ok(events) => Ok(self.leftovers.follow(id, events).left_stream()),
            Err(error) => {
                let left = self.leftovers.take(id, &last_event_id).await.ok_or(error)?;
                Ok(futures::stream::iter(left).right_stream())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use toolmesh_core::principal::Role;

    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn sessions(per_principal: usize, clock: &Clock) -> Arc<Sessions> {
        let limits = Limits {
            session_idle: IDLE,
            sessions_per_principal: per_principal,
            ..Limits::default()
        };
        Sessions::new(&limits, clock.clone(), SessionCount::default())
    }

    /// Makes a session of `who`, if there may be one more.
    async fn open(sessions: &Arc<Sessions>, who: &Principal) -> Option<SessionId> {
        let promise = sessions.promise(who).await.ok()?;
        let (id, _transport) = sessions.create_session().await.ok()?;
        promise.keep(&id);
        Some(id)
    }

    #[actix::test]
    async fn a_session_in_use_is_neither_expired_nor_evicted() {
        let (clock, who) = (Clock::manual(), Principal::local());
        let sessions = sessions(2, &clock);
        let Some(busy) = open(&sessions, &who).await else { unreachable!("the first has room") };
        let Some(idle) = open(&sessions, &who).await else { unreachable!("so has the second") };
        let (call, stream) = (sessions.enter(&busy, &who), sessions.enter(&busy, &who));
        assert!(call.is_some() && stream.is_some());
        drop(call);
        clock.advance(millis(limits::SESSION_EVICTABLE_AFTER));
        assert!(open(&sessions, &who).await.is_some(), "the idle one makes room");
        assert!(sessions.uses(&idle).is_none() && sessions.uses(&busy) == Some(2));

        clock.advance(millis(IDLE));
        sessions.expire().await;
        assert_eq!(sessions.count.get(), 1, "its stream is open");
        drop(stream);
        clock.advance(millis(IDLE) - 1);
        sessions.expire().await;
        assert_eq!(sessions.count.get(), 1, "its time begins when the last use ends");
        clock.advance(1);
        sessions.expire().await;
        assert_eq!(sessions.count.get(), 0);
        assert!(sessions.enter(&busy, &who).is_none());
    }

    #[actix::test]
    async fn where_all_sessions_are_in_use_a_new_one_is_refused() {
        let (clock, who) = (Clock::manual(), Principal::local());
        let sessions = sessions(1, &clock);
        let Some(busy) = open(&sessions, &who).await else { unreachable!("the first has room") };
        let _call = sessions.enter(&busy, &who);
        clock.advance(millis(IDLE));
        assert!(open(&sessions, &who).await.is_none());
        let other = Principal::new("operator", Role::Operator);
        assert!(sessions.enter(&busy, &other).is_none(), "it is not another's");
        assert!(open(&sessions, &other).await.is_some(), "who has room of its own");
    }

    #[actix::test]
    async fn nobody_comes_into_a_session_that_is_about_to_be_closed() {
        let (clock, who) = (Clock::manual(), Principal::local());
        let sessions = sessions(2, &clock);
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.extend(open(&sessions, &who).await);
        }
        clock.advance(millis(IDLE));
        let rmcp_is_busy = sessions.inner.sessions.read().await;
        let mut expiring = Box::pin(sessions.expire());
        assert!(futures::poll!(&mut expiring).is_pending(), "the first waits to be closed");
        assert!(ids.len() == 2 && ids.iter().all(|id| sessions.enter(id, &who).is_none()));
        drop(rmcp_is_busy);
        expiring.await;
        assert_eq!(sessions.count.get(), 0);
    }

    #[actix::test]
    async fn a_session_that_was_never_begun_ends_too() {
        let clock = Clock::manual();
        let sessions = sessions(1, &clock);
        assert!(sessions.create_session().await.is_ok());
        clock.advance(millis(IDLE));
        sessions.expire().await;
        assert_eq!(sessions.count.get(), 0);
    }
}
