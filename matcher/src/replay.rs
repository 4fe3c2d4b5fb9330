//! Reading again: all events of one name are replayed on an empty state with other readings, and the result
//! replaces what is there.
//!
//! Owns: how an old and a new ledger become one (versions go on, what no longer holds is withdrawn).
//! Invariant: the result is what the new readings would have given from the start; ids and versions stay.

use std::{collections::BTreeMap, sync::Arc};

use schemas::{
    ClickId, Event, EventBody, EventId, Outcome, Reason, Time,
    event::{self, Item, ItemBody, Name, Reprocess},
    outcome::{Change, Conversion, GoalOutcome, HitOutcome, ReprocessOutcome, Status},
};

use crate::{
    apply::{apply, mark_converted},
    changes::push_changes,
    decide::{Cause, decide as decide_event},
    ledger::Ledger,
    state::{Click, Key, State, Waiting},
};

/// One click or label before and after.
struct Merged {
    key: Key,
    clicked: Option<Time>,
    ledger: Ledger,
    /// Conversions that change: as they were, as they are.
    changed: Vec<(Option<Conversion>, Conversion)>,
}

pub fn decide(state: &State, request: &Reprocess, outcome: &mut Outcome) {
    let tenant = outcome.tenant.clone();
    let mut result = ReprocessOutcome {
        account: request.account.clone(),
        request: request.request.clone(),
        dry_run: request.dry_run,
        changed: 0,
        clicks: Vec::new(),
        label: if let Name::Label(label) = &request.name { Some(label.clone()) } else { None },
    };
    match replay(state, &tenant, request) {
        Err(reason) => outcome.reason = Some(reason),
        Ok((scratch, mut entries)) => {
            let merged = merge(state, &scratch, &tenant, request);
            result.changed = merged.iter().map(|m| m.changed.len() as u32).sum();
            result.clicks = clicks_of(request)
                .filter_map(|id| state.clicks.get(&id).map(|c| c.reference(&Key::Click(id))))
                .collect();
            if !request.dry_run {
                outcome.changes = changes(&merged, &request.account);
                show_final_conversions(&mut entries, &merged);
                outcome.hits = entries;
            }
        }
    }
    outcome.reprocess = Some(result);
}

/// Puts the replayed clicks, labels and waiting hits in the place of the old ones.
pub fn install(state: &mut State, cause: Cause, event: &Event, request: &Reprocess) {
    let Ok((scratch, _)) = replay(state, &event.tenant, request) else { return };
    let merged = merge(state, &scratch, &event.tenant, request);
    let arrived: BTreeMap<EventId, u64> = request
        .items
        .iter()
        .filter_map(|item| state.remove_waiting(item.id).map(|(_, waiting)| (item.id, waiting.arrived)))
        .collect();
    for Merged { key, ledger, .. } in merged {
        match key {
            Key::Click(id) => {
                let converted = !ledger.entries.is_empty();
                state.edit_click(id, |click| {
                    click.touched = cause.src;
                    click.ledger = ledger;
                });
                let alias = state.clicks.get(&id).and_then(|c| c.alias_key());
                if let (true, Some(alias)) = (converted, alias) {
                    mark_converted(state, &alias, id);
                }
            }
            key => state.edit_label(&key, |label| {
                label.touched = cause.src;
                label.ledger = ledger;
            }),
        }
    }
    let waiting: Vec<_> = scratch.due(Time::from_ms(i64::MAX)).map(|(id, _)| id).collect();
    for id in waiting {
        if let Some((place, hit)) = scratch.waiting(id) {
            let arrived = arrived.get(&id).copied().unwrap_or(cause.src);
            state.add_waiting(place, Arc::new(Waiting { arrived, ..Waiting::clone(&hit) }));
        }
    }
    let name = Key::of(&event.tenant, &request.account, &request.name);
    if state.names.get(&name).is_some() {
        state.edit_name(&name, |named| named.touched = cause.src);
    }
}

