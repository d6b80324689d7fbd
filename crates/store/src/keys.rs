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
    /// Workers that are given no more tasks, by name.
    DrainedWorker = 18,
}

impl Kind {
    /// Every kind, in the order of their keys.
    pub(crate) const ALL: [Self; 18] = [
        Self::Node,
        Self::Token,
        Self::Protocol,
        Self::Known,
        Self::Ban,
        Self::Trusted,
        Self::Redeemed,
        Self::Invite,
        Self::Task,
        Self::TaskState,
        Self::TaskProgress,
        Self::TaskResult,
        Self::TaskTags,
        Self::TaskMetadata,
        Self::TaskAnswers,
        Self::Queue,
        Self::Epoch,
        Self::DrainedWorker,
    ];

    /// Returns what people and exported files call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Token => "token",
            Self::Protocol => "protocol",
            Self::Known => "known",
            Self::Ban => "ban",
            Self::Trusted => "trusted",
            Self::Redeemed => "redeemed",
            Self::Invite => "invite",
            Self::Task => "task",
            Self::TaskState => "task_state",
            Self::TaskProgress => "task_progress",
            Self::TaskResult => "task_result",
            Self::TaskTags => "task_tags",
            Self::TaskMetadata => "task_metadata",
            Self::TaskAnswers => "task_answers",
            Self::Queue => "queue",
            Self::Epoch => "epoch",
            Self::DrainedWorker => "drained_worker",
        }
    }

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

/// Returns what a record is called in errors: its kind and the rest of its key, in hex where that is
/// no text.
pub(crate) fn describe(key: &[u8]) -> String {
    let (kind, id) = match Kind::of(key) {
        Some((kind, id)) => (kind.name(), id),
        None => ("an unknown kind", key),
    };
    if id.is_empty() {
        return kind.to_owned();
    }
    if id.iter().all(|byte| byte.is_ascii_graphic()) {
        return format!("{kind} {:?}", String::from_utf8_lossy(id));
    }
    let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind} {digits}")
}

#[cfg(test)]
mod tests {
    use super::{Kind, describe, key, key_of};

    #[test]
    fn every_kind_is_found_by_its_key() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(&key(kind, "id")), Some((kind, &b"id"[..])));
        }
        assert_eq!(Kind::of(&[]), None);
        assert_eq!(Kind::of(&[0]), None);
        assert_eq!(Kind::of(&[255, 1]), None);
    }

    #[test]
    fn a_record_is_named_as_people_know_it() {
        for (key, name) in [
            (key(Kind::Node, ""), "node"),
            (key(Kind::Token, "t1"), "token \"t1\""),
            (key_of(Kind::Task, &[0, 255]), "task 00ff"),
            (vec![250, 1], "an unknown kind fa01"),
            (Vec::new(), "an unknown kind"),
        ] {
            assert_eq!(describe(&key), name);
        }
    }
}
