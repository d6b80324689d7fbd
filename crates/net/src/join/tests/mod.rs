//! The exchange between honest and other sides, over a pipe.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod attacks;
mod honest;
mod hostile;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Ready, ready},
    rc::Rc,
    sync::{Mutex, MutexGuard},
};

use futures::future::{BoxFuture, FutureExt};
use libp2p::PeerId;

use super::{Invite, Invites, Key, MeshSecret, Ours};
use crate::frame::tests::{Memory, memory};

fn pipe() -> (Memory, Memory) {
    memory(4_096)
}

/// A node: who it is, and what it admitted.
struct Node {
    ours: Ours,
    secret: MeshSecret,
    invites: Book,
    /// What happened at any of the nodes that share it, in order.
    events: Rc<RefCell<Vec<String>>>,
    admits: bool,
}

impl Node {
    fn new(name: &str, secret: &MeshSecret) -> Self {
        let peer_id = PeerId::random();
        let addresses = vec![address(7_333, &peer_id)];
        Self {
            ours: Ours { peer_id, name: name.to_owned(), addresses },
            secret: secret.clone(),
            invites: Book::default(),
            events: Rc::default(),
            admits: true,
        }
    }

    fn id(&self) -> PeerId {
        self.ours.peer_id
    }

    fn key(&self) -> Key {
        Key::Secret(self.secret.clone())
    }

    /// Makes an invite that may be used `uses` times.
    fn invite(&self, uses: u32) -> Invite {
        let invite = Invite::new(self.id(), &self.ours.addresses, 1_800_000_000).unwrap();
        self.invites.lock().insert(invite.id(), (*invite.code(), uses));
        invite
    }

    fn admit(&self, secret: &MeshSecret) -> Ready<bool> {
        let event = format!("{} admits under {}", self.ours.name, secret.fingerprint());
        self.events.borrow_mut().push(event);
        ready(self.admits)
    }

    fn admitted(&self) -> usize {
        let start = format!("{} admits", self.ours.name);
        self.events.borrow().iter().filter(|event| event.starts_with(&start)).count()
    }

    async fn dial(&self, stream: Memory, theirs: PeerId, key: &Key) -> Met {
        super::exchange::dial(stream, &self.ours, theirs, key, |secret| self.admit(&secret)).await
    }

    async fn answer(&self, stream: Memory, theirs: PeerId) -> Met {
        let (ours, secret) = (&self.ours, &self.secret);
        let invites = Some(&self.invites as &dyn Invites);
        let admit = |secret| self.admit(&secret);
        super::exchange::answer(stream, ours, theirs, secret, invites, None, admit).await
    }
}

type Met = Result<super::Theirs, super::ExchangeError>;

/// Lets `dialer` join `listener` with `key`; what each side has of it.
async fn meet(dialer: &Node, listener: &Node, key: &Key) -> (Met, Met) {
    let (here, there) = pipe();
    futures::future::join(
        dialer.dial(here, listener.id(), key),
        listener.answer(there, dialer.id()),
    )
    .await
}

fn address(port: u16, peer_id: &PeerId) -> crate::PeerAddress {
    format!("/ip4/192.0.2.7/tcp/{port}/p2p/{peer_id}").parse().unwrap()
}

/// The invites of a node: code and uses left, by id.
#[derive(Debug, Default)]
struct Book(Mutex<BTreeMap<String, ([u8; 32], u32)>>);

impl Book {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ([u8; 32], u32)>> {
        self.0.lock().unwrap()
    }
}

impl Invites for Book {
    fn code(&self, id: &str) -> Option<[u8; 32]> {
        self.lock().get(id).filter(|(_, uses)| *uses > 0).map(|(code, _)| *code)
    }

    fn spend(&self, id: &str, _by: PeerId) -> BoxFuture<'_, bool> {
        let mut book = self.lock();
        let spent = book.get_mut(id).filter(|(_, uses)| *uses > 0).map(|(_, uses)| *uses -= 1);
        ready(spent.is_some()).boxed()
    }
}
