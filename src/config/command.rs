//! `toolmesh config check|show|schema`.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;

use super::checked::{Config, Mesh, Transport};
use super::problem::Errors;
use super::{Loaded, Sources, keys, load, show};

/// Looks at the configuration without starting a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Says what a node would do with the configuration, or what is wrong with it.
    Check,
    /// Prints the effective configuration and where each value came from, but no secret.
    Show,
    /// Prints the JSON Schema of the configuration file.
    Schema,
}

/// Runs `command` on what `sources` make; results go to `out`, problems to `err`.
///
/// With `json` results and problems are JSON on `out`. The exit code is 1 where the configuration
/// is wrong.
///
/// # Errors
///
/// When `out` or `err` cannot be written.
pub(crate) fn run(
    command: Command,
    sources: &Sources,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    if command == Command::Schema {
        writeln!(out, "{:#}", keys::schema().as_value())?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = match load(sources) {
        Ok(loaded) => loaded,
        Err(errors) => {
            refuse(&errors, json, out, err)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    match (command, json) {
        (Command::Show, false) => {
            let text = show::to_toml(&loaded.config, &loaded.layers).map_err(io::Error::other)?;
            write!(out, "{text}")?;
        }
        (Command::Show, true) => {
            let table = show::table(&loaded.config).map_err(io::Error::other)?;
            let origins = show::origins(&table, &loaded.layers);
            let shown = json!({
                "file": loaded.file, "data": loaded.data, "config": table, "origins": origins,
            });
            writeln!(out, "{shown:#}")?;
        }
        (_, false) => summarise(&loaded, out)?,
        (_, true) => {
            let config = &loaded.config;
            let checked = json!({
                "ok": true,
                "file": loaded.file,
                "data": loaded.data,
                "http": config.gateway.http,
                "mesh": config.mesh.enabled,
                "listen": listen(&config.mesh),
                "commands": config.commands.keys().collect::<Vec<_>>(),
                "upstreams": config.upstreams.keys().map(ToString::to_string).collect::<Vec<_>>(),
            });
            writeln!(out, "{checked:#}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse(errors: &Errors, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{:#}", json!({ "ok": false, "errors": errors.problems() }));
    }
    writeln!(err, "{errors}")
}

fn summarise(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let Loaded { config, file, data, .. } = loaded;
    match file {
        Some(file) => writeln!(out, "ok: {}", file.display())?,
        None => writeln!(out, "ok: no configuration file, defaults only")?,
    }
    writeln!(out, "data in {}", data.display())?;
    writeln!(out, "would listen on http://{}/mcp{}", config.gateway.http, access(config))?;
    let otherwise = if config.mesh.listen.is_none() { ", or a free port" } else { "" };
    for address in listen(&config.mesh) {
        writeln!(out, "would listen for other nodes on {address}{otherwise}")?;
    }
    for (name, upstream) in &config.upstreams {
        let state = if upstream.enabled { "" } else { " (not enabled)" };
        match &upstream.transport {
            Transport::Stdio(stdio) => {
                let command = stdio.command.display();
                writeln!(out, "would start upstream {name}: {command}{state}")?;
            }
            Transport::Http(http) => {
                writeln!(out, "would connect to upstream {name}: {}{state}", http.shown())?;
            }
            Transport::Peer(peer) => {
                writeln!(out, "would connect to upstream {name}: {}{state}", peer.address)?;
            }
        }
    }
    for (name, command) in &config.commands {
        let program = command.process.command.display();
        writeln!(out, "would run tasks of type command.{name}: {program}")?;
    }
    if config.upstreams.is_empty() {
        writeln!(out, "no upstreams yet; add [upstream.NAME] with a command or a url")?;
    }
    Ok(())
}

/// Returns where a node that is configured like this would listen for others.
fn listen(mesh: &Mesh) -> Vec<String> {
    if !mesh.enabled {
        return Vec::new();
    }
    let addresses = mesh.listen.clone().unwrap_or_else(Mesh::listen_default);
    addresses.iter().map(ToString::to_string).collect()
}

/// Says who may call a node that is configured like this.
fn access(config: &Config) -> &'static str {
    let gateway = &config.gateway;
    match (gateway.http.ip().is_loopback(), gateway.require_token, gateway.allow_unauthenticated) {
        (true, false, _) => ", for this machine without a token",
        (false, false, true) => ", for the whole network without a token",
        _ => ", with a token (`toolmesh token create`)",
    }
}
