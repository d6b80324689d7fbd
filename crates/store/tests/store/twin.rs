//! sled and its twin in memory give the same answers, whatever is written.

use std::sync::Arc;

use crate::support::{Entries, TestResult, commit, page, put, scan};
use proptest::prelude::*;
use toolmesh_store::limits::{KEY_BYTES, PIECE_BYTES, VALUE_BYTES};
use toolmesh_store::{
    CommitError, Durability, MemoryRecords, Options, Order, Records, RecordsError, Store, Work,
    Write,
};

/// Few keys, some of them a prefix of others, so that writes meet.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => proptest::collection::vec(0..3_u8, 0..3),
        1 => (0..3_u8).prop_map(|last| [&[1; KEY_BYTES - 1][..], &[last]].concat()),
    ]
}

/// Values around each border of a chunk.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let near = |length: usize| length.saturating_sub(1)..=length + 1;
    let length = prop_oneof![
        4 => 0..40_usize,
        1 => near(PIECE_BYTES),
        1 => near(2 * PIECE_BYTES),
        1 => near(9 * PIECE_BYTES),
    ];
    (length, any::<u8>()).prop_map(|(length, start)| {
        (0..length).map(|index| start.wrapping_add((index / 7) as u8)).collect()
    })
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        2 => (any_key(), any_value()).prop_map(|(key, value)| Write::Put { key, value }),
        1 => any_key().prop_map(|key| Write::Delete { key }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sled_and_memory_agree(
        batches in proptest::collection::vec(proptest::collection::vec(any_write(), 0..12), 1..12),
        prefix in any_key(),
        cursor in any_key(),
        limit in 1..4_usize,
    ) {
        let directory = tempfile::tempdir()?;
        let options = Options::new(directory.path().join("store"));
        let twin = MemoryRecords::default();
        for restart in batches.chunks(6) {
            let opened = Store::open(options.clone(), |_| {})?;
            for batch in restart {
                twin.commit(batch, Durability::Disk)?;
                prop_assert_eq!(commit(&opened.store, Work::New, batch.clone()), Ok(()));
            }
            let records = opened.store.records();
            prop_assert!(scan(records, &[])? == scan(&twin, &[])?);
            prop_assert!(scan(records, &prefix)? == scan(&twin, &prefix)?);
            prop_assert!(records.get(&prefix)? == twin.get(&prefix)?);
            for order in [Order::Ascending, Order::Descending] {
                for after in [None, Some(&cursor[..])] {
                    let expected = filtered(scan(&twin, &prefix)?, after, order);
                    for records in [records, &twin] {
                        prop_assert!(page(records, &prefix, after, order, usize::MAX)? == expected);
                        prop_assert!(paged(records, &prefix, after, order, limit)? == expected);
                    }
                }
            }
        }
        let opened = Store::open(options, |_| {})?;
        prop_assert!(scan(opened.store.records(), &[])? == scan(&twin, &[])?);
    }
}

/// Returns those of `entries` that come after `after` in `order`, in that order.
fn filtered(mut entries: Entries, after: Option<&[u8]>, order: Order) -> Entries {
    entries.retain(|(key, _)| match order {
        Order::Ascending => after.is_none_or(|after| &key[..] > after),
        Order::Descending => after.is_none_or(|after| &key[..] < after),
    });
    if order == Order::Descending {
        entries.reverse();
    }
    entries
}

/// Reads as a listing does: pages of `limit`, each from the last key of the one before.
fn paged(
    records: &dyn Records,
    prefix: &[u8],
    after: Option<&[u8]>,
    order: Order,
    limit: usize,
) -> Result<Entries, RecordsError> {
    let (mut all, mut after) = (Vec::new(), after.map(<[u8]>::to_vec));
    loop {
        let found = page(records, prefix, after.as_deref(), order, limit)?;
        let Some((last, _)) = found.last() else { return Ok(all) };
        after = Some(last.clone());
        all.extend(found);
    }
}

