//! Text for people: columns, first sentences, durations. What comes from elsewhere loses its
//! control characters, so that no server behind the node can drive the reader's terminal.

use serde_json::Value;

/// Characters of a description that are shown in a list.
const SUMMARY_CHARS: usize = 96;

/// Returns `rows` as lines whose columns line up; `indent` spaces before each.
pub(crate) fn columns(rows: &[Vec<String>], indent: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{:indent$}{}", "", line.trim_end())
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns the text at `key` of `value`, or nothing.
pub(crate) fn text_of(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

/// Returns the first sentence of a description on one line.
pub(crate) fn summary(description: &str) -> String {
    let line = description.trim().lines().next().unwrap_or_default();
    let sentence = line.split_once(". ").map_or(line, |(first, _)| first);
    let sentence = printable(sentence.trim_end_matches('.'));
    if sentence.chars().count() <= SUMMARY_CHARS {
        return sentence;
    }
    let cut: String = sentence.chars().take(SUMMARY_CHARS - 1).collect();
    format!("{}…", cut.trim_end())
}

/// Returns `text` with line ends and tabs, but no other control character.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Returns `text` as one word of a shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns a duration in the largest unit that fits, and the next one.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_without_space() {
        let rows = vec![vec!["a".into(), "b".into()], vec!["long".into(), String::new()]];
        assert_eq!(columns(&rows, 2), "  a     b\n  long");
        assert_eq!(columns(&[], 0), "");
    }

    #[test]
    fn a_summary_is_the_first_sentence_without_escapes() {
        assert_eq!(summary("Reads a file. Then more.\nAnd more."), "Reads a file");
        assert_eq!(summary("\u{1b}[31mred"), "\u{fffd}[31mred");
        assert_eq!(summary(&"x".repeat(200)).chars().count(), SUMMARY_CHARS);
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, shown) in
            [(7, "7 s"), (61, "1 min 1 s"), (3_660, "1 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), shown);
        }
    }

    #[test]
    fn a_word_of_a_command_survives_a_shell() {
        assert_eq!(quoted("/srv/mesh-1"), "/srv/mesh-1");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }
}
