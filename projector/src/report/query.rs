//! What may be asked of the reports: dimensions, filters, ranges and pages, as typed values.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemas::{EventId, Reason, Time, outcome::Status, status::State};
use scylla::errors::{ExecutionError, NextRowError, PagerExecutionError};

use super::reader::TooLong;

/// What a conversion report can be grouped and filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    Day,
    Hour,
    Month,
    Account,
    Program,
    Link,
    Dyn,
    Sub1,
    Sub2,
    Sub3,
    Sub4,
    Sub5,
    Goal,
    Currency,
    State,
}

impl Dimension {
    pub const ALL: [Dimension; 15] = [
        Dimension::Day,
        Dimension::Hour,
        Dimension::Month,
        Dimension::Account,
        Dimension::Program,
        Dimension::Link,
        Dimension::Dyn,
        Dimension::Sub1,
        Dimension::Sub2,
        Dimension::Sub3,
        Dimension::Sub4,
        Dimension::Sub5,
        Dimension::Goal,
        Dimension::Currency,
        Dimension::State,
    ];
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Day => "day",
            Dimension::Hour => "hour",
            Dimension::Month => "month",
            Dimension::Account => "account",
            Dimension::Program => "program",
            Dimension::Link => "link",
            Dimension::Dyn => "dyn",
            Dimension::Sub1 => "sub1",
            Dimension::Sub2 => "sub2",
            Dimension::Sub3 => "sub3",
            Dimension::Sub4 => "sub4",
            Dimension::Sub5 => "sub5",
            Dimension::Goal => "goal",
            Dimension::Currency => "currency",
            Dimension::State => "state",
        }
    }
    pub fn is_time(self) -> bool {
        matches!(self, Dimension::Day | Dimension::Hour | Dimension::Month)
    }
    /// Goal, currency and state divide conversions, not clicks.
    pub fn is_of_conversion(self) -> bool {
        matches!(self, Dimension::Goal | Dimension::Currency | Dimension::State)
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not a dimension: day, hour, month, account, program, link, dyn, sub1 to sub5, goal, currency or state is needed"
)]
pub struct BadDimension;

impl FromStr for Dimension {
    type Err = BadDimension;
    fn from_str(text: &str) -> Result<Self, BadDimension> {
        Dimension::ALL.into_iter().find(|dimension| dimension.name() == text).ok_or(BadDimension)
    }
}

/// One filter value: `x`, `!x`, or empty for "without one" (`!` alone: with any).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Is(String),
    Not(String),
    Without,
    With,
}

impl Match {
    pub fn parse(text: &str) -> Match {
        match text.strip_prefix('!') {
            Some("") => Match::With,
            Some(value) => Match::Not(value.to_owned()),
            None if text.is_empty() => Match::Without,
            None => Match::Is(text.to_owned()),
        }
    }
}

/// All values given for one dimension: any of the positive ones, and none of the negative ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(pub Vec<Match>);

impl Filter {
    pub fn admits(&self, value: Option<&str>) -> bool {
        self.admits_all(|text| value == Some(text), value.is_none())
    }
    /// Of what may have several values: whether it has a given one, and whether it has none.
    pub fn admits_all(&self, has: impl Fn(&str) -> bool, none: bool) -> bool {
        let mut wanted = None;
        for test in &self.0 {
            match test {
                Match::Is(text) => wanted = Some(wanted == Some(true) || has(text)),
                Match::Without => wanted = Some(wanted == Some(true) || none),
                Match::Not(text) if has(text) => return false,
                Match::With if none => return false,
                Match::Not(_) | Match::With => {}
            }
        }
        wanted != Some(false)
    }
    /// The values of which one must stand there, if nothing else can pass.
    pub fn positive(&self) -> Option<Vec<&str>> {
        let mut values = Vec::new();
        for test in &self.0 {
            match test {
                Match::Is(text) => values.push(text.as_str()),
                Match::Without => return None,
                Match::Not(_) | Match::With => {}
            }
        }
        (!values.is_empty()).then_some(values)
    }
}

pub type Filters = BTreeMap<Dimension, Filter>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Basis {
    #[default]
    Click,
    Conversion,
}

/// An end of a range: an instant, or a date (`2026-11-22`) in the report's time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    Instant(Time),
    Date(String),
}

impl FromStr for Moment {
    type Err = schemas::time::BadTime;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() {
            return Ok(Moment::Date(text.to_owned()));
        }
        text.parse().map(Moment::Instant)
    }
}

/// `GET /v1/reports/conversions`.
#[derive(Clone, Debug, Default)]
pub struct ReportQuery {
    pub tenant: String,
    /// The instant of the request, for the default range.
    pub now: Time,
    pub from: Option<Moment>,
    /// An instant is exclusive; a date is included.
    pub to: Option<Moment>,
    /// IANA name; default: the account's, if one is filtered, else UTC.
    pub tz: Option<String>,
    pub basis: Basis,
    pub group_by: Vec<Dimension>,
    /// Only for dimensions other than time.
    pub filters: Filters,
    /// A group key or a column, with `-` before it for falling; default: by the keys.
    pub sort: Option<String>,
    /// `None`: all rows (CSV).
    pub limit: Option<usize>,
    pub cursor: Option<String>,
    /// `bots=include`: flagged clicks count too.
    pub bots: bool,
}

