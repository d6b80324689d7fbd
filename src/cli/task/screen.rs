//! What is watched: a picture that is drawn over on a terminal, elsewhere a line of JSON for each
//! change.

use std::io::{self, IsTerminal, Write};

use rustix::termios::tcgetwinsize;
use serde_json::Value;

use crate::cli::args::Common;

/// Rows of a terminal that does not say how many it has.
const ROWS: usize = 24;
/// Fields that change with time alone, and so are no change.
const RESTLESS: [&str; 8] =
    ["at", "rate", "expires_in_s", "eta_s", "oldest_queued_s", "last_seen_s", "mean_s", "p95_s"];

/// Where what is watched is shown.
#[derive(Debug)]
pub(crate) enum Screen {
    /// A terminal, and how many lines of the picture are on it.
    Terminal {
        /// Lines to go up before the next picture.
        drawn: usize,
    },
    /// Anything else, or what a program reads.
    Lines {
        /// What the last line said, without what changes with time alone.
        said: Value,
    },
}

impl Screen {
    /// Returns the one that stdout and the options of the command ask for.
    pub(crate) fn new(common: &Common) -> Self {
        match !common.json && io::stdout().is_terminal() {
            true => Self::Terminal { drawn: 0 },
            false => Self::Lines { said: Value::Null },
        }
    }

    /// Returns the rows that a picture may have.
    pub(crate) fn rows(&self) -> usize {
        let size = tcgetwinsize(io::stdout()).map(|size| usize::from(size.ws_row));
        // The last row holds the cursor.
        size.ok().filter(|rows| *rows > 0).unwrap_or(ROWS).saturating_sub(1).max(1)
    }

    /// Shows a picture, above it lines that stay; or `document`, if it says something new. Lines
    /// that stay are something new.
    ///
    /// # Errors
    ///
    /// Nobody reads stdout any more.
    pub(crate) fn show(
        &mut self,
        staying: &[String],
        picture: &str,
        document: &Value,
    ) -> io::Result<()> {
        let rows = self.rows();
        let mut out = io::stdout().lock();
        match self {
            Self::Terminal { drawn } => {
                let (text, lines) = drawing(*drawn, staying, picture, rows);
                *drawn = lines;
                out.write_all(text.as_bytes())?;
            }
            Self::Lines { said } => {
                let now = lasting(document);
                if now == *said && staying.is_empty() {
                    return Ok(());
                }
                *said = now;
                writeln!(out, "{document}")?;
            }
        }
        out.flush()
    }

    /// Says that the node does not answer; programs see nothing, until it does or is given up.
    ///
    /// # Errors
    ///
    /// Nobody reads stdout any more.
    pub(crate) fn away(&mut self) -> io::Result<()> {
        match self {
            Self::Terminal { .. } => {
                self.show(&[], "the node does not answer; it is waited for", &Value::Null)
            }
            Self::Lines { .. } => Ok(()),
        }
    }
}

/// Returns what draws `picture` over the last one, of which `drawn` lines are there, and how many
/// lines it has. Lines that do not fit are left out below, and cut at the right.
fn drawing(drawn: usize, staying: &[String], picture: &str, rows: usize) -> (String, usize) {
    let mut text = String::new();
    // The terminal may be smaller than it was; there is nothing above its first row.
    if let up @ 1.. = drawn.min(rows) {
        text = format!("\x1b[{up}A");
    }
    text.push_str("\r\x1b[J");
    for line in staying {
        text.push_str(line);
        text.push('\n');
    }
    // Without line wrap, so that a line is a row.
    text.push_str("\x1b[?7l");
    let lines: Vec<&str> = picture.lines().take(rows).collect();
    for line in &lines {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("\x1b[?7h");
    (text, lines.len())
}

/// Returns `value` without what changes with time alone: ages and estimates, and the numbers in
/// the reasons.
fn lasting(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| !RESTLESS.contains(&name.as_str()));
            fields
                .map(|(name, value)| match (name.as_str(), value) {
                    ("why", Value::String(why)) => {
                        (name.clone(), why.replace(|c: char| c.is_ascii_digit(), "").into())
                    }
                    _ => (name.clone(), lasting(value)),
                })
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        Value::Array(values) => values.iter().map(lasting).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_picture_is_drawn_over_the_last_one_and_fits() {
        let (text, lines) = drawing(0, &[], "a\nb", 10);
        assert_eq!((text.as_str(), lines), ("\r\x1b[J\x1b[?7la\nb\n\x1b[?7h", 2));
        let (text, lines) = drawing(2, &["stays".to_owned()], "c\nd\ne", 2);
        assert_eq!((text.as_str(), lines), ("\x1b[2A\r\x1b[Jstays\n\x1b[?7lc\nd\n\x1b[?7h", 2));
        assert!(drawing(30, &[], "a", 5).0.starts_with("\x1b[5A"));
    }

    #[test]
    fn time_that_passes_is_no_change() {
        let task = |eta: f64, why: &str, state: &str| json!({"task": {"state": state, "why": why, "position": {"estimate": 3, "eta_s": eta}}});
        let first = lasting(&task(9.0, "starts in 9 s", "queued"));
        assert_eq!(first, lasting(&task(8.0, "starts in 8 s", "queued")));
        assert_ne!(first, lasting(&task(8.0, "the queue is paused", "queued")));
        assert_ne!(first, lasting(&task(9.0, "starts in 9 s", "running")));
        let workers = |seen: u64| json!([{"worker_id": "node", "last_seen_s": seen}]);
        assert_eq!(lasting(&workers(1)), lasting(&workers(2)));
    }
}
