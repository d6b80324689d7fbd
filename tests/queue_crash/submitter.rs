//! Who hands tasks to the nodes, asks after them and changes their mind.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    history::{Cancelled, Event, Kind, Site, Span, State, TaskId, Token, Told, What},
    load::{Load, Part},
};
use crate::support::{Caller, Random, Reply, pause};

/// Tokens of one submitter; those of the next begin after them.
const TOKENS: Token = 1_000_000_000;

/// How many of its tasks a submitter remembers, to come back to them.
const REMEMBERED: usize = 64;

/// Attempts that the workers fail of a task that is never to succeed.
const NEVER: u64 = 99;

/// A submission as it is sent, and sent again if nobody says what became of it.
#[derive(Debug, Clone)]
struct Order {
    owner: Site,
    token: Token,
    kind: Kind,
    keyed: bool,
    arguments: Value,
}

/// A task that was acknowledged.
#[derive(Debug, Clone)]
struct Known {
    task: TaskId,
    order: Order,
}

struct Submitter<'a> {
    load: &'a Load,
    /// The node that it calls.
    own: Site,
    random: Random,
    caller: Caller,
    events: Vec<Event>,
    known: Vec<Known>,
    next: Token,
}

/// Submits until there is enough.
pub(crate) fn run(load: &Load, number: u64, random: Random) -> Part {
    let own = load.site_of(number);
    load.gate(own).enter()?;
    let caller = load.gate(own).caller()?;
    let next = number * TOKENS + 1;
    let (events, known) = (Vec::new(), Vec::new());
    let mut submitter = Submitter { load, own, random, caller, events, known, next };
    while load.is_loaded() {
        submitter.step()?;
    }
    Ok(submitter.events)
}