/// `GET /v1/reports/postbacks`, newest first.
#[derive(Clone, Debug, Default)]
pub struct PostbackQuery {
    pub tenant: String,
    pub now: Time,
    pub from: Option<Moment>,
    pub to: Option<Moment>,
    pub tz: Option<String>,
    /// Each list: any of; empty: all.
    pub accounts: Vec<String>,
    pub outcomes: Vec<Status>,
    pub reasons: Vec<Reason>,
    /// Of the reason's code, beside `reasons`: for `!code` and for hits without a reason.
    pub reason: Filter,
    /// Our click id or the name as received (`dyn`, foreign id).
    pub click: Filter,
    /// Of any goal of the hit.
    pub tid: Filter,
    pub player: Filter,
    /// Text anywhere in the stored request, the click name, ids or hint; case-insensitive.
    pub q: Option<String>,
    pub limit: usize,
    pub cursor: Option<String>,
}

/// `GET /v1/conversions`, last made first.
#[derive(Clone, Debug, Default)]
pub struct ConversionQuery {
    pub tenant: String,
    pub now: Time,
    /// With neither `from` nor `to`: conversions of all times.
    pub from: Option<Moment>,
    pub to: Option<Moment>,
    pub tz: Option<String>,
    pub basis: Basis,
    pub accounts: Vec<String>,
    pub goals: Vec<String>,
    /// Beside `goals`, for `!goal`.
    pub goal: Filter,
    pub states: Vec<State>,
    pub tid: Filter,
    pub player: Filter,
    /// Changed after this instant (log receipt of the change).
    pub updated_after: Option<Time>,
    pub limit: usize,
    pub cursor: Option<String>,
}

/// `GET /v1/clicks`: a click by the id it has elsewhere (or ours), or by its `dyn`.
#[derive(Clone, Debug)]
pub struct ClickQuery {
    pub tenant: String,
    pub account: String,
    pub by: ClickName,
    pub limit: usize,
    pub cursor: Option<String>,
}

#[derive(Clone, Debug)]
pub enum ClickName {
    Id(String),
    Dyn(String),
}

/// Why a question was not answered. `Refused` is the asker's to correct.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// `parameter` names the query parameter; `code` is stable.
    #[error("{detail}")]
    Refused { parameter: &'static str, code: &'static str, detail: String },
    #[error("{TooLong}")]
    TooLong,
    /// The database does not answer now.
    #[error("{0:#}")]
    Away(anyhow::Error),
    #[error(transparent)]
    Failed(anyhow::Error),
}

impl QueryError {
    pub fn refused(parameter: &'static str, code: &'static str, detail: impl Into<String>) -> Self {
        QueryError::Refused { parameter, code, detail: detail.into() }
    }
}

impl From<anyhow::Error> for QueryError {
    fn from(error: anyhow::Error) -> Self {
        if error.is::<TooLong>() {
            QueryError::TooLong
        } else if is_away(&error) {
            QueryError::Away(error)
        } else {
            QueryError::Failed(error)
        }
    }
}

/// What the driver says once it has tried every node again.
fn is_away(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.is::<ExecutionError>() || cause.is::<PagerExecutionError>() || cause.is::<NextRowError>())
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        QueryError::Failed(error.into())
    }
}

/// A hit whose outcome was decided, for the live stream: look it up with `Reports::hit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub tenant: String,
    pub account: String,
    pub hit: EventId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_mean_any_of_none_of_and_without() {
        let filter = |texts: &[&str]| Filter(texts.iter().map(|text| Match::parse(text)).collect());
        let admitted =
            |texts: &[&str]| [None, Some("a"), Some("b"), Some("c")].map(|value| u8::from(filter(texts).admits(value)));
        assert_eq!(admitted(&[]), [1, 1, 1, 1]);
        assert_eq!(admitted(&["a", "b"]), [0, 1, 1, 0]);
        assert_eq!(admitted(&[""]), [1, 0, 0, 0]);
        assert_eq!(admitted(&["", "a"]), [1, 1, 0, 0]);
        assert_eq!(admitted(&["!a"]), [1, 0, 1, 1]);
        assert_eq!(admitted(&["!a", "!b"]), [1, 0, 0, 1]);
        assert_eq!(admitted(&["!"]), [0, 1, 1, 1]);
        assert_eq!(admitted(&["a", "!a"]), [0, 0, 0, 0]);
    }

    #[test]
    fn of_several_values_one_is_enough_and_one_is_too_many() {
        let filter = |texts: &[&str]| Filter(texts.iter().map(|text| Match::parse(text)).collect());
        let admitted = |texts: &[&str]| {
            let all: [&[&str]; 3] = [&[], &["a"], &["a", "b"]];
            all.map(|values| u8::from(filter(texts).admits_all(|text| values.contains(&text), values.is_empty())))
        };
        assert_eq!(admitted(&["b"]), [0, 0, 1]);
        assert_eq!(admitted(&["a", "b"]), [0, 1, 1]);
        assert_eq!(admitted(&["!b"]), [1, 1, 0]);
        assert_eq!(admitted(&[""]), [1, 0, 0]);
        assert_eq!(admitted(&["", "b"]), [1, 0, 1]);
        assert_eq!(admitted(&["!"]), [0, 1, 1]);
    }
}
