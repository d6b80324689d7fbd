use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::{limits, time::millis};

const US: &str = "peer-us";

fn at(ms: u64) -> Now {
    Now { ms, unix: 1_000 + ms / 1_000, chance: 0.0 }
}

fn id(name: &str) -> Id {
    name.into()
}

fn address(name: &str) -> Address {
    format!("/dns4/{name}/tcp/7333").into()
}

fn machine(seeds: &[&str], records: Records) -> Machine {
    let seeds = seeds.iter().map(|name| address(name)).collect();
    Machine::load(Config { id: id(US), name: "us".into(), seeds }, records)
}

fn present(names: &[&str]) -> Input {
    let member = |name: &&str| {
        let present = Present { name: (*name).into(), addresses: vec![address(name)] };
        (id(&format!("peer-{name}")), present)
    };
    Input::Members(names.iter().map(member).collect())
}

fn dial(target: Target, names: &[&str]) -> Effect {
    Effect::Dial { target, addresses: names.iter().map(|name| address(name)).collect() }
}

fn peer(name: &str) -> Target {
    Target::Peer(id(&format!("peer-{name}")))
}

fn unreachable(target: Target) -> Input {
    Input::Dialed { target, outcome: Err(Failure::Unreachable("nobody there".into())) }
}

fn refused(target: Target) -> Input {
    Input::Dialed { target, outcome: Err(Failure::Refused("another mesh".into())) }
}

fn found(name: &str, vouched: bool) -> Input {
    Input::Found { id: id(&format!("peer-{name}")), addresses: vec![address(name)], vouched }
}

/// The dials among effects.
fn dials(step: &Step) -> Vec<&Target> {
    let effects = step.effects.iter();
    let dials = effects.filter_map(|effect| match effect {
        Effect::Dial { target, .. } => Some(target),
        _ => None,
    });
    dials.collect()
}

fn aliases(machine: &Machine) -> Vec<(String, bool)> {
    machine.nodes().map(|node| (node.record.alias.to_string(), node.connected)).collect()
}

#[test]
fn a_seed_is_dialled_until_its_node_is_here_and_again_when_it_is_gone() {
    let mut machine = machine(&["a"], Records::default());
    let seed = Target::Seed(address("a"));
    assert_eq!(machine.apply(at(0), Input::Tick).effects, [dial(seed.clone(), &["a"])]);
    let waits = machine.apply(at(10), unreachable(seed.clone()));
    assert_eq!(waits.effects, [Effect::WakeAt(260)]);
    assert_eq!(machine.apply(at(260), Input::Tick).effects, [dial(seed.clone(), &["a"])]);

    let came = machine.apply(at(300), present(&["a"]));
    assert!(came.effects.contains(&Effect::Ask(id("peer-a"))));
    assert!(matches!(&came.writes[..], [Write::Node(_, Some(record))] if &*record.alias == "a"));
    let outcome = Ok(id("peer-a"));
    let done = machine.apply(at(301), Input::Dialed { target: seed.clone(), outcome });
    assert_eq!(dials(&done), Vec::<&Target>::new());

    let gone = machine.apply(at(10_000), present(&[]));
    assert_eq!(gone.effects[0], dial(seed, &["a"]), "whoever is there now");
    let soon = machine.apply(at(10_250), Input::Tick);
    assert_eq!(soon.effects[0], dial(peer("a"), &["a"]), "and who was");
}

