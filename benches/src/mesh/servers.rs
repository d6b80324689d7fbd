//! What a node is compared with, on the same kind of stream: a raw echo, and bare rmcp.

use std::path::Path;

use actix_web::web::Bytes;
use futures::{AsyncRead, AsyncWrite, SinkExt, StreamExt, io::AsyncReadExt};
use rmcp::{
    RoleServer, ServiceExt,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;
use tokio_util::{
    codec::{FramedRead, FramedWrite, LengthDelimitedCodec},
    compat::{Compat, FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt},
};
use toolmesh_net::{MeshStream, PeerAddress};

use super::peer::Peer;
use crate::{Result, bare::Echo, machine::Overwritten};

/// Largest frame, in bytes.
const FRAME: usize = 16 << 20;

/// Serves every stream with what it receives, until the process is killed.
///
/// # Errors
/// The peer cannot be started.
pub(crate) async fn echo(secret: &Path) -> Result<()> {
    serve("echo", secret, |stream| async {
        let (read, mut write) = stream.split();
        futures::io::copy(read, &mut write).await?;
        Ok(())
    })
    .await
}

/// Serves every stream with the frames that it receives, each synced to disk before it is sent back,
/// until the process is killed.
///
/// # Errors
/// The peer cannot be started.
pub(crate) async fn synced(secret: &Path) -> Result<()> {
    serve("synced", secret, |stream| async {
        let (read, write) = stream.split();
        let (mut frames, mut answers) = framed(read, write);
        let mut file: Option<Overwritten> = None;
        while let Some(frame) = frames.next().await {
            let frame = frame?.freeze();
            match &mut file {
                Some(file) => file.write(&frame)?,
                None => file = Some(Overwritten::new(tempfile::tempfile()?, &frame)?),
            }
            answers.send(frame).await?;
        }
        Ok(())
    })
    .await
}

/// Serves every stream with the echo tool on rmcp's own framing, until the process is killed.
///
/// # Errors
/// The peer cannot be started.
pub(crate) async fn bare(secret: &Path) -> Result<()> {
    serve("bare", secret, serve_rmcp).await
}

async fn serve_rmcp(stream: MeshStream) -> Result<()> {
    let (read, write) = stream.split();
    let (frames, answers) = framed(read, write);
    let messages = frames.filter_map(async |frame| {
        serde_json::from_slice::<RxJsonRpcMessage<RoleServer>>(&frame.ok()?).ok()
    });
    let frames = answers.with(async |message: TxJsonRpcMessage<RoleServer>| {
        Ok::<Bytes, std::io::Error>(serde_json::to_vec(&message)?.into())
    });
    Echo.serve((Box::pin(frames), Box::pin(messages))).await?.waiting().await?;
    Ok(())
}

/// Reads and writes a stream in frames.
fn framed<R: AsyncRead, W: AsyncWrite>(
    read: R,
    write: W,
) -> (FramedRead<Compat<R>, LengthDelimitedCodec>, FramedWrite<Compat<W>, LengthDelimitedCodec>) {
    let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME).new_codec();
    (FramedRead::new(read.compat(), codec.clone()), FramedWrite::new(write.compat_write(), codec))
}

/// Tells how serving a stream failed.
async fn told(serving: impl Future<Output = Result<()>>) {
    if let Err(error) = serving.await {
        eprintln!("a stream ended: {error}");
    }
}

async fn serve<F>(name: &str, secret: &Path, with: impl Fn(MeshStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    let mut peer = Peer::start(name.to_owned(), secret).await?;
    println!("{}", json!({"addresses": [peer.address()?]}));
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            while let Some(inbound) = peer.inbound.recv().await {
                tokio::task::spawn_local(told(with(inbound.stream)));
            }
        })
        .await;
    Ok(())
}

/// Joins `count` members to the node at `to`, which serve bare rmcp and do nothing by themselves,
/// until the process is killed.
///
/// # Errors
/// A member cannot be started, or does not get in.
pub(crate) async fn crowd(secret: &Path, to: &PeerAddress, count: u32) -> Result<()> {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for number in 1..=count {
                let mut peer = Peer::start(format!("member-{number}"), secret).await?;
                peer.join(to).await?;
                tokio::task::spawn_local(async move {
                    while let Some(inbound) = peer.inbound.recv().await {
                        // A node that asks whom this member knows gets no answer, and no matter.
                        tokio::task::spawn_local(async { serve_rmcp(inbound.stream).await.ok() });
                    }
                });
            }
            println!("{}", json!({"members": count}));
            std::future::pending().await
        })
        .await
}
