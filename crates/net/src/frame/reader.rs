//! Reading: many small frames out of one read, large ones straight into their own buffer.

use std::{fmt, ops::Deref, pin::Pin, task::Poll, time::Duration};

use futures::{
    AsyncRead, AsyncReadExt,
    future::{BoxFuture, poll_fn},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use toolmesh_core::limits;

use super::{FrameError, FrameLimits, HEADER, Held, PeerBudget};

/// Bytes read at once where frames are small. Each stream has such a chunk for its whole life.
const CHUNK: usize = 8 * 1024;

/// Bytes that a frame longer than a chunk begins with; the buffer doubles as they arrive.
const FIRST: usize = 16 * 1024;

/// One frame's JSON, not looked at yet. Derefs to its bytes.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    held: Held,
}

impl Frame {
    /// Returns the bytes, and what they take of the budget: to be dropped when whatever was made
    /// of the bytes is dropped.
    pub fn into_parts(self) -> (Vec<u8>, Held) {
        (self.bytes, self.held)
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads frames from one half of a stream.
pub struct FrameReader<R> {
    reader: R,
    limits: FrameLimits,
    budget: PeerBudget,
    chunk: Chunk,
    /// The frame that was looked at and not taken.
    peeked: Option<Frame>,
    /// The frame that is longer than what the chunk had of it.
    body: Option<Body>,
    /// Until when the frame that has begun must end.
    deadline: Option<Instant>,
    /// The place in the line for the budget. Kept here, because whoever reads may look elsewhere
    /// between two polls.
    waiting: Option<BoxFuture<'static, Option<Held>>>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Makes a reader of `reader` whose large frames are charged to `budget`.
    pub fn new(reader: R, limits: FrameLimits, budget: PeerBudget) -> Self {
        let chunk = Chunk { bytes: vec![0; CHUNK].into(), start: 0, end: 0 };
        Self {
            reader,
            limits,
            budget,
            chunk,
            peeked: None,
            body: None,
            deadline: None,
            waiting: None,
        }
    }

    /// Returns what the frames are charged to.
    pub fn budget(&self) -> &PeerBudget {
        &self.budget
    }

    /// Returns the next frame without taking it: [`next`](Self::next) will return it again.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn peek(&mut self) -> Result<Option<&Frame>, FrameError> {
        if self.peeked.is_none() {
            self.peeked = self.next().await?;
        }
        Ok(self.peeked.as_ref())
    }

    /// Returns the next frame, or `None` if the stream ended after the last one.
    ///
    /// Cancel-safe: all that was received stays in the reader. Waits for ever for a frame to
    /// begin; how long a stream may be idle is for the caller to say.
    ///
    /// # Errors
    /// [`FrameError`]; asking again gives an error again.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(frame) = self.peeked.take() {
            return Ok(Some(frame));
        }
        loop {
            if let Some(frame) = self.take()? {
                self.deadline = None;
                return Ok(Some(frame));
            }
            if self.body.is_none() && self.chunk.filled().is_empty() {
                if self.chunk.read(&mut self.reader).await? == 0 {
                    return Ok(None);
                }
                continue;
            }
            let time = self.limits.frame_time;
            let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + time);
            match timeout_at(deadline, self.advance()).await {
                Ok(advanced) => advanced?,
                Err(_elapsed) => return Err(self.late()),
            }
        }
    }

    /// Waits until the stream is known to be broken, and returns how; looks again every
    /// [`MESH_BROKEN_LOOK`](limits::MESH_BROKEN_LOOK). Nothing is read: what the peer said stays, and
    /// its last word is no break.
    ///
    /// Cancel-safe.
    pub async fn broken(&mut self) -> FrameError {
        loop {
            let look = poll_fn(|cx| match Pin::new(&mut self.reader).poll_read(cx, &mut []) {
                Poll::Ready(Err(error)) => Poll::Ready(Some(error)),
                _ => Poll::Ready(None),
            });
            if let Some(error) = look.await {
                return error.into();
            }
            sleep(limits::MESH_BROKEN_LOOK).await;
        }
    }

    /// Reads a frame that was refused with [`FrameError::TooLarge`], and keeps nothing of it: who writes
    /// it reads nothing before, and would have its stream reset if nobody took it. Ends with the
    /// stream, or [`MESH_LAST_WORD`](limits::MESH_LAST_WORD) after the frame, or after the time that a
    /// frame has, or [`MESH_FRAME_BYTES`](limits::MESH_FRAME_BYTES). Nothing can be read after it.
    pub async fn skip(&mut self, announced: usize) {
        let frame = (HEADER + announced.min(limits::MESH_FRAME_BYTES))
            .saturating_sub(self.chunk.filled().len());
        if self.throw_away(frame, self.limits.frame_time).await {
            // What it wrote behind the frame would meet a reset too.
            self.throw_away(limits::MESH_STRANGER_FRAME_BYTES, limits::MESH_LAST_WORD).await;
        }
    }

    /// Reads so many bytes, within `time`, and keeps none. Tells whether there were as many.
    async fn throw_away(&mut self, mut bytes: usize, time: Duration) -> bool {
        let all = async {
            while bytes > 0 {
                (self.chunk.start, self.chunk.end) = (0, 0);
                match self.chunk.read(&mut self.reader).await {
                    Ok(read) if read > 0 => bytes = bytes.saturating_sub(read),
                    _ => return false,
                }
            }
            true
        };
        timeout(time, all).await.unwrap_or(false)
    }

    /// Takes what the chunk has: a whole frame, or a part into the body.
    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => {
                let Some((header, rest)) = self.chunk.filled().split_first_chunk::<HEADER>() else {
                    return Ok(None);
                };
                let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
                if length > self.limits.max_bytes {
                    let limit = self.limits.max_bytes;
                    return Err(FrameError::TooLarge { announced: length, limit });
                }
                if let Some(whole) = rest.get(..length) {
                    let frame = Frame { bytes: whole.to_vec(), held: Held::default() };
                    self.chunk.start += HEADER + length;
                    return Ok(Some(frame));
                }
                self.chunk.start += HEADER;
                let bytes = vec![0; length.min(FIRST)];
                Body { bytes, filled: 0, length, held: Held::default() }
            }
        };
        self.chunk.start += body.fill(self.chunk.filled());
        if body.filled == body.length {
            return Ok(Some(Frame { bytes: body.bytes, held: body.held }));
        }
        self.body = Some(body);
        Ok(None)
    }

    /// Gets on with the frame that has begun: makes room for it, or reads.
    async fn advance(&mut self) -> Result<(), FrameError> {
        let read = match &mut self.body {
            Some(body) if body.room() == 0 => {
                let next = body.length.min(body.bytes.len() * 2);
                if next > limits::MESH_FRAME_FREE_BYTES && body.held.is_nothing() {
                    let charged = body.length - limits::MESH_FRAME_FREE_BYTES;
                    let hold =
                        || -> BoxFuture<'static, _> { Box::pin(self.budget.clone().hold(charged)) };
                    let held = self.waiting.get_or_insert_with(hold).await;
                    self.waiting = None;
                    body.held = held.ok_or(FrameError::Budget { announced: body.length })?;
                }
                body.bytes.reserve_exact(next - body.bytes.len());
                body.bytes.resize(next, 0);
                return Ok(());
            }
            Some(body) if body.length - body.filled >= CHUNK => {
                let read = self.reader.read(&mut body.bytes[body.filled..]).await?;
                body.filled += read;
                read
            }
            _ => self.chunk.read(&mut self.reader).await?,
        };
        if read == 0 { Err(FrameError::Truncated) } else { Ok(()) }
    }

    /// Says why the frame that has begun is not there in time.
    fn late(&self) -> FrameError {
        match &self.body {
            Some(body) if self.waiting.is_some() => FrameError::Budget { announced: body.length },
            _ => FrameError::Slow { time: self.limits.frame_time },
        }
    }
}

impl<R> fmt::Debug for FrameReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What was read and not taken yet. Its bytes are zeroed once, not for every read.
struct Chunk {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Chunk {
    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Reads behind what is left, which is less than a header: there is always room.
    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let read = reader.read(&mut self.bytes[self.end..]).await?;
        self.end += read;
        Ok(read)
    }
}

/// A frame that is being received: at most twice as many bytes as were received, or [`FIRST`].
struct Body {
    bytes: Vec<u8>,
    filled: usize,
    length: usize,
    held: Held,
}

impl Body {
    fn room(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// Copies what fits of `source` and returns how much that was.
    fn fill(&mut self, source: &[u8]) -> usize {
        let count = self.room().min(source.len());
        self.bytes[self.filled..self.filled + count].copy_from_slice(&source[..count]);
        self.filled += count;
        count
    }
}
