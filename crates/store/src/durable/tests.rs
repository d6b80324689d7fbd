#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::limits::PIECE_BYTES;
use crate::memory::MemoryRecords;
use crate::record::Durability;

/// So little that a few commits lead to a checkpoint.
const LITTLE: Limits = Limits { checkpoint: 400, held: 1_000 };
const CACHE: u64 = 1024 * 1024;

/// What happens to a store.
#[derive(Debug, Clone)]
enum Event {
    Commit(Vec<Write>, Durability),
    /// The process is killed.
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

/// The journals, the oldest first.
fn journal_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.to_string_lossy().contains("journal-")).collect();
    files.sort_by_key(|path| (path.as_os_str().len(), path.clone())); // In the order of numbers.
    files
}

/// The states after each commit since the last that was synced, that one first.
struct Expected(Vec<Vec<(Vec<u8>, Vec<u8>)>>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_leaves_a_state_that_was_and_nothing_acknowledged_is_lost(
        events in proptest::collection::vec(any_event(), 1..25),
    ) {
        let parent = tempfile::tempdir()?;
        let directory = parent.path().join("store");
        fs::create_dir(&directory)?;
        let open = || {
            // sled gives its lock back some time after it was dropped.
            drop(crate::open::lock(&directory).unwrap());
            DurableRecords::open_with(&directory, CACHE, LITTLE)
        };
        let (twin, mut expected) = (MemoryRecords::default(), Expected(vec![Vec::new()]));
        let mut records = open()?;
        for event in events {
            match event {
                Event::Commit(writes, durability) => {
                    twin.commit(&writes, durability)?;
                    records.commit(&writes, durability)?;
                    let is_synced = {
                        let journal = records.journal();
                        journal.synced_bytes() == journal.bytes()
                    };
                    if is_synced {
                        expected.0.clear();
                    }
                    expected.0.push(all(&twin));
                    prop_assert!(all(&records) == all(&twin));
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
                    // The last one; those before it were synced.
                    let path = journal_files(&directory).pop().unwrap_or_default();
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
fn what_is_held_is_bounded_and_goes_to_sled_together() {
    let directory = tempfile::tempdir().unwrap();
    let records = DurableRecords::open_with(directory.path(), CACHE, LITTLE).unwrap();
    let put = |byte: u8| [Write::Put { key: vec![byte], value: vec![byte; 99] }];
    let first = journal_files(directory.path());
    for byte in 1..4 {
        records.commit(&put(byte), Durability::Process).unwrap();
        assert!(in_sled(&records).is_empty(), "not before there is enough");
    }
    records.commit(&put(4), Durability::Process).unwrap();
    assert!(records.checkpoints.is_free(true).unwrap(), "it is waited for");
    assert_eq!(in_sled(&records).len(), 4);
    let second = journal_files(directory.path());
    assert!(second.len() == 1 && first != second, "a new one has begun, and the old one is gone");
    for byte in 5..100 {
        records.commit(&put(byte), Durability::Process).unwrap();
        assert!(records.held.bytes() < LITTLE.held);
        assert!(journal_files(directory.path()).len() <= 2);
    }
    assert_eq!(all(&records).len(), 99);
}

#[test]
fn a_checkpoint_that_fails_is_the_end() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    fs::create_dir(&directory).unwrap();
    let records = DurableRecords::open_with(&directory, CACHE, LITTLE).unwrap();
    // Its journals cannot be listed any more.
    fs::rename(&directory, parent.path().join("elsewhere")).unwrap();
    let ended = (0..100_u8).find_map(|byte| {
        let put = [Write::Put { key: vec![byte], value: vec![byte; 99] }];
        records.commit(&put, Durability::Process).err()
    });
    assert!(matches!(ended, Some(RecordsError::Io(_))), "{ended:?}");
}

#[test]
fn a_store_from_before_the_journal_goes_on_and_a_newer_one_is_refused() {
    use crate::chunk::{LAYOUT, LAYOUT_KEY, LAYOUT_WITHOUT_JOURNAL};

    let directory = tempfile::tempdir().unwrap();
    let write = [Write::Put { key: vec![1], value: vec![2] }];
    let path = directory.path().join("store");
    fs::create_dir(&path).unwrap();
    let layout = |value: &[u8]| {
        let records = SledRecords::open(&path, CACHE).unwrap();
        records.db().insert(LAYOUT_KEY, value).unwrap();
        records.apply(&write).unwrap();
    };
    let open = || {
        drop(crate::open::lock(&path).unwrap());
        DurableRecords::open(&path, CACHE)
    };
    layout(&LAYOUT_WITHOUT_JOURNAL);
    let records = open().unwrap();
    assert_eq!(all(&records), [(vec![1], vec![2])]);
    assert_eq!(
        records.sled.db().get(LAYOUT_KEY).unwrap().unwrap(),
        LAYOUT,
        "older programs refuse it now"
    );
    drop(records);
    drop(crate::open::lock(&path).unwrap());
    layout(&9_u32.to_be_bytes());
    let error = open().unwrap_err();
    assert!(error.to_string().contains("made by a newer toolmesh"), "{error}");
}

/// Readers while a commit is handed to sled, one record of it in many pieces.
#[test]
fn who_reads_meanwhile_sees_each_commit_whole() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { checkpoint: 30 * PIECE_BYTES, held: 90 * PIECE_BYTES };
    let records = DurableRecords::open_with(directory.path(), CACHE, limits).unwrap();
    let both = |byte: u8| {
        let put = |key, length| Write::Put { key: vec![key], value: vec![byte; length] };
        [put(1, 5), put(2, PIECE_BYTES * usize::from(1 + byte % 40)), put(3, 5)]
    };
    records.commit(&both(0), Durability::Disk).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for byte in 1..=150 {
                records.commit(&both(byte), Durability::Disk).unwrap();
            }
        });
        while !writer.is_finished() {
            let found = all(&records);
            let byte = found[0].1[0];
            let expected: Vec<_> = both(byte)
                .into_iter()
                .map(|write| (write.key().to_vec(), write.value().unwrap_or_default().to_vec()))
                .collect();
            assert!(found == expected);
            assert!(records.get(&[2]).unwrap().is_some_and(|value| value.len() >= PIECE_BYTES));
        }
    });
    assert!(records.checkpoints.is_free(true).unwrap());
    assert!(!in_sled(&records).is_empty(), "checkpoints were made meanwhile");
}

/// A crash while sled is given a commit leaves no piece of a value behind that nothing refers to.
#[test]
fn no_piece_is_left_behind_by_a_crash_in_between() {
    for shorter in [None, Some(2)] {
        let pieces = |count: usize| vec![7; PIECE_BYTES * count];
        let long = [Write::Put { key: vec![1], value: pieces(6) }];
        let next = [match shorter {
            Some(count) => Write::Put { key: vec![1], value: pieces(count) },
            None => Write::Delete { key: vec![1] },
        }];
        for crash_after in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let sled = SledRecords::open(directory.path(), CACHE).unwrap();
            sled.apply(&long).unwrap();
            let is_whole = sled.apply_some(&next, crash_after).unwrap();
            sled.apply(&next).unwrap();
            let left = usize::from(shorter.is_some()) + shorter.unwrap_or(0);
            assert_eq!(sled.db().len(), left + 1, "the layout is one more");
            if is_whole {
                break;
            }
        }
    }
}
