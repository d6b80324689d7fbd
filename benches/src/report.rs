//! What is demanded of the figures, and how they are printed.

mod mesh_tasks;
mod queue;

use std::fmt;

use serde::Serialize;

use crate::{
    Plan,
    figures::{Load, median},
    measure::{CONNECTIONS, Measured, Round},
    mesh, mesh_tasks as tasks_of_nodes, queue as task_queue,
};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    cores: usize,
    rounds: u16,
    load_s: f64,
    floors_hold: bool,
    figures: Vec<Figure>,
}

/// One figure of every round, and what is demanded of their median.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    unit: &'static str,
    median: f64,
    values: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    demand: Option<Demand>,
}

/// A bound that must hold, and one we would like to reach.
#[derive(Debug, Serialize)]
struct Demand {
    floor: Bound,
    floor_holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim_reached: Option<bool>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
        }
    }
}

impl Figure {
    fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, median: median(&values), values, demand: None }
    }

    fn demanding(self, floor: Bound, aim: Option<Bound>) -> Self {
        let floor_holds = floor.holds(self.median);
        let aim_reached = aim.map(|aim| aim.holds(self.median));
        Self { demand: Some(Demand { floor, floor_holds, aim, aim_reached }), ..self }
    }
}

impl Report {
    /// Judges what was measured of a node, of several, of the task queue, and of tasks across nodes.
    pub(crate) fn new(
        plan: Plan,
        node: Option<&Measured>,
        mesh: Option<&mesh::Measured>,
        queue: Option<&task_queue::Measured>,
        tasks: Option<&tasks_of_nodes::Measured>,
    ) -> Self {
        let mut figures: Vec<Figure> = node.map(figures).unwrap_or_default();
        figures.extend(mesh.map(mesh_figures).unwrap_or_default());
        figures.extend(queue.map(queue::figures).unwrap_or_default());
        figures.extend(tasks.map(mesh_tasks::figures).unwrap_or_default());
        let floors_hold =
            figures.iter().filter_map(|figure| figure.demand.as_ref()).all(|d| d.floor_holds);
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rounds: plan.rounds,
            load_s: plan.load.as_secs_f64(),
            floors_hold,
            figures,
        }
    }

    /// Whether every floor held.
    pub(crate) fn floors_hold(&self) -> bool {
        self.floors_hold
    }
}

fn figures(measured: &Measured) -> Vec<Figure> {
    use Bound::{AtLeast, AtMost};
    let of = |value: fn(&Round) -> f64| measured.rounds.iter().map(value).collect::<Vec<_>>();
    let figure = |name: &str, unit, value: fn(&Round) -> f64| Figure::new(name, unit, of(value));
    let mut all = vec![
        figure("machine: fdatasync", "1/s", |round| round.fdatasyncs),
        figure(&format!("machine: raw echo, {CONNECTIONS} connections"), "1/s", |round| {
            round.raw.per_second
        }),
        figure("machine: raw echo, 1 connection, p50", "ms", |round| round.raw_single.p50_ms),
    ];
    all.extend(side("(a) bare server", &of_load(measured, |round| round.bare)));
    all.extend(side("(a) node", &of_load(measured, |round| round.node)));
    let ratio = figure("(a) calls/s, node : bare server", "", |round| {
        round.node.per_second / round.bare.per_second.max(f64::MIN_POSITIVE)
    });
    let added = figure("(b) p50 added by the node", "ms", |round| {
        round.through.p50_ms - round.direct.p50_ms
    });
    let memory = |name: &str, mib: f64| {
        Figure::new(name, "MiB", vec![mib]).demanding(AtMost(64.0), Some(AtMost(30.0)))
    };
    let [without, with] = measured.idle_mib;
    all.extend([
        ratio.demanding(AtLeast(0.7), Some(AtLeast(0.9))),
        figure("(b) upstream called directly, p50", "ms", |round| round.direct.p50_ms),
        figure("(b) upstream called through the node, p50", "ms", |round| round.through.p50_ms),
        added.demanding(AtMost(0.8), Some(AtMost(0.3))),
        memory("(c) idle memory, no upstream", without),
        memory("(c) idle memory, one upstream, with guard process", with),
        figure(&format!("(d) tools/list of {} tools, p50", measured.tools), "ms", |round| {
            round.list.p50_ms
        }),
        figure("(d) tools/list, response", "KiB", |round| kib(round.list.bytes)),
        figure("(d) tools_search in them, p50", "ms", |round| round.search.p50_ms)
            .demanding(AtMost(5.0), None),
    ]);
    all
}

