//! Figures from the rows of clicks and conversions: exact for every grouping, in time proportional to the rows.

use super::{
    plan::{Account, Plan, family},
    query::{Dimension, QueryError},
    range::Range,
    source::{Row, Rows, Source, time_of},
    tally::{Groups, Item},
};
use crate::fold::{Measure, Sums};

/// Rows that one report may read.
pub const MAX_ROWS: u64 = 2_000_000;

pub struct ByRows<'p> {
    plan: &'p Plan,
    read: u64,
}

impl<'p> ByRows<'p> {
    pub fn new(plan: &'p Plan) -> Self {
        Self { plan, read: 0 }
    }

    pub fn read(&mut self, source: &mut dyn Source, groups: &mut Groups, range: Range) -> Result<(), QueryError> {
        if range.from >= range.to {
            return Ok(());
        }
        for what in [Rows::Clicks, Rows::Conversions] {
            let plan = self.plan;
            source.rows(plan, what, range, &mut |account, row| self.take(account, &row, range, groups))?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        account: Option<&Account>,
        row: &Row<'_>,
        range: Range,
        groups: &mut Groups,
    ) -> Result<(), QueryError> {
        self.read += 1;
        if self.read > MAX_ROWS {
            let detail = format!(
                "this combination is answered from single rows, and the range has more than {MAX_ROWS} of them: \
                 choose a shorter range, fewer dimensions, or one account"
            );
            return Err(QueryError::refused("group_by", "too_many_rows", detail));
        }
        account.map_or(Ok(()), |account| self.count(account, row, range, groups))
    }

    fn count(&self, account: &Account, row: &Row<'_>, range: Range, groups: &mut Groups) -> Result<(), QueryError> {
        let plan = self.plan;
        let (origin, time, measure, by) = match row {
            Row::Click(row) => {
                let flagged = row.flags.iter().any(|flag| crate::fold::is_flag(flag));
                (row.origin.into(), row.time, Measure::Clicks { flagged }, Sums::ONE)
            }
            Row::Conversion(row) if row.withdrawn => return Ok(()),
            Row::Conversion(row) => {
                let measure = Measure::Conversions { goal: row.goal, state: row.state, currency: row.currency };
                let by = Sums {
                    count: i64::from(row.count),
                    earning: row.earning.map_or(0, schemas::Amount::units),
                    value: row.value.map_or(0, schemas::Amount::units),
                };
                (row.origin.into(), time_of(plan.basis, row), measure, by)
            }
        };
        let wanted = range.contains(time) && plan.admits(&origin) && plan.wants(measure, plan.basis);
        let Some(slot) = plan.slots.at(time).filter(|_| wanted) else { return Ok(()) };
        let mut key = vec![slot as u32];
        for dimension in &plan.details {
            let number = match dimension {
                Dimension::Account => groups.texts.number(&account.name),
                Dimension::Program => groups.texts.of_option(account.program.as_deref()),
                other => groups.texts.of_option(family(*other).and_then(|family| origin.value(family))),
            };
            key.push(number);
        }
        let item = Item::of(measure, &mut groups.texts);
        groups.add(&key, item, by)
    }
}
