//! Tests of the configuration as a whole: from sources to a [`Config`] or to what is wrong.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod commands;
mod documents;
mod environment;
mod files;
mod mesh;
mod queue;
mod secrets;

use tempfile::TempDir;
use toolmesh_actors::secret::{EnvReference, FileReference, Secret, SecretError};

use super::*;

/// Holds a data directory with a configuration file in it.
struct Home(TempDir);

impl Home {
    fn with(text: impl AsRef<[u8]>) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        std::fs::write(home.file(), text).unwrap();
        home
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(FILE_NAME)
    }

    fn sources(&self) -> Sources {
        Sources { data: Some(self.0.path().to_owned()), ..Sources::default() }
    }

    /// Returns what is wrong, a problem a line, with the path of the file left out.
    fn problems(&self, sources: &Sources) -> String {
        let problems = load(sources).unwrap_err().to_string();
        problems.replace(&format!("{}:", self.file().display()), "")
    }
}

fn load_text(text: &str) -> Config {
    let home = Home::with(text);
    load(&home.sources()).unwrap().config
}

fn defaults() -> Config {
    load_text("")
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, OsString> {
    pairs.map(|(name, value)| (name.to_owned(), value.into())).into()
}

fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.to_owned(), key: key.to_owned(), value: value.to_owned() }
}