fn mesh_figures(measured: &mesh::Measured) -> Vec<Figure> {
    use Bound::{AtLeast, AtMost};
    let figure = |name: &str, unit, value: fn(&mesh::Round) -> f64| {
        Figure::new(format!("mesh {name}"), unit, measured.rounds.iter().map(value).collect())
    };
    let many = mesh::IN_FLIGHT;
    let [kib, microseconds] = measured.idle_member;
    vec![
        figure("(a) raw echo, 1 in flight, p50", "ms", |round| round.single.echo.p50_ms),
        figure("(a) bare rmcp, 1 in flight, p50", "ms", |round| round.single.bare.p50_ms),
        figure("(a) node, 1 in flight, p50", "ms", |round| round.single.node.p50_ms),
        figure("(a) p50, node : raw echo", "", |round| {
            round.single.node.p50_ms / round.single.echo.p50_ms.max(f64::MIN_POSITIVE)
        })
        .demanding(AtMost(4.0), Some(AtMost(2.2))),
        figure(&format!("(a) raw echo, {many} in flight"), "1/s", |round| {
            round.many.echo.per_second
        }),
        figure(&format!("(a) bare rmcp, {many} in flight"), "1/s", |round| {
            round.many.bare.per_second
        }),
        figure(&format!("(a) node, {many} in flight"), "1/s", |round| round.many.node.per_second)
            .demanding(AtLeast(8_000.0), Some(AtLeast(20_000.0))),
        figure("(a) node, processor time a call", "us", |round| round.many.node.server_us),
        figure("(a) bare rmcp, processor time a call", "us", |round| round.many.bare.server_us),
        figure("(b) HTTP call at the node itself, p50", "ms", |round| round.near.p50_ms),
        figure("(b) HTTP call through another, p50", "ms", |round| round.far.p50_ms),
        figure("(b) p50 added by the hop", "ms", |round| round.far.p50_ms - round.near.p50_ms)
            .demanding(AtMost(1.0), Some(AtMost(0.4))),
        Figure::new(
            format!("mesh (c) an idle member of {}, memory", mesh::MEMBERS),
            "KiB",
            vec![kib],
        ),
        Figure::new("mesh (c) an idle member, processor time a second", "us", vec![microseconds]),
        Figure::new("mesh (d) `up --join` to the first answer", "ms", measured.joined_ms.clone())
            .demanding(AtMost(2_000.0), None),
    ]
}

fn of_load(measured: &Measured, load: fn(&Round) -> Load) -> Vec<Load> {
    measured.rounds.iter().map(load).collect()
}

/// What is told of each side of (a).
fn side(name: &str, loads: &[Load]) -> Vec<Figure> {
    let figure = |what: &str, unit, value: fn(&Load) -> f64| {
        Figure::new(format!("{name}, {what}"), unit, loads.iter().map(value).collect())
    };
    vec![
        figure("calls", "1/s", |load| load.per_second),
        figure("p50", "ms", |load| load.p50_ms),
        figure("p99", "ms", |load| load.p99_ms),
        figure("processor time a call", "us", |load| load.server_us),
        figure("the client's", "us", |load| load.client_us),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "the size of a response fits an f64")]
fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1_024.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, rounds, load_s, .. } = self;
        writeln!(
            f,
            "\n{cores} cores, {rounds} rounds, loads of {load_s} s; median (least to most)\n"
        )?;
        for figure in &self.figures {
            let Figure { name, unit, median, values, demand } = figure;
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let range = format!("({} to {})", short(least), short(most));
            write!(f, "{name:<56} {:>9} {unit:<4}", short(*median))?;
            match demand {
                None => writeln!(f, "{range}")?,
                Some(demand) => writeln!(f, "{range:<18} {demand}")?,
            }
        }
        let verdict = if self.floors_hold { "every floor holds" } else { "A FLOOR DOES NOT HOLD" };
        write!(f, "\n{verdict}")
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = if self.floor_holds { "holds" } else { "DOES NOT HOLD" };
        write!(f, "floor {} {holds}", self.floor)?;
        if let (Some(aim), Some(reached)) = (self.aim, self.aim_reached) {
            write!(f, "; aim {aim} {}", if reached { "reached" } else { "not reached" })?;
        }
        Ok(())
    }
}

/// Three or more digits that count.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_holds_at_its_bound_and_not_beyond() {
        for (bound, at, beyond) in
            [(Bound::AtLeast(0.7), 0.7, 0.69), (Bound::AtMost(5.0), 5.0, 5.01)]
        {
            let judged =
                |value| Figure::new("", "", vec![value]).demanding(bound, Some(bound)).demand;
            assert!(judged(at).is_some_and(|d| d.floor_holds && d.aim_reached == Some(true)));
            assert!(judged(beyond).is_some_and(|d| !d.floor_holds && d.aim_reached == Some(false)));
        }
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [1234.5, 123.4, 12.34, 1.234, 0.1234, -0.02].map(short);
        assert_eq!(shown, ["1234", "123", "12.3", "1.23", "0.123", "-0.020"]);
    }
}