fn clicks_of(request: &Reprocess) -> impl Iterator<Item = ClickId> + '_ {
    request.items.iter().filter_map(|item| match item.what {
        ItemBody::Click(id) => Some(id),
        _ => None,
    })
}

/// Everything that the items concern must be there, and untouched since they were read.
fn check(state: &State, tenant: &str, request: &Reprocess) -> Result<(), Reason> {
    let fresh = |touched: u64| if touched < request.position { Ok(()) } else { Err(Reason::Stale) };
    for id in clicks_of(request) {
        let known = state.clicks.get(&id).filter(|c| c.is_visible(state.meta.log_time));
        let click = known.filter(|c| c.home.tenant == tenant && c.home.account == request.account);
        fresh(click.ok_or(Reason::ExpiredClick)?.touched)?;
    }
    let key = Key::of(tenant, &request.account, &request.name);
    if let Some(named) = state.names.get(&key) {
        fresh(named.touched)?;
        let complete = named.clicks.iter().all(|c| clicks_of(request).any(|id| id == c.id));
        return if complete { Ok(()) } else { Err(Reason::Stale) };
    }
    state.labels.get(&key).map_or(Ok(()), |label| fresh(label.touched))
}

/// Runs the items through the ordinary rules on an empty state; gives that state and the last entry of each hit.
fn replay(state: &State, tenant: &str, request: &Reprocess) -> Result<(State, Vec<HitOutcome>), Reason> {
    check(state, tenant, request)?;
    let mut replay = Replay { scratch: State::default(), entries: BTreeMap::new(), steps: 0 };
    replay.scratch.meta.rules = state.meta.rules;
    if let Name::Click(id) = request.name
        && !clicks_of(request).any(|own| own == id)
        && let Some(click) = state.clicks.get(&id).filter(|c| c.is_visible(state.meta.log_time))
    {
        // A click of another account: it is no part of this history, but its hits must meet it (`wrong_account`).
        replay
            .scratch
            .clicks
            .load(id, Some(Click { ledger: Ledger::default(), waiting: Vec::new(), ..Click::clone(click) }));
    }
    for item in &request.items {
        replay.pass_time(item.log_time);
        let body = body_of(state, request, item).ok_or(Reason::ExpiredClick)?;
        replay.step(tenant, item.id, item.time, body);
    }
    replay.pass_time(state.meta.log_time);
    let hits = request.items.iter().filter(|i| matches!(i.what, ItemBody::Hit { .. }));
    let entries = hits.filter_map(|item| replay.entries.remove(&item.id)).collect();
    Ok((replay.scratch, entries))
}

struct Replay {
    scratch: State,
    entries: BTreeMap<EventId, HitOutcome>,
    steps: u64,
}

impl Replay {
    fn step(&mut self, tenant: &str, id: EventId, time: Time, body: EventBody) {
        let log_time = self.scratch.meta.log_time;
        // Every step is a run of its own, so none is taken for a repeat.
        let from = EventId::new(log_time, 0, self.steps);
        let event = Event { v: event::VERSION, id, tenant: tenant.to_owned(), time, from, n: self.steps, body };
        let cause = Cause { src: self.steps, appended: log_time };
        self.steps += 1;
        // Clicks, hits, adjustments and ticks only: no rules event, so no unknown version.
        let Ok(outcome) = decide_event(&self.scratch, cause, &event) else { return };
        apply(&mut self.scratch, cause, &event, &outcome);
        for mut entry in outcome.hits {
            (entry.hit.method, entry.hit.raw, entry.hit.body, entry.hit.remote) = (None, None, None, None);
            self.entries.insert(entry.hit.id, entry);
        }
    }

    /// Lets log time go on, with everything that expires on the way.
    fn pass_time(&mut self, log_time: Time) {
        let now = self.scratch.meta.log_time.max(log_time);
        self.scratch.meta.log_time = now;
        while self.scratch.due(now).next().is_some() {
            self.step("", EventId::new(now, 0, self.steps), now, EventBody::Tick);
        }
    }
}

