//! What the stages share: the log, the catalog's current view, secrets, time, health and telemetry.
//!
//! Owns: every byte that is durable, and who may write it.
//! Refuses: to decide or to interpret anything; it moves and keeps what others decided.
//! Invariant: what was answered with `Ok` is on disk, once, in one order that every reader sees alike.

pub mod address;
pub mod append;
pub mod catalog;
pub mod clock;
pub mod kafka;
pub mod lifecycle;
pub mod log;
pub mod receipt;
pub mod secrets;
pub mod telemetry;

pub use address::cut_address;
pub use append::{Appender, Applied, Draft, Request, Unavailable};
pub use catalog::{AccountEntry, Catalog, LinkEntry, View};
pub use log::{Batch, Block, Log, LogEnd, LogError, LogReader};
pub use receipt::Receipt;
pub use secrets::Sealer;
