//! A child process: in a group of its own, and under guard from before its first instruction.
//!
//! - Used by: stdio links (`link/stdio.rs`) and commands (`worker/command.rs`), which differ in
//!   what they do with the three streams.
//! - A crash loses: nothing that stays behind. The guard ends the groups of a node that is gone,
//!   `Group` those of a task of ours that is gone.
//! - Limits: lines of stderr, their length and how many are kept (`toolmesh_core::limits`).

mod guard;
mod stderr;

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, sync::Arc};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

pub use guard::Guard;
pub(crate) use stderr::StderrTail;

use crate::secret::{Secret, resolved};

/// A program and what it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its path, or a bare name to look up in PATH.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables of its environment, which is otherwise empty.
    pub env: BTreeMap<String, Secret>,
    /// Variables taken over from this node's environment; those of `env` win.
    pub inherit_env: Vec<String>,
    /// Its working directory; `None` is that of the node.
    pub cwd: Option<PathBuf>,
}

/// A child that runs, and the node's ends of its streams.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Ends it when dropped; before [`Spawned::child`], which would reap its leader.
    pub(crate) group: Group,
    /// The group's first process.
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
    /// For [`StderrTail::read`].
    pub(crate) mark: String,
}

/// Starts a program in a process group of its own, under `guard`.
///
/// A program that cannot be run is found out here only where there is no gate; else the gate says
/// it, see [`StderrTail::refusal`].
///
/// # Errors
/// A text for the operator: the program is missing, a secret cannot be read. Nothing of the
/// program ran.
pub(crate) async fn spawn(program: &Program, guard: &Arc<Guard>) -> Result<Spawned, String> {
    let Program { command, args, env, inherit_env, cwd } = program;
    let mark = format!("{:016x}", rand::random::<u64>());
    let gate = guard.gate();
    let mut process = match gate {
        Some((gate, argument)) => {
            let mut gated = Command::new(gate);
            gated.args([argument, &mark, command]);
            gated
        }
        None => Command::new(command),
    };
    process.args(args).env_clear().process_group(0).kill_on_drop(true);
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.envs(inherit_env.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    for (name, value) in env {
        process.env(name, resolved(value)?);
    }
    if let Some(cwd) = cwd {
        process.current_dir(cwd);
    }
    let mut child = process.spawn().map_err(|error| match cwd {
        // The system says the same of a directory and of a program that is not there.
        Some(cwd) if !cwd.is_dir() => {
            format!("cannot start {command:?}: its directory {} is not there", cwd.display())
        }
        _ => format!(
            "cannot start {command:?}: {error}; is it installed and on the PATH of this node?"
        ),
    })?;
    let (Some(id), Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(format!("{command:?} ended at once"));
    };
    guard.watch(id);
    let group = Group { id, guard: guard.clone() };
    if gate.is_some() {
        // It waits for this byte, so the pipe has room for it.
        stdin
            .write_all(b"\n")
            .await
            .map_err(|error| format!("{command:?} ended at once: {error}"))?;
    }
    Ok(Spawned { group, child, stdin, stdout, stderr, mark })
}

/// The process group of a child. Dropped, it is killed, grandchildren included as npx leaves them,
/// and taken off the guard.
#[derive(Debug)]
pub(crate) struct Group {
    id: u32,
    guard: Arc<Guard>,
}

impl Group {
    /// Its id, which is the process id of the child.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Sends `signal` to each of its processes.
    pub(crate) fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, signal)
        {
            tracing::trace!(%error, "no process is left in the group");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.guard.release(self.id);
    }
}
