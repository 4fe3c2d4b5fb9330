//! One state of the catalog. A copy shares what it has in common with the one that it was made from, so that each
//! change costs the same however many accounts and links there are.

use std::sync::Arc;

use rpds::{HashTrieMapSync, QueueSync, RedBlackTreeMapSync, RedBlackTreeSetSync};
use schemas::{
    Time,
    catalog::{Account, Answer, ApiKey, Body, Link, Program, Record, ReprocessRequest},
    time::DAY_MS,
};

use super::{AccountEntry, LinkEntry, entry::Opened, resolve, resolve::Dialect};
use crate::{append::Applied, secrets::Sealer};

/// How long an answer is kept for its `Idempotency-Key`, and how many of them are.
const ANSWER_MS: i64 = DAY_MS;
const ANSWERS: usize = 100_000;

/// Keys are made of a tenant and what it owns, with `\0` between them: see `joined`.
#[derive(Clone)]
pub struct View {
    tenants: RedBlackTreeSetSync<String>,
    /// Version of each `tenant\0thing`.
    versions: HashTrieMapSync<String, u64>,
    accounts: HashTrieMapSync<String, Arc<AccountEntry>>,
    account_ids: RedBlackTreeSetSync<String>,
    tokens: HashTrieMapSync<String, Token>,
    /// By id alone, as a visitor brings no tenant.
    links: HashTrieMapSync<String, Arc<StoredLink>>,
    /// `tenant\0account\0link`
    link_ids: RedBlackTreeSetSync<String>,
    programs: RedBlackTreeMapSync<String, Dialect>,
    keys: RedBlackTreeMapSync<String, Arc<ApiKey>>,
    /// Hash of each key that is not revoked → `tenant\0id`.
    key_hashes: HashTrieMapSync<String, String>,
    reprocesses: RedBlackTreeMapSync<String, Arc<ReprocessRequest>>,
    answers: HashTrieMapSync<String, Arc<Answer>>,
    /// In the order of their arrival.
    answer_order: QueueSync<(Time, String)>,
}

#[derive(Clone)]
struct Token {
    account: Arc<AccountEntry>,
    /// Of an older token: the first instant at which it is not taken.
    until: Option<Time>,
}

struct StoredLink {
    tenant: String,
    record: Arc<Link>,
    version: u64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            tenants: RedBlackTreeSetSync::new_sync(),
            versions: HashTrieMapSync::new_sync(),
            accounts: HashTrieMapSync::new_sync(),
            account_ids: RedBlackTreeSetSync::new_sync(),
            tokens: HashTrieMapSync::new_sync(),
            links: HashTrieMapSync::new_sync(),
            link_ids: RedBlackTreeSetSync::new_sync(),
            programs: RedBlackTreeMapSync::new_sync(),
            keys: RedBlackTreeMapSync::new_sync(),
            key_hashes: HashTrieMapSync::new_sync(),
            reprocesses: RedBlackTreeMapSync::new_sync(),
            answers: HashTrieMapSync::new_sync(),
            answer_order: QueueSync::new_sync(),
        }
    }
}

fn joined(tenant: &str, rest: &str) -> String {
    let mut key = String::with_capacity(tenant.len() + 1 + rest.len());
    key.push_str(tenant);
    key.push('\0');
    key.push_str(rest);
    key
}

/// All keys that begin with `prefix` and `\0`.
fn below(prefix: &str) -> std::ops::Range<String> {
    format!("{prefix}\0")..format!("{prefix}\u{1}")
}

fn last_part(key: &str) -> &str {
    key.rsplit('\0').next().unwrap_or_default()
}

impl View {
    /// The account of a token that is taken at this instant; archived and paused ones too.
    pub fn by_token(&self, token: &str, now: Time) -> Option<Arc<AccountEntry>> {
        let found = self.tokens.get(token)?;
        found.until.is_none_or(|until| now < until).then(|| Arc::clone(&found.account))
    }

    pub fn account(&self, tenant: &str, id: &str) -> Option<Arc<AccountEntry>> {
        self.accounts.get(&joined(tenant, id)).cloned()
    }

    /// Sorted by id, archived ones too.
    pub fn accounts(&self, tenant: &str) -> impl Iterator<Item = Arc<AccountEntry>> {
        self.account_ids.range(below(tenant)).filter_map(|key: &String| self.accounts.get(key).cloned())
    }

    pub fn link(&self, id: &str) -> Option<Arc<LinkEntry>> {
        let link = self.links.get(id)?;
        let account = self.account(&link.tenant, &link.record.account)?;
        let (tenant, record) = (link.tenant.clone(), Arc::clone(&link.record));
        Some(Arc::new(LinkEntry { tenant, record, version: link.version, account }))
    }

