//! What can be seen without a node.

use std::env;
use std::fs::{self, Metadata};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use toolmesh_net::{Identity, IdentityError, MeshSecret, PrivateFileError};
use toolmesh_store::FreeSpace;

use super::Finding;
use crate::config::{self, Config, Errors, Loaded, Sources, Transport};
use crate::{up, wiring};

/// Files in the data directory that nobody else may read.
const SECRET_FILES: [&str; 3] = ["node.key", "operator.token", "mesh.secret"];

/// Permission bits that let others, and the group, read or write.
const OTHERS: u32 = 0o007;
const GROUP: u32 = 0o070;

/// Looks at the configuration.
pub(super) fn config(loaded: &Result<Loaded, Errors>, sources: &Sources) -> Vec<Finding> {
    match loaded {
        Ok(Loaded { file: Some(file), .. }) => {
            vec![Finding::ok("config", format!("{} is right", file.display()))]
        }
        Ok(Loaded { data, .. }) => vec![Finding::ok(
            "config",
            format!("no file, so the defaults hold; one would be {}/config.toml", data.display()),
        )],
        Err(errors) => {
            let next = errors.next(sources);
            let finding =
                |problem: &config::Problem| Finding::error("config", problem.to_string(), &next);
            errors.problems().iter().map(finding).collect()
        }
    }
}

/// Looks at the data directory and the secrets in it.
pub(super) fn data(data: &Path) -> Vec<Finding> {
    data_with(data, |path| Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?))
}

/// Looks at it; `writable` tells whether this user may write in a directory.
fn data_with(data: &Path, writable: impl Fn(&Path) -> io::Result<()>) -> Vec<Finding> {
    let check = "data directory";
    let shown = data.display();
    match fs::metadata(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![not_made_yet(data, writable)];
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
    if let Err(error) = writable(data) {
        let next = format!("chmod 700 {shown}, or choose another place with --data DIR");
        return vec![Finding::error(check, format!("cannot write to {shown}: {error}"), next)];
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
    findings.extend(key(&data.join("node.key")));
    findings
}

/// Looks whether a data directory that is not there can be made.
fn not_made_yet(data: &Path, writable: impl Fn(&Path) -> io::Result<()>) -> Finding {
    let check = "data directory";
    let parent = data.ancestors().skip(1).find(|place| place.exists());
    let parent = parent.unwrap_or(Path::new("/"));
    match writable(parent) {
        Ok(()) if parent.is_dir() => {
            Finding::ok(check, format!("{} is made at the first start", data.display()))
        }
        denied => {
            let why = denied.err().map_or("it is no directory".to_owned(), |it| it.to_string());
            Finding::error(
                check,
                format!("{} cannot be made in {}: {why}", data.display(), parent.display()),
                "make it for the user who runs the node, or choose another with --data DIR",
            )
        }
    }
}

/// Looks whether the identity of the node can be read. Who else can read it is looked at before.
fn key(path: &Path) -> Option<Finding> {
    if !path.exists() {
        return None; // It would be made.
    }
    match Identity::load_or_create(path) {
        Ok(_) | Err(IdentityError::File(PrivateFileError::Readable { .. })) => None,
        Err(error) => {
            let next = "a node does not start with it; do what it says";
            Some(Finding::error("node.key", error.to_string(), next))
        }
    }
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
            let next = up::advice_of_bind(&error);
            Finding::error("port", format!("cannot use {address}: {error}"), next)
        }
    })
}

/// Looks whether a node that is not running may listen where it shall.
pub(super) fn protection(config: &Config, data: &Path) -> Option<Finding> {
    let http = config.gateway.http;
    if http.ip().is_loopback() || config.gateway.allow_unauthenticated {
        return None;
    }
    let check = "tokens";
    let make = "make one: toolmesh token create NAME; or set gateway.allow_unauthenticated where a \
                firewall or proxy protects it";
    Some(if data.join("store").is_dir() {
        let message =
            format!("a node listens on {http}, beyond loopback, only if there is a token");
        Finding::warn(check, message, format!("see: toolmesh token list; if there is none, {make}"))
    } else {
        let message =
            format!("{http} is not loopback and there is no token: a node does not start there");
        Finding::error(check, message, make)
    })
}

