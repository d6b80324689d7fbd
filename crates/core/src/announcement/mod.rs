//! What nodes announce to each other of their work, and what is made of it.
//!
//! An announcement is a hint: it expires, it may be lost or never come, and nothing depends on it.
//! It decides only which member is asked first.

mod heard;
mod turns;

use std::{collections::BTreeMap, sync::Arc};

pub use heard::Heard;
use serde::{Deserialize, Serialize};
pub use turns::{Candidate, Turns};

use crate::{limits, time::millis};

/// The version of this form. A later one may have other fields besides; these keep their meaning.
const VERSION: u32 = 1;

/// What a node says of itself; JSON, with names as they stand here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The version of the form.
    pub version: u32,
    /// Rises with each announcement of a node, over its restarts too.
    pub sequence: u64,
    /// How long it holds, in milliseconds from its arrival: the clocks of two nodes need not agree.
    pub holds_ms: u64,
    /// Types of tasks that the node runs.
    #[serde(default)]
    pub task_types: Vec<Arc<str>>,
    /// Tasks that it runs at once.
    #[serde(default)]
    pub slots: usize,
    /// Of those, how many it could begin now.
    #[serde(default)]
    pub free_slots: usize,
    /// Labels that it has.
    #[serde(default)]
    pub labels: Vec<Arc<str>>,
    /// Tasks of its queue that wait for a worker, by type.
    #[serde(default)]
    pub waiting: BTreeMap<Arc<str>, usize>,
}

/// Why an announcement is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnnounced {
    /// It is larger than [`limits::ANNOUNCEMENT_BYTES`].
    #[error("{0} bytes are too many")]
    TooLarge(usize),
    /// It is not of this form.
    #[error("{0}")]
    Form(String),
}

impl Announcement {
    /// Completes what a node says of itself: its form, how long it holds, and no more names than
    /// fit.
    #[must_use]
    pub fn numbered(mut self, sequence: u64) -> Self {
        self.version = VERSION;
        self.sequence = sequence;
        self.holds_ms = millis(limits::ANNOUNCEMENT_HOLDS);
        let mut most = limits::ANNOUNCEMENT_NAMES;
        loop {
            self.task_types.truncate(most);
            self.labels.truncate(most);
            while self.waiting.len() > most {
                self.waiting.pop_last();
            }
            if most == 0 || self.write().is_ok() {
                return self;
            }
            most /= 2;
        }
    }

    /// Reads an announcement.
    ///
    /// # Errors
    /// It is not to be passed on; see [`NotAnnounced`].
    pub fn read(bytes: &[u8]) -> Result<Self, NotAnnounced> {
        if bytes.len() > limits::ANNOUNCEMENT_BYTES {
            return Err(NotAnnounced::TooLarge(bytes.len()));
        }
        let read: Self =
            serde_json::from_slice(bytes).map_err(|error| NotAnnounced::Form(error.to_string()))?;
        let most = limits::ANNOUNCEMENT_NAMES;
        let wrong = if read.version < VERSION {
            Some("it has no version")
        } else if [read.task_types.len(), read.labels.len(), read.waiting.len()]
            .into_iter()
            .any(|names| names > most)
        {
            Some("it names too many things")
        } else if read.holds_ms > 5 * millis(limits::ANNOUNCEMENT_HOLDS) {
            Some("it would hold too long")
        } else {
            None
        };
        match wrong {
            Some(wrong) => Err(NotAnnounced::Form(wrong.to_owned())),
            None => Ok(read),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// It is too large.
    pub fn write(&self) -> Result<Vec<u8>, NotAnnounced> {
        let bytes =
            serde_json::to_vec(self).map_err(|error| NotAnnounced::Form(error.to_string()))?;
        if bytes.len() > limits::ANNOUNCEMENT_BYTES {
            return Err(NotAnnounced::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// How many tasks wait there of one of `kinds`.
    pub fn backlog<'a>(&self, kinds: impl IntoIterator<Item = &'a Arc<str>>) -> usize {
        let waiting = kinds.into_iter().filter_map(|kind| self.waiting.get(kind));
        waiting.fold(0, |sum, waiting| sum.saturating_add(*waiting))
    }

    /// Whether it says the same of the node as `other`, which may have been another one of it.
    pub fn says_as(&self, other: &Self) -> bool {
        let content = |of: &Self| Self { version: 0, sequence: 0, holds_ms: 0, ..of.clone() };
        content(self) == content(other)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    fn names(count: usize, length: usize) -> Vec<Arc<str>> {
        (0..count).map(|n| Arc::from(format!("{n:0length$}"))).collect()
    }

    #[test]
    fn what_is_written_is_read_whoever_knows_more() {
        let mut said = Announcement { slots: 4, free_slots: 3, ..Announcement::default() };
        said.task_types = names(2, 10);
        said.waiting.insert("tool.call".into(), 7);
        let said = said.numbered(5);
        assert_eq!(Announcement::read(&said.write().unwrap()), Ok(said.clone()));
        let mut later: serde_json::Value = serde_json::to_value(&said).unwrap();
        later["version"] = 9.into();
        later["colour"] = "blue".into();
        let read = Announcement::read(later.to_string().as_bytes()).unwrap();
        assert!(read.says_as(&said) && read != said);
        let least = br#"{"version": 1, "sequence": 0, "holds_ms": 60000}"#;
        assert_eq!(Announcement::read(least).unwrap().backlog(&names(3, 1)), 0);
    }

    #[test]
    fn what_a_node_may_have_fits_and_more_is_left_out() {
        let most = limits::ANNOUNCEMENT_NAMES;
        let said = Announcement {
            task_types: names(most + 9, 64),
            labels: names(most, 64),
            waiting: names(most + 9, 64).into_iter().map(|name| (name, usize::MAX)).collect(),
            ..Announcement::default()
        };
        let said = said.numbered(u64::MAX);
        assert_eq!([said.task_types.len(), said.labels.len(), said.waiting.len()], [most; 3]);
        assert_eq!(Announcement::read(&said.write().unwrap()), Ok(said));
        let long = Announcement { labels: names(most, 1_000), ..Announcement::default() };
        assert_eq!(long.numbered(1).labels.len(), most / 4);
    }

    #[test]
    fn what_is_none_is_not_passed_on() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "EOF"),
            (b"[]", "invalid"),
            (b"{}", "missing field"),
            (br#"{"version": 0, "sequence": 0, "holds_ms": 1}"#, "it has no version"),
            (br#"{"version": 1, "sequence": 0, "holds_ms": 300001}"#, "hold too long"),
            (br#"{"version": 1, "sequence": -1, "holds_ms": 1}"#, "invalid value"),
        ];
        for (bytes, why) in cases {
            let refused = Announcement::read(bytes).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let mut long = serde_json::to_vec(&Announcement::default().numbered(1)).unwrap();
        long.resize(limits::ANNOUNCEMENT_BYTES, b' ');
        assert!(Announcement::read(&long).is_ok());
        long.push(b' ');
        assert_eq!(Announcement::read(&long), Err(NotAnnounced::TooLarge(long.len())));
        let labels = names(limits::ANNOUNCEMENT_NAMES + 1, 1);
        let many = Announcement { labels, ..Announcement::default().numbered(1) };
        let many = Announcement::read(&many.write().unwrap()).unwrap_err();
        assert!(many.to_string().contains("too many things"), "{many}");
        let wide = Announcement { labels: names(2, 9_000), ..Announcement::default() };
        assert!(matches!(wide.write(), Err(NotAnnounced::TooLarge(_))));
    }
}
