//! The conversions of one click or one label: what is remembered, and how an outcome changes it.
//!
//! Owns: the memory that deduplication needs. Refuses to decide: that is `credit`.
//! Invariant: a ledger changes only through `Ledger::take` and `Ledger::adjust`, with an outcome that was decided.

use std::sync::Arc;

use schemas::{
    Amount, ConversionId, Currency, EventId, Time,
    bounds::SEEN_PER_CONVERSION,
    event::{GoalReading, HitSettings, Money, Reading},
    goal::{Dedup, depth},
    outcome::{Conversion, GoalOutcome, Status},
    status::State,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The conversions of one click or label, in the order in which they were made. Each event changes one or none, and
/// every copy of the ledger shares the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    pub entries: Vec<Arc<Entry>>,
}

/// A conversion, with what is needed to recognise repeats of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub id: ConversionId,
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
    pub withdrawn: bool,
    /// The hit that made it.
    pub hit: EventId,
    /// What the sender last said, hand adjustments aside: a repeat of it changes nothing.
    pub sent: Sent,
    /// Hits without a transaction id that made or changed it.
    pub seen: Vec<Seen>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub state: State,
    pub state_ts: Option<Time>,
    pub state_at: Time,
    /// The last earning that was not a chargeback.
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    /// Chargebacks, each amount once.
    pub charged: Vec<Amount>,
    pub returned: Vec<Amount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub hit: EventId,
    pub meaning: u64,
    pub ts: Option<Time>,
    pub at: Time,
}

/// Whose ledger it is, as far as the rules need it.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub tenant: &'a str,
    pub account: &'a str,
    /// The click id or the label, for the conversion's id.
    pub name: &'a str,
    /// `None` for a label: it has no look-back.
    pub clicked: Option<Time>,
}

/// One hit, as far as a ledger needs it.
#[derive(Clone, Copy, Debug)]
pub struct HitFacts<'a> {
    pub id: EventId,
    pub time: Time,
    pub reading: &'a Reading,
    pub settings: &'a HitSettings,
}

impl HitFacts<'_> {
    /// The conversion's time: what the sender says, unless that is before the click.
    pub fn conversion_time(&self, clicked: Option<Time>) -> Time {
        match self.reading.ts {
            Some(ts) if clicked.is_none_or(|click| ts >= click) => ts,
            _ => self.time,
        }
    }
    pub fn currency(&self) -> Currency {
        self.reading.currency.unwrap_or(Currency::EUR)
    }
    /// The state that the sender states in so many words.
    pub fn stated(&self) -> Option<State> {
        self.reading.state
    }
    pub fn initial_state(&self) -> State {
        match self.reading.state {
            Some(state) => state,
            None if self.reading.unmapped => State::Pending,
            None => State::Approved,
        }
    }
}

impl Entry {
    pub fn public(&self) -> Conversion {
        Conversion {
            id: self.id,
            version: self.version,
            goal: self.goal.clone(),
            count: self.count,
            state: self.state,
            earning: self.earning,
            value: self.value,
            currency: self.currency,
            tid: self.tid.clone(),
            player: self.player.clone(),
            time: self.time,
            withdrawn: self.withdrawn,
        }
    }
}

