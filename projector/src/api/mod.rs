//! The private listener: setup, look-ups, reports. `router` is the whole of it.
//!
//! Owns: who may call, what a request may hold, and the form of every answer.
//! Refuses: to decide about conversions and to keep anything of its own; writes go through the `Appender`.
//! Invariant: a key sees its own tenant only, and a change is answered after it is durable and in force here.

mod account_health;
mod account_input;
mod accounts;
pub mod auth;
mod check;
mod click_import;
mod clicks;
mod conversions;
mod doc;
pub mod fields;
mod health;
mod hits;
mod idempotency;
pub mod input;
mod keys;
mod links;
mod listing;
mod meaning;
mod postback_urls;
pub mod problem;
mod programs;
mod range;
mod reports;
mod reprocess;
#[cfg(test)]
mod tests;
pub mod wait;
mod writes;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use pipeline::{Appender, Catalog, lifecycle::Health, telemetry::Metrics};
use schemas::bounds;
use tokio::sync::Semaphore;

use crate::{fresh::Freshness, report::Reports, reprocess::Source};
use auth::AdminKey;
use idempotency::InFlight;
use problem::Problem;
pub use reprocess::resume as resume_reprocesses;

const REQUEST_TIMEOUT: Duration = Duration::from_millis(bounds::API_REQUEST_MS);
const READ_TIMEOUT: Duration = Duration::from_millis(bounds::API_READ_MS);

/// What the private listener works with.
pub struct ApiConfig {
    pub catalog: Arc<Catalog>,
    pub appender: Appender,
    pub reports: Reports,
    pub fresh: Freshness,
    /// What reprocesses read.
    pub past: Source,
    /// Where visitors and operators reach the public listener.
    pub public_url: String,
    /// `CLICKBACK_ADMIN_KEY`.
    pub admin: Option<AdminKey>,
    pub health: Health,
    pub metrics: Metrics,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

pub struct Inner {
    pub catalog: Arc<Catalog>,
    pub appender: Appender,
    pub reports: Reports,
    pub fresh: Freshness,
    past: Source,
    pub public_url: String,
    admin: Option<AdminKey>,
    health: Health,
    metrics: Metrics,
    in_flight: InFlight,
    readers: Arc<Semaphore>,
    reprocesses: reprocess::Jobs,
}

impl std::ops::Deref for ApiState {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl ApiState {
    pub fn new(config: ApiConfig) -> Self {
        Self(Arc::new(Inner {
            catalog: config.catalog,
            appender: config.appender,
            reports: config.reports,
            fresh: config.fresh,
            past: config.past,
            public_url: config.public_url.trim_end_matches('/').to_owned(),
            admin: config.admin,
            health: config.health,
            metrics: config.metrics,
            in_flight: InFlight::default(),
            readers: Arc::new(Semaphore::new(bounds::API_READERS)),
            reprocesses: reprocess::Jobs::default(),
        }))
    }
}

pub fn router(api: ApiState) -> Router {
    let (v1, document) = doc::routes().split_for_parts();
    let v1 = guarded(v1, &api);
    let keyless = health::routes(doc::finish(document));
    v1.merge(keyless)
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(bounds::API_BODY_BYTES))
        .layer(from_fn(timeout))
        .layer(from_fn(count))
        .with_state(api)
}

/// What every call with a key goes through: who calls, then whether this call was answered before. For routes that
/// other modules add to this listener, too.
pub fn guarded(router: Router<ApiState>, api: &ApiState) -> Router<ApiState> {
    router
        .route_layer(from_fn_with_state(api.clone(), idempotency::layer))
        .route_layer(from_fn_with_state(api.clone(), auth::authenticate))
}

async fn no_such_path(request: Request) -> Problem {
    let detail = format!("There is no `{}` here: /openapi.json lists what there is.", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, "no_such_path", detail)
}

async fn method_not_allowed(request: Request) -> Problem {
    let detail =
        format!("`{}` cannot be asked of `{}`: /openapi.json lists what can.", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

async fn timeout(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_long().into_response(),
    }
}

/// Requests by route and status; the route is the pattern, so that the number of series is bounded.
async fn count(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str()).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("clickback_api_requests_total", "route" => route, "status" => status).increment(1);
    response
}

/// Runs a question to the tables where it may block.
async fn ask<T: Send + 'static>(
    api: &ApiState,
    question: impl FnOnce(&Inner) -> Result<T, crate::report::QueryError> + Send + 'static,
) -> Result<T, Problem> {
    ask_within(api, READ_TIMEOUT, question).await
}

/// The time includes the wait for a free reader. A question that was given up keeps its reader until it has really
/// ended, so that there are never more of them.
async fn ask_within<T: Send + 'static>(
    api: &ApiState,
    limit: Duration,
    question: impl FnOnce(&Inner) -> Result<T, crate::report::QueryError> + Send + 'static,
) -> Result<T, Problem> {
    let answer = async {
        let permit = Arc::clone(&api.readers).acquire_owned().await.map_err(|e| Problem::internal(&e.into()))?;
        let inner = Arc::clone(&api.0);
        let asked = tokio::task::spawn_blocking(move || {
            let answer = question(&inner);
            drop(permit);
            answer
        });
        asked.await.map_err(|e| Problem::internal(&e.into()))?.map_err(reports::refused)
    };
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(Problem::too_long()))
}