impl Submitter<'_> {
    fn step(&mut self) -> Result<(), String> {
        if self.random.percent(4) {
            return self.cancel();
        }
        if self.random.percent(4) {
            return self.read();
        }
        if self.random.percent(4) {
            return self.repeat();
        }
        if self.load.begin() {
            let order = self.order();
            return self.submit(order);
        }
        pause(Duration::from_millis(20));
        Ok(())
    }

    /// Makes up a task.
    fn order(&mut self) -> Order {
        let token = self.next;
        self.next += 1;
        let owner = self.load.site_for(self.own, &mut self.random);
        // Through one node nobody reaches tools of a third.
        let tools = self.load.gate(owner).tools.as_slice();
        let tools = if owner == self.own { tools } else { &tools[..1] };
        let at = self.random.pick(tools).cloned().unwrap_or_default();
        let kind = match self.random.below(100) {
            // What other nodes may run is what a mesh is about.
            0..20 if self.load.is_mesh() => Kind::SafeTool,
            20..40 if self.load.is_mesh() => Kind::OnceTool,
            0..50 => Kind::Plain,
            50..65 => Kind::Once,
            65..80 => Kind::Flaky,
            80..90 => Kind::SafeTool,
            _ => Kind::OnceTool,
        };
        let mut arguments = json!({
            "priority": 1 + self.random.below(10),
            "metadata": {"token": token},
        });
        let tool = |name: &str, time: u64| {
            let given = json!({"id": token.to_string(), "delay_ms": time});
            ("tool.call", json!({"tool": format!("{at}{name}"), "arguments": given}))
        };
        let (task_type, payload) = match kind {
            Kind::Plain => ("job.plain", json!({"token": token})),
            Kind::Once => ("job.once", json!({"token": token})),
            Kind::Flaky => ("job.flaky", json!({"token": token, "fails": self.failures()})),
            Kind::SafeTool => tool("safe_read", self.duration_ms()),
            Kind::OnceTool => tool("unsafe_increment", self.duration_ms()),
        };
        self.load.address(&mut arguments, self.own, owner);
        arguments["task_type"] = task_type.into();
        arguments["payload"] = payload;
        if kind == Kind::Once {
            arguments["on_lost"] = "fail".into();
        }
        // To ask for attempts is to say that a failed one may be repeated.
        if !kind.runs_once() {
            arguments["max_attempts"] = (if kind == Kind::Flaky { 4 } else { 20 }).into();
            arguments["retry"] = json!({"backoff_s": 1, "factor": 1, "max_s": 1});
        }
        if self.random.percent(10) {
            arguments["delay_s"] = (1 + self.random.below(2)).into();
        }
        let keyed = self.random.percent(85);
        if keyed {
            arguments["idempotency_key"] = format!("key-{token}").into();
        }
        Order { owner, token, kind, keyed, arguments }
    }

    /// How long a call takes: some are long enough that a kill finds them under way, and in a mesh
    /// some need longer than a lease, so that their heartbeats have to get through.
    fn duration_ms(&mut self) -> u64 {
        let most = match self.random.below(100) {
            0..30 if self.load.is_mesh() => 8_000,
            0..30 => 400,
            _ => 30,
        };
        self.random.below(most)
    }

    /// How often the workers fail a flaky task.
    fn failures(&mut self) -> u64 {
        if self.random.percent(20) { NEVER } else { 1 + self.random.below(2) }
    }

    /// Submits; with a key again and again until something is known of it.
    fn submit(&mut self, order: Order) -> Result<(), String> {
        loop {
            let told = self.submit_once(&order)?;
            if let Told::Ok(task) = told {
                self.remember(Known { task, order });
                return Ok(());
            }
            if told == Told::Refused || !order.keyed || self.load.is_over() {
                return Ok(());
            }
        }
    }

    fn submit_once(&mut self, order: &Order) -> Result<Told<TaskId>, String> {
        let (reply, span) = self.call("submit", &order.arguments)?;
        let told = Told::of(&reply, |value| task_id(&value["task_id"]))?;
        let Order { owner, token, kind, keyed, .. } = *order;
        self.events.push(span.event(What::Submit { owner, token, kind, keyed, told }));
        Ok(told)
    }

    fn remember(&mut self, known: Known) {
        if self.known.len() == REMEMBERED {
            self.known.remove(0);
        }
        self.known.push(known);
    }

    /// Submits again what was acknowledged: it is the same task.
    fn repeat(&mut self) -> Result<(), String> {
        let known = self.random.pick(&self.known).filter(|known| known.order.keyed).cloned();
        known.map_or(Ok(()), |known| self.submit_once(&known.order).map(drop))
    }

    fn cancel(&mut self) -> Result<(), String> {
        // The latest still waits or runs; others may have ended.
        let latest = self.random.percent(50).then(|| self.known.last()).flatten();
        let known = latest.or_else(|| self.random.pick(&self.known));
        let Some(task) = known.map(|known| known.task) else { return Ok(()) };
        let arguments = json!({"task_id": hex(task), "reason": "the test changed its mind"});
        let (reply, span) = self.call("cancel", &arguments)?;
        self.missed(&reply, span, task);
        let told = Told::of(&reply, |value| match State::parse(value["state"].as_str()?)? {
            State::Cancelled => Some(Cancelled::Done),
            State::Completed | State::Failed => Some(Cancelled::TooLate),
            State::Queued | State::Running => {
                value["cancel_requested"].as_bool().filter(|asked| *asked).map(|_| Cancelled::Asked)
            }
        })?;
        self.events.push(span.event(What::Cancel { task, told }));
        Ok(())
    }

    fn read(&mut self) -> Result<(), String> {
        let Some(task) = self.random.pick(&self.known).map(|known| known.task) else {
            return Ok(());
        };
        let (reply, span) = self.call("task_status", &json!({"task_id": hex(task)}))?;
        self.missed(&reply, span, task);
        let state = |value: &Value| State::parse(value["task"]["state"].as_str()?);
        if let Told::Ok(state) = Told::of(&reply, state)? {
            self.events.push(span.event(What::Read { task, state }));
        }
        Ok(())
    }

    /// Notes that a task which was acknowledged is said not to be there.
    fn missed(&mut self, reply: &Reply, span: Span, task: TaskId) {
        if reply.code() == "not_found" {
            self.events.push(span.event(What::Missed { task }));
        }
    }

    fn call(&mut self, name: &str, arguments: &Value) -> Result<(Reply, Span), String> {
        self.load.call(&mut self.caller, name, arguments)
    }
}

/// Reads a task's id.
pub(crate) fn task_id(value: &Value) -> Option<TaskId> {
    TaskId::from_str_radix(value.as_str()?, 16).ok()
}

/// Writes a task's id.
pub(crate) fn hex(task: TaskId) -> String {
    format!("{task:032x}")
}
