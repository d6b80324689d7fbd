//! Nodes with few and with very many waiting tasks: what a claim costs, what the tasks take, and how
//! soon a node that was killed is ready again.

use std::{cell::Cell, rc::Rc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::calls;
use crate::{
    Plan, Result,
    figures::Load,
    load::{self, Connection},
    process::Server,
    requests::{self, Template},
    wire,
};

/// Tasks that wait where there are few: what a claim costs there is what the others are measured by.
pub(crate) const FEW: u32 = 1_000;

/// Tasks that wait where there are many: as many as a queue takes out of the box.
pub(crate) const MANY: u32 = 1_000_000;

/// A size between them.
const SOME: u32 = 100_000;

/// Connections over which the tasks are submitted. Many share a sync.
const FILLING: usize = 128;

/// Longest time for that: hours are no measurement.
const FILL_TIME: Duration = Duration::from_secs(3_600);

/// How often a node is killed and started again.
const RESTARTS: u16 = 3;

/// How long it may take to be ready; a floor that does not hold should be measured, not given up.
const RESTART_TIME: Duration = Duration::from_secs(120);

/// How often it is asked whether it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Types, priorities and submitters of the tasks, in every combination.
const TYPES: usize = 8;
const PRIORITIES: [u8; 4] = [3, 5, 7, 9];
const SUBMITTERS: usize = 4;
const KINDS: usize = TYPES * PRIORITIES.len() * SUBMITTERS;

/// The one worker.
const WORKER: &str = "bench";

/// What was measured with one number of waiting tasks.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// How many wait.
    pub(crate) tasks: u32,
    /// Their submission.
    pub(crate) filling: Load,
    /// Resident MiB beyond those of the idle node: after they were submitted, and after a restart.
    pub(crate) memory_mib: [f64; 2],
    /// One a round.
    pub(crate) cycles: Vec<Cycle>,
    /// Seconds from each start of the process until it was ready.
    pub(crate) ready_s: Vec<f64>,
}

/// Tasks claimed, completed and replaced by others of their kind, one at a time, so that as many wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cycle {
    /// The claims, which need not be on disk.
    pub(crate) claim: Load,
    /// The completions.
    pub(crate) complete: Load,
    /// The submissions.
    pub(crate) submit: Load,
    /// Processor time of the node for one of each, in microseconds.
    pub(crate) server_us: f64,
}

/// Measures with every number of tasks up to the plan's.
///
/// # Errors
/// A node does not start, answers with anything but what is measured, or loses a task.
pub(crate) async fn all(plan: Plan) -> Result<Vec<Backlog>> {
    let mut nodes = Vec::new();
    for tasks in [FEW, SOME].into_iter().filter(|fewer| *fewer < plan.tasks).chain([plan.tasks]) {
        nodes.push(Node::start(tasks).await?);
    }
    tokio::time::sleep(plan.idle).await;
    let mut backlogs = Vec::new();
    for node in &nodes {
        let idle = node.server.process.memory()?;
        backlogs.push((idle, node.fill().await?));
    }
    tokio::time::sleep(plan.idle).await;
    let mut measured = Vec::new();
    for (node, (idle, filling)) in nodes.iter().zip(&backlogs) {
        node.has_all().await?;
        let memory_mib = [node.server.process.memory()? - idle, 0.0];
        let (tasks, filling) = (node.tasks, *filling);
        measured.push(Backlog { tasks, filling, memory_mib, cycles: vec![], ready_s: vec![] });
    }
    for number in 1..=plan.rounds {
        eprintln!("queue: claims, round {number} of {}", plan.rounds);
        let mut pairs: Vec<_> = nodes.iter().zip(&mut measured).collect();
        if number.is_multiple_of(2) {
            pairs.reverse();
        }
        for (node, backlog) in pairs {
            backlog.cycles.push(node.cycle(plan.load / 2).await?);
        }
    }
    for ((mut node, backlog), (idle, _)) in nodes.into_iter().zip(&mut measured).zip(&backlogs) {
        eprintln!("queue: {} tasks, {RESTARTS} restarts", node.tasks);
        for _ in 0..RESTARTS {
            let (again, ready) = node.restart().await?;
            backlog.ready_s.push(ready.as_secs_f64());
            node = again;
        }
        tokio::time::sleep(plan.idle).await;
        backlog.memory_mib[1] = node.server.process.memory()? - idle;
    }
    Ok(measured)
}

