//! Tracking links: `/v1/accounts/{id}/links` and `/v1/links/{id}`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use pipeline::{LinkEntry, View, clock};
use schemas::{
    Time,
    catalog::{Body as CatalogBody, Link},
    landing,
    settings::DynMode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState, accounts,
    auth::{Reader, Writer},
    fields::{self, Errors},
    idempotency::{KEEP_MS, MaybeIdempotent},
    input::{self, Body, NoParameters, Path, Place, Query, RawBody},
    listing::{Listing, page},
    problem::Problem,
    reports, wait,
    writes::{self, Change},
};

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LinkInput {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The operator's page, http or https. The program's click parameter is set on it; `{click_id}`, `{dyn}`, `{sub1}` …
    /// within it are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    /// Overrides the account's `dyn` for clicks of this link: `click` or `campaign`. Fixed after the first click.
    #[serde(rename = "dyn", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    dyn_mode: Option<DynMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived: Option<bool>,
}

#[derive(Serialize, ToSchema)]
pub struct LinkView {
    id: String,
    account: String,
    name: String,
    destination: String,
    /// What visitors follow.
    url: String,
    #[serde(rename = "dyn")]
    #[schema(value_type = String)]
    dyn_mode: DynMode,
    archived: bool,
    #[schema(value_type = String, format = DateTime)]
    created: Time,
}

impl LinkView {
    fn of(api: &ApiState, entry: &LinkEntry) -> Self {
        let link = &entry.record;
        Self {
            id: link.id.clone(),
            account: link.account.clone(),
            name: link.name.clone(),
            destination: link.destination.clone(),
            url: format!("{}/c/{}", api.public_url, link.id),
            dyn_mode: link.dyn_mode.unwrap_or(entry.account.record.dyn_mode),
            archived: link.archived,
            created: link.created,
        }
    }
}

impl LinkInput {
    fn of(link: &Link) -> Self {
        Self {
            name: Some(link.name.clone()),
            destination: Some(link.destination.clone()),
            dyn_mode: link.dyn_mode,
            archived: Some(link.archived),
        }
    }

    fn apply(self, bare: Link) -> Result<Link, Problem> {
        let mut errors = Errors::default();
        let name = errors.take("/name", fields::name(self.name.as_deref().unwrap_or_default()));
        let destination = self.destination.unwrap_or_default();
        let destination = errors.take("/destination", destination_of(&destination));
        errors.done()?;
        Ok(Link {
            name: name.unwrap_or_default(),
            destination: destination.unwrap_or_default(),
            dyn_mode: self.dyn_mode,
            archived: self.archived.unwrap_or_default(),
            ..bare
        })
    }
}

fn destination_of(text: &str) -> Result<String, fields::Wrong> {
    let text = text.trim();
    if text.is_empty() {
        return Err(fields::Wrong("missing_field", "the operator's page is needed, such as https://…".to_owned()));
    }
    landing::check_destination(text).map_err(|detail| fields::Wrong("invalid_destination", detail))?;
    Ok(text.to_owned())
}

fn find(view: &View, tenant: &str, id: &str) -> Result<Arc<LinkEntry>, Problem> {
    view.link(id).filter(|entry| entry.tenant == tenant).ok_or_else(|| Problem::not_found("link", id))
}

fn show(api: &ApiState, tenant: &str, id: &str) -> Result<Json<LinkView>, Problem> {
    Ok(Json(LinkView::of(api, &*find(&api.catalog.view(), tenant, id)?)))
}

/// Create a tracking link.
#[utoipa::path(post, path = "/v1/accounts/{id}/links", tag = "links", params(("id" = String, Path,)),
    request_body = LinkInput, responses((status = 201, body = LinkView), (status = "4XX", body = Problem)))]
