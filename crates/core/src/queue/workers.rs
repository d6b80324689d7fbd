//! Who runs tasks: what each worker said of itself, and how it did.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    class::ClassKey,
    input::Claim,
    spec::{TOOL_CALL, is_placed, is_run_by_nodes},
};
use crate::limits;

/// A worker's name and the principal that it is: two principals may use one name.
pub(super) type WorkerKey = (Arc<str>, Arc<str>);

/// A worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Worker {
    /// When it last asked for something, in milliseconds.
    pub(super) seen: u64,
    /// Whether it ever claimed: what it runs is known then.
    pub(super) claimed: bool,
    pub(super) is_node: bool,
    pub(super) is_member: bool,
    pub(super) kinds: Option<BTreeSet<Arc<str>>>,
    pub(super) labels: BTreeSet<Arc<str>>,
    pub(super) session: Option<Arc<str>>,
    pub(super) takes_large: bool,
    pub(super) running: usize,
    pub(super) completed: u64,
    pub(super) failed: u64,
    /// How long its last attempts took, in milliseconds.
    pub(super) times: VecDeque<u64>,
    pub(super) draining: bool,
}

impl Worker {
    /// Whether it asked for something lately, or has a lease that says that it is there.
    pub(super) fn is_here(&self, now: u64) -> bool {
        self.running > 0 || now.saturating_sub(self.seen) <= limits::QUEUE_WORKER_AWAY_MS
    }

    /// Whether it runs tasks of this type.
    pub(super) fn runs(&self, kind: &Arc<str>) -> bool {
        let unnamed = may_unnamed(self.is_member, kind);
        self.is_node == is_run_by_nodes(kind)
            && self.kinds.as_ref().map_or(unnamed, |kinds| kinds.contains(kind))
    }

    /// Whether it has what tasks of a class and this type need.
    pub(super) fn has(&self, class: &ClassKey, kind: &str) -> bool {
        may_placed(self.is_member, class, kind)
            && class.requires.iter().all(|label| self.labels.contains(label))
            && (self.is_node || class.session.is_none() || class.session == self.session)
            && (self.takes_large || !class.is_large)
    }

    /// An attempt of its ended after `ms` milliseconds.
    pub(super) fn ended(&mut self, completed: bool, ms: u64) {
        if completed {
            self.completed += 1;
        } else {
            self.failed += 1;
        }
        if self.times.len() == limits::QUEUE_WORKER_TIMES {
            self.times.pop_front();
        }
        self.times.push_back(ms);
    }
}

/// Whether a worker that names no types runs tasks of this one: a member runs no command that it
/// does not name.
pub(super) fn may_unnamed(is_member: bool, kind: &str) -> bool {
    !is_member || kind == TOOL_CALL
}

/// Whether a worker may have tasks of a class as far as their place is concerned: a member runs
/// calls only of tools that say where they are reached.
pub(super) fn may_placed(is_member: bool, class: &ClassKey, kind: &str) -> bool {
    !is_member || kind != TOOL_CALL || is_placed(&class.requires)
}

/// What it meant to drain workers, or to take that back.
#[derive(Debug)]
pub(super) struct Drained {
    /// Whether it was otherwise before.
    pub(super) is_new: bool,
    /// The name that is forgotten for it.
    pub(super) forgotten: Option<Arc<str>>,
}

/// The workers that are known.
#[derive(Debug, Clone, Default)]
pub(super) struct Workers {
    pub(super) by_key: BTreeMap<WorkerKey, Worker>,
    /// Names of those that an operator drains, be they there or not.
    drained: BTreeSet<Arc<str>>,
    /// The name of the node's own, which is there whether or not it ever asked for something.
    pub(super) own: Option<Arc<str>>,
}

impl Workers {
    /// Notes that a worker is there. `None`: there are too many, and all have tasks.
    pub(super) fn seen(&mut self, key: &WorkerKey, now: u64) -> Option<&mut Worker> {
        if !self.by_key.contains_key(key) {
            if self.by_key.len() >= limits::QUEUE_WORKERS {
                let idle = self.by_key.iter().filter(|(_, worker)| worker.running == 0);
                let longest =
                    idle.min_by_key(|(_, worker)| worker.seen).map(|(key, _)| key.clone());
                self.by_key.remove(&longest?);
            }
            let draining = self.is_drained(&key.0);
            self.by_key.insert(key.clone(), Worker { draining, ..Worker::default() });
        }
        let worker = self.by_key.get_mut(key)?;
        worker.seen = now;
        Some(worker)
    }

    /// Notes what a worker says of itself when it claims.
    pub(super) fn claims(&mut self, claim: &Claim, now: u64) -> Option<&mut Worker> {
        let worker = self.seen(&(claim.worker.clone(), claim.principal.clone()), now)?;
        worker.claimed = true;
        worker.is_node = claim.is_node;
        worker.is_member = claim.is_member;
        worker.kinds.clone_from(&claim.kinds);
        worker.labels.clone_from(&claim.labels);
        worker.session.clone_from(&claim.session);
        worker.takes_large = claim.takes_large;
        Some(worker)
    }

    /// Whether tasks of a class wait for the worker that goes before others: one of that name is
    /// there and takes such tasks, as far as it is known.
    pub(super) fn keeps(
        &self,
        name: &Arc<str>,
        kind: &Arc<str>,
        class: &ClassKey,
        now: u64,
    ) -> bool {
        let from = (name.clone(), Arc::from(""));
        let mut named = self.by_key.range(from..).take_while(|((other, _), _)| other == name);
        named.any(|(_, worker)| {
            let fits = !worker.claimed || worker.runs(kind) && worker.has(class, kind);
            worker.is_here(now) && !worker.draining && fits
        })
    }

    /// Whether workers of this name are given no more tasks.
    pub(super) fn is_drained(&self, name: &Arc<str>) -> bool {
        self.drained.contains(name)
    }

    /// Takes a name that was kept.
    pub(super) fn restore_drained(&mut self, name: Arc<str>) {
        self.drained.insert(name);
    }

    /// Gives workers of this name no more tasks, or again. `None`: there are none, and were none
    /// drained. Else says whether that is new, and which name makes room for it, where too many are
    /// drained: one of nobody who is there.
    pub(super) fn drain(&mut self, name: &Arc<str>, on: bool) -> Option<Drained> {
        let was_drained = self.drained.contains(name);
        let mut found = was_drained || self.own.as_ref() == Some(name);
        for ((of, _), worker) in &mut self.by_key {
            if of == name {
                worker.draining = on;
                found = true;
            }
        }
        if !found {
            return None;
        }
        let full = on && !was_drained && self.drained.len() >= limits::QUEUE_WORKERS;
        let forgotten = full.then(|| {
            let known = |name: &Arc<str>| self.by_key.keys().any(|(of, _)| of == name);
            self.drained.iter().find(|name| !known(name)).cloned()
        });
        let forgotten = forgotten.flatten();
        if let Some(name) = &forgotten {
            self.drained.remove(name);
        }
        let is_new = if on { self.drained.insert(name.clone()) } else { self.drained.remove(name) };
        Some(Drained { is_new, forgotten })
    }

    pub(super) fn get_mut(&mut self, key: &WorkerKey) -> Option<&mut Worker> {
        self.by_key.get_mut(key)
    }
}
