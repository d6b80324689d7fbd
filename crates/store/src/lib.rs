//! What a toolmesh node remembers.
//!
//! State is records: [`Write`]s put and delete them, and recovery reads them back. One
//! [`Committer`] makes writes durable before anyone hears of them. sled stands behind the
//! [`Records`] port with the guards of `docs/adr/003-sled-behind-the-record-port.md`, and a journal
//! before it (`020-a-journal-before-sled.md`); the twin in memory is for tests. No async runtime here: the committer is a thread that calls back.
//!
//! ```no_run
//! # use toolmesh_store::{records, Options, State, Store, Work};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fatal = |error| eprintln!("stopping: {error}");
//! let opened = Store::load::<State>(Options::new("data/store"), fatal)?;
//! println!("the node was called {:?}", opened.state.node_name);
//! let rename = records::put_node_name("ada")?;
//! opened.store.committer().submit(Work::New, vec![rename], |outcome| match outcome {
//!     Ok(()) => println!("the new name is on disk"),
//!     Err(why) => eprintln!("{why}"),
//! });
//! opened.store.close();
//! # Ok(()) }
//! ```

mod ahead;
mod chunk;
mod clock;
mod codec;
mod committer;
mod disk;
mod durable;
mod journal;
mod keys;
mod lane;
pub mod limits;
mod load;
mod memory;
pub mod offline;
mod open;
mod record;
pub mod records;
mod sled;
mod store;

pub use codec::CodecError;
pub use committer::{CommitError, Committer, Health, Slot, Work};
pub use disk::FreeSpace;
pub use load::{Load, LoadError};
pub use memory::MemoryRecords;
pub use open::{OpenError, Recovery};
pub use record::{Durability, Order, Records, RecordsError, Visit, Write};
pub use records::{Lifecycle, Protocol, State, Token};
pub use store::{Opened, Options, Store};
