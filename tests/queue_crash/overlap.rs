//! Who held a task when, as far as the calls of its workers tell.

use super::history::{Event, Micros, State, Told, What};

/// How much longer than it says a lease may be taken to last: clocks are read at both ends.
const SLACK: Micros = 50_000;

/// A lease that was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// The call that gave it.
    pub(crate) given: &'a Event,
    pub(crate) fence: u64,
    lease: Micros,
}

/// The leases of a task, in the order in which they were asked for.
pub(crate) fn claims<'a>(events: &[&'a Event]) -> Vec<Claim<'a>> {
    let claim = |given: &&'a Event| match given.what {
        What::Claim { fence, lease, .. } => Some(Claim { given, fence, lease }),
        _ => None,
    };
    events.iter().filter_map(claim).collect()
}

/// Whether the newer lease was given while the older one still held.
///
/// A kill in between says nothing: a node that starts may take leases back.
pub(crate) fn both_held(
    older: &Claim<'_>,
    newer: &Claim<'_>,
    events: &[&Event],
    kills: &[Micros],
) -> bool {
    let killed = kills.iter().any(|kill| (older.given.from..=newer.given.to).contains(kill));
    if killed {
        return false;
    }
    // It was given or renewed at the earliest when that was asked for.
    let mut until = older.given.from.saturating_add(older.lease);
    let mut given_up = Micros::MAX;
    for event in events {
        match event.what {
            What::Heartbeat { fence, told: Told::Ok(_), .. } if fence == older.fence => {
                until = until.max(event.from.saturating_add(older.lease));
            }
            What::Complete { told: Told::Refused, .. }
            | What::Release { told: Told::Refused, .. } => {}
            What::Complete { fence, .. } | What::Release { fence, .. } if fence == older.fence => {
                given_up = given_up.min(event.from);
            }
            _ => {}
        }
    }
    newer.given.to.saturating_add(SLACK) < until && newer.given.to < given_up
}

/// What the holder of the older lease was still granted after the newer one had been given.
pub(crate) fn accepted_after<'a>(
    older: &Claim<'_>,
    newer: &Claim<'_>,
    events: &[&'a Event],
) -> Vec<&'a Event> {
    let later = |event: &&&Event| event.from > newer.given.to;
    let accepted = |event: &&&Event| match event.what {
        What::Heartbeat { fence, told: Told::Ok(_), .. }
        | What::Release { fence, told: Told::Ok(()), .. } => fence == older.fence,
        What::Complete { fence, mark, told: Told::Ok(state), .. } => {
            let again = || repeats(events, mark, newer.given.to);
            fence == older.fence && (state == State::Completed || !again())
        }
        _ => false,
    };
    events.iter().copied().filter(|event| later(&event) && accepted(&event)).collect()
}

/// Whether a completion that failed its task had been sent before: who was not told may ask again,
/// and is told what became of it.
fn repeats(events: &[&Event], wanted: u64, before: Micros) -> bool {
    let same =
        |event: &&&Event| matches!(event.what, What::Complete { mark, .. } if mark == wanted);
    events.iter().filter(same).any(|event| event.from < before)
}
