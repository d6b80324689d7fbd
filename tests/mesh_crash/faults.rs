//! What is done to the nodes while clients call them: a plan that a seed makes, and one thread for
//! each node that carries its part out.

use std::{thread, time::Duration};

use rustix::process::Signal;

use crate::{
    crash::{
        Load,
        history::{Event, Micros, Site, What},
    },
    mesh::{Member, Mesh, SITES},
    support::{Outcome, Random, pause},
};

/// How often a node is cut off from the others in CI, and for how long.
const PARTITIONS: u64 = 20;
const CUT: Duration = Duration::from_secs(3);

/// One in so many partitions lasts so long that the nodes give their connections up.
const LONG: u64 = 7;
const LONG_CUT: Duration = Duration::from_secs(13);

/// One in so many partitions is between two nodes only: the third reaches both.
const PAIR: u64 = 4;

/// The mean time from one partition to the next, and the time that a plan without any takes for a
/// kill.
const BETWEEN: Duration = Duration::from_millis(1_500);

/// The mean time that a killed node stays away.
const AWAY: Duration = Duration::from_millis(300);

/// One in so many kills hits the node once more when it was started again, within [`START`].
const AT_START: u64 = 4;
const START: Duration = Duration::from_millis(400);

/// How long a node is stopped, beyond the lease of 5 s; and one in so many times so long that the
/// others give their connections up.
const STOP: Duration = Duration::from_secs(5);
const STOP_MORE: Duration = Duration::from_millis(2_500);
const LONG_STOP: Duration = Duration::from_secs(13);

/// Tasks that may be submitted from one fault of a node to its next.
const TASKS: u64 = 50;

/// What is done to a node.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// Unplugs it.
    Cut,
    /// Lets it and this one reach each other no more.
    CutFrom(Site),
    /// Undoes either.
    Heal,
    /// Kills it.
    Kill,
    /// Starts it and kills it this much later.
    KillAtStart(Duration),
    /// Starts it, if it is down.
    Up,
    /// Stops it, without a warning.
    Freeze,
    /// Lets it go on as if nothing had happened.
    Thaw,
}

/// How much of each fault there is to be.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) partitions: u64,
    pub(crate) kills: u64,
    pub(crate) stops: u64,
}

impl Faults {
    /// What the environment asks for, else what CI does; of the others in proportion to partitions.
    ///
    /// # Errors
    /// A variable is no number.
    pub(crate) fn wanted() -> Outcome<Self> {
        let number = |variable: &str, default| {
            std::env::var(variable).map_or(Ok(default), |number| number.parse())
        };
        let partitions = number("TOOLMESH_PARTITIONS", PARTITIONS)?;
        Ok(Self {
            partitions,
            kills: number("TOOLMESH_KILLS", partitions * 2)?,
            stops: number("TOOLMESH_STOPS", partitions * 3 / 10)?,
        })
    }

    /// Whether there is no more of anything than in CI.
    pub(crate) fn are_of_ci(&self) -> bool {
        self.partitions <= PARTITIONS && self.kills <= PARTITIONS * 2 && self.stops <= PARTITIONS
    }

    /// Makes up what happens to each node and when, in the order of time; in the end all is well.
    fn plan(&self, random: &mut Random) -> [Vec<(Micros, Deed)>; SITES] {
        let mut plan: [Vec<(Micros, Deed)>; SITES] = Default::default();
        let mut now = Duration::ZERO;
        for number in 0..self.partitions {
            now += random.exponential(BETWEEN);
            let site = random.below(SITES as u64) as usize;
            let cut = match number % PAIR {
                3 => Deed::CutFrom((site + 1) % SITES),
                _ => Deed::Cut,
            };
            plan[site].push((micros(now), cut));
            now += if number % LONG == LONG - 1 { LONG_CUT } else { CUT };
            plan[site].push((micros(now), Deed::Heal));
        }
        let length = now.max(BETWEEN * u32::try_from(self.kills).unwrap_or(u32::MAX));
        for number in 0..self.kills {
            let (site, mut at) = (random.below(SITES as u64) as usize, random.time(length));
            plan[site].push((micros(at), Deed::Kill));
            at += random.exponential(AWAY);
            if number % AT_START == AT_START - 1 {
                plan[site].push((micros(at), Deed::KillAtStart(random.time(START))));
                at += START + random.exponential(AWAY);
            }
            plan[site].push((micros(at), Deed::Up));
        }
        for number in 0..self.stops {
            // One after the other, so that two at most are not there at a time.
            let share = length / u32::try_from(self.stops).unwrap_or(1);
            let begin = share * u32::try_from(number).unwrap_or_default() + random.time(share / 2);
            let time = match number % 3 {
                2 => LONG_STOP,
                _ => STOP + random.time(STOP_MORE),
            };
            let site = random.below(SITES as u64) as usize;
            plan[site].push((micros(begin), Deed::Freeze));
            plan[site].push((micros(begin + time), Deed::Thaw));
        }
        for deeds in &mut plan {
            deeds.sort_by_key(|(at, _)| *at);
            deeds.extend([(micros(length), Deed::Thaw), (micros(length), Deed::Up)]);
        }
        plan
    }

    /// Lets it all happen, and leaves every node up and connected. Returns the deaths.
    ///
    /// # Errors
    /// A node does not start, or the network does not do as it should.
    pub(crate) fn happen(
        &self,
        mesh: &mut Mesh,
        load: &Load,
        random: &mut Random,
    ) -> Outcome<Vec<Event>> {
        let plan = self.plan(random);
        let begin = load.clock.now();
        let parts = thread::scope(|scope| {
            let members = mesh.nodes.iter_mut().zip(plan).enumerate();
            let doing: Vec<_> = members
                .map(|(site, (member, deeds))| {
                    scope.spawn(move || do_all(site, member, &deeds, load, begin))
                })
                .collect();
            doing.into_iter().map(|part| part.join()).collect::<Vec<_>>()
        });
        let mut deaths = Vec::new();
        for part in parts {
            deaths.extend(part.map_err(|_| "a plan panicked")??);
        }
        Ok(deaths)
    }
}

/// Carries out what is planned for one node from `begin` on; what is late is done at once.
fn do_all(
    site: Site,
    member: &mut Member,
    deeds: &[(Micros, Deed)],
    load: &Load,
    begin: Micros,
) -> Result<Vec<Event>, String> {
    let mut deaths = Vec::new();
    for (at, deed) in deeds {
        pause(Duration::from_micros((begin + at).saturating_sub(load.clock.now())));
        load.allow(TASKS.saturating_sub(load.room()));
        let from = load.clock.now();
        let done = do_to(member, *deed);
        done.map_err(|error| format!("{} {deed:?}: {error}", load.gate(site).name))?;
        if matches!(deed, Deed::Kill | Deed::KillAtStart(_)) {
            deaths.push(load.clock.event(from, What::Kill { node: site }));
        }
    }
    Ok(deaths)
}

fn do_to(member: &mut Member, deed: Deed) -> Outcome {
    match deed {
        Deed::Cut => member.machine.unplug(),
        Deed::CutFrom(other) => member.machine.part_from(other),
        Deed::Heal => member.machine.heal(),
        Deed::Kill => member.mortal.kill(),
        Deed::KillAtStart(after) => member.at(|mortal| mortal.kill_at_start(after)),
        Deed::Up => member.at(|mortal| mortal.up().map(drop)),
        Deed::Freeze => member.mortal.signal(Signal::STOP),
        Deed::Thaw => member.mortal.signal(Signal::CONT),
    }
}

fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