fn body_of(state: &State, request: &Reprocess, item: &Item) -> Option<EventBody> {
    Some(match &item.what {
        ItemBody::Click(id) => EventBody::Click(state.clicks.get(id)?.as_event(*id)),
        ItemBody::Hit { program, reading, settings } => EventBody::Hit(event::Hit {
            account: request.account.clone(),
            program: program.clone(),
            raw: event::Raw::default(),
            reading: reading.clone(),
            settings: settings.clone(),
        }),
        ItemBody::Adjust(adjust) => EventBody::Adjust(adjust.clone()),
    })
}

fn merge(state: &State, scratch: &State, tenant: &str, request: &Reprocess) -> Vec<Merged> {
    let mut keys: Vec<Key> = clicks_of(request).map(Key::Click).collect();
    if let Name::Label(_) = request.name {
        keys.push(Key::of(tenant, &request.account, &request.name));
    }
    let ledger_of = |state: &State, key: &Key| match key {
        Key::Click(id) => state.clicks.get(id).map(|c| c.ledger.clone()).unwrap_or_default(),
        key => state.labels.get(key).map(|l| l.ledger.clone()).unwrap_or_default(),
    };
    keys.into_iter()
        .map(|key| {
            let clicked = match &key {
                Key::Click(id) => state.clicks.get(id).map(|c| c.time),
                _ => None,
            };
            let (ledger, changed) = merge_ledgers(ledger_of(state, &key), ledger_of(scratch, &key));
            Merged { key, clicked, ledger, changed }
        })
        .collect()
}

/// The new ledger with the versions of the old one going on, and the conversions that differ.
fn merge_ledgers(old: Ledger, mut new: Ledger) -> (Ledger, Vec<(Option<Conversion>, Conversion)>) {
    let mut changed = Vec::new();
    for entry in new.entries.iter_mut().map(Arc::make_mut) {
        let known = old.entries.iter().find(|o| o.id == entry.id);
        entry.version = known.map_or(entry.version, |o| o.version);
        let before = known.map(|o| o.public());
        if before.as_ref() != Some(&entry.public()) {
            entry.version = known.map_or(1, |o| o.version + 1);
            changed.push((before, entry.public()));
        }
    }
    for mut shared in old.entries {
        let entry = Arc::make_mut(&mut shared);
        if new.entries.iter().any(|n| n.id == entry.id) {
            continue;
        }
        if !entry.withdrawn {
            let before = entry.public();
            entry.withdrawn = true;
            entry.version += 1;
            changed.push((Some(before), entry.public()));
        }
        new.entries.push(shared);
    }
    (new, changed)
}

fn changes(merged: &[Merged], account: &str) -> Vec<Change> {
    let mut all = Vec::new();
    for part in merged {
        for (before, after) in &part.changed {
            push_changes(&mut all, before.as_ref(), after, account, &part.key, part.clicked);
        }
    }
    all
}

/// Entries show conversions as they stand in the end; what was withdrawn is shown on the hit that had made it.
fn show_final_conversions(entries: &mut [HitOutcome], merged: &[Merged]) {
    for part in merged {
        for entry in &part.ledger.entries {
            let now = entry.public();
            let goals = entries.iter_mut().flat_map(|e| e.goals.iter_mut());
            for shown in goals.filter_map(|g| g.conversion.as_mut()).filter(|c| c.id == now.id) {
                shown.clone_from(&now);
            }
            if !entry.withdrawn {
                continue;
            }
            if let Some(made_by) = entries.iter_mut().find(|e| e.hit.id == entry.hit) {
                made_by.goals.push(GoalOutcome {
                    goal: entry.goal.clone(),
                    count: entry.count,
                    outcome: Status::Withdrawn,
                    reason: made_by.reason,
                    same_as: None,
                    conversion: Some(now),
                });
                if made_by.outcome == Status::Rejected {
                    made_by.outcome = Status::Withdrawn;
                }
            }
        }
    }
}
