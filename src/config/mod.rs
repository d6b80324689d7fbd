//! Configuration: what an operator may decide about a node, checked before the node sees it.
//!
//! Sources, the later over the earlier: defaults, one TOML file, `TOOLMESH_*` variables, flags.
//! Each is parsed alone, so an error names the line and column, the variable or the flag; then
//! they are merged into a [`raw::Raw`] and checked into a [`Config`], whose types cannot be
//! wrong. [`load`] reads only what [`Sources`] names, so a reload is the same call again and two
//! [`Config`] compare equal when nothing changed. Secrets stay references until their upstream
//! starts. See `docs/configuration.md`.

mod check;
mod check_mesh;
mod check_program;
mod check_queue;
mod check_upstream;
mod checked;
mod command;
mod data;
mod file;
mod keys;
mod layers;
mod problem;
mod raw;
mod raw_queue;
mod show;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use checked::{
    Admission, Config, Grant, Log, MESH_PORT, Mesh, NodeName, Runtime, Stdio, TaskCommand, Tool,
    Transport, Upstream, UpstreamName,
};
pub(crate) use command::{Command, run};
pub(crate) use data::prepare;
use layers::Layers;
pub(crate) use problem::{Errors, Origin, Problem};
pub(crate) use value::{ClaimOrder, Dialect, Durability, Exposure, LogFormat, Protocol};

/// Name of the configuration file in the data directory.
const FILE_NAME: &str = "config.toml";

/// Sets one key from the command line.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    /// Name with dashes, for errors: `--http`.
    pub(crate) name: String,
    /// Key in dotted form: `gateway.http`.
    pub(crate) key: String,
    /// Value as given: the string, or TOML where the key is not a string.
    pub(crate) value: String,
}

/// Names everything that a configuration is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// `--config`; relative to the working directory.
    pub(crate) config: Option<PathBuf>,
    /// `--data`; relative to the working directory.
    pub(crate) data: Option<PathBuf>,
    /// Flags that set keys.
    pub(crate) flags: Vec<Flag>,
    /// Environment variables; only `TOOLMESH_*` are looked at.
    pub(crate) environment: BTreeMap<String, OsString>,
    /// Data directory of the platform for toolmesh, where it has one.
    pub(crate) platform_data: Option<PathBuf>,
}

impl Sources {
    /// Returns the sources of this process: `config` and `data` from its flags, the rest from its
    /// environment. The one place that reads either.
    pub(crate) fn of_process(
        config: Option<PathBuf>,
        data: Option<PathBuf>,
        flags: Vec<Flag>,
    ) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let platform_data = directories::ProjectDirs::from("", "", "toolmesh")
            .map(|project| project.data_dir().to_owned());
        Self { config, data, flags, environment, platform_data }
    }

    /// Returns the data directory: `--data`, `TOOLMESH_DATA`, else the platform's.
    ///
    /// # Errors
    ///
    /// When none of them says anything.
    pub(crate) fn data_directory(&self) -> Result<PathBuf, Errors> {
        let given = self.data.clone().or_else(|| self.variable("TOOLMESH_DATA"));
        given.or_else(|| self.platform_data.clone()).map(absolute).ok_or_else(|| {
            Errors::from(Problem {
                origin: Origin::Default,
                key: String::new(),
                message: "no home directory to keep data in; pass --data DIR".to_owned(),
            })
        })
    }

    /// Returns the configuration file: `--config`, `TOOLMESH_CONFIG`, else the one in `data` if
    /// it exists.
    fn file(&self, data: &Path) -> Option<PathBuf> {
        let given = self.config.clone().or_else(|| self.variable("TOOLMESH_CONFIG"));
        let own = || Some(data.join(FILE_NAME)).filter(|path| path.is_file());
        given.or_else(own)
    }

    /// Returns a variable that names a path; an empty one counts as not set.
    fn variable(&self, name: &str) -> Option<PathBuf> {
        self.environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

/// Holds a configuration and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// The file that was read, if any; the one to watch.
    pub(crate) file: Option<PathBuf>,
    /// The data directory, which may not exist yet; see [`prepare`].
    pub(crate) data: PathBuf,
    layers: Layers,
}

/// Reads and checks the configuration that `sources` make. Changes nothing.
///
/// # Errors
///
/// Everything that is wrong with the first of file, environment, flags and their sum that is.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, Errors> {
    let data = sources.data_directory()?;
    let file = sources.file(&data);
    let mut layers = Layers::default();
    if let Some(file) = &file {
        layers.add_file(file)?;
    }
    layers.add_environment(&sources.environment)?;
    layers.add_flags(&sources.flags)?;
    let base = absolute(file.clone().unwrap_or_else(|| FILE_NAME.into()));
    let base = base.parent().unwrap_or(Path::new(""));
    let config = check::check(layers.merged()?, &layers, base)?;
    Ok(Loaded { config, file, data, layers })
}

/// Returns `path` from the root, so that a later change of directory does not matter.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests;
