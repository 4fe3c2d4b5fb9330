//! `/v1/programs`: the built-in catalogue and the tenant's own programs, equal citizens. A change of a built-in one
//! makes the tenant's own copy of it, under the same id.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use pipeline::View;
use schemas::{
    catalog::{Body as CatalogBody, ClickIn, Program},
    catalogue,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState,
    auth::{Admin, Reader},
    fields::{self, Errors},
    idempotency::MaybeIdempotent,
    input::{self, Body, NoParameters, Path, Place, Query, RawBody, escape},
    listing::{Listing, page},
    meaning::{self, Word},
    problem::{FieldError, Problem},
    writes::{self, Change},
};

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramInput {
    /// Default: made of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The parameter of the landing URL that carries the click id.
    #[serde(skip_serializing_if = "Option::is_none")]
    click_param: Option<String>,
    /// `query` (default) or `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    click_in: Option<ClickIn>,
    /// What is put there: default `{click_id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    click_value: Option<String>,
    /// What the program can fill in, in its own syntax: `click_id`, `dyn`, `amount`, `value`, `currency`, `tid`,
    /// `player`, `status`, `goal`, `event`, `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    placeholders: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Word>>)]
    statuses: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_goal: Option<String>,
    /// `false`: the program cannot send postbacks. Default `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    postback: Option<bool>,
    /// `true`: one global postback URL with a status or event macro, instead of one per goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    single_url: Option<bool>,
    /// Where this was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived: Option<bool>,
}

#[derive(Serialize, ToSchema)]
pub struct ProgramView {
    id: String,
    name: String,
    click_param: String,
    #[schema(value_type = String)]
    click_in: ClickIn,
    click_value: String,
    placeholders: BTreeMap<String, String>,
    statuses: BTreeMap<String, Word>,
    currency: Option<String>,
    timezone: Option<String>,
    default_goal: Option<String>,
    postback: bool,
    single_url: bool,
    source: String,
    notes: String,
    verified: bool,
    archived: bool,
    /// From the catalogue that comes with Clickback, and not changed here.
    built_in: bool,
}

impl ProgramView {
    fn of(view: &View, tenant: &str, program: &Program) -> Self {
        Self {
            id: program.id.clone(),
            name: program.name.clone(),
            click_param: program.click_param.clone(),
            click_in: program.click_in,
            click_value: program.click_value.clone(),
            placeholders: program.placeholders.clone(),
            statuses: program.statuses.iter().map(|(word, m)| (word.clone(), meaning::word(m))).collect(),
            currency: program.currency.map(|c| c.code().to_owned()),
            timezone: program.timezone.clone(),
            default_goal: program.default_goal.clone(),
            postback: program.postback,
            single_url: program.single_url,
            source: program.source.clone(),
            notes: program.notes.clone(),
            verified: program.verified,
            archived: program.archived,
            built_in: !is_own(view, tenant, &program.id),
        }
    }
}

fn is_own(view: &View, tenant: &str, id: &str) -> bool {
    view.version(tenant, &format!("program/{id}")) > 0
}

impl ProgramInput {
    fn of(program: &Program) -> Self {
        Self {
            id: Some(program.id.clone()),
            name: Some(program.name.clone()),
            click_param: Some(program.click_param.clone()),
            click_in: Some(program.click_in),
            click_value: Some(program.click_value.clone()),
            placeholders: Some(program.placeholders.clone()),
            statuses: Some(program.statuses.iter().map(|(word, m)| (word.clone(), meaning::value(m))).collect()),
            currency: program.currency.map(|c| c.code().to_owned()),
            timezone: program.timezone.clone(),
            default_goal: program.default_goal.clone(),
            postback: Some(program.postback),
            single_url: Some(program.single_url),
            source: Some(program.source.clone()),
            notes: Some(program.notes.clone()),
            verified: Some(program.verified),
            archived: Some(program.archived),
        }
    }

    fn program(self) -> Result<Program, Problem> {
        let mut errors = Errors::default();
        let name = errors.take("/name", fields::name(self.name.as_deref().unwrap_or_default())).unwrap_or_default();
        let click_in = self.click_in.unwrap_or_default();
        let click_param = self.click_param.unwrap_or_default().trim().to_owned();
        if click_param.is_empty() && click_in == ClickIn::Query {
            errors.add("/click_param", "missing_field", "the parameter that carries the click id is needed");
        }
        let program = Program {
            id: self.id.unwrap_or_else(|| slug(&name)),
            name,
            click_param,
            click_in,
            click_value: self.click_value.unwrap_or_else(|| "{click_id}".to_owned()),
            placeholders: self.placeholders.unwrap_or_default(),
            statuses: read_statuses(self.statuses.unwrap_or_default(), &mut errors),
            currency: self.currency.and_then(|c| errors.take("/currency", fields::currency(&c))),
            timezone: self.timezone.and_then(|t| errors.take("/timezone", fields::timezone_name(&t))),
            default_goal: self.default_goal.and_then(|g| errors.take("/default_goal", fields::goal_name(&g))),
            postback: self.postback.unwrap_or(true),
            single_url: self.single_url.unwrap_or_default(),
            source: self.source.unwrap_or_default(),
            notes: self.notes.unwrap_or_default(),
            verified: self.verified.unwrap_or_default(),
            archived: self.archived.unwrap_or_default(),
        };
        for problem in catalogue::check::problems(&program) {
            if errors.0.iter().all(|error| error.pointer != problem.pointer) {
                errors.0.push(FieldError::new(problem.pointer, problem.code, problem.detail));
            }
        }
        errors.done()?;
        Ok(program)
    }
}

