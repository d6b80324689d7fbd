//! What is met before sled meets it: a full disk, a second node, another user, damaged data.

use std::fs;
use std::path::Path;

use crate::support::{TestResult, commit, put};
use toolmesh_store::{
    CommitError, FreeSpace, Load, LoadError, OpenError, Options, Recovery, State, Store, Work,
    Write, records,
};

type Damage = fn(&Path) -> std::io::Result<()>;

/// Makes a store with records in it, and closes it.
fn written(options: &Options) -> TestResult {
    let store = Store::open(options.clone(), |_| {})?.store;
    for first in (0..200_u8).step_by(20) {
        let writes = (first..first + 20).map(|number| put(&[number], &[number; 5_000])).collect();
        assert_eq!(commit(&store, Work::New, writes), Ok(()));
    }
    Ok(())
}

#[test]
fn a_nearly_full_disk_refuses_new_work_and_lets_the_rest_through() -> TestResult {
    for free_space in [
        FreeSpace { bytes_min: u64::MAX, percent_min: 0 },
        FreeSpace { bytes_min: 0, percent_min: 101 },
    ] {
        let directory = tempfile::tempdir()?;
        let options = Options { free_space, ..Options::new(directory.path().join("store")) };
        let store = Store::open(options, |_| {})?.store;
        assert_eq!(commit(&store, Work::New, vec![put(b"k", b"v")]), Err(CommitError::DiskFull));
        assert!(CommitError::DiskFull.is_retryable());
        assert!(store.committer().health().disk_full);
        assert_eq!(commit(&store, Work::Completion, vec![put(b"k", b"v")]), Ok(()));
        assert_eq!(store.records().get(b"k")?, Some(b"v".to_vec()));
    }
    Ok(())
}

#[test]
fn a_second_node_is_told_who_has_the_directory() -> TestResult {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path().join("store"));
    let first = Store::open(options.clone(), |_| {})?.store;
    let Err(error @ OpenError::InUse { .. }) = Store::open(options.clone(), |_| {}) else {
        return Err("two nodes have one directory".into());
    };
    assert!(error.to_string().starts_with("another toolmesh node uses this data directory"));
    assert_eq!(commit(&first, Work::New, vec![put(b"k", b"v")]), Ok(()), "the first is unharmed");
    first.close();
    let second = Store::open(options, |_| {})?.store;
    assert_eq!(second.records().get(b"k")?, Some(b"v".to_vec()));
    Ok(())
}