/// A node, its operator, and what is submitted to it.
#[derive(Debug)]
struct Node {
    server: Server,
    tasks: u32,
    /// The operator's token, whose holder may claim what others submitted.
    operator: String,
    submitters: [Option<String>; SUBMITTERS],
    kinds: Rc<Vec<Template>>,
    /// The next task's number: each has an idempotency key of its own.
    next: Rc<Cell<u32>>,
}

impl Node {
    async fn start(tasks: u32) -> Result<Self> {
        let server = Server::node("", &[]).await?;
        let mut submitters = [const { None }; SUBMITTERS];
        // The first needs no token: on loopback it is the local principal.
        for (number, submitter) in submitters.iter_mut().enumerate().skip(1) {
            let created = server.command(&["token", "create", &format!("bench-{number}")])?;
            let token = created["token"].as_str().ok_or_else(|| format!("no token: {created}"))?;
            *submitter = Some(token.to_owned());
        }
        Self::of(server, tasks, submitters, Rc::default())
    }

    fn of(
        server: Server,
        tasks: u32,
        submitters: [Option<String>; SUBMITTERS],
        next: Rc<Cell<u32>>,
    ) -> Result<Self> {
        let operator = std::fs::read_to_string(server.data()?.join("operator.token"))?;
        let operator = operator.trim().to_owned();
        let kinds = (0..KINDS).map(|kind| {
            let submitter = kind / (TYPES * PRIORITIES.len());
            let token = submitters.get(submitter).and_then(Option::as_deref);
            Template::call(server.address, token, calls::SUBMIT, &of_kind(kind))
        });
        let kinds = Rc::new(kinds.collect::<Result<_>>()?);
        Ok(Self { server, tasks, operator, submitters, kinds, next })
    }

    /// Submits all tasks.
    async fn fill(&self) -> Result<Load> {
        eprintln!("queue: submitting {} tasks", self.tasks);
        let (kinds, next, tasks) = (self.kinds.clone(), self.next.clone(), self.tasks);
        let step = async move |connection: &mut Connection, _: usize| {
            if next.get() == tasks {
                return Ok(None);
            }
            let request = submission(&kinds, &next, None)?;
            connection.exchange(&request, calls::is_created).await.map(Some)
        };
        let load = load::repeat(self.server.address, FILLING, FILL_TIME, step);
        self.server.process.loaded(load).await
    }

    /// Makes sure that every task waits.
    async fn has_all(&self) -> Result<()> {
        let request = self.as_operator(calls::STATUS, &json!({}));
        let result = load::once(self.server.address, &request).await?;
        let counts = &result["structuredContent"]["counts"];
        if counts["queued"] == self.tasks && counts["running"] == 0 {
            Ok(())
        } else {
            Err(format!("{} tasks should wait: {counts}", self.tasks).into())
        }
    }

    async fn cycle(&self, length: Duration) -> Result<Cycle> {
        let claim = self.as_operator(calls::CLAIM, &json!({"worker_id": WORKER}));
        let mut connection = Connection::open(self.server.address).await?;
        let [mut claims, mut completions, mut submissions] = [const { Vec::new() }; 3];
        let processor = self.server.process.processor_time()?;
        let started = Instant::now();
        while started.elapsed() < length {
            let (claimed, taken) = connection.ask(&claim).await?;
            claims.push(taken);
            let task = &claimed["structuredContent"]["tasks"][0];
            let (completed, taken) = connection.ask(&self.completion(task)).await?;
            completions.push(taken);
            if completed["structuredContent"]["state"] != "completed" {
                return Err(format!("a completion was answered with {completed}").into());
            }
            let kind = task["payload"]["kind"].as_u64().and_then(|kind| kind.try_into().ok());
            let kind: usize = kind.ok_or_else(|| format!("a claim was answered with {claimed}"))?;
            let request = submission(&self.kinds, &self.next, Some(kind))?;
            let before = Instant::now();
            connection.exchange(&request, calls::is_created).await?;
            submissions.push(before.elapsed());
        }
        let elapsed = started.elapsed();
        let processor = self.server.process.processor_time()?.saturating_sub(processor);
        let of = |times| Load::of(times, elapsed, 0);
        let claim = of(claims).with_processor_time(processor, Duration::ZERO);
        Ok(Cycle {
            claim,
            complete: of(completions),
            submit: of(submissions),
            server_us: claim.server_us,
        })
    }

