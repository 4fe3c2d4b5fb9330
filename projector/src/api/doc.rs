//! Routes and their OpenAPI document, made of the same list: a route without documentation, or documentation without
//! a route, cannot be written here.

use utoipa::{
    Modify, OpenApi, PartialSchema, ToSchema,
    openapi::{
        AllOfBuilder, ObjectBuilder, Ref, RefOr, Schema,
        path::{Operation, ParameterBuilder, ParameterIn},
        schema::{AdditionalProperties, SchemaType, Type},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState, account_health, accounts, check, clicks, conversions, health, hits, keys, links, postback_urls, programs,
    reports, reprocess,
};
use crate::report::{Measures, ReportRow};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Clickback",
        description = "Setup, look-ups and reports. Errors are RFC 9457 problems with a stable `code`; an unknown \
            parameter or field is an error. Lists answer `{\"items\",\"cursor\"}`. POST takes an `Idempotency-Key`, \
            kept 24 h. Amounts are decimal strings, times RFC 3339 UTC, durations like `10m` and `7d`."
    ),
    paths(health::livez, health::readyz, health::metrics, health::openapi),
    security(("key" = [])),
    modifiers(&Keys)
)]
struct Document;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("key", bearer);
    }
}

/// Its keys are those that were asked for, so it cannot be derived.
impl PartialSchema for ReportRow {
    fn schema() -> RefOr<Schema> {
        let keys = ObjectBuilder::new()
            .description(Some(
                "The group keys: a text or null; accounts, programs and links also with `account_name` … \
                 `other`: all values beyond the first 10,000 of a day; `at_least`: some of this value may be in there.",
            ))
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
        RefOr::T(AllOfBuilder::new().item(keys).item(Ref::from_schema_name(Measures::name())).into())
    }
}

impl ToSchema for ReportRow {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Measures::name().into_owned(), Measures::schema()));
        Measures::schemas(schemas);
    }
}

/// What all operations have in common: a name of their own, and on POST the header that makes it safe to repeat.
pub fn finish(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for (path, item) in &mut document.paths.paths {
        let name = path.trim_start_matches('/').replace(['{', '}'], "").replace(['/', '-', '.'], "_");
        let methods = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            operation.operation_id = Some(format!("{method}_{name}"));
            if method == "post" && path != "/v1/check" {
                add_idempotency_key(operation);
            }
            if method == "post"
                && let Some((_, fields)) = NEEDED_ON_POST.iter().find(|(of, _)| of == path)
            {
                require(operation, fields);
            }
        }
    }
    document
}

/// POST and PATCH of these share a schema, and a PATCH needs nothing.
const NEEDED_ON_POST: [(&str, &[&str]); 3] = [
    ("/v1/accounts", &["name", "program"]),
    ("/v1/accounts/{id}/links", &["name", "destination"]),
    ("/v1/programs", &["name"]),
];

fn require(operation: &mut Operation, fields: &[&str]) {
    let Some(body) = &mut operation.request_body else { return };
    for content in body.content.values_mut() {
        let Some(shared) = content.schema.take() else { continue };
        let needed = fields.iter().fold(ObjectBuilder::new(), |object, field| object.required(*field));
        content.schema = Some(AllOfBuilder::new().item(shared).item(needed).into());
    }
}

fn add_idempotency_key(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).max_length(Some(255));
    let header = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some("Kept 24 h: the same call again gives the same answer, and does nothing."))
        .schema(Some(text));
    operation.parameters.get_or_insert_default().push(header.build());
}

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(accounts::create, accounts::list))
        .routes(routes!(accounts::get, accounts::patch))
        .routes(routes!(accounts::rotate_token))
        .routes(routes!(postback_urls::get))
        .routes(routes!(account_health::get))
        .routes(routes!(links::create, links::list))
        .routes(routes!(links::get, links::patch))
        .routes(routes!(programs::create, programs::list))
        .routes(routes!(programs::get, programs::patch))
        .routes(routes!(clicks::import, clicks::list))
        .routes(routes!(clicks::journey))
        .routes(routes!(conversions::list))
        .routes(routes!(conversions::get))
        .routes(routes!(conversions::adjust))
        .routes(routes!(reports::conversions))
        .routes(routes!(reports::postbacks))
        .routes(routes!(hits::get))
        .routes(routes!(reprocess::create))
        .routes(routes!(reprocess::get))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(check::check))
}
