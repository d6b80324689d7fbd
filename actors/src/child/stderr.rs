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
        loop {
            line.clear();
            // A line without end is taken in pieces, so that memory stays bounded.
            let piece = (&mut errors)
                .take(limits::STDERR_LINE_BYTES as u64)
                .read_until(b'\n', &mut line)
                .await;
            if !matches!(piece, Ok(1..)) {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                continue;
            }
            let refusal = text.strip_prefix(mark);
            let text = refusal.map_or(text, str::trim_start);
            each(text);
            let mut inner = self.lock();
            inner.refused |= refusal.is_some();
            if inner.lines.len() == limits::STDERR_LINES {
                inner.lines.pop_front();
            }
            inner.lines.push_back(text.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
