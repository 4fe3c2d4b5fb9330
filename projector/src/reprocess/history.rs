//! The history of one name: every click, hit and correction that bears on it, in log order.
//!
//! Invariant: complete up to the snapshot's position, or an error; a history with a gap would withdraw what still
//! holds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use schemas::{
    ClickId, Event, EventBody, EventId, Reason, Time,
    bounds::ITEMS_PER_REPROCESS,
    event::{Hit, HitSettings, Item, ItemBody, Name, Reading},
    goal::Dedup,
    interpret,
    name::fold,
    settings::AccountSettings,
};

use super::past::{At, Past, PastClick, PastHit};

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

/// The name whose history decides about a hit of this name: a click that has an alias is found by that too.
pub fn home(past: &mut dyn Past, name: Name) -> Result<Option<Name>> {
    let Name::Click(id) = name else { return Ok(Some(name)) };
    let Some(click) = past.click(id)? else { return Ok(Some(name)) };
    if !click.is_ours {
        // A click of another account: with any settings the hit is refused as it was.
        return Ok(None);
    }
    match past.event(click.at)?.body {
        EventBody::Click(click) => Ok(Some(click.alias.map_or(name, Name::Alias))),
        _ => bail!("event {:?} is no click", click.at),
    }
}

pub struct History<'s> {
    pub past: &'s mut dyn Past,
    pub again: &'s Again<'s>,
}

/// More than one event may carry.
#[derive(Debug, thiserror::Error)]
#[error("it has over {ITEMS_PER_REPROCESS} clicks, hits and corrections, more than are read again at once")]
pub struct TooLong;

impl History<'_> {
    /// All items of a name in log order. `range` are the hits that are read again; others keep their reading. What came
    /// at `position` or later is left out.
    pub fn items(&mut self, name: &Name, range: &BTreeSet<PastHit>, position: u64) -> Result<Vec<Item>> {
        let clicks = self.clicks(name)?;
        let ids: Vec<ClickId> = clicks.iter().map(|(id, _)| *id).collect();
        let hits = self.hits(name, &ids, range)?;
        let adjusts = self.adjusts(name, &ids)?;
        if clicks.len() + hits.len() + adjusts.len() > ITEMS_PER_REPROCESS {
            return Err(TooLong.into());
        }
        let mut items = BTreeMap::new();
        for (id, click) in clicks {
            let event = self.past.event(click.at)?;
            let what = ItemBody::Click(id);
            items.insert(click.at, Item { id: event.id, time: event.time, log_time: click.log_time, what });
        }
        let in_range: BTreeSet<At> = range.iter().map(|hit| hit.at).collect();
        for hit in hits {
            if let Some(item) = self.hit(&hit, name, &ids, in_range.contains(&hit.at))? {
                items.insert(hit.at, item);
            }
        }
        for (at, log_time) in adjusts {
            let event = self.past.event(at)?;
            let EventBody::Adjust(adjust) = event.body else { bail!("event {at:?} is no correction") };
            items.insert(at, Item { id: event.id, time: event.time, log_time, what: ItemBody::Adjust(adjust) });
        }
        Ok(items.into_iter().filter(|((_, src), _)| *src < position).map(|(_, item)| item).collect())
    }

    /// The clicks that answer to the name.
    fn clicks(&mut self, name: &Name) -> Result<Vec<(ClickId, PastClick)>> {
        match name {
            Name::Click(id) => Ok(self.past.click(*id)?.map(|click| (*id, click)).into_iter().collect()),
            Name::Alias(alias) => {
                let mut clicks = Vec::new();
                for at in self.past.clicks_named(alias)? {
                    let EventBody::Click(click) = self.past.event(at)?.body else { continue };
                    if click.alias.as_ref() == Some(alias)
                        && click.account == self.again.account
                        && let Some(found) = self.past.click(click.id)?
                    {
                        clicks.push((click.id, found));
                    }
                }
                Ok(clicks)
            }
            Name::Label(_) => Ok(Vec::new()),
        }
    }

    /// Hits that may bear on the name.
    fn hits(&mut self, name: &Name, clicks: &[ClickId], range: &BTreeSet<PastHit>) -> Result<Vec<PastHit>> {
        let mut hits: BTreeMap<At, PastHit> = range.iter().map(|hit| (hit.at, *hit)).collect();
        let own = if let Name::Click(id) = name { Some(*id) } else { None };
        let ids: BTreeSet<ClickId> = clicks.iter().copied().chain(own).collect();
        for id in ids {
            hits.extend(self.past.hits_of_click(id)?.into_iter().map(|hit| (hit.at, hit)));
        }
        if let Name::Alias(text) | Name::Label(text) = name {
            hits.extend(self.past.hits_named(&fold(text))?.into_iter().map(|hit| (hit.at, hit)));
        }
        Ok(hits.into_values().collect())
    }

    /// The hit as an item, if it names what the history is of.
    fn hit(&mut self, past: &PastHit, name: &Name, clicks: &[ClickId], is_read_again: bool) -> Result<Option<Item>> {
        let event = self.past.event(past.at)?;
        let EventBody::Hit(hit) = &event.body else { return Ok(None) };
        if event.tenant != self.again.tenant || hit.account != self.again.account {
            return Ok(None);
        }
        let (reading, settings) =
            if is_read_again { self.again.read(&event, hit) } else { self.held(event.id, hit, past)? };
        let names_it = match &reading.name {
            Some(Name::Click(id)) => clicks.contains(id) || *name == Name::Click(*id),
            Some(other) => other == name,
            None => false,
        };
        let what = ItemBody::Hit { program: hit.program.clone(), reading, settings };
        Ok(names_it.then_some(Item { id: event.id, time: event.time, log_time: past.log_time, what }))
    }

    /// The reading that holds now: that of the event that last read it again, else its own.
    fn held(&mut self, id: EventId, hit: &Hit, past: &PastHit) -> Result<(Reading, HitSettings)> {
        let Some(src) = past.read_again else { return Ok((hit.reading.clone(), hit.settings.clone())) };
        let at = (past.at.0, src);
        let EventBody::Reprocess(event) = self.past.event(at)?.body else { bail!("event {at:?} read nothing again") };
        let item = event.items.into_iter().find(|item| item.id == id);
        match item.map(|item| item.what) {
            Some(ItemBody::Hit { reading, settings, .. }) => Ok((reading, settings)),
            _ => bail!("event {at:?} did not read hit {id} again"),
        }
    }

    /// Corrections by hand on the name's conversions.
    fn adjusts(&mut self, name: &Name, clicks: &[ClickId]) -> Result<BTreeMap<At, Time>> {
        let mut adjusts = BTreeMap::new();
        for id in clicks {
            adjusts.extend(self.past.adjusts_of_click(*id)?);
        }
        if let Name::Label(label) = name {
            adjusts.extend(self.past.adjusts_of_label(label)?);
        }
        Ok(adjusts)
    }
}
