//! What one goal of a hit does to the conversions of its click or label: makes one, changes one, repeats one.
//!
//! Owns: deduplication, states and money of a conversion. Refuses: names, waiting, look-up of clicks (see `decide`).
//! Invariant: nothing changes here; `Ledger::take` applies what was decided.

use schemas::{
    Amount, Currency, EventId, Reason, Time,
    bounds::CONVERSIONS_PER_CLICK,
    event::{GoalReading, Money, Reading},
    goal::Dedup,
    outcome::{Conversion, GoalOutcome, Status},
    status::State,
    time::{DAY_MS, SECOND_MS},
};

use crate::ledger::{Entry, HitFacts, Ledger, Owner, conversion_id, meaning, policy, with_charges};

/// Decides one goal of a hit. Nothing changes here: the caller gives the outcome to `Ledger::take`.
pub fn credit(ledger: &Ledger, owner: Owner, hit: HitFacts, goal: &GoalReading) -> GoalOutcome {
    let outcome = match find(ledger, owner, hit, goal) {
        Found::Entry(entry) => against(entry, owner, hit, goal),
        Found::Repeat(entry, of) => duplicate(entry, of, goal, Reason::Duplicate),
        Found::Nothing => create(ledger, owner, hit, goal),
    };
    with_reading_problems(outcome, hit.reading, &goal.money)
}

/// Problems that reading left are shown on every goal that they touch. A refusal says why it was refused.
fn with_reading_problems(mut outcome: GoalOutcome, reading: &Reading, money: &Money) -> GoalOutcome {
    if outcome.outcome == Status::Rejected {
        return outcome;
    }
    let unmapped = reading.unmapped.then_some(Reason::UnmappedStatus);
    outcome.reason = [outcome.reason, unmapped, money.problem].into_iter().flatten().min();
    outcome
}

enum Found<'a> {
    Entry(&'a Entry),
    Repeat(&'a Entry, EventId),
    Nothing,
}

fn find<'a>(ledger: &'a Ledger, owner: Owner, hit: HitFacts, goal: &GoalReading) -> Found<'a> {
    let mut of_goal = ledger.live().filter(|e| e.goal == goal.goal);
    let found = match (policy(owner, hit, goal), &hit.reading.tid) {
        (Dedup::Every, _) => None,
        (Dedup::Once, _) => of_goal.find(|e| e.player == hit.reading.player),
        (Dedup::PerTransaction, Some(tid)) => of_goal.find(|e| e.tid.as_ref() == Some(tid)),
        (Dedup::PerTransaction, None) => return find_without_tid(ledger, hit, goal),
    };
    found.map_or(Found::Nothing, Found::Entry)
}

fn find_without_tid<'a>(ledger: &'a Ledger, hit: HitFacts, goal: &GoalReading) -> Found<'a> {
    let meaning = meaning(hit, goal);
    let window_ms = i64::from(goal.repeat_window_s) * SECOND_MS;
    for entry in ledger.live().filter(|e| e.goal == goal.goal) {
        let repeat = entry.seen.iter().rev().find(|seen| {
            seen.meaning == meaning
                && match (seen.ts, hit.reading.ts) {
                    (Some(known), Some(ts)) => known == ts,
                    _ => hit.time.since(seen.at).abs() <= window_ms,
                }
        });
        if let Some(seen) = repeat {
            return Found::Repeat(entry, seen.hit);
        }
    }
    if matches!(hit.stated(), Some(State::Approved | State::Rejected)) {
        let of_goal = conversions(ledger).filter(|e| e.goal == goal.goal && e.may_be_of(&hit.reading.player));
        let mut pending = of_goal.filter(|e| e.state == State::Pending);
        // An older statement does not follow the pending one: it is about another conversion.
        if let (Some(entry), None) = (pending.next(), pending.next())
            && entry.is_newer(hit)
        {
            return Found::Entry(entry);
        }
    }
    Found::Nothing
}

/// What counts as a conversion. A chargeback that came before its original is only an entry that a key can find.
fn conversions(ledger: &Ledger) -> impl Iterator<Item = &Entry> {
    ledger.live().filter(|e| e.count > 0)
}

/// A status without a goal: which conversion it means.
pub enum Meant<'a> {
    Entry(&'a Entry),
    Several,
    Nothing,
}

