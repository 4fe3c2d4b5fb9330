//! The oracle's rules for one goal of a hit on a known click or label: keys, repeats, updates, states.

use schemas::{
    Amount, Currency, Reason,
    bounds::CONVERSIONS_PER_CLICK,
    event::{GoalReading, Money},
    goal::Dedup,
    outcome::Status,
    status::State,
};

use super::{
    Arrival, Conversion, Counted, GoalSeen, Meaning, Oracle, OracleOutcome, Owner, Shown, Waiting, policy, put,
};

/// What a hit says about one conversion.
struct Says<'a> {
    arrival: &'a Arrival,
    goal: &'a str,
    count: u32,
    money: &'a Money,
}

impl Oracle {
    pub fn goal(&mut self, arrival: &Arrival, owner: &Owner, goal: &GoalReading, out: &mut OracleOutcome) -> GoalSeen {
        let reading = &arrival.hit.reading;
        let says = Says { arrival, goal: &goal.goal, count: goal.count, money: &goal.money };
        let all = self.on(owner);
        let find = |test: &dyn Fn(&Shown) -> bool| {
            all.iter()
                .copied()
                .find(|i| self.conversions[*i].shown.goal == goal.goal && test(&self.conversions[*i].shown))
        };
        let found = match (policy(goal.dedup, owner, reading.player.as_ref()), &reading.tid) {
            (Dedup::Every, _) => None,
            (Dedup::Once, _) => find(&|c| c.player == reading.player),
            (Dedup::PerTransaction, Some(tid)) => find(&|c| c.tid.as_ref() == Some(tid)),
            (Dedup::PerTransaction, None) => {
                if let Some(i) = self.repeated(owner, &says, goal.repeat_window_s) {
                    self.heard_again(i, arrival);
                    return self.duplicate(i, Some(first_reason(arrival, Reason::Duplicate)));
                }
                self.only_pending(owner, &says)
            }
        };
        let Some(i) = found else { return self.make(owner, &says, out) };
        let made_with = &self.conversions[i].shown.tid;
        if policy(goal.dedup, owner, reading.player.as_ref()) == Dedup::Once
            && made_with.is_some()
            && reading.tid.is_some()
            && *made_with != reading.tid
        {
            return self.duplicate(i, Some(first_reason(arrival, Reason::OtherTransaction)));
        }
        self.update(i, &says, out)
    }

    /// A status without a goal. `None`: a rejection that finds nothing.
    pub fn state_alone(&mut self, arrival: &Arrival, owner: &Owner, out: &mut OracleOutcome) -> Option<GoalSeen> {
        let (reading, settings) = (&arrival.hit.reading, &arrival.hit.settings);
        let Some(state) = reading.state else {
            return Some(GoalSeen { outcome: Status::Rejected, reason: Some(Reason::MissingEvent), conversion: None });
        };
        match self.fitting(arrival, owner)[..] {
            [i] => {
                let goal = self.conversions[i].shown.goal.clone();
                Some(self.update(i, &Says { arrival, goal: &goal, count: 1, money: &reading.money }, out))
            }
            [] if state == State::Rejected => None,
            [] => {
                let goal = GoalReading {
                    goal: settings.default_goal.clone(),
                    count: 1,
                    dedup: settings.default_dedup,
                    repeat_window_s: settings.default_repeat_window_s,
                    money: reading.money.clone(),
                };
                Some(self.goal(arrival, owner, &goal, out))
            }
            _ => Some(GoalSeen { outcome: Status::Rejected, reason: Some(Reason::AmbiguousStatus), conversion: None }),
        }
    }

    /// The conversions that a state without a goal may mean.
    fn fitting(&self, arrival: &Arrival, owner: &Owner) -> Vec<usize> {
        let reading = &arrival.hit.reading;
        let shown = |i: &usize| &self.conversions[*i].shown;
        let mut all = self.on(owner);
        if reading.tid.is_some() {
            all.retain(|i| shown(i).tid == reading.tid);
            return all;
        }
        // An entry that only takes money back is no conversion.
        all.retain(|i| shown(i).count > 0 && may_be_of(&shown(i).player, &reading.player));
        let mut pending = all.clone();
        pending.retain(|i| shown(i).goal == arrival.hit.settings.default_goal && shown(i).state == State::Pending);
        if pending.is_empty() { all } else { pending }
    }

