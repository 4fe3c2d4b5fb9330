//! Recomputes what the tables of a cluster show from its topics, and compares.
//!
//! Owns: the list of differences. Refuses to write anything; it may run beside live processes.
//! Invariant: everything that was visible when it began is compared. A row says itself up to where it is true, so one
//! that was written meanwhile is compared with the log up to there.
//!
//! Memory: what the tables hold, and what follows from one source partition at a time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use pipeline::kafka::{Cluster, Layout, OutcomeReader, Place as LogPlace};
use schemas::EventId;

use super::{
    cells::StoredMeasure,
    positions,
    read::{
        conversions::{Version, with_changes},
        hits::StoredHit,
        walk::Key,
    },
    store::{Database, Store},
};
use crate::{
    audit::{
        Audit, Comparison,
        expected::{Entry, Expected, FAMILIES, Figures, Place, hash, hashes},
    },
    fold::Measure,
    report::{Basis, ConversionRow, show},
    tables::{OTHER, StoredClick, decode, stored_entries},
};

const FETCHED_KBYTES: u32 = 16_384;
/// For the next outcome that must be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of one source partition.
#[derive(Default)]
struct Stored {
    /// With the position that each is true of.
    cells: HashMap<Place, (u64, BTreeMap<Entry, Figures>)>,
    /// By `src`: since which position the decision stands, id, request and decision as hashes.
    hits: HashMap<u64, (u64, EventId, u64, u64)>,
    clicks: HashMap<u64, u64>,
    conversions: HashMap<String, (u64, ConversionRow)>,
}

/// What is compared when the log was read up to a position.
enum Check {
    Cell(Place),
    Hit(u64),
    Click(u64),
    Conversion(String),
}

pub async fn audit(cluster: &Cluster, layout: &Layout, database: &Database) -> Result<Audit> {
    let store = Store::open(database, &layout.id.to_string()).await?;
    let visible = positions::read(&store, layout.partitions).await?;
    let mut stored: BTreeMap<u16, Stored> = BTreeMap::new();
    read_cells(&store, &mut stored).await?;
    read_hits(&store, &mut stored).await?;
    read_clicks(&store, &mut stored).await?;
    read_conversions(&store, &mut stored).await?;
    let mut comparison = Comparison::default();
    for partition in 0..layout.partitions {
        let next = visible.next(partition);
        let rows = stored.remove(&partition).unwrap_or_default();
        let cluster = cluster.clone();
        let compared = tokio::task::spawn_blocking(move || {
            let mut comparison = Comparison::default();
            compare(&cluster, partition, next, rows, &mut comparison)?;
            anyhow::Ok(comparison)
        });
        comparison.add(compared.await??, next.saturating_sub(1));
    }
    for (partition, _) in stored {
        comparison.differs(|| format!("the tables have rows of partition {partition}, which there is not"));
    }
    Ok(comparison.audit)
}

