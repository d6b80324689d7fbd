//! The stdio connector: a child process, one JSON-RPC message a line.

use std::{
    collections::VecDeque,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use rmcp::{
    RoleClient,
    model::ServerJsonRpcMessage,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{
    codec::{AnyDelimiterCodec, FramedRead},
    sync::CancellationToken,
};
use toolmesh_core::limits;

use super::{
    Endpoint, Guard,
    tap::{Slot, Tap},
};
use crate::secret::resolved;

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
    endpoint: &Endpoint,
    tap: &Arc<Tap>,
    guard: &Arc<Guard>,
    stderr: &StderrTail,
    close: CancellationToken,
) -> Result<StdioChild, String> {
    let Endpoint::Stdio { command, args, env, inherit_env, cwd } = endpoint else {
        return Err("not a stdio endpoint".into());
    };
    let gate = guard.gate();
    let mut program = match gate {
        Some((program, argument)) => {
            let mut gated = Command::new(program);
            gated.arg(argument).arg(command);
            gated
        }
        None => Command::new(command),
    };
    program.args(args).env_clear().process_group(0).kill_on_drop(true);
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program.envs(inherit_env.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    for (name, value) in env {
        program.env(name, resolved(value)?);
    }
    if let Some(cwd) = cwd {
        program.current_dir(cwd);
    }
    let mut child = program.spawn().map_err(|error| {
        format!("cannot start {command:?}: {error}; is it installed and on the PATH of this node?")
    })?;
    let (Some(pid), Some(mut stdin), Some(stdout), Some(errors)) =
        (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(format!("{command:?} ended at once"));
    };
    guard.watch(pid);
    if gate.is_some() {
        // It waits for this byte, so the pipe has room for it.
        stdin
            .write_all(b"\n")
            .await
            .map_err(|error| format!("{command:?} ended at once: {error}"))?;
    }

    let (outbox, queue) = mpsc::channel(limits::UPSTREAM_OUTBOX);
    let (deliver, inbox) = mpsc::channel(limits::UPSTREAM_OUTBOX);
    let stderr_read = tokio::spawn(stderr.clone().read(errors));
    let silent = CancellationToken::new();
    tokio::spawn(write(stdin, queue, tap.clone(), silent.clone()));
    let stdout_read = tokio::spawn({
        let (tap, at_end) = (tap.clone(), silent.clone().drop_guard());
        async move {
            read(stdout, deliver, tap).await;
            drop(at_end);
        }
    });
    let process = Process { child, pid, silent, tap: tap.clone(), guard: guard.clone() };
    tokio::spawn(process.end(close, stdout_read, stderr_read));
    Ok(StdioChild {
        transport: StdioTransport { outbox: Some(outbox), inbox, tap: tap.clone() },
        pid,
    })
}

/// The last lines of a child's stderr: what there is to say when it died.
#[derive(Debug, Clone, Default)]
pub(super) struct StderrTail(Arc<Mutex<VecDeque<String>>>);

impl StderrTail {
    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    async fn read(self, errors: ChildStderr) {
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
            tracing::debug!(target: "toolmesh::upstream", stderr = text);
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == limits::STDERR_LINES {
                lines.pop_front();
            }
            lines.push_back(text.to_owned());
        }
    }
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
    child: Child,
    pid: u32,
    /// Fires when its output has ended and everything in it was delivered, or its input broke.
    silent: CancellationToken,
    tap: Arc<Tap>,
    guard: Arc<Guard>,
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
        signal_group(self.pid, Signal::KILL); // Grandchildren, as npx leaves them.
        self.guard.release(self.pid);
        // Answers and last words may still be in the pipes; who left the group may hold them open.
        let _rest = tokio::time::timeout(PIPE_REST, async { tokio::join!(stdout, stderr) }).await;
        self.tap.end(reason);
    }

    async fn terminate(&mut self) {
        // Closing its input, as ending the session does, is how a stdio server is told to go.
        for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
            if let Some(signal) = signal {
                signal_group(self.pid, signal);
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

fn signal_group(group: u32, signal: Signal) {
    let group = i32::try_from(group).ok().and_then(Pid::from_raw);
    if let Some(group) = group
        && let Err(error) = kill_process_group(group, signal)
    {
        tracing::trace!(%error, "no process is left in the group");
    }
}
