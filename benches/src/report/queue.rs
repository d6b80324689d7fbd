//! What is demanded of the task queue.

use super::Bound::{AtLeast, AtMost};
use super::{Figure, side};
use crate::{
    figures::Load,
    queue::{Backlog, CONNECTIONS, Cycle, FEW, MANY, Measured, Round, Sides},
};

/// Judges what was measured.
pub(super) fn figures(measured: &Measured) -> Vec<Figure> {
    let mut all = of_rounds(&measured.rounds);
    all.extend(of_backlogs(&measured.backlogs));
    all
}

fn of_backlogs(backlogs: &[Backlog]) -> Vec<Figure> {
    let mut all: Vec<_> = backlogs.iter().flat_map(of_backlog).collect();
    if let (Some(few), Some(many)) = (backlogs.first(), backlogs.last()) {
        let name = |what: &str| format!("queue (d) {what}, {} : {FEW} waiting", many.tasks);
        let ratio = |value: fn(&Cycle) -> f64| {
            let pairs = many.cycles.iter().zip(&few.cycles);
            pairs.map(|(many, few)| value(many) / value(few).max(f64::MIN_POSITIVE)).collect()
        };
        all.extend([
            Figure::new(name("claim p50"), "", ratio(|cycle| cycle.claim.p50_ms))
                .demanding(AtMost(3.0), Some(AtMost(1.5))),
            Figure::new(name("node's time a cycle"), "", ratio(|cycle| cycle.server_us)),
        ]);
    }
    all
}

fn of_rounds(rounds: &[Round]) -> Vec<Figure> {
    let figure = |name: &str, unit, value: fn(&Round) -> f64| {
        Figure::new(format!("queue {name}"), unit, rounds.iter().map(value).collect())
    };
    let sides = |name: &str, sides: fn(&Round) -> &Sides, load: fn(&Sides) -> Load| {
        let loads: Vec<_> = rounds.iter().map(|round| load(sides(round))).collect();
        side(&format!("queue {name}"), &loads)
    };
    let many = |what: &str| format!("{what}, {CONNECTIONS} connections");
    let mut all = vec![
        figure("machine: fdatasync beside (a)", "1/s", |round| round.fdatasyncs),
        figure("machine: fdatasync beside (c)", "1/s", |round| round.fdatasyncs_of_results),
        figure("(a) echo, 1 connection, p50", "ms", |round| round.single.echo.p50_ms),
        figure("(a) submit, 1 connection, p50", "ms", |round| round.single.submit.p50_ms),
        figure("(a) submit, 1 connection, p99", "ms", |round| round.single.submit.p99_ms),
        figure("(a) p50, submit - echo, in fdatasyncs", "", |round| {
            let added = round.single.submit.p50_ms - round.single.echo.p50_ms;
            in_syncs(added, round.fdatasyncs)
        })
        .demanding(AtMost(3.0), Some(AtMost(1.5))),
    ];
    all.extend(sides(&many("(a) echo"), |round| &round.many, |sides| sides.echo));
    all.extend(sides(&many("(a) submit"), |round| &round.many, |sides| sides.submit));
    all.extend([
        figure(&many("(a) submit : echo"), "", |round| ratio(&round.many.submit, &round.many.echo))
            .demanding(AtLeast(0.4), Some(AtLeast(0.7))),
        figure("(b) redis LPUSH, 1 connection, p50", "ms", |round| round.single.push.p50_ms),
        figure("(b) p50, submit : LPUSH, 1 connection", "", |round| {
            round.single.submit.p50_ms / round.single.push.p50_ms.max(f64::MIN_POSITIVE)
        }),
        figure(&many("(b) redis LPUSH"), "1/s", |round| round.many.push.per_second),
        figure(&many("(b) submit : LPUSH"), "", |round| {
            ratio(&round.many.submit, &round.many.push)
        }),
        figure("(c) submit to result, one at a time, p50", "ms", |round| round.result.p50_ms),
        figure("(c) submit to result, one at a time, p99", "ms", |round| round.result.p99_ms),
        figure("(c) the p50, in fdatasyncs", "", |round| {
            in_syncs(round.result.p50_ms, round.fdatasyncs_of_results)
        })
        .demanding(AtMost(8.0), Some(AtMost(4.0))),
        figure(&format!("(c) tasks, {CONNECTIONS} in flight"), "1/s", |round| {
            round.results.per_second
        }),
        figure(&format!("(c) a task, {CONNECTIONS} in flight, p99"), "ms", |round| {
            round.results.p99_ms
        }),
        figure("(c) node's processor time a task", "us", |round| round.results.server_us),
    ]);
    all
}

