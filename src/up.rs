//! `toolmesh up`: makes a node ready to boot, runs it, and says in a few lines where it is.

use std::{io::Write, process::ExitCode};

use serde_json::json;
use toolmesh_actors::tools::NodeFacts;
use toolmesh_net::{Invite, InviteError};

use crate::{
    boot::{self, BootError, Plan},
    cli::{args::UpArgs, quoted},
    config::{self, Flag, LogFormat, Sources},
};

/// Returns how many threads there are for links and other I/O, beside the actors' own and the HTTP
/// workers': one for two processors. On a machine with two, a second one only takes work over from
/// the first, for a change of thread each time.
fn io_threads() -> usize {
    const MOST: usize = 4;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, MOST)
}

/// Runs a node until it is told to stop. 0: stopped; 1: it could not start, or failed.
pub(crate) fn run(args: &UpArgs) -> ExitCode {
    let sources = Sources::of_process(args.file.config.clone(), args.data.clone(), flags(args));
    let plan = match plan(sources, args.join.as_deref()) {
        Ok(plan) => plan,
        Err(message) => return failed(args.json, &message),
    };
    init_log(&plan.loaded.config.log);
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(io_threads())
            .thread_name("toolmesh-io")
            .enable_all()
            .build()
    };
    let runtime = match runtime() {
        Ok(runtime) => std::cell::Cell::new(Some(runtime)),
        Err(error) => {
            return failed(
                args.json,
                &format!("the system gives no threads: {error}; see `ulimit -a`"),
            );
        }
    };
    #[expect(clippy::expect_used, reason = "actix asks for the runtime once, right here")]
    let system = actix::System::with_tokio_rt(move || runtime.take().expect("taken once"));
    let json = args.json;
    // A port that was not asked for may be another one than people expect.
    let expected = plan.loaded.config.mesh.listen.is_none().then_some(config::MESH_PORT);
    let code = match system.block_on(boot::run(plan, move |facts| announce(facts, expected, json)))
    {
        Ok(()) => 0,
        Err(error) => {
            failed(json, &explain(&error));
            1
        }
    };
    // Everything is stopped and flushed; dropping the runtime would wait for idle blocking threads.
    std::process::exit(code)
}