#[test]
fn a_scan_ends_where_its_prefix_does() -> TestResult {
    let directory = tempfile::tempdir()?;
    let sled = Store::open(Options::new(directory.path().join("store")), |_| {})?.store;
    let memory = Store::in_memory(Arc::default(), |_| {})?;
    for store in [&sled, &memory] {
        let keys = [&[1, 254][..], &[1, 255], &[1, 255, 255], &[2], &[255], &[255, 255, 7]];
        let writes = keys.iter().map(|key| put(key, b"")).collect();
        assert_eq!(commit(store, Work::New, writes), Ok(()));
        for order in [Order::Ascending, Order::Descending] {
            let count = |prefix: &[u8], after: Option<&[u8]>| {
                page(store.records(), prefix, after, order, 100).map(|found| found.len())
            };
            assert_eq!(count(&[1, 255], None)?, 2);
            assert_eq!(count(&[255], None)?, 2, "the greatest prefix has no successor");
            assert_eq!(count(&[255, 255], None)?, 1);
            let beyond: [&[u8]; 2] = match order {
                Order::Ascending => [&[3], &[2]],
                Order::Descending => [&[1], &[1, 255]],
            };
            for after in beyond {
                assert_eq!(count(&[1, 255], Some(after))?, 0, "nothing comes after {after:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_largest_key_and_value_are_stored_and_larger_ones_refused() -> TestResult {
    let directory = tempfile::tempdir()?;
    let sled = Store::open(Options::new(directory.path().join("store")), |_| {})?.store;
    let memory = Store::in_memory(Arc::default(), |_| {})?;
    for store in [&sled, &memory] {
        let (key, value) = (vec![7; KEY_BYTES], vec![9; VALUE_BYTES]);
        assert_eq!(commit(store, Work::New, vec![put(&key, &value)]), Ok(()));
        assert!(store.records().get(&key)?.is_some_and(|found| found == value));
        for too_large in [put(&[7; KEY_BYTES + 1], b""), put(b"k", &[9; VALUE_BYTES + 1])] {
            let outcome = commit(store, Work::New, vec![put(b"with", b""), too_large]);
            assert_eq!(outcome, Err(CommitError::TooLarge));
        }
        assert_eq!(store.records().get(b"with")?, None, "a refused submission stores nothing");
        assert_eq!(commit(store, Work::New, vec![Write::Delete { key }]), Ok(()));
        assert_eq!(scan(store.records(), &[])?.len(), 0);
    }
    Ok(())
}

/// sled would write a page over 128 KiB to a file that it never syncs.
#[test]
fn no_page_becomes_a_file_of_its_own() -> TestResult {
    let directory = tempfile::tempdir()?;
    let store = Store::open(Options::new(directory.path().join("store")), |_| {})?.store;
    for round in 0..40_u8 {
        let key = |number| [&[number; KEY_BYTES - 1][..], &[round % 20]].concat();
        let near_a_piece = put(&key(1), &vec![round; PIECE_BYTES - 1]);
        let chunked = put(&key(2), &vec![round; 40 * PIECE_BYTES]);
        assert_eq!(commit(&store, Work::New, vec![near_a_piece, chunked]), Ok(()));
    }
    let blobs = std::fs::read_dir(directory.path().join("store/blobs"))?.count();
    assert_eq!(blobs, 0, "files outside the log");
    Ok(())
}

#[test]
fn losing_power_takes_back_what_was_not_synced() -> TestResult {
    let records = MemoryRecords::default();
    records.commit(&[put(b"a", b"1"), put(b"b", b"1")], Durability::Disk)?;
    records
        .commit(&[put(b"a", b"2"), Write::Delete { key: b"b".to_vec() }], Durability::Process)?;
    records.commit(&[put(b"a", b"3"), put(b"c", b"3")], Durability::Process)?;
    records.lose_power();
    assert_eq!(
        scan(&records, b"")?,
        [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"1".to_vec())]
    );
    assert_eq!(records.size_bytes()?, 4);
    Ok(())
}
