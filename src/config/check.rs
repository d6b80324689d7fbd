//! From what was written to what cannot be wrong.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::Glob;
use reqwest::Url;
use toolmesh_core::limits;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::check_mesh::{check_mesh, check_peers, check_policies, check_replicas};
use super::check_queue::{check_commands, check_queue, check_worker};
use super::check_upstream::{check_not_itself, check_upstream};
use super::checked::{
    Config, Gateway, Limits, Log, NodeName, Rate, Route, Runtime, Upstream, UpstreamName,
};
use super::keys::nearest;
use super::layers::Layers;
use super::problem::{Errors, PROBLEMS_MAX, Problem};
use super::raw::{Raw, RawGateway, RawLimits, RawLog, RawRoute, RawUpstream};

/// Port of the HTTP endpoint where none is configured.
const PORT: u16 = 7332;

/// Directives of the log where none are configured. rmcp logs every message at `info`, and the
/// libraries of the mesh whatever a peer does wrong at `warn` or `error`, so that any stranger
/// could fill the log; what matters of both is logged by us.
const LOG_LEVEL: &str =
    "info,rmcp=off,actix_server=warn,libp2p=off,multistream_select=off,yamux=off";

/// Upstreams, routes or policies of one node; each costs a task or a match per call.
pub(super) const ENTRIES_MAX: usize = 256;

/// Turns `raw` into a configuration; relative paths start at `base`.
///
/// # Errors
///
/// Everything that is wrong, each with the place in `layers` that it came from.
pub(super) fn check(raw: Raw, layers: &Layers, base: &Path) -> Result<Config, Errors> {
    let mut checker = Checker { layers, base, problems: Vec::new() };
    let name = raw.name.and_then(|name| {
        let parsed = NodeName::parse(&name);
        if parsed.is_none() {
            checker.wrong(&["name"], "must be 1 to 32 of a-z, 0-9 and -, and not start with -");
        }
        parsed
    });
    let gateway = checker.gateway(raw.gateway);
    let limits = checker.limits(&raw.limits, gateway.http.ip().is_loopback());
    let mesh = check_mesh(&mut checker, raw.mesh);
    let policies = check_policies(&mut checker, raw.policy);
    let queue = check_queue(&mut checker, raw.queue);
    let worker = check_worker(&mut checker, raw.worker);
    let commands = check_commands(&mut checker, raw.command);
    let log = checker.log(raw.log);
    let upstreams = checker.upstreams(raw.upstream, limits.tool_time);
    check_replicas(&mut checker, &upstreams);
    check_not_itself(&mut checker, gateway.http, &upstreams);
    check_peers(&mut checker, &mesh, &upstreams);
    let routes = checker.routes(&raw.route, &upstreams);
    Errors::none(checker.problems)?;
    let durability = raw.store.durability.unwrap_or_default();
    Ok(Config {
        name,
        gateway,
        limits,
        mesh,
        policies,
        queue,
        worker,
        commands,
        durability,
        log,
        upstreams,
        routes,
    })
}

