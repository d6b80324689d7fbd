//! Who is let in: made before the swarm, which reads it, and changed by the registry.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use toolmesh_core::registry::Machine;
use toolmesh_net::{Admission, Invites, MeshSecret, Mode, PeerId};

use crate::store::StoreHandle;

/// Who is let in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    admission: watch::Sender<Arc<Admission>>,
    /// As the configuration has it; whom an operator trusts comes on top.
    mode: Mode,
    store: StoreHandle,
}

impl Gate {
    /// Makes the gate of a mesh with `secret`; who is banned is so from the first moment on.
    pub fn new(secret: MeshSecret, mode: Mode, store: StoreHandle) -> Self {
        let kept = store.registry();
        let banned = peers(kept.bans.keys());
        let admission =
            Admission { secret, mode: with(&mode, &peers(kept.trusted.keys())), banned };
        Self { admission: watch::Sender::new(Arc::new(admission)), mode, store }
    }

    /// Who is let in, now and after each change.
    pub fn admission(&self) -> watch::Receiver<Arc<Admission>> {
        self.admission.subscribe()
    }

    /// The invitations that this node made.
    pub fn invites(&self) -> Arc<dyn Invites> {
        Arc::new(StoredInvites(self.store.clone()))
    }

    /// The present secret.
    pub(super) fn secret(&self) -> MeshSecret {
        self.admission.borrow().secret.clone()
    }

    /// Lets in who knows `secret` from now on, and nobody else.
    pub(super) fn change_secret(&self, secret: MeshSecret) {
        self.admission.send_modify(|present| {
            *present = Arc::new(Admission { secret, ..Admission::clone(present) });
        });
    }

    /// Lets in whom `machine` wants, from now on.
    pub(super) fn follow(&self, machine: &Machine) {
        let banned = peers(machine.kept_out());
        let mode = with(&self.mode, &peers(machine.records().trusted.keys()));
        self.admission.send_if_modified(|present| {
            let changed = present.banned != banned || present.mode != mode;
            if changed {
                let secret = present.secret.clone();
                *present = Arc::new(Admission { secret, mode, banned });
            }
            changed
        });
    }
}

fn peers<'a>(ids: impl Iterator<Item = &'a Arc<str>>) -> BTreeSet<PeerId> {
    ids.filter_map(|id| id.parse().ok()).collect()
}

fn with(mode: &Mode, trusted: &BTreeSet<PeerId>) -> Mode {
    match mode {
        Mode::Listed(listed) => Mode::Listed(listed | trusted),
        other => other.clone(),
    }
}

/// Invitations as the store has them: a use is on disk before it counts.
#[derive(Debug)]
struct StoredInvites(StoreHandle);

impl Invites for StoredInvites {
    fn code(&self, id: &str) -> Option<[u8; 32]> {
        self.0.invite_code(id)
    }

    fn spend(&self, id: &str, by: PeerId) -> BoxFuture<'_, bool> {
        let spent = self.0.spend_invite(id.to_owned(), by.to_base58().into());
        spent
            .map(|outcome| {
                outcome.unwrap_or_else(|error| {
                    tracing::warn!(%error, "an invitation was not redeemed; it can be tried again");
                    false
                })
            })
            .boxed()
    }
}