/// With a transaction id the conversion of that id and no other; else the only pending one of the default goal,
/// else the only one at all.
pub fn meant<'a>(ledger: &'a Ledger, hit: HitFacts<'a>) -> Meant<'a> {
    let HitFacts { reading, settings, .. } = hit;
    if reading.tid.is_some() {
        return only(ledger.live().filter(|e| e.tid == reading.tid));
    }
    let all = || conversions(ledger).filter(|e| e.may_be_of(&reading.player));
    match only(all().filter(|e| e.goal == settings.default_goal && e.state == State::Pending)) {
        Meant::Nothing => only(all()),
        found => found,
    }
}

fn only<'a>(mut entries: impl Iterator<Item = &'a Entry>) -> Meant<'a> {
    match (entries.next(), entries.next()) {
        (None, _) => Meant::Nothing,
        (Some(entry), None) => Meant::Entry(entry),
        (Some(_), Some(_)) => Meant::Several,
    }
}

/// The goal reading that a status without a goal stands for, once its goal is known.
pub fn status_goal(hit: HitFacts, goal: &str) -> GoalReading {
    GoalReading {
        goal: goal.to_owned(),
        count: 1,
        dedup: hit.settings.default_dedup,
        repeat_window_s: hit.settings.default_repeat_window_s,
        money: hit.reading.money.clone(),
    }
}

/// A hit that means an existing conversion: what it changes of it.
pub fn restate(entry: &Entry, owner: Owner, hit: HitFacts, goal: &GoalReading) -> GoalOutcome {
    with_reading_problems(against(entry, owner, hit, goal), hit.reading, &goal.money)
}

/// A rejection that waited for this conversion: it is made rejected, whichever came first.
pub fn reject(entry: &Entry, goal: &GoalReading) -> GoalOutcome {
    if entry.state == State::Rejected {
        return duplicate(entry, entry.hit, goal, Reason::Duplicate);
    }
    let after = Conversion { state: State::Rejected, version: entry.version + 1, ..entry.public() };
    GoalOutcome {
        goal: entry.goal.clone(),
        count: entry.count,
        outcome: Status::Updated,
        reason: None,
        same_as: None,
        conversion: Some(after),
    }
}

fn against(entry: &Entry, owner: Owner, hit: HitFacts, goal: &GoalReading) -> GoalOutcome {
    if policy(owner, hit, goal) == Dedup::Once && entry.is_of_other_transaction(hit) {
        return duplicate(entry, entry.hit, goal, Reason::OtherTransaction);
    }
    // A word that no map knows may mean anything, so it changes nothing that exists.
    if hit.reading.unmapped {
        return duplicate(entry, entry.hit, goal, Reason::UnmappedStatus);
    }
    let mut after = entry.public();
    let mut problem = None;
    match changed_money(entry, hit, &goal.money) {
        Ok((earning, value, currency)) => (after.earning, after.value, after.currency) = (earning, value, currency),
        Err(reason) => problem = Some(reason),
    }
    if let Some(state) = changed_state(entry, hit) {
        after.state = state;
    }
    // A chargeback that came first made an entry that counts nothing; the conversion itself counts it.
    let first_count = entry.count == 0 && goal.count > 0 && !goal.money.earning.is_some_and(Amount::is_negative);
    if first_count {
        after.count = goal.count;
    }
    if after == entry.public() {
        let reason = problem.unwrap_or(Reason::Duplicate);
        return duplicate(entry, entry.hit, goal, reason);
    }
    after.version += 1;
    GoalOutcome {
        goal: entry.goal.clone(),
        count: goal.count,
        outcome: if first_count { Status::Converted } else { Status::Updated },
        reason: problem,
        same_as: None,
        conversion: Some(after),
    }
}

fn duplicate(entry: &Entry, of: EventId, goal: &GoalReading, reason: Reason) -> GoalOutcome {
    GoalOutcome {
        goal: entry.goal.clone(),
        count: goal.count,
        outcome: Status::Duplicate,
        reason: Some(reason),
        same_as: Some(of),
        conversion: Some(entry.public()),
    }
}

fn changed_state(entry: &Entry, hit: HitFacts) -> Option<State> {
    let stated = hit.stated()?;
    (stated != entry.sent.state && stated != entry.state && !entry.is_stale(hit)).then_some(stated)
}

type MoneyOf = (Option<Amount>, Option<Amount>, Currency);

