//! Records of `clickback.catalog`: accounts, links, programs, keys; one record per thing that one call changes.
//!
//! The catalog is an ordered log of one partition. A record names the version of the thing that it is based on,
//! and a reader applies it only if that is still the current one: of two writers, the first in the log wins.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Currency, Time, goal::Dedup, settings::DynMode, status::Meaning};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    pub v: u32,
    /// Unique per record.
    pub id: String,
    pub tenant: String,
    pub time: Time,
    /// The version of the thing that this record replaces; 0 creates it.
    pub base: u64,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Account(Box<Account>),
    Link(Link),
    Program(Box<Program>),
    Key(ApiKey),
    Reprocess(ReprocessRequest),
    /// An answer kept for an `Idempotency-Key`.
    Answer(Answer),
}

impl Body {
    /// Names the thing within its tenant: `account/…`, `link/…`.
    pub fn thing(&self) -> String {
        match self {
            Body::Account(a) => format!("account/{}", a.id),
            Body::Link(l) => format!("link/{}", l.id),
            Body::Program(p) => format!("program/{}", p.id),
            Body::Key(k) => format!("key/{}", k.id),
            Body::Reprocess(r) => format!("reprocess/{}", r.id),
            Body::Answer(a) => format!("answer/{}", a.key),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    pub id: String,
    pub name: String,
    pub program: String,
    /// The postback token, sealed.
    pub token: String,
    /// Older tokens, sealed, and until when they are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_tokens: Vec<PreviousToken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    pub lookback_days: u16,
    pub lifetime_days: u16,
    pub waiting_days: u16,
    #[serde(default)]
    pub strict: bool,
    pub max_count: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<AccountGoal>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statuses: BTreeMap<String, Meaning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_goal: Option<String>,
    /// Overrides the program's link parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click_param: Option<String>,
    #[serde(rename = "dyn", default)]
    pub dyn_mode: DynMode,
    /// CIDRs that postbacks may come from; empty = any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<Hmac>,
    #[serde(default)]
    pub answer: AnswerMode,
    /// Postbacks per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u32>,
    /// Parameters whose values are hashed before anything is durable, beside the default ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redact: Option<Vec<String>>,
    #[serde(default)]
    pub paused: bool,
    #[serde(default)]
    pub archived: bool,
    pub created: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreviousToken {
    pub token: String,
    pub valid_until: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountGoal {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Dedup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_window_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerMode {
    #[default]
    Json,
    Ok,
    Empty,
    Gif,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hmac {
    pub algorithm: HmacAlgorithm,
    #[serde(rename = "in")]
    pub place: HmacPlace,
    /// Name of the header or query parameter.
    pub name: String,
    pub over: HmacOver,
    pub encoding: HmacEncoding,
    /// Sealed in the catalog.
    pub secret: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacAlgorithm {
    Sha256,
    Sha1,
    Md5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacPlace {
    Header,
    Query,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacOver {
    Query,
    Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacEncoding {
    Hex,
    Base64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    pub id: String,
    pub account: String,
    pub name: String,
    pub destination: String,
    /// Overrides the account's meaning of `dyn` for clicks of this link.
    #[serde(rename = "dyn", default, skip_serializing_if = "Option::is_none")]
    pub dyn_mode: Option<DynMode>,
    #[serde(default)]
    pub archived: bool,
    pub created: Time,
}

/// Where the click id goes in the operator's landing URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClickIn {
    #[default]
    Query,
    Path,
}

/// An operator's affiliate program or platform, and its dialect. Built-in ones and a tenant's own are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub id: String,
    pub name: String,
    /// The parameter of the landing URL that carries the click id.
    pub click_param: String,
    #[serde(default)]
    pub click_in: ClickIn,
    /// What is put there; `{click_id}` within it is replaced.
    #[serde(default = "plain_click_id")]
    pub click_value: String,
    /// What the program can fill in, in its own placeholder syntax: `click_id`, `amount`, `tid`, …
    #[serde(default)]
    pub placeholders: BTreeMap<String, String>,
    #[serde(default)]
    pub statuses: BTreeMap<String, Meaning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_goal: Option<String>,
    /// False: the program cannot send postbacks.
    #[serde(default = "yes")]
    pub postback: bool,
    /// True: one global postback URL with a status or event macro, instead of one URL per goal.
    #[serde(default)]
    pub single_url: bool,
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub notes: String,
    #[serde(default)]
    pub verified: bool,
    #[serde(default)]
    pub archived: bool,
}

fn plain_click_id() -> String {
    "{click_id}".to_owned()
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Read,
    Write,
    Admin,
}

/// An API key; the key itself is shown once and stored as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub scope: Scope,
    /// SHA-256 of the whole key, hex.
    pub hash: String,
    #[serde(default)]
    pub revoked: bool,
    pub created: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReprocessRequest {
    pub id: String,
    pub account: String,
    pub from: Time,
    pub to: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub dry_run: bool,
    pub done: bool,
    /// Hits read.
    pub hits: u64,
    /// Conversions changed, or that would change in a dry run.
    pub changed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Names that could not be read again, with why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    pub created: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// Hash of API key and `Idempotency-Key`.
    pub key: String,
    /// Hash of method, path and body, so that a key that is used for something else is noticed.
    pub request: String,
    pub status: u16,
    /// The answer, sealed, as it may hold a token or key.
    pub sealed: String,
    pub time: Time,
}
