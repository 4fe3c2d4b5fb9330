//! `?after=<receipt>&wait=2s`: a reader always sees its own write.

use std::time::Duration;

use axum::http::StatusCode;
use pipeline::Receipt;

use super::{ApiState, fields, problem::Problem};
use crate::fresh::Wanted;

const DEFAULT_WAIT_MS: i64 = 2_000;
const MAX_WAIT_MS: i64 = 30_000;
const LATEST: &str = "latest";

/// Returns once all of these events are in the tables, or answers `not_yet_visible`.
pub async fn until_visible(api: &ApiState, after: &[String], wait: Option<&str>) -> Result<(), Problem> {
    let wait_ms = match fields::given(wait) {
        Some(text) => fields::duration_within(text, 0, MAX_WAIT_MS).map_err(|wrong| wrong.at("?wait"))?,
        None => DEFAULT_WAIT_MS,
    };
    let mut wanted = Wanted::default();
    // A receipt of several events has commas between.
    for after in after.iter().flat_map(|after| after.split(',')).map(str::trim).filter(|after| !after.is_empty()) {
        add(api, &mut wanted, after).await?;
    }
    until(api, &wanted, wait_ms).await
}

/// Waits until everything that the log has acknowledged by now is in the tables.
pub async fn until_latest(api: &ApiState) -> Result<(), Problem> {
    let mut wanted = Wanted::default();
    add(api, &mut wanted, LATEST).await?;
    until(api, &wanted, DEFAULT_WAIT_MS).await
}

async fn until(api: &ApiState, wanted: &Wanted, wait_ms: i64) -> Result<(), Problem> {
    let wait = Duration::from_millis(wait_ms.unsigned_abs());
    match tokio::time::timeout(wait, api.fresh.shows(wanted)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(error = format!("{error:#}"), "it is not known whether the tables show an event");
            Err(Problem::unavailable("The tables do not answer: try again.").retry_after(5))
        }
        Err(_) => {
            let detail = format!(
                "These events were not in the tables within {}: ask again, or with a longer `wait`.",
                fields::duration_text(wait_ms)
            );
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_yet_visible", detail).retry_after(1))
        }
    }
}

async fn add(api: &ApiState, wanted: &mut Wanted, after: &str) -> Result<(), Problem> {
    if after == LATEST {
        return api.fresh.add_latest(wanted).await.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "it is not known where the log ends");
            Problem::unavailable("It is not known where the log ends now: try again.").retry_after(5)
        });
    }
    match after.parse::<Receipt>() {
        Ok(receipt) if api.fresh.knows(&receipt) => {
            wanted.add(&receipt);
            Ok(())
        }
        Ok(_) => {
            Err(Problem::field("?after", "invalid_receipt", "no such receipt was given: there is no such partition"))
        }
        Err(e) => Err(Problem::field("?after", "invalid_receipt", format!("`{after}` is {e}, and not `latest`"))),
    }
}