impl Ledger {
    pub fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|e| &**e).filter(|e| !e.withdrawn)
    }
    pub fn by_id(&self, id: ConversionId) -> Option<&Entry> {
        self.entries.iter().map(|e| &**e).find(|e| e.id == id)
    }
    pub fn last_time(&self) -> Option<Time> {
        self.live().map(|e| e.time).max()
    }

    /// The one way in which a hit changes a ledger, live and in recovery: `outcome` says what was decided.
    pub fn take(&mut self, owner: Owner, hit: HitFacts, goal: &GoalReading, outcome: &GoalOutcome) {
        let Some(after) = &outcome.conversion else { return };
        let changed = matches!(outcome.outcome, Status::Converted | Status::Updated);
        let at = self.entries.iter().position(|e| e.id == after.id).unwrap_or_else(|| {
            self.entries.push(Arc::new(new_entry(hit, after)));
            self.entries.len() - 1
        });
        let entry = Arc::make_mut(&mut self.entries[at]);
        if entry.withdrawn && changed {
            *entry = new_entry(hit, after);
        }
        let state_before = entry.state;
        if changed {
            entry.remember_money(hit, &goal.money, after);
            entry.version = after.version;
            (entry.count, entry.state) = (after.count, after.state);
            (entry.earning, entry.value, entry.currency) = (after.earning, after.value, after.currency);
        }
        let stated_here = changed && entry.state != state_before;
        // What another transaction says is no statement about this conversion.
        if !entry.is_of_other_transaction(hit) {
            entry.remember_state(hit, stated_here);
        }
        if changed && hit.reading.tid.is_none() && policy(owner, hit, goal) == Dedup::PerTransaction {
            entry.seen.push(Seen { hit: hit.id, meaning: meaning(hit, goal), ts: hit.reading.ts, at: hit.time });
            let surplus = entry.seen.len().saturating_sub(SEEN_PER_CONVERSION);
            entry.seen.drain(..surplus);
        }
    }

    /// A correction by hand: what the sender said stays remembered, so that its repeats do not undo the hand.
    pub fn adjust(&mut self, after: &Conversion) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.id == after.id).map(Arc::make_mut) {
            entry.version = after.version;
            (entry.state, entry.earning, entry.value) = (after.state, after.earning, after.value);
        }
    }
}

fn new_entry(hit: HitFacts, after: &Conversion) -> Entry {
    Entry {
        id: after.id,
        version: after.version,
        goal: after.goal.clone(),
        count: after.count,
        state: after.state,
        earning: None,
        value: None,
        currency: after.currency,
        tid: after.tid.clone(),
        player: after.player.clone(),
        time: after.time,
        withdrawn: false,
        hit: hit.id,
        sent: Sent {
            state: after.state,
            state_ts: hit.reading.ts,
            state_at: hit.time,
            earning: None,
            value: None,
            charged: Vec::new(),
            returned: Vec::new(),
        },
        seen: Vec::new(),
    }
}

impl Entry {
    /// Notes money that became part of the conversion; `after` tells whether it did.
    fn remember_money(&mut self, hit: HitFacts, money: &Money, after: &Conversion) {
        if hit.currency() != after.currency {
            return;
        }
        let stale = self.is_stale(hit);
        let taken = |sent: Option<Amount>, stated: Option<Amount>| {
            sent.filter(|amount| amount.is_negative() || !stale || stated.is_none())
        };
        let (earning, value) = (taken(money.earning, self.sent.earning), taken(money.value, self.sent.value));
        remember(earning, self.earning, after.earning, &mut self.sent.earning, &mut self.sent.charged);
        remember(value, self.value, after.value, &mut self.sent.value, &mut self.sent.returned);
    }

    /// The newest statement of a state counts, also where it repeats the state: an older one that comes late
    /// must not undo it. A rejection that waited is taken whatever its time, so that a later approval is news.
    fn remember_state(&mut self, hit: HitFacts, taken: bool) {
        let Some(state) = hit.stated() else { return };
        let stale = self.is_stale(hit);
        if taken && state == self.state {
            self.sent.state = state;
        }
        if !stale && (state == self.state || state == self.sent.state) {
            self.sent.state = state;
            self.sent.state_ts = hit.reading.ts.or(self.sent.state_ts);
            self.sent.state_at = self.sent.state_at.max(hit.time);
        }
    }

    /// `pending` never follows a decision, and an older statement never replaces a newer one: neither its state nor
    /// its money, as a late retry of the first word would undo the last.
    pub fn is_stale(&self, hit: HitFacts) -> bool {
        hit.stated().is_some_and(|stated| {
            (stated == State::Pending && self.sent.state != State::Pending) || !self.is_newer(hit)
        })
    }

