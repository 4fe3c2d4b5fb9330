//! The history of one name: every click, hit and correction that bears on it, in log order.
//!
//! Invariant: complete up to the snapshot's position, or an error; a history with a gap would withdraw what still
//! holds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use pipeline::log::{Block, LogReader};
use rusqlite::OptionalExtension;
use schemas::{
    ClickId, Event, EventBody, EventId, Reason, Time,
    bounds::ITEMS_PER_REPROCESS,
    event::{Hit, HitSettings, Item, ItemBody, Name, Reading},
    goal::Dedup,
    interpret,
    name::fold,
    settings::AccountSettings,
};

use crate::{
    report::Snapshot,
    tables::{HitRow, Kind, StoredClick, decode, term},
};

/// Blocks of the log that are kept while histories are put together.
const BLOCKS: usize = 64;

/// Reads events, several of which often lie in one block.
pub struct Events {
    log: LogReader,
    blocks: BTreeMap<u64, Block>,
}

impl Events {
    pub fn new(log: LogReader) -> Self {
        Self { log, blocks: BTreeMap::new() }
    }

    pub fn get(&mut self, src: u64) -> Result<Event> {
        let known =
            self.blocks.range(..=src).next_back().filter(|(_, block)| src < block.end()).map(|(first, _)| *first);
        let first = match known {
            Some(first) => first,
            None => {
                let block = self.log.block_with(src)?.with_context(|| format!("event {src} is not in the log"))?;
                if self.blocks.len() >= BLOCKS {
                    self.blocks.pop_first();
                }
                let first = block.first;
                self.blocks.insert(first, block);
                first
            }
        };
        let block = self.blocks.get(&first).context("a block went away")?;
        block.event(src)
    }
}

/// What is read again, and with which settings.
pub struct Again<'a> {
    pub tenant: &'a str,
    pub account: &'a str,
    pub settings: &'a AccountSettings,
}

impl Again<'_> {
    /// The stored hit with today's settings. Goals, policies, status words, default goal and currency are today's;
    /// what was refused for a pause, its address or its signature stays refused, and how long it may wait stays what it was.
    pub fn read(&self, event: &Event, hit: &Hit) -> (Reading, HitSettings) {
        // Of a paused account neither address nor signature was checked, so such a hit must not count later.
        let refused = matches!(
            hit.reading.reject,
            Some(Reason::AccountPaused | Reason::AddressNotAllowed | Reason::BadSignature)
        );
        if refused {
            return (hit.reading.clone(), hit.settings.clone());
        }
        let settings = AccountSettings { paused: false, ..self.settings.clone() };
        let readings = interpret::interpret(&interpret::stored(&hit.raw), &settings, event.time);
        let reading = readings.into_iter().next().unwrap_or_else(|| hit.reading.clone());
        let default_goal = settings.goal(&settings.default_goal);
        let again = HitSettings {
            default_goal: settings.default_goal.clone(),
            default_dedup: default_goal.map_or(Dedup::PerTransaction, |goal| goal.dedup),
            default_repeat_window_s: default_goal
                .map_or(schemas::bounds::DEFAULT_REPEAT_WINDOW_S, |goal| goal.repeat_window_s),
            ..hit.settings.clone()
        };
        (reading, again)
    }
}

/// A stored hit in the range.
pub struct Touched {
    pub src: u64,
    /// The name under which its history is found; `None`: it has none, so nothing can come of it.
    pub name: Option<Name>,
}

/// The name whose history decides about a hit of this name: a click that has an alias is found by that too.
pub fn home(snapshot: &Snapshot<'_>, events: &mut Events, again: &Again<'_>, name: Name) -> Result<Option<Name>> {
    let Name::Click(id) = name else { return Ok(Some(name)) };
    let Some((src, account, _)) = click_row(snapshot, id)? else { return Ok(Some(name)) };
    if !is_of(snapshot, again, account) {
        // A click of another account: with any settings the hit is refused as it was.
        return Ok(None);
    }
    match events.get(src)?.body {
        EventBody::Click(click) => Ok(Some(click.alias.map_or(name, Name::Alias))),
        _ => bail!("event {src} is no click"),
    }
}

