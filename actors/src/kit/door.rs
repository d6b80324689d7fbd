//! The door in front of an actor: it admits a bounded number of messages and survives restarts.

use std::{fmt, sync::Arc};

use actix::{Actor, Addr, Handler, Message, dev::ToEnvelope};
use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The right to have one message in an actor. It rides in the message and ends with its work, so
/// it counts what waits and what runs.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

/// Why a message was not admitted or not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// As many messages as allowed are inside; nothing was sent.
    #[error("busy: try again")]
    Busy,
    /// The node is stopping; nothing was sent.
    #[error("the node is stopping")]
    Closed,
    /// The actor ended before it answered; the message may have been handled.
    #[error("the actor ended before it answered")]
    Gone,
}

/// The only way to an actor. Cheap to clone; the supervisor re-binds it after a restart.
pub struct Door<A: Actor> {
    inner: Arc<Inner<A>>,
}

struct Inner<A: Actor> {
    addr: ArcSwapOption<Addr<A>>,
    permits: Arc<Semaphore>,
    capacity: usize,
}

impl<A: Actor> Clone for Door<A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<A: Actor> fmt::Debug for Door<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("inside", &self.inside()).finish_non_exhaustive()
    }
}

impl<A: Actor> Door<A> {
    /// Makes a door for `capacity` messages at once; nobody is behind it yet.
    pub fn new(capacity: usize) -> Self {
        let permits = Arc::new(Semaphore::new(capacity));
        Self { inner: Arc::new(Inner { addr: ArcSwapOption::empty(), permits, capacity }) }
    }

    /// Puts `addr` behind the door, in place of who was there.
    pub fn bind(&self, addr: Addr<A>) {
        self.inner.addr.store(Some(Arc::new(addr)));
    }

    /// Admits no more messages. What is inside goes on.
    pub fn close(&self) {
        self.inner.permits.close();
    }

    /// Messages that are inside: waiting or being worked on.
    pub fn inside(&self) -> usize {
        self.inner.capacity - self.inner.permits.available_permits()
    }

    /// Admits one message, at once or not at all.
    ///
    /// # Errors
    /// [`DoorError::Busy`] when full, [`DoorError::Closed`] when closed.
    pub fn admit(&self) -> Result<Permit, DoorError> {
        use tokio::sync::TryAcquireError::{Closed, NoPermits};
        match self.inner.permits.clone().try_acquire_owned() {
            Ok(permit) => Ok(Permit { _permit: permit }),
            Err(NoPermits) => Err(DoorError::Busy),
            Err(Closed) => Err(DoorError::Closed),
        }
    }

    /// Admits a message, made with its permit, and waits for the answer.
    ///
    /// # Errors
    /// [`DoorError::Gone`] says that the message may have been handled; the others that it was not.
    pub async fn ask<M>(&self, message: impl FnOnce(Permit) -> M) -> Result<M::Result, DoorError>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let (addr, permit) = self.enter()?;
        addr.send(message(permit)).await.map_err(|_gone| DoorError::Gone)
    }

    /// Admits a message and does not wait: news for which the actor has no answer.
    ///
    /// # Errors
    /// As [`Door::admit`], and [`DoorError::Gone`] when nobody is behind the door.
    pub fn tell<M>(&self, message: impl FnOnce(Permit) -> M) -> Result<(), DoorError>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let (addr, permit) = self.enter()?;
        #[expect(clippy::disallowed_methods, reason = "the permit in the message is the bound")]
        addr.do_send(message(permit));
        Ok(())
    }

    /// Who is behind the door, and the right to send one message there.
    fn enter(&self) -> Result<(Arc<Addr<A>>, Permit), DoorError> {
        let permit = self.admit()?;
        Ok((self.inner.addr.load_full().ok_or(DoorError::Gone)?, permit))
    }
}
