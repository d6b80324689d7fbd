//! What a task is called, and the number that proves a lease.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Bits of an id that are nothing but chance.
const CHANCE_BITS: u32 = 54;

/// First bytes of a task's id: which node owns it.
pub type OwnerPrefix = [u8; 4];

/// How the ids of the tasks of the node with this PeerId begin.
pub fn owner_prefix(peer_id: &str) -> OwnerPrefix {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(peer_id.as_bytes()).into();
    [a, b, c, d]
}

/// The id of a task: 4 bytes of its owner's hash, the second of its submission in 4, and 8 of
/// chance, the first 10 bits of which are the millisecond. Written as 32 hexadecimal digits.
///
/// The beginning routes a question from any node to the owner, the time keeps tasks and a store's keys
/// in order, and what is left cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId([u8; 16]);

impl TaskId {
    /// Makes an id of `owner` at `ms` milliseconds since 1970.
    pub fn new(owner: OwnerPrefix, ms: u64, chance: u64) -> Self {
        let seconds = u32::try_from(ms / 1_000).unwrap_or(u32::MAX);
        let chance = ((ms % 1_000) << CHANCE_BITS) | (chance & ((1 << CHANCE_BITS) - 1));
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&owner);
        bytes[4..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&chance.to_be_bytes());
        Self(bytes)
    }

    /// The id that these bytes are.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, in whose order tasks are kept.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Which node owns the task.
    pub fn owner(&self) -> OwnerPrefix {
        let [a, b, c, d, ..] = self.0;
        [a, b, c, d]
    }

    /// When it was submitted, in seconds since 1970, unless who submitted it chose the id.
    pub fn seconds(&self) -> u64 {
        let [_, _, _, _, a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d]).into()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no task's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task's id is 32 hexadecimal digits in lower case")]
pub struct NoTaskId;

impl FromStr for TaskId {
    type Err = NoTaskId;

    fn from_str(text: &str) -> Result<Self, NoTaskId> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(NoTaskId);
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NoTaskId),
        };
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The number that proves that a lease is the present one: it rises with every lease of a node and
/// over its restarts, so that it never repeats. The upper half is the boot epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// The fence with this number in a boot epoch.
    pub(super) fn new(epoch: u32, counter: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(counter))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = TaskId::new([0xab, 1, 2, 3], 1_790_000_000_999, u64::MAX / 3);
        assert_eq!(id.to_string(), "ab010203 6ab13b80 f9d5555555555555".replace(' ', ""));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.owner(), [0xab, 1, 2, 3]);
        for wrong in
            ["", "AB0102036ab13b800123456789abcdef", "ab", &"g".repeat(32), &"é".repeat(16)]
        {
            assert_eq!(wrong.parse::<TaskId>(), Err(NoTaskId), "{wrong}");
        }
    }

    #[test]
    fn later_ids_and_fences_are_greater() {
        for (earlier, later) in [(1, 2), (999, 1_000), (1_999, 2_000), (59_000, 60_001)] {
            let (earlier, later) =
                (TaskId::new([1; 4], earlier, u64::MAX), TaskId::new([1; 4], later, 0));
            assert!(earlier < later, "{earlier} {later}");
        }
        assert!(Fence::new(2, 0) > Fence::new(1, u32::MAX));
    }
}
