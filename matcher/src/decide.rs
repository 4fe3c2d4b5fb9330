//! `decide(state, cause, event) → outcome`: what one event causes. Pure: it reads the state and changes nothing.
//!
//! Owns: which click a hit belongs to, waiting, expiry, adjustments, log time. The rules within one click are in
//! `ledger`, reading again in `replay`. Refuses: clocks, randomness, I/O; the only time is the record's.
//! Invariant: one outcome per event, and the same state and event give the same bytes.

use std::{collections::HashSet, sync::Arc};

use schemas::{
    ClickId, ConversionId, Event, EventBody, EventId, Outcome, Reason, Time,
    bounds::{
        CLICK_AHEAD_MS, EXPIRIES_PER_EVENT, EXPIRIES_PER_TICK, RUN_MEMORY_MS, TICK_BEHIND_MS, TICK_LEAP_MS,
        TICK_STEP_MS, WAITING_PER_ACCOUNT, WAITING_PER_NAME,
    },
    event::{self, Correction, Name},
    goal::Dedup,
    outcome::{AdjustOutcome, Change, Conversion, GoalOutcome, HitOutcome, Kind, Status},
    status::State as ConversionState,
    time::DAY_MS,
};

use crate::{
    changes::push_changes,
    click::click_data,
    credit::{self, Meant},
    hit::{Hit, refuse, summarise},
    ledger::{self, Ledger, Owner},
    replay,
    state::{Click, Key, Named, Place, State, Waiting},
};

/// The rule versions that this build knows. The rehearsal of a switch has one more, with the rules of the one before.
pub const RULES: std::ops::RangeInclusive<u32> = 1..=if cfg!(feature = "next-rules") { 2 } else { 1 };

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the log switches to rule version {0}, which this build does not know (it knows up to {known}): start a newer build",
    known = RULES.end()
)]
pub struct UnknownRules(pub u32);

/// Where the event stands in the log.
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    pub src: u64,
    /// The log's own time stamp; only ticks read it.
    pub appended: Time,
}

pub fn decide(state: &State, cause: Cause, event: &Event) -> Result<Outcome, UnknownRules> {
    if let EventBody::Rules(version) = event.body
        && !RULES.contains(&version)
    {
        return Err(UnknownRules(version));
    }
    let mut draft = Draft::new(state, event);
    if let Some(too_late) = repeat(state, event) {
        draft.outcome.kind = Kind::Repeat;
        draft.outcome.reason = too_late;
        return Ok(draft.outcome);
    }
    let mut log_time = state.meta.log_time;
    let mut expiries = EXPIRIES_PER_EVENT;
    match &event.body {
        EventBody::Click(click) => draft.click(click, cause.src),
        EventBody::Hit(hit) => draft.hit(&Hit::of_event(event, hit)),
        EventBody::Tick => {
            log_time = next_log_time(log_time, cause.appended);
            expiries = EXPIRIES_PER_TICK;
            draft.outcome.time = cause.appended;
            draft.outcome.log_time = Some(log_time);
        }
        EventBody::Adjust(adjust) => draft.adjust(adjust),
        EventBody::Reprocess(request) => replay::decide(state, request, &mut draft.outcome),
        // Never back: who switches on what is on already, or was, changes nothing.
        EventBody::Rules(version) => draft.outcome.rules = Some(state.meta.rules.max(*version)),
    }
    if !matches!(event.body, EventBody::Reprocess(_)) {
        draft.expire(log_time, expiries);
    }
    Ok(draft.outcome)
}

/// `Some(reason)` if this event is in the log already, or may be.
fn repeat(state: &State, event: &Event) -> Option<Option<Reason>> {
    match state.run(event.from) {
        Some(run) => run.contains(event.n).then_some(None),
        None => (state.meta.log_time.since(event.from.time()) > RUN_MEMORY_MS).then_some(Some(Reason::TooLate)),
    }
}

/// Log time follows the append time of ticks, in bounded steps and never back: one wrong clock cannot expire much.
pub fn next_log_time(now: Time, stamp: Time) -> Time {
    if now.ms() == 0 {
        return stamp;
    }
    let behind = stamp.since(now);
    let step = if behind > TICK_BEHIND_MS { TICK_LEAP_MS } else { TICK_STEP_MS };
    now.plus_ms(behind.clamp(0, step))
}

/// Which click or label a hit belongs to.
enum Resolved {
    On(Key),
    Wait(Key),
    Rejected(Reason),
}

