//! `GET /v1/accounts/{id}/health`: whether an account's postbacks are as they always were.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use pipeline::clock;
use schemas::{Time, bounds::PAGE_MAX, time::DAY_MS};

use super::{
    ApiState, Inner, accounts, ask,
    auth::Reader,
    clicks::WaitQuery,
    input::{Path, Query},
    problem::Problem,
    wait,
};
use crate::report::{
    AccountHealth, Dimension, Directory, Figures, Filter, Match, Moment, PostbackQuery, QueryError, ReportQuery, watch,
};

/// How far back hits are looked at, and how many of them.
const DAYS: i64 = 30;
const HITS: usize = PAGE_MAX;

/// Healthy, or what is wrong since when, with examples and what to do: the newest 1,000 hits of 30 days against the account's
/// own habit.
#[utoipa::path(get, path = "/v1/accounts/{id}/health", tag = "accounts", params(("id" = String, Path,), WaitQuery),
    responses((status = 200, body = AccountHealth), (status = "4XX", body = Problem)))]
pub async fn get(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<AccountHealth>, Problem> {
    let account = accounts::find(&api.catalog.view(), &caller.tenant, &id)?.record.id.clone();
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    ask(&api, move |inner| look(inner, &caller.tenant, &account, clock::now())).await.map(Json)
}

fn look(inner: &Inner, tenant: &str, account: &str, now: Time) -> Result<AccountHealth, QueryError> {
    let from = now.plus_ms(-DAYS * DAY_MS);
    let hits = inner.reports.postbacks(&PostbackQuery {
        tenant: tenant.to_owned(),
        now,
        from: Some(Moment::Instant(from)),
        to: Some(Moment::Instant(now.plus_ms(DAY_MS))),
        accounts: vec![account.to_owned()],
        limit: HITS,
        ..PostbackQuery::default()
    })?;
    let view = inner.catalog.view();
    let visitors = ReportQuery {
        tenant: tenant.to_owned(),
        now,
        filters: BTreeMap::from([(Dimension::Account, Filter(vec![Match::Is(account.to_owned())]))]),
        limit: Some(1),
        ..ReportQuery::default()
    };
    let report = inner.reports.conversions_report(&Directory::of(&view, tenant), &visitors)?;
    let clicks = report.totals.clicks.unwrap_or_default();
    Ok(watch(&Figures { hits: &hits.items, more: hits.cursor.is_some(), from, now, clicks }, report.as_of))
}
