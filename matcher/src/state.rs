//! What one partition remembers: clicks, names, labels, waiting hits, runs, log time.
//!
//! Owns: the working set in memory, what of it changed since it was last saved, and how a batch is taken back.
//! Refuses: I/O (the store loads what an event needs before it is decided) and decisions.
//! Invariant: after `rollback` the state is what it was at `begin`; nothing that a record depends on is iterated
//! in hash order.

use std::{collections::BTreeMap, hash::Hash, sync::Arc};

use foldhash::HashMap;

use schemas::{
    ClickId, EventId, Time,
    bounds::RUN_MEMORY_MS,
    event::{HitSettings, Name, Reading},
    time::DAY_MS,
};
use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, Owner};

/// A click as decisions need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Click {
    pub home: Arc<Home>,
    pub time: Time,
    pub dyn_: Option<Arc<str>>,
    pub foreign: Option<Arc<str>>,
    pub subs: [Option<Arc<str>>; 5],
    pub alias: Option<Arc<str>>,
    /// Position of the last event that concerned it.
    pub touched: u64,
    pub ledger: Ledger,
    /// Rejections that wait for a conversion of this click.
    pub waiting: Vec<Arc<Waiting>>,
}

/// What many clicks have in common; stored once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Home {
    pub tenant: String,
    pub account: String,
    pub program: String,
    pub link: Option<String>,
    pub lookback_days: u16,
    pub waiting_days: u16,
}

impl Click {
    /// Converted clicks are found for ever, others until look-back and waiting time are over.
    pub fn is_visible(&self, log_time: Time) -> bool {
        !self.ledger.entries.is_empty() || log_time <= self.visible_until()
    }
    pub fn visible_until(&self) -> Time {
        self.time.plus_ms(i64::from(self.home.lookback_days + self.home.waiting_days) * DAY_MS)
    }
    pub fn owner<'a>(&'a self, name: &'a str) -> Owner<'a> {
        Owner { tenant: &self.home.tenant, account: &self.home.account, name, clicked: Some(self.time) }
    }
}

/// What an alias, or a click id that has not come yet, stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Clicks of an alias in log order.
    pub clicks: Vec<NamedClick>,
    pub waiting: Vec<Arc<Waiting>>,
    pub touched: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedClick {
    pub id: ClickId,
    pub time: Time,
    pub converted: bool,
}

/// A `dyn` that labels many clicks: conversions without a click.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Label {
    pub touched: u64,
    pub ledger: Ledger,
    pub waiting: Vec<Arc<Waiting>>,
}

/// A hit that waits for its click, or a rejection that waits for its conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub id: EventId,
    pub time: Time,
    pub until: Time,
    /// Position of the event that made it wait: hits are woken in the order of the log.
    pub arrived: u64,
    pub tenant: String,
    pub account: String,
    pub program: String,
    #[serde(with = "as_json")]
    pub reading: Reading,
    #[serde(with = "as_json")]
    pub settings: HitSettings,
}

/// Parts of records leave out fields that are absent, which a format without field names cannot read back.
mod as_json {
    use serde::{Deserialize, Deserializer, Serializer, de::DeserializeOwned};

    pub fn serialize<T: serde::Serialize, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&serde_json::to_string(value).map_err(serde::ser::Error::custom)?)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        serde_json::from_str(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// An alias or label within its account; a click id is unique by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    Click(ClickId),
    Alias(Arc<str>),
    Label(Arc<str>),
}

impl Key {
    pub fn of(tenant: &str, account: &str, name: &Name) -> Key {
        match name {
            Name::Click(id) => Key::Click(*id),
            Name::Alias(text) => Key::alias(tenant, account, text),
            Name::Label(text) => Key::Label(scoped(tenant, account, text)),
        }
    }
    pub fn alias(tenant: &str, account: &str, text: &str) -> Key {
        Key::Alias(scoped(tenant, account, text))
    }
    /// The alias or label as the account knows it.
    pub fn text(&self) -> &str {
        match self {
            Key::Click(_) => "",
            Key::Alias(text) | Key::Label(text) => text.rsplit('\0').next().unwrap_or_default(),
        }
    }
}

fn scoped(tenant: &str, account: &str, text: &str) -> Arc<str> {
    [tenant, "\0", account, "\0", text].concat().into()
}

/// Where a hit waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under a name, for its click.
    Name(Key),
    /// On a click or label, for its conversion.
    Ledger(Key),
}

/// Sequence numbers that came from one ingest run, as ranges with both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub ranges: Vec<(u64, u64)>,
    pub last: Time,
}

impl Run {
    pub fn contains(&self, n: u64) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&n))
    }
    pub fn insert(&mut self, n: u64) {
        let at = self.ranges.partition_point(|(from, _)| *from <= n);
        if at > 0 && self.ranges[at - 1].1 + 1 >= n {
            self.ranges[at - 1].1 = self.ranges[at - 1].1.max(n);
        } else {
            self.ranges.insert(at, (n, n));
        }
        let at = at.saturating_sub(1);
        if at + 1 < self.ranges.len() && self.ranges[at].1 + 1 == self.ranges[at + 1].0 {
            self.ranges[at].1 = self.ranges[at + 1].1;
            self.ranges.remove(at + 1);
        }
    }
}

