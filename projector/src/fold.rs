//! What an outcome does to the report tables. Pure: a function of the outcome alone.
//!
//! Owns: which rows an outcome writes, which cells it moves and by how much, and the list of what is rolled up.
//! Refuses: to look anything up; to know what the tables hold.
//! Invariant: a cell is the sum of its deltas over all outcomes, so any order of flushes and any split into batches
//! gives the same tables.

use schemas::{
    Amount, ClickId, Currency, EventId, Outcome, Time,
    event::Correction,
    outcome::{Change, ClickData, ClickRef, Conversion, HitOutcome, Kind, Status},
    status::State,
    time::{DAY_MS, MINUTE_MS},
};

use crate::report::{Basis, What};

pub const QUARTER_MS: i64 = 15 * MINUTE_MS;
pub const QUARTERS_PER_DAY: i64 = DAY_MS / QUARTER_MS;

/// What is rolled up, each per account: the account as a whole, each link, and each value of a free dimension.
/// Every other combination is answered from rows. Each is kept by quarter of an hour and by UTC day, and by click
/// time and by conversion time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Account,
    Link,
    Dyn,
    Sub1,
    Sub2,
    Sub3,
    Sub4,
    Sub5,
}

impl Family {
    pub const ALL: [Family; 8] = [
        Family::Account,
        Family::Link,
        Family::Dyn,
        Family::Sub1,
        Family::Sub2,
        Family::Sub3,
        Family::Sub4,
        Family::Sub5,
    ];
    /// Senders and visitors choose its values, so their number is bounded.
    pub fn is_free(self) -> bool {
        !matches!(self, Family::Account | Family::Link)
    }
}

/// Where a click came from. A conversion stands under its click's origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    pub link: Option<&'a str>,
    pub dyn_: Option<&'a str>,
    pub subs: [Option<&'a str>; 5],
}

impl<'a> Origin<'a> {
    /// The value under which a family keeps this origin; `None`: it has none there.
    pub fn value(&self, family: Family) -> Option<&'a str> {
        match family {
            Family::Account => Some(""),
            Family::Link => self.link,
            Family::Dyn => self.dyn_,
            Family::Sub1 => self.subs[0],
            Family::Sub2 => self.subs[1],
            Family::Sub3 => self.subs[2],
            Family::Sub4 => self.subs[3],
            Family::Sub5 => self.subs[4],
        }
    }
    pub fn of_label(label: Option<&'a str>) -> Self {
        Self { dyn_: label, ..Self::default() }
    }
}

impl<'a> From<&'a ClickData> for Origin<'a> {
    fn from(click: &'a ClickData) -> Self {
        let subs = [&click.sub1, &click.sub2, &click.sub3, &click.sub4, &click.sub5];
        Self { link: click.link.as_deref(), dyn_: click.dyn_.as_deref(), subs: subs.map(Option::as_deref) }
    }
}

impl<'a> From<&'a ClickRef> for Origin<'a> {
    fn from(click: &'a ClickRef) -> Self {
        let subs = [&click.sub1, &click.sub2, &click.sub3, &click.sub4, &click.sub5];
        Self { link: click.link.as_deref(), dyn_: click.dyn_.as_deref(), subs: subs.map(Option::as_deref) }
    }
}

/// A signed change of every cell that the account and the origin belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta<'a> {
    pub account: &'a str,
    pub origin: Origin<'a>,
    pub basis: Basis,
    /// The bucket is the quarter of an hour, and the day, of this instant.
    pub time: Time,
    pub measure: Measure<'a>,
    pub by: Sums,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure<'a> {
    /// Clicks, at click time. Previews, prefetches and bots are counted apart.
    Clicks { flagged: bool },
    Conversions { goal: &'a str, state: State, currency: Currency },
}

/// What a cell holds per measure. Money is in units of 10⁻⁸.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub count: i64,
    pub earning: i128,
    pub value: i128,
}

impl Sums {
    pub const ONE: Sums = Sums { count: 1, earning: 0, value: 0 };

    /// `None` on overflow, which no sum of valid amounts can reach.
    pub fn plus(self, other: Sums) -> Option<Sums> {
        Some(Sums {
            count: self.count.checked_add(other.count)?,
            earning: self.earning.checked_add(other.earning)?,
            value: self.value.checked_add(other.value)?,
        })
    }
    pub fn minus(self, other: Sums) -> Option<Sums> {
        Some(Sums {
            count: self.count.checked_sub(other.count)?,
            earning: self.earning.checked_sub(other.earning)?,
            value: self.value.checked_sub(other.value)?,
        })
    }
    pub fn is_zero(&self) -> bool {
        *self == Sums::default()
    }
}

/// UTC day since 1970 of an instant.
pub fn day(time: Time) -> i64 {
    time.ms().div_euclid(DAY_MS)
}

/// Quarter of an hour within its UTC day.
pub fn quarter(time: Time) -> i64 {
    time.ms().rem_euclid(DAY_MS) / QUARTER_MS
}

/// Whether a click with this flag is counted apart.
pub fn is_flag(flag: &str) -> bool {
    matches!(flag, "preview" | "prefetch" | "bot")
}

/// A new version of a conversion.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    pub account: &'a str,
    pub program: &'a str,
    /// `None` for a label.
    pub click: Option<(ClickId, Time)>,
    pub origin: Origin<'a>,
    pub conversion: &'a Conversion,
    pub what: What,
    pub hit: Option<EventId>,
    /// Of a correction by hand: who, and the note.
    pub hand: Option<(&'a str, &'a str)>,
}

