//! Writing: what waits goes out together, large frames without a copy.

use std::io;

use futures::{AsyncWrite, AsyncWriteExt};
use serde::Serialize;
use tokio::time::timeout;

use super::{FrameError, FrameLimits, HEADER};

/// Bytes that wait before they are written without being asked, and bytes that the peer must take
/// within the frame time.
const BATCH: usize = 64 * 1024;

/// Bytes from which on a frame is not copied behind those that wait.
const DIRECT: usize = 16 * 1024;

/// Writes frames to one half of a stream, in order.
///
/// Futures that write must be run to their end: one that is dropped half way leaves a part of a
/// frame on the stream, so everything after it is refused with [`FrameError::Broken`].
#[derive(Debug)]
pub struct FrameWriter<W> {
    writer: W,
    limits: FrameLimits,
    waiting: Vec<u8>,
    broken: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Makes a writer of `writer`. `limits.frame_time` is what the peer has for each 64 KiB.
    pub fn new(writer: W, limits: FrameLimits) -> Self {
        Self { writer, limits, waiting: Vec::new(), broken: false }
    }

    /// Writes a frame of `payload` and all that wait before it.
    ///
    /// # Errors
    /// [`FrameError`]; after [`FrameError::TooLarge`] the stream is as before.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        self.feed(payload).await?;
        self.flush().await
    }

    /// Writes a frame of `message` as JSON and all that wait before it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_json(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        self.feed_json(message).await?;
        self.flush().await
    }

    /// Puts a frame of `payload` behind those that wait; writes when they are 64 KiB.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn feed(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        let header = self.header(payload.len())?;
        self.waiting.extend_from_slice(&header);
        if payload.len() >= DIRECT {
            return self.write(payload).await;
        }
        self.waiting.extend_from_slice(payload);
        self.write_if_many().await
    }

    /// Puts a frame of `message` as JSON behind those that wait; writes when they are 64 KiB.
    ///
    /// # Errors
    /// As [`send`](Self::send); a value that is no JSON is an [`FrameError::Io`] of the kind
    /// `InvalidData` or `InvalidInput`, and nothing of it is written.
    pub async fn feed_json(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        let start = self.waiting.len();
        self.waiting.extend_from_slice(&[0; HEADER]);
        let end = start + HEADER + self.limits.max_bytes;
        let mut capped = Capped { bytes: &mut self.waiting, end, beyond: 0 };
        let outcome = serde_json::to_writer(&mut capped, message).map_err(io::Error::from);
        let beyond = capped.beyond;
        let length = self.waiting.len() - start - HEADER + beyond;
        match outcome.map_err(FrameError::from).and_then(|()| self.header(length)) {
            Ok(header) => self.waiting[start..start + HEADER].copy_from_slice(&header),
            Err(error) => {
                self.waiting.truncate(start);
                return Err(error);
            }
        }
        self.write_if_many().await
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.write(&[]).await?;
        self.in_time(async |writer| writer.flush().await).await
    }

    /// Writes all that waits and says that nothing follows.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn close(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        self.in_time(async |writer| writer.close().await).await
    }

    fn header(&self, length: usize) -> Result<[u8; HEADER], FrameError> {
        let limit = self.limits.max_bytes;
        let fits = u32::try_from(length).ok().filter(|_| length <= limit);
        fits.map(u32::to_be_bytes).ok_or(FrameError::TooLarge { announced: length, limit })
    }

    async fn write_if_many(&mut self) -> Result<(), FrameError> {
        if self.waiting.len() < BATCH { Ok(()) } else { self.write(&[]).await }
    }

    /// Writes what waits, and `rest` behind it.
    async fn write(&mut self, rest: &[u8]) -> Result<(), FrameError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        for piece in waiting.chunks(BATCH).chain(rest.chunks(BATCH)) {
            self.in_time(async |writer| writer.write_all(piece).await).await?;
        }
        if waiting.capacity() <= 2 * BATCH {
            waiting.clear();
            self.waiting = waiting; // What one large frame took is not kept.
        }
        Ok(())
    }

    /// Lets `work` write within the frame time. The writer is broken until it has succeeded.
    async fn in_time(
        &mut self,
        work: impl AsyncFnOnce(&mut W) -> io::Result<()>,
    ) -> Result<(), FrameError> {
        if self.broken {
            return Err(FrameError::Broken);
        }
        self.broken = true;
        let time = self.limits.frame_time;
        timeout(time, work(&mut self.writer)).await.map_err(|_| FrameError::Slow { time })??;
        self.broken = false;
        Ok(())
    }
}

/// Takes bytes up to `end` and counts those beyond, so that a message that is too large takes no
/// memory and its size can still be told.
struct Capped<'a> {
    bytes: &'a mut Vec<u8>,
    end: usize,
    beyond: usize,
}

impl io::Write for Capped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (kept, beyond) = bytes.split_at(bytes.len().min(self.end - self.bytes.len()));
        self.bytes.extend_from_slice(kept);
        self.beyond += beyond.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
