//! What may be set on an account, and what of it is allowed. The same rules hold for POST and for the result of a
//! PATCH: a PATCH is merged into the settings as they stand (RFC 7396), then the whole is judged.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::{Sealer, View};
use schemas::{
    bounds,
    catalog::{Account, AccountGoal, AnswerMode, Hmac, HmacAlgorithm, HmacEncoding, HmacOver, HmacPlace},
    check,
    goal::{self, Dedup},
    settings::DynMode,
    status::Meaning,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    fields::{self, Errors},
    input::{did_you_mean, escape},
    meaning::{self, Word},
};

const GOALS: usize = 100;
const ALIASES: usize = 50;
const STATUSES: usize = 500;
const RANGES: usize = 200;
const REDACTED: usize = 100;
const MAX_RATE: u32 = 1_000_000;
const MAX_REPEAT_WINDOW_MS: i64 = 365 * 86_400_000;

/// Settings of an account. All but `name` and `program` have a default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccountInput {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A program's id; `generic` always exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Default: the program's, else EUR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// IANA name. Default: the program's, else UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// From click to first conversion: 1 to 730, default 90.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookback_days: Option<u32>,
    /// For later goals of a converted click: default 1825.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_days: Option<u32>,
    /// How long a hit waits for its click: 0 to 90, default 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_days: Option<u32>,
    /// True: postbacks that no conversion can come of are answered with 400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// The greatest N of `deposits=N`: default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goals: Option<Vec<GoalInput>>,
    /// Word → `pending`, `approved`, `rejected`, `ignore`, or an object with `state` and `goal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Word>>)]
    pub statuses: Option<BTreeMap<String, Value>>,
    /// The goal of a status without a goal: default `sales`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_goal: Option<String>,
    /// Overrides the program's link parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub click_param: Option<String>,
    /// `click` (default): a `dyn` names one click; `campaign`: it is a label of many. Fixed after the first click.
    #[serde(rename = "dyn", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub dyn_mode: Option<DynMode>,
    /// Addresses that postbacks may come from, as CIDRs; empty = any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac: Option<HmacInput>,
    /// The answer to postbacks: `json`, `ok`, `empty` or `gif`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub answer: Option<AnswerMode>,
    /// Postbacks per second; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u32>,
    /// Parameters whose values are replaced by a keyed hash, beside the default ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redact: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GoalInput {
    pub name: String,
    /// `once`, `per_transaction` or `every`. Default: the built-in goal's, `per_transaction` for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub dedup: Option<Dedup>,
    /// In which a repeat without a transaction id is a duplicate: default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_window: Option<String>,
    /// Other words for this goal in `event=`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacInput {
    /// `sha256`, `sha1` or `md5`.
    #[schema(value_type = String)]
    pub algorithm: HmacAlgorithm,
    /// Where the signature stands: `header` or `query`.
    #[serde(rename = "in")]
    #[schema(value_type = String)]
    pub place: HmacPlace,
    /// Name of the header or parameter.
    pub name: String,
    /// What is signed: `query` or `body`.
    #[schema(value_type = String)]
    pub over: HmacOver,
    /// `hex` or `base64`.
    #[schema(value_type = String)]
    pub encoding: HmacEncoding,
    /// Never shown again. A PATCH without it keeps the one that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl AccountInput {
    /// The settings of an account as they were given, for a PATCH to be merged into.
    pub fn of(account: &Account) -> Self {
        Self {
            name: Some(account.name.clone()),
            program: Some(account.program.clone()),
            currency: account.currency.map(|c| c.code().to_owned()),
            timezone: account.timezone.clone(),
            lookback_days: Some(account.lookback_days.into()),
            lifetime_days: Some(account.lifetime_days.into()),
            waiting_days: Some(account.waiting_days.into()),
            strict: Some(account.strict),
            max_count: Some(account.max_count),
            goals: Some(account.goals.iter().map(GoalInput::of).collect()),
            statuses: Some(account.statuses.iter().map(|(word, m)| (word.clone(), meaning::value(m))).collect()),
            default_goal: account.default_goal.clone(),
            click_param: account.click_param.clone(),
            dyn_mode: Some(account.dyn_mode),
            allow: Some(account.allow.clone()),
            hmac: account.hmac.as_ref().map(HmacInput::of),
            answer: Some(account.answer),
            rate_limit: account.rate_limit,
            redact: account.redact.clone(),
            paused: Some(account.paused),
            archived: Some(account.archived),
        }
    }

    /// The account with these settings, built on `bare`, which brings what cannot be set. Every problem is noted.
    pub fn apply(self, bare: Account, view: &View, tenant: &str, sealer: &Sealer, errors: &mut Errors) -> Account {
        let mut account = bare;
        let goals = read_goals(self.goals.unwrap_or_default(), errors);
        let known = known_goals(&goals);
        account.name = errors.take("/name", fields::name(self.name.as_deref().unwrap_or_default())).unwrap_or_default();
        account.program = read_program(self.program, &account.program, view, tenant, errors);
        account.currency = self.currency.and_then(|c| errors.take("/currency", fields::currency(&c)));
        account.timezone = self.timezone.and_then(|t| errors.take("/timezone", fields::timezone_name(&t)));
        let mut days = |pointer: &str, given: Option<u32>, default: u16, least: u64, most: u16| {
            let days = u64::from(given.unwrap_or(default.into()));
            errors.take(pointer, fields::within(days, least, most.into())).unwrap_or_default() as u16
        };
        let (lookback, lifetime) = (bounds::DEFAULT_LOOKBACK_DAYS, bounds::DEFAULT_LIFETIME_DAYS);
        account.lookback_days = days("/lookback_days", self.lookback_days, lookback, 1, bounds::MAX_LOOKBACK_DAYS);
        account.lifetime_days = days("/lifetime_days", self.lifetime_days, lifetime, 1, bounds::MAX_LIFETIME_DAYS);
        let waiting = bounds::DEFAULT_WAITING_DAYS;
        account.waiting_days = days("/waiting_days", self.waiting_days, waiting, 0, bounds::MAX_WAITING_DAYS);
        account.strict = self.strict.unwrap_or_default();
        let max_count = u64::from(self.max_count.unwrap_or(bounds::DEFAULT_MAX_COUNT));
        let max_count = errors.take("/max_count", fields::within(max_count, 1, bounds::MAX_MAX_COUNT.into()));
        account.max_count = max_count.unwrap_or_default() as u32;
        account.statuses = read_statuses(self.statuses.unwrap_or_default(), &known, errors);
        account.default_goal = self.default_goal.and_then(|g| read_goal(&g, "/default_goal", &known, errors));
        account.click_param = self.click_param.and_then(|p| errors.take("/click_param", fields::parameter_name(&p)));
        account.dyn_mode = self.dyn_mode.unwrap_or_default();
        account.allow = read_list(self.allow.unwrap_or_default(), "/allow", RANGES, fields::cidr, errors);
        account.hmac = self.hmac.and_then(|hmac| read_hmac(hmac, account.hmac.as_ref(), sealer, errors));
        account.answer = self.answer.unwrap_or_default();
        account.rate_limit = self.rate_limit.and_then(|rate| {
            errors.take("/rate_limit", fields::within(rate.into(), 1, MAX_RATE.into())).map(|rate| rate as u32)
        });
        account.redact = self.redact.map(|names| read_list(names, "/redact", REDACTED, redacted_name, errors));
        account.paused = self.paused.unwrap_or_default();
        account.archived = self.archived.unwrap_or_default();
        account.goals = goals;
        account
    }
}

