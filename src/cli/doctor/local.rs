//! What can be seen without a node.

use std::env;
use std::fs::{self, Metadata};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use toolmesh_net::MeshSecret;
use toolmesh_store::FreeSpace;

use super::Finding;
use crate::config::{self, Config, Errors, Loaded, Transport};

/// Files in the data directory that nobody else may read.
const SECRET_FILES: [&str; 3] = ["node.key", "operator.token", "mesh.secret"];

/// Permission bits that let others, and the group, read or write.
const OTHERS: u32 = 0o007;
const GROUP: u32 = 0o070;

/// Looks at the configuration.
pub(super) fn config(loaded: &Result<Loaded, Errors>) -> Vec<Finding> {
    match loaded {
        Ok(Loaded { file: Some(file), .. }) => {
            vec![Finding::ok("config", format!("{} is right", file.display()))]
        }
        Ok(Loaded { data, .. }) => vec![Finding::ok(
            "config",
            format!("no file, so the defaults hold; one would be {}/config.toml", data.display()),
        )],
        Err(errors) => {
            let next = "correct it, then: toolmesh config check";
            let finding =
                |problem: &config::Problem| Finding::error("config", problem.to_string(), next);
            errors.problems().iter().map(finding).collect()
        }
    }
}

/// Looks at the data directory and the secrets in it.
pub(super) fn data(data: &Path) -> Vec<Finding> {
    let check = "data directory";
    let shown = data.display();
    match fs::metadata(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::ok(check, format!("{shown} is made at the first start"))];
        }
        Err(error) => {
            let next = "run as the user who runs the node, or choose another with --data DIR";
            return vec![Finding::error(check, format!("cannot look at {shown}: {error}"), next)];
        }
        Ok(_) => {}
    }
    // It is there, so this only looks.
    if let Err(error) = config::prepare(data) {
        let next = "a node would not start with it; do what it says";
        return vec![Finding::error(check, error.to_string(), next)];
    }
    let mut findings = vec![Finding::ok(check, format!("{shown} is ours alone to write"))];
    for name in SECRET_FILES {
        let path = data.join(name);
        match fs::metadata(&path) {
            Ok(metadata) => findings.push(secret(&path, &metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let next = "run as the user who runs the node";
                findings.push(Finding::error(name, format!("cannot look at it: {error}"), next));
            }
        }
    }
    findings
}

fn secret(path: &Path, metadata: &Metadata) -> Finding {
    let check = path.file_name().unwrap_or_default().to_string_lossy();
    let mode = metadata.mode() & 0o777;
    let next = format!("chmod 600 {}", path.display());
    match (mode & OTHERS, mode & GROUP) {
        (0, 0) => Finding::ok(&check, "only its owner can read it"),
        (0, _) => Finding::warn(&check, format!("its group has access (mode {mode:o})"), next),
        _ => Finding::error(
            &check,
            format!("every user has access (mode {mode:o}); a node refuses to start with it"),
            next,
        ),
    }
}

/// Looks at the space where the data are or will be.
pub(super) fn disk(data: &Path) -> Option<Finding> {
    let place = data.ancestors().find(|place| place.is_dir())?;
    let space = rustix::fs::statvfs(place).ok()?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let total = space.f_blocks.saturating_mul(space.f_frsize);
    let limits = FreeSpace::default();
    let percent = free.saturating_mul(100).checked_div(total).unwrap_or(100);
    let shown = format!("{} MiB free ({percent} %)", free / 1024 / 1024);
    if free >= limits.bytes_min && percent >= u64::from(limits.percent_min) {
        return Some(Finding::ok("disk", shown));
    }
    let next = format!(
        "free space: under {} MiB or {} % new work is refused",
        limits.bytes_min / 1024 / 1024,
        limits.percent_min
    );
    Some(Finding::error("disk", shown, next))
}

/// Looks whether a node that is not running could have its port.
pub(super) fn port(config: &Config) -> Option<Finding> {
    let address = config.gateway.http;
    if address.port() == 0 {
        return None;
    }
    Some(match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::error(
            "port",
            format!("another program has {address}, so a node cannot start there"),
            format!(
                "end that program (ss -ltnp 'sport = :{}'), or pass --http ADDR",
                address.port()
            ),
        ),
        Err(error) => {
            Finding::error("port", format!("cannot use {address}: {error}"), "pass --http ADDR")
        }
    })
}

/// Looks at the secret of the mesh, where the configuration names one.
pub(super) fn mesh_secret(config: &Config) -> Option<Finding> {
    let check = "mesh secret";
    let file = config.mesh.secret_file.as_ref().filter(|_| config.mesh.enabled)?;
    Some(match MeshSecret::read(file) {
        Ok(secret) => Finding::ok(
            check,
            format!("{} is that of the mesh {}", file.display(), secret.fingerprint()),
        ),
        Err(error) => {
            let next = "mount or write it as docs/mesh.md says; a node does not start without it";
            Finding::error(check, error.to_string(), next)
        }
    })
}

/// Looks whether the commands of the upstreams are there.
pub(super) fn commands(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, upstream) in &config.upstreams {
        let Transport::Stdio(stdio) = &upstream.transport else { continue };
        if !upstream.enabled {
            continue;
        }
        let check = format!("upstream {name}");
        let command = stdio.command.display();
        findings.push(match executable(&stdio.command) {
            Some(path) => Finding::ok(&check, format!("its command is {}", path.display())),
            None => Finding::error(
                &check,
                format!("its command {command} is not there or not executable"),
                "install it, or write its whole path into the configuration",
            ),
        });
    }
    findings
}

/// Returns the file that starting `command` would run.
fn executable(command: &Path) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if command.components().count() > 1 {
        return Some(command.to_owned()).filter(runs);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(command)).find(runs)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use super::super::Level;
    use super::*;

    #[test]
    fn commands_are_looked_up_like_a_shell_does() {
        assert!(executable(Path::new("sh")).is_some());
        assert!(executable(Path::new("/bin/sh")).is_some());
        assert!(executable(Path::new("no-such-command-anywhere")).is_none());
        assert!(executable(Path::new("/etc/passwd")).is_none());
    }

    #[test]
    fn a_secret_that_others_can_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("operator.token");
        fs::write(&path, "x").unwrap();
        for (mode, level) in [(0o600, Level::Ok), (0o640, Level::Warn), (0o644, Level::Error)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let found = data(directory.path());
            assert_eq!(found.last().unwrap().level, level, "{mode:o}");
        }
    }

    #[test]
    fn a_data_directory_that_is_not_there_is_fine_and_stays_away() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("later");
        assert!(data(&path).iter().all(|finding| finding.level == Level::Ok));
        assert!(disk(&path).is_some());
        assert!(!path.is_dir());
    }
}
