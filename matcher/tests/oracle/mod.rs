//! A second, slow implementation of the matching rules, written from their words alone.
//!
//! Owns: what should have been decided. It keeps everything that ever happened in plain lists and searches them from
//! end to end; it forgets nothing, so what has "left the state" is told by a test on log time.
//! Refuses: reprocess and rules events. Shares nothing with the matcher but the records.

mod goals;

use schemas::{
    Amount, ClickId, Currency, Event, EventBody, EventId, Reason, Time,
    bounds::{
        CLICK_AHEAD_MS, EXPIRIES_PER_EVENT, EXPIRIES_PER_TICK, TICK_BEHIND_MS, TICK_LEAP_MS, TICK_STEP_MS,
        WAITING_PER_ACCOUNT, WAITING_PER_NAME,
    },
    event::{Adjust, Click, Hit, Name},
    goal::{Dedup, depth},
    outcome::Status,
    status::State,
};

/// What one event should cause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OracleOutcome {
    pub reason: Option<Reason>,
    pub log_time: Option<Time>,
    /// Sorted by hit; of a hit that was decided twice by one event, the last decision.
    pub hits: Vec<HitSeen>,
    pub adjusted: Option<(Status, Option<Shown>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HitSeen {
    pub id: EventId,
    pub outcome: Status,
    pub reason: Option<Reason>,
    pub click: Option<ClickId>,
    pub label: Option<String>,
    pub waiting_until: Option<Time>,
    pub goals: Vec<GoalSeen>,
}

impl HitSeen {
    /// Whether a status alone that found nothing is shown as one goal or as none is a matter of form.
    pub fn plain(mut self) -> Self {
        self.goals.retain(|g| g.conversion.is_some() || g.outcome != self.outcome || g.reason != self.reason);
        self
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct GoalSeen {
    pub outcome: Status,
    pub reason: Option<Reason>,
    pub conversion: Option<Shown>,
}

/// A conversion as an outcome shows it, without its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub version: u32,
    pub goal: String,
    pub count: u32,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Currency,
    pub tid: Option<String>,
    pub player: Option<String>,
    pub time: Time,
}

/// Tells which conversion an adjustment means: its id, the hit that made it, its goal.
pub type Names = Vec<(String, EventId, String)>;

#[derive(Clone, Debug, PartialEq)]
pub enum Owner {
    Click(usize),
    Label { tenant: String, account: String, label: String },
}

pub struct KnownClick {
    pub tenant: String,
    pub click: Click,
}

pub struct Conversion {
    pub owner: Owner,
    pub account: String,
    pub made_by: EventId,
    pub shown: Shown,
    /// The sender's last words; they differ from what is shown after a correction by hand.
    said_state: State,
    said_earning: Option<Amount>,
    said_value: Option<Amount>,
    /// Negative amounts that were added, earnings and values.
    taken: [Vec<Amount>; 2],
    /// The last `ts` and the last receipt of what the sender said about the state.
    state_from: (Option<Time>, Time),
}

/// A hit that made or changed a conversion.
struct Counted {
    conversion: usize,
    meaning: Meaning,
    tid: Option<String>,
    ts: Option<Time>,
    receipt: Time,
}

#[derive(Clone, Debug, PartialEq)]
struct Meaning {
    goal: String,
    count: u32,
    state: Option<State>,
    earning: Option<Amount>,
    value: Option<Amount>,
    currency: Option<Currency>,
    player: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Arrival {
    id: EventId,
    tenant: String,
    receipt: Time,
    hit: Hit,
}

impl Arrival {
    /// The conversion's time: `ts`, else receipt. A `ts` before the click is wrong, so it is not taken.
    fn when(&self, clicked: Option<Time>) -> Time {
        self.hit.reading.ts.filter(|ts| clicked.is_none_or(|click| *ts >= click)).unwrap_or(self.receipt)
    }
    fn wait_until(&self) -> Time {
        self.receipt.plus_days(self.hit.settings.waiting_days)
    }
}

struct Waiting {
    arrival: Arrival,
    until: Time,
    /// A rejection waits on a known click or label; all others wait for a click.
    on: Option<Owner>,
}

#[derive(Default)]
pub struct Oracle {
    log_time: Option<Time>,
    clicks: Vec<KnownClick>,
    pub conversions: Vec<Conversion>,
    counted: Vec<Counted>,
    /// In log order.
    waiting: Vec<Waiting>,
    seen_events: Vec<(EventId, u64)>,
}

impl Oracle {
    pub fn run(events: &[(Time, Event)], names: &Names) -> (Vec<OracleOutcome>, Oracle) {
        let mut oracle = Oracle::default();
        let outcomes = events.iter().map(|(appended, event)| oracle.event(*appended, event, names)).collect();
        (outcomes, oracle)
    }

    /// The click that a conversion stands on; none for a label.
    pub fn click_of(&self, conversion: &Conversion) -> Option<ClickId> {
        match conversion.owner {
            Owner::Click(i) => Some(self.clicks[i].click.id),
            Owner::Label { .. } => None,
        }
    }

    fn event(&mut self, appended: Time, event: &Event, names: &Names) -> OracleOutcome {
        let mut out = OracleOutcome::default();
        if self.seen_events.contains(&(event.from, event.n)) {
            return out;
        }
        self.seen_events.push((event.from, event.n));
        let mut expiries = EXPIRIES_PER_EVENT;
        if event.body == EventBody::Tick {
            self.log_time = Some(self.ticked(appended));
            out.log_time = self.log_time;
            expiries = EXPIRIES_PER_TICK;
        }
        self.expire(expiries, &mut out);
        match &event.body {
            EventBody::Click(click) => self.click(event, click, &mut out),
            EventBody::Hit(hit) => {
                let (id, tenant, receipt) = (event.id, event.tenant.clone(), event.time);
                self.decide(&Arrival { id, tenant, receipt, hit: hit.clone() }, &mut out);
            }
            EventBody::Tick => {}
            EventBody::Adjust(adjust) => self.adjust(adjust, names, &mut out),
            EventBody::Reprocess(_) | EventBody::Rules(_) => panic!("not for the oracle"),
        }
        out.hits.sort_by_key(|hit| hit.id);
        out
    }

    fn ticked(&self, appended: Time) -> Time {
        let Some(old) = self.log_time else { return appended };
        let step = if appended.since(old) > TICK_BEHIND_MS { TICK_LEAP_MS } else { TICK_STEP_MS };
        old.plus_ms(appended.since(old).clamp(0, step))
    }

    /// True once log time has reached `end`.
    fn over(&self, end: Time) -> bool {
        self.log_time.is_some_and(|now| now >= end)
    }

    fn expire(&mut self, most: usize, out: &mut OracleOutcome) {
        let mut due: Vec<(Time, usize)> =
            self.waiting.iter().enumerate().filter(|(_, w)| self.over(w.until)).map(|(i, w)| (w.until, i)).collect();
        due.sort();
        due.truncate(most);
        due.sort_by_key(|(_, i)| std::cmp::Reverse(*i));
        for (_, i) in due {
            let waiting = self.waiting.remove(i);
            let reason = if waiting.on.is_some() { Reason::NoConversion } else { Reason::UnknownClick };
            let seen = self.refused(&waiting.arrival, waiting.on.as_ref(), reason);
            put(out, seen);
        }
    }

    fn refused(&self, arrival: &Arrival, owner: Option<&Owner>, reason: Reason) -> HitSeen {
        self.whole(arrival, owner, Status::Rejected, Some(reason))
    }

    /// An outcome of the hit as a whole, with no goal decided.
    fn whole(&self, arrival: &Arrival, owner: Option<&Owner>, outcome: Status, reason: Option<Reason>) -> HitSeen {
        let (click, label) = match owner {
            Some(Owner::Click(i)) => (Some(self.clicks[*i].click.id), None),
            Some(Owner::Label { label, .. }) => (None, Some(label.clone())),
            None => (None, None),
        };
        let waiting_until = (outcome == Status::Waiting).then(|| arrival.wait_until());
        let goals = vec![GoalSeen { outcome, reason, conversion: None }; arrival.hit.reading.goals.len()];
        HitSeen { id: arrival.id, outcome, reason, click, label, waiting_until, goals }
    }

    /// A click without a conversion leaves the state at look-back + waiting time.
    fn is_there(&self, index: usize) -> bool {
        let click = &self.clicks[index].click;
        let leaves = click.time.plus_days(click.lookback_days).plus_days(click.waiting_days);
        !self.on(&Owner::Click(index)).is_empty() || !self.over(leaves)
    }

    /// The conversions of one click or label, oldest first.
    fn on(&self, owner: &Owner) -> Vec<usize> {
        (0..self.conversions.len()).filter(|i| self.conversions[*i].owner == *owner).collect()
    }

    fn by_id(&self, tenant: &str, id: ClickId) -> Option<usize> {
        (0..self.clicks.len())
            .find(|i| self.clicks[*i].tenant == tenant && self.clicks[*i].click.id == id && self.is_there(*i))
    }

    fn by_alias(&self, tenant: &str, account: &str, alias: &str) -> Vec<usize> {
        let named = |known: &KnownClick| {
            known.tenant == tenant && known.click.account == account && known.click.alias.as_deref() == Some(alias)
        };
        (0..self.clicks.len()).filter(|i| named(&self.clicks[*i]) && self.is_there(*i)).collect()
    }

    fn click(&mut self, event: &Event, click: &Click, out: &mut OracleOutcome) {
        let foreign_known = match (&click.foreign, &click.alias) {
            (Some(_), Some(alias)) => !self.by_alias(&event.tenant, &click.account, alias).is_empty(),
            _ => false,
        };
        if foreign_known || self.clicks.iter().any(|known| known.click.id == click.id) {
            out.reason = Some(Reason::Duplicate);
            return;
        }
        self.clicks.push(KnownClick { tenant: event.tenant.clone(), click: click.clone() });
        let wakes = |w: &Waiting| {
            w.on.is_none()
                && w.arrival.tenant == event.tenant
                && match &w.arrival.hit.reading.name {
                    Some(Name::Click(id)) => *id == click.id,
                    Some(Name::Alias(alias)) => {
                        w.arrival.hit.account == click.account
                            && click.alias.as_ref() == Some(alias)
                            && click.time <= w.arrival.receipt.plus_ms(CLICK_AHEAD_MS)
                    }
                    Some(Name::Label(_)) | None => false,
                }
        };
        let log_time = self.log_time;
        let valid = |w: &Waiting| log_time.is_none_or(|now| now < w.until);
        let (woken, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|w| valid(w) && wakes(w));
        self.waiting = rest;
        for waiting in woken {
            self.decide(&waiting.arrival, out);
        }
    }

    fn decide(&mut self, arrival: &Arrival, out: &mut OracleOutcome) {
        let reading = &arrival.hit.reading;
        if let Some(reason) = reading.reject {
            put(out, self.refused(arrival, None, reason));
            return;
        }
        if reading.test {
            put(out, self.whole(arrival, None, Status::Test, None));
            return;
        }
        match self.owner(arrival) {
            Ok(Some(owner)) => self.decide_on(arrival, &owner, out),
            Ok(None) => self.wait(arrival, None, Reason::UnknownClick, out),
            Err(reason) => put(out, self.refused(arrival, None, reason)),
        }
    }

    /// The click or label that the hit is credited to.
    fn owner(&self, arrival: &Arrival) -> Result<Option<Owner>, Reason> {
        let account = &arrival.hit.account;
        match &arrival.hit.reading.name {
            None => Err(Reason::MissingClick),
            Some(Name::Label(label)) => {
                let (tenant, account, label) = (arrival.tenant.clone(), account.clone(), label.clone());
                Ok(Some(Owner::Label { tenant, account, label }))
            }
            Some(Name::Click(id)) => {
                let lookback = arrival.hit.settings.lookback_days;
                let gone = id.time().plus_days(lookback).plus_days(arrival.hit.settings.waiting_days);
                match self.by_id(&arrival.tenant, *id) {
                    Some(i) if self.clicks[i].click.account == *account => Ok(Some(Owner::Click(i))),
                    Some(_) => Err(Reason::WrongAccount),
                    None if arrival.when(Some(id.time())) > id.time().plus_days(lookback) => Err(Reason::ExpiredClick),
                    None if arrival.receipt > gone => Err(Reason::ExpiredClick),
                    None => Ok(None),
                }
            }
            Some(Name::Alias(alias)) => {
                let clicks = self.by_alias(&arrival.tenant, account, alias);
                let limit = arrival.receipt.plus_ms(CLICK_AHEAD_MS);
                let newest = |some: &[usize]| some.iter().copied().max_by_key(|i| (self.clicks[*i].click.time, *i));
                let latest = |some: &[usize]| {
                    let mut before = some.to_vec();
                    before.retain(|i| self.clicks[*i].click.time <= limit);
                    newest(&before).or_else(|| newest(some))
                };
                let mut with = clicks.clone();
                with.retain(|i| self.has_its_conversion(*i, arrival));
                Ok(latest(&with).or_else(|| latest(&clicks)).map(Owner::Click))
            }
        }
    }

    fn has_its_conversion(&self, click: usize, arrival: &Arrival) -> bool {
        let reading = &arrival.hit.reading;
        let deepest = reading.goals.iter().max_by_key(|g| depth(&g.goal));
        self.on(&Owner::Click(click)).into_iter().map(|i| &self.conversions[i].shown).any(|c| {
            let once = deepest.is_some_and(|g| g.dedup == Dedup::Once);
            let its_own = match (&reading.tid, &reading.player) {
                (None, None) => true,
                (Some(_), None) => reading.tid == c.tid,
                (None, Some(_)) => reading.player == c.player,
                // Both given: what is part of the key tells.
                (Some(_), Some(_)) if once => reading.player == c.player,
                (Some(_), Some(_)) => reading.tid == c.tid,
            };
            deepest.is_none_or(|g| g.goal == c.goal) && its_own
        })
    }

    fn wait(&mut self, arrival: &Arrival, on: Option<&Owner>, otherwise: Reason, out: &mut OracleOutcome) {
        let here = |w: &&Waiting| w.arrival.tenant == arrival.tenant && w.arrival.hit.account == arrival.hit.account;
        let of_account = self.waiting.iter().filter(here).count();
        let of_name =
            self.waiting.iter().filter(here).filter(|w| w.arrival.hit.reading.name == arrival.hit.reading.name);
        let full = of_account >= WAITING_PER_ACCOUNT as usize || of_name.count() >= WAITING_PER_NAME;
        let until = arrival.wait_until();
        if full || arrival.hit.settings.waiting_days == 0 || self.over(until) {
            put(out, self.refused(arrival, on, otherwise));
            return;
        }
        put(out, self.whole(arrival, on, Status::Waiting, None));
        self.waiting.push(Waiting { arrival: arrival.clone(), until, on: on.cloned() });
        self.waiting.sort_by_key(|w| w.arrival.id);
    }

    fn decide_on(&mut self, arrival: &Arrival, owner: &Owner, out: &mut OracleOutcome) {
        let reading = &arrival.hit.reading;
        let mut goals = vec![];
        if reading.goals.is_empty() {
            match self.state_alone(arrival, owner, out) {
                Some(goal) => goals.push(goal),
                None => return self.wait(arrival, Some(owner), Reason::NoConversion, out),
            }
        }
        for goal in &reading.goals {
            goals.push(self.goal(arrival, owner, goal, out));
        }
        let order = [Status::Converted, Status::Updated, Status::Waiting, Status::Duplicate, Status::Rejected];
        let rank = |g: &&GoalSeen| order.iter().position(|s| *s == g.outcome);
        let best = goals.iter().min_by_key(rank).expect("a goal").clone();
        let seen = self.whole(arrival, Some(owner), best.outcome, best.reason);
        put(out, HitSeen { goals, ..seen });
    }

    fn adjust(&mut self, adjust: &Adjust, names: &Names, out: &mut OracleOutcome) {
        let meant = names.iter().find(|(id, _, _)| *id == adjust.conversion).and_then(|(_, hit, goal)| {
            self.conversions
                .iter_mut()
                .find(|c| c.made_by == *hit && c.shown.goal == *goal && c.account == adjust.account)
        });
        let Some(conversion) = meant else {
            out.reason = Some(Reason::NotFound);
            out.adjusted = Some((Status::Rejected, None));
            return;
        };
        let before = conversion.shown.clone();
        let shown = &mut conversion.shown;
        shown.state = adjust.state.unwrap_or(shown.state);
        shown.earning = adjust.earning.or(shown.earning);
        shown.value = adjust.value.or(shown.value);
        let outcome = if *shown == before { Status::Duplicate } else { Status::Updated };
        shown.version += u32::from(outcome == Status::Updated);
        out.adjusted = Some((outcome, Some(shown.clone())));
    }
}

fn put(out: &mut OracleOutcome, seen: HitSeen) {
    out.hits.retain(|hit| hit.id != seen.id);
    out.hits.push(seen.plain());
}

/// A label's `once` goal without a player counts by transaction, else by the rules for hits that follow each other.
fn policy(dedup: Dedup, owner: &Owner, player: Option<&String>) -> Dedup {
    match (dedup, owner, player) {
        (Dedup::Once, Owner::Label { .. }, None) => Dedup::PerTransaction,
        _ => dedup,
    }
}
