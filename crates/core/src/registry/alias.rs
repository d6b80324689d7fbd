//! What a node is called here: its own name, unless that is taken.

use std::sync::Arc;

/// Characters of a PeerId that tell two nodes of one name apart; the last ones, as the first are
/// the same for all.
const SUFFIX: usize = 4;

/// Returns an alias for the node `id` that calls itself `name` and that is not `taken`:
/// `ada`, else `ada-k3xp`, with more of the PeerId where even that is taken.
pub(super) fn choose(name: &str, id: &str, taken: impl Fn(&str) -> bool) -> Arc<str> {
    let name = if name.is_empty() { "node" } else { name };
    if !taken(name) {
        return name.into();
    }
    let id = id.to_ascii_lowercase();
    let suffixes = (SUFFIX..=id.len()).filter_map(|length| id.get(id.len() - length..));
    let longer = suffixes.map(|suffix| format!("{name}-{suffix}"));
    let numbered = (2_u64..).map(|number| format!("{name}-{number}"));
    longer.chain(numbered).find(|alias| !taken(alias)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn a_name_is_the_alias_and_a_taken_one_gets_the_end_of_the_peer_id() {
        let id = "12D3KooWAbCdEfGhK3XP";
        for (name, taken, alias) in [
            ("ada", vec![], "ada"),
            ("ada", vec!["ada"], "ada-k3xp"),
            ("ada", vec!["ada", "ada-k3xp"], "ada-hk3xp"),
            ("", vec![], "node"),
        ] {
            assert_eq!(&*choose(name, id, |name| taken.contains(&name)), alias);
        }
        assert_eq!(&*choose("ada", "x", |name| name == "ada"), "ada-2");
    }
}