/// Everything that one outcome does.
#[derive(Debug, Default)]
pub struct Folded<'a> {
    pub click: Option<&'a ClickData>,
    /// Each is the whole decision on its hit, and replaces an earlier one.
    pub hits: &'a [HitOutcome],
    pub versions: Vec<Version<'a>>,
    pub deltas: Vec<Delta<'a>>,
    pub log_time: Option<Time>,
}

pub fn fold(outcome: &Outcome) -> Folded<'_> {
    if outcome.reprocess.as_ref().is_some_and(|reprocess| reprocess.dry_run) {
        return Folded::default();
    }
    let mut folded = Folded { hits: &outcome.hits, log_time: outcome.log_time, ..Folded::default() };
    if outcome.kind == Kind::Click && outcome.reason.is_none() {
        folded.click = outcome.click.as_ref();
        folded.deltas.extend(folded.click.map(click_delta));
    }
    for hit in &outcome.hits {
        folded.versions.extend(versions_by_hit(outcome, hit));
    }
    folded.versions.extend(version_by_hand(outcome));
    for change in &outcome.changes {
        let origin = origin_of(outcome, change);
        folded.deltas.push(conversion_delta(change, origin, Basis::Click));
        folded.deltas.push(conversion_delta(change, origin, Basis::Conversion));
    }
    folded
}

fn click_delta(click: &ClickData) -> Delta<'_> {
    Delta {
        account: &click.account,
        origin: click.into(),
        basis: Basis::Click,
        time: click.time,
        measure: Measure::Clicks { flagged: click.flags.iter().any(|flag| is_flag(flag)) },
        by: Sums::ONE,
    }
}

fn conversion_delta<'a>(change: &'a Change, origin: Origin<'a>, basis: Basis) -> Delta<'a> {
    Delta {
        account: &change.account,
        origin,
        basis,
        time: match basis {
            Basis::Click => change.click_time,
            Basis::Conversion => change.time,
        },
        measure: Measure::Conversions { goal: &change.goal, state: change.state, currency: change.currency },
        by: Sums {
            count: change.count,
            earning: change.earning.map_or(0, Amount::units),
            value: change.value.map_or(0, Amount::units),
        },
    }
}

/// Where the click of a change came from: the same record says it, so no look-up is needed.
fn origin_of<'a>(outcome: &'a Outcome, change: &Change) -> Origin<'a> {
    let Some(id) = change.click else {
        return Origin::of_label(label_of(outcome, &change.conversion));
    };
    if let Some(click) = outcome.click.as_ref().filter(|click| click.id == id) {
        return click.into();
    }
    let of_hits = outcome.hits.iter().filter_map(|hit| hit.click.as_ref());
    let of_reprocess = outcome.reprocess.iter().flat_map(|reprocess| &reprocess.clicks);
    of_hits.chain(of_reprocess).find(|click| click.id == id).map(Origin::from).unwrap_or_default()
}

fn label_of<'a>(outcome: &'a Outcome, conversion: &str) -> Option<&'a str> {
    if let Some(label) = outcome.adjust.as_ref().and_then(|adjust| adjust.label.as_deref()) {
        return Some(label);
    }
    // A reprocess takes back what its hits no longer stand for, so they do not name it any more.
    if let Some(label) = outcome.reprocess.as_ref().and_then(|reprocess| reprocess.label.as_deref()) {
        return Some(label);
    }
    let concerns = |hit: &&HitOutcome| {
        hit.goals.iter().filter_map(|goal| goal.conversion.as_ref()).any(|found| found.id == conversion)
    };
    outcome.hits.iter().find(concerns)?.label.as_deref()
}

fn versions_by_hit<'a>(outcome: &'a Outcome, hit: &'a HitOutcome) -> impl Iterator<Item = Version<'a>> {
    hit.goals.iter().filter_map(move |goal| {
        let what = match goal.outcome {
            Status::Withdrawn => What::Withdrawn,
            Status::Converted | Status::Updated if outcome.kind == Kind::Reprocess => What::Reprocessed,
            Status::Converted => What::Made,
            Status::Updated => What::Updated,
            Status::Waiting | Status::Duplicate | Status::Rejected | Status::Test => return None,
        };
        Some(Version {
            account: &hit.account,
            program: &hit.program,
            click: hit.click.as_ref().map(|click| (click.id, click.time)),
            origin: match &hit.click {
                Some(click) => click.into(),
                None => Origin::of_label(hit.label.as_deref()),
            },
            conversion: goal.conversion.as_ref()?,
            what,
            hit: Some(hit.hit.id),
            hand: None,
        })
    })
}

fn version_by_hand(outcome: &Outcome) -> Option<Version<'_>> {
    let adjust = outcome.adjust.as_ref().filter(|adjust| adjust.outcome == Status::Updated)?;
    Some(Version {
        account: &adjust.account,
        program: adjust.program.as_deref().unwrap_or_default(),
        click: outcome.click.as_ref().map(|click| (click.id, click.time)),
        origin: match &outcome.click {
            Some(click) => click.into(),
            None => Origin::of_label(adjust.label.as_deref()),
        },
        conversion: adjust.conversion.as_ref()?,
        what: What::Adjusted,
        hit: None,
        hand: Some((&adjust.by, &adjust.note)),
    })
}

/// `(code, detail)` pairs, as rows keep them.
pub fn pairs(corrections: &[Correction]) -> Vec<(&str, &str)> {
    corrections.iter().map(|correction| (correction.code.as_str(), correction.detail.as_str())).collect()
}