    fn completion(&self, task: &Value) -> Vec<u8> {
        let arguments = json!({
            "task_id": task["task_id"], "fence": task["fence"], "worker_id": WORKER,
            "result": {"message": calls::MESSAGE},
        });
        self.as_operator(calls::COMPLETE, &arguments)
    }

    fn as_operator(&self, tool: &str, arguments: &Value) -> Vec<u8> {
        requests::call_as(self.server.address, Some(&self.operator), tool, arguments)
    }

    /// Kills the node and starts it again. Returns with it how long it took until it was ready.
    async fn restart(self) -> Result<(Self, Duration)> {
        let Self { server, tasks, submitters, next, .. } = self;
        let (server, started) = server.restart(RESTART_TIME).await?;
        let mut connection = Connection::open(server.address).await?;
        let request = requests::page(server.address, "/readyz");
        let mut status = 0;
        while status != 200 {
            if started.elapsed() > RESTART_TIME {
                return Err(format!("/readyz still says {status} after a restart").into());
            }
            let look = |response: &wire::Response<'_>| {
                status = response.status;
                Ok(())
            };
            connection.exchange(&request, look).await?;
            if status != 200 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        let ready = started.elapsed();
        let node = Self::of(server, tasks, submitters, next)?;
        node.has_all().await?;
        Ok((node, ready))
    }
}

/// The arguments of a task; its kind is in its payload, so that whoever claims it knows.
fn of_kind(kind: usize) -> Value {
    let priority = PRIORITIES.get(kind / TYPES % PRIORITIES.len());
    json!({
        "task_type": format!("bench.{}", kind % TYPES),
        "payload": {"message": calls::MESSAGE, "kind": kind},
        "priority": priority,
        "idempotency_key": Template::PLACE,
    })
}

/// The next task's submission, of `kind` or of the kind whose turn it is.
fn submission(kinds: &[Template], next: &Cell<u32>, kind: Option<usize>) -> Result<Vec<u8>> {
    let number = next.get();
    next.set(number + 1);
    let turn = usize::try_from(number)? % kinds.len().max(1);
    let template = kinds.get(kind.unwrap_or(turn)).ok_or("a task of no kind")?;
    // As long as a UUID, which is what people take.
    Ok(template.with(&format!("bench-{number:030}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_another_and_keys_never_repeat() -> Result<()> {
        let kinds: Result<Vec<_>> = (0..KINDS)
            .map(|kind| Template::call("127.0.0.1:1".parse()?, None, calls::SUBMIT, &of_kind(kind)))
            .collect();
        let (kinds, next) = (kinds?, Cell::new(0));
        let first = submission(&kinds, &next, None)?;
        let same = submission(&kinds, &next, Some(0))?;
        assert_eq!(first.len(), same.len());
        assert!(first != same && next.get() == 2);
        assert!(submission(&kinds, &next, Some(KINDS)).is_err());
        let of = |field: &str| (0..KINDS).map(|kind| of_kind(kind)[field].to_string()).collect();
        let (types, priorities): (BTreeSet<_>, BTreeSet<_>) = (of("task_type"), of("priority"));
        assert_eq!((types.len(), priorities.len()), (TYPES, PRIORITIES.len()));
        Ok(())
    }
}