fn of_backlog(backlog: &Backlog) -> Vec<Figure> {
    let name = |what: &str| format!("queue (d) {} waiting, {what}", backlog.tasks);
    let cycles = |what: &str, unit, value: fn(&Cycle) -> f64| {
        Figure::new(name(what), unit, backlog.cycles.iter().map(value).collect())
    };
    let [filled, restarted] = backlog.memory_mib;
    let memory = |what: &str, mib| Figure::new(name(what), "MiB", vec![mib]);
    let ready = Figure::new(name("ready again"), "s", backlog.ready_s.clone());
    let limited = [
        (memory("memory", filled), 500.0, 300.0),
        (memory("memory after a restart", restarted), 500.0, 300.0),
        (ready, 20.0, 8.0),
    ];
    let mut all = vec![
        Figure::new(name("submitted at"), "1/s", vec![backlog.filling.per_second]),
        cycles("claim p50", "ms", |cycle| cycle.claim.p50_ms),
        cycles("claim p99", "ms", |cycle| cycle.claim.p99_ms),
        cycles("completion p50", "ms", |cycle| cycle.complete.p50_ms),
        cycles("submission p50", "ms", |cycle| cycle.submit.p50_ms),
        cycles("node's time a cycle", "us", |cycle| cycle.server_us),
    ];
    // Floors are for the number that is promised; with fewer tasks they would say nothing.
    all.extend(limited.into_iter().map(|(figure, floor, aim)| match backlog.tasks {
        MANY => figure.demanding(AtMost(floor), Some(AtMost(aim))),
        _ => figure,
    }));
    all
}

/// Milliseconds as a number of calls of `fdatasync`.
fn in_syncs(milliseconds: f64, syncs_per_second: f64) -> f64 {
    milliseconds * syncs_per_second / 1_000.0
}

fn ratio(one: &Load, other: &Load) -> f64 {
    one.per_second / other.per_second.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(milliseconds: u64) -> Load {
        Load::of(vec![Duration::from_millis(milliseconds); 10], Duration::from_secs(1), 0)
    }

    fn backlog(tasks: u32, milliseconds: u64) -> Backlog {
        let one = load(milliseconds);
        let cycle = Cycle { claim: one, complete: one, submit: one, server_us: 1.0 };
        Backlog {
            tasks,
            filling: one,
            memory_mib: [501.0, 299.0],
            cycles: vec![cycle],
            ready_s: vec![9.0],
        }
    }

    fn demands(figures: Vec<Figure>) -> Vec<(String, bool, Option<bool>)> {
        let demanded = figures.into_iter().filter_map(|figure| {
            let demand = figure.demand?;
            Some((figure.name, demand.floor_holds, demand.aim_reached))
        });
        demanded.collect()
    }

    #[test]
    fn floors_are_in_syncs_of_the_same_round() {
        let sides = |submit| Sides { echo: load(1), submit: load(submit), push: load(1) };
        let round = Round {
            fdatasyncs: 1_000.0,
            single: sides(5),
            many: sides(1),
            fdatasyncs_of_results: 500.0,
            result: load(8),
            results: load(8),
        };
        let demands = demands(figures(&Measured { rounds: vec![round], backlogs: vec![] }));
        let held: Vec<_> = demands.iter().map(|(_, floor, aim)| (*floor, *aim)).collect();
        assert_eq!(held, [(false, Some(false)), (true, Some(true)), (true, Some(true))]);
    }

    #[test]
    fn what_a_million_takes_is_demanded_of_a_million_alone() {
        let whole = demands(of_backlogs(&[backlog(FEW, 1), backlog(MANY, 2)]));
        let held: Vec<_> = whole.iter().map(|(_, floor, aim)| (*floor, *aim)).collect();
        let expected = [(false, false), (true, true), (true, false), (true, false)];
        assert_eq!(held, expected.map(|(floor, aim)| (floor, Some(aim))));
        let fewer = demands(of_backlogs(&[backlog(FEW, 1), backlog(50_000, 2)]));
        assert_eq!(fewer.len(), 1, "the claims are compared whatever waits");
        assert!(fewer[0].0.contains("50000 : 1000"));
    }
}