fn flags(args: &UpArgs) -> Vec<Flag> {
    let flag = |name: &str, key: &str, value: &Option<String>| {
        value.as_ref().map(|value| Flag {
            name: name.into(),
            key: key.into(),
            value: value.clone(),
        })
    };
    let unauthenticated = args.allow_unauthenticated.then(|| "true".to_owned());
    // A list of strings looks the same in JSON and in TOML.
    let listen = (!args.listen.is_empty()).then(|| json!(args.listen).to_string());
    [
        flag("--http", "gateway.http", &args.http),
        flag("--listen", "mesh.listen", &listen),
        flag("--name", "name", &args.name),
        flag("--allow-unauthenticated", "gateway.allow_unauthenticated", &unauthenticated),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn plan(sources: Sources, join: Option<&str>) -> Result<Plan, String> {
    let loaded = config::load(&sources).map_err(|errors| {
        let problems: Vec<String> = errors.problems().iter().map(ToString::to_string).collect();
        format!("{}\nnext: {}", problems.join("\n"), errors.next(&sources))
    })?;
    let join = join.map(|line| invite(line, &loaded.config.mesh)).transpose()?;
    config::prepare(&loaded.data).map_err(|error| with_sources(&error))?;
    Ok(Plan { sources, loaded, join })
}

/// Reads the line of `--join`; only a mesh whose secret is ours to replace can be left for it.
fn invite(line: &str, mesh: &config::Mesh) -> Result<Invite, String> {
    if !mesh.enabled {
        return Err("--join needs the mesh, which is off\nnext: set mesh.enabled = true".to_owned());
    }
    if let Some(file) = &mesh.secret_file {
        return Err(format!(
            "--join would replace the secret of the mesh, which the configuration takes from {}\n\
             next: leave out --join, or mesh.secret_file",
            file.display()
        ));
    }
    line.trim().parse().map_err(|error: InviteError| {
        format!(
            "--join: the line {error}\nnext: make one with `toolmesh peer invite` on the other node"
        )
    })
}

fn init_log(log: &config::Log) {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::new(&log.level);
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match log.format {
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    // A logger that is set already logs just as well.
    drop(set);
}

/// Tells a person where to point a client, or a program where everything is.
fn announce(facts: &NodeFacts, expected: Option<u16>, as_json: bool) {
    let mut out = std::io::stdout().lock();
    let written = if as_json {
        let line = json!({
            "peer_id": facts.peer_id, "addresses": facts.addresses,
            "http": facts.http, "data": facts.data,
        });
        writeln!(out, "{line}")
    } else {
        let mesh = mesh_lines(facts, expected);
        writeln!(
            out,
            "toolmesh node {name} is ready\n\
             \x20 HTTP clients:   {http}/mcp\n\
             \x20 stdio clients:  toolmesh stdio --data {data}\n\
             \x20 see its tools:  toolmesh tools list --data {data}\n\
             {mesh}\
             Ctrl-C stops it.",
            name = facts.name,
            http = facts.http,
            data = quoted(&facts.data),
        )
    };
    if written.and_then(|()| out.flush()).is_err() {
        tracing::debug!("nobody reads stdout");
    }
}

/// Tells where other nodes find this one, and how the first of them joins.
fn mesh_lines(facts: &NodeFacts, expected: Option<u16>) -> String {
    let beyond = |at: &&String| !at.starts_with("/ip4/127.") && !at.starts_with("/ip6/::1/");
    let best = facts.addresses.iter().find(beyond).or_else(|| facts.addresses.first());
    let Some(best) = best else { return String::new() };
    let more = match facts.addresses.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let taken = expected.filter(|port| !best.contains(&format!("/{port}/")));
    let taken = taken.map_or_else(String::new, |port| format!(" (port {port} is taken)"));
    format!(
        "\x20 other nodes:    {best}{more}{taken}\n\x20 let one join:   toolmesh peer invite --data {}\n",
        quoted(&facts.data)
    )
}

fn explain(error: &BootError) -> String {
    let next = match error {
        BootError::Gateway(toolmesh_actors::gateway::StartError::Bind { source, .. }) => {
            advice_of_bind(source)
        }
        BootError::Gateway(toolmesh_actors::gateway::StartError::Unprotected { .. }) => {
            "make one with `toolmesh token create NAME`, or pass --allow-unauthenticated if a firewall or proxy protects it"
        }
        _ => "run `toolmesh doctor`",
    };
    format!("{}\nnext: {next}", with_sources(error))
}

/// Says what to do about an address that the system refuses with `error`.
pub(crate) fn advice_of_bind(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program, maybe another node, has this port: choose one with --http 127.0.0.1:0, or stop it"
        }
        std::io::ErrorKind::PermissionDenied => {
            "the system keeps ports like this for root: choose one from 1024 with --http, and put what \
             listens there in front"
        }
        _ => "choose an address of this machine with --http",
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn failed(as_json: bool, message: &str) -> ExitCode {
    if as_json {
        let (message, next) =
            message.split_once("\nnext: ").unwrap_or((message, "run `toolmesh doctor`"));
        println!("{}", json!({"error": {"message": message, "next": next}}));
    } else {
        eprintln!("error: {message}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_learns_one_address_that_leads_here_and_the_next_step() {
        let mut facts = NodeFacts { data: "/d".to_owned(), ..NodeFacts::default() };
        assert_eq!(mesh_lines(&facts, None), "", "nobody can come, so nobody is invited");
        facts.addresses = ["/ip4/127.0.0.1/tcp/7333/p2p/A", "/ip4/192.0.2.7/tcp/7333/p2p/A"]
            .map(str::to_owned)
            .to_vec();
        let lines = mesh_lines(&facts, Some(7_333));
        assert!(lines.contains("/ip4/192.0.2.7/tcp/7333/p2p/A and 1 more\n"), "{lines}");
        assert!(lines.contains("toolmesh peer invite --data /d"), "{lines}");
        facts.addresses = vec!["/ip4/192.0.2.7/tcp/40001/p2p/A".to_owned()];
        assert!(mesh_lines(&facts, Some(7_333)).contains("/p2p/A (port 7333 is taken)\n"));
        assert!(!mesh_lines(&facts, None).contains("taken"), "that port was asked for");
    }
}
