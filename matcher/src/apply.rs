//! `apply(state, cause, event, outcome)`: the one way in which the state changes, live and in recovery.
//!
//! Owns: what an outcome means for clicks, names, waiting hits and runs. Refuses to decide: what was decided stays
//! decided, so a recovering matcher follows the outcomes that are in the log.
//! Invariant: applying the same event and outcome to the same state gives the same state.

use std::sync::Arc;

use schemas::{
    Event, EventBody, Outcome,
    bounds::CLICKS_PER_ALIAS,
    event::{self, Name},
    outcome::{HitOutcome, Kind, Status},
};

use crate::{
    credit,
    decide::Cause,
    hit::Hit,
    ledger::{Ledger, Owner},
    replay,
    state::{Click, Key, Named, NamedClick, Place, State, Waiting},
};

pub fn apply(state: &mut State, cause: Cause, event: &Event, outcome: &Outcome) {
    if outcome.kind == Kind::Repeat {
        return;
    }
    state.see(event.from, event.n);
    match &event.body {
        EventBody::Tick => state.meta.log_time = outcome.log_time.unwrap_or(state.meta.log_time),
        EventBody::Rules(_) => state.meta.rules = outcome.rules.unwrap_or(state.meta.rules),
        EventBody::Click(click) if outcome.reason.is_none() => insert_click(state, cause, event, click),
        EventBody::Adjust(adjust) => apply_adjust(state, cause, event, adjust, outcome),
        EventBody::Reprocess(request) => {
            if outcome.reason.is_none() && !request.dry_run {
                replay::install(state, cause, event, request);
            }
            return;
        }
        EventBody::Click(_) | EventBody::Hit(_) => {}
    }
    for entry in &outcome.hits {
        match &event.body {
            EventBody::Hit(hit) if entry.hit.id == event.id => {
                apply_entry(state, cause, &Hit::of_event(event, hit), entry);
            }
            _ => {
                if let Some((_, waiting)) = state.remove_waiting(entry.hit.id) {
                    apply_entry(state, cause, &Hit::of_waiting(&waiting), entry);
                }
            }
        }
    }
}

fn insert_click(state: &mut State, cause: Cause, event: &Event, click: &event::Click) {
    let stored = Click::of_event(&event.tenant, click, cause.src);
    if let Some(key) = stored.alias_key() {
        state.edit_name(&key, |named| {
            named.touched = cause.src;
            named.clicks.push(NamedClick { id: click.id, time: click.time, converted: false });
            forget_surplus(named);
        });
    }
    state.clicks.set(click.id, Some(Arc::new(stored)));
}

/// An alias that is used like a label must not grow without bound: the oldest click that never converted goes.
fn forget_surplus(named: &mut Named) {
    if named.clicks.len() > CLICKS_PER_ALIAS {
        let oldest = (0..named.clicks.len()).min_by_key(|at| (named.clicks[*at].converted, named.clicks[*at].time));
        if let Some(at) = oldest {
            named.clicks.remove(at);
        }
    }
}

fn apply_entry(state: &mut State, cause: Cause, hit: &Hit, entry: &HitOutcome) {
    let on = match (&entry.click, &entry.label) {
        (Some(click), _) => Some(Key::Click(click.id)),
        (None, Some(label)) => Some(Key::of(hit.tenant, hit.account, &Name::Label(label.clone()))),
        (None, None) => None,
    };
    if entry.outcome == Status::Waiting {
        if let Some(until) = entry.waiting_until {
            wait(state, cause, hit, on, Waiting::of(hit, until, cause.src));
        }
        return;
    }
    match on {
        Some(Key::Click(id)) => {
            let name = id.to_string();
            let mut first_conversion_of = None;
            state.edit_click(id, |click| {
                click.touched = cause.src;
                let before = click.ledger.entries.is_empty();
                let mut ledger = std::mem::take(&mut click.ledger);
                take_goals(&mut ledger, click.owner(&name), hit, entry);
                click.ledger = ledger;
                if before && !click.ledger.entries.is_empty() {
                    first_conversion_of = click.alias_key();
                }
            });
            if let Some(key) = first_conversion_of {
                mark_converted(state, &key, id);
            }
        }
        Some(key) => {
            let name = key.text().to_owned();
            let owner = Owner { tenant: hit.tenant, account: hit.account, name: &name, clicked: None };
            state.edit_label(&key, |label| {
                label.touched = cause.src;
                take_goals(&mut label.ledger, owner, hit, entry);
            });
        }
        None => {}
    }
}

pub fn mark_converted(state: &mut State, alias: &Key, id: schemas::ClickId) {
    state.edit_name(alias, |named| {
        named.clicks.iter_mut().filter(|c| c.id == id).for_each(|c| c.converted = true);
    });
}

fn take_goals(ledger: &mut Ledger, owner: Owner, hit: &Hit, entry: &HitOutcome) {
    let read = &hit.facts.reading.goals;
    for (at, outcome) in entry.goals.iter().enumerate() {
        match read.get(at).filter(|g| g.goal == outcome.goal) {
            Some(goal) => ledger.take(owner, hit.facts, goal, outcome),
            None => ledger.take(owner, hit.facts, &credit::status_goal(hit.facts, &outcome.goal), outcome),
        }
    }
}

fn wait(state: &mut State, cause: Cause, hit: &Hit, on: Option<Key>, waiting: Waiting) {
    let place = match (on, &hit.facts.reading.name) {
        (Some(key), _) => Place::Ledger(key),
        (None, Some(name)) => Place::Name(Key::of(hit.tenant, hit.account, name)),
        (None, None) => return,
    };
    touch(state, cause, &place);
    state.add_waiting(place, Arc::new(waiting));
}

fn touch(state: &mut State, cause: Cause, place: &Place) {
    match place {
        Place::Name(key) => {
            // A name without clicks and waiting hits is not kept, so this is set together with the hit that waits.
            if state.names.get(key).is_some() {
                state.edit_name(key, |named| named.touched = cause.src);
            }
        }
        Place::Ledger(Key::Click(id)) => state.edit_click(*id, |click| click.touched = cause.src),
        Place::Ledger(key) => state.edit_label(key, |label| label.touched = cause.src),
    }
}

fn apply_adjust(state: &mut State, cause: Cause, event: &Event, adjust: &event::Adjust, outcome: &Outcome) {
    let Some(after) =
        outcome.adjust.as_ref().filter(|a| a.outcome == Status::Updated).and_then(|a| a.conversion.as_ref())
    else {
        return;
    };
    match Key::of(&event.tenant, &adjust.account, &adjust.on) {
        Key::Click(id) => state.edit_click(id, |click| {
            click.touched = cause.src;
            click.ledger.adjust(after);
        }),
        key => state.edit_label(&key, |label| {
            label.touched = cause.src;
            label.ledger.adjust(after);
        }),
    }
}
