//! `/livez`, `/readyz`, `/metrics` and `/openapi.json`: no key is needed for them.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::json;
use utoipa::openapi::OpenApi;

use super::{ApiState, problem::Problem};

/// Making progress?
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, description = "`{\"status\":\"live\"}`"), (status = 503, body = Problem)))]
pub async fn livez(State(api): State<ApiState>) -> Result<impl IntoResponse, Problem> {
    match api.health.live() {
        Ok(()) => Ok(Json(json!({ "status": "live" }))),
        Err(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_live", why)),
    }
}

/// Ready to answer?
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "`{\"status\":\"ready\"}`"), (status = 503, body = Problem)))]
pub async fn readyz(State(api): State<ApiState>) -> Result<impl IntoResponse, Problem> {
    match api.health.ready() {
        Ok(()) => Ok(Json(json!({ "status": "ready" }))),
        Err(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why).retry_after(1)),
    }
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(api): State<ApiState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1")))]
#[allow(dead_code, reason = "only its documentation is used: the document is made once, in `routes`")]
pub async fn openapi() {}

pub fn routes(document: OpenApi) -> Router<ApiState> {
    let document = std::sync::Arc::new(document);
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(move || async move { Json((*document).clone()) }))
}
