//! Cells and rows of a folder's tables.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use rusqlite::params;

use super::{
    Directory,
    plan::{Account, Plan},
    query::{Basis, QueryError},
    range::Range,
    reader::Snapshot,
    rows::AsOf,
    source::{Days, Piece, Row, Rows, SeeCell, SeeRow, Source, Want},
};
use crate::{
    fold::Family,
    tables::{
        Kind, Order, decode, has_other, ranges,
        runs::{key, parts},
        stored_entries, term,
    },
};

/// Rows between two looks at the clock.
const CHUNK: usize = 4_096;
/// With more accounts than this, every row in the range is looked at instead of each account's.
const ACCOUNTS_BY_INDEX: usize = 8;

impl Source for Snapshot<'_> {
    fn as_of(&self) -> AsOf {
        self.as_of
    }

    fn accounts(&self, _: &Directory<'_>, tenant: &str) -> Vec<String> {
        let names = self.names();
        let tenant = names.tenant(tenant);
        tenant.into_iter().flat_map(|tenant| names.accounts_of(tenant)).map(|(_, name)| name.to_owned()).collect()
    }

    fn has_other(&mut self, plan: &Plan, family: Family, days: (i64, i64)) -> Result<bool, QueryError> {
        for account in &plan.accounts {
            let Some(number) = number(self, plan, account) else { continue };
            if has_other(self.runs(), self.conn(), number, family, days)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn cells(
        &mut self,
        plan: &Plan,
        wants: &[Want<'_>],
        days: &Days<'_>,
        see: &mut SeeCell<'_>,
    ) -> Result<(), QueryError> {
        for want in wants {
            let Some(number) = number(self, plan, want.account) else { continue };
            match want.values {
                Some(values) => read_values(self, want, number, days, values, see)?,
                None => read_family(self, want, number, days, see)?,
            }
        }
        Ok(())
    }

    fn rows(&mut self, plan: &Plan, what: Rows, range: Range, see: &mut SeeRow<'_>) -> Result<(), QueryError> {
        let order = match (what, plan.basis) {
            (Rows::Clicks, _) => Order::Clicks,
            (Rows::Conversions, Basis::Click) => Order::ConversionsByClick,
            (Rows::Conversions, Basis::Conversion) => Order::ConversionsByTime,
        };
        let numbered = plan.accounts.iter().filter_map(|account| Some((number(self, plan, account)?, account)));
        let accounts: HashMap<u32, &Account> = numbered.collect();
        let see = &mut |row: Row<'_>| see(accounts.get(&row.account()).copied(), row);
        for rows in ranges(self.conn(), order, range.from, range.to)? {
            if accounts.len() <= ACCOUNTS_BY_INDEX {
                for account in accounts.keys() {
                    by_index(self, what, *account, rows, see)?;
                    self.breathe()?;
                }
            } else {
                all(self, what, rows, see)?;
                self.breathe()?;
            }
        }
        Ok(())
    }
}

fn number(snapshot: &Snapshot<'_>, plan: &Plan, account: &Account) -> Option<u32> {
    let names = snapshot.names();
    names.account(names.tenant(&plan.tenant)?, &account.name)
}

/// Days on which the account has cells: a range may be all of time.
fn days_of(snapshot: &Snapshot<'_>, account: u32, days: &Days<'_>) -> Result<BTreeSet<i64>> {
    let family = Family::Account as u8;
    let (from, to) = (key(family, account, days.first, ""), key(family, account, days.last + 1, ""));
    let mut found = BTreeSet::new();
    snapshot.runs().scan(snapshot.conn(), &from, &to, |key, _| {
        found.insert(parts(key)?.2);
        Ok(())
    })?;
    Ok(found)
}

/// Reads a family's cells day by day. A day is read in one snapshot, as segments may be merged between two.
fn read_family(
    snapshot: &mut Snapshot<'_>,
    want: &Want<'_>,
    account: u32,
    days: &Days<'_>,
    see: &mut SeeCell<'_>,
) -> Result<(), QueryError> {
    let range = |first, last| (key(want.family, account, first, ""), key(want.family, account, last + 1, ""));
    if want.family == Family::Account as u8 {
        // An account as a whole has one cell a day.
        scan(snapshot, want, range(days.first, days.last), see)?;
        return Ok(snapshot.breathe()?);
    }
    for day in days_of(snapshot, account, days)? {
        scan(snapshot, want, range(day, day), see)?;
        snapshot.breathe()?;
    }
    Ok(())
}

/// Where a filter names the values, their cells are looked up one by one.
fn read_values(
    snapshot: &mut Snapshot<'_>,
    want: &Want<'_>,
    account: u32,
    days: &Days<'_>,
    values: &[String],
    see: &mut SeeCell<'_>,
) -> Result<(), QueryError> {
    for day in days_of(snapshot, account, days)? {
        for value in values {
            let from = key(want.family, account, day, value);
            // The key that follows a key is that key and a zero byte.
            let to = [&from[..], b"\0"].concat();
            scan(snapshot, want, (from, to), see)?;
        }
        snapshot.breathe()?;
    }
    Ok(())
}

fn scan(
    snapshot: &Snapshot<'_>,
    want: &Want<'_>,
    (from, to): (Vec<u8>, Vec<u8>),
    see: &mut SeeCell<'_>,
) -> Result<(), QueryError> {
    let names = snapshot.names();
    let mut refused = None;
    snapshot.runs().scan(snapshot.conn(), &from, &to, |key, cell| {
        if refused.is_none() {
            let (_, _, day, value) = parts(key)?;
            let (mut entries, measure) = (stored_entries(cell), |code| names.measure(code));
            refused = see(want, Piece { day, value, entries: &mut entries, measure: &measure }).err();
        }
        Ok(())
    })?;
    refused.map_or(Ok(()), Err)
}

type See<'s> = dyn FnMut(Row<'_>) -> Result<(), QueryError> + 's;

fn by_index(
    snapshot: &mut Snapshot<'_>,
    what: Rows,
    account: u32,
    (first, mut last): (i64, i64),
    see: &mut See<'_>,
) -> Result<(), QueryError> {
    let term = term(of_account(what), account, b"");
    while first <= last {
        let rows = snapshot.segments().rows(snapshot.conn(), term, first, last, CHUNK)?;
        let mut statement = snapshot.conn().prepare_cached(one(what))?;
        for row in &rows {
            let mut found = statement.query([row])?;
            if let Some(row) = found.next()? {
                show(what, row.get_ref(0)?.as_blob().map_err(anyhow::Error::from)?, see)?;
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
    snapshot: &mut Snapshot<'_>,
    what: Rows,
    (mut first, last): (i64, i64),
    see: &mut See<'_>,
) -> Result<(), QueryError> {
    loop {
        let mut statement = snapshot.conn().prepare_cached(some(what))?;
        let mut rows = statement.query(params![first, last, CHUNK as i64])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            read += 1;
            first = row.get::<_, i64>(1)? + 1;
            show(what, row.get_ref(0)?.as_blob().map_err(anyhow::Error::from)?, see)?;
        }
        drop(rows);
        drop(statement);
        if read < CHUNK {
            return Ok(());
        }
        snapshot.breathe()?;
    }
}

fn show(what: Rows, data: &[u8], see: &mut See<'_>) -> Result<(), QueryError> {
    match what {
        Rows::Clicks => see(Row::Click(&decode(data)?)),
        Rows::Conversions => see(Row::Conversion(&decode(data)?)),
    }
}

fn of_account(what: Rows) -> Kind {
    match what {
        Rows::Clicks => Kind::ClickOfAccount,
        Rows::Conversions => Kind::ConversionOfAccount,
    }
}

fn one(what: Rows) -> &'static str {
    match what {
        Rows::Clicks => "SELECT data FROM clicks WHERE src = ?",
        Rows::Conversions => "SELECT data FROM conversions WHERE number = ?",
    }
}

fn some(what: Rows) -> &'static str {
    match what {
        Rows::Clicks => "SELECT data, src FROM clicks WHERE src BETWEEN ? AND ? ORDER BY src LIMIT ?",
        Rows::Conversions => {
            "SELECT data, number FROM conversions WHERE number BETWEEN ? AND ? ORDER BY number LIMIT ?"
        }
    }
}
