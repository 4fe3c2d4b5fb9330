//! `/v1/accounts`: accounts with their tokens and settings.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use pipeline::{AccountEntry, View, clock, secrets};
use schemas::{
    Time, bounds,
    catalog::{Account, AnswerMode, Body as CatalogBody, PreviousToken},
    id,
    settings::DynMode,
    time::DAY_MS,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState,
    account_input::{AccountInput, GoalInput, HmacInput},
    auth::{Admin, Caller, Reader, Writer},
    fields::{self, Errors},
    idempotency::{Idempotent, KEEP_MS, MaybeIdempotent},
    input::{self, Body, NoParameters, Path, Place, Query, RawBody},
    listing::{Listing, page},
    meaning::{self, Word},
    problem::Problem,
    reports, wait,
    writes::{self, Change},
};

/// Tokens that may overlap at once.
const PREVIOUS_TOKENS: usize = 20;
const DEFAULT_OVERLAP: &str = "7d";
const MAX_OVERLAP_MS: i64 = 365 * DAY_MS;

/// An account. `token` and `postback_base` are there for keys of scope write or admin.
#[derive(Serialize, ToSchema)]
pub struct AccountView {
    id: String,
    name: String,
    program: String,
    program_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// `<public-url>/post-back/<token>`
    #[serde(skip_serializing_if = "Option::is_none")]
    postback_base: Option<String>,
    /// Until when the token before this one is taken, if it still is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_valid_until: Option<Time>,
    currency: String,
    timezone: String,
    lookback_days: u16,
    lifetime_days: u16,
    waiting_days: u16,
    strict: bool,
    max_count: u32,
    /// The account's own goals; the built-in ones are always there.
    goals: Vec<GoalInput>,
    statuses: std::collections::BTreeMap<String, Word>,
    default_goal: String,
    /// The link parameter that carries the click id: the account's own, else the program's.
    click_param: String,
    #[serde(rename = "dyn")]
    #[schema(value_type = String)]
    dyn_mode: DynMode,
    allow: Vec<String>,
    /// Without its secret.
    hmac: Option<HmacInput>,
    #[schema(value_type = String)]
    answer: AnswerMode,
    rate_limit: Option<u32>,
    redact: Vec<String>,
    paused: bool,
    archived: bool,
    #[schema(value_type = String, format = DateTime)]
    created: Time,
}

impl AccountView {
    pub fn of(api: &ApiState, view: &View, entry: &AccountEntry, caller: &Caller) -> Self {
        let account = &entry.record;
        let now = clock::now();
        let token = caller.sees_tokens().then(|| entry.token.clone());
        Self {
            id: account.id.clone(),
            name: account.name.clone(),
            program: account.program.clone(),
            program_name: view.program(&entry.tenant, &account.program).map(|program| program.name.clone()),
            postback_base: token.as_ref().map(|token| postback_base(api, token)),
            token,
            previous_valid_until: account.previous_tokens.iter().map(|t| t.valid_until).filter(|t| *t > now).max(),
            currency: entry.settings.currency.code().to_owned(),
            timezone: entry.settings.timezone.clone(),
            lookback_days: account.lookback_days,
            lifetime_days: account.lifetime_days,
            waiting_days: account.waiting_days,
            strict: account.strict,
            max_count: account.max_count,
            goals: account.goals.iter().map(GoalInput::of).collect(),
            statuses: account.statuses.iter().map(|(word, m)| (word.clone(), meaning::word(m))).collect(),
            default_goal: entry.settings.default_goal.clone(),
            click_param: entry.click.param.clone(),
            dyn_mode: account.dyn_mode,
            allow: account.allow.clone(),
            hmac: account.hmac.as_ref().map(HmacInput::of),
            answer: account.answer,
            rate_limit: account.rate_limit,
            redact: account.redact.clone().unwrap_or_default(),
            paused: account.paused,
            archived: account.archived,
            created: account.created,
        }
    }
}

pub fn postback_base(api: &ApiState, token: &str) -> String {
    format!("{}/post-back/{token}", api.public_url)
}

/// The account of this tenant; that of another one does not exist.
pub fn find(view: &View, tenant: &str, id: &str) -> Result<Arc<AccountEntry>, Problem> {
    view.account(tenant, id).filter(|entry| entry.tenant == tenant).ok_or_else(|| Problem::not_found("account", id))
}

fn show(api: &ApiState, caller: &Caller, id: &str) -> Result<AccountView, Problem> {
    let view = api.catalog.view();
    Ok(AccountView::of(api, &view, &*find(&view, &caller.tenant, id)?, caller))
}

