//! Between the last write to the store and each acknowledgement stands an fsync: seen by strace, from
//! outside. Linux only.
#![cfg(target_os = "linux")]

mod support;
#[path = "queue_fsync/trace.rs"]
mod trace;

use std::fs;

use serde_json::json;
use support::{Caller, Home, Node, Outcome, run_by, wait_for};
use trace::{Shown, acknowledgements, parse};

/// Tasks that are submitted, one after the other.
const TASKS: usize = 50;

/// What strace looks at: all that writes to a file or a socket, and all that syncs.
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,sendfile,\
                     fsync,fdatasync,sync_file_range,msync";

/// Submits tasks to a traced node; returns what the trace shows of each.
fn traced(durability: &str) -> Outcome<Vec<Shown>> {
    let home = Home::on_disk(&format!("[store]\ndurability = {durability:?}\n"))?;
    let file = home.path("trace");
    let file = file.to_str().ok_or("the directory is not UTF-8")?;
    // With -D the node stays this test's child and strace is its grandchild, so that the node can
    // be stopped, and strace ends with it.
    let strace =
        ["strace", "-D", "-f", "-y", "-s", "4096", "-e", "signal=none", "-e", CALLS, "-o", file];
    let command = run_by(&strace, &home.up_command(&["--http", "127.0.0.1:0"]));
    let node = Node::from_command(&home, command)
        .map_err(|error| format!("no node under strace (tests/fetch.sh installs it): {error}"))?;
    if fs::metadata(file).map_or(0, |file| file.len()) == 0 {
        let log = home.log();
        return Err(format!("strace saw nothing: is ptrace permitted here? it said: {log}").into());
    }
    let mut caller = Caller::new(node.address())?;
    let mut tasks = Vec::new();
    for number in 0..TASKS {
        let task = json!({"task_type": "job.traced", "payload": {"number": number}});
        let told = caller.get("submit", &task)?;
        tasks.push(told["task_id"].as_str().ok_or("no task_id")?.to_owned());
    }
    // strace pads short PIDs.
    let pid = node.pid().to_string();
    let is_end = |line: &str| {
        let rest = line.strip_prefix(&pid).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with("+++ exited with 0 +++"))
    };
    assert_eq!(node.stop()?.code(), Some(0));
    let trace = wait_for("strace has written all", || {
        let trace = fs::read(file).ok()?;
        let trace = String::from_utf8_lossy(&trace).into_owned();
        trace.lines().any(is_end).then_some(trace)
    })?;
    // So few tasks that there is only ever one journal.
    let journal = fs::canonicalize(home.data().join("store/journal-0"))?;
    let calls = parse(&trace);
    let shown = acknowledgements(&calls, &journal.display().to_string(), &tasks);
    let syncs = calls.iter().filter(|call| call.syncs() && call.result == Some(0)).count();
    println!("durability {durability}: {TASKS} tasks, {syncs} syncs in all, {shown:?}");
    Ok(shown)
}

#[test]
fn an_fsync_stands_between_the_last_write_and_every_acknowledgement() -> Outcome {
    assert_eq!(traced("disk")?, [Shown::Synced; TASKS]);
    Ok(())
}

/// Without it the trace says so, so the test above would have seen it.
#[test]
fn a_node_that_does_not_promise_it_is_seen_not_to_do_it() -> Outcome {
    let shown = traced("process")?;
    let synced = shown.iter().filter(|shown| **shown == Shown::Synced).count();
    assert!(synced < TASKS / 10, "{shown:?}");
    assert!(shown.contains(&Shown::NotSynced), "{shown:?}");
    Ok(())
}