    /// Sorted by id, archived ones too.
    pub fn links(&self, tenant: &str, account: &str) -> impl Iterator<Item = Arc<LinkEntry>> {
        let range = below(&joined(tenant, account));
        self.link_ids.range(range).filter_map(|key: &String| self.link(last_part(key)))
    }

    /// The tenant's own program of this id, else the built-in one.
    pub fn program(&self, tenant: &str, id: &str) -> Option<Arc<Program>> {
        self.dialect(tenant, id).map(|dialect| Arc::clone(&dialect.program))
    }

    /// Built-in and own ones, sorted by id, archived ones too.
    pub fn programs(&self, tenant: &str) -> impl Iterator<Item = Arc<Program>> {
        let own = self.programs.range(below(tenant)).map(|(_, dialect): (&String, _)| Arc::clone(&dialect.program));
        let mut all: Vec<_> = own.collect();
        let names = |id: &str, all: &[Arc<Program>]| all.iter().any(|program| program.id.eq_ignore_ascii_case(id));
        let built_in: Vec<_> = Dialect::all_built_in().filter(|dialect| !names(&dialect.program.id, &all)).collect();
        all.extend(built_in.into_iter().map(|dialect| Arc::clone(&dialect.program)));
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all.into_iter()
    }

    /// The tenant and key of a hash; never a revoked key.
    pub fn key_by_hash(&self, hash: &str) -> Option<(String, ApiKey)> {
        let key = self.key_hashes.get(hash)?;
        let (tenant, _) = key.split_once('\0')?;
        Some((tenant.to_owned(), ApiKey::clone(self.keys.get(key)?)))
    }

    /// Sorted by id, revoked ones too.
    pub fn keys(&self, tenant: &str) -> impl Iterator<Item = ApiKey> {
        self.keys.range(below(tenant)).map(|(_, key): (&String, &Arc<ApiKey>)| ApiKey::clone(key))
    }

    pub fn reprocess(&self, tenant: &str, id: &str) -> Option<Arc<ReprocessRequest>> {
        self.reprocesses.get(&joined(tenant, id)).cloned()
    }

    /// Of all tenants, those that are not done.
    pub fn open_reprocesses(&self) -> impl Iterator<Item = (String, Arc<ReprocessRequest>)> {
        self.reprocesses.iter().filter(|(_, request)| !request.done).filter_map(|(key, request)| {
            let (tenant, _) = key.split_once('\0')?;
            Some((tenant.to_owned(), Arc::clone(request)))
        })
    }

    /// Kept for 24 hours, or somewhat longer where nothing else is written: look at its time.
    pub fn answer(&self, tenant: &str, key: &str) -> Option<Arc<Answer>> {
        self.answers.get(&joined(tenant, key)).cloned()
    }

    /// The current version of a `Body::thing()`; 0 if there is none.
    pub fn version(&self, tenant: &str, thing: &str) -> u64 {
        self.versions.get(&joined(tenant, thing)).copied().unwrap_or(0)
    }

    /// Sorted.
    pub fn tenants(&self) -> impl Iterator<Item = String> {
        self.tenants.iter().cloned()
    }

    fn dialect(&self, tenant: &str, id: &str) -> Option<&Dialect> {
        self.programs.get(&joined(tenant, id)).or_else(|| Dialect::built_in(id))
    }

    /// Applies the next record. The problem, if there is one, is of what the record says and not of its version:
    /// the record counts all the same, as it does for every reader.
    pub(super) fn apply(&mut self, record: &Record, sealer: &Sealer) -> (Applied, Option<anyhow::Error>) {
        let thing = joined(&record.tenant, &record.body.thing());
        self.forget_answers(record.time);
        let version = self.versions.get(&thing).copied().unwrap_or(0);
        if record.base != version || self.is_of_another(record) {
            return (Applied::Stale, None);
        }
        let version = version + 1;
        self.versions.insert_mut(thing, version);
        if !self.tenants.contains(&record.tenant) {
            self.tenants.insert_mut(record.tenant.clone());
        }
        let tenant = &record.tenant;
        let problem = match &record.body {
            Body::Account(account) => self.put_account(tenant, account, version, sealer),
            Body::Link(link) => self.put_link(tenant, link, version),
            Body::Program(program) => self.put_program(tenant, program, sealer),
            Body::Key(key) => self.put_key(tenant, key),
            Body::Reprocess(request) => {
                self.reprocesses.insert_mut(joined(tenant, &request.id), Arc::new(request.clone()));
                None
            }
            Body::Answer(answer) => self.put_answer(tenant, answer),
        };
        (Applied::Current, problem)
    }

