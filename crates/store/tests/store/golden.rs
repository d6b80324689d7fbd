//! The bytes of every version of every record, pinned. A change here is a change on disk: add a
//! version and a file, and keep the old ones readable.

use crate::support::{TestResult, commit};
use toolmesh_core::principal::Role;
use toolmesh_core::registry::{self, Ban, Invite, NodeRecord};
use toolmesh_store::records::{
    delete_invite, delete_protocol, delete_token, keep_registry, put_invite, put_node_name,
    put_protocol, put_token,
};
use toolmesh_store::{
    Durability, Lifecycle, LoadError, MemoryRecords, Options, Protocol, Records, State, Store,
    Token, Work, Write,
};

fn token(id: &str, role: Role) -> Token {
    Token {
        id: id.to_owned(),
        name: "laptop".to_owned(),
        role,
        sha256: std::array::from_fn(|index| index as u8),
        created: 1_790_000_000,
    }
}

fn legacy() -> Protocol {
    Protocol { lifecycle: Lifecycle::Legacy, revision: "2025-11-25".to_owned() }
}

fn modern() -> Protocol {
    Protocol { lifecycle: Lifecycle::Modern, revision: "2026-07-28".to_owned() }
}

fn known() -> NodeRecord {
    NodeRecord {
        alias: "ada-k3xp".into(),
        name: "ada".into(),
        addresses: vec!["/ip4/192.0.2.7/tcp/7333".into(), "/dns4/ada.example/tcp/7333".into()],
        last_seen: 1_790_000_000,
    }
}

fn ban() -> Ban {
    Ban { name: "ada".into(), reason: "lost laptop".to_owned(), since: 1_790_000_001 }
}

fn invite() -> Invite {
    let code = std::array::from_fn(|index| index as u8);
    Invite { code, expires: 1_790_003_600, uses: 2, used_by: ["peer-a".into()].into() }
}

/// One change that puts a record of each kind, and one that takes it away.
fn changes() -> [(registry::Write, registry::Write, &'static str); 4] {
    use registry::Write::{Ban, Node, Redeemed, Trusted};
    let id = || "peer-a".into();
    [
        (Node(id(), Some(known())), Node(id(), None), include_str!("golden/known.v1.hex")),
        (Ban(id(), Some(ban())), Ban(id(), None), include_str!("golden/ban.v1.hex")),
        (Trusted(id(), Some(7)), Trusted(id(), None), include_str!("golden/trusted.v1.hex")),
        (Redeemed(id(), Some(9)), Redeemed(id(), None), include_str!("golden/redeemed.v1.hex")),
    ]
}

/// Every record that is written today, and its bytes.
fn written() -> Result<Vec<(Write, &'static str)>, Box<dyn std::error::Error>> {
    let mut written: Vec<_> = vec![
        (put_node_name("ada")?, include_str!("golden/node.v1.hex")),
        (put_token(&token("t1", Role::Client))?, include_str!("golden/token-client.v1.hex")),
        (put_token(&token("t2", Role::Operator))?, include_str!("golden/token-operator.v1.hex")),
        (put_protocol("files", &legacy())?, include_str!("golden/protocol-legacy.v1.hex")),
        (put_protocol("time", &modern())?, include_str!("golden/protocol-modern.v1.hex")),
        (put_invite("i1", &invite())?, include_str!("golden/invite.v1.hex")),
    ];
    for (put, _, golden) in changes() {
        written.push((keep_registry(&put)?, golden));
    }
    Ok(written)
}

fn expected() -> State {
    let tokens = [token("t1", Role::Client), token("t2", Role::Operator)];
    State {
        node_name: Some("ada".to_owned()),
        tokens: tokens.into_iter().map(|token| (token.id.clone(), token)).collect(),
        protocols: [("files".to_owned(), legacy()), ("time".to_owned(), modern())].into(),
        registry: registry::Records {
            nodes: [("peer-a".into(), known())].into(),
            bans: [("peer-a".into(), ban())].into(),
            trusted: [("peer-a".into(), 7)].into(),
            redeemed: [("peer-a".into(), 9)].into(),
        },
        invites: [("i1".to_owned(), invite())].into(),
    }
}

/// Writes `key: value` in hex, as the golden files hold it.
pub(crate) fn hex(write: &Write) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}: {}", hex(write.key()), hex(write.value().unwrap_or_default()))
}

pub(crate) fn unhex(line: &str) -> Result<Write, Box<dyn std::error::Error>> {
    let bytes = |text: &str| -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let digits = text.trim().as_bytes().chunks(2);
        digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
    };
    let (key, value) = line.split_once(':').ok_or("a golden file is `key: value`")?;
    Ok(Write::Put { key: bytes(key)?, value: bytes(value)? })
}

#[test]
fn records_are_written_as_pinned() -> TestResult {
    for (write, golden) in written()? {
        assert_eq!(hex(&write), golden.trim());
    }
    Ok(())
}

#[test]
fn pinned_records_are_read() -> TestResult {
    let records = MemoryRecords::default();
    let golden: Result<Vec<_>, _> = written()?.iter().map(|(_, line)| unhex(line)).collect();
    records.commit(&golden?, Durability::Disk)?;
    assert_eq!(State::load(&records)?, expected());
    Ok(())
}

#[test]
fn what_is_remembered_survives_a_restart_and_can_be_forgotten() -> TestResult {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path().join("store"));
    let store = Store::open(options.clone(), |_| {})?.store;
    assert_eq!(State::load(store.records())?, State::default());
    let writes = written()?.into_iter().map(|(write, _)| write).collect();
    assert_eq!(commit(&store, Work::New, writes), Ok(()));
    store.close();

    let store = Store::open(options, |_| {})?.store;
    assert_eq!(State::load(store.records())?, expected());
    let mut writes = vec![delete_token("t1"), delete_protocol("files"), delete_invite("i1")];
    for (_, delete, _) in changes() {
        writes.push(keep_registry(&delete)?);
    }
    assert_eq!(commit(&store, Work::Completion, writes), Ok(()));
    let state = State::load(store.records())?;
    assert!(!state.tokens.contains_key("t1") && state.tokens.contains_key("t2"));
    assert!(!state.protocols.contains_key("files") && state.protocols.contains_key("time"));
    assert_eq!((state.registry, state.invites.len()), (registry::Records::default(), 0));
    Ok(())
}

#[test]
fn a_record_that_cannot_be_read_is_named() -> TestResult {
    let records = MemoryRecords::default();
    let Write::Put { key, mut value } = put_token(&token("t1", Role::Client))? else {
        return Err("a token is put".into());
    };
    value.reverse();
    records.commit(&[Write::Put { key, value }], Durability::Disk)?;
    let Err(error @ LoadError::Record { .. }) = State::load(&records) else {
        return Err("a damaged record was loaded".into());
    };
    assert!(error.to_string().contains("\"t1\""), "{error}");
    Ok(())
}
