//! Submitters, who repeat what was not answered, look after their tasks and change their minds.

use std::collections::BTreeMap;

use super::{
    super::{super::*, Role, name, names, spec},
    desk::Desk,
    history::Submission,
    node::{Answer, Body},
};

/// A submission as its submitter knows it.
#[derive(Debug)]
struct Mine {
    input: Input,
    content: u64,
    once: bool,
    id: Option<TaskId>,
    /// When it is sent once more unless an answer comes.
    again_at: u64,
    ended: bool,
}

/// What a request was for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Submit(usize),
    Read(usize),
    Cancel,
}

/// A submitter.
#[derive(Debug)]
pub(super) struct Client {
    name: String,
    most: usize,
    tasks: Vec<Mine>,
    asked: BTreeMap<u64, (Asked, u64)>,
}

const KINDS: [&str; 5] = ["tool.call", "tool.call", "work", "work", "few"];

impl Client {
    pub(super) fn new(number: usize, most: usize) -> Self {
        let (tasks, asked) = (Vec::new(), BTreeMap::new());
        Self { name: format!("client{number}"), most, tasks, asked }
    }

    fn asker(&self) -> Asker {
        Asker { id: self.name.as_str().into(), is_operator: false }
    }

    /// Whether it waits for nothing any more.
    pub(super) fn is_done(&self) -> bool {
        self.tasks.iter().all(|mine| mine.ended || (mine.id.is_none() && !mine.once))
    }

    /// Does something.
    pub(super) fn act(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now;
        self.asked.retain(|_, (_, sent)| *sent + 20_000 > now);
        for at in 0..self.tasks.len() {
            let mine = &mut self.tasks[at];
            if mine.id.is_none() && mine.once && mine.again_at <= now {
                mine.again_at = now + 1_000;
                self.send(at, desk);
            }
        }
        if !desk.is_calm && self.tasks.len() < self.most && desk.dice.percent(40) {
            let mine = self.think(desk);
            self.tasks.push(mine);
            self.send(self.tasks.len() - 1, desk);
        }
        let open: Vec<(usize, TaskId)> = (0..)
            .zip(&self.tasks)
            .filter(|(_, mine)| !mine.ended || desk.dice.percent(5))
            .filter_map(|(at, mine)| Some((at, mine.id?)))
            .collect();
        if open.is_empty() {
            return;
        }
        let (at, id) = open[desk.dice.index(open.len())];
        let asker = self.asker();
        let choice = if desk.is_calm { 99 } else { desk.dice.within(0, 100) };
        let (input, asked) = match choice {
            0..8 => {
                let force = desk.dice.percent(25);
                let reason = String::new();
                (Input::Cancel { asker, id, reason, force }, Some(Asked::Cancel))
            }
            8..12 => {
                let priority = desk.dice.within(1, 11).to_le_bytes()[0];
                (Input::Prioritise { asker, id, priority }, None)
            }
            12..16 => {
                let (dice, mut change) = (&mut *desk.dice, Change::default());
                if dice.percent(50) {
                    change.not_before = Some(now + dice.within(0, 2_000));
                } else {
                    change.max_attempts = Some(u16::from(dice.within(1, 6).to_le_bytes()[0]));
                }
                (Input::Update { asker, id, change }, None)
            }
            _ => {
                let request = desk.send(Body::Read(id));
                self.asked.insert(request, (Asked::Read(at), now));
                return;
            }
        };
        let request = desk.send(Body::Input(input));
        if let Some(asked) = asked {
            self.asked.insert(request, (asked, now));
        }
    }

    /// Thinks of a task.
    fn think(&self, desk: &mut Desk<'_>) -> Mine {
        let (dice, now) = (&mut *desk.dice, desk.now);
        let kind = KINDS[dice.index(KINDS.len())];
        let payload = format!("{} {}", self.name, self.tasks.len());
        let content = content_digest(kind, "", &payload);
        let once = dice.percent(70);
        let is_named = once && dice.percent(20);
        let key = key_digest(&self.name, &payload);
        let spec = Spec {
            key: (once && !is_named).then_some(key),
            content,
            payload,
            priority: dice.within(1, 11).to_le_bytes()[0],
            requires: if dice.percent(10) { names(&["gpu"]) } else { Vec::new() },
            sticky: dice.percent(5).then(|| name("w1")),
            timeout_ms: dice.percent(10).then(|| dice.within(500, 6_000)),
            max_attempts: match dice.within(0, 20) {
                0 => 0,
                number => u16::from((1 + number % 4).to_le_bytes()[0]),
            },
            not_before: if dice.percent(15) { now + dice.within(1, 5_000) } else { 0 },
            deadline: dice.percent(8).then(|| now + dice.within(2_000, 30_000)),
            retry: RetryPolicy {
                backoff_ms: dice.within(10, 1_000),
                max_ms: 4_000,
                ..RetryPolicy::default()
            },
            on_lost: if dice.percent(35) { OnLost::Fail } else { OnLost::Retry },
            ..spec(kind)
        };
        let id = is_named.then(|| TaskId::new(super::super::OWNER, now, dice.number()));
        let submission = Submission { sent: 0, once, acked: None };
        desk.history.submissions.insert(content, submission);
        let by = Submitter { id: self.name.as_str().into(), role: Role::Client };
        let input = Input::Submit { by, spec: Box::new(spec), id };
        Mine { input, content, once, id: None, again_at: now + 1_000, ended: false }
    }

    fn send(&mut self, at: usize, desk: &mut Desk<'_>) {
        let request = desk.send(Body::Input(self.tasks[at].input.clone()));
        self.asked.insert(request, (Asked::Submit(at), desk.now));
    }

    /// Hears an answer.
    pub(super) fn hear(&mut self, desk: &mut Desk<'_>, request: u64, answer: Answer) {
        let Some((asked, sent)) = self.asked.remove(&request) else { return };
        let now = desk.now;
        match (asked, answer) {
            (Asked::Submit(at), Answer::Reply(Ok(Reply::Submitted { id, state, .. }))) => {
                let mine = &mut self.tasks[at];
                mine.id = Some(id);
                desk.history.acked(mine.content, id);
                desk.history.told(id, state, sent, now);
            }
            (Asked::Submit(at), Answer::Reply(Err(refusal))) => {
                let what = format!("I12: {:?} was refused: {refusal}", self.tasks[at].input);
                desk.history.broken.get_or_insert(what);
            }
            (Asked::Read(at), Answer::Read { view, result }) => {
                let Some(id) = self.tasks[at].id else { return };
                let Some(view) = view else {
                    desk.history.broken.get_or_insert(format!("I1: {id} is not found"));
                    return;
                };
                desk.history.told(id, view.state, sent, now);
                if view.state.is_final() {
                    self.tasks[at].ended = true;
                    desk.history.read(id, result.as_deref());
                } else if view.asks.is_some() {
                    let (asker, answers) = (self.asker(), "{}".to_owned());
                    let asked = None;
                    desk.send(Body::Input(Input::Answer { asker, id, asked, answers }));
                }
            }
            (Asked::Cancel, Answer::Reply(Ok(Reply::State { id, state, .. }))) => {
                desk.history.told(id, state, sent, now);
                desk.history.cancel_acked(id, now);
            }
            _ => {}
        }
    }
}
