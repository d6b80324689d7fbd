//! Names of tools as clients see them.

use sha2::{Digest, Sha256};

/// Longest listed name: what all known clients accept.
pub const NAME_LENGTH_MAX: usize = 64;

/// What stands between a prefix, which does not have it, and the name of a tool.
pub(super) const SEPARATOR: &str = "__";

/// Hex digits of the hash that end a name that had to be changed.
const HASH_LENGTH: usize = 6;

/// Returns the name under which `tool` of an upstream with `prefix` is listed:
/// `[A-Za-z0-9_-]{1,64}`, `<prefix>__<tool>`, without the underscores where the prefix is empty.
///
/// A name that is too long, or has other characters, is cut and ends in `_` and six hex digits of
/// the full name's SHA-256, so that it stays unique and the same on every node and after restarts.
///
/// ```
/// use toolmesh_core::router::listed_name;
/// assert_eq!(listed_name("fs", "read_file"), "fs__read_file");
/// assert_eq!(listed_name("", "read_file"), "read_file");
/// assert_eq!(listed_name("fs", "read file").len(), "fs__read_file".len() + 7);
/// ```
pub fn listed_name(prefix: &str, tool: &str) -> String {
    let full =
        if prefix.is_empty() { tool.to_owned() } else { format!("{prefix}{SEPARATOR}{tool}") };
    let fitting = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !full.is_empty() && full.len() <= NAME_LENGTH_MAX && full.chars().all(fitting) {
        return full;
    }
    shortened(&full)
}

/// Returns `full` with characters replaced, cut, and ended by its hash.
pub(super) fn shortened(full: &str) -> String {
    let fitting = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let digest = Sha256::digest(full.as_bytes());
    let hash: String =
        digest.iter().take(HASH_LENGTH / 2).map(|byte| format!("{byte:02x}")).collect();
    let kept: String = full
        .chars()
        .map(|c| if fitting(c) { c } else { '_' })
        .take(NAME_LENGTH_MAX - HASH_LENGTH - 1)
        .collect();
    format!("{kept}_{hash}")
}
