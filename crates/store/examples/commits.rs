//! Measures the committer: `commits DIRECTORY WAITERS SECONDS [process]`.
//!
//! Each waiter submits one record of 300 bytes, waits until it is durable, and goes on. Prints
//! the commits a second, and the system's fdatasync of one written block a second to compare.

#![expect(clippy::disallowed_methods, reason = "to measure is to read the clock")]

use std::fs::File;
use std::io::{Seek, Write as _};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use toolmesh_store::{Durability, Options, Store, Work, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, waiters, seconds, process) = match &arguments[..] {
        [directory, waiters, seconds] => (directory, waiters, seconds, false),
        [directory, waiters, seconds, word] if word == "process" => {
            (directory, waiters, seconds, true)
        }
        _ => return Err("usage: commits DIRECTORY WAITERS SECONDS [process]".into()),
    };
    let (waiters, time) = (waiters.parse::<u64>()?, Duration::from_secs(seconds.parse()?));
    let durability = if process { Durability::Process } else { Durability::Disk };
    let options = Options { durability, ..Options::new(Path::new(directory).join("store")) };
    let store = Store::open(options, |error| {
        eprintln!("fatal: {error}");
        std::process::exit(3);
    })?
    .store;

    let began = Instant::now();
    let mut workers = Vec::new();
    for waiter in 0..waiters {
        let committer = store.committer();
        workers.push(std::thread::spawn(move || {
            let mut commits: u64 = 0;
            while began.elapsed() < time {
                let (sender, receiver) = sync_channel(1);
                let key = [waiter.to_be_bytes(), (commits % 1_000).to_be_bytes()].concat();
                let write = Write::Put { key, value: vec![waiter as u8; 300] };
                committer.submit(Work::New, vec![write], move |outcome| {
                    let _ = sender.send(outcome);
                });
                match receiver.recv() {
                    Ok(Ok(())) => commits += 1,
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(commits)
        }));
    }
    let mut commits = 0;
    for worker in workers {
        commits += worker.join().map_err(|_| "a waiter panicked")??;
    }
    let rate = commits as f64 / began.elapsed().as_secs_f64();
    store.close();
    println!("{waiters} waiters, {durability:?}: {rate:.0} commits/s");
    println!("fdatasync alone: {:.0}/s", fdatasync_rate(Path::new(directory))?);
    Ok(())
}

fn fdatasync_rate(directory: &Path) -> std::io::Result<f64> {
    let mut file = File::create(directory.join("fdatasync"))?;
    let (began, count) = (Instant::now(), 500);
    for _ in 0..count {
        file.rewind()?;
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}