/// A ledger as this event leaves it, so that several hits of one event see each other.
struct Subject {
    key: Key,
    click: Option<Arc<Click>>,
    ledger: Ledger,
}

pub struct Draft<'a> {
    state: &'a State,
    pub outcome: Outcome,
    /// The click that this event brings; it is not in the state yet.
    new_click: Option<(ClickId, Arc<Click>)>,
    subjects: Vec<Subject>,
    /// Waiting hits that were decided by this event.
    woken: HashSet<EventId>,
    /// Rejections that this event moved from a name to a click: they wait for a conversion from here on.
    moved: Vec<(Key, Arc<Waiting>)>,
}

impl<'a> Draft<'a> {
    pub fn new(state: &'a State, event: &Event) -> Self {
        let kind = match event.body {
            EventBody::Click(_) => Kind::Click,
            EventBody::Hit(_) => Kind::Hit,
            EventBody::Tick => Kind::Tick,
            EventBody::Adjust(_) => Kind::Adjust,
            EventBody::Reprocess(_) => Kind::Reprocess,
            EventBody::Rules(_) => Kind::Rules,
        };
        let outcome = Outcome::blank(event.id, &event.tenant, event.time, kind);
        Self { state, outcome, new_click: None, subjects: Vec::new(), woken: HashSet::new(), moved: Vec::new() }
    }

    fn find_click(&self, id: ClickId) -> Option<&Arc<Click>> {
        match &self.new_click {
            Some((new, click)) if *new == id => Some(click),
            _ => self.state.clicks.get(&id),
        }
    }

    fn visible_click(&self, id: ClickId, log_time: Time) -> Option<&Arc<Click>> {
        self.find_click(id).filter(|c| c.is_visible(log_time))
    }

    fn click(&mut self, click: &event::Click, src: u64) {
        let tenant = self.outcome.tenant.clone();
        let alias = click.alias.as_ref().map(|a| Key::alias(&tenant, &click.account, a));
        let log_time = self.state.meta.log_time;
        let known_alias = click.foreign.is_some()
            && alias.as_ref().is_some_and(|key| self.visible_clicks(key, log_time).next().is_some());
        if known_alias || self.visible_click(click.id, log_time).is_some() {
            self.outcome.reason = Some(Reason::Duplicate);
            return;
        }
        self.outcome.click = Some(click_data(click));
        self.new_click = Some((click.id, Arc::new(Click::of_event(&tenant, click, src))));
        let mut woken: Vec<_> =
            self.waiting_for(&Key::Click(click.id), log_time).filter(|w| w.tenant == tenant).collect();
        if let Some(key) = &alias {
            woken.extend(self.waiting_for(key, log_time).filter(|w| click.time <= w.time.plus_ms(CLICK_AHEAD_MS)));
        }
        woken.sort_by_key(|w| w.arrived);
        for waiting in woken {
            self.woken.insert(waiting.id);
            self.hit(&Hit::of_waiting(&waiting));
        }
    }

    /// Hits under a name that still wait at this log time.
    fn waiting_for(&self, key: &Key, log_time: Time) -> impl Iterator<Item = Arc<Waiting>> + use<> {
        let all = self.state.waiting_at(&Place::Name(key.clone())).to_vec();
        all.into_iter().filter(move |w| w.until > log_time)
    }

    pub fn hit(&mut self, hit: &Hit) {
        let mut entry = hit.blank_outcome();
        let reading = hit.facts.reading;
        let mut woken = Vec::new();
        if let Some(reason) = reading.reject {
            refuse(&mut entry, hit, Status::Rejected, reason);
        } else if reading.test {
            entry.outcome = Status::Test;
        } else {
            match self.resolve(hit) {
                Resolved::Rejected(reason) => refuse(&mut entry, hit, Status::Rejected, reason),
                Resolved::Wait(key) => self.wait(&mut entry, hit, Place::Name(key), Reason::UnknownClick),
                Resolved::On(key) => woken = self.on(key, hit, &mut entry),
            }
        }
        self.outcome.hits.push(entry);
        self.outcome.hits.append(&mut woken);
    }

