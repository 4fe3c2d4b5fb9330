//! What the figures of a conversions report are read from.
//!
//! Owns: what is asked of a store of tables. Refuses: to know how one is read. The tables of a folder and those of a
//! cluster both answer this, so that what a report means is written once.

use schemas::Time;

use super::{
    Directory,
    by_cells::Part,
    plan::{Account, Plan},
    query::{Basis, QueryError},
    range::Range,
    rows::AsOf,
};
use crate::{
    fold::{Family, Measure, Sums},
    tables::{StoredClick, StoredConversion},
};

pub type SeeCell<'s> = dyn FnMut(&Want<'_>, Piece<'_>) -> Result<(), QueryError> + 's;
/// `None`: of an account that nobody asked for.
pub type SeeRow<'s> = dyn FnMut(Option<&Account>, Row<'_>) -> Result<(), QueryError> + 's;

pub trait Source {
    fn as_of(&self) -> AsOf;
    /// All accounts of the tenant that may have figures.
    fn accounts(&self, directory: &Directory<'_>, tenant: &str) -> Vec<String>;
    /// Whether one of the accounts has values beyond the named ones on one of the days.
    fn has_other(&mut self, plan: &Plan, family: Family, days: (i64, i64)) -> Result<bool, QueryError>;
    /// Shows every cell that is wanted, one cell perhaps in several pieces.
    fn cells(
        &mut self,
        plan: &Plan,
        wants: &[Want<'_>],
        days: &Days<'_>,
        see: &mut SeeCell<'_>,
    ) -> Result<(), QueryError>;
    /// Shows every row that can have a time in the range, and perhaps others.
    fn rows(&mut self, plan: &Plan, what: Rows, range: Range, see: &mut SeeRow<'_>) -> Result<(), QueryError>;
}

/// Cells of an account and a family.
pub struct Want<'a> {
    pub account: &'a Account,
    /// With `OTHER` for the values that are not named.
    pub family: u8,
    pub part: Part,
    /// `None`: all.
    pub values: Option<&'a [String]>,
}

/// UTC days since 1970, both ends included.
pub struct Days<'a> {
    pub first: i64,
    pub last: i64,
    /// Whether the report takes a day as a whole, or by its quarters of an hour.
    pub is_whole: &'a dyn Fn(i64) -> bool,
}

/// What a cell has, or a part of it.
pub struct Piece<'c> {
    pub day: i64,
    pub value: &'c str,
    /// Slot of time, the measure's code, sums. Those of the whole day come first, if they are there.
    pub entries: &'c mut dyn Iterator<Item = anyhow::Result<(u8, u32, Sums)>>,
    /// Within one question a code has one meaning.
    pub measure: &'c dyn Fn(u32) -> Option<(Measure<'c>, Basis)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    Clicks,
    Conversions,
}

/// Rows of conversions are as they stand now.
#[derive(Clone, Copy)]
pub enum Row<'r> {
    Click(&'r StoredClick<'r>),
    Conversion(&'r StoredConversion<'r>),
}

impl Row<'_> {
    pub fn account(&self) -> u32 {
        match self {
            Row::Click(row) => row.account,
            Row::Conversion(row) => row.account,
        }
    }
}

/// When a conversion counts.
pub fn time_of(basis: Basis, row: &StoredConversion<'_>) -> Time {
    match basis {
        Basis::Click => row.click_time,
        Basis::Conversion => row.time,
    }
}