    /// The conversion that an earlier hit with the same meaning made or changed.
    fn repeated(&self, owner: &Owner, says: &Says<'_>, window_s: u32) -> Option<usize> {
        let meaning = says.meaning();
        let (ts, receipt) = (says.arrival.hit.reading.ts, says.arrival.receipt);
        let same = |earlier: &&Counted| match (ts, earlier.ts) {
            (Some(ts), Some(before)) => ts == before,
            _ => receipt.since(earlier.receipt).abs() <= i64::from(window_s) * 1_000,
        };
        self.counted
            .iter()
            .filter(|c| self.conversions[c.conversion].owner == *owner && c.tid.is_none() && c.meaning == meaning)
            .filter(same)
            .map(|c| c.conversion)
            .min()
    }

    /// An explicit status after that of exactly one pending conversion of its goal.
    fn only_pending(&self, owner: &Owner, says: &Says<'_>) -> Option<usize> {
        let state = says.arrival.hit.reading.state?;
        let mut pending = self.on(owner);
        pending.retain(|i| {
            let c = &self.conversions[*i].shown;
            let player = &says.arrival.hit.reading.player;
            c.goal == says.goal && c.state == State::Pending && c.count > 0 && may_be_of(&c.player, player)
        });
        match pending[..] {
            [i] if state != State::Pending && self.is_newer(i, says.arrival) => Some(i),
            _ => None,
        }
    }

    fn is_newer(&self, i: usize, arrival: &Arrival) -> bool {
        let (old_ts, old_receipt) = self.conversions[i].state_from;
        match (arrival.hit.reading.ts, old_ts) {
            (Some(new), Some(old)) if new != old => new > old,
            _ => arrival.receipt >= old_receipt,
        }
    }

    /// A repeat says once more what the state is, so an older statement does not follow it.
    fn heard_again(&mut self, i: usize, arrival: &Arrival) {
        let newer = self.is_newer(i, arrival);
        let conversion = &mut self.conversions[i];
        let known = [conversion.shown.state, conversion.said_state];
        match arrival.hit.reading.state {
            Some(State::Pending) if conversion.said_state != State::Pending => {}
            Some(state) if newer && known.contains(&state) => conversion.heard(state, newer, arrival),
            _ => {}
        }
    }

    fn duplicate(&self, i: usize, reason: Option<Reason>) -> GoalSeen {
        GoalSeen { outcome: Status::Duplicate, reason, conversion: Some(self.conversions[i].shown.clone()) }
    }

    fn make(&mut self, owner: &Owner, says: &Says<'_>, out: &mut OracleOutcome) -> GoalSeen {
        let (reading, settings) = (&says.arrival.hit.reading, &says.arrival.hit.settings);

        let others = self.on(owner);
        let clicked = match owner {
            Owner::Click(i) => Some(self.clicks[*i].click.time),
            Owner::Label { .. } => None,
        };
        let when = says.arrival.when(clicked);
        let reason = match clicked {
            _ if others.len() >= CONVERSIONS_PER_CLICK => Some(Reason::TooMany),
            None => None,
            Some(clicked) => {
                let end = match others.iter().map(|i| self.conversions[*i].shown.time).max() {
                    None => clicked.plus_days(settings.lookback_days),
                    Some(last) => last.plus_days(settings.lifetime_days),
                };
                // A click that could still have its first conversion takes a later one too.
                let end = end.max(clicked.plus_days(settings.lookback_days));
                (when > end).then_some(Reason::ExpiredClick)
            }
        };
        if let Some(reason) = reason {
            let reason = Some(reason);
            return GoalSeen { outcome: Status::Rejected, reason, conversion: None };
        }
        let takes_back = says.money.earning.is_some_and(Amount::is_negative);
        let negative = |amount: Option<Amount>| amount.into_iter().filter(|a| a.is_negative()).collect::<Vec<_>>();
        let positive = |amount: Option<Amount>| amount.filter(|a| !a.is_negative());
        let shown = Shown {
            version: 1,
            goal: says.goal.to_owned(),
            count: if takes_back { 0 } else { says.count },
            state: says.state(),
            earning: says.money.earning,
            value: says.money.value,
            currency: reading.currency.unwrap_or(Currency::EUR),
            tid: reading.tid.clone(),
            player: reading.player.clone(),
            time: when,
        };
        self.conversions.push(Conversion {
            owner: owner.clone(),
            account: says.arrival.hit.account.clone(),
            made_by: says.arrival.id,
            shown: shown.clone(),
            said_state: says.state(),
            said_earning: positive(says.money.earning),
            said_value: positive(says.money.value),
            taken: [negative(says.money.earning), negative(says.money.value)],
            state_from: (reading.ts, says.arrival.receipt),
        });
        let made = self.conversions.len() - 1;
        self.count(made, says);
        self.waiting_rejections(made, out);
        let unmapped = reading.unmapped.then_some(Reason::UnmappedStatus);
        let reason = [unmapped, says.money.problem].into_iter().flatten().min();
        GoalSeen { outcome: Status::Converted, reason, conversion: Some(shown) }
    }

