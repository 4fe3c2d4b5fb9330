//! Lists of conversions, one conversion with its changes, clicks by name, and the journey of a click.

use anyhow::Result;
use rusqlite::Connection;
use schemas::{ClickId, ConversionId, Time, name::fold as fold_name};

use super::{
    postbacks::{cursor, is_of_tenant},
    query::{Basis, ClickName, ClickQuery, ConversionQuery, QueryError},
    range::{Range, resolve, zone},
    reader::Snapshot,
    rows::{ChangeRow, ClickRow, ConversionRow, Journey, Page},
    show,
    source::time_of,
    walk::{Candidates, Go, Table, below, walk},
};
use crate::{
    fold::day,
    tables::{HitRow, Kind, Order, StoredChange, StoredClick, StoredConversion, Term, decode, ranges, term},
};

/// Hits and conversions that one journey shows.
pub const JOURNEY: usize = 1_000;
/// Days of changes that are looked up one by one; before that, all conversions are looked through.
const DAYS_OF_CHANGES: i64 = 400;
const EVERYTHING: [(i64, i64); 1] = [(0, i64::MAX)];

pub fn page(snapshot: &mut Snapshot<'_>, query: &ConversionQuery) -> Result<Page<ConversionRow>, QueryError> {
    let range = range(query)?;
    let cursor = cursor(query.cursor.as_deref())?;
    let as_of = snapshot.as_of;
    let none = Page { items: Vec::new(), cursor: None, as_of };
    let Some(tenant) = snapshot.names().tenant(&query.tenant) else { return Ok(none) };
    let accounts = accounts(snapshot, tenant, query);
    let order = match query.basis {
        Basis::Click => Order::ConversionsByClick,
        Basis::Conversion => Order::ConversionsByTime,
    };
    let rows = match range {
        Range::ALL => EVERYTHING.to_vec(),
        range => ranges(snapshot.conn(), order, range.from, range.to)?,
    };
    let (candidates, rows) = candidates(snapshot, query, tenant, &accounts, rows)?;
    let mut items = Vec::new();
    let rest = walk(snapshot, Table::Conversions, &candidates, &below(rows, cursor), |snapshot, _, data| {
        let row: StoredConversion<'_> = decode(data)?;
        if accounts.contains(&row.account) && is_wanted(query, range, &row) {
            items.push(show::conversion(snapshot.names().account_text(row.account), &row));
        }
        Ok(if items.len() < query.limit { Go::On } else { Go::Enough })
    })?;
    Ok(Page { items, cursor: rest.map(|row| row.to_string()), as_of })
}

pub fn range(query: &ConversionQuery) -> Result<Range, QueryError> {
    let tz = zone(query.tz.as_deref().unwrap_or("UTC"))?;
    match (&query.from, &query.to) {
        (None, None) => Ok(Range::ALL),
        (from, to) => resolve(from.as_ref(), to.as_ref(), &tz, query.now),
    }
}

fn accounts(snapshot: &Snapshot<'_>, tenant: u32, query: &ConversionQuery) -> Vec<u32> {
    let wanted = |name: &str| query.accounts.is_empty() || query.accounts.iter().any(|wanted| wanted == name);
    let of_tenant = snapshot.names().accounts_of(tenant);
    of_tenant.filter(|(_, name)| wanted(name)).map(|(number, _)| number).collect()
}

fn candidates(
    snapshot: &Snapshot<'_>,
    query: &ConversionQuery,
    tenant: u32,
    accounts: &[u32],
    rows: Vec<(i64, i64)>,
) -> Result<(Candidates, Vec<(i64, i64)>)> {
    for (kind, filter) in [(Kind::ConversionTid, &query.tid), (Kind::ConversionPlayer, &query.player)] {
        if let Some(values) = filter.positive() {
            let terms = values.into_iter().map(|value| term(kind, tenant, value.as_bytes()));
            return Ok((Candidates::Any(terms.collect()), rows));
        }
    }
    if let Some(after) = query.updated_after
        && let Some(changed) = changed_since(snapshot, tenant, after)?
    {
        return Ok((Candidates::Any(changed), rows));
    }
    if !query.accounts.is_empty() {
        let terms = accounts.iter().map(|account| term(Kind::ConversionOfAccount, *account, b""));
        return Ok((Candidates::Any(terms.collect()), rows));
    }
    Ok((Candidates::Any(vec![term(Kind::ConversionOfTenant, tenant, b"")]), rows))
}

