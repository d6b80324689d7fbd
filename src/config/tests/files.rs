//! Files: what good ones mean, and the place and words of every error of bad ones.

use std::time::Duration;

use super::*;

const BAD_LEVEL: &str = "2:1: log.level: must be a level such as debug, or levels such as info,rmcp=off,actix_server=warn,libp2p=off,multistream_select=off,yamux=off";

/// Files that are wrong, and what is said about them.
const BAD: &[(&str, &str)] = &[
    // Not TOML.
    ("a = = 3", "1:5: not TOML: extra `=`"),
    ("[gateway]\nhttp = \"a\"\nhttp = \"b\"", "3:1: not TOML: duplicate key"),
    ("name = \"é\" x", "1:12: not TOML: unexpected key or value, expected newline, `#`"),
    // Unknown keys, all of them.
    ("gatway = 1", "1:1: gatway: unknown key; did you mean `gateway`?"),
    (
        "[gateway]\nhtp = 1\n  page_sise = 3",
        "2:1: gateway.htp: unknown key; did you mean `http`?\n\
         3:3: gateway.page_sise: unknown key; did you mean `page_size`?",
    ),
    ("[store]\nzzz = 1", "2:1: store.zzz: unknown key; known here: durability"),
    (
        "[[route]]\ntools = \"a\"\nruntime = \"local\"\nruntme = 1",
        "4:1: route.0.runtme: unknown key; did you mean `runtime`?",
    ),
    // Wrong types.
    (
        "[gateway]\npage_size = \"many\"",
        "2:13: gateway.page_size: invalid type: string \"many\", expected a whole number from 0",
    ),
    (
        "[limits]\nsessions = -1",
        "2:12: limits.sessions: invalid value: integer `-1`, expected a whole number from 0",
    ),
    (
        "[log]\nformat = \"txt\"",
        "2:10: log.format: unknown variant `txt`, expected `text` or `json`",
    ),
    ("upstream = 1", "1:12: upstream: invalid type: integer `1`, expected a table"),
    (
        "[gateway]\nallowed_hosts = [\n  \"a\",\n  3,\n]",
        "4:3: gateway.allowed_hosts.1: invalid type: integer `3`, expected a string",
    ),
    ("[[route]]\ntools = \"a\"", "1:1: route.0: missing field `runtime`"),
    // A node that is its own upstream.
    (
        "[upstream.me]\nurl = \"http://localhost:7332/mcp\"",
        "2:1: upstream.me.url: leads to 127.0.0.1:7332, which is this node itself by gateway.http: it \
         would list its own tools without end",
    ),
    (
        "[gateway]\nhttp = \"0.0.0.0:80\"\n[upstream.me]\nurl = \"http://127.0.0.1/\"",
        "4:1: upstream.me.url: leads to 0.0.0.0:80, which is this node itself by gateway.http: it would \
         list its own tools without end",
    ),
    // Values out of range, all of them.
    (
        "name = \"My_Node\"\n[gateway]\nhttp = \"localhost:1\"\npage_size = 5001",
        "1:1: name: must be 1 to 32 of a-z, 0-9 and -, and not start with -\n\
         3:1: gateway.http: \"localhost:1\" is not IP:PORT, such as 127.0.0.1:7332 or [::1]:7332\n\
         4:1: gateway.page_size: must be 1 to 5000, not 5001",
    ),
    (
        "[limits]\nin_flight = 10\nin_flight_per_principal = 11\ntool_time_s = 3601",
        "3:1: limits.in_flight_per_principal: must be 1 to 10, not 11\n\
         4:1: limits.tool_time_s: must be 1 to 3600, not 3601",
    ),
    (
        "[gateway]\nallowed_hosts = [\"a.example\", \"http://b\"]\nallowed_origins = [\"c.example\"]",
        "2:31: gateway.allowed_hosts.1: \"http://b\" is not a host name or host:port\n\
         3:20: gateway.allowed_origins.0: \"c.example\" is not an origin such as \
         https://app.example, without a path",
    ),
    ("[log]\nlevel = \"a=b=c\"", BAD_LEVEL),
    ("[log]\nlevel = \"inof,rmcp=warn\"", BAD_LEVEL),
    // Upstreams.
    (
        "[upstream.a]\n\n[upstream.b]\ncommand = \"x\"\nurl = \"http://y\"",
        "1:11: upstream.a: needs a command (a program to start), a url (a server that runs) or a \
         peer (a Python peer on the mesh)\n\
         5:1: upstream.b.url: has both command and url; keep the one that reaches it",
    ),
    (
        "upstream.a__b.command = \"x\"",
        "1:10: upstream.a__b: an upstream's name must be 1 to 32 of A-Z, a-z, 0-9, _ and -, \
         without __",
    ),
    (
        "[upstream.a]\ncommand = \"x\"\n[upstream.b]\ncommand = \"x\"\nprefix = \"a\"",
        "5:1: upstream.b.prefix: upstream a has the prefix \"a\" too; set another",
    ),
    (
        "[upstream.a]\nurl = \"ftp://y\"\nargs = []",
        "2:1: upstream.a.url: must start with http: or https:, not ftp:\n\
         3:1: upstream.a.args: means nothing beside url",
    ),
    (
        "[upstream.a]\nurl = \"https://user:pw@y/\"",
        "2:1: upstream.a.url: must not hold a user or password, which would be logged; put them \
         in headers",
    ),
    (
        "[upstream.a]\nurl = \"http://y\"\nheaders = { Host = \"a\", x = \"b\", X = \"c\" }",
        "3:13: upstream.a.headers.Host: is set by toolmesh itself; remove it\n\
         3:25: upstream.a.headers.x: is given twice; the names of headers have no case",
    ),
    (
        "[upstream.a]\ncommand = \"x\"\ntools.t.timeout_s = 0\nmax_in_flight = 1025",
        "4:1: upstream.a.max_in_flight: must be 1 to 1024, not 1025\n\
         3:9: upstream.a.tools.t.timeout_s: must be 1 to 3600, not 0",
    ),
    (
        "[upstream.a]\npeer = \"/ip4/192.0.2.7/tcp/9710\"\nurl = \"http://y\"\n\
         [upstream.b]\ncommand = \"x\"\ndialect = \"a\"\nreplicas = \"a__b\"",
        "2:1: upstream.a.peer: has both url and peer; keep the one that reaches it\n\
         6:1: upstream.b.dialect: means nothing beside command\n\
         7:1: upstream.b.replicas: must be 1 to 32 of A-Z, a-z, 0-9, _ and -, without __",
    ),
    (
        "[upstream.a]\npeer = \"/ip4/192.0.2.7/tcp/9710\"\nclaim = [\"tool.call\", \"docker.run\"]\n\
         [upstream.b]\nurl = \"http://y\"\ntoken = \"t\"\nclaim = []",
        "3:23: upstream.a.claim.1: \"docker.run\" is not tool.call or command.NAME, which are what this \
         node runs\n\
         3:1: upstream.a.claim: needs a peer that ends in /p2p/PEERID: what its tasks may do is granted \
         to that PeerId\n\
         6:1: upstream.b.token: means nothing beside url\n\
         7:1: upstream.b.claim: means nothing beside url",
    ),
    (
        "[upstream.a]\ncommand = \"x\"\n[upstream.b]\ncommand = \"x\"\nreplicas = \"a\"",
        "5:1: upstream.b.replicas: the tools of upstream a are listed as a__TOOL already; name the \
         group otherwise",
    ),
    // Routes.
    (
        "[upstream.files]\ncommand = \"x\"\n[[route]]\ntools = \"[\"\nruntime = \"upstream:file\"",
        "4:1: route.0.tools: unclosed character class; missing ']'\n\
         5:1: route.0.runtime: no upstream \"file\"; did you mean \"files\"?",
    ),
    (
        "[[route]]\ntools = \"*\"\nruntime = \"remote\"",
        "3:1: route.0.runtime: must be \"local\" or \"upstream:NAME\", not \"remote\"",
    ),
];