pub async fn create(
    Writer(caller): Writer,
    MaybeIdempotent(idempotent): MaybeIdempotent,
    State(api): State<ApiState>,
    Path(account): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<LinkInput>,
) -> Result<(StatusCode, Json<LinkView>), Problem> {
    let mut id = writes::new_id("lnk_", idempotent.as_ref());
    if api.catalog.view().link(&id).is_some_and(|entry| clock::now().since(entry.record.created) >= KEEP_MS) {
        id = writes::new_id("lnk_", None);
    }
    writes::change(&api, &caller.tenant, |view| {
        accounts::find(view, &caller.tenant, &account)?;
        if view.link(&id).is_some() {
            return Ok(Change::Nothing);
        }
        let bare = Link {
            id: id.clone(),
            account: account.clone(),
            name: String::new(),
            destination: String::new(),
            dyn_mode: None,
            archived: false,
            created: clock::now(),
        };
        Ok(Change::Write(CatalogBody::Link(input.clone().apply(bare)?)))
    })
    .await?;
    Ok((StatusCode::CREATED, show(&api, &caller.tenant, &id)?))
}

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LinksQuery {
    /// `true`: archived ones too.
    #[param(value_type = Option<bool>)]
    archived: Option<String>,
    cursor: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// List the links of an account, by id.
#[utoipa::path(get, path = "/v1/accounts/{id}/links", tag = "links", params(("id" = String, Path,), LinksQuery),
    responses((status = 200, body = Listing<LinkView>), (status = "4XX", body = Problem)))]
pub async fn list(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(account): Path<String>,
    Query(query): Query<LinksQuery>,
) -> Result<Json<Listing<LinkView>>, Problem> {
    let archived = fields::given_flag(query.archived.as_deref(), "?archived")?;
    let limit = fields::limit(query.limit.as_deref())?;
    let view = api.catalog.view();
    accounts::find(&view, &caller.tenant, &account)?;
    let wanted = view.links(&caller.tenant, &account).filter(|entry| archived || !entry.record.archived);
    let (entries, cursor) = page(wanted, |entry| &entry.record.id, query.cursor.as_deref(), limit);
    let items = entries.iter().map(|entry| LinkView::of(&api, entry)).collect();
    Ok(Json(Listing { items, cursor }))
}

/// Show a link.
#[utoipa::path(get, path = "/v1/links/{id}", tag = "links", params(("id" = String, Path,)),
    responses((status = 200, body = LinkView), (status = "4XX", body = Problem)))]
pub async fn get(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<LinkView>, Problem> {
    show(&api, &caller.tenant, &id)
}

/// Change a link (RFC 7396). Archived links go on working.
#[utoipa::path(patch, path = "/v1/links/{id}", tag = "links", params(("id" = String, Path,)),
    request_body(content = LinkInput, content_type = "application/merge-patch+json"),
    responses((status = 200, body = LinkView), (status = "4XX", body = Problem)))]
pub async fn patch(
    Writer(caller): Writer,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
    RawBody(patch): RawBody,
) -> Result<Json<LinkView>, Problem> {
    let entry = find(&api.catalog.view(), &caller.tenant, &id)?;
    let shown = serde_json::to_value(LinkView::of(&api, &entry)).map_err(anyhow::Error::from)?;
    let patch = input::without_read_only::<LinkInput>(patch, &shown)?;
    let inherited = entry.account.record.dyn_mode;
    let mode = |link: &Link| link.dyn_mode.unwrap_or(inherited);
    if mode(&patched(&entry.record, &patch)?) != mode(&entry.record) {
        wait::until_latest(&api).await?;
        if reports::has_clicks(&api, &caller.tenant, "link", &id).await? {
            return Err(accounts::dyn_is_fixed());
        }
    }
    writes::change(&api, &caller.tenant, |view| {
        let entry = find(view, &caller.tenant, &id)?;
        let next = patched(&entry.record, &patch)?;
        Ok(if next == *entry.record { Change::Nothing } else { Change::Write(CatalogBody::Link(next)) })
    })
    .await?;
    show(&api, &caller.tenant, &id)
}

fn patched(link: &Link, patch: &Map<String, Value>) -> Result<Link, Problem> {
    let mut settings = serde_json::to_value(LinkInput::of(link)).map_err(anyhow::Error::from)?;
    input::merge(&mut settings, Value::Object(patch.clone()));
    input::read::<LinkInput>(settings, Place::Body).map_err(Problem::invalid)?.apply(link.clone())
}