/// Changed records with their values, `None` for one that is gone.
pub type Changed<K, V> = HashMap<K, Option<Arc<V>>>;

/// Records by key: what is loaded, what changed since the last save, and what to put back on rollback.
#[derive(Debug)]
pub struct Records<K, V> {
    /// `None`: known not to exist.
    loaded: HashMap<K, Option<Arc<V>>>,
    /// Holds the values too, so that handing them over to be saved takes no time that a commit would wait for.
    dirty: Changed<K, V>,
    undo: Vec<(K, Option<Option<Arc<V>>>)>,
}

impl<K, V> Default for Records<K, V> {
    fn default() -> Self {
        Self { loaded: HashMap::default(), dirty: HashMap::default(), undo: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Records<K, V> {
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.loaded.get(key).and_then(Option::as_ref)
    }
    pub fn is_loaded(&self, key: &K) -> bool {
        self.loaded.contains_key(key)
    }
    /// What the store holds; not a change.
    pub fn load(&mut self, key: K, value: Option<V>) {
        self.loaded.entry(key).or_insert_with(|| value.map(Arc::new));
    }
    pub fn set(&mut self, key: K, value: Option<Arc<V>>) {
        let before = self.loaded.insert(key.clone(), value.clone());
        self.dirty.insert(key.clone(), value);
        self.undo.push((key, before));
    }
    /// Changed records since the last call, with their present values.
    pub fn take_dirty(&mut self) -> Changed<K, V> {
        std::mem::take(&mut self.dirty)
    }
    /// What was taken and could not be saved; what changed again in the meantime is newer.
    pub fn put_back(&mut self, unsaved: Changed<K, V>) {
        for (key, value) in unsaved {
            self.dirty.entry(key).or_insert(value);
        }
    }
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }
    pub fn len(&self) -> usize {
        self.loaded.len()
    }
    pub fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }
    /// Forgets clean records until at most `limit` are left; `keep` says which must stay.
    pub fn evict(&mut self, limit: usize, keep: impl Fn(&K, Option<&V>) -> bool) {
        let mut surplus = self.loaded.len().saturating_sub(limit);
        if surplus == 0 {
            return;
        }
        let dirty = &self.dirty;
        self.loaded.retain(|key, value| {
            let stays = surplus == 0 || dirty.contains_key(key) || keep(key, value.as_deref());
            if !stays {
                surplus -= 1;
            }
            stays
        });
    }
    fn begin(&mut self) {
        self.undo.clear();
    }
    #[cfg(test)]
    pub fn undo_len(&self) -> usize {
        self.undo.len()
    }
    fn rollback(&mut self) {
        for (key, before) in self.undo.drain(..).rev() {
            match before {
                // It stays among the changes, with its old value: saving a record once more is harmless, forgetting
                // one is not.
                Some(before) => {
                    self.loaded.insert(key.clone(), before.clone());
                    self.dirty.insert(key, before);
                }
                // Nobody knows what the store holds of it.
                None => {
                    self.loaded.remove(&key);
                    self.dirty.remove(&key);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub meta: Meta,
    pub clicks: Records<ClickId, Click>,
    pub names: Records<Key, Named>,
    pub labels: Records<Key, Label>,
    pub runs: Records<EventId, Run>,
    queue: Queue,
    meta_before: Meta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub rules: u32,
    /// 1970 until the first tick.
    pub log_time: Time,
}

impl Default for Meta {
    fn default() -> Self {
        Self { rules: 1, log_time: Time::from_ms(0) }
    }
}

/// All waiting hits by the time at which they expire. Bounded by `WAITING_PER_ACCOUNT`.
#[derive(Clone, Debug, Default)]
struct Queue {
    due: BTreeMap<(Time, EventId), Place>,
    until: HashMap<EventId, Time>,
    per_account: HashMap<(String, String), u32>,
    undo: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Entered(Arc<Waiting>),
    Left(Place, Arc<Waiting>),
}

impl Queue {
    fn enter(&mut self, place: Place, hit: &Waiting) {
        self.due.insert((hit.until, hit.id), place);
        self.until.insert(hit.id, hit.until);
        *self.per_account.entry((hit.tenant.clone(), hit.account.clone())).or_default() += 1;
    }
    fn leave(&mut self, hit: &Waiting) {
        self.due.remove(&(hit.until, hit.id));
        self.until.remove(&hit.id);
        if let Some(count) = self.per_account.get_mut(&(hit.tenant.clone(), hit.account.clone())) {
            *count = count.saturating_sub(1);
        }
    }
    fn rollback(&mut self) {
        for step in std::mem::take(&mut self.undo).into_iter().rev() {
            match step {
                Step::Entered(hit) => self.leave(&hit),
                Step::Left(place, hit) => self.enter(place, &hit),
            }
        }
    }
}

impl State {
    /// Starts a batch that `rollback` can take back.
    pub fn begin(&mut self) {
        self.clicks.begin();
        self.names.begin();
        self.labels.begin();
        self.runs.begin();
        self.queue.undo.clear();
        self.meta_before = self.meta;
    }

    /// Records that changed since the last save.
    pub fn dirty_len(&self) -> usize {
        self.clicks.dirty_len() + self.names.dirty_len() + self.labels.dirty_len()
    }

    /// Takes back everything since `begin`.
    pub fn rollback(&mut self) {
        self.clicks.rollback();
        self.names.rollback();
        self.labels.rollback();
        self.runs.rollback();
        self.queue.rollback();
        self.meta = self.meta_before;
    }

    pub fn waiting_of_account(&self, tenant: &str, account: &str) -> u32 {
        self.queue.per_account.get(&(tenant.to_owned(), account.to_owned())).copied().unwrap_or(0)
    }

    /// Waiting hits whose time is over, the earliest first.
    pub fn due(&self, log_time: Time) -> impl Iterator<Item = (EventId, &Place)> {
        self.queue.due.iter().take_while(move |((until, _), _)| *until <= log_time).map(|((_, id), place)| (*id, place))
    }

    pub fn place_of(&self, hit: EventId) -> Option<&Place> {
        let until = self.queue.until.get(&hit)?;
        self.queue.due.get(&(*until, hit))
    }

    pub fn waiting_at(&self, place: &Place) -> &[Arc<Waiting>] {
        match place {
            Place::Name(key) => self.names.get(key).map_or(&[], |n| &n.waiting),
            Place::Ledger(Key::Click(id)) => self.clicks.get(id).map_or(&[], |c| &c.waiting),
            Place::Ledger(key) => self.labels.get(key).map_or(&[], |l| &l.waiting),
        }
    }

    pub fn waiting(&self, hit: EventId) -> Option<(Place, Arc<Waiting>)> {
        let place = self.place_of(hit)?.clone();
        let found = self.waiting_at(&place).iter().find(|w| w.id == hit)?.clone();
        Some((place, found))
    }

    pub fn add_waiting(&mut self, place: Place, hit: Arc<Waiting>) {
        self.queue.enter(place.clone(), &hit);
        self.queue.undo.push(Step::Entered(hit.clone()));
        self.edit_waiting(&place, |waiting| waiting.push(hit));
    }

    /// Enters a hit that is stored already into the expiry queue, when a state is loaded.
    pub fn index_waiting(&mut self, place: Place, hit: &Waiting) {
        self.queue.enter(place, hit);
    }

    pub fn remove_waiting(&mut self, hit: EventId) -> Option<(Place, Arc<Waiting>)> {
        let (place, found) = self.waiting(hit)?;
        self.queue.leave(&found);
        self.queue.undo.push(Step::Left(place.clone(), found.clone()));
        self.edit_waiting(&place, |waiting| waiting.retain(|w| w.id != hit));
        Some((place, found))
    }

    fn edit_waiting(&mut self, place: &Place, edit: impl FnOnce(&mut Vec<Arc<Waiting>>)) {
        match place {
            Place::Name(key) => self.edit_name(key, |n| edit(&mut n.waiting)),
            Place::Ledger(Key::Click(id)) => self.edit_click(*id, |c| edit(&mut c.waiting)),
            Place::Ledger(key) => self.edit_label(key, |l| edit(&mut l.waiting)),
        }
    }

    pub fn edit_click(&mut self, id: ClickId, edit: impl FnOnce(&mut Click)) {
        if let Some(click) = self.clicks.get(&id) {
            let mut click = Click::clone(click);
            edit(&mut click);
            self.clicks.set(id, Some(Arc::new(click)));
        }
    }

    pub fn edit_name(&mut self, key: &Key, edit: impl FnOnce(&mut Named)) {
        let mut named = self.names.get(key).map(|n| Named::clone(n)).unwrap_or_default();
        edit(&mut named);
        let gone = named.clicks.is_empty() && named.waiting.is_empty();
        self.names.set(key.clone(), (!gone).then(|| Arc::new(named)));
    }

    pub fn edit_label(&mut self, key: &Key, edit: impl FnOnce(&mut Label)) {
        let mut label = self.labels.get(key).map(|l| Label::clone(l)).unwrap_or_default();
        edit(&mut label);
        self.labels.set(key.clone(), Some(Arc::new(label)));
    }

    /// The numbers of a run, unless it was silent for so long that they are forgotten.
    pub fn run(&self, from: EventId) -> Option<&Arc<Run>> {
        self.runs.get(&from).filter(|run| self.meta.log_time.since(run.last) <= RUN_MEMORY_MS)
    }

    pub fn see(&mut self, from: EventId, n: u64) {
        let mut run = self.run(from).map(|r| Run::clone(r)).unwrap_or_default();
        run.insert(n);
        // Before the first tick log time stands at 1970; the run's own start keeps it from being forgotten at once.
        run.last = self.meta.log_time.max(from.time());
        self.runs.set(from, Some(Arc::new(run)));
    }
}
