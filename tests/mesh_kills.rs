//! What another node's clients see when a node is killed again and again, and what that leaves
//! behind in the node that lives.

mod support;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use support::{Client, Home, Node, Outcome, STATELESS, SideFile, timed, upstream, wait_within};

/// How often the node is killed.
const KILLS: u32 = 50;

/// Within this a caller is told.
const TOLD: Duration = Duration::from_secs(1);

/// Within this its tools are gone.
const GONE: Duration = Duration::from_secs(2);

/// Within this they are back once it is.
const BACK: Duration = Duration::from_secs(10);

/// A tool of the node that is killed; repeating it would be a fault.
const UNSAFE: &str = "mortal__box__unsafe_increment";

fn home(name: &str, more: &str) -> Outcome<Home> {
    let mesh = "[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false";
    Home::new(&format!("name = {name:?}\n{mesh}\n{more}"))
}

fn descriptors(node: &Node) -> Outcome<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", node.pid()))?.count())
}

/// What a caller was told, and how long that took, by the id of the call.
type Told = (String, Result<Value, Value>, Duration);

/// Calls the tool all the time, each time with another id.
fn call_on(mut client: Client, stop: &AtomicBool) -> Vec<Told> {
    let mut told = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let id = format!("call-{}", told.len());
        let (answer, time) = timed(|| client.try_call(UNSAFE, json!({"id": id, "delay_ms": 3})));
        let outcome = match answer {
            Ok(answer) => answer.result().map_err(|_| answer.message["error"].clone()),
            Err(error) => Err(error.to_string().into()),
        };
        told.push((id, outcome, time));
    }
    told
}

#[test]
fn fifty_kills_of_a_node_are_survived_and_told_truthfully() -> Outcome {
    let mortal = home("mortal", "")?;
    let notes = SideFile::new(&mortal, "notes");
    let server = upstream("box", "fixture-server", &[])? + &notes.env() + "share = true\n";
    mortal.configure(&(fs::read_to_string(mortal.config())? + &server))?;
    let lives = home("lives", "")?.up()?;
    let invited = lives.home().run(&["peer", "invite", "--json"])?;
    let invited: Value = serde_json::from_slice(&invited.stdout)?;
    let line = invited["invite"].as_str().ok_or_else(|| format!("no invite: {invited}"))?;
    let mut node = mortal.up_with(&["--http", "127.0.0.1:0", "--join", line])?;

    let mut client = lives.client(STATELESS)?;
    let mut listed = |is: bool, within: Duration, what: &str| {
        let (seen, time) =
            timed(|| wait_within(within, what, || (client.has(UNSAFE) == is).then_some(())));
        seen.map(|()| time)
    };
    listed(true, BACK, "the tools of a node that has joined")?;
    let stop = AtomicBool::new(false);
    let mut before = (0, 0);
    let (mut gone, mut back) = (Duration::ZERO, Duration::ZERO);
    let told = thread::scope(|scope| -> Outcome<_> {
        let calling = {
            let client = lives.client(STATELESS)?;
            let stop = &stop;
            scope.spawn(move || call_on(client, stop))
        };
        let kill_all = || -> Outcome {
            for number in 1..=KILLS {
                drop(node); // Killed with SIGKILL.
                gone = gone.max(listed(false, GONE, &format!("gone after kill {number}"))?);
                node = mortal.up()?;
                back = back.max(listed(true, BACK, &format!("back after kill {number}"))?);
                if number == KILLS / 5 {
                    before = (lives.resident_bytes()?, descriptors(&lives)?);
                }
            }
            Ok(())
        };
        let killed = kill_all();
        stop.store(true, Ordering::SeqCst);
        let told = calling.join().map_err(|_| "the caller panicked")?;
        killed.map_err(|error| format!("{error}; log:\n{}", lives.home().log()))?;
        Ok(told)
    })?;

    let mut counts = [0; 3];
    for (id, outcome, time) in &told {
        assert!(*time < TOLD, "{id} was told after {time:?}: {outcome:?}");
        let runs = notes.times("increment", id);
        let allowed = match outcome {
            Ok(_) => (0, 1..=1),
            Err(error) if error["data"]["kind"] == "not_started" => (1, 0..=0),
            Err(error) if error["data"]["kind"] == "outcome_unknown" => (2, 0..=1),
            Err(error) => return Err(format!("{id}: {error}").into()),
        };
        assert!(allowed.1.contains(&runs), "{id} ran {runs} times: {outcome:?}");
        counts[allowed.0] += 1;
    }
    let [answered, not_started, unknown] = counts;
    println!(
        "{answered} answered, {not_started} not started, {unknown} unknown; gone after {gone:?} at \
         most, back {back:?} after the node at most"
    );
    assert!(answered > 10 && not_started > 10, "{counts:?}");

    let (memory, open) = before;
    let (memory_after, open_after) = (lives.resident_bytes()?, descriptors(&lives)?);
    assert!(open_after <= open + 8, "{open} descriptors became {open_after}");
    assert!(memory_after < memory + (16 << 20), "{memory} bytes became {memory_after}");
    Ok(())
}