#[test]
fn a_lost_node_is_dialled_soon_and_then_every_five_seconds() {
    let mut machine = machine(&[], Records::default());
    machine.apply(at(0), present(&["a"]));
    let mut now = 1_000;
    let mut waits = Vec::new();
    let mut step = machine.apply(at(now), present(&[]));
    for _ in 0..8 {
        let Some(Effect::WakeAt(wake)) = step.effects.last() else { unreachable!() };
        waits.push(wake - now);
        now = *wake;
        assert_eq!(dials(&machine.apply(at(now), Input::Tick)), [&peer("a")]);
        step = machine.apply(at(now), unreachable(peer("a")));
    }
    assert_eq!(waits, [250, 250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    assert_eq!(machine.nodes().next().and_then(|node| node.error), Some("nobody there"));
    machine.apply(at(now + 5_000), Input::Tick);
    now += 11_000;
    let step = machine.apply(at(now), unreachable(peer("a")));
    assert_eq!(step.effects, [Effect::WakeAt(now + 250)], "that dial took long enough");
    let step = machine.apply(at(now), found("a", false));
    assert_eq!(dials(&step), Vec::<&Target>::new(), "nothing new");
    let moved = Input::Found { id: id("peer-a"), addresses: vec![address("new")], vouched: false };
    let step = machine.apply(at(now), moved);
    assert_eq!(step.effects, [dial(peer("a"), &["a", "new"])], "at once, wherever it may be");
    let step = machine.apply(at(now), refused(peer("a")));
    let wait = now + millis(limits::MESH_REFUSED_WAIT);
    assert_eq!(step.effects, [Effect::WakeAt(wait)]);
}

#[test]
fn who_was_heard_of_is_dialled_and_left_alone_once_it_refused() {
    let mut machine = machine(&[], Records::default());
    assert_eq!(dials(&machine.apply(at(0), found("a", false))), [&peer("a")]);
    machine.apply(at(5), refused(peer("a")));
    let left_alone = millis(limits::MESH_CANDIDATE_REFUSED_WAIT);
    for (now, dialled) in [(6, 0), (left_alone, 0), (left_alone + 5, 1)] {
        assert_eq!(dials(&machine.apply(at(now), found("a", true))).len(), dialled, "{now}");
    }
    assert_eq!(aliases(&machine), [], "it proved nothing");
    assert_eq!(dials(&machine.apply(at(0), found("us", true))), Vec::<&Target>::new(), "we");
}

#[test]
fn a_member_is_asked_now_and_then_and_soon_again_if_it_does_not_answer() {
    let mut machine = machine(&[], Records::default());
    let asked = |step: &Step| step.effects.contains(&Effect::Ask(id("peer-a")));
    assert!(asked(&machine.apply(at(0), present(&["a"]))));
    let answer = |answered| Input::Asked { id: id("peer-a"), answered };
    let next = |step: Step| step.effects == [Effect::WakeAt(30_000)];
    assert!(next(machine.apply(at(10), answer(true))));
    assert!(asked(&machine.apply(at(30_000), Input::Tick)));
    let mut now = 30_000;
    for wait in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let step = machine.apply(at(now), answer(false));
        assert_eq!(step.effects, [Effect::WakeAt(now + wait)]);
        now += wait;
        assert!(asked(&machine.apply(at(now), Input::Tick)));
    }
}

#[test]
fn a_restart_dials_every_known_node_at_once_and_keeps_its_alias() {
    let mut first = machine(&[], Records::default());
    let mut records = Records::default();
    for write in first.apply(at(0), present(&["a", "b"])).writes {
        records.apply(write);
    }
    let mut second = machine(&[], records);
    assert_eq!(dials(&second.apply(at(0), Input::Tick)), [&peer("a"), &peer("b")]);
    assert_eq!(aliases(&second), [("a".to_owned(), false), ("b".to_owned(), false)]);
}

#[test]
fn names_that_clash_get_the_end_of_the_peer_id() {
    let mut machine = machine(&[], Records::default());
    let same =
        |peer: &str, name: &str| (id(peer), Present { name: name.into(), addresses: Vec::new() });
    let members = [same("1-AAAA", "ada"), same("2-BBBB", "ada"), same("3-CCCC", "us")];
    machine.apply(at(0), Input::Members(members.into()));
    let all = |names: [&str; 3]| names.map(|name| (name.to_owned(), true)).to_vec();
    assert_eq!(aliases(&machine), all(["ada", "ada-bbbb", "us-cccc"]));
    let step = machine.apply(at(1), Input::Reserved(["ada".into()].into()));
    assert_eq!(aliases(&machine), all(["ada-aaaa", "ada-bbbb", "us-cccc"]));
    assert_eq!(step.writes.len(), 1, "the others keep theirs");
    machine.apply(at(2), Input::Reserved(BTreeSet::new()));
    assert_eq!(aliases(&machine), all(["ada-aaaa", "ada-bbbb", "us-cccc"]), "an alias stays");
    assert_eq!(machine.find("ada-bbbb"), Some(&id("2-BBBB")));
    assert_eq!(machine.find("2-BBBB"), Some(&id("2-BBBB")));
    assert_eq!(machine.find("ada"), None);
}

#[test]
fn a_ban_forgets_the_node_and_wins_until_it_is_trusted() {
    let mut machine = machine(&[], Records::default());
    machine.apply(at(0), present(&["a"]));
    let ban = Input::Ban { id: id("peer-a"), reason: "lost laptop".into() };
    let step = machine.apply(at(1), ban);
    assert!(matches!(&step.writes[..], [Write::Node(_, None), Write::Ban(_, Some(_))]));
    assert_eq!(machine.kept_out().collect::<Vec<_>>(), [&id("peer-a")]);
    machine.apply(at(2), present(&["a"]));
    assert_eq!(aliases(&machine), [], "not even if the swarm has not cut it yet");
    assert_eq!(dials(&machine.apply(at(3), found("a", true))), Vec::<&Target>::new());
    let connect = machine.apply(at(4), Input::Connect(id("peer-a")));
    assert_eq!(connect.refused, Some(Refused::Banned(id("peer-a"))));
    assert_eq!(machine.find("a"), Some(&id("peer-a")), "by the name that it had");
    machine.apply(at(5), Input::Trust(id("peer-a")));
    assert_eq!(machine.kept_out().count(), 0);
    assert_eq!(dials(&machine.apply(at(6), found("a", true))), [&peer("a")]);
    let ourselves = Input::Ban { id: id(US), reason: String::new() };
    assert_eq!(machine.apply(at(7), ourselves).refused, Some(Refused::Itself));
}

#[test]
fn a_disconnected_node_stays_away_until_an_operator_connects_it() {
    let mut machine = machine(&[], Records::default());
    machine.apply(at(0), present(&["a"]));
    machine.apply(at(1), Input::Disconnect(id("peer-a")));
    assert_eq!(machine.kept_out().count(), 1);
    for input in [present(&["a"]), present(&[]), found("a", true), Input::Tick] {
        assert_eq!(dials(&machine.apply(at(60_000), input)), Vec::<&Target>::new());
        assert_eq!(aliases(&machine), [("a".to_owned(), false)], "known, and away");
    }
    let connect = machine.apply(at(60_001), Input::Connect(id("peer-a")));
    assert_eq!(dials(&connect), [&peer("a")]);
    assert_eq!(machine.kept_out().count(), 0);
}

#[test]
fn an_invitation_is_redeemed_once_and_joining_leaves_the_old_mesh() {
    let (a, b) = (id("peer-a"), id("peer-b"));
    let mut machine = machine(&[], Records::default());
    assert_eq!(machine.joining("i1", &a, false), Ok(Joining::Redeem));
    assert_eq!(machine.joining("i1", &id(US), false), Err(Refused::Itself));
    let joined = |invite: &str, name: &str| Input::Joined {
        invite: invite.into(),
        id: id(&format!("peer-{name}")),
        addresses: vec![address(name)],
    };
    let step = machine.apply(at(0), joined("i1", "a"));
    assert_eq!(dials(&step), [&peer("a")]);
    machine.apply(at(1), present(&["a", "c"]));
    assert_eq!(machine.joining("i1", &a, false), Ok(Joining::Connect), "twice is fine");
    assert_eq!(machine.joining("i2", &a, false), Ok(Joining::Connect), "it is here");
    assert_eq!(machine.joining("i3", &b, false), Err(Refused::WouldLeave { others: 2 }));
    assert_eq!(machine.joining("i3", &b, true), Ok(Joining::Redeem));
    machine.apply(at(2), joined("i3", "b"));
    assert_eq!(aliases(&machine), [], "those of the old mesh are forgotten");
    machine.apply(at(3), present(&["b"]));
    assert_eq!(aliases(&machine), [("b".to_owned(), true)]);
    machine.apply(at(4), Input::Rotated);
    assert_eq!(aliases(&machine), []);
    assert!(machine.records().redeemed.contains_key("i3"));
}

#[test]
fn an_invitation_of_the_start_is_tried_until_it_is_refused() {
    let invited =
        || Input::Invited { invite: "i1".into(), id: id("peer-a"), addresses: vec![address("a")] };
    let mut machine = machine(&[], Records::default());
    assert_eq!(dials(&machine.apply(at(0), invited())), [&Target::Invite]);
    let step = machine.apply(at(1), unreachable(Target::Invite));
    assert_eq!(step.effects, [Effect::WakeAt(251)]);
    assert_eq!(machine.problem().map(AsRef::as_ref), Some("nobody there"));
    assert_eq!(dials(&machine.apply(at(251), Input::Tick)), [&Target::Invite]);
    assert_eq!(machine.apply(at(252), refused(Target::Invite)).effects, []);
    assert_eq!(machine.problem().map(AsRef::as_ref), Some("another mesh"), "and left alone");

    let joined = Input::Joined { invite: "i1".into(), id: id("peer-a"), addresses: Vec::new() };
    machine.apply(at(300), joined);
    assert_eq!(machine.problem(), None);
    let step = machine.apply(at(400), invited());
    assert_eq!(dials(&step), [&peer("a")], "redeemed before: only a node to dial");
}

#[test]
fn full_tables_refuse_or_forget_as_their_limits_say() {
    let mut machine = machine(&[], Records::default());
    for number in 0..limits::MESH_HEARD_OF {
        machine.apply(at(number as u64), found(&format!("n{number}"), false));
    }
    let known = |machine: &Machine, name: &str| machine.candidates.contains_key(&*id(name));
    machine.apply(at(1_000), found("late", false));
    assert!(!known(&machine, "peer-late"), "who came first");
    machine.apply(at(1_001), found("named", true));
    assert!(known(&machine, "peer-named") && !known(&machine, "peer-n0"), "a member's word");
    assert!(machine.dialing() <= limits::MESH_DIALS);

    let names: Vec<String> = (0..limits::MESH_NODES).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    machine.apply(at(2_000), present(&names));
    let mut all_and_one = names.clone();
    all_and_one.push("one");
    machine.apply(at(3_000), present(&all_and_one));
    assert_eq!(machine.find("one"), None, "all others are here");
    machine.apply(at(4_000), present(&names[1..]));
    let mut with_one = names[1..].to_vec();
    with_one.push("one");
    machine.apply(at(5_000), present(&with_one));
    assert!(machine.find("one").is_some() && machine.find("n0").is_none());

    for number in 0..limits::MESH_BANS {
        let ban = Input::Ban { id: id(&number.to_string()), reason: String::new() };
        assert_eq!(machine.apply(at(6_000), ban).refused, None);
    }
    let ban = Input::Ban { id: id("more"), reason: String::new() };
    assert!(matches!(machine.apply(at(6_000), ban).refused, Some(Refused::Full { .. })));
}

/// Any input, of few names so that they meet.
fn any_input() -> impl Strategy<Value = Input> {
    let name = || (0_u8..6).prop_map(|number| format!("n{number}"));
    let any_id = || prop_oneof![name().prop_map(|name| id(&format!("peer-{name}"))), Just(id(US))];
    let addresses = || prop::collection::vec(name().prop_map(|name| address(&name)), 0..12);
    let target = prop_oneof![
        Just(Target::Invite),
        Just(Target::Seed(address("n0"))),
        any_id().prop_map(Target::Peer)
    ];
    let outcome = prop_oneof![
        any_id().prop_map(Ok),
        Just(Err(Failure::Refused("no".into()))),
        Just(Err(Failure::Unreachable("gone".into()))),
        Just(Err(Failure::Itself))
    ];
    let member = (any_id(), name(), addresses());
    let members = prop::collection::vec(member, 0..6).prop_map(|members| {
        let present = |(id, name, addresses): (Id, String, Vec<Address>)| {
            (id, Present { name: name.into(), addresses })
        };
        Input::Members(members.into_iter().map(present).collect())
    });
    let invite = || name().prop_map(Arc::from);
    prop_oneof![
        4 => members,
        4 => (any_id(), addresses(), any::<bool>())
            .prop_map(|(id, addresses, vouched)| Input::Found { id, addresses, vouched }),
        6 => (target, outcome).prop_map(|(target, outcome)| Input::Dialed { target, outcome }),
        4 => Just(Input::Tick),
        2 => (any_id(), any::<bool>()).prop_map(|(id, answered)| Input::Asked { id, answered }),
        1 => prop::collection::btree_set(invite(), 0..3).prop_map(Input::Reserved),
        1 => (invite(), any_id(), addresses())
            .prop_map(|(invite, id, addresses)| Input::Invited { invite, id, addresses }),
        1 => (invite(), any_id(), addresses())
            .prop_map(|(invite, id, addresses)| Input::Joined { invite, id, addresses }),
        1 => Just(Input::Rotated),
        1 => any_id().prop_map(Input::Connect),
        1 => any_id().prop_map(Input::Disconnect),
        1 => any_id().prop_map(Input::Trust),
        1 => any_id().prop_map(|id| Input::Ban { id, reason: "test".into() }),
    ]
}

proptest! {
    /// Whatever happens: what was written is what is known, aliases tell nodes apart, nobody who
    /// is kept out is dialled or a member, dials and waits are bounded.
    #[test]
    fn the_records_are_the_state_and_the_rules_hold(
        inputs in prop::collection::vec((any_input(), 0_u64..20_000, 0.0_f64..1.0), 0..80),
    ) {
        let mut machine = machine(&["n0", "n9"], Records::default());
        let (mut records, mut now) = (Records::default(), 0);
        for (input, pass, chance) in inputs {
            now += pass;
            let step = machine.apply(Now { chance, ..at(now) }, input);
            prop_assert!(step.refused.is_none() || step.writes.is_empty());
            step.writes.into_iter().for_each(|write| records.apply(write));
            prop_assert_eq!(&records, machine.records());
            let again = Machine::load(Config::default(), records.clone());
            prop_assert!(again.nodes().map(|node| node.record).eq(machine.nodes().map(|node| node.record)));

            let names: BTreeMap<&str, &Id> =
                machine.nodes().map(|node| (&*node.record.alias, node.id)).collect();
            prop_assert_eq!(names.len(), machine.nodes().count(), "aliases are unique");
            prop_assert!(!names.contains_key("us") && machine.find(US).is_none());
            let out: BTreeSet<&Id> = machine.kept_out().collect();
            prop_assert!(!machine.nodes().any(|node| node.connected && out.contains(node.id)));
            prop_assert!(machine.nodes().all(|node| node.record.addresses.len() <= limits::MESH_ADDRESSES));
            prop_assert!(machine.dialing() <= limits::MESH_DIALS);
            for effect in &step.effects {
                match effect {
                    Effect::Dial { target: Target::Peer(id), addresses } => {
                        prop_assert!(!out.contains(id) && **id != *US && !addresses.is_empty());
                    }
                    Effect::Dial { addresses, .. } => prop_assert!(!addresses.is_empty()),
                    Effect::Ask(id) => prop_assert!(!out.contains(id)),
                    Effect::WakeAt(at) => prop_assert!(*at > now),
                }
            }
        }
    }
}
