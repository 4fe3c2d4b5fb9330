//! Figures from the rows of clicks and conversions: exact for every grouping, in time proportional to the rows.

use std::collections::HashSet;

use anyhow::Result;
use rusqlite::params;
use schemas::Time;

use super::{
    plan::{Plan, family},
    query::{Basis, Dimension, QueryError},
    range::Range,
    reader::Snapshot,
    tally::{Groups, Item},
};
use crate::{
    fold::{Measure, Origin, Sums},
    tables::{Kind, Order, StoredClick, StoredConversion, decode, ranges, term},
};

/// Rows that one report may read.
pub const MAX_ROWS: u64 = 2_000_000;
/// Rows between two looks at the clock.
const CHUNK: usize = 4_096;
/// With more accounts than this, every row in the range is looked at instead of each account's.
const ACCOUNTS_BY_INDEX: usize = 8;

pub struct ByRows<'p> {
    plan: &'p Plan,
    accounts: HashSet<u32>,
    read: u64,
}

impl<'p> ByRows<'p> {
    pub fn new(plan: &'p Plan) -> Self {
        Self { plan, accounts: plan.accounts.iter().map(|account| account.number).collect(), read: 0 }
    }

    pub fn read(&mut self, snapshot: &mut Snapshot<'_>, groups: &mut Groups, range: Range) -> Result<(), QueryError> {
        if range.from >= range.to {
            return Ok(());
        }
        self.read_rows(snapshot, Rows::Clicks, range, groups)?;
        self.read_rows(snapshot, Rows::Conversions, range, groups)
    }

    fn read_rows(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        what: Rows,
        range: Range,
        groups: &mut Groups,
    ) -> Result<(), QueryError> {
        let order = match (what, self.plan.basis) {
            (Rows::Clicks, _) => Order::Clicks,
            (Rows::Conversions, Basis::Click) => Order::ConversionsByClick,
            (Rows::Conversions, Basis::Conversion) => Order::ConversionsByTime,
        };
        for (first, last) in ranges(snapshot.conn(), order, range.from, range.to)? {
            if self.accounts.len() <= ACCOUNTS_BY_INDEX {
                for account in self.plan.accounts.iter().map(|account| account.number) {
                    self.by_index(snapshot, what, account, (first, last), range, groups)?;
                    snapshot.breathe()?;
                }
            } else {
                self.all(snapshot, what, (first, last), range, groups)?;
                snapshot.breathe()?;
            }
        }
        Ok(())
    }

    fn by_index(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        what: Rows,
        account: u32,
        (first, mut last): (i64, i64),
        range: Range,
        groups: &mut Groups,
    ) -> Result<(), QueryError> {
        let term = term(what.of_account(), account, b"");
        while first <= last {
            let rows = snapshot.segments().rows(snapshot.conn(), term, first, last, CHUNK)?;
            let mut statement = snapshot.conn().prepare_cached(what.one())?;
            for row in &rows {
                let mut found = statement.query([row])?;
                if let Some(row) = found.next()? {
                    self.take(what, row.get_ref(0)?.as_blob().map_err(anyhow::Error::from)?, range, groups)?;
                }
            }
            drop(statement);
            match rows.last() {
                Some(lowest) if rows.len() == CHUNK => last = lowest - 1,
                _ => return Ok(()),
            }
            snapshot.breathe()?;
        }
        Ok(())
    }

    fn all(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        what: Rows,
        (mut first, last): (i64, i64),
        range: Range,
        groups: &mut Groups,
    ) -> Result<(), QueryError> {
        loop {
            let mut statement = snapshot.conn().prepare_cached(what.some())?;
            let mut rows = statement.query(params![first, last, CHUNK as i64])?;
            let mut read = 0;
            while let Some(row) = rows.next()? {
                read += 1;
                first = row.get::<_, i64>(1)? + 1;
                self.take(what, row.get_ref(0)?.as_blob().map_err(anyhow::Error::from)?, range, groups)?;
            }
            drop(rows);
            drop(statement);
            if read < CHUNK {
                return Ok(());
            }
            snapshot.breathe()?;
        }
    }

    fn take(&mut self, what: Rows, data: &[u8], range: Range, groups: &mut Groups) -> Result<(), QueryError> {
        self.read += 1;
        if self.read > MAX_ROWS {
            let detail = format!(
                "this combination is answered from single rows, and the range has more than {MAX_ROWS} of them: \
                 choose a shorter range, fewer dimensions, or one account"
            );
            return Err(QueryError::refused("group_by", "too_many_rows", detail));
        }
        match what {
            Rows::Clicks => {
                let row: StoredClick<'_> = decode(data)?;
                let flagged = row.flags.iter().any(|flag| crate::fold::is_flag(flag));
                let measure = Measure::Clicks { flagged };
                self.count(row.account, row.origin.into(), row.time, measure, Sums::ONE, range, groups)
            }
            Rows::Conversions => {
                let row: StoredConversion<'_> = decode(data)?;
                if row.withdrawn {
                    return Ok(());
                }
                let measure = Measure::Conversions { goal: row.goal, state: row.state, currency: row.currency };
                let by = Sums {
                    count: i64::from(row.count),
                    earning: row.earning.map_or(0, schemas::Amount::units),
                    value: row.value.map_or(0, schemas::Amount::units),
                };
                let time = match self.plan.basis {
                    Basis::Click => row.click_time,
                    Basis::Conversion => row.time,
                };
                self.count(row.account, row.origin.into(), time, measure, by, range, groups)
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one row, taken apart, and where it is counted")]
    fn count(
        &self,
        account: u32,
        origin: Origin<'_>,
        time: Time,
        measure: Measure<'_>,
        by: Sums,
        range: Range,
        groups: &mut Groups,
    ) -> Result<(), QueryError> {
        let plan = self.plan;
        let wanted = range.contains(time)
            && self.accounts.contains(&account)
            && plan.admits(&origin)
            && plan.wants(measure, plan.basis);
        let Some(slot) = plan.slots.at(time).filter(|_| wanted) else { return Ok(()) };
        let Some(account) = plan.accounts.iter().find(|known| known.number == account) else { return Ok(()) };
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

#[derive(Clone, Copy)]
enum Rows {
    Clicks,
    Conversions,
}

impl Rows {
    fn of_account(self) -> Kind {
        match self {
            Rows::Clicks => Kind::ClickOfAccount,
            Rows::Conversions => Kind::ConversionOfAccount,
        }
    }
    fn one(self) -> &'static str {
        match self {
            Rows::Clicks => "SELECT data FROM clicks WHERE src = ?",
            Rows::Conversions => "SELECT data FROM conversions WHERE number = ?",
        }
    }
    fn some(self) -> &'static str {
        match self {
            Rows::Clicks => "SELECT data, src FROM clicks WHERE src BETWEEN ? AND ? ORDER BY src LIMIT ?",
            Rows::Conversions => {
                "SELECT data, number FROM conversions WHERE number BETWEEN ? AND ? ORDER BY number LIMIT ?"
            }
        }
    }
}
