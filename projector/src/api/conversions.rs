//! `/v1/conversions`: single conversions with every change, and corrections by hand.

use axum::{Json, extract::State, http::StatusCode};
use pipeline::{Draft, Receipt, View, clock, secrets};
use schemas::{
    Amount, ClickId, EventBody, EventId, event, event::Name, id::alias_shard, name, status::State as Standing,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState, ask,
    auth::{Reader, Writer},
    clicks::WaitQuery,
    fields::{self, Errors, Wrong},
    input::{Body, NoParameters, Path, Query, many},
    problem::Problem,
    range::{self, basis, moment},
    wait,
};
use crate::report::{ConversionQuery, ConversionRow, Page};

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConversionsQuery {
    /// An instant, or a date in `tz`.
    from: Option<String>,
    /// An instant (exclusive), or a date (included).
    to: Option<String>,
    /// IANA name. Default: the account's, if one is filtered, else UTC.
    tz: Option<String>,
    /// What `from` and `to` are about: `click` (default) or `conversion`.
    basis: Option<String>,
    #[serde(deserialize_with = "many")]
    account: Vec<String>,
    #[serde(deserialize_with = "many")]
    goal: Vec<String>,
    /// `pending`, `approved`, `rejected`
    #[serde(deserialize_with = "many")]
    state: Vec<String>,
    /// Empty = conversions without one; `!value` = not.
    #[serde(deserialize_with = "many")]
    tid: Vec<String>,
    #[serde(deserialize_with = "many")]
    player: Vec<String>,
    /// Only what changed after this instant.
    updated_after: Option<String>,
    cursor: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// `json`
    format: Option<String>,
    /// A receipt, or `latest`; may be repeated.
    #[serde(deserialize_with = "many")]
    after: Vec<String>,
    /// How long to wait for `after`: default `2s`, at most `30s`.
    wait: Option<String>,
}

impl ConversionsQuery {
    fn read(&self, view: &View, tenant: String) -> Result<ConversionQuery, Problem> {
        let accounts = range::accounts(view, &tenant, &self.account)?;
        let tz = range::zone(view, &tenant, range::tz(self.tz.as_deref())?, &accounts);
        range::never_without(&self.goal, "?goal")?;
        let goals: Vec<String> = self.goal.iter().map(|goal| goal.trim().to_ascii_lowercase()).collect();
        let updated_after = range::some_time(self.updated_after.as_deref(), "?updated_after")?;
        let updated_after = updated_after.map(fields::time).transpose();
        Ok(ConversionQuery {
            tenant,
            now: clock::now(),
            from: moment(self.from.as_deref(), "?from")?,
            to: moment(self.to.as_deref(), "?to")?,
            tz: Some(tz),
            basis: basis(self.basis.as_deref())?,
            accounts,
            goals: Vec::new(),
            goal: range::filter(&goals),
            states: range::states(&self.state)?,
            tid: range::filter(&self.tid),
            player: range::filter(&self.player),
            updated_after: updated_after.map_err(|wrong| wrong.at("?updated_after"))?,
            limit: fields::limit(self.limit.as_deref())?,
            cursor: self.cursor.clone(),
        })
    }
}

/// List conversions, last made first.
#[utoipa::path(get, path = "/v1/conversions", tag = "conversions", params(ConversionsQuery),
    responses((status = 200, body = Page<ConversionRow>), (status = "4XX", body = Problem)))]
pub async fn list(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Query(query): Query<ConversionsQuery>,
) -> Result<Json<Page<ConversionRow>>, Problem> {
    range::json_only(query.format.as_deref())?;
    let rows = query.read(&api.catalog.view(), caller.tenant)?;
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    Ok(Json(ask(&api, move |inner| inner.reports.conversions(&rows)).await?))
}

/// One conversion with every change.
#[utoipa::path(get, path = "/v1/conversions/{id}", tag = "conversions", params(("id" = String, Path,), WaitQuery),
    responses((status = 200, body = ConversionRow), (status = "4XX", body = Problem)))]