    fn resolve(&self, hit: &Hit) -> Resolved {
        let log_time = self.state.meta.log_time;
        match &hit.facts.reading.name {
            // `interpret` refuses a hit without a name; a record that lacks it all the same is refused here.
            None => Resolved::Rejected(Reason::MissingClick),
            // A click that is no longer visible may be freed at any time, so it must count as absent.
            Some(Name::Click(id)) => match self.visible_click(*id, log_time).filter(|c| c.home.tenant == hit.tenant) {
                Some(click) if click.home.account != hit.account => Resolved::Rejected(Reason::WrongAccount),
                Some(_) => Resolved::On(Key::Click(*id)),
                None if is_too_old(*id, hit) => Resolved::Rejected(Reason::ExpiredClick),
                None => Resolved::Wait(Key::Click(*id)),
            },
            Some(name @ Name::Label(_)) => Resolved::On(Key::of(hit.tenant, hit.account, name)),
            Some(name @ Name::Alias(_)) => {
                let key = Key::of(hit.tenant, hit.account, name);
                match self.choose(&key, hit, log_time) {
                    Some(id) => Resolved::On(Key::Click(id)),
                    None => Resolved::Wait(key),
                }
            }
        }
    }

    fn visible_clicks<'b>(&'b self, key: &'b Key, log_time: Time) -> impl Iterator<Item = ClickId> + 'b {
        let named: &[_] = self.state.names.get(key).map_or(&[], |n: &Arc<Named>| &n.clicks);
        let new = self.new_click.iter().filter(|(_, c)| c.alias_key().as_ref() == Some(key)).map(|(id, _)| *id);
        let known = named.iter().map(|c| c.id);
        known.chain(new).filter(move |id| self.visible_click(*id, log_time).is_some())
    }

