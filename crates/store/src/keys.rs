//! Where each kind of record lives. A key is its kind's byte and then what tells records of that
//! kind apart; numbers in keys are big-endian, so that byte order is number order.

/// The first byte of a key. A number here is on disk for good: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The node itself; one record.
    Node = 1,
    /// Bearer tokens by id.
    Token = 2,
    /// What an upstream spoke last, by its name.
    Protocol = 3,
    /// Other nodes by PeerId.
    Known = 4,
    /// Who must not come, by PeerId.
    Ban = 5,
    /// Whom an operator trusts, by PeerId.
    Trusted = 6,
    /// Invitations that this node redeemed, by id.
    Redeemed = 7,
    /// Invitations that this node made, by id.
    Invite = 8,
    /// Tasks of the queue, by id; all kinds of tasks' records have the same ids.
    Task = 9,
    /// How a task stands.
    TaskState = 10,
    /// How far a running task is.
    TaskProgress = 11,
    /// How a task ended.
    TaskResult = 12,
    /// Tags in place of those that a task came with.
    TaskTags = 13,
    /// Metadata in place of that which a task came with.
    TaskMetadata = 14,
    /// What a submitter answered its task.
    TaskAnswers = 15,
    /// The queue itself; one record.
    Queue = 16,
    /// The number of the node's last start; one record.
    Epoch = 17,
}

impl Kind {
    /// Every kind, in the order of their keys.
    pub(crate) const ALL: [Self; 8] = [
        Self::Node,
        Self::Token,
        Self::Protocol,
        Self::Known,
        Self::Ban,
        Self::Trusted,
        Self::Redeemed,
        Self::Invite,
    ];

    /// Returns the kind that `key` belongs to and the rest of the key, or `None` if this program
    /// knows no such kind.
    pub(crate) fn of(key: &[u8]) -> Option<(Self, &[u8])> {
        let (first, id) = key.split_first()?;
        Self::ALL.into_iter().find(|kind| *kind as u8 == *first).map(|kind| (kind, id))
    }
}

/// Returns the key of the record of `kind` called `id`.
pub(crate) fn key(kind: Kind, id: &str) -> Vec<u8> {
    key_of(kind, id.as_bytes())
}

/// Returns the key of the record of `kind` whose id is these bytes.
pub(crate) fn key_of(kind: Kind, id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(kind as u8);
    key.extend(id);
    key
}

/// Returns what a record is called in errors: its kind and the rest of its key.
pub(crate) fn describe(key: &[u8]) -> String {
    match Kind::of(key) {
        Some((kind, id)) => format!("{kind:?} \"{}\"", id.escape_ascii()),
        None => format!("an unknown kind \"{}\"", key.escape_ascii()),
    }
}
