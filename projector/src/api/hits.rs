//! `GET /v1/hits/{id}`: one hit as the postback report shows it.

use axum::{Json, extract::State};
use schemas::EventId;

use super::{
    ApiState, ask,
    auth::Reader,
    clicks::WaitQuery,
    input::{Path, Query},
    problem::Problem,
    wait,
};
use crate::report::PostbackRow;

/// One hit: what came in, and what became of it.
#[utoipa::path(get, path = "/v1/hits/{id}", tag = "reports", params(("id" = String, Path,), WaitQuery),
    responses((status = 200, body = PostbackRow), (status = "4XX", body = Problem)))]
pub async fn get(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<PostbackRow>, Problem> {
    let hit = EventId::parse(id.as_bytes()).ok_or_else(|| Problem::not_found("hit", &id))?;
    wait::until_visible(&api, &query.after, query.wait.as_deref()).await?;
    let row = ask(&api, move |inner| inner.reports.hit(&caller.tenant, hit)).await?;
    row.map(Json).ok_or_else(|| Problem::not_found("hit", &id))
}