    /// A conversion of one player is not meant by a hit of another.
    pub fn may_be_of(&self, player: &Option<String>) -> bool {
        may_be_same(&self.player, player)
    }

    pub fn is_of_other_transaction(&self, hit: HitFacts) -> bool {
        matches!((&self.tid, &hit.reading.tid), (Some(made), Some(tid)) if made != tid)
    }

    /// Whether this hit's statement replaces the last one: by `ts` where both have one and they differ, else by receipt.
    pub fn is_newer(&self, hit: HitFacts) -> bool {
        match (self.sent.state_ts, hit.reading.ts) {
            (Some(known), Some(ts)) if known != ts => ts > known,
            _ => hit.time >= self.sent.state_at,
        }
    }
}

fn remember(
    sent: Option<Amount>,
    before: Option<Amount>,
    after: Option<Amount>,
    stated: &mut Option<Amount>,
    charged: &mut Vec<Amount>,
) {
    match sent {
        Some(amount) if amount.is_negative() => {
            let expected = before.unwrap_or_default().plus(amount);
            if !charged.contains(&amount) && after == expected && after.is_some() {
                charged.push(amount);
            }
        }
        Some(amount) if with_charges(amount, charged) == after => *stated = Some(amount),
        _ => {}
    }
}

pub fn with_charges(amount: Amount, charged: &[Amount]) -> Option<Amount> {
    charged.iter().try_fold(amount, |sum, charge| sum.plus(*charge))
}

pub fn may_be_same(made: &Option<String>, sent: &Option<String>) -> bool {
    made.is_none() || sent.is_none() || made == sent
}

/// The policy that holds here. A label stands for many visitors: without a player a hit of a `once` goal does not
/// say which of them it means, so every one counts, and repeats are told as of transactions.
pub fn policy(owner: Owner, hit: HitFacts, goal: &GoalReading) -> Dedup {
    match goal.dedup {
        Dedup::Once if owner.clicked.is_none() && hit.reading.player.is_none() => Dedup::PerTransaction,
        dedup => dedup,
    }
}

/// Hash of the key: (click or label, goal, and per policy the player, the transaction id, or the hit itself).
pub fn conversion_id(owner: Owner, hit: HitFacts, goal: &GoalReading) -> ConversionId {
    let hit_text;
    let (policy, key) = match (policy(owner, hit, goal), &hit.reading.tid) {
        (Dedup::Once, _) => match &hit.reading.player {
            Some(player) => ("player", player.as_str()),
            None => ("once", ""),
        },
        (Dedup::PerTransaction, Some(tid)) => ("tid", tid.as_str()),
        _ => {
            hit_text = hit.id.to_string();
            ("hit", hit_text.as_str())
        }
    };
    let mut hash = Sha256::new();
    let kind = if owner.clicked.is_some() { "click" } else { "label" };
    for part in [owner.tenant, owner.account, kind, owner.name, &goal.goal, policy, key] {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    ConversionId(id)
}

/// Goal, count, state, earning, value, currency and player: what makes two hits say the same.
pub fn meaning(hit: HitFacts, goal: &GoalReading) -> u64 {
    let mut hash = Sha256::new();
    let mut put = |part: Option<&str>| {
        hash.update((part.map_or(u32::MAX, |p| p.len() as u32)).to_be_bytes());
        hash.update(part.unwrap_or_default());
    };
    put(Some(&goal.goal));
    put(Some(&goal.count.to_string()));
    put(hit.stated().map(State::code));
    put(goal.money.earning.map(|a| a.to_string()).as_deref());
    put(goal.money.value.map(|a| a.to_string()).as_deref());
    put(Some(hit.currency().code()));
    put(hit.reading.player.as_deref());
    let digest = hash.finalize();
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// The deepest goal of a hit: the one that decides which click of an alias it belongs to.
pub fn deepest(goals: &[GoalReading]) -> Option<&GoalReading> {
    goals.iter().max_by_key(|g| depth(&g.goal))
}