#[test]
fn a_directory_of_another_user_is_refused() -> TestResult {
    let directory = tempfile::tempdir()?;
    let theirs = directory.path().join("store");
    fs::create_dir(&theirs)?;
    // Only root can give a directory away; everyone else has one that is root's.
    let given = std::os::unix::fs::chown(&theirs, Some(65_534), None).is_ok();
    let theirs = if given { theirs.as_path() } else { Path::new("/") };
    let Err(error @ OpenError::OtherOwner { .. }) = Store::open(Options::new(theirs), |_| {})
    else {
        return Err("another user's directory was opened".into());
    };
    assert!(error.to_string().contains("belongs to user"), "{error}");
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() -> TestResult {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("file");
    fs::write(&file, "")?;
    for path in [file.clone(), file.join("store"), directory.path().join("..")] {
        assert!(matches!(Store::open(Options::new(path), |_| {}), Err(OpenError::Io { .. })));
    }
    Ok(())
}

#[test]
fn what_a_killed_start_leaves_is_cleared_away() -> TestResult {
    let planted: [(&str, Damage); 3] = [
        ("an empty snapshot", |store| {
            fs::write(store.join("snap.FFFFFFFFFFFFFFFF.generating"), "")
        }),
        ("a torn snapshot", |store| {
            fs::write(store.join("snap.0FFFFFFFFFFFFFFF.generating"), [7; 1_000])
        }),
        ("both", |store| {
            fs::write(store.join("snap.0000000000000000.generating"), [7; 11])?;
            fs::write(store.join("snap.FFFFFFFFFFFFFFFF.generating"), [7; 13])
        }),
    ];
    for (name, plant) in planted {
        let directory = tempfile::tempdir()?;
        let options = Options::new(directory.path().join("store"));
        written(&options)?;
        plant(&options.directory)?;
        let opened = Store::open(options, |_| {})?;
        assert_eq!(opened.recovery, Recovery::Clean, "{name}");
        assert_eq!(opened.store.records().get(&[199])?, Some(vec![199; 5_000]), "{name}");
    }
    Ok(())
}

#[test]
fn a_first_start_killed_before_there_was_data_starts_again() -> TestResult {
    for torn in [&b""[..], b"torn", &[0; 9], &[255; 40]] {
        let directory = tempfile::tempdir()?;
        let options = Options::new(directory.path().join("store"));
        fs::create_dir(&options.directory)?;
        fs::write(options.directory.join("conf"), torn)?;
        assert_eq!(Store::open(options, |_| {})?.recovery, Recovery::Clean, "{torn:?}");
    }
    Ok(())
}

/// A log that only lost its tail is not among these: sled takes it for one that a crash cut.
#[test]
fn damaged_data_is_moved_aside_and_never_deleted() -> TestResult {
    let damages: [(&str, Damage); 5] = [
        ("a torn configuration", |store| fs::write(store.join("conf"), [255; 40])),
        ("a damaged snapshot", |store| fs::write(store.join("snap.FFFFFFFFFFFFFFFF"), [7; 100])),
        ("a log of noise", |store| {
            let length = fs::metadata(store.join("db"))?.len() as usize;
            fs::write(store.join("db"), vec![7; length])
        }),
        ("an empty log", |store| fs::write(store.join("db"), "")),
        ("a damaged journal", |store| {
            let mut bytes = fs::read(store.join("journal-0"))?;
            bytes[100] ^= 1;
            fs::write(store.join("journal-0"), bytes)
        }),
    ];
    for (name, damage) in damages {
        let directory = tempfile::tempdir()?;
        let options = Options::new(directory.path().join("store"));
        written(&options)?;
        damage(&options.directory)?;
        let opened = Store::open(options.clone(), |_| {})?;
        let Recovery::MovedAside { to, reason } = opened.recovery else {
            return Err(format!("{name} was not noticed").into());
        };
        assert!(to.to_string_lossy().contains("store.corrupt-"), "{}", to.display());
        assert!(!reason.is_empty());
        assert!(to.join("db").exists(), "{name}: what was there is kept");
        assert_eq!(opened.store.records().get(&[199])?, None, "{name}: the node starts anew");
        assert_eq!(commit(&opened.store, Work::New, vec![put(b"k", b"v")]), Ok(()), "{name}");
        opened.store.close();
        assert_eq!(Store::open(options, |_| {})?.recovery, Recovery::Clean, "{name}");
    }
    Ok(())
}

/// Counts records, and panics over one of them.
#[derive(Debug, Default)]
struct Counted(usize);

impl Load for Counted {
    #[expect(clippy::panic, reason = "a state with a defect is what is tested")]
    fn take(&mut self, key: &[u8], _: &[u8]) -> Result<(), LoadError> {
        self.0 += 1;
        match key {
            b"panics" => panic!("told to"),
            _ => Ok(()),
        }
    }
}

#[test]
fn opening_loads_what_is_there_in_the_same_pass() -> TestResult {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path().join("store"));
    written(&options)?;
    let opened = Store::load::<(Counted, ())>(options.clone(), |_| {})?;
    assert_eq!((opened.state.0.0, opened.recovery), (200, Recovery::Clean));
    opened.store.close();
    fs::write(options.directory.join("conf"), [255; 40])?;
    let opened = Store::load::<Counted>(options, |_| {})?;
    assert_eq!(opened.state.0, 0, "damaged data leaves nothing behind in the state");
    assert!(matches!(opened.recovery, Recovery::MovedAside { .. }));
    Ok(())
}

#[test]
fn what_cannot_be_loaded_and_is_not_damaged_stays_where_it_is() -> TestResult {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path().join("store"));
    let store = Store::open(options.clone(), |_| {})?.store;
    let Write::Put { key, mut value } = records::put_node_name("ada")? else {
        return Err("a name is put".into());
    };
    value.reverse();
    let written = vec![put(b"panics", b""), Write::Put { key, value }];
    assert_eq!(commit(&store, Work::New, written), Ok(()));
    store.close();

    let Err(OpenError::Load(error @ LoadError::Record { .. })) =
        Store::load::<State>(options.clone(), |_| {})
    else {
        return Err("a record of another version was loaded".into());
    };
    assert!(error.to_string().contains("node"), "{error}");
    let panicked = Store::load::<Counted>(options.clone(), |_| {});
    assert!(matches!(panicked, Err(OpenError::Load(LoadError::Panicked { .. }))));
    let opened = Store::load::<()>(options, |_| {})?;
    assert_eq!(opened.recovery, Recovery::Clean, "nothing was moved");
    assert!(opened.store.records().get(b"panics")?.is_some());
    Ok(())
}