/// Collects problems, so that one run reports all of them. After a problem it goes on with the
/// default, which is dropped at the end.
pub(super) struct Checker<'a> {
    layers: &'a Layers,
    base: &'a Path,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    /// Notes that the value at `keys` is wrong.
    pub(super) fn wrong(&mut self, keys: &[&str], message: impl Into<String>) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        self.problems.push(Problem {
            origin: self.layers.blamed(keys),
            key: keys.join("."),
            message: message.into(),
        });
    }

    /// Returns `given`, or `default` where it is not given or not in `range`.
    pub(super) fn number(
        &mut self,
        keys: &[&str],
        given: Option<u64>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let Some(given) = given else { return default };
        if range.contains(&given) {
            return given;
        }
        let (least, most) = range.into_inner();
        self.wrong(keys, format!("must be {least} to {most}, not {given}"));
        default
    }

    /// Returns a number of things; see [`Checker::number`].
    pub(super) fn count(
        &mut self,
        keys: &[&str],
        given: Option<u64>,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> usize {
        let (least, most) = range.into_inner();
        // Every range ends far below 2^32, so nothing is lost on the way to u64 and back.
        let number = self.number(keys, given, default as u64, least as u64..=most as u64);
        usize::try_from(number).unwrap_or(default)
    }

    /// Returns a number of seconds; see [`Checker::number`].
    pub(super) fn seconds(
        &mut self,
        keys: &[&str],
        given: Option<u64>,
        default: Duration,
        range: RangeInclusive<u64>,
    ) -> Duration {
        match given {
            None => default,
            Some(_) => Duration::from_secs(self.number(keys, given, default.as_secs(), range)),
        }
    }

    /// Returns `path`, where it is relative as seen from the configuration file.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        // Collected, so that `./x` does not leave a dot in the middle.
        self.base.join(path).components().collect()
    }

    fn gateway(&mut self, raw: RawGateway) -> Gateway {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let http = raw.http.as_deref().map_or(default, |text| {
            text.parse().unwrap_or_else(|_| {
                let message = format!("{text:?} is not IP:PORT, such as {default} or [::1]:{PORT}");
                self.wrong(&["gateway", "http"], message);
                default
            })
        });
        Gateway {
            http,
            allowed_hosts: self.each(raw.allowed_hosts, ["gateway", "allowed_hosts"], host),
            allowed_origins: self.each(
                raw.allowed_origins,
                ["gateway", "allowed_origins"],
                web_origin,
            ),
            require_token: raw.require_token.unwrap_or(false),
            allow_unauthenticated: raw.allow_unauthenticated.unwrap_or(false),
            exposure: raw.exposure.unwrap_or_default(),
            page_size: self.count(
                &["gateway", "page_size"],
                raw.page_size,
                limits::PAGE_SIZE,
                1..=limits::PAGE_SIZE_MAX,
            ),
            compat_names: raw.compat_names.unwrap_or(false),
        }
    }

    /// Returns what `parse` makes of each text that is given at `keys`.
    pub(super) fn each<T, E: std::fmt::Display, const N: usize>(
        &mut self,
        texts: Option<Vec<String>>,
        keys: [&str; N],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        for (index, text) in texts.unwrap_or_default().iter().enumerate() {
            match parse(text) {
                Ok(value) => parsed.push(value),
                Err(message) => {
                    let message = format!("{text:?} {message}");
                    let index = index.to_string();
                    self.wrong(&[&keys[..], &[&index]].concat(), message);
                }
            }
        }
        parsed
    }

    fn limits(&mut self, raw: &RawLimits, loopback: bool) -> Limits {
        let key = |name: &'static str| ["limits", name];
        let sessions = self.count(&key("sessions"), raw.sessions, limits::SESSIONS, 1..=100_000);
        let in_flight = self.count(&key("in_flight"), raw.in_flight, limits::IN_FLIGHT, 1..=65_536);
        Limits {
            body_bytes: self.count(
                &key("body_bytes"),
                raw.body_bytes,
                limits::BODY_BYTES,
                1_024..=limits::UPSTREAM_MESSAGE_BYTES,
            ),
            // serde_json, which reads the request after the guard, gives up at 128.
            json_depth: self.count(&key("json_depth"), raw.json_depth, limits::JSON_DEPTH, 8..=128),
            body_time: self.seconds(
                &key("body_time_s"),
                raw.body_time_s,
                limits::BODY_TIME,
                1..=300,
            ),
            head_time: self.seconds(
                &key("head_time_s"),
                raw.head_time_s,
                limits::HEAD_TIME,
                1..=60,
            ),
            sessions,
            sessions_per_principal: self.count(
                &key("sessions_per_principal"),
                raw.sessions_per_principal,
                limits::SESSIONS_PER_PRINCIPAL.min(sessions),
                1..=sessions,
            ),
            in_flight,
            in_flight_per_principal: self.count(
                &key("in_flight_per_principal"),
                raw.in_flight_per_principal,
                limits::IN_FLIGHT_PER_PRINCIPAL.min(in_flight),
                1..=in_flight,
            ),
            rate: self.rate(raw, loopback),
            tool_time: self.seconds(
                &key("tool_time_s"),
                raw.tool_time_s,
                limits::TOOL_TIME,
                1..=limits::TOOL_TIME_MAX.as_secs(),
            ),
            session_idle: self.seconds(
                &key("session_idle_s"),
                raw.session_idle_s,
                limits::SESSION_IDLE,
                limits::SESSION_EVICTABLE_AFTER.as_secs()..=86_400,
            ),
        }
    }

    fn rate(&mut self, raw: &RawLimits, loopback: bool) -> Option<Rate> {
        let default = if loopback { 0 } else { limits::RATE_PER_SECOND };
        let per_second = self.number(
            &["limits", "rate_per_second"],
            raw.rate_per_second,
            default.into(),
            0..=1_000_000,
        );
        let burst = self.number(
            &["limits", "rate_burst"],
            raw.rate_burst,
            limits::RATE_BURST.into(),
            1..=1_000_000,
        );
        let bounded = |number: u64| u32::try_from(number).ok().and_then(NonZeroU32::new);
        Some(Rate { per_second: bounded(per_second)?, burst: bounded(burst)? })
    }

    fn log(&mut self, raw: RawLog) -> Log {
        let level = raw.level.unwrap_or_else(|| LOG_LEVEL.to_owned());
        if !is_level(&level) {
            let message = format!("must be a level such as debug, or levels such as {LOG_LEVEL}");
            self.wrong(&["log", "level"], message);
        }
        Log { format: raw.format.unwrap_or_default(), level }
    }

    fn upstreams(
        &mut self,
        raw: BTreeMap<String, RawUpstream>,
        tool_time: Duration,
    ) -> BTreeMap<UpstreamName, Upstream> {
        if raw.len() > ENTRIES_MAX {
            self.wrong(&["upstream"], format!("at most {ENTRIES_MAX} upstreams fit one node"));
        }
        let mut upstreams = BTreeMap::new();
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        for (name, raw) in raw {
            let Some(key) = UpstreamName::parse(&name) else {
                let message = "an upstream's name must be 1 to 32 of A-Z, a-z, 0-9, _ and -, \
                               without __";
                self.wrong(&["upstream", &name], message);
                continue;
            };
            let Some(upstream) = check_upstream(self, &name, raw, tool_time) else { continue };
            if upstream.enabled
                && let Some(owner) = owners.insert(upstream.prefix.clone(), name.clone())
            {
                let prefix = &upstream.prefix;
                let message =
                    format!("upstream {owner} has the prefix {prefix:?} too; set another");
                self.wrong(&["upstream", &name, "prefix"], message);
            }
            upstreams.insert(key, upstream);
        }
        upstreams
    }

    fn routes(
        &mut self,
        raw: &[RawRoute],
        upstreams: &BTreeMap<UpstreamName, Upstream>,
    ) -> Vec<Route> {
        if raw.len() > ENTRIES_MAX {
            self.wrong(&["route"], format!("at most {ENTRIES_MAX} routes fit one node"));
        }
        let mut routes = Vec::new();
        for (index, RawRoute { tools, runtime }) in raw.iter().enumerate() {
            let index = index.to_string();
            let tools = Glob::new(tools).map_err(|error| {
                self.wrong(&["route", &index, "tools"], error.kind().to_string());
            });
            let runtime = runtime_of(runtime, upstreams).map_err(|message| {
                self.wrong(&["route", &index, "runtime"], message);
            });
            if let (Ok(tools), Ok(runtime)) = (tools, runtime) {
                routes.push(Route { tools, runtime });
            }
        }
        routes
    }
}