fn is_of(snapshot: &Snapshot<'_>, again: &Again<'_>, account: u32) -> bool {
    let names = snapshot.names();
    names.tenant(again.tenant).and_then(|tenant| names.account(tenant, again.account)) == Some(account)
}

/// `src`, account and log time of a click.
fn click_row(snapshot: &Snapshot<'_>, id: ClickId) -> Result<Option<(u64, u32, Time)>> {
    let wanted = term(Kind::ClickId, 0, &id.bits().to_be_bytes());
    for row in snapshot.segments().rows(snapshot.conn(), wanted, 0, i64::MAX, usize::MAX)? {
        let data: Option<Vec<u8>> = snapshot
            .conn()
            .prepare_cached("SELECT data FROM clicks WHERE src = ?")?
            .query_row([row], |row| row.get(0))
            .optional()?;
        let Some(data) = data else { continue };
        let click: StoredClick<'_> = decode(&data)?;
        if click.id == id {
            return Ok(Some((row as u64, click.account, click.log_time)));
        }
    }
    Ok(None)
}

pub struct History<'s, 'r> {
    pub snapshot: &'s Snapshot<'r>,
    pub events: &'s mut Events,
    pub again: &'s Again<'s>,
}

/// More than one event may carry.
#[derive(Debug, thiserror::Error)]
#[error("it has over {ITEMS_PER_REPROCESS} clicks, hits and corrections, more than are read again at once")]
pub struct TooLong;

impl History<'_, '_> {
    /// All items of a name in log order. `range` are the hits that are read again; others keep their reading.
    pub fn items(&mut self, name: &Name, range: &BTreeSet<u64>) -> Result<Vec<Item>> {
        let clicks = self.clicks(name)?;
        let ids: Vec<ClickId> = clicks.iter().map(|(_, id, _)| *id).collect();
        let mut items = BTreeMap::new();
        for (src, id, log_time) in clicks {
            let event = self.events.get(src)?;
            items.insert(src, Item { id: event.id, time: event.time, log_time, what: ItemBody::Click(id) });
        }
        let hits = self.hits(name, &ids, range)?;
        let adjusts = self.adjusts(name, &ids)?;
        if items.len() + hits.len() + adjusts.len() > ITEMS_PER_REPROCESS {
            return Err(TooLong.into());
        }
        for src in hits {
            if let Some(item) = self.hit(src, name, &ids, range)? {
                items.insert(src, item);
            }
        }
        for src in adjusts {
            let event = self.events.get(src)?;
            let log_time: i64 = self
                .snapshot
                .conn()
                .prepare_cached("SELECT log_time FROM adjusts WHERE src = ?")?
                .query_row([src as i64], |row| row.get(0))?;
            let EventBody::Adjust(adjust) = event.body else { bail!("event {src} is no correction") };
            let what = ItemBody::Adjust(adjust);
            items.insert(src, Item { id: event.id, time: event.time, log_time: Time::from_ms(log_time), what });
        }
        Ok(items.into_values().collect())
    }

    fn rows(&self, kind: Kind, scope: u32, value: &[u8]) -> Result<Vec<u64>> {
        let limit = ITEMS_PER_REPROCESS * 4;
        let rows = self.snapshot.segments().rows(self.snapshot.conn(), term(kind, scope, value), 0, i64::MAX, limit)?;
        if rows.len() == limit {
            return Err(TooLong.into());
        }
        Ok(rows.into_iter().map(|row| row as u64).collect())
    }

    fn scope(&self) -> Result<(u32, u32)> {
        let names = self.snapshot.names();
        let tenant = names.tenant(self.again.tenant).context("the tenant has no rows")?;
        Ok((tenant, names.account(tenant, self.again.account).context("the account has no rows")?))
    }

