//! Frames over in-memory streams, in pieces, cut, slow and too large.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::poll_fn};
use libp2p::PeerId;
use proptest::prelude::*;
use serde_json::json;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf},
    runtime::{self, Runtime},
    time::timeout,
};
use toolmesh_core::limits;

use super::{Budget, FrameError, FrameLimits, FrameReader, FrameWriter, PeerBudget};

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Room for everything.
const WIDE: FrameLimits = FrameLimits { max_bytes: 4 << 20, frame_time: PATIENCE };

/// A stream in memory, seen as libp2p's are.
pub(crate) struct Memory(DuplexStream);

/// Makes both ends of a stream that holds `capacity` bytes.
pub(crate) fn memory(capacity: usize) -> (Memory, Memory) {
    let (one, other) = tokio::io::duplex(capacity);
    (Memory(one), Memory(other))
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        let polled = Pin::new(&mut self.0).poll_read(cx, &mut buffer);
        polled.map_ok(|()| buffer.filled().len())
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What a peer sent, in the pieces in which it arrived; each is waited for once. Counts the bytes
/// of the buffers it was given.
#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    ready: bool,
    largest_buffer: usize,
}

impl Pieces {
    fn of(bytes: &[u8], cuts: &[usize]) -> Self {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| bytes[ends[0]..ends[1]].to_vec());
        Self { pieces: pieces.filter(|piece| !piece.is_empty()).collect(), ..Self::default() }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.largest_buffer = self.largest_buffer.max(bytes.len());
        self.ready = !self.ready;
        if self.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else { return Poll::Ready(Ok(0)) };
        let count = piece.len().min(bytes.len());
        bytes[..count].copy_from_slice(&piece[..count]);
        if count < piece.len() {
            self.pieces.push_front(piece.split_off(count));
        }
        Poll::Ready(Ok(count))
    }
}

