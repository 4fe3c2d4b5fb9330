//! Where rows and lists of rows stand in ScyllaDB. Pure.
//!
//! Every row of a kind that grows without end stands in a bucket of time, and so does every entry of a list: a partition
//! holds what came in a quarter of an hour, or on a day, and then no more. Which buckets of a long list exist is kept in
//! a table of its own, so that a reader does not ask for each empty one.

use schemas::{Time, time::DAY_MS};

use crate::fold::QUARTER_MS;

/// What is found by what. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum List {
    /// Rows of hits and clicks themselves, by account.
    Hits = 1,
    Clicks,
    /// Days on which an account has cells.
    Cells,
    /// One hit by its id.
    HitId = 16,
    HitOfTenant,
    /// Hits that name a click by our id, or were credited to it.
    HitClick,
    /// Hits by the folded name that is not our id.
    HitName,
    HitTid,
    HitPlayer,
    /// One click by its id.
    ClickId = 32,
    /// Clicks of an account by folded `dyn` or foreign id: the scope is `scope(account, name)`.
    ClickName,
    /// Conversions as they were made.
    MadeOfTenant = 64,
    MadeOfAccount,
    /// Every version of every conversion.
    ChangedOfTenant,
    ChangedOfAccount,
    ConversionClick,
    ConversionTid,
    ConversionPlayer,
    /// Corrections by hand, by click or by label of an account.
    AdjustClick = 96,
    AdjustLabel,
}

impl List {
    /// How much time is in one bucket; `None`: the list is short, and all in one.
    pub fn span_ms(self) -> Option<i64> {
        match self {
            List::Hits | List::Clicks | List::HitOfTenant => Some(QUARTER_MS),
            List::Cells
            | List::HitName
            | List::HitTid
            | List::HitPlayer
            | List::ClickName
            | List::MadeOfTenant
            | List::MadeOfAccount
            | List::ChangedOfTenant
            | List::ChangedOfAccount
            | List::ConversionTid
            | List::ConversionPlayer => Some(DAY_MS),
            List::HitClick | List::AdjustLabel => Some(30 * DAY_MS),
            List::HitId | List::ClickId | List::ConversionClick | List::AdjustClick => None,
        }
    }

    pub fn bucket(self, time: Time) -> i32 {
        let bucket = self.span_ms().map_or(0, |span| time.ms().div_euclid(span));
        bucket.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }

    /// The scope under which its buckets are written down. Of a list by name there are too many, so those of the tenant
    /// are; a short list is all in one bucket.
    pub fn index(self, scope: &str) -> Option<&str> {
        self.span_ms()?;
        match self {
            List::Hits
            | List::Clicks
            | List::Cells
            | List::HitOfTenant
            | List::MadeOfTenant
            | List::MadeOfAccount
            | List::ChangedOfTenant
            | List::ChangedOfAccount => Some(scope),
            _ => Some(""),
        }
    }

    /// The buckets of one list are themselves kept by about a year.
    pub fn year(self, bucket: i32) -> i32 {
        let per_year = self.span_ms().map_or(1, |span| 365 * DAY_MS / span);
        (i64::from(bucket)).div_euclid(per_year) as i32
    }
}

/// Stands for a year: its buckets are the years that have buckets.
pub const YEARS: i32 = i32::MIN;

/// A scope of two parts. Control characters are in no name.
pub fn scope(account: &str, name: &str) -> String {
    format!("{account}\u{1f}{name}")
}

/// Days of an account's whole cells that stand together.
pub const PERIOD_DAYS: i64 = 30;
