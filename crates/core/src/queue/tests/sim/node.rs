//! The node: the machine, the committer that batches what it writes, and a disk that forgets what
//! was not synced when power is lost.

use std::collections::BTreeMap;

use super::{
    super::{super::*, Kept, NODE},
    dice::Dice,
    history::History,
};

/// Who talks to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Client(usize),
    Worker(usize),
    Operator,
}

/// What the node is asked.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// An input of the machine.
    Input(Input),
    /// How a task stands, and its result.
    Read(TaskId),
    /// The claim with this number is not waited for any more.
    Withdraw(u64),
}

/// What the node answers.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Reply(Result<Reply, Refusal>),
    Granted(Granted),
    Read { view: Option<Box<TaskView>>, result: Option<String> },
}

/// An answer on its way.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) to: Who,
    pub(super) request: u64,
    pub(super) answer: Answer,
}

/// What the committer is handed: a step.
#[derive(Debug)]
struct Entry {
    writes: Vec<Write>,
    sync: bool,
    /// What may be told once that is written.
    early: Vec<Letter>,
    letters: Vec<Letter>,
}

/// What survives the node.
#[derive(Debug, Default)]
pub(super) struct Disk {
    synced: Kept,
    /// Batches that were written since; loss of power takes the last of them.
    written: Vec<Vec<Write>>,
}

impl Disk {
    fn sync(&mut self) {
        for write in std::mem::take(&mut self.written).iter().flatten() {
            self.synced.put(write);
        }
    }

    /// What is there for whoever looks while the system runs.
    pub(super) fn kept(&self) -> Kept {
        let mut kept = self.synced.clone();
        self.written.iter().flatten().for_each(|write| kept.put(write));
        kept
    }

    fn result(&self, id: TaskId) -> Option<String> {
        let later = self.written.iter().flatten().rev().find_map(|write| match write {
            Write::Result(of, record) if *of == id => Some(record.result.clone()),
            _ => None,
        });
        later.unwrap_or_else(|| self.synced.results.get(&id)?.result.clone())
    }
}

/// What ends with the node.
#[derive(Debug)]
struct Up {
    machine: Machine,
    /// Steps that wait to be written.
    lane: Vec<Entry>,
    /// Answers that wait for the fsync under way.
    syncing: Option<Vec<Letter>>,
    /// Who waits for what a claim will be given.
    claims: BTreeMap<Ticket, (Who, u64)>,
    tickets: Ticket,
}

/// The node.
#[derive(Debug)]
pub(super) struct Node {
    config: Config,
    pub(super) disk: Disk,
    up: Option<Up>,
    /// When the machine is to be told that time has passed.
    pub(super) wake_at: Option<u64>,
}

impl Node {
    pub(super) fn new(config: Config) -> Self {
        Self { config, disk: Disk::default(), up: None, wake_at: None }
    }