fn alone() -> PeerBudget {
    Budget::new(64 << 20, 64 << 20).peer(PeerId::random())
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Polls `reader.next()` and drops the future each time it waits.
async fn next_in_pieces(
    reader: &mut FrameReader<Pieces>,
) -> Result<Option<super::Frame>, FrameError> {
    loop {
        let polled = poll_fn(|cx| Poll::Ready(Box::pin(reader.next()).poll_unpin(cx))).await;
        if let Poll::Ready(outcome) = polled {
            return outcome;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_length_is_four_bytes_big_endian() {
    let (ours, mut theirs) = memory(1024);
    let mut writer = FrameWriter::new(ours, WIDE);
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    writer.send_json(&request).await.unwrap();
    writer.close().await.unwrap();
    let mut written = Vec::new();
    futures::AsyncReadExt::read_to_end(&mut theirs, &mut written).await.unwrap();
    assert_eq!(written[..4], [0, 0, 0, 0x3a]);
    assert_eq!(written.len(), 4 + 58);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&written[4..]).unwrap(), request);
}

#[tokio::test]
async fn frames_of_all_sizes_pass_and_the_end_is_told() {
    let (ours, theirs) = memory(10_000);
    let sizes = [0, 1, 8_187, 8_188, 8_189, 16_384, 16_385, 65_536, 65_537, 1 << 20];
    let writing = async {
        let mut writer = FrameWriter::new(ours, WIDE);
        for size in sizes {
            writer.feed(&vec![b'x'; size]).await.unwrap();
        }
        writer.close().await.unwrap();
    };
    let reading = async {
        let mut reader = FrameReader::new(theirs, WIDE, alone());
        for size in sizes {
            assert_eq!(reader.peek().await.unwrap().unwrap().len(), size);
            assert_eq!(reader.next().await.unwrap().unwrap().len(), size);
        }
        assert!(reader.next().await.unwrap().is_none());
        assert!(reader.peek().await.unwrap().is_none());
    };
    futures::join!(writing, reading);
}

#[tokio::test]
async fn what_is_announced_takes_no_memory() {
    let mut bytes = (4_u32 << 20).to_be_bytes().to_vec();
    bytes.extend_from_slice(&[b'x'; 100_000]);
    let budget = Budget::new(64 << 20, 64 << 20);
    let mut pieces = Pieces::of(&bytes, &[1, 5_000, 20_000, 60_000, 90_000]);
    let mut reader = FrameReader::new(&mut pieces, WIDE, budget.peer(PeerId::random()));
    let refused = reader.next().await.unwrap_err();
    assert!(matches!(refused, FrameError::Truncated), "{refused}");
    assert_eq!(budget.available(), (60 << 20) + (64 << 10), "it would have been needed");
    drop(reader);
    assert!(pieces.largest_buffer <= 131_072, "{}", pieces.largest_buffer);
}

#[tokio::test]
async fn a_lie_about_the_length_is_refused_before_anything_is_read() {
    for (length, refused) in [(4 << 20, false), ((4 << 20) + 1, true), (u32::MAX, true)] {
        let pieces = Pieces::of(&length.to_be_bytes(), &[]);
        let mut reader = FrameReader::new(pieces, WIDE, alone());
        for _again in 0..2 {
            match reader.next().await.unwrap_err() {
                FrameError::TooLarge { announced, limit } => {
                    assert!(refused);
                    assert_eq!((announced, limit), (length as usize, 4 << 20));
                }
                error => assert!(matches!(error, FrameError::Truncated) && !refused, "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_frame_that_has_begun_must_end_but_an_idle_stream_may_wait() {
    let limits = FrameLimits { frame_time: Duration::from_millis(40), ..WIDE };
    for begun in [&b"\0"[..], b"\0\0\0\x05", b"\0\0\0\x05{", b"\0\x01\0\0{"] {
        let (mut ours, theirs) = memory(1024);
        let mut reader = FrameReader::new(theirs, limits, alone());
        assert!(timeout(2 * limits.frame_time, reader.next()).await.is_err(), "idle is no error");
        futures::AsyncWriteExt::write_all(&mut ours, begun).await.unwrap();
        let refused = timeout(PATIENCE, reader.next()).await.unwrap().unwrap_err();
        assert!(matches!(refused, FrameError::Slow { .. }), "{refused}");
    }
}

#[tokio::test]
async fn large_frames_wait_for_room_and_small_ones_do_not() {
    const LARGE: usize = (64 << 10) + 1_000;
    let budget = Budget::new(1_500, 1_000);
    let (one, other) = (PeerId::random(), PeerId::random());
    let limits = FrameLimits { frame_time: Duration::from_millis(40), ..WIDE };
    let read = async |peer: PeerId, size: usize, limits: FrameLimits| {
        let pieces = Pieces::of(&framed(&vec![b'x'; size]), &[]);
        FrameReader::new(pieces, limits, budget.peer(peer)).next().await
    };

    let held = read(one, LARGE, limits).await.unwrap().unwrap();
    assert_eq!(budget.available(), 500);
    assert!(read(one, 64 << 10, limits).await.is_ok(), "the first 64 KiB are free");
    let refused = read(one, LARGE, limits).await.unwrap_err();
    assert!(matches!(refused, FrameError::Budget { announced: LARGE }), "{refused}");
    assert!(read(other, LARGE - 500, limits).await.is_ok(), "another peer's own part");
    let refused = read(other, LARGE, limits).await.unwrap_err();
    assert!(matches!(refused, FrameError::Budget { .. }), "everyone's part is taken: {refused}");
    let refused = read(other, LARGE + 1, WIDE).await.unwrap_err();
    assert!(matches!(refused, FrameError::Budget { .. }), "more than a peer may ever hold");

    let (waits, ()) = futures::join!(read(one, LARGE, WIDE), async {
        tokio::task::yield_now().await;
        drop(held);
    });
    drop(waits.unwrap().unwrap());
    assert_eq!(budget.available(), 1_500, "all is given back");
    assert_eq!(budget.peers(), 0, "nobody is remembered");
}

#[tokio::test]
async fn a_peer_that_comes_back_finds_what_it_holds() {
    const LARGE: usize = (64 << 10) + 1_000;
    let budget = Budget::new(5_000, 1_000);
    let peer = PeerId::random();
    let limits = FrameLimits { frame_time: Duration::from_millis(40), ..WIDE };
    let read = async || {
        let pieces = Pieces::of(&framed(&vec![b'x'; LARGE]), &[]);
        FrameReader::new(pieces, limits, budget.peer(peer)).next().await
    };
    let (bytes, held) = read().await.unwrap().unwrap().into_parts();
    assert_eq!(bytes.len(), LARGE);
    assert!(matches!(read().await.unwrap_err(), FrameError::Budget { .. }));
    drop(held);
    assert!(read().await.is_ok());
}

#[test]
fn what_json_is_parsed_to_is_held_or_refused() {
    let budget = Budget::new(limits::JSON_VALUE_BYTES * 1_500, limits::JSON_VALUE_BYTES * 1_000);
    let free = limits::MESH_FRAME_FREE_BYTES / limits::JSON_VALUE_BYTES;
    let zeros = |count: usize| format!("[{}0]", "0,".repeat(count));
    let (one, other) = (budget.peer(PeerId::random()), budget.peer(PeerId::random()));
    let held = one.hold_parsed(zeros(free + 900).as_bytes()).unwrap();
    assert!(one.hold_parsed(zeros(free + 200).as_bytes()).is_none(), "the peer's part");
    assert!(one.hold_parsed(zeros(free - 10).as_bytes()).is_some(), "little is free");
    assert!(one.hold_parsed("x".repeat(1 << 20).as_bytes()).is_some(), "text is one value");
    assert!(other.hold_parsed(zeros(free + 700).as_bytes()).is_none(), "everyone's part");
    assert!(other.hold_parsed(zeros(1 << 20).as_bytes()).is_none());
    drop(held);
    assert!(other.hold_parsed(zeros(free + 700).as_bytes()).is_some());
    assert_eq!(budget.available(), limits::JSON_VALUE_BYTES * 1_500);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_noticed() {
    let limits = FrameLimits { frame_time: Duration::from_millis(40), ..WIDE };
    let (ours, _theirs) = memory(1_000);
    let mut writer = FrameWriter::new(ours, limits);
    let refused = timeout(PATIENCE, writer.send(&[b'x'; 2_000])).await.unwrap().unwrap_err();
    assert!(matches!(refused, FrameError::Slow { .. }), "{refused}");
    let refused = writer.send(b"{}").await.unwrap_err();
    assert!(matches!(refused, FrameError::Broken), "{refused}");
}

#[tokio::test]
async fn a_write_that_was_given_up_breaks_the_stream() {
    let (ours, _theirs) = memory(1_000);
    let mut writer = FrameWriter::new(ours, WIDE);
    assert!(timeout(Duration::from_millis(20), writer.send(&[b'x'; 2_000])).await.is_err());
    assert!(matches!(writer.send(b"{}").await, Err(FrameError::Broken)));
}

#[tokio::test]
async fn what_is_too_large_to_write_leaves_the_stream_as_it_was() {
    let limits = FrameLimits { max_bytes: 10, ..WIDE };
    let (ours, theirs) = memory(1_000);
    let mut writer = FrameWriter::new(ours, limits);
    writer.feed(b"before").await.unwrap();
    let refused = writer.send(b"12345678901").await.unwrap_err();
    assert!(matches!(refused, FrameError::TooLarge { announced: 11, limit: 10 }), "{refused}");
    let refused = writer.send_json(&json!("x".repeat(1 << 20))).await.unwrap_err();
    assert!(matches!(refused, FrameError::TooLarge { announced: 1_048_578, .. }), "{refused}");
    let no_json = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(matches!(writer.send_json(&no_json).await, Err(FrameError::Io(_))));
    writer.send_json(&json!("12345678")).await.unwrap();
    writer.close().await.unwrap();
    let mut reader = FrameReader::new(theirs, limits, alone());
    assert_eq!(&*reader.next().await.unwrap().unwrap(), b"before");
    assert_eq!(&*reader.next().await.unwrap().unwrap(), b"\"12345678\"");
    assert!(reader.next().await.unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Frames cut anywhere, read by futures that are dropped at every wait, come out as they were.
    #[test]
    fn cuts_and_dropped_futures_change_nothing(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..5),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
        lost in 0_usize..100,
    ) {
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
        let kept = bytes.len().saturating_sub(lost.saturating_sub(50));
        runtime().block_on(async {
            let pieces = Pieces::of(&bytes[..kept], &cuts);
            let mut reader = FrameReader::new(pieces, WIDE, alone());
            let mut position = 0;
            for payload in &payloads {
                let end = position + 4 + payload.len();
                if end <= kept {
                    assert_eq!(&*next_in_pieces(&mut reader).await.unwrap().unwrap(), payload);
                    position = end;
                } else {
                    break;
                }
            }
            match next_in_pieces(&mut reader).await {
                Ok(None) => assert_eq!(position, kept),
                Err(FrameError::Truncated) => assert!(position < kept),
                other => assert!(other.is_err_and(|error| error.to_string().is_empty())),
            }
        });
    }

    /// Whatever bytes come, the reader says something and takes no more than a frame may have.
    #[test]
    fn any_bytes_are_frames_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        runtime().block_on(async {
            let limits = FrameLimits { max_bytes: 100, ..WIDE };
            let mut reader = FrameReader::new(Pieces::of(&bytes, &cuts), limits, alone());
            while let Ok(Some(frame)) = reader.next().await {
                assert!(frame.len() <= 100);
            }
        });
    }
}
