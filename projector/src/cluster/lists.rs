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
            List::HitName
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
        self.span_ms().map_or(0, |span| time.ms().div_euclid(span) as i32)
    }

    /// Whether its buckets are written down.
    pub fn has_index(self) -> bool {
        matches!(
            self,
            List::Hits
                | List::Clicks
                | List::HitOfTenant
                | List::MadeOfTenant
                | List::MadeOfAccount
                | List::ChangedOfTenant
                | List::ChangedOfAccount
        )
    }

    /// The buckets of one list are themselves kept by about a year.
    pub fn year(self, bucket: i32) -> i32 {
        let per_year = self.span_ms().map_or(1, |span| 365 * DAY_MS / span);
        (i64::from(bucket)).div_euclid(per_year) as i32
    }
}

/// A scope of two parts. Control characters are in no name.
pub fn scope(account: &str, name: &str) -> String {
    format!("{account}\u{1f}{name}")
}

/// Days of an account's whole cells that stand together.
pub const PERIOD_DAYS: i64 = 30;