impl GoalInput {
    pub fn of(goal: &AccountGoal) -> Self {
        Self {
            name: goal.name.clone(),
            dedup: goal.dedup,
            repeat_window: goal.repeat_window_s.map(|s| fields::duration_text(i64::from(s) * 1_000)),
            aliases: goal.aliases.clone(),
        }
    }
}

impl HmacInput {
    /// Without the secret.
    pub fn of(hmac: &Hmac) -> Self {
        Self {
            algorithm: hmac.algorithm,
            place: hmac.place,
            name: hmac.name.clone(),
            over: hmac.over,
            encoding: hmac.encoding,
            secret: None,
        }
    }
}

fn read_program(given: Option<String>, current: &str, view: &View, tenant: &str, errors: &mut Errors) -> String {
    let Some(id) = given else {
        errors.add("/program", "missing_field", "a program is needed; `generic` always exists");
        return String::new();
    };
    match view.program(tenant, &id) {
        Some(program) if !program.archived || program.id == current => return program.id.clone(),
        // It is gone, and the account goes on without it.
        None if id == current => return id,
        _ => {}
    }
    let known: Vec<String> = view.programs(tenant).map(|program| program.id.clone()).collect();
    let near = did_you_mean(&id, &known);
    let detail = format!("there is no program `{id}`{near}; GET /v1/programs lists them, `generic` always exists");
    errors.add("/program", "unknown_program", detail);
    id
}