/// What the conversion's money becomes. A field that is absent is no change; a chargeback is added once per amount.
fn changed_money(entry: &Entry, hit: HitFacts, money: &Money) -> Result<MoneyOf, Reason> {
    let (currency, stale) = (hit.currency(), entry.is_stale(hit));
    if money.earning.is_none() && money.value.is_none() {
        return Ok((entry.earning, entry.value, entry.currency));
    }
    let moneyless = entry.earning.is_none() && entry.value.is_none();
    let mut charged_in_other = false;
    if currency != entry.currency && !moneyless {
        // Two currencies cannot stand in one conversion: the whole money is stated anew, or nothing changes.
        let whole = (entry.earning.is_none() || money.earning.is_some())
            && (entry.value.is_none() || money.value.is_some())
            && entry.sent.charged.is_empty()
            && entry.sent.returned.is_empty();
        charged_in_other = [money.earning, money.value].into_iter().flatten().any(Amount::is_negative);
        if !whole || stale {
            return Err(Reason::InvalidCurrency);
        }
    }
    if charged_in_other {
        return Err(Reason::InvalidCurrency);
    }
    let restated = currency != entry.currency;
    // A stale hit may still bring what is missing.
    let known = |stated: Option<Amount>| stale && stated.is_some();
    let new = |sent: Option<Amount>, stated| sent.filter(|amount| amount.is_negative() || !known(stated));
    let (earning, value) = (new(money.earning, entry.sent.earning), new(money.value, entry.sent.value));
    let earning = field(earning, entry.earning, entry.sent.earning, &entry.sent.charged, restated)?;
    let value = field(value, entry.value, entry.sent.value, &entry.sent.returned, restated)?;
    Ok((earning, value, currency))
}

fn field(
    sent: Option<Amount>,
    now: Option<Amount>,
    stated: Option<Amount>,
    charged: &[Amount],
    restated: bool,
) -> Result<Option<Amount>, Reason> {
    match sent {
        None => Ok(now),
        Some(amount) if amount.is_negative() && charged.contains(&amount) => Ok(now),
        Some(amount) if amount.is_negative() => {
            now.unwrap_or_default().plus(amount).map(Some).ok_or(Reason::InvalidAmount)
        }
        Some(amount) if stated == Some(amount) && !restated => Ok(now),
        Some(amount) => with_charges(amount, charged).map(Some).ok_or(Reason::InvalidAmount),
    }
}

fn create(ledger: &Ledger, owner: Owner, hit: HitFacts, goal: &GoalReading) -> GoalOutcome {
    let refused = |reason| GoalOutcome {
        goal: goal.goal.clone(),
        count: goal.count,
        outcome: Status::Rejected,
        reason: Some(reason),
        same_as: None,
        conversion: None,
    };
    if ledger.entries.len() >= CONVERSIONS_PER_CLICK {
        return refused(Reason::TooMany);
    }
    let time = hit.conversion_time(owner.clicked);
    if is_expired(ledger, owner, hit, time) {
        return refused(Reason::ExpiredClick);
    }
    let id = conversion_id(owner, hit, goal);
    let withdrawn = ledger.entries.iter().find(|e| e.id == id);
    let chargeback = goal.money.earning.is_some_and(Amount::is_negative);
    GoalOutcome {
        goal: goal.goal.clone(),
        count: goal.count,
        outcome: Status::Converted,
        reason: None,
        same_as: None,
        conversion: Some(Conversion {
            id,
            version: withdrawn.map_or(1, |e| e.version + 1),
            goal: goal.goal.clone(),
            count: if chargeback { 0 } else { goal.count },
            state: hit.initial_state(),
            earning: goal.money.earning,
            value: goal.money.value,
            currency: hit.currency(),
            tid: hit.reading.tid.clone(),
            player: hit.reading.player.clone(),
            time,
            withdrawn: false,
        }),
    }
}

/// Look-back limits the first conversion of a click; later ones may come within the lifetime after the last one.
fn is_expired(ledger: &Ledger, owner: Owner, hit: HitFacts, time: Time) -> bool {
    let Some(clicked) = owner.clicked else { return false };
    let days = |n: u16| i64::from(n) * DAY_MS;
    match ledger.last_time() {
        None => time.since(clicked) > days(hit.settings.lookback_days),
        Some(last) => {
            time.since(last) > days(hit.settings.lifetime_days)
                && time.since(clicked) > days(hit.settings.lookback_days)
        }
    }
}
