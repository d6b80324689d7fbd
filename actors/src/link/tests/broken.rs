//! The property of all connectors: kill at any byte; no call hangs, and no call is reported not
//! started that started.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::CallError,
    link::{Policy, State},
};

use super::{
    super::{Config, Endpoint, Protocol},
    rig::{PATIENCE, Rig, config, script, server, side_file, stdio, times},
};

/// Calls that are under way when it breaks.
const CALLS: usize = 8;

type Outcomes = Vec<(String, Result<Value, CallError>)>;

/// Makes calls at once and waits until each has ended.
async fn burst(rig: &Rig, tool: &str, round: &str) -> Outcomes {
    let calls = (0..CALLS).map(|number| async move {
        let id = format!("{round}-{number}");
        // Arguments of different length, so that a cut falls anywhere.
        let arguments = json!({"id": id, "message": "x".repeat(number * 37)});
        let outcome = tokio::time::timeout(PATIENCE, rig.call(tool, arguments)).await;
        assert!(outcome.is_ok(), "call {id} hangs");
        outcome.map(|outcome| (id, outcome))
    });
    futures::future::join_all(calls).await.into_iter().flatten().collect()
}

/// Holds what callers were told against what the servers did.
fn check(outcomes: &Outcomes, log: &Path, event: &str) {
    for (id, outcome) in outcomes {
        let started = times(log, event, id);
        match outcome {
            Ok(_) => assert_eq!(started, 1, "{id} answered: {outcome:?}"),
            Err(CallError::NotStarted { .. }) => {
                assert_eq!(started, 0, "{id} reported not started: {outcome:?}");
            }
            Err(_) => assert!(started <= 1, "{id} ran {started} times: {outcome:?}"),
        }
    }
}

/// What became of a number of calls.
#[derive(Debug, Default)]
struct Tally {
    ok: usize,
    not_started: usize,
    unknown: usize,
}

impl Tally {
    fn add(&mut self, outcomes: &Outcomes) {
        for (_, outcome) in outcomes {
            match outcome {
                Ok(_) => self.ok += 1,
                Err(CallError::NotStarted { .. }) => self.not_started += 1,
                Err(_) => self.unknown += 1,
            }
        }
    }
}

/// One link, one burst of calls, one break: then the server's notes are read.
async fn round(config: Config, log: &Path, event: &str, tool: &str, tally: &mut Tally) {
    let rig = Rig::start(config).await;
    rig.until("past its first start", |status| status.state != State::Starting).await;
    let outcomes = burst(&rig, tool, "call").await;
    let stopped = tokio::time::timeout(PATIENCE, rig.link.stop()).await;
    assert!(stopped.is_ok(), "the link does not stop");
    check(&outcomes, log, event);
    tally.add(&outcomes);
}

fn legacy(config: Config) -> Config {
    Config { protocol: Protocol::Legacy, ..config }
}

#[actix::test]
async fn a_child_whose_output_is_cut_at_any_byte() {
    let mut chance = StdRng::seed_from_u64(1);
    let mut tally = Tally::default();
    for _ in 0..12 {
        let (_directory, log) = side_file();
        let bytes = chance.random_range(0..1_800).to_string();
        let cut = script(
            r#""$0" | { dd bs=1 count="$1"; kill -9 0; }"#,
            &server("raw-server"),
            &[&bytes],
            &log,
        );
        round(legacy(cut), &log, "start", "echo", &mut tally).await;
    }
    assert!(tally.ok > 0 && tally.not_started > 0 && tally.unknown > 0, "{tally:?}");
}

#[actix::test]
async fn a_child_whose_input_is_cut_at_any_byte() {
    let mut chance = StdRng::seed_from_u64(2);
    let mut tally = Tally::default();
    for _ in 0..12 {
        let (_directory, log) = side_file();
        let bytes = chance.random_range(0..1_800).to_string();
        let cut = script(r#"dd bs=1 count="$1" | "$0""#, &server("raw-server"), &[&bytes], &log);
        round(legacy(cut), &log, "start", "echo", &mut tally).await;
    }
    assert!(tally.ok > 0 && tally.not_started > 0 && tally.unknown > 0, "{tally:?}");
}

#[actix::test]
async fn a_child_that_dies_in_the_middle_of_any_answer() {
    let mut tally = Tally::default();
    for responses in 1..12 {
        let (_directory, log) = side_file();
        let count = responses.to_string();
        let dying = stdio(&server("raw-server"), &["--die-after", &count], &log);
        round(legacy(dying), &log, "start", "echo", &mut tally).await;
    }
    assert!(tally.ok > 0 && tally.unknown > 0, "{tally:?}");
}

#[actix::test]
async fn a_child_that_is_killed_at_any_moment() {
    let mut chance = StdRng::seed_from_u64(3);
    let (_directory, log) = side_file();
    // A session that is killed before it answered is a failure, and more of them park a link.
    let policy = Policy { failures_to_park: u32::MAX, backoff_max_ms: 50, ..Policy::default() };
    let config = Config { policy, ..stdio(&server("fixture-server"), &[], &log) };
    let rig = Rig::ready(config).await;
    let mut tally = Tally::default();
    let mut all = Vec::new();
    for number in 0..25 {
        let status = rig.until("ready", |s| matches!(s.state, State::Ready { .. })).await;
        let pid = status.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).unwrap();
        let delay = Duration::from_micros(chance.random_range(0..4_000));
        let kill = async {
            tokio::time::sleep(delay).await;
            kill_process(pid, Signal::KILL).unwrap();
        };
        let name = format!("round-{number}");
        let ((), outcomes) = tokio::join!(kill, burst(&rig, "unsafe_increment", &name));
        rig.until("gone", |after| after.restarts > status.restarts).await;
        tally.add(&outcomes);
        all.extend(outcomes);
    }
    rig.link.stop().await;
    check(&all, &log, "increment");
    assert!(tally.unknown > 0, "{tally:?}");
}

