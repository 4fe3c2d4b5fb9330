//! `/post-back/{token}`: a postback is checked, read, made durable and answered.
//!
//! Refuses to answer 2xx before the log has it, and to let anything but the log cause a 5xx.
//! Invariant: what is recorded is redacted and without the token; every recorded hit has a reading.

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
    http::request::Parts,
};
use pipeline::{AccountEntry, Draft, catalog::Behind, clock, cut_address};
use schemas::{
    EventBody, EventId, Reason, Time,
    bounds::DEFAULT_REPEAT_WINDOW_S,
    event::{self, Hit, HitSettings, Name, Reading},
    goal::Dedup,
    id::alias_shard,
    interpret::{self, RawRequest},
    redact,
    settings::AccountSettings,
    target::PostBackTarget,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::time::timeout;

use crate::{
    address,
    answer::{self, Answer, Manner, Refusal, Told},
    auth, body,
    edge::{Edge, random_bits},
};

pub(crate) const RETRY_SECONDS: u64 = 2;

/// A request whose account is known, with its whole body.
struct PostBack<'a> {
    account: &'a AccountEntry,
    now: Time,
    from: IpAddr,
    method: &'a Method,
    headers: &'a HeaderMap,
    target: &'a PostBackTarget<'a>,
    /// As received; what was glued to the token is a part of it.
    query: &'a [u8],
    body: Bytes,
}

impl Edge {
    pub(crate) async fn post_back(
        &self,
        head: &Parts,
        query: &[u8],
        body: &mut Incoming,
        path: &str,
        peer: SocketAddr,
    ) -> Answer {
        if !matches!(head.method, Method::GET | Method::HEAD | Method::POST) {
            return answer::BAD_METHOD.allow("GET, HEAD, POST").into();
        }
        let Some(target) = PostBackTarget::read(path) else { return answer::UNKNOWN_TOKEN.into() };
        let account = match self.account(&target.token).await {
            Ok(account) => account,
            Err(refusal) => return refusal.into(),
        };
        if head.method == Method::HEAD {
            return answer::empty(StatusCode::OK);
        }
        let mut postback = PostBack {
            account: &account,
            now: clock::now(),
            from: address::client(peer, &head.headers, &self.config.trusted_proxies),
            method: &head.method,
            headers: &head.headers,
            target: &target,
            query: &target.query(query),
            body: Bytes::new(),
        };
        self.take(&mut postback, body).await.unwrap_or_else(Answer::from)
    }

    /// A token that is not known here may have been given out elsewhere just now.
    async fn account(&self, token: &str) -> Result<Arc<AccountEntry>, Refusal> {
        let known = || self.catalog.view().by_token(token, clock::now());
        if let Some(account) = known() {
            return Ok(account);
        }
        self.catalog.catch_up().await.map_err(|Behind| answer::UNREAD_CATALOG.retry_after(RETRY_SECONDS))?;
        known().ok_or(answer::UNKNOWN_TOKEN)
    }

    /// A `Refusal` is the answer to a request that is not recorded.
    async fn take(&self, postback: &mut PostBack<'_>, body: &mut Incoming) -> Result<Answer, Refusal> {
        let account = postback.account;
        postback.body = body::read(body, self.config.body).await?;
        // A paused account says so to everybody: of several reasons it is the first.
        let refused = if account.settings.paused { None } else { postback.refusal() };
        if let (None, Some(per_second)) = (refused, account.record.rate_limit) {
            let taken = self.limits.take(&account_key(account), per_second);
            taken.map_err(|wait| answer::RATE_LIMITED.retry_after(wait.as_secs() + 1))?;
        }
        if let Some(rest) = postback.target.removed_from(&postback.body) {
            postback.body = rest.into();
        }
        let hits = postback.read(|value| self.hash(account, value), refused)?;
        if let Some(reason) = refused
            && !self.limits.record_refusals(&account_key(account), postback.now, hits.len())
        {
            self.meters.unrecorded(reason, hits.len());
            let by_address = reason == Reason::AddressNotAllowed;
            return Err(if by_address { answer::ADDRESS_NOT_ALLOWED } else { answer::BAD_SIGNATURE });
        }
        self.record(postback, hits, refused).await
    }

    /// Of a value that must not be kept.
    fn hash(&self, account: &AccountEntry, value: &[u8]) -> String {
        self.catalog.sealer().keyed_hash(&format!("redact/{}", account.tenant), value)
    }

    async fn record(&self, postback: &PostBack<'_>, hits: Hits, refused: Option<Reason>) -> Result<Answer, Refusal> {
        let Hits { drafts, said, array } = hits;
        let receipts = match timeout(self.config.durable, self.log.append_all(drafts)).await {
            Ok(Ok(receipts)) => receipts,
            Ok(Err(_)) | Err(_) => return Err(answer::NOT_DURABLE.retry_after(RETRY_SECONDS)),
        };
        let mut told = Vec::with_capacity(said.len());
        for ((id, reject), receipt) in said.iter().zip(receipts) {
            self.meters.hit(reject.as_ref().map(|(reason, _)| *reason));
            told.push(Told::new(*id, receipt, reject.as_ref().map(|(reason, hint)| (*reason, hint.as_deref()))));
        }
        let all_rejected = said.iter().all(|(_, reject)| reject.is_some());
        let refused_with = match refused {
            Some(Reason::AddressNotAllowed) => Some(StatusCode::FORBIDDEN),
            Some(_) => Some(StatusCode::UNAUTHORIZED),
            None => (all_rejected && postback.account.record.strict).then_some(StatusCode::BAD_REQUEST),
        };
        let mode = Manner::mode(postback.account.record.answer, postback.headers);
        Ok(answer::recorded(&told, &Manner { mode, refused_with, array }))
    }
}

