//! Compares the tables, piece by piece, with what the log says.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result};
use rusqlite::params;
use schemas::ClickId;

use super::{
    Audit, Ledger,
    expected::{Entry, ExpectedHit, FAMILIES, Figures, Place, hash, hashes},
};
use crate::{
    fold::Measure,
    report::{Basis, ConversionRow, Reports, Snapshot, show},
    tables::{HitRow, Names, OTHER, StoredClick, WHOLE_DAY, decode, runs, stored_entries},
};

/// Rows compared per snapshot.
const CHUNK: i64 = 4_096;
/// Differences that are written out.
const SHOWN: usize = 100;

#[derive(Default)]
pub struct Comparison {
    pub audit: Audit,
}

impl Comparison {
    pub fn differs(&mut self, line: impl FnOnce() -> String) {
        self.audit.different += 1;
        if self.audit.differences.len() < SHOWN {
            self.audit.differences.push(line());
        }
    }
}

impl Comparison {
    /// Of another part of the log, up to a position of its own.
    pub fn add(&mut self, other: Comparison, position: u64) {
        let (to, from) = (&mut self.audit, other.audit);
        to.position += position;
        to.cells += from.cells;
        to.hits += from.hits;
        to.clicks += from.clicks;
        to.conversions += from.conversions;
        to.different += from.different;
        let room = SHOWN.saturating_sub(to.differences.len());
        to.differences.extend(from.differences.into_iter().take(room));
    }
}

pub fn run(reports: &Reports, ledger: &mut Ledger, comparison: &mut Comparison) -> Result<()> {
    cells(reports, ledger, comparison)?;
    hits(reports, ledger, comparison)?;
    clicks(reports, ledger, comparison)?;
    conversions(reports, ledger, comparison)
}

/// Reads one piece in one snapshot, after which the log is read up to its position.
fn piece<T>(reports: &Reports, ledger: &mut Ledger, read: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
    let (rows, next) =
        reports.live()?.read(|snapshot| Ok::<_, anyhow::Error>((read(snapshot)?, snapshot.as_of.next)))?;
    ledger.read_to(next)?;
    Ok(rows)
}

type Entries = BTreeMap<Entry, Figures>;

fn cells(reports: &Reports, ledger: &mut Ledger, comparison: &mut Comparison) -> Result<()> {
    let mut from = Some(Vec::new());
    let mut seen = HashSet::new();
    while let Some(first) = from.take() {
        let (cells, next) = piece(reports, ledger, |snapshot| read_cells(snapshot, first))?;
        for (place, entries) in cells {
            comparison.audit.cells += 1;
            compare_cell(ledger, comparison, &place, &entries);
            seen.insert(place);
        }
        from = next;
    }
    // A cell that is new since its part of the tables was read is looked up once more.
    let unseen: Vec<Place> = ledger.expected.cells.keys().filter(|place| !seen.contains(place)).cloned().collect();
    for place in unseen {
        let entries = piece(reports, ledger, |snapshot| read_cell(snapshot, &place))?;
        compare_cell(ledger, comparison, &place, &entries);
    }
    Ok(())
}

fn compare_cell(ledger: &Ledger, comparison: &mut Comparison, place: &Place, shown: &Entries) {
    let none = Entries::new();
    let right = ledger.expected.cells.get(place).unwrap_or(&none);
    let zero = (0, 0, 0);
    for entry in right.keys().chain(shown.keys().filter(|entry| !right.contains_key(*entry))) {
        let (should, is) = (right.get(entry).unwrap_or(&zero), shown.get(entry).unwrap_or(&zero));
        if should != is {
            comparison.differs(|| {
                let at = entry.0.map_or("the day".to_owned(), |quarter| format!("quarter {quarter}"));
                format!(
                    "cell {}/{} {} {:?} day {} {at}, {}: the tables say {is:?}, the log says {should:?}",
                    place.tenant, place.account, place.family, place.value, place.day, entry.1
                )
            });
        }
    }
}

type Cells = BTreeMap<Place, Entries>;