/// A wire to an HTTP server that breaks, once, after a number of bytes in one direction.
struct Wire {
    address: SocketAddr,
    end: CancellationToken,
}

impl Wire {
    async fn new(server: SocketAddr, bytes: i64, cut_requests: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, cut, left) =
            (CancellationToken::new(), CancellationToken::new(), Arc::new(AtomicI64::new(bytes)));
        let ended = end.clone();
        tokio::spawn(async move {
            while let Some(Ok((client, _))) = ended.run_until_cancelled(listener.accept()).await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                // A cut breaks what is there; later connections hold.
                let left = (!cut.is_cancelled()).then(|| (left.clone(), cut.clone()));
                let cut = left.as_ref().map_or_else(CancellationToken::new, |(_, cut)| cut.clone());
                let (up, down) = if cut_requests { (left, None) } else { (None, left) };
                let both = async move {
                    tokio::select! {
                        () = pump(from_client, to_server, up) => {}
                        () = pump(from_server, to_client, down) => {}
                        () = cut.cancelled() => {}
                    }
                };
                tokio::spawn(ended.clone().run_until_cancelled_owned(both));
            }
        });
        Self { address, end }
    }
}

/// Carries bytes until the end, or until none are left.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    left: Option<(Arc<AtomicI64>, CancellationToken)>,
) {
    let mut buffer = [0; 4_096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut carried = read;
        if let Some((left, cut)) = &left {
            let before = left.fetch_sub(read as i64, Ordering::SeqCst);
            if before < read as i64 {
                carried = usize::try_from(before).unwrap_or(0);
                let _broken = to.write_all(&buffer[..carried]).await;
                cut.cancel();
                return;
            }
        }
        if to.write_all(&buffer[..carried]).await.is_err() {
            return;
        }
    }
}

/// An HTTP server of the tests; killed when dropped.
struct HttpServer {
    child: Child,
    address: SocketAddr,
}

impl HttpServer {
    fn start(log: &Path) -> Self {
        let mut child = Command::new(server("fixture-server"))
            .args(["--http", "127.0.0.1:0"])
            .env("FIXTURE_LOG", log)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let url: reqwest::Url = ready["url"].as_str().unwrap().parse().unwrap();
        let address = url.socket_addrs(|| None).unwrap()[0];
        Self { child, address }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn an_http_wire_is_cut(protocol: Protocol, cut_requests: bool, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let (_directory, log) = side_file();
    let server = HttpServer::start(&log);
    // The start alone takes about 11,000 bytes of answers and 2,000 of requests.
    let most = if cut_requests { 6_000 } else { 17_000 };
    for number in 0..8 {
        let wire = Wire::new(server.address, chance.random_range(0..most), cut_requests).await;
        let url = format!("http://{}/mcp", wire.address);
        let endpoint = Endpoint::Http { url, headers: std::collections::BTreeMap::new() };
        let rig = Rig::start(Config { protocol, ..config(endpoint) }).await;
        rig.until("past its first start", |status| status.state != State::Starting).await;
        let outcomes = burst(&rig, "unsafe_increment", &format!("{number}")).await;
        let stopped = tokio::time::timeout(PATIENCE, rig.link.stop()).await;
        assert!(stopped.is_ok(), "the link does not stop");
        wire.end.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await; // What was handed over may still run.
        check(&outcomes, &log, "increment");
        tally.add(&outcomes);
    }
    assert!(tally.ok > 0, "{tally:?}");
}

#[actix::test]
async fn an_http_server_whose_answers_are_cut_at_any_byte() {
    an_http_wire_is_cut(Protocol::Legacy, false, 4).await;
    an_http_wire_is_cut(Protocol::Modern, false, 5).await;
}

#[actix::test]
async fn an_http_server_whose_requests_are_cut_at_any_byte() {
    an_http_wire_is_cut(Protocol::Legacy, true, 6).await;
    an_http_wire_is_cut(Protocol::Modern, true, 7).await;
}