fn read_statuses(given: BTreeMap<String, Value>, errors: &mut Errors) -> BTreeMap<String, schemas::status::Meaning> {
    let mut map = BTreeMap::new();
    for (word, value) in given {
        let pointer = format!("/statuses/{}", escape(&word));
        let Some(folded) = errors.take(&pointer, fields::word(&word)) else { continue };
        if let Some(meaning) = meaning::read(value, &pointer, errors) {
            map.insert(folded, meaning);
        }
    }
    map
}

fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == 48 {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

fn find(view: &View, tenant: &str, id: &str) -> Result<Arc<Program>, Problem> {
    view.program(tenant, id).ok_or_else(|| Problem::not_found("program", id))
}

#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProgramsQuery {
    /// Words of the id, the name or the link parameter.
    q: Option<String>,
    /// `true`: archived ones too.
    #[param(value_type = Option<bool>)]
    archived: Option<String>,
    cursor: Option<String>,
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// List or search programs, by id.
#[utoipa::path(get, path = "/v1/programs", tag = "programs", params(ProgramsQuery),
    responses((status = 200, body = Listing<ProgramView>), (status = "4XX", body = Problem)))]
pub async fn list(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Query(query): Query<ProgramsQuery>,
) -> Result<Json<Listing<ProgramView>>, Problem> {
    let archived = fields::given_flag(query.archived.as_deref(), "?archived")?;
    let limit = fields::limit(query.limit.as_deref())?;
    let q = query.q.unwrap_or_default();
    let view = api.catalog.view();
    let wanted = view.programs(&caller.tenant).filter(|p| (archived || !p.archived) && catalogue::matches(p, &q));
    let (programs, cursor) = page(wanted, |program| &program.id, query.cursor.as_deref(), limit);
    let items = programs.iter().map(|program| ProgramView::of(&view, &caller.tenant, program)).collect();
    Ok(Json(Listing { items, cursor }))
}

/// Add a program of your own.
#[utoipa::path(post, path = "/v1/programs", tag = "programs", request_body = ProgramInput,
    responses((status = 201, body = ProgramView), (status = "4XX", body = Problem)))]
pub async fn create(
    Admin(caller): Admin,
    MaybeIdempotent(idempotent): MaybeIdempotent,
    State(api): State<ApiState>,
    Query(NoParameters {}): Query<NoParameters>,
    Body(input): Body<ProgramInput>,
) -> Result<(StatusCode, Json<ProgramView>), Problem> {
    let program = input.program()?;
    writes::change(&api, &caller.tenant, |view| match view.program(&caller.tenant, &program.id) {
        // The same call again, after a crash between the program and its kept answer.
        Some(there) if idempotent.is_some() && *there == program => Ok(Change::Nothing),
        Some(there) => {
            let detail = format!(
                "There is a program `{}` ({}): change it with PATCH, or choose another id.",
                there.id, there.name
            );
            Err(Problem::conflict_at("/id", "already_exists", detail))
        }
        None => Ok(Change::Write(CatalogBody::Program(Box::new(program.clone())))),
    })
    .await?;
    Ok((StatusCode::CREATED, show(&api, &caller.tenant, &program.id)?))
}

fn show(api: &ApiState, tenant: &str, id: &str) -> Result<Json<ProgramView>, Problem> {
    let view = api.catalog.view();
    Ok(Json(ProgramView::of(&view, tenant, &*find(&view, tenant, id)?)))
}

/// Show a program.
#[utoipa::path(get, path = "/v1/programs/{id}", tag = "programs", params(("id" = String, Path,)),
    responses((status = 200, body = ProgramView), (status = "4XX", body = Problem)))]
pub async fn get(
    Reader(caller): Reader,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<ProgramView>, Problem> {
    show(&api, &caller.tenant, &id)
}

/// Change a program (RFC 7396). Of a built-in one this makes your own copy, which takes its place.
#[utoipa::path(patch, path = "/v1/programs/{id}", tag = "programs", params(("id" = String, Path,)),
    request_body(content = ProgramInput, content_type = "application/merge-patch+json"),
    responses((status = 200, body = ProgramView), (status = "4XX", body = Problem)))]
pub async fn patch(
    Admin(caller): Admin,
    State(api): State<ApiState>,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
    RawBody(mut patch): RawBody,
) -> Result<Json<ProgramView>, Problem> {
    {
        let view = api.catalog.view();
        let program = find(&view, &caller.tenant, &id)?;
        let shown = ProgramView::of(&view, &caller.tenant, &program);
        let shown = serde_json::to_value(shown).map_err(anyhow::Error::from)?;
        if patch.get("id").is_some_and(|given| *given != *program.id) {
            return Err(Problem::field("/id", "read_only_field", "the id of a program stays: add another program"));
        }
        patch = input::without_read_only::<ProgramInput>(patch, &shown)?;
    }
    writes::change(&api, &caller.tenant, |view| {
        let program = find(view, &caller.tenant, &id)?;
        let next = patched(&program, &patch)?;
        let same = next == *program;
        Ok(if same { Change::Nothing } else { Change::Write(CatalogBody::Program(Box::new(next))) })
    })
    .await?;
    show(&api, &caller.tenant, &id)
}

fn patched(program: &Program, patch: &Map<String, Value>) -> Result<Program, Problem> {
    let mut settings = serde_json::to_value(ProgramInput::of(program)).map_err(anyhow::Error::from)?;
    input::merge(&mut settings, Value::Object(patch.clone()));
    input::read::<ProgramInput>(settings, Place::Body).map_err(Problem::invalid)?.program()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_of_names() {
        assert_eq!(slug("My Program (Malta) – 2"), "my-program-malta-2");
        assert!(catalogue::check::is_slug(&slug(&"long name ".repeat(20))));
    }
}
