//! Writes responses as lines, and breaks them where it was told to.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Options, write_line};

/// The exit status of a server that died in the middle of a response.
pub(super) const DEATH_STATUS: u8 = 9;

/// Says what became of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was written.
    Whole,
    /// Half of it was written; the server must exit.
    Died,
}

/// Writes responses to one sink and counts them.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    die_after: Option<u64>,
    garbage: bool,
    count: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, options: &Options) -> Self {
        Self { out, die_after: options.die_after, garbage: options.garbage, count: 0 }
    }

    pub(super) fn send(&mut self, response: &Value) -> io::Result<Sent> {
        self.count += 1;
        if self.die_after == Some(self.count) {
            let line = response.to_string().into_bytes();
            self.out.write_all(line.split_at(line.len() / 2).0)?;
            self.out.flush()?;
            return Ok(Sent::Died);
        }
        if self.garbage {
            self.out.write_all(b"Starting up, please wait ...\n\n{\"jsonrpc\":\"2.0\",\n")?;
            self.out.write_all(b"\xff\xfe not even text\n")?;
            write_line(&mut self.out, &json!(["a", "batch", "of", "nothing"]))?;
            write_line(
                &mut self.out,
                &json!({ "jsonrpc": "2.0", "id": "never-asked", "result": {} }),
            )?;
        }
        write_line(&mut self.out, response)?;
        Ok(Sent::Whole)
    }
}
