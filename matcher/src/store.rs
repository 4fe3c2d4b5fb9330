//! `state.db`: the state on disk, a cache that can be deleted at any time.
//!
//! Owns: how records are laid out in SQLite, loading what an event needs, saving what changed together with the
//! position that it is true of, in one transaction.
//! Refuses: decisions; being ahead of the log (only committed batches are saved).
//! Invariant: what is in the file equals the fold of the log up to the stored position.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use foldhash::HashMap;
use pipeline::clock;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use schemas::{
    ClickId, Event, EventBody, EventId, Time,
    chain::{Chain, Position},
    event::ItemBody,
};

use self::rows::{StoredClick, StoredName, click_id, click_key, event_id, event_key, text_key};
use crate::{
    replica::Anchor,
    state::{Changed, Click, Home, Key, Label, Meta, Named, Place, Run, State, Waiting},
};

mod history;
mod rows;

pub use history::step_back;

pub const FILE: &str = "state.db";
const VERSION: i64 = 2;
/// Clicks that one save looks at, for whether they can go.
const SWEPT_PER_SAVE: usize = 5_000;
const SCHEMA: &str = "
    CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL, chain TEXT NOT NULL, data BLOB NOT NULL);
    CREATE TABLE anchor (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL, next INTEGER NOT NULL, chain TEXT NOT NULL);
    CREATE TABLE homes (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE clicks (id BLOB PRIMARY KEY, data BLOB NOT NULL, waiting INTEGER) WITHOUT ROWID;
    CREATE TABLE names (key BLOB PRIMARY KEY, data BLOB NOT NULL, waiting TEXT) WITHOUT ROWID;
    CREATE TABLE labels (key BLOB PRIMARY KEY, data BLOB NOT NULL, waiting TEXT) WITHOUT ROWID;
    CREATE TABLE runs (id BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX clicks_waiting ON clicks (waiting) WHERE waiting IS NOT NULL;
    CREATE INDEX names_waiting ON names (waiting) WHERE waiting IS NOT NULL;
    CREATE INDEX labels_waiting ON labels (waiting) WHERE waiting IS NOT NULL;
";

/// Records that changed since the last save, and the position after the last of these changes.
pub struct Dirty {
    pub position: Position,
    /// In a cluster: from where the logs are compared with it.
    pub anchor: Option<Anchor>,
    meta: Meta,
    clicks: Changed<ClickId, Click>,
    names: Changed<Key, Named>,
    labels: Changed<Key, Label>,
    runs: Changed<EventId, Run>,
}

impl Dirty {
    /// Everything of `state` that is not saved yet. Only between batches, when all of it is in the log.
    pub fn take(state: &mut State, position: Position) -> Self {
        Self {
            position,
            anchor: None,
            meta: state.meta,
            clicks: state.clicks.take_dirty(),
            names: state.names.take_dirty(),
            labels: state.labels.take_dirty(),
            runs: state.runs.take_dirty(),
        }
    }

    /// After a failed save: all of it must be saved again.
    pub fn put_back(self, state: &mut State) {
        state.clicks.put_back(self.clicks);
        state.names.put_back(self.names);
        state.labels.put_back(self.labels);
        state.runs.put_back(self.runs);
    }
}

/// The file is of no use: it is deleted, and made again from the log.
#[derive(thiserror::Error, Debug)]
#[error("the state cache (state.db) cannot be read")]
pub struct BadCache;

/// Reads records; used by the thread that decides.
pub struct Reader {
    connection: Connection,
    homes: HashMap<i64, Arc<Home>>,
}

/// Writes records; used by the thread that saves.
pub struct Writer {
    connection: Connection,
    homes: HashMap<Arc<Home>, i64>,
    /// Up to here clicks were looked at, oldest first, for whether they can go.
    swept: [u8; 15],
    keeps_history: bool,
}

/// Opens the cache and gives the state that it holds, or an empty one. A file of another format is deleted.
pub fn open(dir: &Path) -> Result<(Reader, Writer, State, Position)> {
    let path = dir.join(FILE);
    let writer = match open_writer(&path) {
        Ok(writer) => writer,
        Err(error) => {
            tracing::warn!("the state cache cannot be used and is rebuilt: {error:#}");
            delete(dir)?;
            open_writer(&path)?
        }
    };
    let mut reader = Reader::open(&path).context(BadCache)?;
    let mut state = State::default();
    let position = reader.restore(&mut state).context(BadCache)?;
    Ok((reader, writer, state, position))
}

/// Deletes the cache; it is rebuilt from the log.
pub fn delete(dir: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let path = dir.join(format!("{FILE}{suffix}"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn open_writer(path: &Path) -> Result<Writer> {
    let connection = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A cache: after a power cut it may be behind, but never torn.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    match connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        0 => {
            connection.execute_batch(SCHEMA)?;
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        other => bail!("format {other} is not {VERSION}"),
    }
    connection.set_prepared_statement_cache_capacity(32);
    let homes = read_homes(&connection)?.into_iter().map(|(id, home)| (home, id)).collect();
    Ok(Writer { connection, homes, swept: [0; 15], keeps_history: false })
}

fn read_homes(connection: &Connection) -> Result<Vec<(i64, Arc<Home>)>> {
    let mut statement = connection.prepare("SELECT id, data FROM homes")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    rows.map(|row| {
        let (id, data) = row?;
        Ok((id, Arc::new(postcard::from_bytes(&data)?)))
    })
    .collect()
}

impl Reader {
    fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.pragma_update(None, "cache_size", -65_536)?;
        let homes = read_homes(&connection)?.into_iter().collect();
        Ok(Self { connection, homes })
    }

    fn restore(&mut self, state: &mut State) -> Result<Position> {
        let meta = self.connection.query_row("SELECT next, chain, data FROM meta", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        });
        let Some((next, chain, data)) = meta.optional()? else { return Ok(Position::START) };
        state.meta = postcard::from_bytes(&data)?;
        let chain = Chain::parse(&chain).context("the state cache has a malformed chain")?;
        for (id, data) in self.blobs("SELECT id, data FROM runs")? {
            state.runs.load(event_id(&id)?, Some(postcard::from_bytes(&data)?));
        }
        self.restore_waiting(state)?;
        Ok(Position { next: next as u64, chain })
    }

    /// What the state was saved with, in a cluster.
    pub fn anchor(&self) -> Result<Option<Anchor>> {
        let row = self.connection.query_row("SELECT at, next, chain FROM anchor", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        });
        let Some((at, next, chain)) = row.optional().context(BadCache)? else { return Ok(None) };
        let chain = Chain::parse(&chain).context("the state cache has a malformed chain").context(BadCache)?;
        Ok(Some(Anchor { offset: at as u64, position: Position { next: next as u64, chain } }))
    }

    /// Waiting hits stay in memory, as the expiry queue needs them.
    fn restore_waiting(&mut self, state: &mut State) -> Result<()> {
        let mut found: Vec<(Place, Vec<Arc<Waiting>>)> = Vec::new();
        for (id, data) in self.blobs("SELECT id, data FROM clicks WHERE waiting IS NOT NULL")? {
            let id = click_id(&id)?;
            let click = self.read_click(id, &data)?;
            found.push((Place::Ledger(Key::Click(id)), click.waiting.clone()));
            state.clicks.load(id, Some(click));
        }
        for (text, data) in self.blobs("SELECT CAST(waiting AS BLOB), data FROM names WHERE waiting IS NOT NULL")? {
            let key: Key = serde_json::from_slice(&text)?;
            let named = postcard::from_bytes::<StoredName>(&data)?.into_named();
            found.push((Place::Name(key.clone()), named.waiting.clone()));
            state.names.load(key, Some(named));
        }
        for (text, data) in self.blobs("SELECT CAST(waiting AS BLOB), data FROM labels WHERE waiting IS NOT NULL")? {
            let key: Key = serde_json::from_slice(&text)?;
            let label: Label = postcard::from_bytes(&data)?;
            found.push((Place::Ledger(key.clone()), label.waiting.clone()));
            state.labels.load(key, Some(label));
        }
        for (place, waiting) in found {
            waiting.iter().for_each(|hit| state.index_waiting(place.clone(), hit));
        }
        Ok(())
    }

    fn blobs(&self, sql: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Loads everything that `decide` and `apply` may look at for this event.
    pub fn load(&mut self, state: &mut State, event: &Event) -> Result<()> {
        self.load_all(state, event).context(BadCache)
    }

    fn load_all(&mut self, state: &mut State, event: &Event) -> Result<()> {
        // Places of due hits need no loading: waiting hits never leave memory.
        match &event.body {
            EventBody::Click(click) => {
                self.load_click(state, click.id)?;
                self.load_name(state, &Key::Click(click.id))?;
                match &click.alias {
                    Some(a) => self.load_alias(state, &Key::alias(&event.tenant, &click.account, a)),
                    None => Ok(()),
                }
            }
            EventBody::Hit(hit) => match &hit.reading.name {
                Some(name) if hit.reading.reject.is_none() => {
                    self.load_key(state, &Key::of(&event.tenant, &hit.account, name))
                }
                _ => Ok(()),
            },
            EventBody::Adjust(adjust) => self.load_key(state, &Key::of(&event.tenant, &adjust.account, &adjust.on)),
            EventBody::Reprocess(request) => {
                for item in &request.items {
                    if let ItemBody::Click(id) = item.what {
                        self.load_click(state, id)?;
                        self.load_name(state, &Key::Click(id))?;
                        // Also of a click that has converted: what is not loaded would be taken for not there.
                        if let Some(alias) = state.clicks.get(&id).and_then(|click| click.alias_key()) {
                            self.load_name(state, &alias)?;
                        }
                    }
                }
                self.load_key(state, &Key::of(&event.tenant, &request.account, &request.name))
            }
            EventBody::Tick | EventBody::Rules(_) => Ok(()),
        }
    }

    fn load_key(&mut self, state: &mut State, key: &Key) -> Result<()> {
        match key {
            Key::Click(id) => {
                self.load_click(state, *id)?;
                self.load_name(state, key)?;
                self.load_alias_of(state, *id)
            }
            Key::Alias(_) => self.load_alias(state, key),
            Key::Label(_) => self.load_label(state, key),
        }
    }

    fn load_alias(&mut self, state: &mut State, key: &Key) -> Result<()> {
        self.load_name(state, key)?;
        let clicks: Vec<ClickId> =
            state.names.get(key).map(|n| n.clicks.iter().map(|c| c.id).collect()).unwrap_or_default();
        clicks.into_iter().try_for_each(|id| self.load_click(state, id))
    }

    /// A click's first conversion is noted under its alias.
    fn load_alias_of(&self, state: &mut State, id: ClickId) -> Result<()> {
        match state.clicks.get(&id).filter(|c| c.ledger.entries.is_empty()).and_then(|c| c.alias_key()) {
            Some(alias) => self.load_name(state, &alias),
            None => Ok(()),
        }
    }

    fn load_click(&mut self, state: &mut State, id: ClickId) -> Result<()> {
        if state.clicks.is_loaded(&id) {
            return Ok(());
        }
        let data = self.get("SELECT data FROM clicks WHERE id = ?1", &click_key(id))?;
        let click = data.map(|data| self.read_click(id, &data)).transpose()?;
        state.clicks.load(id, click);
        Ok(())
    }

    fn load_name(&self, state: &mut State, key: &Key) -> Result<()> {
        if state.names.is_loaded(key) {
            return Ok(());
        }
        let data = match key {
            // A name that is a click id is kept for waiting hits only, and these never leave memory.
            Key::Click(_) => None,
            key => self.get("SELECT data FROM names WHERE key = ?1", &text_key(key))?,
        };
        let named = data.map(|data| postcard::from_bytes::<StoredName>(&data)).transpose()?;
        state.names.load(key.clone(), named.map(StoredName::into_named));
        Ok(())
    }

    fn load_label(&self, state: &mut State, key: &Key) -> Result<()> {
        if !state.labels.is_loaded(key) {
            let data = self.get("SELECT data FROM labels WHERE key = ?1", &text_key(key))?;
            state.labels.load(key.clone(), data.map(|data| postcard::from_bytes(&data)).transpose()?);
        }
        Ok(())
    }

    fn get(&self, sql: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
    }

    fn read_click(&mut self, id: ClickId, data: &[u8]) -> Result<Click> {
        let stored: StoredClick = postcard::from_bytes(data).context("a click in the state cache cannot be read")?;
        let home = self.home(stored.home)?;
        Ok(stored.into_click(id, home))
    }

    fn home(&mut self, id: i64) -> Result<Arc<Home>> {
        if let Some(home) = self.homes.get(&id) {
            return Ok(home.clone());
        }
        self.homes = read_homes(&self.connection)?.into_iter().collect();
        self.homes.get(&id).cloned().context("the state cache lacks the settings of a click")
    }
}

impl Writer {
    /// From now on `step_back` can undo a save. It costs a look at each row that is overwritten.
    pub fn keep_history(&mut self) -> Result<()> {
        history::begin(&self.connection).context(BadCache)?;
        self.keeps_history = true;
        Ok(())
    }

    /// Saves all of it with its position in one transaction, in key order so that pages are touched once.
    pub fn save(&mut self, dirty: &Dirty) -> Result<()> {
        let Writer { connection, homes, swept, keeps_history } = self;
        let new_homes = {
            let transaction = connection.transaction()?;
            let new_homes = write_homes(&transaction, homes, &dirty.clicks)?;
            write_clicks(&transaction, &dirty.clicks, |home| homes.get(home).or_else(|| new_homes.get(home)).copied())?;
            write_names(&transaction, &dirty.names)?;
            write_labels(&transaction, &dirty.labels)?;
            for (id, run) in &dirty.runs {
                let data = run.as_ref().map(|run| postcard::to_stdvec(&**run)).transpose()?;
                put(&transaction, "runs (id, data)", &event_key(*id), data.as_deref(), None)?;
            }
            transaction
                .prepare_cached("INSERT OR REPLACE INTO meta (one, next, chain, data) VALUES (1, ?1, ?2, ?3)")?
                .execute(params![
                    dirty.position.next as i64,
                    dirty.position.chain.as_str(),
                    postcard::to_stdvec(&dirty.meta)?
                ])?;
            if let Some(Anchor { offset, position }) = dirty.anchor {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO anchor (one, at, next, chain) VALUES (1, ?1, ?2, ?3)")?
                    .execute(params![offset as i64, position.next as i64, position.chain.as_str()])?;
            }
            let next = sweep(&transaction, homes, *swept, dirty.meta.log_time)?;
            if *keeps_history {
                history::note(&transaction, clock::now())?;
            }
            transaction.commit()?;
            *swept = next;
            new_homes
        };
        homes.extend(new_homes);
        Ok(())
    }
}

/// Frees clicks that no hit can find any more, a bounded number at a time, round and round from the oldest on.
/// `decide` takes a click that is out of sight for absent, so it makes no difference when this happens.
fn sweep(
    transaction: &Transaction,
    homes: &HashMap<Arc<Home>, i64>,
    from: [u8; 15],
    log_time: Time,
) -> Result<[u8; 15]> {
    let homes: HashMap<i64, &Arc<Home>> = homes.iter().map(|(home, id)| (*id, home)).collect();
    let rows: Vec<(Vec<u8>, Vec<u8>)> = transaction
        .prepare_cached("SELECT id, data FROM clicks WHERE id > ?1 AND waiting IS NULL ORDER BY id LIMIT ?2")?
        .query_map(params![from, SWEPT_PER_SAVE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let complete = rows.len() < SWEPT_PER_SAVE;
    let mut swept = from;
    for (key, data) in rows {
        let id = click_id(&key)?;
        if id.time() >= log_time {
            return Ok([0; 15]);
        }
        swept = click_key(id);
        let stored: StoredClick = postcard::from_bytes(&data)?;
        let Some(home) = homes.get(&stored.home) else { continue };
        let click = stored.into_click(id, Arc::clone(home));
        if click.is_visible(log_time) {
            continue;
        }
        transaction.prepare_cached("DELETE FROM clicks WHERE id = ?1")?.execute([&key])?;
        if let Some(alias) = click.alias_key().map(|key| text_key(&key)) {
            free_name(transaction, &alias, id)?;
        }
    }
    Ok(if complete { [0; 15] } else { swept })
}

/// An alias goes with its only click. One of several clicks stays noted, and is passed over.
fn free_name(transaction: &Transaction, alias: &[u8], only: ClickId) -> Result<()> {
    let data: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT data FROM names WHERE key = ?1 AND waiting IS NULL")?
        .query_row([alias], |row| row.get(0))
        .optional()?;
    let Some(named) = data.map(|data| postcard::from_bytes::<StoredName>(&data)).transpose()? else { return Ok(()) };
    if named.into_named().clicks.iter().all(|click| click.id == only) {
        transaction.prepare_cached("DELETE FROM names WHERE key = ?1")?.execute([alias])?;
    }
    Ok(())
}

fn write_homes(
    transaction: &Transaction,
    known: &HashMap<Arc<Home>, i64>,
    clicks: &Changed<ClickId, Click>,
) -> Result<HashMap<Arc<Home>, i64>> {
    let mut new = HashMap::default();
    for click in clicks.values().flatten() {
        if !known.contains_key(&click.home) && !new.contains_key(&click.home) {
            let id = (known.len() + new.len()) as i64;
            transaction
                .prepare_cached("INSERT INTO homes (id, data) VALUES (?1, ?2)")?
                .execute(params![id, postcard::to_stdvec(&*click.home)?])?;
            new.insert(click.home.clone(), id);
        }
    }
    Ok(new)
}

fn write_clicks(
    transaction: &Transaction,
    clicks: &Changed<ClickId, Click>,
    home_of: impl Fn(&Arc<Home>) -> Option<i64>,
) -> Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT OR REPLACE INTO clicks (id, data, waiting) VALUES (?1, ?2, ?3)")?;
    let mut delete = transaction.prepare_cached("DELETE FROM clicks WHERE id = ?1")?;
    let mut sorted: Vec<_> = clicks.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| **id);
    for (id, click) in sorted {
        match click {
            Some(click) => {
                let home = home_of(&click.home).context("a click's settings were not stored")?;
                let data = postcard::to_stdvec(&StoredClick::of(*id, click, home))?;
                insert.execute(params![click_key(*id), data, (!click.waiting.is_empty()).then_some(1)])?;
            }
            None => {
                delete.execute([click_key(*id)])?;
            }
        }
    }
    Ok(())
}

fn write_names(transaction: &Transaction, names: &Changed<Key, Named>) -> Result<()> {
    let mut sorted: Vec<_> = names.iter().map(|(key, named)| (text_key(key), key, named)).collect();
    sorted.sort_unstable_by_key(|(hash, _, _)| *hash);
    for (hash, key, named) in sorted {
        let data = named.as_ref().map(|named| postcard::to_stdvec(&StoredName::of(named))).transpose()?;
        let waiting =
            named.as_ref().filter(|n| !n.waiting.is_empty()).map(|_| serde_json::to_string(key)).transpose()?;
        put(transaction, "names (key, data, waiting)", &hash, data.as_deref(), Some(waiting))?;
    }
    Ok(())
}

fn write_labels(transaction: &Transaction, labels: &Changed<Key, Label>) -> Result<()> {
    for (key, label) in labels {
        let data = label.as_ref().map(|label| postcard::to_stdvec(&**label)).transpose()?;
        let waiting =
            label.as_ref().filter(|l| !l.waiting.is_empty()).map(|_| serde_json::to_string(key)).transpose()?;
        put(transaction, "labels (key, data, waiting)", &text_key(key), data.as_deref(), Some(waiting))?;
    }
    Ok(())
}

/// Writes or deletes one row of `table (key, data[, waiting])`.
fn put(
    transaction: &Transaction,
    table: &str,
    key: &[u8],
    data: Option<&[u8]>,
    waiting: Option<Option<String>>,
) -> Result<()> {
    match (data, waiting) {
        (Some(data), Some(waiting)) => transaction
            .prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3)"))?
            .execute(params![key, data, waiting])?,
        (Some(data), None) => transaction
            .prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)"))?
            .execute(params![key, data])?,
        (None, _) => {
            let (name, column) = table.split_once(" (").unwrap_or((table, "key"));
            let column = column.split(',').next().unwrap_or("key");
            transaction.prepare_cached(&format!("DELETE FROM {name} WHERE {column} = ?1"))?.execute([key])?
        }
    };
    Ok(())
}
