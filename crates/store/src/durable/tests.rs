#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::limits::PIECE_BYTES;
use crate::memory::MemoryRecords;
use crate::record::Durability;

/// So short that a few commits fill it.
const SHORT: u64 = 400;
const CACHE: u64 = 1024 * 1024;

/// What happens to a store.
#[derive(Debug, Clone)]
enum Event {
    Commit(Vec<Write>, Durability),
    /// The process is killed between a commit and what is put off.
    Kill,
    /// All that was not synced is gone, but for this share of it, in percent.
    PowerLoss(u8),
}

fn any_write() -> impl Strategy<Value = Write> {
    let key = || proptest::collection::vec(0..3_u8, 0..3);
    let length = prop_oneof![4 => 0..30_usize, 1 => PIECE_BYTES..3 * PIECE_BYTES];
    prop_oneof![
        2 => (key(), length, any::<u8>())
            .prop_map(|(key, length, byte)| Write::Put { key, value: vec![byte; length] }),
        1 => key().prop_map(|key| Write::Delete { key }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let durability = prop_oneof![Just(Durability::Process), Just(Durability::Disk)];
    prop_oneof![
        8 => (proptest::collection::vec(any_write(), 1..6), durability)
            .prop_map(|(writes, durability)| Event::Commit(writes, durability)),
        1 => Just(Event::Kill),
        1 => (0..=100_u8).prop_map(Event::PowerLoss),
    ]
}

fn all(records: &dyn Records) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    records
        .scan(&[], &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// What is in sled alone.
fn in_sled(records: &DurableRecords) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut each = |key: &[u8], value: Result<&[u8], RecordsError>| {
        found.push((key.to_vec(), value.unwrap().to_vec()));
        ControlFlow::Continue(())
    };
    records.inspect(&mut each).unwrap();
    found
}

fn journal_file(directory: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.to_string_lossy().contains("journal-")).unwrap()
}

/// The states after each commit since the last that was synced, that one first.
struct Expected(Vec<Vec<(Vec<u8>, Vec<u8>)>>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_leaves_a_state_that_was_and_nothing_acknowledged_is_lost(
        events in proptest::collection::vec(any_event(), 1..25),
    ) {
        let directory = tempfile::tempdir()?;
        let open = || DurableRecords::open_with(directory.path(), CACHE, SHORT);
        let (twin, mut expected) = (MemoryRecords::default(), Expected(vec![Vec::new()]));
        let mut records = open()?;
        for event in events {
            match event {
                Event::Commit(writes, durability) => {
                    twin.commit(&writes, durability)?;
                    records.commit(&writes, durability)?;
                    if durability == Durability::Disk || records.journal().is_synced() {
                        expected.0.clear();
                    }
                    expected.0.push(all(&twin));
                    prop_assert!(all(&records) == all(&twin));
                    prop_assert!(in_sled(&records) == expected.0[0] || expected.0.len() == 1);
                }
                Event::Kill => {
                    drop(records);
                    records = open()?;
                    prop_assert!(all(&records) == all(&twin));
                    expected.0 = vec![all(&twin)];
                }
                Event::PowerLoss(share) => {
                    let (end, synced) = {
                        let journal = records.journal();
                        (journal.bytes(), journal.synced_bytes())
                    };
                    drop(records);
                    let kept = synced + (end - synced) * u64::from(share) / 100;
                    let path = journal_file(directory.path());
                    let file = fs::File::options().write(true).open(path)?;
                    file.set_len(kept)?;
                    records = open()?;
                    let found = all(&records);
                    prop_assert!(expected.0.contains(&found));
                    // The twin goes on from there.
                    let gone = all(&twin).into_iter().map(|(key, _)| Write::Delete { key });
                    let there = found.iter().cloned().map(|(key, value)| Write::Put { key, value });
                    let writes: Vec<_> = gone.chain(there).collect();
                    twin.commit(&writes, Durability::Disk)?;
                    expected.0 = vec![found];
                }
            }
        }
    }
}

#[test]
fn what_is_not_synced_is_bounded_and_so_is_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let records =
        DurableRecords::open_with(directory.path(), CACHE, 3 * UNSYNCED_BYTES as u64).unwrap();
    let put = |byte: u8| [Write::Put { key: vec![byte], value: vec![byte; UNSYNCED_BYTES / 4] }];
    for byte in 1..4 {
        records.commit(&put(byte), Durability::Process).unwrap();
        assert!(in_sled(&records).is_empty(), "nothing is in sled that was not synced");
    }
    records.commit(&put(4), Durability::Process).unwrap();
    assert_eq!(in_sled(&records).len(), 4, "at its limit it is synced unasked");
    let first = journal_file(directory.path());
    for byte in 5..13 {
        records.commit(&put(byte), Durability::Process).unwrap();
    }
    assert!(!first.exists() && journal_file(directory.path()) != first, "a new one has begun");
    assert!(records.journal().bytes() < UNSYNCED_BYTES as u64);
    assert_eq!(all(&records).len(), 12);
}

#[test]
fn a_store_from_before_the_journal_goes_on_and_a_newer_one_is_refused() {
    use crate::chunk::{LAYOUT, LAYOUT_KEY, LAYOUT_WITHOUT_JOURNAL};

    let directory = tempfile::tempdir().unwrap();
    let write = [Write::Put { key: vec![1], value: vec![2] }];
    let layout = |value: &[u8]| {
        let records = SledRecords::open(directory.path(), CACHE).unwrap();
        records.put_raw(&LAYOUT_KEY, value);
        records.apply(&write).unwrap();
    };
    layout(&LAYOUT_WITHOUT_JOURNAL);
    let records = DurableRecords::open(directory.path(), CACHE).unwrap();
    assert_eq!(all(&records), [(vec![1], vec![2])]);
    assert_eq!(records.sled.raw(&LAYOUT_KEY).unwrap(), LAYOUT, "older programs refuse it now");
    drop(records);
    layout(&9_u32.to_be_bytes());
    let error = DurableRecords::open(directory.path(), CACHE).unwrap_err();
    assert!(error.to_string().contains("made by a newer toolmesh"), "{error}");
}