    /// `src`, id and log time of the clicks that answer to the name.
    fn clicks(&mut self, name: &Name) -> Result<Vec<(u64, ClickId, Time)>> {
        let mut clicks = Vec::new();
        match name {
            Name::Click(id) => {
                if let Some((src, _, log_time)) = click_row(self.snapshot, *id)? {
                    clicks.push((src, *id, log_time));
                }
            }
            Name::Alias(alias) => {
                let (_, account) = self.scope()?;
                for src in self.rows(Kind::ClickName, account, alias.as_bytes())? {
                    let EventBody::Click(click) = self.events.get(src)?.body else { continue };
                    if click.alias.as_ref() == Some(alias)
                        && click.account == self.again.account
                        && let Some((src, _, log_time)) = click_row(self.snapshot, click.id)?
                    {
                        clicks.push((src, click.id, log_time));
                    }
                }
            }
            Name::Label(_) => {}
        }
        Ok(clicks)
    }

    /// Hits that may bear on the name.
    fn hits(&self, name: &Name, clicks: &[ClickId], range: &BTreeSet<u64>) -> Result<BTreeSet<u64>> {
        let (tenant, _) = self.scope()?;
        let mut hits = range.clone();
        let own = if let Name::Click(id) = name { Some(*id) } else { None };
        let ids: BTreeSet<ClickId> = clicks.iter().copied().chain(own).collect();
        for id in ids {
            hits.extend(self.rows(Kind::HitClick, 0, &id.bits().to_be_bytes())?);
        }
        if let Name::Alias(text) | Name::Label(text) = name {
            hits.extend(self.rows(Kind::HitName, tenant, fold(text).as_bytes())?);
        }
        Ok(hits)
    }

    /// The hit as an item, if it names what the history is of.
    fn hit(&mut self, src: u64, name: &Name, clicks: &[ClickId], range: &BTreeSet<u64>) -> Result<Option<Item>> {
        let event = self.events.get(src)?;
        let EventBody::Hit(hit) = &event.body else { return Ok(None) };
        if event.tenant != self.again.tenant || hit.account != self.again.account {
            return Ok(None);
        }
        let (log_time, read_again) = self.row(src)?;
        let (reading, settings) =
            if range.contains(&src) { self.again.read(&event, hit) } else { self.held(event.id, hit, read_again)? };
        let names_it = match &reading.name {
            Some(Name::Click(id)) => clicks.contains(id) || *name == Name::Click(*id),
            Some(other) => other == name,
            None => false,
        };
        let what = ItemBody::Hit { program: hit.program.clone(), reading, settings };
        Ok(names_it.then_some(Item { id: event.id, time: event.time, log_time, what }))
    }

    fn row(&self, src: u64) -> Result<(Time, Option<u64>)> {
        let mut read = self.snapshot.conn().prepare_cached("SELECT data FROM hits WHERE src = ?")?;
        let mut rows = read.query([src as i64])?;
        let row = rows.next()?.with_context(|| format!("hit {src} has no row"))?;
        let row: HitRow<'_> = decode(row.get_ref(0)?.as_blob()?)?;
        Ok((row.log_time, row.read_again))
    }

    /// The reading that holds now: that of the event that last read it again, else its own.
    fn held(&mut self, id: EventId, hit: &Hit, read_again: Option<u64>) -> Result<(Reading, HitSettings)> {
        let Some(src) = read_again else { return Ok((hit.reading.clone(), hit.settings.clone())) };
        let EventBody::Reprocess(event) = self.events.get(src)?.body else { bail!("event {src} read nothing again") };
        let item = event.items.into_iter().find(|item| item.id == id);
        match item.map(|item| item.what) {
            Some(ItemBody::Hit { reading, settings, .. }) => Ok((reading, settings)),
            _ => bail!("event {src} did not read hit {id} again"),
        }
    }

    /// Corrections by hand on the name's conversions.
    fn adjusts(&self, name: &Name, clicks: &[ClickId]) -> Result<BTreeSet<u64>> {
        let (_, account) = self.scope()?;
        let mut adjusts = BTreeSet::new();
        for id in clicks {
            adjusts.extend(self.rows(Kind::AdjustClick, 0, &id.bits().to_be_bytes())?);
        }
        if let Name::Label(label) = name {
            adjusts.extend(self.rows(Kind::AdjustLabel, account, fold(label).as_bytes())?);
        }
        Ok(adjusts)
    }
}
