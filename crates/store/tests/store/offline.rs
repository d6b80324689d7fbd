//! A store checked, written to a file and made from one, and every way in which that is refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{TestResult, commit, put, scan};
use tempfile::TempDir;
use toolmesh_core::principal::Role;
use toolmesh_store::offline::{
    Doing, Exported, Imported, OfflineError, Progress, Verified, export, import, verify,
};
use toolmesh_store::records::{put_node_name, put_protocol, put_token};
use toolmesh_store::{
    Lifecycle, OpenError, Options, Protocol, Recovery, State, Store, Token, Work,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn token(id: &str, name: String) -> Token {
    Token { id: id.to_owned(), name, role: Role::Client, sha256: [7; 32], created: 1 }
}

/// A directory with a closed store in it.
struct Place {
    directory: TempDir,
}

impl Place {
    /// Makes one with a name, a protocol and two tokens, one of them so large that it is in chunks.
    fn written() -> Outcome<Self> {
        let place = Self { directory: tempfile::tempdir()? };
        let revision = "2025-11-25".to_owned();
        let writes = vec![
            put_node_name("ada")?,
            put_token(&token("t1", "laptop".to_owned()))?,
            put_token(&token("t2", "x".repeat(50_000)))?,
            put_protocol("files", &Protocol { lifecycle: Lifecycle::Legacy, revision })?,
        ];
        place.write(writes)?;
        Ok(place)
    }

    fn write(&self, writes: Vec<toolmesh_store::Write>) -> TestResult {
        let store = Store::open(self.options(), |_| {})?.store;
        commit(&store, Work::New, writes)?;
        Ok(())
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("backup.jsonl")
    }

    fn options(&self) -> Options {
        Options::new(self.store())
    }

    fn state(&self) -> Outcome<State> {
        let opened = Store::load::<State>(self.options(), |_| {})?;
        assert_eq!(opened.recovery, Recovery::Clean);
        Ok(opened.state)
    }

    fn verify(&self) -> Result<Verified, OfflineError> {
        verify(&self.store(), &mut |_| {})
    }

    fn export(&self) -> Result<Exported, OfflineError> {
        export(&self.store(), &self.file(), &mut |_| {})
    }

    fn import(&self, file: &Path, replace: bool) -> Result<Imported, OfflineError> {
        import(&self.store(), file, replace, &mut |_| {})
    }

    /// Returns every file and what is in it.
    fn files(&self) -> Outcome<BTreeMap<PathBuf, Vec<u8>>> {
        let (mut files, mut directories) = (BTreeMap::new(), vec![self.directory.path().into()]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir::<PathBuf>(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.insert(path.clone(), fs::read(path)?);
                }
            }
        }
        Ok(files)
    }
}

