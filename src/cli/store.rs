//! `toolmesh store`: straight in the data directory of a node that does not run.

use std::path::Path;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use toolmesh_store::offline::{
    self, Doing, Exported, Imported, OfflineError, Progress, Verified, export, import, verify,
};
use toolmesh_store::{OpenError, RecordsError};

use super::args::{Common, StoreCommand};
use super::locate::Locator;
use super::output::{Failure, Report};
use super::text::{columns, printable};
use crate::config;

/// Directory of the records in the data directory.
const STORE_DIRECTORY: &str = "store";

/// What to do about a store that is damaged.
const RESTORE: &str = "put the last export in its place: toolmesh store import FILE --replace (the present store is \
     kept beside it)";

/// Checks, exports or imports.
pub(crate) fn run(common: &Common, command: &StoreCommand) -> Result<Report, Failure> {
    let data = Locator::as_operator(common).data_directory()?;
    let directory = data.join(STORE_DIRECTORY);
    let bar = Bar::new();
    let outcome = match command {
        StoreCommand::Verify => {
            verify(&directory, &mut |it| bar.show(it)).map(|found| verified(&directory, &found))
        }
        StoreCommand::Export { file } => export(&directory, file, &mut |it| bar.show(it))
            .map(|exported| written(file, &exported)),
        StoreCommand::Import { file, replace } => {
            config::prepare(&data)
                .map_err(|error| Failure::new(error.to_string(), "see: toolmesh doctor"))?;
            import(&directory, file, *replace, &mut |it| bar.show(it))
                .map(|imported| filled(&directory, &imported))
        }
    };
    bar.clear();
    outcome.map_err(|error| failure(&error))
}

fn verified(directory: &Path, found: &Verified) -> Report {
    let Verified { records, bytes, kinds, damaged, damaged_total, unreadable } = found;
    let next = match (unreadable, damaged_total) {
        (None, 0) => None,
        (Some(_), _) => Some(format!(
            "a node would move this store aside at its start and begin with nothing: {RESTORE}"
        )),
        (None, _) => Some(RESTORE.to_owned()),
    };
    let mut lines = vec![format!(
        "{} records can be read, {} in all",
        HumanCount(*records),
        HumanBytes(*bytes)
    )];
    let rows = kinds.iter().map(|(kind, count)| vec![(*kind).to_owned(), count.to_string()]);
    lines.extend((!kinds.is_empty()).then(|| columns(&rows.collect::<Vec<_>>(), 2)));
    if *damaged_total > 0 {
        lines.push(format!("{damaged_total} cannot:"));
        let named = |it: &offline::Damaged| format!("  {}: {}", printable(&it.record), it.reason);
        lines.extend(damaged.iter().map(named));
        let more = damaged_total - damaged.len() as u64;
        lines.extend((more > 0).then(|| format!("  and {more} more")));
    }
    let unread = |reason| format!("reading it ended early: {}", printable(reason));
    lines.extend(unreadable.as_deref().map(unread));
    lines.extend(next.as_ref().map(|next| format!(" next: {next}")));
    let value = json!({
        "directory": directory,
        "well": found.is_well(),
        "records": records,
        "bytes": bytes,
        "kinds": kinds,
        "damaged": damaged
            .iter()
            .map(|it| json!({"record": it.record, "reason": it.reason}))
            .collect::<Vec<_>>(),
        "damaged_total": damaged_total,
        "unreadable": unreadable,
        "next": next,
    });
    Report { well: found.is_well(), ..Report::new(lines.join("\n"), value) }
}

fn written(file: &Path, Exported { records, bytes, sha256 }: &Exported) -> Report {
    let text = format!(
        "{} records are in {}, {}\n\nHashes of tokens and the contents of tasks are in it: only you \
         can read it (0600). Keep it so.",
        HumanCount(*records),
        file.display(),
        HumanBytes(*bytes),
    );
    let value = json!({"file": file, "records": records, "bytes": bytes, "sha256": sha256});
    Report::new(text, value)
}

fn filled(directory: &Path, Imported { records, replaced }: &Imported) -> Report {
    let mut text = format!("{} records are in {} now", HumanCount(*records), directory.display());
    if let Some(replaced) = replaced {
        text.push_str(&format!("\nwhat was there before is in {}", replaced.display()));
    }
    let value = json!({"directory": directory, "records": records, "replaced": replaced});
    Report::new(text, value)
}

fn failure(error: &OfflineError) -> Failure {
    let next = match error {
        OfflineError::Missing(_) => "name the data directory of the node: --data DIR",
        OfflineError::Open(OpenError::InUse { .. }) => {
            return Failure::new(
                "a node uses this data directory",
                "stop it, repeat this, and start it again",
            );
        }
        OfflineError::Records(RecordsError::Damaged(_)) | OfflineError::Record { .. } => {
            "see all that is damaged: toolmesh store verify"
        }
        OfflineError::Exists(_) => "choose another name, or remove it",
        OfflineError::Malformed { .. } => "take another export; this one is not whole",
        OfflineError::NotEmpty(_) => {
            "repeat with --replace to put the file in its place; the present store is kept beside it"
        }
        OfflineError::NoSpace { .. } => "free space on the disk of the data directory",
        OfflineError::Open(_) | OfflineError::Records(_) | OfflineError::File { .. } => {
            "see: toolmesh doctor"
        }
    };
    Failure::new(error.to_string(), next)
}

/// How far it is, on stderr if that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(ProgressBar::no_length())
    }

    fn show(&self, Progress { doing, done, total }: Progress) {
        let (what, is_bytes) = match doing {
            Doing::Copying => ("copying", true),
            Doing::Reading => ("reading", false),
            Doing::Checking => ("checking the file", true),
            Doing::Writing => ("writing", true),
        };
        if self.0.message() != what {
            let template = match is_bytes {
                true => "{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left",
                false => "{spinner} {msg}, {human_pos} records",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.0.set_style(style);
            }
            self.0.reset();
            self.0.set_message(what);
        }
        if let Some(total) = total {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}
