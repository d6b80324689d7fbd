//! Messages that wait for a stream: what both ends of a mesh session write through.
//!
//! One task writes, in the order in which messages got in line; what waits together goes out
//! together. The line is bounded, so a peer that does not read makes its own callers wait.

use futures::{AsyncWrite, FutureExt};
use tokio::sync::mpsc::{self, error::TrySendError};
use toolmesh_core::limits;
use toolmesh_net::{FrameError, FrameWriter};

/// What can wait in an [`Outbox`].
pub(crate) trait Waiting: Send + 'static {
    /// Writes it as one frame; nothing, if nobody wants it any more.
    fn feed<W: AsyncWrite + Unpin + Send>(
        self,
        writer: &mut FrameWriter<W>,
    ) -> impl Future<Output = Result<(), FrameError>> + Send;
}

/// The stream is gone; nothing of the message was written.
#[derive(Debug, thiserror::Error)]
#[error("the stream is closed")]
pub(crate) struct Closed;

/// Where messages get in line. The stream is closed after the last one when all clones are gone.
#[derive(Debug)]
pub(crate) struct Outbox<T>(mpsc::Sender<T>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Waiting> Outbox<T> {
    /// Makes a line and its end, for [`write`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<T>) {
        let (line, queue) = mpsc::channel(limits::MESH_OUTBOX);
        (Self(line), queue)
    }

    /// Puts `message` in line. It has its place when this returns; the future ends when there is
    /// room for it, which is at once unless the peer reads more slowly than we write.
    pub(crate) fn put(
        &self,
        message: T,
    ) -> impl Future<Output = Result<(), Closed>> + Send + 'static + use<T> {
        let put = match self.0.try_send(message) {
            Ok(()) => Put::Done(Ok(())),
            Err(TrySendError::Closed(_)) => Put::Done(Err(Closed)),
            Err(TrySendError::Full(message)) => {
                // Asked once it is in line: the channel serves those who wait in their order.
                let mut place = Box::pin(self.0.clone().reserve_owned());
                match (&mut place).now_or_never() {
                    Some(Ok(room)) => {
                        room.send(message);
                        Put::Done(Ok(()))
                    }
                    Some(Err(_closed)) => Put::Done(Err(Closed)),
                    None => Put::Later(place, message),
                }
            }
        };
        async {
            match put {
                Put::Done(done) => done,
                Put::Later(place, message) => {
                    place.await.map_err(|_closed| Closed)?.send(message);
                    Ok(())
                }
            }
        }
    }
}

/// How far putting a message in line has come.
enum Put<F, T> {
    Done(Result<(), Closed>),
    Later(F, T),
}

/// Writes what is put in line until the last [`Outbox`] is gone, then closes the stream.
///
/// # Errors
/// The stream is of no more use; what still waits is dropped.
pub(crate) async fn write<W: AsyncWrite + Unpin + Send, T: Waiting>(
    mut writer: FrameWriter<W>,
    mut queue: mpsc::Receiver<T>,
) -> Result<(), FrameError> {
    let mut waiting = Vec::with_capacity(limits::MESH_OUTBOX);
    while queue.recv_many(&mut waiting, limits::MESH_OUTBOX).await > 0 {
        for message in waiting.drain(..) {
            message.feed(&mut writer).await?;
        }
        writer.flush().await?;
    }
    writer.close().await
}
