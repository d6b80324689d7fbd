//! What a child says on stderr.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use toolmesh_core::limits;

/// The last lines of a child's stderr: what there is to say when it died.
#[derive(Debug, Clone, Default)]
pub(crate) struct StderrTail(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<String>,
    refused: bool,
}

impl StderrTail {
    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    /// Why the gate could not become the program, once it said so: nothing of the program ran.
    /// What it said is then the only line.
    pub(crate) fn refusal(&self) -> Option<String> {
        let inner = self.lock();
        inner.refused.then(|| inner.lines.iter().map(String::as_str).collect())
    }

    /// Reads to the end and shows each line to `each`. `mark` begins what the gate says itself: no
    /// program can know it.
    pub(crate) async fn read(
        self,
        errors: impl AsyncRead + Unpin,
        mark: &str,
        mut each: impl FnMut(&str),
    ) {
        let mut errors = BufReader::new(errors);
        let mut line = Vec::new();
        let mut goes_on = false;
        loop {
            let is_rest = goes_on;
            line.clear();
            // A line without end is taken in pieces, so that memory stays bounded. The first is
            // what is kept of it, or one line would drive out all others.
            let piece = (&mut errors)
                .take(limits::STDERR_LINE_BYTES as u64)
                .read_until(b'\n', &mut line)
                .await;
            if !matches!(piece, Ok(1..)) {
                return;
            }
            goes_on = line.last() != Some(&b'\n');
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                continue;
            }
            let refusal = text.strip_prefix(mark);
            let text = refusal.map_or(text, str::trim_start);
            each(text);
            if is_rest {
                continue;
            }
            let mut inner = self.lock();
            inner.refused |= refusal.is_some();
            if inner.lines.len() == limits::STDERR_LINES {
                inner.lines.pop_front();
            }
            let is_cut = goes_on && line.len() == limits::STDERR_LINE_BYTES;
            let more = if is_cut { "…" } else { "" };
            inner.lines.push_back(format!("{text}{more}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn the_beginning_of_a_long_line_is_kept_and_the_others_whole() {
        let long = "x".repeat(limits::STDERR_LINE_BYTES * 30);
        let said = format!("first\n{long}\nlast");
        let (tail, mut seen) = (StderrTail::default(), 0);
        tail.clone().read(said.as_bytes(), "mark", |piece| seen += piece.len()).await;
        let lines = tail.lines();
        let lengths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
        assert_eq!(lengths, [5, limits::STDERR_LINE_BYTES + 1, 4]);
        assert!(lines[1].ends_with("x…"), "it says that there was more");
        assert_eq!(seen, "first".len() + long.len() + "last".len(), "the log has all of it");
    }
}
