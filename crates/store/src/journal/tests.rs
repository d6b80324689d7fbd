#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::*;

fn entry(number: u8) -> Vec<Write> {
    let put = |key: &[u8], value: &[u8]| Write::Put { key: key.to_vec(), value: value.to_vec() };
    vec![
        put(&[number], &[number; 9]),
        Write::Delete { key: vec![number, 7] },
        put(&[], &[]),
        Write::Delete { key: vec![] },
    ]
}

/// Writes `count` entries, the first `synced` of them synced; returns the file and where they end.
fn written(directory: &Path, count: u8, synced: u8) -> (PathBuf, Vec<u64>) {
    let mut journal = Journal::begin(directory, 3).unwrap();
    let mut ends = vec![0];
    for number in 1..=count {
        journal.append(&entry(number)).unwrap();
        if number == synced {
            journal.sync().unwrap();
        }
        ends.push(journal.bytes());
    }
    (path(directory, 3), ends)
}

/// Returns how many entries are read back; that they are what was written is checked.
fn read_back(directory: &Path) -> Result<u8, RecordsError> {
    let mut found = 0;
    let (last, entries) = replay(directory, &mut |writes| {
        found += 1;
        assert_eq!(writes, entry(found));
        Ok(())
    })?;
    assert_eq!((last, entries), (Some(3), u64::from(found)));
    Ok(found)
}

#[test]
fn entries_come_back_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(replay(directory.path(), &mut |_| Ok(())).unwrap(), (None, 0));
    written(directory.path(), 4, 2);
    assert_eq!(read_back(directory.path()).unwrap(), 4);
}

/// A change of these bytes is a new version and a new magic.
#[test]
fn an_entry_has_the_documented_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(directory.path(), 7).unwrap();
    let put = Write::Put { key: b"k".to_vec(), value: b"v".to_vec() };
    journal.append(&[put, Write::Delete { key: b"d".to_vec() }]).unwrap();
    let written = fs::read(path(directory.path(), 7)).unwrap();
    let head = "544d4a310000000f00000000000000009ec085b9";
    let body = "00016b0000000176000164ffffffff";
    assert_eq!(hex::encode(&written[..journal.bytes() as usize]), [head, body].concat());
    assert_eq!(written.len() as u64, JOURNAL_STEP_BYTES);
    assert!(written[journal.bytes() as usize..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_a_crash_cut_ends_with_the_last_whole_entry() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ends) = written(directory.path(), 3, 3);
    let whole = fs::read(&path).unwrap();
    for length in 0..=*ends.last().unwrap() {
        let kept = ends.iter().filter(|end| **end > 0 && **end <= length).count();
        for zeros in [0, 100] {
            let mut cut = whole[..length as usize].to_vec();
            cut.resize(cut.len() + zeros, 0);
            fs::write(&path, cut).unwrap();
            assert_eq!(usize::from(read_back(directory.path()).unwrap()), kept, "{length}");
        }
    }
}

#[test]
fn damage_of_what_was_synced_is_told_from_what_a_crash_left() {
    let directory = tempfile::tempdir().unwrap();
    // The fourth says that three were synced; the fifth and sixth too.
    let (path, ends) = written(directory.path(), 6, 3);
    let mut whole = fs::read(&path).unwrap();
    whole.truncate(*ends.last().unwrap() as usize + 100);
    for bit in 0..*ends.last().unwrap() as usize * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        let at = ends.iter().filter(|end| **end <= (bit / 8) as u64).count() - 1;
        match read_back(directory.path()) {
            Ok(found) => assert!(at >= 3 && usize::from(found) == at, "bit {bit}, found {found}"),
            Err(RecordsError::Damaged(why)) => assert!(at < 3, "bit {bit}: {why}"),
            Err(error) => unreachable!("{error}"),
        }
    }
}

#[test]
fn what_is_cut_was_not_synced_unless_the_next_file_has_an_entry() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ends) = written(directory.path(), 3, 3);
    let mut damaged = fs::read(&path).unwrap();
    damaged[ends[3] as usize - 1] ^= 1;
    fs::write(&path, damaged).unwrap();
    let mut next = Journal::begin(directory.path(), 4).unwrap();
    let replayed = || replay(directory.path(), &mut |_| Ok(()));
    assert_eq!(
        replayed().unwrap(),
        (Some(4), 2),
        "a start may have been killed before it removed it"
    );
    next.append(&entry(4)).unwrap();
    assert!(matches!(replayed(), Err(RecordsError::Damaged(_))));
}

#[test]
fn a_file_under_another_number_is_not_read_as_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (from, _) = written(directory.path(), 2, 2);
    fs::rename(from, path(directory.path(), 4)).unwrap();
    assert_eq!(replay(directory.path(), &mut |_| Ok(())).unwrap(), (Some(4), 0));
}

#[test]
fn a_new_file_is_read_after_those_before_until_they_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 2, 2);
    let mut journal = Journal::begin(directory.path(), 4).unwrap();
    journal.append(&entry(3)).unwrap();
    journal.renew().unwrap();
    assert_eq!(numbers(directory.path()).unwrap(), [3, 4, 5]);
    let mut found = 0;
    let replayed = replay(directory.path(), &mut |writes| {
        found += 1;
        assert_eq!(writes, entry(found));
        Ok(())
    });
    assert_eq!(replayed.unwrap(), (Some(5), 3));
    remove_before(directory.path(), journal.number()).unwrap();
    assert_eq!(numbers(directory.path()).unwrap(), [5]);
    fs::write(directory.path().join("journal-x"), "not ours").unwrap();
    assert_eq!(replay(directory.path(), &mut |_| Ok(())).unwrap(), (Some(5), 0));
}

#[test]
fn an_entry_may_be_longer_than_a_step() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(directory.path(), 0).unwrap();
    let large = [Write::Put { key: vec![1], value: vec![5; 3 * JOURNAL_STEP_BYTES as usize] }];
    journal.append(&large).unwrap();
    journal.append(&entry(1)).unwrap();
    let mut found = Vec::new();
    let replayed = replay(directory.path(), &mut |writes| {
        found.push(writes.to_vec());
        Ok(())
    });
    assert_eq!((replayed.unwrap().1, &found[0][..], &found[1]), (2, &large[..], &entry(1)));
}
