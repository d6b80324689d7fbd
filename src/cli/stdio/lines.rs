//! Lines in and lines out, both bounded.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::id::IdFinder;

/// Largest message of the client in bytes: what the node takes as a request.
const LINE_BYTES: usize = toolmesh_core::limits::BODY_BYTES;
/// Lines that wait for a slow client; beyond it the node's streams are read no further.
const LINES_WAITING: usize = 64;

/// A line of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Text(String),
    /// A line that is too long, and the id of the request that it is, if it is one; it was skipped.
    TooLong(Value),
    /// A line that is not UTF-8.
    NotText,
    /// There is no more.
    End,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: BufReader<R>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Returns the lines of `input`.
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::new(input) }
    }

    /// Reads the next line; the last needs no end. Part of a line is lost if this is dropped.
    ///
    /// # Errors
    ///
    /// The input cannot be read.
    pub(super) async fn next(&mut self) -> io::Result<Line> {
        let mut line = Vec::new();
        let mut too_long: Option<IdFinder> = None;
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() && line.is_empty() && too_long.is_none() {
                return Ok(Line::End);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let content = &chunk[..end.unwrap_or(chunk.len())];
            if too_long.is_none() && line.len() + content.len() > LINE_BYTES {
                too_long.get_or_insert_default().read(&std::mem::take(&mut line));
            }
            match &mut too_long {
                Some(finder) => finder.read(content),
                None => line.extend_from_slice(content),
            }
            let is_last = chunk.is_empty();
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() || is_last {
                if let Some(finder) = too_long {
                    return Ok(Line::TooLong(finder.id()));
                }
                return Ok(String::from_utf8(line).map_or(Line::NotText, Line::Text));
            }
        }
    }
}

/// The way to the client: whole lines, in the order they are given.
#[derive(Clone, Debug)]
pub(super) struct Out(mpsc::Sender<String>);

impl Out {
    /// Returns the way to the client, and what must run for anything to get there. That ends when
    /// the client stops reading, or once `closing` fires and what waited is written.
    pub(super) fn new<W: AsyncWrite + Unpin>(
        output: W,
        closing: CancellationToken,
    ) -> (Self, impl Future<Output = io::Result<()>>) {
        let (sender, receiver) = mpsc::channel(LINES_WAITING);
        (Self(sender), write(output, receiver, closing))
    }

    /// Passes on `line`. Nobody is left to tell when the client stopped reading.
    pub(super) async fn line(&self, line: String) {
        let _ = self.0.send(line).await;
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut output: W,
    mut lines: mpsc::Receiver<String>,
    closing: CancellationToken,
) -> io::Result<()> {
    loop {
        let line = tokio::select! {
            biased;
            line = lines.recv() => line,
            () = closing.cancelled() => None,
        };
        let Some(mut line) = line else { return output.flush().await };
        line.push('\n');
        output.write_all(line.as_bytes()).await?;
        if lines.is_empty() {
            output.flush().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use super::*;

    async fn lines_of(input: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(input);
        let mut read = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                Line::End => return read,
                line => read.push(line),
            }
        }
    }

    #[tokio::test]
    async fn lines_end_with_a_line_feed_or_the_input() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(lines_of(b"a\n\nb").await, [text("a"), text(""), text("b")]);
        assert_eq!(lines_of(b"").await, []);
        assert_eq!(lines_of(b"\xff\na\n").await, [Line::NotText, text("a")]);
    }

    #[tokio::test]
    async fn a_line_at_the_limit_passes_and_one_beyond_is_skipped() {
        let mut input = vec![b'x'; LINE_BYTES];
        input.push(b'\n');
        assert!(matches!(lines_of(&input).await.as_slice(), [Line::Text(_)]));
        input.insert(0, b'x');
        input.extend(b"after\n");
        assert_eq!(
            lines_of(&input).await,
            [Line::TooLong(Value::Null), Line::Text("after".into())]
        );
    }

    #[tokio::test]
    async fn a_request_that_is_too_long_can_be_answered() {
        let long = "x".repeat(LINE_BYTES);
        let input = format!("{{\"method\":\"m\",\"params\":\"{long}\",\"id\":7}}\n");
        assert_eq!(lines_of(input.as_bytes()).await, [Line::TooLong(7.into())]);
    }

    #[tokio::test]
    async fn what_waits_is_written_before_the_end() {
        let closing = CancellationToken::new();
        let mut written = Vec::new();
        let (out, writer) = Out::new(&mut written, closing.clone());
        out.line("a".into()).await;
        out.line("b".into()).await;
        closing.cancel();
        writer.await.unwrap();
        assert_eq!(written, b"a\nb\n");
    }
}