/// Terms of everything that was made or changed on the days since; `None`: too many days.
fn changed_since(snapshot: &Snapshot<'_>, tenant: u32, after: Time) -> Result<Option<Vec<Term>>> {
    let (first, last) = (day(after), day(snapshot.as_of.time));
    if last - first > DAYS_OF_CHANGES {
        return Ok(None);
    }
    Ok(Some((first..=last).map(|day| term(Kind::ConversionUpdated, tenant, &day.to_be_bytes())).collect()))
}

/// Of a row whose account is asked for.
pub fn is_wanted(query: &ConversionQuery, range: Range, row: &StoredConversion<'_>) -> bool {
    range.contains(time_of(query.basis, row))
        && (query.goals.is_empty() || query.goals.iter().any(|goal| goal == row.goal))
        && query.goal.admits(Some(row.goal))
        && (query.states.is_empty() || query.states.contains(&row.state))
        && query.tid.admits(row.tid)
        && query.player.admits(row.player)
        && query.updated_after.is_none_or(|after| row.updated > after)
}

pub fn one(snapshot: &Snapshot<'_>, tenant: &str, id: &str) -> Result<Option<ConversionRow>> {
    let Some(id) = ConversionId::parse(id.as_bytes()) else { return Ok(None) };
    let wanted = term(Kind::ConversionId, 0, &id.0);
    for number in snapshot.segments().rows(snapshot.conn(), wanted, 0, i64::MAX, usize::MAX)? {
        let found = read(snapshot, number, |row| row.id == id && is_of_tenant(snapshot, tenant, row.account))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The conversion in a row, with its changes.
pub fn at(snapshot: &Snapshot<'_>, number: i64) -> Result<Option<ConversionRow>> {
    read(snapshot, number, |_| true)
}

/// A conversion with its changes, if it is the one that is meant.
fn read(
    snapshot: &Snapshot<'_>,
    number: i64,
    is_meant: impl Fn(&StoredConversion<'_>) -> bool,
) -> Result<Option<ConversionRow>> {
    let mut read = snapshot.conn().prepare_cached("SELECT data FROM conversions WHERE number = ?")?;
    let mut rows = read.query([number])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let row: StoredConversion<'_> = decode(row.get_ref(0)?.as_blob()?)?;
    if !is_meant(&row) {
        return Ok(None);
    }
    let changes = changes(snapshot.conn(), number, &row.first)?;
    Ok(Some(ConversionRow {
        changes: Some(changes),
        ..show::conversion(snapshot.names().account_text(row.account), &row)
    }))
}

fn changes(conn: &Connection, number: i64, first: &StoredChange<'_>) -> Result<Vec<ChangeRow>> {
    let mut changes = vec![show::change(first)];
    let mut read = conn.prepare_cached("SELECT data FROM changes WHERE conversion = ? ORDER BY version")?;
    let mut rows = read.query([number])?;
    while let Some(row) = rows.next()? {
        changes.push(show::change(&decode(row.get_ref(0)?.as_blob()?)?));
    }
    Ok(changes)
}

pub fn clicks(snapshot: &mut Snapshot<'_>, query: &ClickQuery) -> Result<Page<ClickRow>, QueryError> {
    let cursor = cursor(query.cursor.as_deref())?;
    let as_of = snapshot.as_of;
    let names = snapshot.names();
    let account = names.tenant(&query.tenant).and_then(|tenant| names.account(tenant, &query.account));
    let Some(account) = account else { return Ok(Page { items: Vec::new(), cursor: None, as_of }) };
    let wanted = WantedClick::of(&query.by);
    let mut terms = vec![term(Kind::ClickName, account, wanted.name.as_bytes())];
    terms.extend(wanted.ours.map(|id| term(Kind::ClickId, 0, &id.bits().to_be_bytes())));
    let rows = below(EVERYTHING.to_vec(), cursor);
    let mut items = Vec::new();
    let rest = walk(snapshot, Table::Clicks, &Candidates::Any(terms), &rows, |snapshot, _, data| {
        let row: StoredClick<'_> = decode(data)?;
        if wanted.is(&row) && row.account == account {
            items.push(show::click(snapshot.names().account_text(row.account), &row));
        }
        Ok(if items.len() < query.limit { Go::On } else { Go::Enough })
    })?;
    Ok(Page { items, cursor: rest.map(|row| row.to_string()), as_of })
}

/// A click by its name, ready to be put to a row whose account is asked for.
pub struct WantedClick {
    /// If the name is an id of ours.
    pub ours: Option<ClickId>,
    pub name: String,
    is_dyn: bool,
}

impl WantedClick {
    pub fn of(by: &ClickName) -> Self {
        let (text, is_dyn) = match by {
            ClickName::Id(text) => (text, false),
            ClickName::Dyn(text) => (text, true),
        };
        Self { ours: ClickId::parse(text.as_bytes()).filter(|_| !is_dyn), name: fold_name(text), is_dyn }
    }

    pub fn is(&self, row: &StoredClick<'_>) -> bool {
        let is = |known: Option<&str>| known.is_some_and(|known| fold_name(known) == self.name);
        if self.is_dyn { is(row.origin.dyn_) } else { is(row.foreign) || Some(row.id) == self.ours }
    }
}

/// Whether a hit stands in the journey of a click.
pub fn is_on_journey(click: ClickId, row: &HitRow<'_>) -> bool {
    let named = row.decision.named.and_then(|name| ClickId::parse(name.as_bytes()));
    let credited = row.decision.click.map(|(id, _)| id);
    credited.or(named) == Some(click)
}

pub fn journey(snapshot: &mut Snapshot<'_>, tenant: &str, click: ClickId) -> Result<Option<Journey>> {
    let bits = click.bits().to_be_bytes();
    let mut found = None;
    let of = |kind| Candidates::Any(vec![term(kind, 0, &bits)]);
    walk(snapshot, Table::Clicks, &of(Kind::ClickId), &EVERYTHING, |snapshot, _, data| {
        let row: StoredClick<'_> = decode(data)?;
        if row.id == click && is_of_tenant(snapshot, tenant, row.account) {
            found = Some(show::click(snapshot.names().account_text(row.account), &row));
            return Ok(Go::Enough);
        }
        Ok(Go::On)
    })?;
    let Some(click_row) = found else { return Ok(None) };
    let mut hits = Vec::new();
    let rest = walk(snapshot, Table::Hits, &of(Kind::HitClick), &EVERYTHING, |snapshot, _, data| {
        let row: HitRow<'_> = decode(data)?;
        if is_on_journey(click, &row) && is_of_tenant(snapshot, tenant, row.account) {
            hits.push(show::postback(snapshot.names().account_text(row.account), &row));
        }
        Ok(if hits.len() < JOURNEY { Go::On } else { Go::Enough })
    })?;
    let mut numbers = Vec::new();
    let more = walk(snapshot, Table::Conversions, &of(Kind::ConversionClick), &EVERYTHING, |_, number, data| {
        if decode::<StoredConversion<'_>>(data)?.click == Some(click) {
            numbers.push(number);
        }
        Ok(if numbers.len() < JOURNEY { Go::On } else { Go::Enough })
    })?;
    hits.reverse();
    let mut conversions = Vec::new();
    for number in numbers.iter().rev() {
        conversions.extend(read(snapshot, *number, |row| row.click == Some(click))?);
        snapshot.breathe()?;
    }
    Ok(Some(Journey { click: click_row, hits, conversions, complete: rest.is_none() && more.is_none() }))
}
