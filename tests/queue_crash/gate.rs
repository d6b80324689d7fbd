//! How clients reach the nodes of a run.

use std::{fmt, sync::Arc, thread};

use crate::support::{Caller, Outcome};

/// Takes a thread to where a node is reached.
type Enter = dyn Fn() -> Result<(), String> + Send + Sync;

/// A node as clients reach it.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Where it takes calls, as `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// What the others call it.
    pub(crate) name: String,
    /// What comes before the names of the tools that tasks of this node call; of its own first.
    pub(crate) tools: Vec<String>,
    enter: Arc<Enter>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("address", &self.address).field("name", &self.name).finish()
    }
}

impl Gate {
    /// A node that is reached from everywhere and has its server `box` alone.
    pub(crate) fn alone(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            name: String::new(),
            tools: vec!["box__".to_owned()],
            enter: Arc::new(|| Ok(())),
        }
    }

    /// One of several nodes. Its address means something to a thread that called `enter`, and to
    /// threads that such a thread starts.
    pub(crate) fn among(
        name: &str,
        address: &str,
        tools: Vec<String>,
        enter: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { address: address.to_owned(), name: name.to_owned(), tools, enter: Arc::new(enter) }
    }

    /// Takes this thread to where the node is reached; it stays there.
    ///
    /// # Errors
    /// It may not go there.
    pub(crate) fn enter(&self) -> Result<(), String> {
        (self.enter)()
    }

    /// Does `work` where the node is reached.
    ///
    /// # Errors
    /// Of the work, and of going there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        let there = || {
            self.enter()?;
            work().map_err(|error| error.to_string())
        };
        let done = thread::scope(|scope| scope.spawn(there).join());
        Ok(done.map_err(|_| format!("work at {self:?} panicked"))??)
    }

    /// A caller without a token, for a thread that has entered.
    pub(crate) fn caller(&self) -> Result<Caller, String> {
        Caller::new(&self.address).map_err(|error| error.to_string())
    }
}