pub async fn get(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<ConversionRow>, Problem> {
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    find(&api, &caller.tenant, &id).await.map(Json)
}

async fn find(api: &ApiState, tenant: &str, id: &str) -> Result<ConversionRow, Problem> {
    let (tenant, wanted) = (tenant.to_owned(), id.to_owned());
    let row = ask(api, move |inner| inner.reports.conversion(&tenant, &wanted)).await?;
    row.ok_or_else(|| Problem::not_found("conversion", id))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdjustInput {
    /// `pending`, `approved` or `rejected`
    state: Option<Standing>,
    /// The new earning, a decimal string.
    earning: Option<String>,
    /// The new value, a decimal string.
    value: Option<String>,
    /// Why; shown with the change.
    #[schema(value_type = String, required = true)]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct Adjusted {
    receipt: String,
    /// As it stands with the correction; `null` (and 202) where it was not in the tables within 2 s.
    conversion: Option<ConversionRow>,
}

/// Correct a conversion by hand. The correction is an event like any other: it is shown among the changes.
#[utoipa::path(post, path = "/v1/conversions/{id}/adjust", tag = "conversions", params(("id" = String, Path,)),
    request_body = AdjustInput,
    responses((status = 200, body = Adjusted), (status = 202, body = Adjusted), (status = "4XX", body = Problem)))]
pub async fn adjust(
    Writer(caller): Writer,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<AdjustInput>,
) -> Result<(StatusCode, Json<Adjusted>), Problem> {
    let change = input.read()?;
    let row = find(&api, &caller.tenant, &id).await?;
    if row.withdrawn {
        let detail = "Other settings made this conversion void: it counts for nothing and cannot be corrected.";
        return Err(Problem::conflict("withdrawn", detail));
    }
    let (version, wanted) = (row.version, change.clone());
    let (on, shard) = on(&caller.tenant, &row);
    let now = clock::now();
    let adjust = event::Adjust { account: row.account, conversion: row.id, on, by: caller.key.clone(), ..change };
    let draft = Draft {
        id: EventId::new(now, shard, secrets::random_bits()),
        tenant: caller.tenant.clone(),
        time: now,
        shard,
        body: EventBody::Adjust(adjust),
    };
    let receipt: Receipt = api.appender.append(draft).await?;
    let seen = wait::until_visible(&api, &[receipt.to_string()], None).await.is_ok();
    let conversion = if seen { Some(find(&api, &caller.tenant, &id).await?) } else { None };
    if conversion.as_ref().is_some_and(|now| now.version == version && !stands(&wanted, now)) {
        let detail = "The click of this conversion is too old: its state is no longer kept, so nothing was changed.";
        return Err(Problem::conflict("not_adjusted", detail));
    }
    let status = if seen { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Adjusted { receipt: receipt.to_string(), conversion })))
}

fn stands(wanted: &event::Adjust, row: &ConversionRow) -> bool {
    wanted.state.is_none_or(|state| state == row.state)
        && wanted.earning.is_none_or(|earning| Some(earning) == row.earning)
        && wanted.value.is_none_or(|value| Some(value) == row.value)
}

/// The click or label that a conversion stands on, and the shard where it is decided.
fn on(tenant: &str, row: &ConversionRow) -> (Name, u16) {
    match row.click.as_ref().and_then(|click| ClickId::parse(click.as_bytes())) {
        Some(click) => (Name::Click(click), click.shard()),
        None => {
            let label = name::fold(row.dyn_.as_deref().unwrap_or_default());
            let shard = alias_shard(tenant, &row.account, &label);
            (Name::Label(label), shard)
        }
    }
}

impl AdjustInput {
    /// What is to change; the places of the conversion are filled in later.
    fn read(self) -> Result<event::Adjust, Problem> {
        let mut errors = Errors::default();
        let earning = self.earning.and_then(|text| errors.take("/earning", amount(&text)));
        let value = self.value.and_then(|text| errors.take("/value", amount(&text)));
        let reason = self.reason.unwrap_or_default().trim().to_owned();
        if reason.is_empty() || reason.len() > 1_000 || reason.chars().any(char::is_control) {
            errors.add(
                "/reason",
                "missing_field",
                "say why, in one line of at most 1,000 bytes: it is shown with the change",
            );
        }
        if errors.0.is_empty() && self.state.is_none() && earning.is_none() && value.is_none() {
            errors.add("", "missing_field", "`state`, `earning` or `value` is needed");
        }
        errors.done()?;
        let nowhere = Name::Label(String::new());
        Ok(event::Adjust {
            account: String::new(),
            conversion: String::new(),
            on: nowhere,
            state: self.state,
            earning,
            value,
            reason,
            by: String::new(),
        })
    }
}

fn amount(text: &str) -> Result<Amount, Wrong> {
    let amount = text.trim().parse::<Amount>().and_then(|amount| Amount::new(amount.decimal()));
    amount.map_err(|e| Wrong("invalid_amount", format!("`{text}` is {e}")))
}