    /// Waiting rejections that fit the conversion just made.
    fn waiting_rejections(&mut self, made: usize, out: &mut OracleOutcome) {
        let owner = self.conversions[made].owner.clone();
        let fits = |w: &Waiting| {
            w.on.as_ref() == Some(&owner) && !self.over(w.until) && self.fitting(&w.arrival, &owner) == [made]
        };
        let Some(at) = self.waiting.iter().position(fits) else { return };
        let arrival = self.waiting.remove(at).arrival;
        let goal = self.reject(made, &arrival);
        let seen = self.whole(&arrival, Some(&owner), goal.outcome, goal.reason);
        put(out, super::HitSeen { goals: vec![goal], ..seen });
        self.waiting_rejections(made, out);
    }

    /// A waiting rejection is taken whatever the times; it says nothing else.
    fn reject(&mut self, i: usize, arrival: &Arrival) -> GoalSeen {
        let newer = self.is_newer(i, arrival);
        let conversion = &mut self.conversions[i];
        if conversion.shown.state == State::Rejected {
            conversion.heard(State::Rejected, newer, arrival);
            return self.duplicate(i, Some(Reason::Duplicate));
        }
        conversion.shown.state = State::Rejected;
        conversion.shown.version += 1;
        conversion.heard(State::Rejected, newer, arrival);
        let shown = conversion.shown.clone();
        self.count(i, &Says { arrival, goal: &shown.goal, count: 1, money: &arrival.hit.reading.money });
        GoalSeen { outcome: Status::Updated, reason: None, conversion: Some(shown) }
    }

    fn count(&mut self, conversion: usize, says: &Says<'_>) {
        let reading = &says.arrival.hit.reading;
        self.counted.push(Counted {
            conversion,
            meaning: says.meaning(),
            tid: reading.tid.clone(),
            ts: reading.ts,
            receipt: says.arrival.receipt,
        });
    }

    fn update(&mut self, i: usize, says: &Says<'_>, out: &mut OracleOutcome) -> GoalSeen {
        let reading = &says.arrival.hit.reading;
        if reading.unmapped {
            return self.duplicate(i, Some(Reason::UnmappedStatus));
        }
        let newer = self.is_newer(i, says.arrival);
        let conversion = &mut self.conversions[i];
        let before = conversion.shown.clone();
        let refused = match reading.state {
            None => false,
            Some(_) if !newer => true,
            Some(State::Pending) if conversion.said_state != State::Pending => true,
            Some(state) => {
                // Who repeats himself does not undo what was corrected by hand.
                if state != conversion.said_state {
                    conversion.shown.state = state;
                }
                conversion.heard(state, newer, says.arrival);
                false
            }
        };
        let said = (conversion.said_earning, conversion.said_value);
        let problem = conversion.money(says.money, reading.currency, refused).or(says.money.problem);
        let takes_back = says.money.earning.is_some_and(Amount::is_negative);
        let first = before.count == 0 && !takes_back;
        if first {
            conversion.shown.count = says.count;
        }
        if conversion.shown == before {
            (conversion.said_earning, conversion.said_value) = said;
            return self.duplicate(i, problem.into_iter().chain([Reason::Duplicate]).min());
        }
        conversion.shown.version += 1;
        let shown = conversion.shown.clone();
        self.count(i, says);
        let outcome = if first { Status::Converted } else { Status::Updated };
        if first {
            self.waiting_rejections(i, out);
        }
        GoalSeen { outcome, reason: problem, conversion: Some(shown) }
    }
}