/// Create an account. The answer holds its postback token.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", request_body = AccountInput,
    responses((status = 201, body = AccountView), (status = "4XX", body = Problem)))]
pub async fn create(
    Writer(caller): Writer,
    MaybeIdempotent(idempotent): MaybeIdempotent,
    State(api): State<ApiState>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<AccountInput>,
) -> Result<(StatusCode, Json<AccountView>), Problem> {
    let id = create_account(&api, &caller, idempotent.as_ref(), input).await?;
    Ok((StatusCode::CREATED, Json(show(&api, &caller, &id)?)))
}

pub(super) async fn create_account(
    api: &ApiState,
    caller: &Caller,
    idempotent: Option<&Idempotent>,
    input: AccountInput,
) -> Result<String, Problem> {
    let mut id = writes::new_id("acc_", idempotent);
    let made = |entry: &AccountEntry| clock::now().since(entry.record.created) < KEEP_MS;
    if api.catalog.view().account(&caller.tenant, &id).is_some_and(|entry| !made(&entry)) {
        id = writes::new_id("acc_", None);
    }
    writes::change(api, &caller.tenant, |view| {
        if view.account(&caller.tenant, &id).is_some() {
            return Ok(Change::Nothing);
        }
        let mut errors = Errors::default();
        let bare = bare(api, &id);
        let account = input.clone().apply(bare, view, &caller.tenant, api.catalog.sealer(), &mut errors);
        errors.done()?;
        Ok(Change::Write(CatalogBody::Account(Box::new(account))))
    })
    .await?;
    Ok(id)
}

fn bare(api: &ApiState, id: &str) -> Account {
    Account {
        id: id.to_owned(),
        name: String::new(),
        program: String::new(),
        token: api.catalog.sealer().seal(&id::new_token(&secrets::random::<28>())),
        previous_tokens: Vec::new(),
        currency: None,
        timezone: None,
        lookback_days: bounds::DEFAULT_LOOKBACK_DAYS,
        lifetime_days: bounds::DEFAULT_LIFETIME_DAYS,
        waiting_days: bounds::DEFAULT_WAITING_DAYS,
        strict: false,
        max_count: bounds::DEFAULT_MAX_COUNT,
        goals: Vec::new(),
        statuses: Default::default(),
        default_goal: None,
        click_param: None,
        dyn_mode: DynMode::Click,
        allow: Vec::new(),
        hmac: None,
        answer: AnswerMode::Json,
        rate_limit: None,
        redact: None,
        paused: false,
        archived: false,
        created: clock::now(),
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[derive(Default)]
pub struct AccountsQuery {
    /// Part of the name, or of the id.
    q: Option<String>,
    /// `true`: archived ones too.
    #[param(value_type = Option<bool>)]
    archived: Option<String>,
    cursor: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// List accounts, by id.
#[utoipa::path(get, path = "/v1/accounts", tag = "accounts", params(AccountsQuery),
    responses((status = 200, body = Listing<AccountView>), (status = "4XX", body = Problem)))]
pub async fn list(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Query(query): Query<AccountsQuery>,
) -> Result<Json<Listing<AccountView>>, Problem> {
    let archived = fields::given_flag(query.archived.as_deref(), "?archived")?;
    let q = query.q.unwrap_or_default().to_lowercase();
    let view = api.catalog.view();
    let wanted = view.accounts(&caller.tenant).filter(|entry| {
        (archived || !entry.record.archived)
            && (entry.record.name.to_lowercase().contains(&q) || entry.record.id.contains(&q))
    });
    let limit = fields::limit(query.limit.as_deref())?;
    let (entries, cursor) = page(wanted, |entry| &entry.record.id, query.cursor.as_deref(), limit);
    let items = entries.iter().map(|entry| AccountView::of(&api, &view, entry, &caller)).collect();
    Ok(Json(Listing { items, cursor }))
}

/// Show an account.
#[utoipa::path(get, path = "/v1/accounts/{id}", tag = "accounts", params(("id" = String, Path,)),
    responses((status = 200, body = AccountView), (status = "4XX", body = Problem)))]
pub async fn get(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<AccountView>, Problem> {
    Ok(Json(show(&api, &caller, &id)?))
}

/// Change an account (RFC 7396: absent stays, `null` goes back to the default). It holds for hits from 1 s after the
/// answer.
#[utoipa::path(patch, path = "/v1/accounts/{id}", tag = "accounts", params(("id" = String, Path,)),
    request_body(content = AccountInput, content_type = "application/merge-patch+json"),
    responses((status = 200, body = AccountView), (status = "4XX", body = Problem)))]
