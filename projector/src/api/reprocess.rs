//! `/v1/accounts/{id}/reprocess`: stored hits are read again with today's settings.
//!
//! A request is a record of the catalog, so it is taken up again after a restart; the work is `crate::reprocess`.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, extract::State, http::StatusCode};
use jiff::{ToSpan, civil::Date, tz::TimeZone};
use pipeline::clock;
use schemas::{
    Time,
    catalog::{Body as CatalogBody, ReprocessRequest},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::{
    ApiState, accounts,
    auth::{Reader, Writer},
    fields::{self, Errors, Wrong},
    idempotency::{KEEP_MS, MaybeIdempotent},
    input::{Body, NoParameters, Path, Query},
    problem::Problem,
    writes::{self, Change},
};
use crate::reprocess::{self as work, Progress};

/// Reprocesses that run at once; more of them wait for their turn.
const AT_ONCE: usize = 2;
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_secs(3);

/// What runs in this process.
pub struct Jobs {
    known: Mutex<HashSet<String>>,
    turns: Arc<Semaphore>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { known: Mutex::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReprocessInput {
    /// An instant, or a date in the account's time zone.
    #[schema(value_type = String, required = true)]
    from: Option<String>,
    /// An instant (exclusive), or a date (included).
    #[schema(value_type = String, required = true)]
    to: Option<String>,
    /// Only hits with this reason code.
    reason: Option<String>,
    /// Changes nothing; the answer says what would change.
    dry_run: Option<bool>,
}

#[derive(Serialize, ToSchema)]
pub struct ReprocessCreated {
    id: String,
}

#[derive(Serialize, ToSchema)]
pub struct ReprocessView {
    id: String,
    account: String,
    /// `running` or `done`
    state: &'static str,
    from: Time,
    to: Time,
    reason: Option<String>,
    dry_run: bool,
    /// Hits read.
    hits: u64,
    /// Conversions changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<u64>,
    /// Conversions that would change: of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_change: Option<u64>,
    /// Of the last event; pass it as `after` to see the result.
    receipt: Option<String>,
    /// Names that could not be read again, and why.
    problems: Vec<String>,
    created: Time,
}

/// Read stored hits again with today's settings.
#[utoipa::path(post, path = "/v1/accounts/{id}/reprocess", tag = "accounts", params(("id" = String, Path,)),
    request_body = ReprocessInput,
    responses((status = 202, body = ReprocessCreated), (status = "4XX", body = Problem)))]
pub async fn create(
    Writer(caller): Writer,
    MaybeIdempotent(idempotent): MaybeIdempotent,
    State(api): State<ApiState>,
    Path(account): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<ReprocessInput>,
) -> Result<(StatusCode, Json<ReprocessCreated>), Problem> {
    let mut id = writes::new_id("rep_", idempotent.as_ref());
    let old = |request: &ReprocessRequest| clock::now().since(request.created) >= KEEP_MS;
    if api.catalog.view().reprocess(&caller.tenant, &id).is_some_and(|request| old(&request)) {
        id = writes::new_id("rep_", None);
    }
    writes::change(&api, &caller.tenant, |view| {
        let entry = accounts::find(view, &caller.tenant, &account)?;
        let request = input.clone().read(&id, &account, &entry.settings.timezone)?;
        if view.reprocess(&caller.tenant, &id).is_some() {
            return Ok(Change::Nothing);
        }
        Ok(Change::Write(CatalogBody::Reprocess(request)))
    })
    .await?;
    start(&api, &caller.tenant, &id);
    Ok((StatusCode::ACCEPTED, Json(ReprocessCreated { id })))
}

impl ReprocessInput {
    fn read(self, id: &str, account: &str, timezone: &str) -> Result<ReprocessRequest, Problem> {
        let zone = TimeZone::get(timezone).unwrap_or(TimeZone::UTC);
        let mut errors = Errors::default();
        let from = errors.take("/from", bound(self.from.as_deref(), &zone, 0));
        let to = errors.take("/to", bound(self.to.as_deref(), &zone, 1));
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            errors.add("/to", "out_of_range", "`to` has to be later than `from`");
        }
        let reason = self.reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
        if reason.as_ref().is_some_and(|reason| reason.len() > 200) {
            errors.add("/reason", "out_of_range", "200 bytes at most");
        }
        errors.done()?;
        Ok(ReprocessRequest {
            id: id.to_owned(),
            account: account.to_owned(),
            from: from.unwrap_or_default(),
            to: to.unwrap_or_default(),
            reason,
            dry_run: self.dry_run.unwrap_or_default(),
            done: false,
            hits: 0,
            changed: 0,
            receipt: None,
            problems: Vec::new(),
            created: clock::now(),
        })
    }
}