/// Whole days from `from` on, and where the next piece begins.
fn read_cells(snapshot: &Snapshot<'_>, mut from: Vec<u8>) -> Result<(Cells, Option<Vec<u8>>)> {
    let mut cells = Cells::new();
    while let Some(key) = snapshot.runs().next_key(snapshot.conn(), &from)? {
        let (family, account, day, _) = runs::parts(&key)?;
        let next = runs::key(family, account, day + 1, "");
        add_cells(snapshot, &key, &next, &mut cells)?;
        from = next;
        if cells.len() as i64 >= CHUNK {
            return Ok((cells, Some(from)));
        }
    }
    Ok((cells, None))
}

fn add_cells(snapshot: &Snapshot<'_>, from: &[u8], to: &[u8], cells: &mut Cells) -> Result<()> {
    let names = snapshot.names();
    snapshot.runs().scan(snapshot.conn(), from, to, |key, cell| {
        let (family, account, day, value) = runs::parts(key)?;
        let account = names.account_name(account).context("a cell of an unknown account")?;
        let tenant = names.tenant_name(account.tenant).context("an account of an unknown tenant")?;
        let place = Place {
            tenant: tenant.to_owned(),
            account: account.name.clone(),
            family: FAMILIES.get(usize::from(family & !OTHER)).context("a cell of an unknown family")?,
            value: (family & OTHER == 0).then(|| value.to_owned()),
            day,
        };
        let entries = cells.entry(place).or_default();
        for entry in stored_entries(cell) {
            let (slot, code, sums) = entry?;
            let slot = (slot != WHOLE_DAY).then(|| slot - 1);
            let figures = entries.entry((slot, measure(names, code)?)).or_default();
            *figures = (figures.0 + sums.count, figures.1 + sums.earning, figures.2 + sums.value);
        }
        Ok(())
    })
}

fn read_cell(snapshot: &Snapshot<'_>, place: &Place) -> Result<Entries> {
    let names = snapshot.names();
    let account = names.tenant(&place.tenant).and_then(|tenant| names.account(tenant, &place.account));
    let Some(account) = account else { return Ok(Entries::new()) };
    let family = FAMILIES.iter().position(|family| *family == place.family).unwrap_or_default() as u8;
    let from = match &place.value {
        Some(value) => runs::key(family, account, place.day, value),
        None => runs::key(family | OTHER, account, place.day, ""),
    };
    let mut cells = Cells::new();
    add_cells(snapshot, &from, &[&from[..], b"\0"].concat(), &mut cells)?;
    Ok(cells.remove(place).unwrap_or_default())
}

fn measure(names: &Names, code: u32) -> Result<String> {
    Ok(match names.measure(code).context("a cell has an unknown measure")? {
        (Measure::Clicks { flagged: false }, _) => "clicks".to_owned(),
        (Measure::Clicks { flagged: true }, _) => "flagged clicks".to_owned(),
        (Measure::Conversions { goal, state, currency }, basis) => {
            let basis = if basis == Basis::Click { "click" } else { "conversion" };
            format!("{goal} {state} {currency} by {basis} time")
        }
    })
}

fn hits(reports: &Reports, ledger: &mut Ledger, comparison: &mut Comparison) -> Result<()> {
    let mut rows_seen = 0;
    let mut from = 0;
    loop {
        let rows = piece(reports, ledger, |snapshot| {
            let mut read =
                snapshot.conn().prepare_cached("SELECT src, data FROM hits WHERE src >= ? ORDER BY src LIMIT ?")?;
            let mut rows = read.query(params![from, CHUNK])?;
            let mut shown = Vec::new();
            while let Some(row) = rows.next()? {
                let src: i64 = row.get(0)?;
                let hit: HitRow<'_> = decode(row.get_ref(1)?.as_blob()?)?;
                let (request, decision) = hashes(&show::postback(snapshot.names().account_text(hit.account), &hit))?;
                shown.push(ExpectedHit { row: src as u64, id: hit.id, request, decision });
            }
            Ok(shown)
        })?;
        let read = rows.len() as i64;
        for row in rows {
            rows_seen += 1;
            from = row.row as i64 + 1;
            match ledger.expected.hits.get(&row.row) {
                None => comparison.differs(|| format!("hit {}: in the tables, but not in the log", row.id)),
                Some(right) if right.id != row.id || right.request != row.request => {
                    comparison.differs(|| format!("hit {}: the stored request is not that of the log", row.id));
                }
                Some(right) if right.decision != row.decision => {
                    comparison.differs(|| format!("hit {}: the outcome shown is not that of the log", row.id));
                }
                Some(_) => {}
            }
        }
        if read < CHUNK {
            break;
        }
    }
    comparison.audit.hits = rows_seen;
    let due = ledger.expected.hits.len() as u64;
    if due > rows_seen {
        comparison.differs(|| format!("{} hits of the log are not in the tables", due - rows_seen));
    }
    Ok(())
}