    /// The number of this start.
    pub(super) fn epoch(&self) -> u32 {
        self.config.epoch
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    pub(super) fn machine(&self) -> Option<&Machine> {
        self.up.as_ref().map(|up| &up.machine)
    }

    /// Starts from the disk.
    pub(super) fn start(&mut self, now: Now, power: bool, history: &mut History) {
        self.config.epoch += 1;
        self.disk.sync();
        history.recovered(&self.disk.synced, power, now.ms, NODE);
        let (machine, step) = self.disk.synced.load(self.config.clone(), now, NODE);
        let (lane, claims) = (Vec::new(), BTreeMap::new());
        self.up = Some(Up { machine, lane, syncing: None, claims, tickets: 0 });
        self.wake_at = None;
        self.carry_out(step, None);
    }

    /// Ends at once. Loss of power takes what was not synced, or the last part of it.
    pub(super) fn crash(&mut self, power: bool, dice: &mut Dice) {
        self.up = None;
        self.wake_at = None;
        if power {
            let left = dice.index(self.disk.written.len() + 1);
            self.disk.written.truncate(left);
        }
    }

    /// Takes a request.
    pub(super) fn take(
        &mut self,
        now: Now,
        from: Who,
        request: u64,
        body: &Body,
        history: &mut History,
    ) {
        let Some(up) = &mut self.up else { return };
        let input = match body {
            Body::Read(id) => {
                let operator = Asker { id: "operator".into(), is_operator: true };
                let view = up.machine.view(&operator, *id, now).ok().map(Box::new);
                // Read where everything before it is kept: else it could tell what a crash takes.
                let answer = Answer::Read { view, result: None };
                let letters = vec![Letter { to: from, request, answer }];
                let (writes, early) = (Vec::new(), Vec::new());
                up.lane.push(Entry { writes, sync: false, early, letters });
                return;
            }
            Body::Withdraw(claim) => {
                let found = up.claims.iter().find(|(_, to)| **to == (from, *claim));
                let Some(ticket) = found.map(|(ticket, _)| *ticket) else { return };
                up.claims.remove(&ticket);
                Input::Withdraw(ticket)
            }
            Body::Input(Input::Claim(claim)) => {
                up.tickets += 1;
                let wait = claim.wait.map(|(_, until)| (up.tickets, until));
                up.claims.insert(up.tickets, (from, request));
                Input::Claim(Claim { wait, ..claim.clone() })
            }
            Body::Input(input) => input.clone(),
        };
        let step = up.machine.apply(now, input.clone());
        if let Ok(reply) = &step.reply {
            history.accepted(&input, reply, now.ms);
        }
        Self::note(&step, now, history);
        self.carry_out(step, Some((from, request)));
    }

    /// Tells the machine that time has passed.
    pub(super) fn tick(&mut self, now: Now, history: &mut History) {
        self.wake_at = None;
        let Some(up) = &mut self.up else { return };
        let step = up.machine.apply(now, Input::Tick);
        Self::note(&step, now, history);
        self.carry_out(step, None);
    }

    /// Tells the history what was given, and which leases ended.
    fn note(step: &Step, now: Now, history: &mut History) {
        for event in &step.events {
            if let Event::Ended(id) = event {
                history.ended(*id);
            }
        }
        let direct = match &step.reply {
            Ok(Reply::Claimed(granted)) => Some(granted),
            _ => None,
        };
        let later = step.grants.iter().map(|(_, granted)| granted);
        for grant in direct.into_iter().chain(later).flat_map(|granted| &granted.tasks) {
            // A lease whose attempt took too long ends while it would hold.
            history.given(grant, grant.timeout_ms.is_some(), now.ms);
        }
    }

    fn carry_out(&mut self, step: Step, asked: Option<(Who, u64)>) {
        let Some(up) = &mut self.up else { return };
        let sync = !step.writes.is_empty() && step.must_be_synced(asked.is_some());
        let (mut early, mut letters) = (Vec::new(), Vec::new());
        for (ticket, granted) in step.grants {
            if let Some((to, request)) = up.claims.remove(&ticket) {
                let told = if granted.may_be_repeated() { &mut early } else { &mut letters };
                told.push(Letter { to, request, answer: Answer::Granted(granted) });
            }
        }
        if let Some((to, request)) = asked {
            let answer = match step.reply {
                Ok(Reply::Waiting) => None,
                Ok(Reply::Claimed(granted)) => {
                    up.claims.retain(|_, waits| *waits != (to, request));
                    Some(Answer::Granted(granted))
                }
                reply => Some(Answer::Reply(reply)),
            };
            letters.extend(answer.map(|answer| Letter { to, request, answer }));
        }
        if !sync && !step.writes.is_empty() {
            early.append(&mut letters);
        }
        up.lane.push(Entry { writes: step.writes, sync, early, letters });
        self.wake_at = step.wake_at;
    }

    /// Whether there is something to write and nothing is being written.
    pub(super) fn is_to_write(&self) -> bool {
        self.up.as_ref().is_some_and(|up| !up.lane.is_empty() && up.syncing.is_none())
    }

    /// Writes what there is. Returns what may be told now, and whether an fsync has to end before
    /// the rest may.
    pub(super) fn write(&mut self) -> (Vec<Letter>, bool) {
        let Some(up) = &mut self.up else { return (Vec::new(), false) };
        if up.syncing.is_some() {
            return (Vec::new(), false);
        }
        let (mut writes, mut now, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let mut sync = false;
        for entry in up.lane.drain(..) {
            writes.extend(entry.writes);
            now.extend(entry.early);
            later.extend(entry.letters);
            sync |= entry.sync;
        }
        if !writes.is_empty() {
            self.disk.written.push(writes);
        }
        if sync {
            up.syncing = Some(later);
        } else {
            now.append(&mut later);
        }
        (self.read(now), sync)
    }

    /// The fsync has ended: what may be told now.
    pub(super) fn synced(&mut self) -> Vec<Letter> {
        let letters = self.up.as_mut().and_then(|up| up.syncing.take());
        let Some(letters) = letters else { return Vec::new() };
        self.disk.sync();
        self.read(letters)
    }

    /// Reads the results that are asked for.
    fn read(&self, mut letters: Vec<Letter>) -> Vec<Letter> {
        for letter in &mut letters {
            if let Answer::Read { view: Some(view), result } = &mut letter.answer {
                *result = self.disk.result(view.id);
            }
        }
        letters
    }
}
