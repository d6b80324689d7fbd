//! Follows the configuration file: a good change is put in force, a bad one is said and left.

use std::{path::PathBuf, time::Duration};

use notify::{RecursiveMode, Watcher};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use toolmesh_actors::{gateway::GatewayHandle, router::RouterHandle};

use crate::{
    config::{self, Loaded, Sources},
    wiring,
};

/// Editors write a file in several steps; what comes within this time is one change.
const STEPS_TOGETHER: Duration = Duration::from_millis(150);

/// Reloads on every change of the file and on SIGHUP, until it is dropped.
pub(crate) async fn watch(
    sources: Sources,
    mut present: Loaded,
    router: RouterHandle,
    gateway: GatewayHandle,
) {
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
                gateway.note("configuration", restart_notes(&present, &loaded));
                tracing::info!("configuration reloaded");
                // What waits for a restart stays due until then.
                present.config.upstreams = loaded.config.upstreams;
                present.config.routes = loaded.config.routes;
                present.config.gateway.exposure = loaded.config.gateway.exposure;
                present.config.gateway.page_size = loaded.config.gateway.page_size;
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
    let (mut old, new) = (present.config.clone(), &loaded.config);
    old.upstreams.clone_from(&new.upstreams);
    old.routes.clone_from(&new.routes);
    old.gateway.exposure = new.gateway.exposure;
    old.gateway.page_size = new.gateway.page_size;
    if old == *new {
        return Vec::new();
    }
    let note = "some of the changed configuration waits for a restart of the node (everything but upstreams, routes, exposure and page_size)";
    tracing::warn!("{note}");
    vec![note.to_owned()]
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
