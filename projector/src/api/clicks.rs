//! `/v1/clicks`: import, look-up by foreign id or `dyn`, and the journey of one click.

use axum::{Json, extract::State};
use pipeline::{Receipt, clock};
use schemas::{ClickId, bounds};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState, accounts, ask,
    auth::{Reader, Writer},
    click_import::{ClickInput, Refusal, draft},
    fields,
    input::{Body, NoParameters, Path, Query, many},
    problem::Problem,
    wait,
};
use crate::report::{ClickName, ClickQuery, ClickRow, Journey, Page};

#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClicksInput {
    /// 1,000 at most.
    #[schema(value_type = Vec<ClickInput>, required = true)]
    clicks: Option<Vec<ClickInput>>,
}

#[derive(Serialize, ToSchema)]
pub struct Imported {
    accepted: usize,
    rejected: Vec<RejectedClick>,
    /// Of the last event; pass it as `after` to see these clicks. `null` if none was accepted.
    receipt: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct RejectedClick {
    index: usize,
    reason: Refusal,
}

/// Import clicks that were made elsewhere. The same account and id again changes nothing.
#[utoipa::path(post, path = "/v1/clicks", tag = "clicks", request_body = ClicksInput,
    responses((status = 200, body = Imported), (status = "4XX", body = Problem)))]
pub async fn import(
    Writer(caller): Writer,
    State(api): State<ApiState>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<ClicksInput>,
) -> Result<Json<Imported>, Problem> {
    let Some(clicks) = input.clicks else {
        return Err(Problem::field(
            "/clicks",
            "missing_field",
            "a list of clicks is needed: {\"clicks\":[{\"account\",\"id\"}]}",
        ));
    };
    if clicks.len() > bounds::CLICKS_PER_IMPORT {
        let detail = format!("{} clicks at most in one call; these are {}", bounds::CLICKS_PER_IMPORT, clicks.len());
        return Err(Problem::field("/clicks", "too_many", detail));
    }
    let (mut drafts, mut rejected) = (Vec::with_capacity(clicks.len()), Vec::new());
    {
        let (view, now) = (api.catalog.view(), clock::now());
        for (index, click) in clicks.iter().enumerate() {
            match draft(&view, &caller.tenant, now, click) {
                Ok(draft) => drafts.push(draft),
                Err(reason) => rejected.push(RejectedClick { index, reason }),
            }
        }
    }
    let receipts = api.appender.append_all(drafts).await?;
    let receipt = (!receipts.is_empty()).then(|| Receipt::last_of_each(receipts.iter().copied()));
    Ok(Json(Imported { accepted: receipts.len(), rejected, receipt }))
}

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ClicksQuery {
    account: Option<String>,
    /// The id that the click has elsewhere, or ours.
    id: Option<String>,
    /// This or `id` is needed.
    #[serde(rename = "dyn")]
    dyn_: Option<String>,
    /// A receipt, or `latest`; may be repeated.
    #[serde(deserialize_with = "many")]
    after: Vec<String>,
    /// How long to wait for `after`: default `2s`, at most `30s`.
    wait: Option<String>,
    cursor: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// Look clicks up by the id that they have elsewhere, or by `dyn`.
#[utoipa::path(get, path = "/v1/clicks", tag = "clicks", params(ClicksQuery),
    responses((status = 200, body = Page<ClickRow>), (status = "4XX", body = Problem)))]
pub async fn list(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Query(query): Query<ClicksQuery>,
) -> Result<Json<Page<ClickRow>>, Problem> {
    let Some(account) = fields::given(query.account.as_deref()) else {
        return Err(Problem::field(
            "?account",
            "missing_parameter",
            "the account is needed: ids from elsewhere are its own",
        ));
    };
    accounts::find(&api.catalog.view(), &caller.tenant, account)?;
    let by = match (fields::given(query.id.as_deref()), fields::given(query.dyn_.as_deref())) {
        (Some(id), None) => ClickName::Id(id.to_owned()),
        (None, Some(text)) => ClickName::Dyn(text.to_owned()),
        (None, None) => return Err(Problem::field("?id", "missing_parameter", "either `id` or `dyn` is needed")),
        (Some(_), Some(_)) => {
            return Err(Problem::field("?dyn", "invalid_parameter", "either `id` or `dyn` may be given, not both"));
        }
    };
    let query_rows = ClickQuery {
        tenant: caller.tenant,
        account: account.to_owned(),
        by,
        limit: fields::limit(query.limit.as_deref())?,
        cursor: query.cursor,
    };
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    Ok(Json(ask(&api, move |inner| inner.reports.clicks(&query_rows)).await?))
}

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// A receipt, or `latest`; may be repeated.
    #[serde(deserialize_with = "many")]
    pub after: Vec<String>,
    /// How long to wait for `after`: default `2s`, at most `30s`.
    pub wait: Option<String>,
}

/// The journey of a click: its data, its hits, its conversions with every change.
#[utoipa::path(get, path = "/v1/clicks/{id}", tag = "clicks", params(("id" = String, Path,), WaitQuery),
    responses((status = 200, body = Journey), (status = "4XX", body = Problem)))]
pub async fn journey(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<Journey>, Problem> {
    let not_found = || {
        let detail =
            format!("There is no click `{id}`. An id from elsewhere is found with GET /v1/clicks?account=…&id=….");
        Problem::new(axum::http::StatusCode::NOT_FOUND, "not_found", detail)
    };
    let click = ClickId::parse(id.as_bytes()).ok_or_else(not_found)?;
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    let journey = ask(&api, move |inner| inner.reports.journey(&caller.tenant, click)).await?;
    journey.map(Json).ok_or_else(not_found)
}
