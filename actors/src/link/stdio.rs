//! The stdio connector: a child process, one JSON-RPC message a line.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use rmcp::{
    RoleClient,
    model::ServerJsonRpcMessage,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use rustix::process::Signal;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{
    codec::{AnyDelimiterCodec, FramedRead},
    sync::CancellationToken,
};
use toolmesh_core::limits;

use super::tap::{Slot, Tap};
use crate::child::{self, Group, Guard, Program, Spawned, StderrTail};

/// Time for what is left in a dead child's pipes.
const PIPE_REST: Duration = Duration::from_millis(250);

/// A running child: its transport for rmcp, and its process id.
pub(super) struct StdioChild {
    pub(super) transport: StdioTransport,
    pub(super) pid: u32,
}

/// Starts the child and the tasks on its three streams. `close` ends it.
///
/// # Errors
/// A text for the operator: the program is missing, a secret cannot be read.
pub(super) async fn spawn(
    program: &Program,
    tap: &Arc<Tap>,
    guard: &Arc<Guard>,
    stderr: &StderrTail,
    close: CancellationToken,
) -> Result<StdioChild, String> {
    let Spawned { group, child, stdin, stdout, stderr: errors, mark } =
        child::spawn(program, guard).await?;
    let pid = group.id();
    let (outbox, queue) = mpsc::channel(limits::UPSTREAM_OUTBOX);
    let (deliver, inbox) = mpsc::channel(limits::UPSTREAM_OUTBOX);
    let stderr_read = tokio::spawn({
        let tail = stderr.clone();
        let log = |line: &str| tracing::debug!(target: "toolmesh::upstream", stderr = line);
        async move { tail.read(errors, &mark, log).await }
    });
    let silent = CancellationToken::new();
    tokio::spawn(write(stdin, queue, tap.clone(), silent.clone()));
    let stdout_read = tokio::spawn({
        let (tap, at_end) = (tap.clone(), silent.clone().drop_guard());
        async move {
            read(stdout, deliver, tap).await;
            drop(at_end);
        }
    });
    let process = Process { group, child, silent, tap: tap.clone() };
    tokio::spawn(process.end(close, stdout_read, stderr_read));
    Ok(StdioChild {
        transport: StdioTransport { outbox: Some(outbox), inbox, tap: tap.clone() },
        pid,
    })
}

struct Outgoing {
    bytes: Vec<u8>,
    slot: Option<Arc<Slot>>,
    written: oneshot::Sender<()>,
}

/// rmcp's view of the child's streams: a bounded outbox with one writer, so messages keep their
/// order and a child that does not read makes callers wait.
pub(super) struct StdioTransport {
    outbox: Option<mpsc::Sender<Outgoing>>,
    inbox: mpsc::Receiver<ServerJsonRpcMessage>,
    tap: Arc<Tap>,
}

/// The child's streams are gone, or the message cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the server's input is closed")]
pub(super) struct Closed;

impl Transport<RoleClient> for StdioTransport {
    type Error = Closed;

    fn send(
        &mut self,
        mut message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Closed>> + Send + 'static {
        let slot = self.tap.outgoing(&mut message);
        let outbox = self.outbox.clone();
        async move {
            let mut bytes = serde_json::to_vec(&message).map_err(|_unwritable| Closed)?;
            bytes.push(b'\n');
            let (written, done) = oneshot::channel();
            let outbox = outbox.ok_or(Closed)?;
            outbox.send(Outgoing { bytes, slot, written }).await.map_err(|_| Closed)?;
            done.await.map_err(|_| Closed)
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        self.inbox.recv().await
    }

    async fn close(&mut self) -> Result<(), Closed> {
        self.outbox = None; // The writer closes the child's stdin.
        Ok(())
    }
}

async fn write(
    mut stdin: ChildStdin,
    mut queue: mpsc::Receiver<Outgoing>,
    tap: Arc<Tap>,
    silent: CancellationToken,
) {
    while let Some(Outgoing { bytes, slot, written }) = queue.recv().await {
        if slot.is_some_and(|slot| !slot.start()) {
            continue; // Its caller has gone; nothing of it was written.
        }
        let result = async {
            stdin.write_all(&bytes).await?;
            stdin.flush().await
        };
        tokio::select! {
            result = result => if let Err(error) = result {
                tracing::debug!(%error, "the server's input broke");
                silent.cancel(); // What it does not hear it does not answer.
                return;
            },
            () = tap.ended.cancelled() => return,
        }
        let _nobody_waits = written.send(());
    }
}

async fn read(stdout: ChildStdout, deliver: mpsc::Sender<ServerJsonRpcMessage>, tap: Arc<Tap>) {
    // Bytes, because what a server prints beside its messages need not be text.
    let limit = limits::UPSTREAM_MESSAGE_BYTES;
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), limit);
    let mut lines = FramedRead::with_capacity(stdout, codec, 64 * 1024);
    while let Some(line) = lines.next().await {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                tap.end(format!(
                    "its output cannot be read ({error}; a message may have {limit} bytes)"
                ));
                return;
            }
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let message = serde_json::from_slice(&line).and_then(|message| tap.incoming(message));
        match message {
            Ok(Some(message)) => {
                if deliver.send(message).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                // Servers that print to stdout are common; the protocol goes on.
                metrics::counter!("toolmesh_upstream_garbage_total").increment(1);
                tracing::debug!(%error, "a line of the server is no message");
            }
        }
    }
}

struct Process {
    group: Group,
    child: Child,
    /// Fires when its output has ended and everything in it was delivered, or its input broke.
    silent: CancellationToken,
    tap: Arc<Tap>,
}

impl Process {
    /// Waits for the child's end, or brings it about, and leaves nothing of its group.
    async fn end(
        mut self,
        close: CancellationToken,
        stdout: JoinHandle<()>,
        stderr: JoinHandle<()>,
    ) {
        let status = tokio::select! {
            status = self.child.wait() => Some(status),
            () = close.cancelled() => None,
            () = self.tap.ended.cancelled() => None,
            () = stays_silent(self.silent.clone()) => None,
        };
        let reason = match status {
            Some(Ok(status)) => format!("the process ended ({status})"),
            Some(Err(error)) => format!("the process cannot be waited for ({error})"),
            None => {
                self.terminate().await;
                "the process was ended".to_owned()
            }
        };
        drop(self.group);
        // Answers and last words may still be in the pipes; who left the group may hold them open.
        let _rest = tokio::time::timeout(PIPE_REST, async { tokio::join!(stdout, stderr) }).await;
        self.tap.end(reason);
    }

    async fn terminate(&mut self) {
        // Closing its input, as ending the session does, is how a stdio server is told to go.
        for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
            if let Some(signal) = signal {
                self.group.signal(signal);
            }
            if tokio::time::timeout(limits::CHILD_GRACE, self.child.wait()).await.is_ok() {
                return;
            }
        }
    }
}

/// Usually a process ends with its pipes. One that stays a while is of no use any more.
async fn stays_silent(silent: CancellationToken) {
    silent.cancelled().await;
    tokio::time::sleep(limits::CHILD_GRACE).await;
}
