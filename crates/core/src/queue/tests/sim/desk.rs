//! What an actor outside the node acts with: the time, chance, the log, and letters to send.

use super::{dice::Dice, history::History, node::Body};

pub(super) struct Desk<'a> {
    pub(super) now: u64,
    /// Whether faults have ended.
    pub(super) is_calm: bool,
    pub(super) dice: &'a mut Dice,
    pub(super) history: &'a mut History,
    /// What is sent, by its number.
    pub(super) out: Vec<(u64, Body)>,
    pub(super) requests: &'a mut u64,
}

impl Desk<'_> {
    /// Sends a request; returns its number.
    pub(super) fn send(&mut self, body: Body) -> u64 {
        *self.requests += 1;
        self.out.push((*self.requests, body));
        *self.requests
    }
}