fn known_goals(goals: &[AccountGoal]) -> BTreeSet<String> {
    let own = goals.iter().map(|goal| goal.name.clone());
    goal::BUILT_IN.iter().map(|(name, _, _)| (*name).to_owned()).chain(own).collect()
}

fn read_goal(text: &str, pointer: &str, known: &BTreeSet<String>, errors: &mut Errors) -> Option<String> {
    let name = text.trim().to_ascii_lowercase();
    if known.contains(&name) {
        return Some(name);
    }
    let known: Vec<&String> = known.iter().collect();
    let near = did_you_mean(&name, &known);
    errors.add(pointer, "unknown_goal", format!("the account has no goal `{text}`{near}; add it to `goals` first"));
    None
}

fn read_goals(given: Vec<GoalInput>, errors: &mut Errors) -> Vec<AccountGoal> {
    if given.len() > GOALS {
        errors.add("/goals", "too_many", format!("an account has at most {GOALS} goals of its own"));
        return Vec::new();
    }
    // A word that meant two goals would be read as either, by chance.
    let mut taken: BTreeSet<String> = goal::BUILT_IN.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    taken.extend(goal::COUNT_ALIASES.iter().map(|(alias, _)| (*alias).to_owned()));
    let mut names = BTreeSet::new();
    for (at, goal) in given.iter().enumerate() {
        let Some(name) = errors.take(&format!("/goals/{at}/name"), fields::goal_name(&goal.name)) else { continue };
        if check::is_read(&name) || goal::COUNT_ALIASES.iter().any(|(alias, _)| *alias == name) {
            let detail = format!("`{name}` is a parameter of postbacks with another meaning: choose another name");
            errors.add(format!("/goals/{at}/name"), "reserved_name", detail);
        }
        if !names.insert(name.clone()) {
            errors.add(format!("/goals/{at}/name"), "repeated_name", format!("`{name}` stands here twice"));
        }
        taken.insert(name);
    }
    let mut goals = Vec::with_capacity(given.len());
    for (at, goal) in given.into_iter().enumerate() {
        goals.push(read_one_goal(at, goal, &mut taken, errors));
    }
    goals
}

