//! A node with its disk, submitters and workers in a time of their own, under faults that a seed
//! decides: crashes and loss of power, messages that are late, lost or doubled, workers whose
//! clocks go wrong, who stop for a while or end. What everybody saw is checked by [`history`].

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use super::{super::*, NODE, OWNER, START, name};

mod client;
mod desk;
mod dice;
mod history;
mod node;
#[cfg(feature = "planted-bugs")]
mod planted;
mod runs;
mod worker;

use client::Client;
use desk::Desk;
use dice::Dice;
use history::History;
use node::{Answer, Body, Letter, Node, Who};
use worker::Worker;

/// How long faults happen, in milliseconds, and how long everything may take to end after them.
const FAULTS_MS: u64 = 30_000;
const REST_MS: u64 = 600_000;

/// Tells of a run that went well too, where the test harness would keep it to itself.
fn say(line: &str) {
    use std::io::Write;
    // Nobody to tell is no failure of the test.
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// How much happened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) seeds: u64,
    steps: u64,
    tasks: u64,
    leases: u64,
    kills: u64,
    power_losses: u64,
    lost: u64,
    doubled: u64,
    late: u64,
    frozen: u64,
    workers_ended: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.tasks += other.tasks;
        self.leases += other.leases;
        self.kills += other.kills;
        self.power_losses += other.power_losses;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.late += other.late;
        self.frozen += other.frozen;
        self.workers_ended += other.workers_ended;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, steps, tasks, leases, .. } = self;
        write!(f, "{seeds} seeds, {steps} steps, {tasks} tasks, {leases} leases; faults: ")?;
        write!(f, "{} kills, {} losses of power, ", self.kills, self.power_losses)?;
        write!(f, "messages: {} lost, {} doubled, {} late, ", self.lost, self.doubled, self.late)?;
        write!(f, "workers: {} frozen, {} ended", self.frozen, self.workers_ended)
    }
}

/// What happens at a time.
#[derive(Debug, Clone)]
enum Event {
    /// An actor does something; workers only if they were not restarted since.
    Act(Who),
    /// A request reaches the node; those of its own worker only the node that they were sent to.
    Request {
        from: Who,
        request: u64,
        body: Body,
        epoch: u32,
    },
    /// An answer reaches who asked.
    Answer {
        letter: Letter,
        epoch: u32,
    },
    Write(u32),
    Synced(u32),
    Wake(u32, u64),
    Crash,
    Start {
        power: bool,
    },
}

/// Everything.
struct World {
    now: u64,
    dice: Dice,
    agenda: BTreeMap<(u64, u64), Event>,
    order: u64,
    node: Node,
    /// Whether the committer was told to write.
    writes: bool,
    /// When the node was told to wake.
    wakes: Option<u64>,
    clients: Vec<Client>,
    workers: Vec<Worker>,
    history: History,
    requests: u64,
    tally: Tally,
    trace: VecDeque<String>,
}

/// Runs a seed; returns what happened, or which rule was broken and what came before.
pub(super) fn run(seed: u64, mut config: Config) -> (Tally, Result<(), String>) {
    config.running = vec![(name("few"), 2)];
    config.owner = OWNER;
    config.epoch = 0;
    let mut dice = Dice::new(seed);
    let clients = (0..3).map(|number| Client::new(number, 10)).collect();
    let mut workers = vec![Worker::new(NODE, 100, 2)];
    for (of, slots) in [("w1", 2), ("w2", 1), ("w3", 2)] {
        // From a third as fast to twice as fast as the node's clock.
        workers.push(Worker::new(of, dice.within(33, 200), slots));
    }
    let mut world = World {
        now: START,
        dice,
        agenda: BTreeMap::new(),
        order: 0,
        node: Node::new(config),
        writes: false,
        wakes: None,
        clients,
        workers,
        history: History::default(),
        requests: 0,
        tally: Tally { seeds: 1, ..Tally::default() },
        trace: VecDeque::new(),
    };
    let result = world.run();
    world.tally.tasks = world.history.submissions.len() as u64;
    (world.tally, result)
}

impl World {
    fn is_calm(&self) -> bool {
        self.now >= START + FAULTS_MS
    }

    fn at(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.agenda.insert((self.now + after, self.order), event);
    }