#[test]
fn what_is_exported_is_imported_as_it_was() -> TestResult {
    let place = Place::written()?;
    let before = place.state()?;
    let exported = place.export()?;
    assert_eq!(exported.records, 4);
    let file = place.file();
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(exported.bytes, fs::metadata(&file)?.len());
    let text = fs::read_to_string(&file)?;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(r#"{"toolmesh_store":1,"node":"ada","created":"#), "{}", lines[0]);
    assert!(lines[1].starts_with(r#"{"kind":"node","key":"01","version":1,"value":""#));
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[5], format!(r#"{{"records":4,"sha256":"{}"}}"#, exported.sha256));

    let elsewhere = Place { directory: tempfile::tempdir()? };
    let imported = elsewhere.import(&file, false)?;
    assert_eq!(imported, Imported { records: 4, replaced: None });
    assert_eq!(elsewhere.state()?, before);
    let again = Place { directory: tempfile::tempdir()? };
    elsewhere.export()?;
    let line = |text: &str| text.lines().skip(1).take(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(line(&fs::read_to_string(elsewhere.file())?), line(&text));
    // A store without records is as good as none, and goes.
    Store::open(again.options(), |_| {})?.store.close();
    assert_eq!(again.import(&file, false)?.replaced, None);
    assert_eq!(again.state()?, before);
    assert_eq!(fs::read_dir(again.directory.path())?.count(), 2, "the store and its lock");
    Ok(())
}

#[test]
fn a_store_with_records_is_replaced_only_when_told() -> TestResult {
    let place = Place::written()?;
    place.export()?;
    let before = place.state()?;
    place.write(vec![put_node_name("eve")?])?;
    let refused = place.import(&place.file(), false);
    assert!(matches!(refused, Err(OfflineError::NotEmpty(_))), "{refused:?}");
    assert_eq!(place.state()?.node_name.as_deref(), Some("eve"));
    // What a killed import left is cleared away.
    fs::create_dir(place.directory.path().join("store.importing"))?;
    fs::write(place.directory.path().join("store.importing/db"), "torn")?;
    let Imported { records: 4, replaced: Some(aside) } = place.import(&place.file(), true)? else {
        return Err("the store was not replaced".into());
    };
    assert_eq!(place.state()?, before);
    assert!(!place.directory.path().join("store.importing").exists());
    let old = Store::load::<State>(Options::new(aside), |_| {})?;
    assert_eq!(old.state.node_name.as_deref(), Some("eve"), "nothing is deleted");

    // To replace what cannot be read is the cure.
    fs::write(place.store().join("conf"), [255; 40])?;
    assert!(place.import(&place.file(), true)?.replaced.is_some());
    assert_eq!(place.state()?, before);
    Ok(())
}

#[test]
fn a_file_that_is_not_whole_imports_nothing() -> TestResult {
    let place = Place::written()?;
    place.export()?;
    let text = fs::read_to_string(place.file())?;
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let swapped = [lines[0], lines[2], lines[1], lines[3], lines[4], lines[5]];
    let mut wrong = vec![
        String::new(),
        "{}\n".to_owned(),
        "no json\n".to_owned(),
        joined(&swapped),
        joined(&[lines[0], lines[1], lines[3], lines[4], lines[5]]),
        joined(&[lines[0], lines[5]]),
        format!("{text}{}\n", lines[1]),
        text.replacen(r#""toolmesh_store":1"#, r#""toolmesh_store":2"#, 1),
        text.replacen(r#""node":"ada""#, r#""node":"eve""#, 1),
        text.replacen(r#""key":"0274"#, r#""key":"fa74"#, 1),
        text.replacen(r#""value":"VE"#, r#""value":"VF"#, 1),
        text.replacen(r#""value":""#, r#""value":"!"#, 1),
        text.replacen(r#""records":4"#, r#""records":5"#, 1),
        format!("{}{}", joined(&lines[..3]), "x".repeat(17 << 20)),
    ];
    // Cut at the end of every line, and within it.
    let ends = text.match_indices('\n').map(|(at, _)| at);
    wrong.extend(ends.clone().filter(|at| at + 1 < text.len()).map(|at| text[..=at].to_owned()));
    wrong.extend(ends.map(|at| text[..at - 3].to_owned()));
    let elsewhere = Place { directory: tempfile::tempdir()? };
    let file = elsewhere.file();
    for wrong in wrong {
        fs::write(&file, &wrong)?;
        let start = wrong.get(..wrong.len().min(200)).unwrap_or_default();
        let Err(error @ OfflineError::Malformed { .. }) = elsewhere.import(&file, false) else {
            return Err(format!("imported: {start}").into());
        };
        assert!(error.to_string().ends_with("nothing was imported"), "{error}");
        assert_eq!(fs::read_dir(elsewhere.directory.path())?.count(), 1, "only the file: {start}");
    }
    let missing = elsewhere.import(Path::new("nowhere.jsonl"), false);
    assert!(matches!(missing, Err(OfflineError::File { .. })));
    Ok(())
}

#[test]
fn a_store_is_checked_and_nothing_of_it_changes() -> TestResult {
    let place = Place::written()?;
    let before = place.files()?;
    let mut told = Vec::new();
    let found = verify(&place.store(), &mut |progress| told.push(progress))?;
    assert!(found.is_well());
    assert_eq!((found.records, found.damaged_total), (4, 0));
    assert_eq!(found.kinds, [("node", 1), ("token", 2), ("protocol", 1)].into());
    assert!(found.bytes > 50_000);
    let last = told.last().copied();
    assert!(
        matches!(last, Some(Progress { doing: Doing::Copying, done, total }) if total == Some(done)),
        "{last:?}"
    );
    assert!(place.files()? == before);
    Ok(())
}

#[test]
fn damage_is_found_named_and_left_where_it_is() -> TestResult {
    let place = Place::written()?;
    let toolmesh_store::Write::Put { key, mut value } = put_token(&token("t3", "x".to_owned()))?
    else {
        return Err("a token is put".into());
    };
    let last = value.len() - 1;
    value[last] ^= 1;
    place.write(vec![put(&key, &value), put(&[250, 1], b"of tomorrow")])?;
    let before = place.files()?;
    let found = place.verify()?;
    assert!(!found.is_well());
    assert_eq!((found.records, found.damaged_total, found.unreadable), (4, 2, None));
    let named = found.damaged.iter().map(|damaged| (&*damaged.record, &*damaged.reason));
    let named: Vec<_> = named.collect();
    assert_eq!(named[0], ("token \"t3\"", "the record's checksum is wrong"));
    assert!(named[1].0 == "an unknown kind fa01" && named[1].1.contains("newer"), "{named:?}");
    assert!(place.files()? == before);

    let Err(error @ OfflineError::Record { .. }) = place.export() else {
        return Err("a damaged record was exported".into());
    };
    assert!(error.to_string().contains("t3"), "{error}");
    assert!(!place.file().exists() && !place.file().with_extension("jsonl.partial").exists());
    Ok(())
}

#[test]
fn a_log_that_cannot_be_read_is_said_and_left_where_it_is() -> TestResult {
    let damages: [(&str, &[u8]); 2] = [("conf", &[255; 40]), ("db", &[7; 600_000])];
    for (name, bytes) in damages {
        let place = Place::written()?;
        fs::write(place.store().join(name), bytes)?;
        let before = place.files()?;
        let found = place.verify()?;
        assert!(found.unreadable.is_some() && !found.is_well(), "{name}: {found:?}");
        assert!(place.files()? == before, "{name}");
    }
    Ok(())
}

#[test]
fn what_is_in_use_or_not_there_or_there_already_is_refused() -> TestResult {
    let place = Place { directory: tempfile::tempdir()? };
    assert!(matches!(place.verify(), Err(OfflineError::Missing(_))));
    assert!(matches!(place.export(), Err(OfflineError::Missing(_))));
    assert_eq!(fs::read_dir(place.directory.path())?.count(), 0);
    let place = Place::written()?;
    place.export()?;
    assert!(matches!(place.export(), Err(OfflineError::Exists(_))));
    let store = Store::open(place.options(), |_| {})?.store;
    let in_use = |outcome: Result<(), OfflineError>| {
        assert!(matches!(outcome, Err(OfflineError::Open(OpenError::InUse { .. }))), "{outcome:?}");
    };
    in_use(place.verify().map(drop));
    in_use(place.import(&place.file(), true).map(drop));
    assert_eq!(scan(store.records(), &[])?.len(), 4, "the node's store is what it was");
    Ok(())
}
