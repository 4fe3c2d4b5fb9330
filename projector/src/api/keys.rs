//! `/v1/keys`: API keys of the caller's tenant. A key is shown once; only its hash is kept.

use axum::{Json, extract::State, http::StatusCode};
use pipeline::clock;
use schemas::{
    Time,
    catalog::{ApiKey, Body as CatalogBody, Scope},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState,
    auth::{self, Admin},
    fields::{self, Errors},
    idempotency::{KEEP_MS, MaybeIdempotent},
    input::{Body, NoParameters, Path, Query},
    listing::{Listing, page},
    problem::Problem,
    writes::{self, Change},
};

#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyInput {
    #[schema(value_type = String, required = true)]
    name: Option<String>,
    /// `read`, `write` or `admin`.
    #[schema(value_type = String, required = true)]
    scope: Option<Scope>,
}

#[derive(Serialize, ToSchema)]
pub struct KeyCreated {
    id: String,
    /// Shown this once.
    key: String,
    name: String,
    #[schema(value_type = String)]
    scope: Scope,
}

#[derive(Serialize, ToSchema)]
pub struct KeyView {
    id: String,
    name: String,
    #[schema(value_type = String)]
    scope: Scope,
    revoked: bool,
    #[schema(value_type = String, format = DateTime)]
    created: Time,
}

impl KeyView {
    fn of(key: &ApiKey) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            scope: key.scope,
            revoked: key.revoked,
            created: key.created,
        }
    }
}

/// Create an API key. The answer shows it this once.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = KeyInput,
    responses((status = 201, body = KeyCreated), (status = "4XX", body = Problem)))]
pub async fn create(
    Admin(caller): Admin,
    MaybeIdempotent(idempotent): MaybeIdempotent,
    State(api): State<ApiState>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<KeyInput>,
) -> Result<(StatusCode, Json<KeyCreated>), Problem> {
    let mut errors = Errors::default();
    let name = errors.take("/name", fields::name(input.name.as_deref().unwrap_or_default()));
    if input.scope.is_none() {
        errors.add("/scope", "missing_field", "a scope is needed: read, write or admin");
    }
    errors.done()?;
    let (name, scope) = (name.unwrap_or_default(), input.scope.unwrap_or(Scope::Read));

    let old = |key: &ApiKey| clock::now().since(key.created) >= KEEP_MS;
    let mut id = writes::new_id("", idempotent.as_ref());
    if api.catalog.view().keys(&caller.tenant).any(|key| key.id == id && old(&key)) {
        id = writes::new_id("", None);
    }
    // After a crash between the key and its kept answer the same call comes again: nobody has seen the first
    // secret, so a new one takes its place.
    let key = auth::new_key(&id);
    let record = ApiKey {
        id: id.clone(),
        name: name.clone(),
        scope,
        hash: auth::hash(&key),
        revoked: false,
        created: clock::now(),
    };
    writes::change(&api, &caller.tenant, |_| Ok(Change::Write(CatalogBody::Key(record.clone())))).await?;
    Ok((StatusCode::CREATED, Json(KeyCreated { id, key, name, scope })))
}

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KeysQuery {
    /// `true`: revoked ones too.
    #[param(value_type = Option<bool>)]
    revoked: Option<String>,
    cursor: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// List the API keys, without the keys themselves.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", params(KeysQuery),
    responses((status = 200, body = Listing<KeyView>), (status = "4XX", body = Problem)))]
pub async fn list(
    Admin(caller): Admin,
    State(api): State<ApiState>,
    Query(query): Query<KeysQuery>,
) -> Result<Json<Listing<KeyView>>, Problem> {
    let revoked = fields::given_flag(query.revoked.as_deref(), "?revoked")?;
    let limit = fields::limit(query.limit.as_deref())?;
    let view = api.catalog.view();
    let wanted = view.keys(&caller.tenant).filter(|key| revoked || !key.revoked);
    let (keys, cursor) = page(wanted, |key| &key.id, query.cursor.as_deref(), limit);
    Ok(Json(Listing { items: keys.iter().map(KeyView::of).collect(), cursor }))
}

/// Revoke an API key: from the answer on it opens nothing.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path,)),
    responses((status = 200, body = KeyView), (status = "4XX", body = Problem)))]
pub async fn revoke(
    Admin(caller): Admin,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<KeyView>, Problem> {
    let mut revoked = None;
    writes::change(&api, &caller.tenant, |view| {
        let Some(mut key) = view.keys(&caller.tenant).find(|key| key.id == id) else {
            return Err(Problem::not_found("key", &id));
        };
        let done = std::mem::replace(&mut key.revoked, true);
        revoked = Some(KeyView::of(&key));
        Ok(if done { Change::Nothing } else { Change::Write(CatalogBody::Key(key)) })
    })
    .await?;
    revoked.map(Json).ok_or_else(|| Problem::not_found("key", &id))
}
