//! The loss of power, again and again: what was acknowledged is on the disk.
//!
//! The node's data lie on an ext4 file system in an image, which a loop device keeps in a file of
//! another file system. Its writes reach that file only when the kernel hands them to the device: what
//! an fsync forces out does, what merely was written stays in memory for minutes, as the file system is
//! mounted here. A cut is a copy of the file in one moment, made by sharing its blocks (reflink). A node
//! that starts on a copy sees what a machine sees whose power failed then.
//!
//! `just powercut` runs it: it needs root, loop devices, `mkfs.ext4` and `mkfs.xfs`. It is no part of
//! the tests. `TOOLMESH_CUTS` says how often, `TOOLMESH_SEED` when.
#![cfg(target_os = "linux")]

mod support;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use support::{Caller, Home, Outcome, Random, Reply, pause, wait_for};

/// Cuts with the default durability, and with the one that does not promise to survive them.
const CUTS: usize = 20;
const CUTS_UNPROMISED: usize = 5;

/// The mean time between two cuts.
const BETWEEN: Duration = Duration::from_millis(500);

/// Results that are looked at after each cut: the last ones, which are at risk.
const RESULTS: usize = 100;

/// Clients at a time.
const CLIENTS: u64 = 8;

/// Sizes of the images in bytes; they take what is written only.
const DISK: u64 = 2 << 30;
const CABINET: u64 = 16 << 30;

/// What clients were told.
#[derive(Debug, Default, Clone)]
struct Told {
    submitted: HashSet<String>,
    /// The tasks and results that were accepted, in that order.
    completed: Vec<(String, u64)>,
    cancelled: HashSet<String>,
}

impl Told {
    fn len(&self) -> usize {
        self.submitted.len() + self.completed.len() + self.cancelled.len()
    }
}

fn run(program: &str, arguments: &[&str]) -> Outcome {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{program} {arguments:?} failed (it needs root): {words}").into())
}

fn text(path: &Path) -> Outcome<&str> {
    Ok(path.to_str().ok_or("a path that is not UTF-8")?)
}

/// An image that is mounted, until it is dropped.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, options: &str, at: &Path) -> Outcome<Self> {
        fs::create_dir_all(at)?;
        run("mount", &["-o", options, text(image)?, text(at)?])?;
        Ok(Self(at.to_owned()))
    }

    /// Makes it a directory that a node accepts as its own.
    fn private(self) -> Outcome<Self> {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700))?;
        Ok(self)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nothing else can be done about one that does not go.
        let _unmounted = text(&self.0).and_then(|at| run("umount", &["--lazy", at]));
    }
}

fn image(path: &Path, bytes: u64, make: &[&str]) -> Outcome {
    File::create(path)?.set_len(bytes)?;
    let (program, arguments) = make.split_first().ok_or("no program")?;
    run(program, &[arguments, &[text(path)?]].concat())
}

fn config(durability: &str) -> String {
    format!("[store]\ndurability = {durability:?}\n")
}

/// Submits, completes and cancels until told to stop; keeps what was acknowledged.
fn client(address: &str, number: u64, stop: &AtomicBool, told: &Mutex<Told>) -> Result<(), String> {
    let mut caller = Caller::new(address).map_err(|error| error.to_string())?;
    let mut marks = number << 32;
    let told = || told.lock().unwrap_or_else(PoisonError::into_inner);
    let submit = json!({"task_type": "job.cut", "payload": {"text": "x".repeat(200)}});
    let claim = json!({"worker_id": format!("worker-{number}"), "lease_s": 300});
    while !stop.load(Ordering::SeqCst) {
        marks += 1;
        let done = |reply: Reply| reply.done().map_err(|error| error.to_string());
        let task = done(caller.call("submit", &submit))?["task_id"].clone();
        let id = task.as_str().unwrap_or_default().to_owned();
        told().submitted.insert(id.clone());
        if marks.is_multiple_of(5) {
            let answer = caller.call("cancel", &json!({"task_id": task}));
            // It may run by now, or have ended.
            if matches!(answer, Reply::Done(value) if value["state"] == "cancelled") {
                told().cancelled.insert(id);
            }
            continue;
        }
        let claimed = done(caller.call("claim", &claim))?;
        for task in claimed["tasks"].as_array().into_iter().flatten() {
            let end = json!({
                "worker_id": claim["worker_id"], "task_id": task["task_id"],
                "fence": task["fence"], "result": marks,
            });
            let ended = done(caller.call("complete", &end))?;
            if ended["state"] == "completed" {
                let id = task["task_id"].as_str().unwrap_or_default().to_owned();
                told().completed.push((id, marks));
            }
        }
    }
    Ok(())
}