pub async fn patch(
    Writer(caller): Writer,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
    RawBody(patch): RawBody,
) -> Result<Json<AccountView>, Problem> {
    let view = api.catalog.view();
    let entry = find(&view, &caller.tenant, &id)?;
    let shown = serde_json::to_value(AccountView::of(&api, &view, &entry, &caller)).map_err(anyhow::Error::from)?;
    let mut patch = input::without_read_only::<AccountInput>(patch, &shown)?;
    fold_words(&mut patch);
    let next = patched(&api, &view, &entry, &patch)?;
    if next.dyn_mode != entry.record.dyn_mode {
        wait::until_latest(&api).await?;
        if reports::has_clicks(&api, &caller.tenant, "account", &id).await? {
            return Err(dyn_is_fixed());
        }
    }
    writes::change(&api, &caller.tenant, |view| {
        let entry = find(view, &caller.tenant, &id)?;
        let next = patched(&api, view, &entry, &patch)?;
        let same = next == entry.record;
        Ok(if same { Change::Nothing } else { Change::Write(CatalogBody::Account(Box::new(next))) })
    })
    .await?;
    Ok(Json(show(&api, &caller, &id)?))
}

pub fn dyn_is_fixed() -> Problem {
    let detail = "`dyn` is fixed after the first click, as it decides what the clicks so far are named by: make another account.";
    Problem::conflict_at("/dyn", "dyn_fixed", detail)
}

/// Status words are kept in lower case, so a patch has to name them so as to meet them.
fn fold_words(patch: &mut serde_json::Map<String, serde_json::Value>) {
    if let Some(serde_json::Value::Object(words)) = patch.get_mut("statuses") {
        *words = std::mem::take(words).into_iter().map(|(word, value)| (word.trim().to_lowercase(), value)).collect();
    }
}

fn patched(
    api: &ApiState,
    view: &View,
    entry: &AccountEntry,
    patch: &serde_json::Map<String, serde_json::Value>,
) -> Result<Account, Problem> {
    let mut settings = serde_json::to_value(AccountInput::of(&entry.record)).map_err(anyhow::Error::from)?;
    input::merge(&mut settings, serde_json::Value::Object(patch.clone()));
    let settings: AccountInput = input::read(settings, Place::Body).map_err(Problem::invalid)?;
    let mut errors = Errors::default();
    let bare = entry.record.clone();
    let account = settings.apply(bare, view, &entry.tenant, api.catalog.sealer(), &mut errors);
    errors.done()?;
    Ok(account)
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct RotateInput {
    /// How long the token so far is still taken: default `7d`, `0s` = not at all.
    overlap: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct Rotated {
    token: String,
    postback_base: String,
    #[schema(value_type = String, format = DateTime)]
    previous_valid_until: Time,
}

/// Give an account a new token; the one so far is taken for `overlap` longer.
#[utoipa::path(post, path = "/v1/accounts/{id}/rotate-token", tag = "accounts", params(("id" = String, Path,)),
    request_body = RotateInput, responses((status = 200, body = Rotated), (status = "4XX", body = Problem)))]
pub async fn rotate_token(
    Admin(caller): Admin,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<RotateInput>,
) -> Result<Json<Rotated>, Problem> {
    let overlap = input.overlap.as_deref().unwrap_or(DEFAULT_OVERLAP);
    let overlap_ms = fields::duration_within(overlap, 0, MAX_OVERLAP_MS).map_err(|wrong| wrong.at("/overlap"))?;
    let token = id::new_token(&secrets::random::<28>());
    let now = clock::now();
    let previous_valid_until = now.plus_ms(overlap_ms);
    writes::change(&api, &caller.tenant, |view| {
        let mut account = find(view, &caller.tenant, &id)?.record.clone();
        account.previous_tokens.retain(|previous| previous.valid_until > now);
        if account.previous_tokens.len() >= PREVIOUS_TOKENS {
            let detail = format!("{PREVIOUS_TOKENS} older tokens are still taken: wait until one of them ends.");
            return Err(Problem::conflict("too_many_tokens", detail));
        }
        let last = std::mem::replace(&mut account.token, api.catalog.sealer().seal(&token));
        if overlap_ms > 0 {
            account.previous_tokens.push(PreviousToken { token: last, valid_until: previous_valid_until });
        }
        Ok(Change::Write(CatalogBody::Account(Box::new(account))))
    })
    .await?;
    Ok(Json(Rotated { postback_base: postback_base(&api, &token), token, previous_valid_until }))
}
