//! What an outcome does to the report tables. Pure: a function of the outcome alone.
//!
//! Owns: which rows an outcome writes, which cells it moves and by how much, and the list of what is rolled up.
//! Refuses: to look anything up; to know what the tables hold.
//! Invariant: a cell is the sum of its deltas over all outcomes, so any order of flushes and any split into batches
//! gives the same tables.

use schemas::{
    Amount, ClickId, ConversionId, Currency, EventId, Outcome, Time,
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
    Clicks {
        flagged: bool,
    },
    Conversions {
        goal: &'a str,
        state: State,
        currency: Currency,
    },
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
        return Origin::of_label(label_of(outcome, change.conversion));
    };
    if let Some(click) = outcome.click.as_ref().filter(|click| click.id == id) {
        return click.into();
    }
    let of_hits = outcome.hits.iter().filter_map(|hit| hit.click.as_ref());
    let of_reprocess = outcome.reprocess.iter().flat_map(|reprocess| &reprocess.clicks);
    of_hits.chain(of_reprocess).find(|click| click.id == id).map(Origin::from).unwrap_or_default()
}

fn label_of(outcome: &Outcome, conversion: ConversionId) -> Option<&str> {
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

#[cfg(test)]
mod tests {
    use schemas::Reason;

    use super::*;
    use crate::testing::{Step, World};

    fn click_and_conversion() -> [Step; 2] {
        let values = [Some(1), None, Some(2), None, None, None];
        [
            Step::Click { account: 1, link: Some(2), values, flag: false, earlier_min: 0, imported: false },
            Step::Convert {
                click: 0,
                goal: 1,
                state: 1,
                count: 2,
                earning: Some(5_000),
                usd: true,
                tid: Some(7),
                later_min: 16,
            },
        ]
    }

    #[test]
    fn a_click_counts_once_in_all_that_it_belongs_to() {
        let world = World::of(&click_and_conversion());
        let folded = fold(&world.outcomes[0]);
        let [delta] = folded.deltas[..] else { panic!("{:?}", folded.deltas) };
        assert_eq!((delta.account, delta.by), ("acc_1", Sums::ONE));
        assert_eq!(delta.measure, Measure::Clicks { flagged: false });
        let values = Family::ALL.map(|family| delta.origin.value(family));
        assert_eq!(values, [Some(""), Some("lnk_2"), Some("V1"), None, Some("V2"), None, None, None]);

        let mut again = world.outcomes[0].clone();
        again.reason = Some(Reason::Duplicate);
        let folded = fold(&again);
        assert!(folded.click.is_none() && folded.deltas.is_empty(), "a repeated import changes nothing");
    }

    #[test]
    fn a_conversion_counts_at_click_time_and_at_its_own_time() {
        let world = World::of(&click_and_conversion());
        let (click, folded) = (&world.clicks[0], fold(&world.outcomes[1]));
        let [at_click, at_conversion] = folded.deltas[..] else { panic!("{:?}", folded.deltas) };
        assert_eq!((at_click.basis, at_click.time), (Basis::Click, click.time));
        assert_eq!((at_conversion.basis, at_conversion.time), (Basis::Conversion, click.time.plus_ms(16 * MINUTE_MS)));
        let measure =
            Measure::Conversions { goal: "firsttimedeposits", state: State::Approved, currency: Currency::USD };
        for delta in [at_click, at_conversion] {
            assert_eq!((delta.measure, delta.origin), (measure, click.into()));
            assert_eq!(delta.by, Sums { count: 2, earning: 5_000_000_000, value: 0 });
        }
        let [version] = folded.versions[..] else { panic!("{:?}", folded.versions) };
        assert_eq!((version.what, version.hit), (What::Made, Some(world.outcomes[1].id)));
    }

    #[test]
    fn a_change_of_state_is_taken_from_one_cell_and_given_to_another() {
        let mut steps = click_and_conversion().to_vec();
        steps.push(Step::Update { conversion: 0, state: 2, earning: None });
        let world = World::of(&steps);
        let folded = fold(&world.outcomes[2]);
        let counts: Vec<_> = folded.deltas.iter().map(|delta| (delta.measure, delta.by.count)).collect();
        let of = |state| Measure::Conversions { goal: "firsttimedeposits", state, currency: Currency::USD };
        let (before, after) = ((of(State::Approved), -2), (of(State::Rejected), 2));
        assert_eq!(counts, [before, before, after, after]);
        assert_eq!(folded.versions[0].what, What::Updated);
    }

    #[test]
    fn a_correction_by_hand_finds_its_origin_in_the_record() {
        let mut steps = click_and_conversion().to_vec();
        steps.push(Step::Adjust { conversion: 0, state: 0, earning: Some(100) });
        let world = World::of(&steps);
        let folded = fold(&world.outcomes[2]);
        assert!(folded.deltas.iter().all(|delta| delta.origin == (&world.clicks[0]).into()));
        let [version] = folded.versions[..] else { panic!("{:?}", folded.versions) };
        assert_eq!((version.what, version.hand), (What::Adjusted, Some(("key_1", "as agreed"))));
        assert!(folded.click.is_none(), "the click of a correction is not a new click");
    }

    #[test]
    fn a_label_stands_in_dyn_and_a_dry_run_nowhere() {
        let steps = [
            Step::Label { account: 0, label: 3, goal: 0, earning: None },
            Step::Reprocess { conversion: 0, dry_run: true },
            Step::Reprocess { conversion: 0, dry_run: false },
        ];
        let world = World::of(&steps);
        for at in [0, 2] {
            let folded = fold(&world.outcomes[at]);
            assert!(!folded.deltas.is_empty());
            assert!(folded.deltas.iter().all(|delta| delta.origin == Origin::of_label(Some("label3"))));
        }
        let folded = fold(&world.outcomes[1]);
        assert!(folded.deltas.is_empty() && folded.versions.is_empty() && folded.hits.is_empty());
        assert_eq!(fold(&world.outcomes[2]).versions[0].what, What::Withdrawn);
    }

    #[test]
    fn buckets_are_quarters_of_utc_days() {
        let time: Time = "2026-10-25T23:59:59.999Z".parse().unwrap();
        assert_eq!((day(time), quarter(time)), (20_751, 95));
        assert_eq!((day(time.plus_ms(1)), quarter(time.plus_ms(1))), (20_752, 0));
    }
}