/// Reads one partition's outcomes, and compares each row where the log is at the row's own position.
fn compare(cluster: &Cluster, partition: u16, visible: u64, rows: Stored, to: &mut Comparison) -> Result<()> {
    let mut checks: BTreeMap<u64, Vec<Check>> = BTreeMap::new();
    let mut due = |at: u64, check: Check| checks.entry(at.max(visible)).or_default().push(check);
    rows.cells.iter().for_each(|(place, (next, _))| due(*next, Check::Cell(place.clone())));
    rows.hits.iter().for_each(|(src, (since, ..))| due(*since, Check::Hit(*src)));
    rows.clicks.keys().for_each(|src| due(src + 1, Check::Click(*src)));
    rows.conversions.iter().for_each(|(id, (since, _))| due(*since, Check::Conversion(id.clone())));
    let mut reader = OutcomeReader::open(cluster, partition, LogPlace::START, FETCHED_KBYTES)?;
    let mut expected = Expected::default();
    let mut at = reader.place().position.next;
    let last = checks.keys().next_back().copied().unwrap_or(visible).max(visible);
    loop {
        if at == visible {
            missing(partition, &expected, &rows, to);
        }
        for check in checks.remove(&at).unwrap_or_default() {
            one(&expected, &rows, &check, to);
        }
        if at >= last {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        let met = loop {
            match reader.next(Duration::from_millis(200))? {
                Some(met) => break met,
                None if Instant::now() < until => {}
                None => bail!("the tables are at {last} of partition {partition}, and its outcomes end at {at}"),
            }
        };
        expected.take(met.src, &met.outcome)?;
        at = met.src + 1;
    }
}

/// Everything that was visible must have a row.
fn missing(partition: u16, expected: &Expected, rows: &Stored, to: &mut Comparison) {
    for place in expected.cells.keys().filter(|place| !rows.cells.contains_key(*place)) {
        to.differs(|| format!("cell {place:?} of partition {partition}: in the log, but not in the tables"));
    }
    for (src, hit) in expected.hits.iter().filter(|(src, _)| !rows.hits.contains_key(*src)) {
        to.differs(|| format!("hit {} (event {partition}-{src}): in the log, but not in the tables", hit.id));
    }
    for src in expected.clicks.keys().filter(|src| !rows.clicks.contains_key(*src)) {
        to.differs(|| format!("click of event {partition}-{src}: in the log, but not in the tables"));
    }
    for id in expected.conversions.keys().filter(|id| !rows.conversions.contains_key(*id)) {
        to.differs(|| format!("conversion {id}: in the log, but not in the tables"));
    }
}

fn one(expected: &Expected, rows: &Stored, check: &Check, to: &mut Comparison) {
    match check {
        Check::Cell(place) => {
            to.audit.cells += 1;
            let found = rows.cells.get(place).map(|(_, entries)| without_zeros(entries));
            let right = expected.cells.get(place).map(without_zeros).unwrap_or_default();
            if found.as_ref() != Some(&right) {
                to.differs(|| format!("cell {place:?}: the tables say {found:?}, the log says {right:?}"));
            }
        }
        Check::Hit(src) => {
            to.audit.hits += 1;
            let Some((_, id, request, decision)) = rows.hits.get(src) else { return };
            match expected.hits.get(src) {
                None => to.differs(|| format!("hit {id}: in the tables, but not in the log")),
                Some(right) if right.id != *id || right.request != *request => {
                    to.differs(|| format!("hit {id}: the stored request is not that of the log"));
                }
                Some(right) if right.decision != *decision => {
                    to.differs(|| format!("hit {id}: the outcome shown is not that of the log"));
                }
                Some(_) => {}
            }
        }
        Check::Click(src) => {
            to.audit.clicks += 1;
            if expected.clicks.get(src) != rows.clicks.get(src) {
                to.differs(|| format!("click of event {src}: the row is not what the log says"));
            }
        }
        Check::Conversion(id) => {
            to.audit.conversions += 1;
            let found = rows.conversions.get(id).map(|(_, row)| row);
            let right = expected.conversions.get(id);
            if found != right {
                let text = |row: Option<&ConversionRow>| serde_json::to_string(&row).unwrap_or_default();
                to.differs(|| format!("conversion {id}: the tables say {}, the log says {}", text(found), text(right)));
            }
        }
    }
}

fn without_zeros(entries: &BTreeMap<Entry, Figures>) -> BTreeMap<&Entry, Figures> {
    entries.iter().filter(|(_, figures)| **figures != (0, 0, 0)).map(|(entry, figures)| (entry, *figures)).collect()
}

fn part(stored: &mut BTreeMap<u16, Stored>, partition: i32) -> Result<&mut Stored> {
    Ok(stored.entry(u16::try_from(partition).context("a row of no partition")?).or_default())
}

async fn read_cells(store: &Store, stored: &mut BTreeMap<u16, Stored>) -> Result<()> {
    type Row = ((String, String, i16, i32, String), (i32, i64, Vec<u8>, Vec<u8>, Vec<u8>));
    type Flat = (String, String, i16, i32, String, i32, i64, Vec<u8>, Vec<u8>, Vec<u8>);
    let text = format!(
        "SELECT tenant, account, family, day, value, partition, next, measures, whole, quarters FROM {}",
        store.table("cells")
    );
    let mut rows = store.session.query_iter(text, ()).await?.rows_stream::<Flat>()?;
    while let Some((a, b, c, d, e, f, g, h, i, j)) = rows.try_next().await? {
        let row: Row = ((a, b, c, d, e), (f, g, h, i, j));
        let ((tenant, account, family, day, value), (partition, next, measures, whole, quarters)) = row;
        let family = u8::try_from(family)?;
        let place = Place {
            tenant,
            account,
            family: FAMILIES.get(usize::from(family & !OTHER)).context("a cell of an unknown family")?,
            value: (family & OTHER == 0).then_some(value),
            day: i64::from(day),
        };
        let measures: Vec<StoredMeasure> = decode(&measures)?;
        let mut entries = BTreeMap::new();
        for entry in stored_entries(&whole).chain(stored_entries(&quarters)) {
            let (slot, code, sums) = entry?;
            let name = name(measures.get(code as usize).context("a cell has an unknown measure")?);
            entries.insert((slot.checked_sub(1), name), (sums.count, sums.earning, sums.value));
        }
        part(stored, partition)?.cells.insert(place, (next as u64, entries));
    }
    Ok(())
}

fn name(measure: &StoredMeasure) -> String {
    match measure.measure() {
        (Measure::Clicks { flagged: false }, _) => "clicks".to_owned(),
        (Measure::Clicks { flagged: true }, _) => "flagged clicks".to_owned(),
        (Measure::Conversions { goal, state, currency }, basis) => {
            let basis = if basis == Basis::Click { "click" } else { "conversion" };
            format!("{goal} {state} {currency} by {basis} time")
        }
    }
}

async fn read_hits(store: &Store, stored: &mut BTreeMap<u16, Stored>) -> Result<()> {
    type Row = (String, i64, Vec<u8>, Option<i32>, Option<i64>, Option<Vec<u8>>, Vec<u8>, i64);
    let text = format!(
        "SELECT account, time, id, partition, src, received, decision, WRITETIME(decision) FROM {}",
        store.table("hits")
    );
    let mut rows = store.session.query_iter(text, ()).await?.rows_stream::<Row>()?;
    while let Some((account, time, id, partition, src, received, decision, since)) = rows.try_next().await? {
        // Of a hit whose row is still on its way there may be a later decision already.
        let (Some(partition), Some(src), Some(received)) = (partition, src, received) else { continue };
        let key = Key { time, id, version: 0 };
        let hit = StoredHit { received, decision, again: None };
        let row = hit.row(&key)?;
        let (request, decision) = hashes(&show::postback(&account, &row))?;
        part(stored, partition)?.hits.insert(src as u64, (since as u64, row.id, request, decision));
    }
    Ok(())
}

async fn read_clicks(store: &Store, stored: &mut BTreeMap<u16, Stored>) -> Result<()> {
    let text = format!("SELECT account, partition, src, data FROM {}", store.table("clicks"));
    let mut rows = store.session.query_iter(text, ()).await?.rows_stream::<(String, i32, i64, Vec<u8>)>()?;
    while let Some((account, partition, src, data)) = rows.try_next().await? {
        let row: StoredClick<'_> = decode(&data)?;
        part(stored, partition)?.clicks.insert(src as u64, hash(&show::click(&account, &row))?);
    }
    Ok(())
}

async fn read_conversions(store: &Store, stored: &mut BTreeMap<u16, Stored>) -> Result<()> {
    type Row = (Vec<u8>, i32, i32, i64, String, String, Vec<u8>);
    // The versions of a conversion come together, the first one first.
    let text = format!("SELECT id, version, partition, src, tenant, account, data FROM {}", store.table("conversions"));
    let mut rows = store.session.query_iter(text, ()).await?.rows_stream::<Row>()?;
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut last: Option<OneConversion> = None;
    while let Some((id, number, partition, src, tenant, account, data)) = rows.try_next().await? {
        let version = Version { number, tenant, account, data };
        match &mut last {
            Some(last) if last.id == id => last.add(src, version),
            _ => {
                if !seen.insert(id.clone()) {
                    bail!("the versions of a conversion do not stand together");
                }
                let next = OneConversion { id, partition, since: src as u64 + 1, versions: vec![version] };
                if let Some(done) = last.replace(next) {
                    done.keep(stored)?;
                }
            }
        }
    }
    last.map_or(Ok(()), |done| done.keep(stored))
}

struct OneConversion {
    id: Vec<u8>,
    partition: i32,
    since: u64,
    versions: Vec<Version>,
}

impl OneConversion {
    fn add(&mut self, src: i64, version: Version) {
        self.since = self.since.max(src as u64 + 1);
        self.versions.push(version);
    }

    fn keep(self, stored: &mut BTreeMap<u16, Stored>) -> Result<()> {
        let row = with_changes(&self.versions)?;
        part(stored, self.partition)?.conversions.insert(row.id.clone(), (self.since, row));
        Ok(())
    }
}
