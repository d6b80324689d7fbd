//! Follows the configuration file: a good change is put in force, a bad one is said and left.

use std::{path::PathBuf, time::Duration};

use notify::{RecursiveMode, Watcher};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use toolmesh_actors::{gateway::GatewayHandle, registry::RegistryHandle, router::RouterHandle};

use crate::{
    config::{self, Config, Loaded, Sources},
    wiring,
};

/// Editors write a file in several steps; what comes within this time is one change.
const STEPS_TOGETHER: Duration = Duration::from_millis(150);

/// Whom a changed configuration concerns.
pub(crate) struct Followers {
    /// Has the upstreams, the routes and the policies.
    pub(crate) router: RouterHandle,
    /// Says in `/readyz` what is not in force.
    pub(crate) gateway: GatewayHandle,
    /// Gives no node the name of an upstream; none where the mesh is off.
    pub(crate) registry: Option<RegistryHandle>,
}

/// Reloads on every change of the file and on SIGHUP, until it is dropped.
pub(crate) async fn watch(sources: Sources, mut present: Loaded, followers: Followers) {
    let Followers { router, gateway, registry } = followers;
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let file = present.file.clone().unwrap_or_else(|| present.data.join("config.toml"));
    let (changes, mut changed) = mpsc::channel(1);
    let _watcher = follow(file, changes);
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            Some(()) = changed.recv() => {}
        }
        tokio::time::sleep(STEPS_TOGETHER).await;
        while changed.try_recv().is_ok() {}
        match config::load(&sources) {
            Ok(loaded) if loaded.config == present.config => {
                gateway.note("configuration", Vec::new())
            }
            Ok(loaded) => {
                if router.configure(wiring::router(&loaded.config)).await.is_err() {
                    return;
                }
                if let Some(registry) = &registry {
                    registry.reserve(wiring::reserved(&loaded.config));
                }
                gateway.note("configuration", restart_notes(&present, &loaded));
                tracing::info!("configuration reloaded");
                // What waits for a restart stays due until then.
                take_live(&mut present.config, &loaded.config);
                gateway.set_task_rules(wiring::task_rules(&present.config));
            }
            Err(errors) => {
                let problems: Vec<String> =
                    errors.problems().iter().map(ToString::to_string).collect();
                let note =
                    format!("the changed configuration is not in force: {}", problems.join("; "));
                tracing::error!("{note}");
                gateway.note("configuration", vec![note]);
            }
        }
    }
}

/// Says what of a change waits for a restart.
fn restart_notes(present: &Loaded, loaded: &Loaded) -> Vec<String> {
    let mut old = present.config.clone();
    take_live(&mut old, &loaded.config);
    if old == loaded.config {
        return Vec::new();
    }
    let note = format!(
        "some of the changed configuration waits for a restart of the node: {}",
        changed(&old, &loaded.config).join(", ")
    );
    tracing::warn!("{note}");
    vec![note]
}

/// Names the parts of the configuration that differ, as they stand in the file.
fn changed(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("name", old.name != new.name),
        ("[gateway]", old.gateway != new.gateway),
        ("[limits]", old.limits != new.limits),
        ("[mesh]", old.mesh != new.mesh),
        ("[queue]", old.queue != new.queue),
        ("[worker]", old.worker != new.worker),
        ("[command]", old.commands != new.commands),
        ("[store]", old.durability != new.durability),
        ("[log]", old.log != new.log),
    ]
    .into_iter()
    .filter_map(|(part, differs)| differs.then_some(part))
    .collect()
}

/// Takes from `new` what is in force without a restart.
fn take_live(present: &mut Config, new: &Config) {
    present.upstreams.clone_from(&new.upstreams);
    present.routes.clone_from(&new.routes);
    present.policies.clone_from(&new.policies);
    present.queue.as_task.clone_from(&new.queue.as_task);
    present.queue.task_after = new.queue.task_after;
    present.gateway.exposure = new.gateway.exposure;
    present.gateway.page_size = new.gateway.page_size;
}

/// Watches the file's directory, because editors and orchestrators replace the file.
fn follow(file: PathBuf, changes: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let directory = file.parent()?.to_owned();
    let told = move |event: notify::Result<notify::Event>| {
        let matters = |path: &PathBuf| {
            path.file_name() == file.file_name()
                || path.file_name().is_some_and(|name| name == "..data") // A mounted ConfigMap.
        };
        if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(matters)) {
            // One that waits already stands for this one too.
            let _waiting = changes.try_send(());
        }
    };
    let watched = notify::recommended_watcher(told).and_then(|mut watcher| {
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watched
        .inspect_err(|error| tracing::warn!(%error, "changes of the configuration need SIGHUP"))
        .ok()
}