fn read_one_goal(at: usize, goal: GoalInput, taken: &mut BTreeSet<String>, errors: &mut Errors) -> AccountGoal {
    let name = goal.name.trim().to_ascii_lowercase();
    let mut aliases = Vec::new();
    if goal.aliases.len() > ALIASES {
        errors.add(format!("/goals/{at}/aliases"), "too_many", format!("a goal has at most {ALIASES} aliases"));
    }
    for (i, alias) in goal.aliases.iter().take(ALIASES).enumerate() {
        let pointer = format!("/goals/{at}/aliases/{i}");
        let Some(alias) = errors.take(&pointer, fields::word(alias)) else { continue };
        let own = alias == name || goal::COUNT_ALIASES.contains(&(alias.as_str(), name.as_str()));
        if own || aliases.contains(&alias) {
            continue;
        }
        if !taken.insert(alias.clone()) {
            errors.add(pointer, "repeated_name", format!("`{alias}` already means another goal"));
        }
        aliases.push(alias);
    }
    let repeat_window_s = goal.repeat_window.and_then(|window| {
        let ms = fields::duration_within(&window, 0, MAX_REPEAT_WINDOW_MS);
        errors.take(&format!("/goals/{at}/repeat_window"), ms).map(|ms| (ms / 1_000) as u32)
    });
    AccountGoal { name, dedup: goal.dedup, repeat_window_s, aliases }
}

fn read_statuses(
    given: BTreeMap<String, Value>,
    known: &BTreeSet<String>,
    errors: &mut Errors,
) -> BTreeMap<String, Meaning> {
    if given.len() > STATUSES {
        errors.add("/statuses", "too_many", format!("an account has at most {STATUSES} status words"));
        return BTreeMap::new();
    }
    let mut map = BTreeMap::new();
    for (word, value) in given {
        let pointer = format!("/statuses/{}", escape(&word));
        let Some(folded) = errors.take(&pointer, fields::word(&word)) else { continue };
        let Some(mut meaning) = meaning::read(value, &pointer, errors) else { continue };
        if let Some(goal) = meaning.goal.take() {
            meaning.goal = read_goal(&goal, &format!("{pointer}/goal"), known, errors);
        }
        if map.insert(folded, meaning).is_some() {
            errors.add(
                pointer,
                "repeated_name",
                format!("`{word}` stands here twice; words are compared in lower case"),
            );
        }
    }
    map
}

fn read_list(
    given: Vec<String>,
    pointer: &str,
    most: usize,
    read: impl Fn(&str) -> Result<String, fields::Wrong>,
    errors: &mut Errors,
) -> Vec<String> {
    if given.len() > most {
        errors.add(pointer, "too_many", format!("at most {most} entries"));
        return Vec::new();
    }
    let mut list = Vec::with_capacity(given.len());
    for (at, text) in given.iter().enumerate() {
        if let Some(entry) = errors.take(&format!("{pointer}/{at}"), read(text))
            && !list.contains(&entry)
        {
            list.push(entry);
        }
    }
    list
}

fn redacted_name(text: &str) -> Result<String, fields::Wrong> {
    let name = fields::parameter_name(text)?.to_lowercase();
    if check::names_a_click(&name) {
        let detail = format!("`{name}` names the click: its hits could never be read again, so it cannot be hashed");
        return Err(fields::Wrong("reserved_name", detail));
    }
    Ok(name)
}

fn read_hmac(given: HmacInput, current: Option<&Hmac>, sealer: &Sealer, errors: &mut Errors) -> Option<Hmac> {
    let name = errors.take("/hmac/name", fields::parameter_name(&given.name));
    let secret = match given.secret {
        Some(secret) if (1..=1_024).contains(&secret.len()) => Some(sealer.seal(&secret)),
        Some(_) => {
            errors.add("/hmac/secret", "out_of_range", "a secret has 1 to 1024 bytes");
            None
        }
        None if current.is_some() => current.map(|hmac| hmac.secret.clone()),
        None => {
            errors.add("/hmac/secret", "missing_field", "the secret that the sender signs with is needed");
            None
        }
    };
    Some(Hmac {
        algorithm: given.algorithm,
        place: given.place,
        name: name?,
        over: given.over,
        encoding: given.encoding,
        secret: secret?,
    })
}
