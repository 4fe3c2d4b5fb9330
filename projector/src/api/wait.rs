//! `?after=<receipt>&wait=2s`: a reader always sees its own write.

use std::time::Duration;

use axum::http::StatusCode;
use pipeline::Receipt;

use super::{ApiState, fields, problem::Problem};

const DEFAULT_WAIT_MS: i64 = 2_000;
const MAX_WAIT_MS: i64 = 30_000;

/// Returns once all of these events are in the tables, or answers `not_yet_visible`.
pub async fn until_visible(api: &ApiState, after: &[String], wait: Option<&str>) -> Result<(), Problem> {
    let wait_ms = match fields::given(wait) {
        Some(text) => fields::duration_within(text, 0, MAX_WAIT_MS).map_err(|wrong| wrong.at("?wait"))?,
        None => DEFAULT_WAIT_MS,
    };
    let mut next = 0;
    for after in after.iter().map(|a| a.trim()).filter(|a| !a.is_empty()) {
        next = next.max(next_src(api, after)?);
    }
    until(api, next, wait_ms).await
}

/// Waits until everything that the log has acknowledged by now is in the tables.
pub async fn until_latest(api: &ApiState) -> Result<(), Problem> {
    until(api, api.end.get(), DEFAULT_WAIT_MS).await
}

async fn until(api: &ApiState, next: u64, wait_ms: i64) -> Result<(), Problem> {
    let mut visible = api.visible.clone();
    let wait = Duration::from_millis(wait_ms.unsigned_abs());
    match tokio::time::timeout(wait, visible.wait_for(|visible| *visible >= next)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Problem::unavailable("The server is shutting down: try again.").retry_after(5)),
        Err(_) => {
            let detail = format!(
                "These events were not in the tables within {}: ask again, or with a longer `wait`.",
                fields::duration_text(wait_ms)
            );
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_yet_visible", detail).retry_after(1))
        }
    }
}

fn next_src(api: &ApiState, after: &str) -> Result<u64, Problem> {
    if after == "latest" {
        return Ok(api.end.get());
    }
    match after.parse::<Receipt>() {
        Ok(Receipt::Logged { partition: 0, src }) => Ok(src.saturating_add(1)),
        Ok(_) => {
            Err(Problem::field("?after", "invalid_receipt", "this log has partition 0 only: no such receipt was given"))
        }
        Err(e) => Err(Problem::field("?after", "invalid_receipt", format!("`{after}` is {e}, and not `latest`"))),
    }
}