/// An instant as it is, a date as the start of that day or of the day `plus_days` later.
fn bound(text: Option<&str>, zone: &TimeZone, plus_days: i64) -> Result<Time, Wrong> {
    let Some(text) = fields::given(text) else {
        return Err(Wrong("missing_field", "an instant such as 2026-11-22T08:00:00Z, or a date, is needed".to_owned()));
    };
    let Ok(date) = text.parse::<Date>() else { return fields::time(text) };
    if text.len() != 10 {
        return fields::time(text);
    }
    let start = date.checked_add(plus_days.days()).and_then(|date| date.to_zoned(zone.clone()));
    let start = start.map_err(|_| Wrong("invalid_time", format!("`{text}` is out of range")))?;
    Ok(Time::from_ms(start.timestamp().as_millisecond()))
}

/// How far a reprocess is.
#[utoipa::path(get, path = "/v1/accounts/{id}/reprocess/{reprocess}", tag = "accounts",
    params(("id" = String, Path,), ("reprocess" = String, Path,)),
    responses((status = 200, body = ReprocessView), (status = "4XX", body = Problem)))]
pub async fn get(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path((account, id)): Path<(String, String)>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<ReprocessView>, Problem> {
    let view = api.catalog.view();
    accounts::find(&view, &caller.tenant, &account)?;
    let request = view.reprocess(&caller.tenant, &id).filter(|request| request.account == account);
    let request = request.ok_or_else(|| Problem::not_found("reprocess", &id))?;
    Ok(Json(ReprocessView {
        id,
        account,
        state: if request.done { "done" } else { "running" },
        from: request.from,
        to: request.to,
        reason: request.reason.clone(),
        dry_run: request.dry_run,
        hits: request.hits,
        changed: (!request.dry_run).then_some(request.changed),
        would_change: request.dry_run.then_some(request.changed),
        receipt: request.receipt.clone(),
        problems: request.problems.clone(),
        created: request.created,
    }))
}

/// Takes up what a stop or crash interrupted. Needs the runtime.
pub fn resume(api: &ApiState) {
    let open: Vec<_> = api.catalog.view().open_reprocesses().collect();
    for (tenant, request) in open {
        start(api, &tenant, &request.id);
    }
}

fn start(api: &ApiState, tenant: &str, id: &str) {
    let job = format!("{tenant}/{id}");
    if !api.reprocesses.known.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone()) {
        return;
    }
    let (api, tenant, id) = (api.clone(), tenant.to_owned(), id.to_owned());
    tokio::spawn(async move {
        if let Err(problem) = finish(&api, &tenant, &id).await {
            tracing::error!(tenant, id, code = problem.code, "a reprocess is left for the next start");
        }
        api.reprocesses.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    });
}

async fn finish(api: &ApiState, tenant: &str, id: &str) -> Result<(), Problem> {
    let turns = Arc::clone(&api.reprocesses.turns);
    let _turn = turns.acquire().await.map_err(|e| Problem::internal(&e.into()))?;
    let Some(request) = api.catalog.view().reprocess(tenant, id).filter(|request| !request.done) else {
        return Ok(());
    };
    let progress = run(api, tenant, &request).await;
    writes::change(api, tenant, |_| {
        let done = ReprocessRequest {
            done: true,
            hits: progress.hits,
            changed: progress.changed,
            receipt: progress.receipt.clone(),
            problems: progress.problems.clone(),
            ..(*request).clone()
        };
        Ok(Change::Write(CatalogBody::Reprocess(done)))
    })
    .await
}

/// Runs it again from the start when it could not go on, as while the disk is full; it changes nothing twice.
async fn run(api: &ApiState, tenant: &str, request: &ReprocessRequest) -> Progress {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let context = work::Context {
            past: api.past.clone(),
            reports: api.reports.clone(),
            fresh: api.fresh.clone(),
            appender: api.appender.clone(),
            catalog: Arc::clone(&api.catalog),
        };
        match work::run(context, tenant, request).await {
            Ok(progress) => return progress,
            Err(error) if attempt < ATTEMPTS => {
                tracing::warn!(tenant, id = request.id, attempt, error = format!("{error:#}"), "reprocess: again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                return Progress {
                    problems: vec![format!("given up: {error:#}; ask for it again")],
                    ..Progress::default()
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_of_the_account() {
        let malta = TimeZone::get("Europe/Malta").unwrap();
        let at = |text: &str, plus| bound(Some(text), &malta, plus).map(|time| time.to_string());
        assert_eq!(at("2026-10-25", 0).unwrap(), "2026-10-24T22:00:00.000Z");
        assert_eq!(at("2026-10-25", 1).unwrap(), "2026-10-25T23:00:00.000Z");
        assert_eq!(at("2026-10-25T01:00:00+01:00", 1).unwrap(), "2026-10-25T00:00:00.000Z");
        assert_eq!(at("yesterday", 0).map_err(|w| w.0), Err("invalid_time"));
        assert_eq!(bound(None, &malta, 0).map_err(|w| w.0), Err("missing_field"));
    }
}