    fn run(&mut self) -> Result<(), String> {
        self.at(0, Event::Start { power: false });
        self.plan_crash();
        for number in 0..self.clients.len() {
            self.at(1, Event::Act(Who::Client(number)));
        }
        for number in 0..self.workers.len() {
            self.at(1, Event::Act(Who::Worker(number)));
        }
        self.at(1, Event::Act(Who::Operator));
        while let Some(((at, _), event)) = self.agenda.pop_first() {
            self.now = at;
            self.tally.steps += 1;
            self.trace(&event);
            self.happen(event);
            self.carry_on();
            if let Some(broken) = self.history.broken.take() {
                return Err(self.report(&broken));
            }
            if self.is_calm() && self.is_at_rest() || at > START + FAULTS_MS + REST_MS {
                break;
            }
        }
        let counts = self.node.machine().map(|machine| machine.counts).unwrap_or_default();
        self.history.closes(&self.node.disk.kept(), counts);
        self.history.broken.take().map_or(Ok(()), |broken| Err(self.report(&broken)))
    }

    fn trace(&mut self, event: &Event) {
        if self.trace.len() == 400 {
            self.trace.pop_front();
        }
        if !matches!(event, Event::Act(_) | Event::Write(_) | Event::Synced(_) | Event::Wake(..)) {
            self.trace.push_back(format!("{:>7} {event:?}", self.now - START));
        }
    }

    fn report(&self, broken: &str) -> String {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        format!("{broken}\nafter\n{}\n{:>7}", trace.join("\n"), self.now - START)
    }

