//! A process that writes is killed again and again, during start-up too, and nothing it was told
//! is stored may be missing afterwards.
//!
//! `TOOLMESH_STORE_KILLS` sets how often (25); 200 is the long run.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::support::{TestResult, put, scan};
use toolmesh_store::{Options, Recovery, Store, Work, Write};

/// Set for the process that writes: where.
const DIRECTORY: &str = "TOOLMESH_STORE_KILL_DIRECTORY";
const KILLS: &str = "TOOLMESH_STORE_KILLS";

/// Records that are kept; each write deletes the one this far back, so that sled moves data too.
const KEPT: u64 = 300;
/// Submissions under way at once.
const IN_FLIGHT: usize = 16;

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may wait before it kills")]
fn nothing_acknowledged_is_lost_to_kills() -> TestResult {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_until_killed(Path::new(&directory));
    }
    let kills = std::env::var(KILLS).map_or(Ok(25), |kills| kills.parse::<u32>())?;
    let directory = tempfile::tempdir()?;
    let mut acknowledged = 0;
    let mut killed_before_open = 0;
    for kill in 0..kills {
        // Half of the kills hit the start, which takes a few milliseconds.
        let longest = if kill % 2 == 0 { 30_000 } else { 300_000 };
        let delay = Duration::from_micros(RandomState::new().hash_one(kill) % longest);
        let mut writer = spawn(directory.path())?;
        std::thread::sleep(delay);
        writer.kill()?;
        let heard = hear(&mut writer, acknowledged)
            .map_err(|error| format!("kill {kill} after {delay:?}: {error}"))?;
        killed_before_open += u32::from(heard.is_none());
        acknowledged = heard.unwrap_or(acknowledged);
    }
    let mut writer = spawn(directory.path())?;
    let last = loop {
        // Let it write at last, so that the run cannot pass without an acknowledgement.
        std::thread::sleep(Duration::from_millis(500));
        writer.kill()?;
        match hear(&mut writer, acknowledged)? {
            Some(last) if last > acknowledged => break last,
            _ => writer = spawn(directory.path())?,
        }
    };
    println!("{kills} kills, {killed_before_open} before the store was open, {last} acknowledged");
    Ok(())
}

fn spawn(directory: &Path) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--exact", "kill::nothing_acknowledged_is_lost_to_kills", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

/// Reads what a killed writer had said: what it found, which must hold all that was acknowledged
/// before, and what was acknowledged to it. Returns the last number acknowledged, or `None` if
/// the store was not open yet.
fn hear(writer: &mut Child, acknowledged: u64) -> Result<Option<u64>, Box<dyn std::error::Error>> {
    let mut last = None;
    for line in BufReader::new(writer.stdout.take().ok_or("stdout is piped")?).lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["found", found] => {
                let found: u64 = found.parse()?;
                if found < acknowledged {
                    return Err(format!("{acknowledged} was acknowledged, {found} is there").into());
                }
                last = Some(acknowledged);
            }
            ["stored", number] => last = Some(number.parse()?),
            ["broken", ..] => return Err(line.into()),
            // The test harness talks as well, and the last line may be cut.
            _ => {}
        }
    }
    writer.wait()?;
    Ok(last)
}

/// Writes the numbers after the last one found, and says which are stored.
fn write_until_killed(directory: &Path) -> TestResult {
    let opened = Store::open(Options::new(directory.join("store")), |_| std::process::exit(3))?;
    if opened.recovery != Recovery::Clean {
        say(&format!("broken {:?}", opened.recovery))?;
        return Ok(());
    }
    let found = check(&opened.store)?;
    say(&format!("found {found}"))?;
    let (done, under_way) = sync_channel(IN_FLIGHT);
    for number in found + 1.. {
        let mut writes = vec![put(&number.to_be_bytes(), &value(number))];
        if let Some(old) = number.checked_sub(KEPT) {
            writes.push(Write::Delete { key: old.to_be_bytes().to_vec() });
        }
        let done = done.clone();
        opened.store.committer().submit(Work::New, writes, move |outcome| {
            let _ = match outcome {
                Ok(()) => say(&format!("stored {number}")),
                Err(error) => say(&format!("broken {error}")),
            };
            let _ = done.try_send(());
        });
        if number - found >= IN_FLIGHT as u64 {
            under_way.recv()?;
        }
    }
    Ok(())
}

/// Checks that the records are the last [`KEPT`] numbers without a gap; returns the greatest.
fn check(store: &Store) -> Result<u64, Box<dyn std::error::Error>> {
    let records = scan(store.records(), &[])?;
    let mut previous = None;
    for (key, found) in &records {
        let number = u64::from_be_bytes(key.as_slice().try_into()?);
        if previous.is_some_and(|previous: u64| previous + 1 != number) || *found != value(number) {
            say(&format!("broken at {number} after {previous:?}"))?;
        }
        previous = Some(number);
    }
    let last = previous.unwrap_or(0);
    if records.len() as u64 != last.min(KEPT) {
        say(&format!("broken {} records up to {last}", records.len()))?;
    }
    Ok(last)
}

/// Every tenth value is in chunks.
fn value(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(10) { 20_000 } else { 100 };
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
