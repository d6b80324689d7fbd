//! From the configuration to what each actor takes: names and units change here, nothing else.

mod queue;

use std::{collections::BTreeSet, sync::Arc};

use globset::Glob;
use toolmesh_actors::{
    child::Program,
    gateway,
    link::{self, Endpoint, PythonDialect},
    registry::Gate,
    router,
    secret::SecretError,
    swarm,
    tools::{TASK_QUEUE_RPC, Token},
};
use toolmesh_core::{link::Policy, policy, router as core};
use toolmesh_net::Mode;

pub(crate) use self::queue::{queue, task_rules, worker};

use crate::config::{
    Admission, Config, Dialect, Exposure, Grant, Mesh, Protocol, Runtime, Stdio, Tool, Transport,
    Upstream, UpstreamName,
};

/// What the gateway takes.
pub(crate) fn gateway(config: &Config) -> gateway::Config {
    let (gateway, limits) = (&config.gateway, &config.limits);
    gateway::Config {
        http: gateway.http,
        allowed_hosts: gateway.allowed_hosts.clone(),
        allowed_origins: gateway.allowed_origins.clone(),
        require_token: gateway.require_token,
        allow_unauthenticated: gateway.allow_unauthenticated,
        limits: gateway::Limits {
            body_bytes: limits.body_bytes,
            json_depth: limits.json_depth,
            body_time: limits.body_time,
            head_time: limits.head_time,
            sessions: limits.sessions,
            sessions_per_principal: limits.sessions_per_principal,
            session_idle: limits.session_idle,
            in_flight: limits.in_flight,
            in_flight_per_principal: limits.in_flight_per_principal,
            rate: limits.rate.map(|rate| (rate.per_second, rate.burst)),
        },
    }
}

/// What the swarm of the node `name` takes.
pub(crate) fn swarm(mesh: &Mesh, name: &str, gate: &Gate) -> swarm::Config {
    swarm::Config {
        name: name.to_owned(),
        listen: mesh.listen.clone().unwrap_or_else(Mesh::listen_default),
        fallback_port: mesh.listen.is_none(),
        announce: mesh.announce.clone(),
        mdns: mesh.mdns,
        gossip: mesh.gossip,
        admission: gate.admission(),
        invites: gate.invites(),
    }
}

/// Who is let in besides or instead of all members.
pub(crate) fn mode(mesh: &Mesh) -> Mode {
    match &mesh.admission {
        Admission::Members => Mode::Members,
        Admission::Listed(members) => Mode::Listed(members.clone()),
        Admission::Token(_) => Mode::Token,
        Admission::Open => Mode::Open,
    }
}

/// Names that no other node may have here, because the tools of upstreams are listed under them.
pub(crate) fn reserved(config: &Config) -> BTreeSet<Arc<str>> {
    let enabled = config.upstreams.values().filter(|upstream| upstream.enabled);
    enabled
        .flat_map(|upstream| [Some(&upstream.prefix), upstream.replicas.as_ref()])
        .flatten()
        .map(|name| Arc::from(name.as_str()))
        .collect()
}

/// What the router takes.
pub(crate) fn router(config: &Config) -> router::Settings {
    let enabled = config.upstreams.iter().filter(|(_, upstream)| upstream.enabled);
    router::Settings {
        upstreams: enabled.map(|(name, upstream)| self::upstream(name, upstream)).collect(),
        patterns: config
            .routes
            .iter()
            .map(|route| core::Pattern {
                tools: route.tools.compile_matcher(),
                runtime: match &route.runtime {
                    Runtime::Local => core::Runtime::Local,
                    Runtime::Upstream(name) => core::Runtime::Upstream(name.as_str().into()),
                },
            })
            .collect(),
        exposure: match config.gateway.exposure {
            Exposure::Flat => core::Exposure::Flat,
            Exposure::Search => core::Exposure::Search,
        },
        page_size: config.gateway.page_size,
        policy: policy(config),
    }
}

fn policy(config: &Config) -> policy::Policy {
    let globs = |globs: &Option<Vec<Glob>>| globs.as_ref().map(policy::Globs::new);
    let policy =
        policy::Policy::new(config.policies.iter().map(|(whom, Grant { tools, tasks })| {
            (whom.clone(), policy::Section { tools: globs(tools), tasks: globs(tasks) })
        }));
    match config.mesh.admission {
        Admission::Token(_) => policy.for_token_callers(TASK_QUEUE_RPC),
        _ => policy,
    }
}

/// The token that Python peers carry, where they are let in by one.
///
/// # Errors
/// The file or variable that it is in cannot be read.
pub(crate) fn token(mesh: &Mesh) -> Result<Option<Token>, SecretError> {
    match &mesh.admission {
        Admission::Token(secret) => {
            let text = secret.resolve(|name| std::env::var(name).ok())?;
            if text.is_empty() {
                return Err(SecretError::Empty); // Nobody could come in.
            }
            Ok(Some(Token::new(&text)))
        }
        _ => Ok(None),
    }
}

fn upstream(name: &UpstreamName, upstream: &Upstream) -> router::Upstream {
    router::Upstream {
        link: link::Config {
            name: Arc::from(name.as_str()),
            endpoint: endpoint(&upstream.transport),
            protocol: match upstream.protocol {
                Protocol::Auto => link::Protocol::Auto,
                Protocol::Legacy => link::Protocol::Legacy,
                Protocol::Stateless => link::Protocol::Modern,
            },
            start_timeout: upstream.start_timeout,
            max_in_flight: upstream.max_in_flight,
            policy: Policy::default(),
        },
        offer: core::Offer {
            prefix: upstream.prefix.clone(),
            category: upstream.category.clone(),
            overrides: upstream
                .tools
                .iter()
                .map(|(name, tool)| (name.clone(), overrides(tool)))
                .collect(),
            share: upstream.share,
            replicas: upstream.replicas.clone(),
        },
        timeout: upstream.timeout,
        queue: match &upstream.transport {
            Transport::Peer(peer) => router::PeerQueue {
                token: peer.token.clone(),
                claims: peer.claim.iter().map(|kind| Arc::from(kind.as_str())).collect(),
            },
            Transport::Stdio(_) | Transport::Http(_) => router::PeerQueue::default(),
        },
    }
}

fn endpoint(transport: &Transport) -> Endpoint {
    match transport {
        Transport::Stdio(stdio) => Endpoint::Stdio(program(stdio)),
        Transport::Http(http) => Endpoint::Http {
            url: http.url.to_string(),
            headers: http
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
        },
        Transport::Peer(peer) => Endpoint::Python {
            address: peer.address.clone(),
            dialect: match peer.dialect {
                Dialect::Auto => None,
                Dialect::A => Some(PythonDialect::Session),
                Dialect::B => Some(PythonDialect::Envelope),
            },
        },
    }
}

fn program(process: &Stdio) -> Program {
    Program {
        command: process.command.to_string_lossy().into_owned(),
        args: process.args.clone(),
        env: process.env.clone(),
        inherit_env: process.inherit_env.clone(),
        cwd: process.cwd.clone(),
    }
}

fn overrides(tool: &Tool) -> core::Overrides {
    core::Overrides {
        read_only: tool.read_only,
        idempotent: tool.idempotent,
        timeout_s: tool.timeout.map(|time| time.as_secs()),
        hide: tool.hide,
        category: tool.category.clone(),
    }
}