    /// The click of an alias that already has a conversion of the hit's goal, else the newest one that is not
    /// later than the hit. So a re-click never doubles a conversion.
    fn choose(&self, key: &Key, hit: &Hit, log_time: Time) -> Option<ClickId> {
        let reading = hit.facts.reading;
        let deepest = ledger::deepest(&reading.goals);
        let (goal, once) = (deepest.map(|g| &g.goal), deepest.is_some_and(|g| g.dedup == Dedup::Once));
        let mut best = None;
        for (order, id) in self.visible_clicks(key, log_time).enumerate() {
            let click = self.find_click(id)?;
            let ledger = self.subjects.iter().find(|s| s.key == Key::Click(id)).map_or(&click.ledger, |s| &s.ledger);
            let has_conversion = ledger.live().any(|e| {
                goal.is_none_or(|g| e.goal == *g)
                    && match (&reading.tid, &reading.player) {
                        // The player is part of a `once` key, the transaction is not.
                        (Some(_), Some(player)) if once => e.player.as_ref() == Some(player),
                        (Some(tid), _) => e.tid.as_ref() == Some(tid),
                        (None, Some(player)) => e.player.as_ref() == Some(player),
                        (None, None) => true,
                    }
            });
            let in_time = click.time <= hit.facts.time.plus_ms(CLICK_AHEAD_MS);
            let rank = (has_conversion, in_time, click.time, order);
            if best.is_none_or(|(known, _)| rank > known) {
                best = Some((rank, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Lets a hit wait, or refuses it at once where it may not wait.
    fn wait(&self, entry: &mut HitOutcome, hit: &Hit, place: Place, refusal: Reason) {
        let full = self.state.waiting_at(&place).len() >= WAITING_PER_NAME
            || self.state.waiting_of_account(hit.tenant, hit.account) >= WAITING_PER_ACCOUNT;
        if hit.facts.settings.waiting_days == 0 || full {
            refuse(entry, hit, Status::Rejected, refusal);
        } else {
            refuse(entry, hit, Status::Waiting, refusal);
            entry.reason = None;
            entry.goals.iter_mut().for_each(|g| g.reason = None);
            entry.waiting_until = Some(hit.until());
        }
    }

    fn subject(&mut self, key: &Key) -> usize {
        if let Some(at) = self.subjects.iter().position(|s| s.key == *key) {
            return at;
        }
        let (click, ledger) = match key {
            Key::Click(id) => {
                let click = self.find_click(*id).cloned();
                let ledger = click.as_ref().map(|c| c.ledger.clone()).unwrap_or_default();
                (click, ledger)
            }
            _ => (None, self.state.labels.get(key).map(|l| l.ledger.clone()).unwrap_or_default()),
        };
        self.subjects.push(Subject { key: key.clone(), click, ledger });
        self.subjects.len() - 1
    }

    /// Decides a hit on its click or label. Gives back what became of rejections that waited for it.
    fn on(&mut self, key: Key, hit: &Hit, entry: &mut HitOutcome) -> Vec<HitOutcome> {
        let at = self.subject(&key);
        let subject = &mut self.subjects[at];
        let name = subject_name(&subject.key);
        entry.click = subject.click.as_ref().map(|c| c.reference(&subject.key));
        entry.label = matches!(key, Key::Label(_)).then(|| key.text().to_owned());
        let clicked = subject.click.as_ref().map(|c| c.time);
        if hit.facts.reading.ts.is_some_and(|ts| clicked.is_some_and(|click| ts < click)) {
            let detail = "ts is before the click; the time of receipt is used".to_owned();
            entry.corrections.push(Correction { code: "time_before_click".to_owned(), detail });
        }
        let owner = Owner { tenant: hit.tenant, account: hit.account, name: &name, clicked };
        let reading = hit.facts.reading;
        if reading.goals.is_empty() {
            match credit::meant(&subject.ledger, hit.facts) {
                Meant::Several => refuse(entry, hit, Status::Rejected, Reason::AmbiguousStatus),
                Meant::Entry(known) => {
                    let goal = credit::status_goal(hit.facts, &known.goal);
                    let outcome = credit::restate(known, owner, hit.facts, &goal);
                    record(subject, owner, hit, &goal, outcome, entry, &mut self.outcome.changes);
                }
                Meant::Nothing if reading.state == Some(ConversionState::Rejected) => {
                    self.wait(entry, hit, Place::Ledger(key.clone()), Reason::NoConversion);
                    if let Some(until) = entry.waiting_until {
                        self.moved.push((key, Arc::new(Waiting::of(hit, until, u64::MAX))));
                    }
                    return Vec::new();
                }
                Meant::Nothing => {
                    let goal = credit::status_goal(hit.facts, &hit.facts.settings.default_goal);
                    let outcome = credit::credit(&subject.ledger, owner, hit.facts, &goal);
                    record(subject, owner, hit, &goal, outcome, entry, &mut self.outcome.changes);
                }
            }
        } else {
            for goal in &reading.goals {
                let outcome = credit::credit(&subject.ledger, owner, hit.facts, goal);
                record(subject, owner, hit, goal, outcome, entry, &mut self.outcome.changes);
            }
        }
        summarise(entry);
        self.wake_rejections(&key, at, entry)
    }

    /// The first conversion that a waiting rejection fits is made rejected.
    fn wake_rejections(&mut self, key: &Key, at: usize, made_by: &HitOutcome) -> Vec<HitOutcome> {
        let place = Place::Ledger(key.clone());
        let mut waiting = self.state.waiting_at(&place).to_vec();
        waiting.extend(self.moved.iter().filter(|(on, _)| on == key).map(|(_, w)| w.clone()));
        if waiting.is_empty() {
            return Vec::new();
        }
        let log_time = self.state.meta.log_time;
        let made: Vec<&Conversion> = made_by
            .goals
            .iter()
            .filter(|g| g.outcome == Status::Converted)
            .filter_map(|g| g.conversion.as_ref())
            .collect();
        let mut woken = Vec::new();
        for waiting in waiting.iter().filter(|w| w.until > log_time) {
            let fits = |c: &&&Conversion| match &waiting.reading.tid {
                Some(tid) => c.tid.as_ref() == Some(tid),
                None => c.count > 0 && ledger::may_be_same(&c.player, &waiting.reading.player),
            };
            let Some(conversion) = made.iter().find(fits) else { continue };
            let moved_now = self.moved.iter().position(|(_, w)| w.id == waiting.id);
            if let Some(at) = moved_now {
                self.moved.remove(at);
                self.outcome.hits.retain(|entry| entry.hit.id != waiting.id);
            } else if !self.woken.insert(waiting.id) {
                continue;
            }
            let hit = Hit::of_waiting(waiting);
            let mut entry = hit.blank_outcome();
            entry.click.clone_from(&made_by.click);
            entry.label.clone_from(&made_by.label);
            let subject = &mut self.subjects[at];
            let name = subject_name(&subject.key);
            let clicked = subject.click.as_ref().map(|c| c.time);
            let owner = Owner { tenant: hit.tenant, account: hit.account, name: &name, clicked };
            let goal = credit::status_goal(hit.facts, &conversion.goal);
            let Some(known) = subject.ledger.by_id(conversion.id) else { continue };
            let outcome = credit::reject(known, &goal);
            record(subject, owner, &hit, &goal, outcome, &mut entry, &mut self.outcome.changes);
            summarise(&mut entry);
            woken.push(entry);
        }
        woken
    }

    fn adjust(&mut self, adjust: &event::Adjust) {
        let key = Key::of(&self.outcome.tenant, &adjust.account, &adjust.on);
        let at = self.subject(&key);
        let subject = &mut self.subjects[at];
        let foreign = subject
            .click
            .as_ref()
            .is_some_and(|c| c.home.tenant != self.outcome.tenant || c.home.account != adjust.account);
        let id = ConversionId::parse(adjust.conversion.as_bytes());
        let found = id.and_then(|id| subject.ledger.by_id(id)).filter(|e| !e.withdrawn && !foreign);
        let mut result = AdjustOutcome {
            account: adjust.account.clone(),
            outcome: Status::Rejected,
            note: adjust.reason.clone(),
            by: adjust.by.clone(),
            program: subject.click.as_ref().map(|c| c.home.program.clone()),
            label: matches!(key, Key::Label(_)).then(|| key.text().to_owned()),
            conversion: None,
        };
        let Some(entry) = found else {
            self.outcome.reason = Some(Reason::NotFound);
            self.outcome.adjust = Some(result);
            return;
        };
        let before = entry.public();
        let mut after = before.clone();
        after.state = adjust.state.unwrap_or(after.state);
        after.earning = adjust.earning.or(after.earning);
        after.value = adjust.value.or(after.value);
        result.outcome = Status::Duplicate;
        if after != before {
            after.version += 1;
            result.outcome = Status::Updated;
            let clicked = subject.click.as_ref().map(|c| c.time);
            push_changes(&mut self.outcome.changes, Some(&before), &after, &adjust.account, &subject.key, clicked);
            subject.ledger.adjust(&after);
        }
        result.conversion = Some(after);
        self.outcome.click = subject.click.as_ref().map(|c| c.data(&subject.key));
        self.outcome.adjust = Some(result);
    }

    fn expire(&mut self, log_time: Time, limit: usize) {
        let due: Vec<_> = self.state.due(log_time).filter(|(id, _)| !self.woken.contains(id)).take(limit).collect();
        for (id, place) in due {
            let Some(waiting) = self.state.waiting_at(place).iter().find(|w| w.id == id) else { continue };
            let hit = Hit::of_waiting(waiting);
            let mut entry = hit.blank_outcome();
            let reason = match place {
                Place::Name(_) => Reason::UnknownClick,
                Place::Ledger(key) => {
                    entry.label = matches!(key, Key::Label(_)).then(|| key.text().to_owned());
                    if let Key::Click(id) = key {
                        entry.click = self.state.clicks.get(id).map(|c| c.reference(key));
                    }
                    Reason::NoConversion
                }
            };
            refuse(&mut entry, &hit, Status::Rejected, reason);
            self.outcome.hits.push(entry);
        }
    }
}

fn subject_name(key: &Key) -> String {
    match key {
        Key::Click(id) => id.to_string(),
        other => other.text().to_owned(),
    }
}

/// An own id tells its age, so a click that is gone is known to be gone.
fn is_too_old(id: ClickId, hit: &Hit) -> bool {
    let settings = hit.facts.settings;
    let lookback_ms = i64::from(settings.lookback_days) * DAY_MS;
    let waiting_ms = i64::from(settings.waiting_days) * DAY_MS;
    let conversion_age = hit.facts.conversion_time(Some(id.time())).since(id.time());
    conversion_age > lookback_ms || hit.facts.time.since(id.time()) > lookback_ms + waiting_ms
}

/// Notes a goal's outcome, its signed changes, and the ledger after it.
fn record(
    subject: &mut Subject,
    owner: Owner,
    hit: &Hit,
    goal: &event::GoalReading,
    outcome: GoalOutcome,
    entry: &mut HitOutcome,
    changes: &mut Vec<Change>,
) {
    if let Some(after) = &outcome.conversion
        && matches!(outcome.outcome, Status::Converted | Status::Updated)
    {
        let before = subject.ledger.by_id(after.id).map(|e| e.public());
        push_changes(changes, before.as_ref(), after, hit.account, &subject.key, owner.clicked);
    }
    subject.ledger.take(owner, hit.facts, goal, &outcome);
    entry.goals.push(outcome);
}
