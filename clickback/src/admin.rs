//! The private listener of a cluster's role: whether it lives, whether it is ready, and what it measured. No key.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use pipeline::{lifecycle::Health, telemetry::Metrics};
use serde_json::json;

/// More would be no monitoring.
pub const CONNECTIONS: usize = 64;

#[derive(Clone)]
struct Inside {
    health: Health,
    metrics: Metrics,
}

pub fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(async |State(inside): State<Inside>| said(inside.health.live(), "live")))
        .route("/readyz", get(async |State(inside): State<Inside>| said(inside.health.ready(), "ready")))
        .route("/metrics", get(metrics_text))
        .with_state(Inside { health, metrics })
}

fn said(state: Result<(), String>, word: &str) -> Response {
    match state {
        Ok(()) => Json(json!({ "status": word })).into_response(),
        Err(why) => {
            let body = Json(json!({ "status": format!("not_{word}"), "detail": why }));
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
        }
    }
}

async fn metrics_text(State(inside): State<Inside>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], inside.metrics.render())
}
