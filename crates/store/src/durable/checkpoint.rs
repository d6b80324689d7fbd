//! The thread that hands what is held to sled.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::held::Held;
use crate::journal;
use crate::record::{self, RecordsError};
use crate::sled::SledRecords;

/// Makes checkpoints, one at a time. Dropped, it ends the one under way.
#[derive(Debug)]
pub(super) struct Checkpoints {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    /// What was handed over goes to sled; then journals before this one are not needed.
    Making(u64),
    /// Nothing more can be done.
    Failed(RecordsError),
    Closed,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the state is one that `passes`.
    fn after(&self, passes: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_while(self.state(), |state| passes(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
        self.changed.notify_all();
    }
}

impl Checkpoints {
    /// Starts the thread for the store in `directory`.
    pub(super) fn start(
        directory: &Path,
        sled: Arc<SledRecords>,
        held: Arc<Held>,
    ) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (for_thread, directory) = (shared.clone(), directory.to_owned());
        let thread = std::thread::Builder::new().name("checkpoint".to_owned());
        let thread = thread.spawn(move || run(&for_thread, &directory, &sled, &held))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Tells whether another may be made, and with `wait` is only back once it may.
    ///
    /// # Errors
    ///
    /// One has failed.
    pub(super) fn is_free(&self, wait: bool) -> Result<bool, RecordsError> {
        match &*self.shared.after(|state| wait && matches!(state, State::Making(_))) {
            State::Free => Ok(true),
            State::Making(_) | State::Closed => Ok(false),
            State::Failed(error) => Err(error.clone()),
        }
    }

    /// Has what was handed over put into sled, and the journals before `number` removed then. Must
    /// be free.
    pub(super) fn make(&self, number: u64) {
        self.shared.set(State::Making(number));
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        // Nobody asks for another one any more.
        drop(self.shared.after(|state| matches!(state, State::Making(_))));
        self.shared.set(State::Closed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the checkpoint had panicked");
        }
    }
}

fn run(shared: &Shared, directory: &Path, sled: &SledRecords, held: &Held) {
    loop {
        let State::Making(number) = *shared.after(|state| matches!(state, State::Free)) else {
            return;
        };
        let made = record::caught("a checkpoint", || make(directory, number, sled, held));
        shared.set(made.map_or_else(State::Failed, |()| State::Free));
    }
}

fn make(
    directory: &Path,
    number: u64,
    sled: &SledRecords,
    held: &Held,
) -> Result<(), RecordsError> {
    sled.apply(held.older().values())?;
    sled.sync()?;
    held.forget_older();
    Ok(journal::remove_before(directory, number)?)
}