/// Of several reasons of a repeat the first in the order of the codes.
fn first_reason(arrival: &Arrival, reason: Reason) -> Reason {
    if arrival.hit.reading.unmapped { reason.min(Reason::UnmappedStatus) } else { reason }
}

/// A conversion of one player is not meant by a hit of another.
fn may_be_of(conversion: &Option<String>, hit: &Option<String>) -> bool {
    conversion.is_none() || hit.is_none() || conversion == hit
}

impl Conversion {
    /// Remembers what the sender said of the state.
    fn heard(&mut self, state: State, newer: bool, arrival: &Arrival) {
        self.said_state = state;
        if newer {
            let (ts, receipt) = self.state_from;
            self.state_from = (arrival.hit.reading.ts.or(ts), receipt.max(arrival.receipt));
        }
    }

    /// Negative amounts are added once each, others replace what the sender said before.
    fn money(&mut self, money: &Money, currency: Option<Currency>, refused: bool) -> Option<Reason> {
        let positive = |amount: Option<Amount>| amount.filter(|a| !a.is_negative());
        if money.earning.is_none() && money.value.is_none() {
            return None;
        }
        let currency = currency.unwrap_or(self.shown.currency);
        if currency != self.shown.currency {
            let nothing = self.shown.earning.is_none() && self.shown.value.is_none();
            let restates = |known: Option<Amount>, new: Option<Amount>| known.is_none() || new.is_some();
            let whole = restates(self.shown.earning, money.earning)
                && restates(self.shown.value, money.value)
                && [money.earning, money.value].into_iter().flatten().all(|a| !a.is_negative())
                && self.taken.iter().all(Vec::is_empty);
            if !nothing && (!whole || refused) {
                return Some(Reason::InvalidCurrency);
            }
            self.shown.currency = currency;
            (self.said_earning, self.said_value) = (None, None);
        }
        // What is refused replaces nothing, but it may bring what was missing.
        if !refused || self.said_earning.is_none() {
            restate(&mut self.shown.earning, &mut self.said_earning, &self.taken[0], positive(money.earning));
        }
        if !refused || self.said_value.is_none() {
            restate(&mut self.shown.value, &mut self.said_value, &self.taken[1], positive(money.value));
        }
        take_back(&mut self.shown.earning, &mut self.taken[0], money.earning);
        take_back(&mut self.shown.value, &mut self.taken[1], money.value);
        None
    }
}

fn restate(shown: &mut Option<Amount>, said: &mut Option<Amount>, taken: &[Amount], new: Option<Amount>) {
    if new.is_some() && new != *said {
        *said = new;
        *shown = taken.iter().fold(new, |sum, amount| sum.and_then(|s| s.plus(*amount)));
    }
}

fn take_back(shown: &mut Option<Amount>, taken: &mut Vec<Amount>, new: Option<Amount>) {
    let Some(amount) = new.filter(|a| a.is_negative()) else { return };
    if !taken.contains(&amount) {
        taken.push(amount);
        *shown = shown.unwrap_or(Amount::ZERO).plus(amount);
    }
}

impl Says<'_> {
    /// A hit without a status is an approved one; a word that no map knows is a pending one.
    fn state(&self) -> State {
        let reading = &self.arrival.hit.reading;
        reading.state.unwrap_or(if reading.unmapped { State::Pending } else { State::Approved })
    }
    fn meaning(&self) -> Meaning {
        let reading = &self.arrival.hit.reading;
        Meaning {
            goal: self.goal.to_owned(),
            count: self.count,
            state: reading.state,
            earning: self.money.earning,
            value: self.money.value,
            currency: reading.currency,
            player: reading.player.clone(),
        }
    }
}