    /// A link's id is looked up without its tenant, so it belongs to the first that has it.
    fn is_of_another(&self, record: &Record) -> bool {
        match &record.body {
            Body::Link(link) => self.links.get(&link.id).is_some_and(|known| known.tenant != record.tenant),
            Body::Account(_) | Body::Program(_) | Body::Key(_) | Body::Reprocess(_) | Body::Answer(_) => false,
        }
    }

    fn put_account(&mut self, tenant: &str, record: &Account, version: u64, sealer: &Sealer) -> Option<anyhow::Error> {
        let key = joined(tenant, &record.id);
        let (opened, problem) = Opened::of(record, sealer);
        let dialect = self.dialect(tenant, &record.program).unwrap_or_else(|| Dialect::generic());
        let account = Arc::new(AccountEntry {
            tenant: tenant.to_owned(),
            record: record.clone(),
            version,
            token: opened.token,
            settings: Arc::new(resolve::settings(tenant, record, dialect)),
            allow: opened.allow,
            hmac_secret: opened.hmac_secret,
            click: resolve::click_place(record, &dialect.program),
        });
        if let Some(before) = self.accounts.get(&key).cloned() {
            let (older, _) = Opened::of(&before.record, sealer);
            for token in older.previous.iter().map(|(token, _)| token).chain([&older.token]) {
                self.tokens.remove_mut(token);
            }
        } else {
            self.account_ids.insert_mut(key.clone());
        }
        for (token, until) in opened.previous {
            self.tokens.insert_mut(token, Token { account: Arc::clone(&account), until: Some(until) });
        }
        if !account.token.is_empty() {
            self.tokens.insert_mut(account.token.clone(), Token { account: Arc::clone(&account), until: None });
        }
        self.accounts.insert_mut(key, account);
        problem
    }

    fn put_link(&mut self, tenant: &str, link: &Link, version: u64) -> Option<anyhow::Error> {
        let place = |account: &str| format!("{tenant}\0{account}\0{}", link.id);
        if let Some(before) = self.links.get(&link.id)
            && before.record.account != link.account
        {
            self.link_ids.remove_mut(&place(&before.record.account));
        }
        self.link_ids.insert_mut(place(&link.account));
        let stored = StoredLink { tenant: tenant.to_owned(), record: Arc::new(link.clone()), version };
        self.links.insert_mut(link.id.clone(), Arc::new(stored));
        None
    }

    /// The accounts that use the program get its new settings.
    fn put_program(&mut self, tenant: &str, program: &Program, sealer: &Sealer) -> Option<anyhow::Error> {
        self.programs.insert_mut(joined(tenant, &program.id), Dialect::of(program.clone()));
        let users: Vec<_> =
            self.accounts(tenant).filter(|account| account.record.program.eq_ignore_ascii_case(&program.id)).collect();
        let problems = users.iter().map(|user| self.put_account(tenant, &user.record, user.version, sealer));
        problems.fold(None, Option::or)
    }

    fn put_key(&mut self, tenant: &str, key: &ApiKey) -> Option<anyhow::Error> {
        let place = joined(tenant, &key.id);
        if let Some(before) = self.keys.get(&place) {
            self.key_hashes.remove_mut(&before.hash);
        }
        if !key.revoked {
            self.key_hashes.insert_mut(key.hash.clone(), place.clone());
        }
        self.keys.insert_mut(place, Arc::new(key.clone()));
        None
    }

    fn put_answer(&mut self, tenant: &str, answer: &Answer) -> Option<anyhow::Error> {
        let key = joined(tenant, &answer.key);
        self.answer_order.enqueue_mut((answer.time, key.clone()));
        self.answers.insert_mut(key, Arc::new(answer.clone()));
        None
    }

    /// What is forgotten follows from the records alone, as the versions do that go with it.
    fn forget_answers(&mut self, now: Time) {
        while let Some((time, key)) = self.answer_order.peek() {
            if now.since(*time) < ANSWER_MS && self.answer_order.len() < ANSWERS {
                return;
            }
            // The same key may have been used again since.
            if self.answers.get(key).is_some_and(|answer| answer.time == *time)
                && let Some((tenant, name)) = key.split_once('\0')
            {
                self.versions.remove_mut(&joined(tenant, &format!("answer/{name}")));
                self.answers.remove_mut(key);
            }
            self.answer_order.dequeue_mut();
        }
    }
}
