//! `tables.db`: the report tables of one generation, and their one writer.
//!
//! Owns: the file's form, what is kept per hit, click and conversion, and the cells.
//! Refuses: outcomes out of order; a file of another form (it is rebuilt).
//! Invariant: a commit holds rows, cells, index and position together, so a reader sees the fold of exactly the
//! outcomes before the position. Everything here can be deleted: the log gives it again.

mod cell;
mod cells;
pub(crate) mod generation;
mod index;
mod names;
mod rows;
pub(crate) mod runs;
mod schema;
mod spans;
mod terms;
mod writer;

pub(crate) use cell::{Cell, WHOLE_DAY, stored_entries};
pub(crate) use cells::{OTHER, has_other};
pub(crate) use names::Names;
pub(crate) use rows::{Decision, HitRow, StoredChange, StoredClick, StoredConversion, decode, encode};
pub(crate) use schema::open_reader;
pub(crate) use spans::{Order, ranges};
pub(crate) use terms::{Kind, Segments, Term, term};
pub use writer::Tables;