/// The reason with its hint, if a hit was rejected.
type Rejected = Option<(Reason, Option<String>)>;

/// The hits of one request; `said` is what the sender is told of each, if it was rejected.
struct Hits {
    drafts: Vec<Draft>,
    said: Vec<(EventId, Rejected)>,
    array: bool,
}

impl Hits {
    fn len(&self) -> usize {
        self.drafts.len()
    }
}

impl PostBack<'_> {
    fn refusal(&self) -> Option<Reason> {
        if !self.account.allows(self.from) {
            return Some(Reason::AddressNotAllowed);
        }
        let Some(rule) = &self.account.record.hmac else { return None };
        // The sign that stands where `?` should is none of the query's.
        let glued = self.target.is_glued() && matches!(self.query.first(), Some(b'&' | b';' | b'/'));
        let query = if glued { &self.query[1..] } else { self.query };
        let signed = self
            .account
            .hmac_secret
            .as_ref()
            .is_some_and(|secret| auth::signature_is_right(rule, secret, self.headers, query, &self.body));
        (!signed).then_some(Reason::BadSignature)
    }

    fn request(&self) -> RawRequest<'_> {
        RawRequest {
            method: self.method.as_str(),
            query: self.query,
            body: (!self.body.is_empty()).then_some(&self.body[..]),
            content_type: self.content_type(),
        }
    }

    /// A body that is compressed is of a type that nobody reads.
    fn content_type(&self) -> Option<&str> {
        let encoding = self.headers.get(CONTENT_ENCODING).filter(|coding| coding.as_bytes() != b"identity");
        encoding.or_else(|| self.headers.get(CONTENT_TYPE))?.to_str().ok()
    }

    /// What is stored is made first, and that is what is read: nothing that must not be kept comes into a reading.
    fn read(&self, hash: impl Fn(&[u8]) -> String, refused: Option<Reason>) -> Result<Hits, Refusal> {
        let settings = &self.account.settings;
        let request = self.request();
        let stored = redact::redact(&request, &settings.redact, &|_, value| hash(value));
        let read = |raw| interpret::interpret(&interpret::stored(raw), settings, self.now).into_iter().next();
        let readings: Vec<Reading> = stored.iter().map(|raw| read(raw).unwrap_or_else(unreadable)).collect();
        if refused.is_none() && interpret::needs_another_body(&request, &readings) {
            return Err(answer::UNKNOWN_TYPE);
        }
        let array = self.is_array(&stored);
        let mut hits = Hits { drafts: Vec::with_capacity(stored.len()), said: Vec::with_capacity(stored.len()), array };
        for (raw, mut reading) in stored.into_iter().zip(readings) {
            if let Some(reason) = refused {
                reading.reject = Some(reason);
                reading.hint = None;
            }
            let reject = reading.reject.map(|reason| (reason, reading.hint.clone()));
            let draft = self.draft(raw, reading);
            hits.said.push((draft.id, reject));
            hits.drafts.push(draft);
        }
        Ok(hits)
    }

    /// Of a JSON array every hit is stored as its own object; anything else is stored as it came.
    fn is_array(&self, stored: &[event::Raw]) -> bool {
        let body = self.body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.body);
        let first = stored.first().and_then(|raw| raw.body.as_deref());
        body.trim_ascii_start().starts_with(b"[")
            && (stored.len() > 1 || first.is_some_and(|body| body.starts_with('{')))
    }

    fn draft(&self, mut raw: event::Raw, reading: Reading) -> Draft {
        let account = self.account;
        raw.remote = Some(cut_address(self.from));
        let shard = match &reading.name {
            Some(Name::Click(id)) => id.shard(),
            Some(Name::Alias(name) | Name::Label(name)) => {
                alias_shard(&account.tenant, &account.settings.account, name)
            }
            None => random_bits() as u16,
        };
        let hit = Hit {
            account: account.settings.account.clone(),
            program: account.settings.program.clone(),
            raw,
            reading,
            settings: hit_settings(&account.settings),
        };
        Draft {
            id: EventId::new(self.now, shard, random_bits()),
            tenant: account.tenant.clone(),
            time: self.now,
            shard,
            body: EventBody::Hit(hit),
        }
    }
}

/// Every stored form has a reading; should one have none, the hit is still not lost.
fn unreadable() -> Reading {
    Reading { reject: Some(Reason::MalformedBody), ..Reading::default() }
}

fn hit_settings(settings: &AccountSettings) -> HitSettings {
    let default_goal = settings.goal(&settings.default_goal);
    HitSettings {
        lookback_days: settings.lookback_days,
        lifetime_days: settings.lifetime_days,
        waiting_days: settings.waiting_days,
        default_goal: settings.default_goal.clone(),
        default_dedup: default_goal.map_or(Dedup::PerTransaction, |goal| goal.dedup),
        default_repeat_window_s: default_goal.map_or(DEFAULT_REPEAT_WINDOW_S, |goal| goal.repeat_window_s),
    }
}

fn account_key(account: &AccountEntry) -> String {
    format!("{}/{}", account.tenant, account.settings.account)
}