#[test]
fn every_bad_file_is_refused_with_the_place_and_the_reason() {
    for (text, expected) in BAD {
        let home = Home::with(text);
        assert_eq!(home.problems(&home.sources()), *expected, "for\n{text}");
    }
}

#[test]
fn a_file_that_is_missing_or_no_text_is_named() {
    let home = Home::with(b"name = \"a\"\n# \xff");
    assert_eq!(home.problems(&home.sources()), "2:3: not UTF-8");
    let missing = Sources { config: Some("none.toml".into()), ..home.sources() };
    let problem = load(&missing).unwrap_err().to_string();
    assert!(problem.starts_with("none.toml: cannot read the configuration file:"), "{problem}");
}

#[test]
fn a_file_is_read_up_to_its_limit_and_not_beyond() {
    let limit = 1024 * 1024;
    let home = Home::with("#".repeat(limit));
    load(&home.sources()).unwrap();
    let home = Home::with("#".repeat(limit + 1));
    assert!(home.problems(&home.sources()).contains("larger than 1 MiB"));
}

#[test]
fn a_node_has_as_many_upstreams_as_the_limit_and_not_more() {
    let text = |count: usize| {
        let entry = |n: usize| format!("[upstream.u{n}]\ncommand = \"x\"\n");
        (0..count).map(entry).collect::<String>()
    };
    assert_eq!(load_text(&text(256)).upstreams.len(), 256);
    let home = Home::with(text(257));
    let expected = "1:2: upstream: at most 256 upstreams fit one node";
    assert_eq!(home.problems(&home.sources()), expected);
}

