//! `GET /v1/accounts/{id}/postback-urls`: what to hand to the operator. Not for keys of scope read, as the URLs hold
//! the account's token.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ApiState, accounts,
    auth::Writer,
    input::{NoParameters, Path, Query},
    problem::Problem,
};

#[derive(Serialize, ToSchema)]
pub struct PostbackUrlsView {
    /// `false`: the program cannot send postbacks; `problem` says what to do.
    supported: bool,
    /// `per_goal` or `single`
    #[schema(value_type = String)]
    mode: schemas::postback_urls::Mode,
    urls: Vec<PostbackUrlView>,
    /// Text to send to the account manager.
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct PostbackUrlView {
    /// `null` for a single URL of all goals.
    goal: Option<String>,
    url: String,
    /// When the operator has to call it.
    when: String,
}

/// The postback URLs of an account, in the program's placeholder syntax, and a message for the account manager.
#[utoipa::path(get, path = "/v1/accounts/{id}/postback-urls", tag = "accounts", params(("id" = String, Path,)),
    responses((status = 200, body = PostbackUrlsView), (status = "4XX", body = Problem)))]
pub async fn get(
    Writer(caller): Writer,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<PostbackUrlsView>, Problem> {
    let view = api.catalog.view();
    let entry = accounts::find(&view, &caller.tenant, &id)?;
    let program = &entry.record.program;
    let program = view.program(&caller.tenant, program).ok_or_else(|| Problem::not_found("program", program))?;
    let goals: Vec<String> = entry.settings.goals.iter().map(|goal| goal.name.clone()).collect();
    let base = accounts::postback_base(&api, &entry.token);
    let made = schemas::postback_urls::postback_urls(&base, &program, &goals);
    let urls = made.urls.into_iter().map(|url| PostbackUrlView { goal: url.goal, url: url.url, when: url.when });
    Ok(Json(PostbackUrlsView {
        supported: made.supported,
        mode: made.mode,
        urls: urls.collect(),
        message: made.message,
        problem: made.problem,
    }))
}