    /// Nothing is left to be done, and everything is written.
    fn is_at_rest(&self) -> bool {
        let asks_nobody = |machine: &Machine| {
            machine.tasks.iter().all(|(_, task)| task.state.is_final() || task.asks().is_some())
        };
        !self.writes
            && !self.node.is_to_write()
            && self.node.machine().is_some_and(asks_nobody)
            && self.clients.iter().all(Client::is_done)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(who) => self.act(who),
            Event::Request { from, request, body, epoch } => {
                if self.is_own(from) && epoch != self.node.epoch() {
                    return;
                }
                let now = self.node_now();
                self.node.take(now, from, request, &body, &mut self.history);
            }
            Event::Answer { letter, epoch } => self.deliver(letter, epoch),
            Event::Write(epoch) if epoch == self.node.epoch() => {
                self.writes = false;
                let (letters, syncs) = self.node.write();
                self.post(letters);
                if syncs {
                    self.writes = true;
                    let after = self.dice.within(1, 15);
                    self.at(after, Event::Synced(epoch));
                }
            }
            Event::Synced(epoch) if epoch == self.node.epoch() => {
                self.writes = false;
                let letters = self.node.synced();
                self.post(letters);
            }
            Event::Wake(epoch, at) if epoch == self.node.epoch() && self.wakes == Some(at) => {
                self.wakes = None;
                let now = self.node_now();
                self.node.tick(now, &mut self.history);
            }
            Event::Write(_) | Event::Synced(_) | Event::Wake(..) => {}
            Event::Crash => self.crash(),
            Event::Start { power } => {
                let now = self.node_now();
                self.node.start(now, power, &mut self.history);
                self.workers.iter_mut().filter(|worker| worker.is_node()).for_each(Worker::restart);
                (self.writes, self.wakes) = (false, None);
            }
        }
    }

    fn node_now(&mut self) -> Now {
        Now { ms: self.now, chance: self.dice.number() }
    }

    /// Has the committer write and the clock ring where that is to come.
    fn carry_on(&mut self) {
        let epoch = self.node.epoch();
        if self.node.is_to_write() && !self.writes {
            self.writes = true;
            let after = self.dice.within(0, 8);
            self.at(after, Event::Write(epoch));
        }
        if let Some(wake_at) = self.node.wake_at.filter(|at| self.wakes != Some(*at)) {
            self.wakes = Some(wake_at);
            // Timers ring late, and now and then too early.
            let exact = wake_at.saturating_sub(self.now);
            let after = match self.dice.within(0, 20) {
                0 => exact.saturating_sub(self.dice.within(0, 50)),
                _ => exact + self.dice.within(0, 20),
            };
            self.at(after.max(1), Event::Wake(epoch, wake_at));
        }
    }

    fn plan_crash(&mut self) {
        // Some follow each other so closely that the start is hit.
        let after = match self.dice.percent(20) {
            true => self.dice.within(5, 400),
            false => self.dice.within(1_000, 9_000),
        };
        if self.now + after < START + FAULTS_MS {
            self.at(after, Event::Crash);
        }
    }

    fn crash(&mut self) {
        if self.node.is_up() {
            let power = self.dice.percent(50);
            if power {
                self.tally.power_losses += 1;
            } else {
                self.tally.kills += 1;
            }
            self.node.crash(power, &mut self.dice);
            (self.writes, self.wakes) = (false, None);
            let after = self.dice.within(10, 1_500);
            self.at(after, Event::Start { power });
        }
        self.plan_crash();
    }

    fn is_own(&self, who: Who) -> bool {
        matches!(who, Who::Worker(number) if self.workers[number].is_node())
    }

    /// Sends something through the network: returns after which times it arrives.
    fn arrivals(&mut self, who: Who) -> Vec<u64> {
        if self.is_own(who) {
            return vec![self.dice.within(0, 3)];
        }
        if self.is_calm() {
            return vec![self.dice.within(1, 40)];
        }
        let mut arrivals = Vec::new();
        let copies = match self.dice.within(0, 100) {
            0..4 => 0,
            4..8 => 2,
            _ => 1,
        };
        self.tally.lost += u64::from(copies == 0);
        self.tally.doubled += u64::from(copies == 2);
        for _ in 0..copies {
            if self.dice.percent(3) {
                self.tally.late += 1;
                arrivals.push(self.dice.within(1_000, 9_000));
            } else {
                arrivals.push(self.dice.within(1, 120));
            }
        }
        arrivals
    }

    fn post(&mut self, letters: Vec<Letter>) {
        let epoch = self.node.epoch();
        for letter in letters {
            if let Answer::Granted(granted) = &letter.answer {
                self.tally.leases += granted.tasks.len() as u64;
            }
            for after in self.arrivals(letter.to) {
                self.at(after, Event::Answer { letter: letter.clone(), epoch });
            }
        }
    }

    fn act(&mut self, who: Who) {
        let again = match who {
            Who::Client(_) => self.dice.within(50, 900),
            Who::Worker(_) => self.dice.within(20, 250),
            Who::Operator => self.dice.within(1_000, 6_000),
        };
        if let Who::Worker(number) = who {
            self.disturb(number);
            let until = self.workers[number].frozen_until;
            if until > self.now {
                return self.at(until - self.now, Event::Act(who));
            }
        }
        self.at(again, Event::Act(who));
        if !self.is_own(who) || self.node.is_up() {
            self.with(who, None);
        }
    }

    /// Stops a worker for a while, or ends it.
    fn disturb(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        if worker.is_node() || worker.frozen_until > self.now || self.now >= START + FAULTS_MS {
            return;
        }
        match self.dice.within(0, 400) {
            0..3 => {
                self.tally.frozen += 1;
                worker.frozen_until = self.now + self.dice.within(500, 12_000);
            }
            3..5 => {
                self.tally.workers_ended += 1;
                worker.restart();
            }
            _ => {}
        }
    }

    fn deliver(&mut self, letter: Letter, epoch: u32) {
        let Letter { to, request, answer } = letter;
        if self.is_own(to) && (epoch != self.node.epoch() || !self.node.is_up()) {
            return;
        }
        if let Who::Worker(number) = to {
            let until = self.workers[number].frozen_until;
            if until > self.now {
                let letter = Letter { to, request, answer };
                return self.at(until - self.now, Event::Answer { letter, epoch });
            }
        }
        self.with(to, Some((request, answer)));
    }

    /// Lets an actor hear an answer, or do something of its own; then sends what it has to say.
    fn with(&mut self, who: Who, heard: Option<(u64, Answer)>) {
        let mut desk = Desk {
            now: self.now,
            is_calm: self.now >= START + FAULTS_MS,
            dice: &mut self.dice,
            history: &mut self.history,
            out: Vec::new(),
            requests: &mut self.requests,
        };
        match (who, heard) {
            (Who::Client(number), None) => self.clients[number].act(&mut desk),
            (Who::Client(number), Some((request, answer))) => {
                self.clients[number].hear(&mut desk, request, answer);
            }
            (Who::Worker(number), None) => self.workers[number].act(&mut desk),
            (Who::Worker(number), Some((request, answer))) => {
                self.workers[number].hear(&mut desk, request, answer);
            }
            (Who::Operator, None) => operate(&mut desk),
            (Who::Operator, Some(_)) => {}
        }
        for (request, body) in desk.out {
            let arrivals = self.arrivals(who);
            if let Body::Input(Input::Submit { spec, .. }) = &body
                && let Some(submission) = self.history.submissions.get_mut(&spec.content)
            {
                submission.sent += arrivals.len();
            }
            let epoch = self.node.epoch();
            for after in arrivals {
                let body = body.clone();
                self.at(after, Event::Request { from: who, request, body, epoch });
            }
        }
    }
}

/// Pauses and drains now and then, and takes it back at the end.
fn operate(desk: &mut Desk<'_>) {
    let workers = ["w1", "w2", "w3", NODE];
    let input = match desk.dice.within(0, 10) {
        0 if !desk.is_calm => Input::Pause(true),
        1 if !desk.is_calm => Input::Drain { worker: name(workers[desk.dice.index(4)]), on: true },
        2..6 => Input::Pause(false),
        _ => Input::Drain { worker: name(workers[desk.dice.index(4)]), on: false },
    };
    desk.send(Body::Input(input));
}
