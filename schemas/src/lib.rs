//! The records, ids, parsing rules and program catalogue that every part of Clickback shares.
//!
//! Owns: what an event, an outcome and a catalog record look like; how a raw postback is read.
//! Refuses: I/O, clocks, randomness, async. Time and random bits are always arguments.
//! Invariant: the same input gives the same bytes, on any machine, in any run.

pub mod amount;
pub mod bounds;
pub mod catalog;
pub mod catalogue;
pub mod chain;
pub mod check;
pub mod conversion_record;
mod currency_mark;
pub mod event;
pub mod goal;
pub mod id;
pub mod interpret;
mod json_body;
pub mod landing;
pub mod macros;
pub mod money;
pub mod name;
#[cfg(feature = "openapi")]
mod openapi;
pub mod outcome;
mod own;
mod params;
pub mod postback_urls;
pub mod reason;
pub mod redact;
mod segments;
pub mod settings;
pub mod status;
pub mod target;
pub mod time;
mod unnumbered;
pub mod word;

pub use conversion_record::ConversionRecord;
pub use event::{Event, EventBody};
pub use id::{ClickId, ConversionId, EventId};
pub use money::{Amount, Currency};
pub use outcome::Outcome;
pub use reason::Reason;
pub use time::Time;
pub use unnumbered::Unnumbered;
