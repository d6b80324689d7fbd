//! `docker-compose.yml` and `deploy/Dockerfile`, read as far as a node depends on them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use yaml_rust2::{Yaml, YamlLoader, yaml::Hash};

use super::support::Outcome;

/// One container as Docker would start it.
#[derive(Debug)]
pub(crate) struct Service {
    /// What others reach it by.
    pub(crate) name: String,
    /// Entry point of the image, then the command of the service.
    pub(crate) command: Vec<String>,
    /// Variables of the image, then those of the service.
    pub(crate) environment: BTreeMap<String, String>,
    /// Paths in the container, and what is mounted there: a path of the project, or a volume.
    pub(crate) mounts: BTreeMap<String, String>,
}

/// A file of the project.
pub(crate) fn project(path: &str) -> Outcome<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    Ok(fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// The services of the compose file, in its order.
pub(crate) fn services() -> Outcome<Vec<Service>> {
    let text = project("docker-compose.yml")?;
    let documents = YamlLoader::load_from_str(&text)?;
    let file = documents.first().ok_or("no document")?;
    let services = file["services"].as_hash().ok_or("no services")?;
    services.iter().map(|(name, service)| Service::read(name, service, &file["secrets"])).collect()
}

impl Service {
    fn read(name: &Yaml, service: &Yaml, secrets: &Yaml) -> Outcome<Self> {
        let name = text(name)?;
        let service = Yaml::Hash(merged(service));
        let image = project(&text(&service["build"]["dockerfile"])?)?;
        let mut command = entry_point(&image)?;
        command.extend(texts(&service["command"])?);
        let mut environment = image_environment(&image);
        for (variable, value) in merged(&service["environment"]) {
            environment.insert(text(&variable)?, text(&value)?);
        }
        let mut mounts = BTreeMap::new();
        for mount in texts(&service["volumes"])? {
            let mut parts = mount.split(':');
            let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
                return Err(format!("{name}: {mount} is no SOURCE:TARGET").into());
            };
            mounts.insert(target.to_owned(), source.to_owned());
        }
        for secret in texts(&service["secrets"])? {
            let file = text(&secrets[secret.as_str()]["file"])?;
            mounts.insert(format!("/run/secrets/{secret}"), file);
        }
        Ok(Self { name, command, environment, mounts })
    }
}

/// A mapping with what its `<<` brings, where it does not say otherwise itself.
fn merged(mapping: &Yaml) -> Hash {
    let own = mapping.as_hash().cloned().unwrap_or_default();
    let merge = Yaml::String("<<".to_owned());
    let mut all = own.get(&merge).map(merged).unwrap_or_default();
    all.extend(own.into_iter().filter(|(key, _)| *key != merge));
    all
}

fn text(value: &Yaml) -> Outcome<String> {
    Ok(value.as_str().ok_or_else(|| format!("{value:?} is no text"))?.to_owned())
}

fn texts(value: &Yaml) -> Outcome<Vec<String>> {
    value.as_vec().ok_or_else(|| format!("{value:?} is no list"))?.iter().map(text).collect()
}

fn entry_point(image: &str) -> Outcome<Vec<String>> {
    let line = image.lines().find_map(|line| line.strip_prefix("ENTRYPOINT "));
    Ok(serde_json::from_str(line.ok_or("the image has no entry point")?)?)
}

fn image_environment(image: &str) -> BTreeMap<String, String> {
    let lines = image.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