#[test]
fn only_as_many_problems_are_listed_as_anyone_reads() {
    let home = Home::with((0..60).map(|n| format!("k{n} = 1\n")).collect::<String>());
    assert_eq!(load(&home.sources()).unwrap_err().problems().len(), 50);
}

#[test]
fn limits_hold_at_both_ends() {
    let config = load_text("[limits]\nsessions = 1\nbody_bytes = 16777216\nsession_idle_s = 5");
    assert_eq!(config.limits.sessions, 1);
    assert_eq!(config.limits.sessions_per_principal, 1, "follows the total");
    assert_eq!(config.limits.body_bytes, 16 * 1024 * 1024);
    assert_eq!(config.limits.session_idle, Duration::from_secs(5));
}

#[test]
fn the_rate_is_limited_beyond_loopback_only() {
    assert_eq!(defaults().limits.rate, None);
    let elsewhere = load_text("gateway.http = \"0.0.0.0:0\"").limits.rate.unwrap();
    assert_eq!((elsewhere.per_second.get(), elsewhere.burst.get()), (50, 100));
    let off = load_text("gateway.http = \"0.0.0.0:0\"\nlimits.rate_per_second = 0");
    assert_eq!(off.limits.rate, None);
    assert!(load_text("limits.rate_per_second = 1").limits.rate.is_some());
}

#[test]
fn hosts_and_origins_take_the_form_that_browsers_send() {
    let gateway = load_text(
        "[gateway]\nallowed_hosts = [\"Tools.Example\", \"b.example:80\", \"[::1]:9\"]\n\
         allowed_origins = [\"https://App.example:443\", \"http://localhost:3000\"]",
    )
    .gateway;
    assert_eq!(gateway.allowed_hosts, ["tools.example", "b.example:80", "[::1]:9"]);
    assert_eq!(gateway.allowed_origins, ["https://app.example", "http://localhost:3000"]);
}

#[test]
fn an_upstream_is_filled_with_defaults() {
    let config = load_text("limits.tool_time_s = 7\n[upstream.fs]\ncommand = \"npx\"");
    let upstream = config.upstreams.get(&UpstreamName::parse("fs").unwrap()).unwrap();
    assert_eq!(upstream.timeout, Duration::from_secs(7));
    assert_eq!(upstream.start_timeout, Duration::from_secs(120));
    assert_eq!((upstream.prefix.as_str(), upstream.max_in_flight), ("fs", 64));
    assert!(upstream.enabled && !upstream.share);
    let Transport::Stdio(stdio) = &upstream.transport else { unreachable!() };
    assert_eq!(stdio.command, Path::new("npx"), "a bare name is for PATH");
    assert_eq!(stdio.inherit_env, ["PATH", "HOME", "USER", "LANG", "TMPDIR"]);
}

#[test]
fn relative_paths_start_at_the_file() {
    let home = Home::with(
        "[upstream.a]\ncommand = \"./bin/server\"\ncwd = \"work\"\nenv.KEY.file = \"key\"",
    );
    let config = load(&home.sources()).unwrap().config;
    let upstream = config.upstreams.into_values().next().unwrap();
    let Transport::Stdio(stdio) = upstream.transport else { unreachable!() };
    assert_eq!(stdio.command.as_os_str(), home.0.path().join("bin/server"));
    assert_eq!(stdio.cwd, Some(home.0.path().join("work")));
    let file = home.0.path().join("key");
    assert_eq!(stdio.env.get("KEY"), Some(&Secret::File(FileReference { file })));
}

#[test]
fn two_upstreams_may_share_a_prefix_while_one_is_not_enabled() {
    let config = load_text(
        "[upstream.a]\ncommand = \"x\"\nprefix = \"\"\n\
         [upstream.b]\ncommand = \"y\"\nprefix = \"\"\nenabled = false",
    );
    assert_eq!(config.upstreams.len(), 2);
}

#[test]
fn a_reload_of_the_same_file_changes_nothing() {
    let home = Home::with("[upstream.a]\ncommand = \"x\"");
    let first = load(&home.sources()).unwrap().config;
    assert_eq!(first, load(&home.sources()).unwrap().config);
    std::fs::write(home.file(), "[upstream.a]\ncommand = \"y\"").unwrap();
    assert_ne!(first.upstreams, load(&home.sources()).unwrap().config.upstreams);
}

#[test]
fn any_host_name_becomes_a_node_name() {
    for (host, name) in [
        ("laptop", "laptop"),
        ("My_Mac.local", "my-mac"),
        ("-x-", "x"),
        ("日本", "node"),
        ("", "node"),
        ("a23456789012345678901234567890-.x", "a23456789012345678901234567890"),
    ] {
        let fitting = NodeName::fitting(host);
        assert_eq!(fitting.as_str(), name);
        assert_eq!(NodeName::parse(name), Some(fitting));
    }
}