/// Tells whether `text` is a filter in which every bare word is a level: `EnvFilter` takes a
/// misspelt one for the name of a module and logs everything of it.
fn is_level(text: &str) -> bool {
    let bare = |directive: &&str| !directive.contains(['=', '[']);
    EnvFilter::builder().parse(text).is_ok()
        && text.split(',').filter(bare).all(|word| word.trim().parse::<LevelFilter>().is_ok())
}

fn runtime_of(text: &str, upstreams: &BTreeMap<UpstreamName, Upstream>) -> Result<Runtime, String> {
    if text == "local" {
        return Ok(Runtime::Local);
    }
    let Some(name) = text.strip_prefix("upstream:") else {
        return Err(format!("must be \"local\" or \"upstream:NAME\", not {text:?}"));
    };
    if let Some(name) = UpstreamName::parse(name)
        && upstreams.contains_key(&name)
    {
        return Ok(Runtime::Upstream(name));
    }
    Err(match nearest(name, upstreams.keys().map(UpstreamName::as_str)) {
        Some(near) => format!("no upstream {name:?}; did you mean {near:?}?"),
        None => format!("no upstream {name:?} here; add [upstream.{name}]"),
    })
}

fn host(text: &str) -> Result<String, &'static str> {
    const MESSAGE: &str = "is not a host name or host:port";
    let url = Url::parse(&format!("http://{text}")).map_err(|_| MESSAGE)?;
    let host = url.host_str().ok_or(MESSAGE)?;
    // The parser drops port 80; everything else that it changes beyond case is not a host.
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None if text.ends_with(":80") => format!("{host}:80"),
        None => host.to_owned(),
    };
    if text.eq_ignore_ascii_case(&host) { Ok(host) } else { Err(MESSAGE) }
}

fn web_origin(text: &str) -> Result<String, &'static str> {
    const MESSAGE: &str = "is not an origin such as https://app.example, without a path";
    let url = Url::parse(text).map_err(|_| MESSAGE)?;
    let bare = url.path() == "/"
        && !text.ends_with('/')
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if bare && url.origin().is_tuple() {
        Ok(url.origin().ascii_serialization())
    } else {
        Err(MESSAGE)
    }
}