/// Looks at the secret of the mesh: the one that the configuration names, else the node's own.
pub(super) fn mesh_secret(config: &Config, data: &Path) -> Option<Finding> {
    let check = "mesh secret";
    if !config.mesh.enabled {
        return None;
    }
    let own = data.join("mesh.secret");
    let (file, read, next) = match &config.mesh.secret_file {
        Some(file) => {
            let next = "mount or write it as docs/mesh.md says; a node does not start without it";
            (file, MeshSecret::read(file), next)
        }
        None if own.exists() => {
            let next = "restore it from a backup, or remove it: the node is then alone in a new mesh until \
                        it is invited again";
            (&own, MeshSecret::load_or_create(&own), next)
        }
        None => return None, // It would be made.
    };
    Some(match read {
        Ok(secret) => Finding::ok(
            check,
            format!("{} is that of the mesh {}", file.display(), secret.fingerprint()),
        ),
        Err(error) => Finding::error(check, error.to_string(), next),
    })
}

/// Looks at the token of Python peers, where they are let in by one.
pub(super) fn mesh_token(config: &Config) -> Option<Finding> {
    let check = "mesh token";
    match wiring::token(&config.mesh) {
        Ok(None) => None,
        Ok(Some(_)) => Some(Finding::ok(check, "can be read")),
        Err(error) => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
            let message = format!("{error}{}", why.unwrap_or_default());
            let next = "correct mesh.token; a node does not start without it";
            Some(Finding::error(check, message, next))
        }
    }
}

/// Looks whether the programs of upstreams and commands are there.
pub(super) fn commands(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, command) in &config.commands {
        let program = &command.process.command;
        if executable(program).is_none() {
            let next = "install it, or write its whole path into the configuration";
            let message =
                format!("its program {} is not there or not executable", program.display());
            findings.push(Finding::error(&format!("command {name}"), message, next));
        }
    }
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

    /// The configuration in `text`.
    fn checked(text: &str) -> Config {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("config.toml"), text).unwrap();
        let sources = Sources { data: Some(data.path().to_owned()), ..Sources::default() };
        config::load(&sources).unwrap().config
    }

    /// A data directory with this file, which only its owner can read.
    fn holding(name: &str, bytes: &[u8]) -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        data
    }

    #[test]
    fn what_keeps_a_node_from_starting_is_found() {
        let broken_key = holding("node.key", b"0123456789");
        let found = data(broken_key.path());
        let key = found.last().unwrap();
        assert!(key.level == Level::Error && key.message.contains("is damaged"), "{key:?}");

        let plain = checked("");
        let short = holding("mesh.secret", b"short");
        let secret = mesh_secret(&plain, short.path()).unwrap();
        assert!(secret.message.contains("holds no mesh secret"), "{secret:?}");
        assert!(mesh_secret(&plain, broken_key.path()).is_none(), "it would be made");

        let token =
            checked("[mesh]\nadmission = \"token\"\n[mesh.token]\nfile = \"/no/such/file\"\n");
        let token = mesh_token(&token).unwrap();
        assert!(token.message.contains("/no/such/file"), "{token:?}");
        let empty = holding("token", b"\n");
        let file = empty.path().join("token");
        let empty =
            checked(&format!("[mesh]\nadmission = \"token\"\n[mesh.token]\nfile = {file:?}\n"));
        assert!(mesh_token(&empty).unwrap().message.contains("is empty"));

        let open = checked("[gateway]\nhttp = \"0.0.0.0:7555\"\n");
        assert_eq!(protection(&open, short.path()).unwrap().level, Level::Error);
        fs::create_dir(short.path().join("store")).unwrap();
        assert_eq!(protection(&open, short.path()).unwrap().level, Level::Warn);
        assert!(protection(&plain, short.path()).is_none());

        let program = checked("[command.x]\nprogram = \"/no/such/program\"\n");
        let program = commands(&program);
        assert_eq!((program[0].level, &*program[0].check), (Level::Error, "command x"));
    }

    #[test]
    fn a_directory_that_cannot_be_written_or_made_is_an_error() {
        let denied = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let there = tempfile::tempdir().unwrap();
        for path in [there.path().to_owned(), there.path().join("a/b")] {
            let found = data_with(&path, denied);
            assert_eq!(found[0].level, Level::Error, "{}", found[0].message);
            assert!(found[0].message.contains("permission denied"), "{}", found[0].message);
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
