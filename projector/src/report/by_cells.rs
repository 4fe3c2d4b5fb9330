//! Figures from cells: whole UTC days where a day lies within one slot, else quarters of an hour.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use schemas::{Time, time::DAY_MS};

use super::{
    plan::{Account, Plan},
    query::QueryError,
    range::Range,
    reader::Snapshot,
    tally::{Groups, Item, NONE, OTHER_VALUES},
};
use crate::{
    fold::{Family, Origin, QUARTER_MS, Sums},
    tables::{
        OTHER, WHOLE_DAY,
        runs::{key, parts},
        stored_entries,
    },
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

    pub fn read(&mut self, snapshot: &mut Snapshot<'_>, groups: &mut Groups) -> Result<(), QueryError> {
        for account in &self.plan.accounts {
            self.read_account(snapshot, groups, account)?;
        }
        Ok(())
    }

    fn read_account(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        groups: &mut Groups,
        account: &Account,
    ) -> Result<(), QueryError> {
        if self.family == Family::Account {
            return self.read_family(snapshot, groups, account, Family::Account as u8, Part::Of(Sums::plus));
        }
        if self.plan.admits(&Origin::default()) {
            // Those without a value are the account less everything that has one.
            self.read_family(snapshot, groups, account, Family::Account as u8, Part::Rest(Sums::plus))?;
            self.read_family(snapshot, groups, account, self.family as u8, Part::Rest(Sums::minus))?;
            self.read_family(snapshot, groups, account, self.family as u8 | OTHER, Part::Rest(Sums::minus))?;
        }
        match self.plan.named_values() {
            Some(values) => self.read_values(snapshot, groups, account, &values)?,
            None => self.read_family(snapshot, groups, account, self.family as u8, Part::Of(Sums::plus))?,
        }
        self.read_family(snapshot, groups, account, self.family as u8 | OTHER, Part::Other)
    }

    /// Reads a family's cells day by day. A day is read in one snapshot, as segments may be merged between two.
    fn read_family(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        groups: &mut Groups,
        account: &Account,
        family: u8,
        part: Part,
    ) -> Result<(), QueryError> {
        let (first, last) = self.days();
        // An account as a whole has one cell a day.
        let step = if family == Family::Account as u8 { last - first + 1 } else { 1 };
        let mut day = first;
        while day <= last {
            let next = (day + step).min(last + 1);
            let range = (key(family, account.number, day, ""), key(family, account.number, next, ""));
            self.scan(snapshot, groups, account, part, range)?;
            day = next;
            snapshot.breathe()?;
        }
        Ok(())
    }

    /// Where a filter names the values, their cells are looked up one by one.
    fn read_values(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        groups: &mut Groups,
        account: &Account,
        values: &[String],
    ) -> Result<(), QueryError> {
        let (first, last) = self.days();
        for day in first..=last {
            for value in values {
                let from = key(self.family as u8, account.number, day, value);
                // The key that follows a key is that key and a zero byte.
                let to = [&from[..], b"\0"].concat();
                self.scan(snapshot, groups, account, Part::Of(Sums::plus), (from, to))?;
            }
            snapshot.breathe()?;
        }
        Ok(())
    }

    fn scan(
        &mut self,
        snapshot: &Snapshot<'_>,
        groups: &mut Groups,
        account: &Account,
        part: Part,
        (from, to): (Vec<u8>, Vec<u8>),
    ) -> Result<(), QueryError> {
        let mut refused = None;
        snapshot.runs().scan(snapshot.conn(), &from, &to, |key, cell| {
            if refused.is_none()
                && let Err(error) = self.take(snapshot, groups, account, part, key, cell)
            {
                refused = Some(error);
            }
            Ok(())
        })?;
        refused.map_or(Ok(()), Err)
    }

    fn days(&self) -> (i64, i64) {
        let last = self.range.to.ms() - 1;
        (self.range.from.ms().div_euclid(DAY_MS), last.div_euclid(DAY_MS))
    }

    fn take(
        &mut self,
        snapshot: &Snapshot<'_>,
        groups: &mut Groups,
        account: &Account,
        part: Part,
        key: &[u8],
        cell: &[u8],
    ) -> Result<(), QueryError> {
        let (_, _, day, value) = parts(key)?;
        let text = match part {
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
            super::Dimension::Account => groups.texts.number(&account.name),
            super::Dimension::Program => groups.texts.of_option(account.program.as_deref()),
            _ => text,
        }));
        let day_range = Range { from: Time::from_ms(day * DAY_MS), to: Time::from_ms((day + 1) * DAY_MS) };
        let whole = self.whole_slot(day_range);
        for entry in stored_entries(cell) {
            let (slot, code, sums) = entry?;
            if whole.is_some() && slot != WHOLE_DAY {
                break;
            }
            let at = match whole {
                Some(at) => at,
                None if slot == WHOLE_DAY => continue,
                None => {
                    let time = day_range.from.plus_ms(i64::from(slot - 1) * QUARTER_MS);
                    match self.plan.slots.at(time).filter(|_| self.range.contains(time)) {
                        Some(at) => at,
                        None => continue,
                    }
                }
            };
            let Some(item) = self.item(snapshot, groups, code)? else { continue };
            key[0] = at as u32;
            if matches!(part, Part::Other) {
                self.mark(&key);
                if !self.plan.admits(&origin(self.family, UNNAMED)) {
                    continue;
                }
            }
            groups.add(&key, item, part.signed(sums)?)?;
        }
        Ok(())
    }

    /// The slot that the whole day lies in, if the report takes all of it.
    fn whole_slot(&self, day: Range) -> Option<usize> {
        if day.from < self.range.from || day.to > self.range.to {
            return None;
        }
        let at = self.plan.slots.at(day.from)?;
        (day.to <= self.plan.slots.0[at].range.to).then_some(at)
    }

    fn item(&mut self, snapshot: &Snapshot<'_>, groups: &mut Groups, code: u32) -> Result<Option<Item>> {
        if let Some(known) = self.items.get(&code) {
            return Ok(*known);
        }
        let (measure, basis) = snapshot.names().measure(code).context("a cell has a measure that is not known")?;
        let item = self.plan.wants(measure, basis).then(|| Item::of(measure, &mut groups.texts));
        self.items.insert(code, item);
        Ok(item)
    }

    fn mark(&mut self, key: &[u32]) {
        self.marks.overflowed.insert(mark_key(self.plan, key));
    }
}

/// The group less the value of its free dimension.
pub fn mark_key(plan: &Plan, key: &[u32]) -> (u32, Vec<u32>) {
    let details = plan.details.iter().zip(&key[1..]);
    let of_account = details.filter(|(dimension, _)| super::plan::family(**dimension).is_none());
    (key[0], of_account.map(|(_, number)| *number).collect())
}

/// How a family's cells enter the report.
#[derive(Clone, Copy)]
enum Part {
    /// Under their own value.
    Of(Sign),
    /// Under "without a value".
    Rest(Sign),
    /// As the values beyond the named ones.
    Other,
}

type Sign = fn(Sums, Sums) -> Option<Sums>;

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