/// What is missing on the disk of a node that starts on a copy.
fn lost(home: &Home, told: &Told) -> Outcome<usize> {
    let node = home.up()?;
    let mut caller = Caller::new(node.address())?;
    let tasks = caller.list()?;
    let tasks: HashMap<&str, &Value> =
        tasks.iter().filter_map(|task| Some((task["task_id"].as_str()?, task))).collect();
    let is = |id: &String, state: &str| {
        tasks.get(id.as_str()).is_some_and(|task| task["state"] == state)
    };
    let mut lost = told.submitted.iter().filter(|id| !tasks.contains_key(id.as_str())).count();
    lost += told.cancelled.iter().filter(|id| !is(id, "cancelled")).count();
    lost += told.completed.iter().filter(|(id, _)| !is(id, "completed")).count();
    for (id, mark) in told.completed.iter().rev().take(RESULTS) {
        let result = caller.call("get_result", &json!({"task_id": id}));
        let whole = matches!(result, Reply::Done(value) if value["result"] == *mark);
        lost += usize::from(!whole && is(id, "completed"));
    }
    node.stop()?;
    Ok(lost)
}

/// Cuts the power so often; returns how much was acknowledged and how much of it was lost, by cut.
fn cut(durability: &str, cuts: usize, random: &mut Random) -> Outcome<Vec<(usize, usize)>> {
    let work = Home::on_disk("")?;
    let cabinet_image = work.path("cabinet.img");
    image(&cabinet_image, CABINET, &["mkfs.xfs", "-q"])?;
    let cabinet = Mount::new(&cabinet_image, "loop", &work.path("cabinet"))?;
    let disk_image = cabinet.0.join("disk.img");
    image(&disk_image, DISK, &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"])?;

    let home = Home::on_disk(&config(durability))?;
    let disk = Mount::new(&disk_image, "loop,commit=300", &home.data())?.private()?;
    // What mkfs and mount left to be written is no part of it.
    run("sync", &["--file-system", text(&disk.0)?])?;
    let node = home.up()?;
    let (stop, told) = (AtomicBool::new(false), Mutex::new(Told::default()));
    let acknowledged = || told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let copies = thread::scope(|scope| -> Outcome<_> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let (stop, told, node) = (&stop, &told, &node);
                    move || client(node.address(), number, stop, told)
                })
            })
            .collect();
        let copied = (0..cuts)
            .map(|number| -> Outcome<_> {
                pause(random.exponential(BETWEEN));
                let before = acknowledged().len();
                // Each cut hits a node that is at work.
                wait_for("more is acknowledged", || (acknowledged().len() > before).then_some(()))?;
                let copy = cabinet.0.join(format!("cut-{number}.img"));
                let told = acknowledged();
                run("cp", &["--reflink=always", text(&disk_image)?, text(&copy)?])?;
                Ok((copy, told))
            })
            .collect::<Outcome<Vec<_>>>();
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        copied
    })?;
    node.kill()?;
    drop(disk);
    let mut found = Vec::new();
    for (copy, told) in copies {
        let home = Home::on_disk(&config(durability))?;
        let disk = Mount::new(&copy, "loop", &home.data())?;
        found.push((told.len(), lost(&home, &told)?));
        drop(disk);
        fs::remove_file(copy)?;
    }
    Ok(found)
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_power() -> Outcome {
    let cuts = std::env::var("TOOLMESH_CUTS").map_or(Ok(CUTS), |cuts| cuts.parse())?;
    let seed = Random::seed("TOOLMESH_SEED");
    println!("seed {seed} (again: TOOLMESH_SEED={seed})");
    let mut random = Random::new(seed);
    let promised = cut("disk", cuts, &mut random)?;
    println!("durability disk: (acknowledged, lost) {promised:?}");
    let unpromised = cut("process", CUTS_UNPROMISED, &mut random)?;
    println!("durability process: (acknowledged, lost) {unpromised:?}");
    assert!(promised.iter().all(|(_, lost)| *lost == 0), "seed {seed}: {promised:?}");
    let lost: usize = unpromised.iter().map(|(_, lost)| lost).sum();
    assert!(lost > 0, "the cuts drop nothing, so they show nothing: {unpromised:?}");
    Ok(())
}
