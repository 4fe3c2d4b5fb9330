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
    tables::{Cell, HitRow, Names, OTHER, StoredClick, WHOLE_DAY, decode},
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
    fn differs(&mut self, line: impl FnOnce() -> String) {
        self.audit.different += 1;
        if self.audit.differences.len() < SHOWN {
            self.audit.differences.push(line());
        }
    }
}

pub fn run(reports: &Reports, ledger: &mut Ledger, comparison: &mut Comparison) -> Result<()> {
    cells(reports, ledger, comparison)?;
    hits(reports, ledger, comparison)?;
    clicks(reports, ledger, comparison)?;
    conversions(reports, ledger, comparison)
}

/// Reads one piece in one snapshot, after which the log is read up to its position.
fn piece<T>(
    reports: &Reports,
    ledger: &mut Ledger,
    read: impl FnOnce(&Snapshot<'_>) -> Result<T>,
) -> Result<T> {
    let (rows, next) = reports.live.read(|snapshot| Ok::<_, anyhow::Error>((read(snapshot)?, snapshot.as_of.next)))?;
    ledger.read_to(next)?;
    Ok(rows)
}

type Entries = BTreeMap<Entry, Figures>;

fn cells(reports: &Reports, ledger: &mut Ledger, comparison: &mut Comparison) -> Result<()> {
    let mut after = Some((0u32, 0u8, i64::MIN, String::new()));
    let mut seen = HashSet::new();
    while let Some(from) = after.take() {
        let rows = piece(reports, ledger, |snapshot| read_cells(snapshot, &from))?;
        if rows.len() as i64 == CHUNK {
            after = rows.last().map(|(key, _, _)| (key.0, key.1, key.2, format!("{}\0", key.3)));
        }
        for (_, place, entries) in rows {
            comparison.audit.cells += 1;
            compare_cell(ledger, comparison, &place, &entries);
            seen.insert(place);
        }
    }
    // A cell that is new since its part of the table was read is looked up once more.
    let unseen: Vec<Place> = ledger.expected.cells.keys().filter(|place| !seen.contains(place)).cloned().collect();
    for place in unseen {
        let entries = piece(reports, ledger, |snapshot| read_cell(snapshot, &place))?;
        compare_cell(ledger, comparison, &place, &entries.unwrap_or_default());
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

type Key = (u32, u8, i64, String);

fn read_cells(snapshot: &Snapshot<'_>, from: &Key) -> Result<Vec<(Key, Place, Entries)>> {
    let mut read = snapshot.conn().prepare_cached(
        "SELECT account, family, day, value, totals, quarters FROM cells
         WHERE (account, family, day, value) >= (?, ?, ?, ?) ORDER BY account, family, day, value LIMIT ?",
    )?;
    let mut rows = read.query(params![from.0, from.1, from.2, from.3, CHUNK])?;
    let mut cells = Vec::new();
    while let Some(row) = rows.next()? {
        let key: Key = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let entries = entries(snapshot.names(), row.get_ref(4)?.as_blob()?, row.get_ref(5)?.as_blob()?)?;
        let account = snapshot.names().account_name(key.0).context("a cell of an unknown account")?;
        let tenant = snapshot.names().tenant_name(account.tenant).context("an account of an unknown tenant")?;
        let place = Place {
            tenant: tenant.to_owned(),
            account: account.name.clone(),
            family: FAMILIES.get(usize::from(key.1 & !OTHER)).context("a cell of an unknown family")?,
            value: (key.1 & OTHER == 0).then(|| key.3.clone()),
            day: key.2,
        };
        cells.push((key, place, entries));
    }
    Ok(cells)
}

fn read_cell(snapshot: &Snapshot<'_>, place: &Place) -> Result<Option<Entries>> {
    let names = snapshot.names();
    let account = names.tenant(&place.tenant).and_then(|tenant| names.account(tenant, &place.account));
    let family = FAMILIES.iter().position(|family| *family == place.family).unwrap_or_default() as u8;
    let (family, value) = match &place.value {
        Some(value) => (family, value.as_str()),
        None => (family | OTHER, ""),
    };
    let mut read = snapshot.conn().prepare_cached(
        "SELECT totals, quarters FROM cells WHERE account = ? AND family = ? AND day = ? AND value = ?",
    )?;
    let mut rows = read.query(params![account, family, place.day, value])?;
    match rows.next()? {
        Some(row) => entries(names, row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?).map(Some),
        None => Ok(None),
    }
}

fn entries(names: &Names, totals: &[u8], quarters: &[u8]) -> Result<Entries> {
    let mut entries = Entries::new();
    for (slot, code, sums) in Cell::decode(totals, quarters)?.entries() {
        let measure = match names.measure(code).context("a cell has an unknown measure")? {
            (Measure::Clicks { flagged: false }, _) => "clicks".to_owned(),
            (Measure::Clicks { flagged: true }, _) => "flagged clicks".to_owned(),
            (Measure::Conversions { goal, state, currency }, basis) => {
                let basis = if basis == Basis::Click { "click" } else { "conversion" };
                format!("{goal} {state} {currency} by {basis} time")
            }
        };
        let slot = (slot != WHOLE_DAY).then(|| slot - 1);
        entries.insert((slot, measure), (sums.count, sums.earning, sums.value));
    }
    Ok(entries)
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
                let (request, decision) = hashes(&show::postback(snapshot.names(), &hit))?;
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
    let due = ledger.expected.hits.range(..from as u64).count() as u64;
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
                shown.push((row.get(0)?, click.id, hash(&show::click(snapshot.names(), &click))?));
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
    let due = ledger.expected.clicks.range(..from as u64).count() as u64;
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
