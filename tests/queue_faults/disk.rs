//! A small file system in memory, which only those see who enter its mount namespace. Nothing of it
//! is left when its keeper ends, however the test ends.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::support::{Outcome, run_by};

/// A small file system.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    keeper: Child,
    directory: PathBuf,
}

impl SmallDisk {
    /// Mounts one of this many MiB at a directory, which is made. As root in a mount namespace, as
    /// anybody else in a user namespace as well.
    pub(crate) fn new(directory: &Path, mebibytes: u64) -> Outcome<Self> {
        fs::create_dir_all(directory)?;
        let mut unshare = vec!["--mount"];
        if !is_root() {
            unshare.extend(["--user", "--map-root-user"]);
        }
        let script = format!(
            "mount -t tmpfs -o size={mebibytes}m,mode=0700 tmpfs \"$0\" && echo mounted && exec cat"
        );
        let mut command = Command::new("unshare");
        command.args(unshare).args(["sh", "-c", &script]).arg(directory);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let keeper = spawned.map_err(|error| format!("no unshare (util-linux): {error}"))?;
        let mut disk = Self { keeper, directory: directory.to_owned() };
        let mut line = String::new();
        let stdout = disk.keeper.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "mounted" {
            return Err("no small file system can be mounted: this needs root with the right to \
                        mount, or user namespaces (kernel.unprivileged_userns_clone)"
                .into());
        }
        Ok(disk)
    }

    /// The same command where the file system is seen; its process is the command's own.
    pub(crate) fn enter(&self, command: &Command) -> Command {
        let target = self.keeper.id().to_string();
        let mut nsenter = vec!["nsenter", "--target", &target, "--mount"];
        if !is_root() {
            nsenter.extend(["--user", "--preserve-credentials"]);
        }
        nsenter.push("--");
        run_by(&nsenter, command)
    }

    /// The file system as it is seen from outside.
    fn root(&self) -> PathBuf {
        let inside = self.directory.strip_prefix("/").unwrap_or(&self.directory);
        PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(inside)
    }

    fn free(&self) -> Outcome<u64> {
        let found = statvfs(self.root())?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Fills it until so many MiB are left.
    pub(crate) fn fill(&self, left_mebibytes: u64) -> Outcome {
        let size = self.free()?.checked_sub(left_mebibytes << 20).ok_or("it is that full")?;
        let ballast = File::create(self.root().join("ballast"))?;
        Ok(fallocate(&ballast, FallocateFlags::empty(), 0, size)?)
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub(crate) fn clear(&self) -> Outcome {
        Ok(fs::remove_file(self.root().join("ballast"))?)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.keeper.kill().and_then(|()| self.keeper.wait());
    }
}
