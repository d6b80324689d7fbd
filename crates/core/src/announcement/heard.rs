//! What other nodes announced, the newest of each.

use std::{collections::BTreeMap, sync::Arc};

use super::Announcement;
use crate::limits;

/// The newest announcement of each node, while it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard(BTreeMap<Arc<str>, Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    said: Arc<Announcement>,
    /// Until when it holds, in milliseconds of the clock that the caller reads.
    until: u64,
}

impl Heard {
    /// Takes what the node `author` announced at `now`, in milliseconds. Returns whether it is
    /// news: one that came before, or was repeated by somebody, is none.
    pub fn take(&mut self, author: &str, said: Announcement, now: u64) -> bool {
        self.0.retain(|_, entry| entry.until > now);
        let before = self.0.get(author);
        if before.is_some_and(|before| before.said.sequence >= said.sequence) {
            return false;
        }
        if before.is_none() && self.0.len() >= limits::ANNOUNCEMENT_NODES {
            let next = self.0.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(next) = next.map(|(author, _)| author.clone()) {
                self.0.remove(&next);
            }
        }
        let until = now.saturating_add(said.holds_ms);
        self.0.insert(author.into(), Entry { said: Arc::new(said), until });
        true
    }

    /// What a node says, if it holds at `now`.
    pub fn of(&self, author: &str, now: u64) -> Option<&Arc<Announcement>> {
        self.0.get(author).filter(|entry| entry.until > now).map(|entry| &entry.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sequence: u64) -> Announcement {
        Announcement { slots: 1, ..Announcement::default() }.numbered(sequence)
    }

    #[test]
    fn the_newest_counts_until_it_ends() {
        let holds = said(0).holds_ms;
        let mut heard = Heard::default();
        assert!(heard.take("a", said(2), 10));
        assert!(!heard.take("a", said(2), 11), "repeated");
        assert!(!heard.take("a", said(1), 11), "older");
        assert!(heard.of("a", 10 + holds - 1).is_some());
        assert!(heard.of("a", 10 + holds).is_none() && heard.of("b", 10).is_none());
        assert!(heard.take("a", said(3), 20));
        assert!(heard.of("a", 10 + holds).is_some());
        assert!(heard.take("a", said(1), 20 + holds), "a node that lost its count is heard again");
    }

    #[test]
    fn nodes_beyond_the_bound_push_out_who_ends_next() {
        let mut heard = Heard::default();
        for n in 0..=limits::ANNOUNCEMENT_NODES {
            assert!(heard.take(&format!("node {n}"), said(1), n as u64));
        }
        let now = limits::ANNOUNCEMENT_NODES as u64;
        assert_eq!(heard.0.len(), limits::ANNOUNCEMENT_NODES);
        assert!(heard.of("node 0", now).is_none() && heard.of("node 1", now).is_some());
        assert!(heard.take("node 1", said(2), now), "who is there already pushes nobody out");
        assert!(heard.of("node 2", now).is_some());
    }
}
