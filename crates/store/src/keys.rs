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
