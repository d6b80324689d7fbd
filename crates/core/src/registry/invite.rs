//! An invitation that this node made, and who may use it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::record::Id;

/// An invitation as it is kept by who made it.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The one-time code that proves it. Not shown in debug output.
    pub code: [u8; 32],
    /// Until when it is good, in seconds since 1970.
    pub expires: u64,
    /// How many nodes may use it in all.
    pub uses: u32,
    /// Who used it.
    pub used_by: BTreeSet<Id>,
}

impl Invite {
    /// Whether it is good at `now`, in seconds since 1970, for whoever used it before or, as long
    /// as uses are left, anybody else.
    pub fn is_good(&self, now: u64) -> bool {
        now < self.expires
    }

    /// Lets the node `by` use it; `false`: it may not. A node may repeat its use, which takes no
    /// other: the answer to the first may have been lost.
    #[must_use]
    pub fn spend(&mut self, by: &Id, now: u64) -> bool {
        if !self.is_good(now) {
            return false;
        }
        if self.used_by.contains(by) {
            return true;
        }
        let left = self.used_by.len() < usize::try_from(self.uses).unwrap_or(usize::MAX);
        left && self.used_by.insert(Arc::clone(by))
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("expires", &self.expires)
            .field("uses", &self.uses)
            .field("used_by", &self.used_by)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_good_for_so_many_nodes_until_it_expires() {
        let mut invite =
            Invite { code: [7; 32], expires: 100, uses: 2, used_by: BTreeSet::default() };
        for (by, now, may) in [
            ("a", 10, true),
            ("a", 11, true),
            ("b", 12, true),
            ("c", 13, false),
            ("b", 99, true),
            ("a", 100, false),
        ] {
            assert_eq!(invite.spend(&by.into(), now), may, "{by} at {now}");
        }
        assert!(!format!("{invite:?}").contains("7, 7"), "the code is not shown");
    }
}
