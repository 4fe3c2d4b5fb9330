//! `POST /v1/check`: as `clickback check`, with an account's settings.

use axum::{Json, extract::State};
use pipeline::clock;
use schemas::{bounds, catalogue, check as checker, settings::AccountSettings};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    ApiState,
    auth::Reader,
    fields,
    input::{Body, NoParameters, Query},
    problem::Problem,
};

#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckInput {
    /// A postback URL, or a tracking or landing URL.
    #[schema(value_type = String, required = true)]
    url: Option<String>,
    /// Whose settings hold; without one, those of the `generic` program.
    account: Option<String>,
}

/// What a postback URL would do, or whether a landing URL carries the click parameter. Nothing is recorded.
#[utoipa::path(post, path = "/v1/check", tag = "check", request_body = CheckInput,
    responses((status = 200, body = checker::CheckResult), (status = "4XX", body = Problem)))]
pub async fn check(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<CheckInput>,
) -> Result<Json<checker::CheckResult>, Problem> {
    let Some(url) = fields::given(input.url.as_deref()) else {
        return Err(Problem::field("/url", "missing_field", "the URL to be checked is needed"));
    };
    if url.len() > bounds::URI_BYTES {
        return Err(Problem::field("/url", "out_of_range", format!("{} bytes at most", bounds::URI_BYTES)));
    }
    let view = api.catalog.view();
    let Some(account) = fields::given(input.account.as_deref()) else {
        let settings = AccountSettings::generic(&caller.tenant, "check");
        return Ok(Json(checker::check(url, &settings, catalogue::find(catalogue::GENERIC))));
    };
    let entry = match view.account(&caller.tenant, account) {
        Some(entry) => entry,
        None => return Err(Problem::field("/account", "unknown_account", format!("there is no account `{account}`"))),
    };
    let mut program = view.program(&caller.tenant, &entry.record.program).map(|program| (*program).clone());
    if let (Some(program), Some(param)) = (&mut program, &entry.record.click_param) {
        program.click_param.clone_from(param);
    }
    let mut result = checker::check(url, &entry.settings, program.as_ref());
    if let Some((_, rest)) = url.split_once("/post-back/") {
        let token = rest.split(['?', '/', '#']).next().unwrap_or_default();
        let owner = view.by_token(token, clock::now());
        if owner.is_none_or(|owner| owner.tenant != entry.tenant || owner.record.id != entry.record.id) {
            result
                .findings
                .push("The token in this URL is not this account's: copy the URL from the account.".to_owned());
        }
    }
    Ok(Json(result))
}
