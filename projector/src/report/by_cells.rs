//! Figures from cells: whole UTC days where a day lies within one slot, else quarters of an hour.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use schemas::{Time, time::DAY_MS};

use super::{
    plan::{Account, Plan},
    query::{Basis, QueryError},
    range::Range,
    source::{Days, Piece, Source, Want},
    tally::{Groups, Item, NONE, OTHER_VALUES},
};
use crate::{
    fold::{Family, Measure, Origin, QUARTER_MS, Sums},
    tables::{OTHER, WHOLE_DAY},
};

/// No value of a filter: control characters are in no value.
const UNNAMED: &str = "\0";

/// What cells gave beside the figures.
#[derive(Debug, Default)]
pub struct Marks {
    /// Groups (slot, and keys of the account) whose free dimension has values that are not named.
    pub overflowed: HashSet<(u32, Vec<u32>)>,
}

pub struct ByCells<'p> {
    plan: &'p Plan,
    family: Family,
    /// Edges are multiples of a quarter of an hour.
    range: Range,
    /// What a measure's code is in this report; `None`: not in it.
    items: HashMap<u32, Option<Item>>,
    pub marks: Marks,
}

impl<'p> ByCells<'p> {
    pub fn new(plan: &'p Plan, family: Family, range: Range) -> Self {
        Self { plan, family, range, items: HashMap::new(), marks: Marks::default() }
    }

    pub fn read(&mut self, source: &mut dyn Source, groups: &mut Groups) -> Result<(), QueryError> {
        let (plan, range) = (self.plan, self.range);
        let values = plan.named_values().filter(|_| self.family != Family::Account);
        let wants: Vec<_> = plan.accounts.iter().flat_map(|account| self.wants(account, values.as_deref())).collect();
        let last = range.to.ms() - 1;
        let is_whole = |day| whole_slot(plan, range, day).is_some();
        let days =
            Days { first: range.from.ms().div_euclid(DAY_MS), last: last.div_euclid(DAY_MS), is_whole: &is_whole };
        source.cells(plan, &wants, &days, &mut |want, piece| self.take(groups, want, piece))
    }

    fn wants<'a>(&self, account: &'a Account, values: Option<&'a [String]>) -> Vec<Want<'a>> {
        let (whole, family) = (Family::Account as u8, self.family as u8);
        let want = |family, part| Want { account, family, part, values: None };
        if self.family == Family::Account {
            return vec![want(whole, Part::Of(Sums::plus))];
        }
        let mut wants = Vec::with_capacity(5);
        if self.plan.admits(&Origin::default()) {
            // Those without a value are the account less everything that has one.
            wants.push(want(whole, Part::Rest(Sums::plus)));
            wants.push(want(family, Part::Rest(Sums::minus)));
            wants.push(want(family | OTHER, Part::Rest(Sums::minus)));
        }
        wants.push(Want { values, ..want(family, Part::Of(Sums::plus)) });
        wants.push(want(family | OTHER, Part::Other));
        wants
    }

    fn take(&mut self, groups: &mut Groups, want: &Want<'_>, piece: Piece<'_>) -> Result<(), QueryError> {
        let Piece { day, value, entries, measure } = piece;
        let text = match want.part {
            Part::Rest(_) => NONE,
            Part::Other => OTHER_VALUES,
            Part::Of(_) if self.family == Family::Account => NONE,
            Part::Of(_) => {
                if !self.plan.admits(&origin(self.family, value)) {
                    return Ok(());
                }
                groups.texts.number(value)
            }
        };
        let mut key = Vec::with_capacity(1 + self.plan.details.len());
        key.push(0);
        key.extend(self.plan.details.iter().map(|dimension| match dimension {
            super::Dimension::Account => groups.texts.number(&want.account.name),
            super::Dimension::Program => groups.texts.of_option(want.account.program.as_deref()),
            _ => text,
        }));
        let whole = whole_slot(self.plan, self.range, day);
        for entry in entries {
            let (slot, code, sums) = entry?;
            if whole.is_some() && slot != WHOLE_DAY {
                break;
            }
            let at = match whole {
                Some(at) => at,
                None if slot == WHOLE_DAY => continue,
                None => {
                    let time = Time::from_ms(day * DAY_MS).plus_ms(i64::from(slot - 1) * QUARTER_MS);
                    match self.plan.slots.at(time).filter(|_| self.range.contains(time)) {
                        Some(at) => at,
                        None => continue,
                    }
                }
            };
            let Some(item) = self.item(groups, code, measure)? else { continue };
            key[0] = at as u32;
            if matches!(want.part, Part::Other) {
                self.mark(&key);
                if !self.plan.admits(&origin(self.family, UNNAMED)) {
                    continue;
                }
            }
            groups.add(&key, item, want.part.signed(sums)?)?;
        }
        Ok(())
    }

    fn item<'c>(
        &mut self,
        groups: &mut Groups,
        code: u32,
        measure: &dyn Fn(u32) -> Option<(Measure<'c>, Basis)>,
    ) -> Result<Option<Item>> {
        if let Some(known) = self.items.get(&code) {
            return Ok(*known);
        }
        let (measure, basis) = measure(code).context("a cell has a measure that is not known")?;
        let item = self.plan.wants(measure, basis).then(|| Item::of(measure, &mut groups.texts));
        self.items.insert(code, item);
        Ok(item)
    }

    fn mark(&mut self, key: &[u32]) {
        self.marks.overflowed.insert(mark_key(self.plan, key));
    }
}

/// The slot that a whole UTC day lies in, if the report takes all of it.
fn whole_slot(plan: &Plan, range: Range, day: i64) -> Option<usize> {
    let day = Range { from: Time::from_ms(day * DAY_MS), to: Time::from_ms((day + 1) * DAY_MS) };
    if day.from < range.from || day.to > range.to {
        return None;
    }
    let at = plan.slots.at(day.from)?;
    (day.to <= plan.slots.0[at].range.to).then_some(at)
}

/// The group less the value of its free dimension.
pub fn mark_key(plan: &Plan, key: &[u32]) -> (u32, Vec<u32>) {
    let details = plan.details.iter().zip(&key[1..]);
    let of_account = details.filter(|(dimension, _)| super::plan::family(**dimension).is_none());
    (key[0], of_account.map(|(_, number)| *number).collect())
}

/// How a family's cells enter the report.
#[derive(Clone, Copy)]
pub enum Part {
    /// Under their own value.
    Of(Sign),
    /// Under "without a value".
    Rest(Sign),
    /// As the values beyond the named ones.
    Other,
}

pub type Sign = fn(Sums, Sums) -> Option<Sums>;

impl Part {
    fn signed(self, sums: Sums) -> Result<Sums> {
        match self {
            Part::Of(sign) | Part::Rest(sign) => sign(Sums::default(), sums).context("a report's sum overflows"),
            Part::Other => Ok(sums),
        }
    }
}

fn origin(family: Family, value: &str) -> Origin<'_> {
    let mut origin = Origin::default();
    match family {
        Family::Account => {}
        Family::Link => origin.link = Some(value),
        Family::Dyn => origin.dyn_ = Some(value),
        Family::Sub1 => origin.subs[0] = Some(value),
        Family::Sub2 => origin.subs[1] = Some(value),
        Family::Sub3 => origin.subs[2] = Some(value),
        Family::Sub4 => origin.subs[3] = Some(value),
        Family::Sub5 => origin.subs[4] = Some(value),
    }
    origin
}
