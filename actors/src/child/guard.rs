//! The guard: one small process a node that ends the node's children when the node is gone.
//!
//! It holds a pipe to the node and the process groups of its children. At the pipe's end, however
//! the node ended, it kills the groups that are left (`docs/adr/005-guard-process.md`).

use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;

/// The node's side of the guard. Without a program it does nothing, as in tests of single actors.
#[derive(Debug, Default)]
pub struct Guard {
    program: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    child: Option<Child>,
    groups: BTreeSet<u32>,
}

impl Guard {
    /// A guard that is this program with `__guard`, started with the first child; children start
    /// through the same program with `__exec`, which waits until they are under guard.
    pub fn new(program: PathBuf) -> Self {
        Self { program: Some(program), inner: Mutex::default() }
    }

    /// The program through which a child waits until it is under guard, with its first argument;
    /// the next is the mark by which it says that it could not become the child.
    pub(super) fn gate(&self) -> Option<(&PathBuf, &'static str)> {
        self.program.as_ref().map(|program| (program, "__exec"))
    }

    /// Puts a process group under guard.
    pub(super) fn watch(&self, group: u32) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.groups.insert(group);
        self.tell(&mut inner, '+', group);
    }

    /// The group has ended.
    pub(super) fn release(&self, group: u32) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.groups.remove(&group);
        self.tell(&mut inner, '-', group);
    }

    fn tell(&self, inner: &mut Inner, sign: char, group: u32) {
        let Some(program) = &self.program else { return };
        let line = format!("{sign}{group}\n");
        let sent =
            inner.child.as_mut().and_then(|child| child.stdin.as_mut()).is_some_and(|pipe| {
                pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush()).is_ok()
            });
        if sent {
            return;
        }
        // Not started yet, or it died: a fresh one is told everything.
        if let Some(mut dead) = inner.child.take() {
            let _reaped = dead.wait();
        }
        let spawned = Command::new(program)
            .arg("__guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0) // Ctrl-C in a terminal is for the node.
            .spawn();
        match spawned {
            Ok(mut child) => {
                let all: String = inner.groups.iter().map(|group| format!("+{group}\n")).collect();
                let told = child.stdin.as_mut().is_some_and(|pipe| {
                    pipe.write_all(all.as_bytes()).and_then(|()| pipe.flush()).is_ok()
                });
                if !told {
                    tracing::error!("the guard process does not read: children may outlive a kill");
                }
                inner.child = Some(child);
            }
            Err(error) => {
                tracing::error!(%error, "cannot start the guard process: children may outlive a kill");
            }
        }
    }
}
