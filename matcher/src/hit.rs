//! A hit on its way through a decision, and the record of what became of it.

use schemas::{
    Event, Reason, Time, event,
    outcome::{GoalOutcome, HitOutcome, HitRef, Status},
};

use crate::{ledger::HitFacts, state::Waiting};

/// A hit that is decided now: the event itself, one that waited, or one that is read again.
#[derive(Clone, Copy)]
pub struct Hit<'a> {
    pub facts: HitFacts<'a>,
    pub tenant: &'a str,
    pub account: &'a str,
    pub program: &'a str,
    /// Only where the event is the hit itself.
    pub raw: Option<&'a event::Raw>,
}

impl<'a> Hit<'a> {
    pub fn of_event(event: &'a Event, hit: &'a event::Hit) -> Self {
        Hit {
            facts: HitFacts { id: event.id, time: event.time, reading: &hit.reading, settings: &hit.settings },
            tenant: &event.tenant,
            account: &hit.account,
            program: &hit.program,
            raw: Some(&hit.raw),
        }
    }
    pub fn of_waiting(hit: &'a Waiting) -> Self {
        Hit {
            facts: HitFacts { id: hit.id, time: hit.time, reading: &hit.reading, settings: &hit.settings },
            tenant: &hit.tenant,
            account: &hit.account,
            program: &hit.program,
            raw: None,
        }
    }
    pub fn until(&self) -> Time {
        self.facts.time.plus_days(self.facts.settings.waiting_days)
    }
    pub fn blank_outcome(&self) -> HitOutcome {
        let raw = self.raw;
        let reading = self.facts.reading;
        HitOutcome {
            hit: HitRef {
                id: self.facts.id,
                time: self.facts.time,
                method: raw.map(|r| r.method.clone()),
                raw: raw.map(|r| r.query.clone()),
                body: raw.and_then(|r| r.body.clone()),
                remote: raw.and_then(|r| r.remote.clone()),
            },
            tenant: self.tenant.to_owned(),
            account: self.account.to_owned(),
            program: self.program.to_owned(),
            click: None,
            named: reading.click.clone().or_else(|| reading.dyn_.clone()),
            label: None,
            outcome: Status::Rejected,
            reason: None,
            hint: reading.hint.clone(),
            waiting_until: None,
            corrections: reading.corrections.clone(),
            goals: Vec::new(),
        }
    }
}

impl Waiting {
    pub fn of(hit: &Hit, until: Time, arrived: u64) -> Self {
        Waiting {
            id: hit.facts.id,
            time: hit.facts.time,
            until,
            arrived,
            tenant: hit.tenant.to_owned(),
            account: hit.account.to_owned(),
            program: hit.program.to_owned(),
            reading: hit.facts.reading.clone(),
            settings: hit.facts.settings.clone(),
        }
    }
}

/// The same outcome for the hit and all its goals.
pub fn refuse(entry: &mut HitOutcome, hit: &Hit, outcome: Status, reason: Reason) {
    entry.outcome = outcome;
    entry.reason = Some(reason);
    entry.goals = hit
        .facts
        .reading
        .goals
        .iter()
        .map(|g| GoalOutcome {
            goal: g.goal.clone(),
            count: g.count,
            outcome,
            reason: Some(reason),
            same_as: None,
            conversion: None,
        })
        .collect();
}

/// The hit's outcome is the best of its goals, with that goal's reason.
pub fn summarise(entry: &mut HitOutcome) {
    if let Some(best) = entry.goals.iter().min_by_key(|g| g.outcome) {
        entry.outcome = best.outcome;
        entry.reason = best.reason;
    }
}