fn clicks(reports: &Reports, ledger: &mut Ledger, comparison: &mut Comparison) -> Result<()> {
    let mut rows_seen = 0;
    let mut from = 0;
    loop {
        let rows = piece(reports, ledger, |snapshot| {
            let mut read =
                snapshot.conn().prepare_cached("SELECT src, data FROM clicks WHERE src >= ? ORDER BY src LIMIT ?")?;
            let mut rows = read.query(params![from, CHUNK])?;
            let mut shown: Vec<(i64, ClickId, u64)> = Vec::new();
            while let Some(row) = rows.next()? {
                let click: StoredClick<'_> = decode(row.get_ref(1)?.as_blob()?)?;
                shown.push((
                    row.get(0)?,
                    click.id,
                    hash(&show::click(snapshot.names().account_text(click.account), &click))?,
                ));
            }
            Ok(shown)
        })?;
        let read = rows.len() as i64;
        for (src, id, hash) in rows {
            rows_seen += 1;
            from = src + 1;
            if ledger.expected.clicks.get(&(src as u64)) != Some(&hash) {
                comparison.differs(|| format!("click {id}: the row is not what the log says"));
            }
        }
        if read < CHUNK {
            break;
        }
    }
    comparison.audit.clicks = rows_seen;
    let due = ledger.expected.clicks.len() as u64;
    if due > rows_seen {
        comparison.differs(|| format!("{} clicks of the log are not in the tables", due - rows_seen));
    }
    Ok(())
}

fn conversions(reports: &Reports, ledger: &mut Ledger, comparison: &mut Comparison) -> Result<()> {
    let mut seen = HashSet::new();
    let mut from = 0;
    loop {
        let rows = piece(reports, ledger, |snapshot| {
            let mut read = snapshot
                .conn()
                .prepare_cached("SELECT number FROM conversions WHERE number >= ? ORDER BY number LIMIT ?")?;
            let numbers = read.query_map(params![from, CHUNK], |row| row.get::<_, i64>(0))?;
            let mut shown: Vec<(i64, ConversionRow)> = Vec::new();
            for number in numbers {
                let number = number?;
                let row = crate::report::conversion_at(snapshot, number)?.context("a conversion went away")?;
                shown.push((number, row));
            }
            Ok(shown)
        })?;
        let read = rows.len() as i64;
        for (number, row) in rows {
            from = number + 1;
            comparison.audit.conversions += 1;
            match ledger.expected.conversions.get(&row.id) {
                Some(right) if *right == row && seen.insert(row.id.clone()) => {}
                Some(right) => comparison.differs(|| {
                    let text = |row: &ConversionRow| serde_json::to_string(row).unwrap_or_default();
                    format!("conversion {}: the tables say {}, the log says {}", row.id, text(&row), text(right))
                }),
                None => comparison.differs(|| format!("conversion {}: in the tables, but not in the log", row.id)),
            }
        }
        if read < CHUNK {
            break;
        }
    }
    let unseen: Vec<String> = ledger.expected.conversions.keys().filter(|id| !seen.contains(*id)).cloned().collect();
    for id in unseen {
        comparison.differs(|| format!("conversion {id}: in the log, but not in the tables, or shown otherwise"));
    }
    Ok(())
}
