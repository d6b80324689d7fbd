//! What is demanded of tasks across nodes.

use super::Bound::{AtLeast, AtMost};
use super::Figure;
use crate::mesh_tasks::{Cost, IN_FLIGHT, Measured, Nodes, Round, SIZES};

/// Judges what was measured.
pub(super) fn figures(measured: &Measured) -> Vec<Figure> {
    let figure = |name: &str, unit, value: fn(&Round) -> f64| {
        let values = measured.rounds.iter().map(value).collect();
        Figure::new(format!("mesh tasks {name}"), unit, values)
    };
    let mut all = vec![
        figure("machine: fdatasync beside (a), p50", "ms", |round| round.fdatasync.p50_ms),
        figure("(a) raw echo + fdatasync, p50", "ms", |round| round.echo.p50_ms),
        figure("(a) submission, p50", "ms", |round| round.submit.p50_ms),
        figure("(a) submission, p99", "ms", |round| round.submit.p99_ms),
        figure("(a) submission, processor time of the node", "us", |round| round.submit.server_us),
        figure("(a) p50, submission : raw echo + fdatasync", "", |round| {
            round.submit.p50_ms / round.echo.p50_ms.max(f64::MIN_POSITIVE)
        })
        .demanding(AtMost(3.0), Some(AtMost(1.8))),
    ];
    for size in SIZES {
        let meshes = measured.rounds.iter().flat_map(|round| &round.meshes);
        let of_size: Vec<_> = meshes.filter(|nodes| nodes.size == size).collect();
        all.extend(of_nodes(size, &of_size));
    }
    all
}

fn of_nodes(size: usize, rounds: &[&Nodes]) -> Vec<Figure> {
    let figure = |name: &str, unit, value: fn(&Nodes) -> f64| {
        let values = rounds.iter().copied().map(value).collect();
        Figure::new(format!("mesh tasks, {size} nodes: {name}"), unit, values)
    };
    let cost = |name: &str, unit, value: fn(&Cost) -> f64| {
        let values = rounds.iter().map(|nodes| value(&nodes.cost)).collect();
        Figure::new(format!("mesh tasks, {size} nodes: (c) {name}"), unit, values)
    };
    let in_syncs = figure("(b) the p50, in fdatasyncs", "", |nodes| {
        nodes.result.p50_ms / nodes.fdatasync_ms.max(f64::MIN_POSITIVE)
    });
    let rate = figure(&format!("(c) tasks, {IN_FLIGHT} in flight"), "1/s", |nodes| {
        nodes.results.per_second
    });
    // What is promised is promised of two; with more, the machine is shared by more nodes than it has
    // processors.
    let is_two = size == SIZES[0];
    let judged = |figure: Figure, floor, aim| match is_two {
        true => figure.demanding(floor, Some(aim)),
        false => figure,
    };
    vec![
        figure("fdatasync beside (b)", "ms", |nodes| nodes.fdatasync_ms),
        figure("the tool called through the owner, p50", "ms", |nodes| nodes.call.p50_ms),
        figure("(b) submit to result, p50", "ms", |nodes| nodes.result.p50_ms),
        figure("(b) submit to result, p99", "ms", |nodes| nodes.result.p99_ms),
        judged(in_syncs, AtMost(10.0), AtMost(5.0)),
        figure("(b) of a tool that is not repeated, p50", "ms", |nodes| nodes.once.p50_ms),
        figure("(b) of such a tool, in fdatasyncs", "", |nodes| {
            nodes.once.p50_ms / nodes.fdatasync_ms.max(f64::MIN_POSITIVE)
        }),
        judged(rate, AtLeast(1_500.0), AtLeast(4_000.0)),
        figure("(c) a task, p99", "ms", |nodes| nodes.results.p99_ms),
        cost("processor time a task, owner", "us", |cost| cost.owner_us),
        cost("processor time a task, other nodes", "us", |cost| cost.runners_us),
        cost("processor time a task, the tool's server", "us", |cost| cost.tool_us),
        cost("the owner's syncs a task", "", |cost| cost.syncs),
        cost("share of all processors in use", "", |cost| cost.busy),
        cost("tasks of the node with fewest, in even shares", "", |cost| cost.fewest),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::figures::Load;

    fn load(milliseconds: u64) -> Load {
        Load::of(vec![Duration::from_millis(milliseconds); 10], Duration::from_secs(1), 0)
    }

    fn nodes(size: usize) -> Nodes {
        let cost = Cost {
            owner_us: 1.0,
            runners_us: 1.0,
            tool_us: 1.0,
            syncs: 0.1,
            busy: 1.0,
            fewest: 1.0,
        };
        Nodes {
            size,
            fdatasync_ms: 1.0,
            call: load(1),
            result: load(10),
            once: load(11),
            results: load(1),
            cost,
        }
    }

    #[test]
    fn floors_are_for_two_nodes_and_the_rest_is_told() {
        let meshes = SIZES.into_iter().map(nodes).collect();
        let round = Round { fdatasync: load(1), echo: load(2), submit: load(7), meshes };
        let figures = figures(&Measured { rounds: vec![round] });
        let demands = figures.iter().filter_map(|figure| figure.demand.as_ref());
        let held: Vec<_> = demands.map(|demand| (demand.floor_holds, demand.aim_reached)).collect();
        assert_eq!(held, [(false, Some(false)), (true, Some(false)), (false, Some(false))]);
        let eight = figures.iter().filter(|figure| figure.name.contains("8 nodes"));
        assert_eq!(eight.count(), 15);
    }
}
