//! The three nodes of `docker-compose.yml` without Docker: the same commands, environment and
//! configuration as local processes. What is mounted lies elsewhere, and the names of the services
//! are ports of loopback; nothing else is changed.

#[path = "compose/file.rs"]
mod file;
mod support;

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    process::Command,
};

use file::{Service, project, services};
use serde_json::json;
use support::{Home, Node, Outcome, STATELESS, toolmesh, wait_for};

/// The ports of a container, which every service has for itself.
const HTTP: u16 = 7_332;
const MESH: u16 = 7_333;

/// The secret of the mesh, as the compose file says how to make one.
const SECRET: &str = "5f0c1d9be2a7483f6e0d5c4b3a29181706f5e4d3c2b1a0918273645546372819";

/// Ports of loopback that stand for those of a service.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    mesh: u16,
}

impl Ports {
    /// Finds some that are free now, the one for the mesh over TCP and UDP.
    fn free() -> Outcome<Self> {
        let http = TcpListener::bind("127.0.0.1:0")?;
        loop {
            let mesh = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            if UdpSocket::bind(("127.0.0.1", mesh)).is_ok() {
                return Ok(Self { http: http.local_addr()?.port(), mesh });
            }
        }
    }
}

/// A configuration with loopback in place of the network between containers.
fn on_loopback(config: &str, own: Ports, all: &BTreeMap<String, Ports>) -> String {
    let mut config = config
        .replace(&format!("0.0.0.0:{HTTP}"), &format!("127.0.0.1:{}", own.http))
        .replace(&format!("/ip4/0.0.0.0/tcp/{MESH}"), &format!("/ip4/127.0.0.1/tcp/{}", own.mesh))
        .replace(&format!("/ip4/0.0.0.0/udp/{MESH}"), &format!("/ip4/127.0.0.1/udp/{}", own.mesh));
    for (name, ports) in all {
        config = config.replace(
            &format!("/dns4/{name}/tcp/{MESH}"),
            &format!("/dns4/localhost/tcp/{}", ports.mesh),
        );
    }
    config
}

/// Starts a service as Docker would.
fn start(service: &Service, ports: &BTreeMap<String, Ports>) -> Outcome<Node> {
    let home = Home::new("")?;
    let own = ports.get(&service.name).ok_or("no ports")?;
    let mut mounts = BTreeMap::new();
    for (target, source) in &service.mounts {
        let path = home.path(source.trim_start_matches("./").rsplit('/').next().unwrap_or(source));
        if source.ends_with(".toml") {
            fs::write(&path, on_loopback(&project(source)?, *own, ports))?;
        } else if source.ends_with(".secret") {
            fs::write(&path, format!("{SECRET}\n"))?;
        }
        mounts.insert(target.clone(), path.display().to_string());
    }
    let mounted = |text: &String| mounts.get(text).unwrap_or(text).clone();
    let (program, arguments) = service.command.split_first().ok_or("no command")?;
    assert_eq!(program, "toolmesh");
    let mut command = Command::new(toolmesh());
    // The image has the program in its PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    let directory = toolmesh().parent().ok_or("no directory")?;
    command.env_clear().env("PATH", format!("{}:{path}", directory.display()));
    command.envs(service.environment.iter().map(|(name, value)| (name, mounted(value))));
    command.args(arguments.iter().map(mounted)).arg("--json");
    Node::from_command(&home, command)
}

#[test]
fn the_three_nodes_of_the_compose_file_call_each_other() -> Outcome {
    let services = services()?;
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["node-a", "node-b", "node-c"]);
    let ports: BTreeMap<_, _> = names
        .iter()
        .map(|name| Ok(((*name).to_owned(), Ports::free()?)))
        .collect::<Outcome<_>>()?;
    let nodes: Vec<Node> =
        services.iter().map(|service| start(service, &ports)).collect::<Outcome<_>>()?;

    for (name, node) in names.iter().zip(&nodes) {
        let mut client = node.client(STATELESS)?;
        for other in names.iter().filter(|other| *other != name) {
            let tool = format!("{other}__example__echo");
            wait_for(&format!("{name} has {tool}"), || client.has(&tool).then_some(()))?;
            let result = client.call(&tool, json!({"message": format!("{name} to {other}")}))?;
            assert_eq!(result["content"][0]["text"], format!("{name} to {other}"));
        }
        let own = client.call("example__add", json!({"a": 19, "b": 23}))?;
        assert_eq!(own["structuredContent"]["sum"], 42.0);
        assert_eq!(node.health()?["status"], "ready");
    }
    for node in nodes {
        assert_eq!(node.stop()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn the_image_serves_whom_the_compose_file_publishes_it_to() -> Outcome {
    for service in services()? {
        let config: toml::Table = service
            .mounts
            .values()
            .find(|source| source.ends_with(".toml"))
            .map(|source| project(source))
            .ok_or("no configuration")??
            .parse()?;
        let http = config["gateway"]["http"].as_str().unwrap_or_default();
        assert_eq!(http, format!("0.0.0.0:{HTTP}"), "{}: Docker reaches no loopback", service.name);
        assert!(service.environment.contains_key("TOOLMESH_MESH_SECRET_FILE"));
    }
    let compose = project("docker-compose.yml")?;
    let published: Vec<_> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("ports: ")).collect();
    for ports in &published {
        let ports: Vec<String> = serde_json::from_str(ports)?;
        assert!(
            ports.iter().all(|port| port.starts_with("127.0.0.1:")),
            "whoever reaches it may call every tool, so only this machine may: {ports:?}"
        );
    }
    assert_eq!(published.len(), 3);
    Ok(())
}
