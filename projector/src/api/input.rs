//! Reads requests strictly: an unknown parameter or field is an error that names the nearest known one.
//! Owns: bodies and query strings on their way into typed values. Refuses: to judge values; `fields` does.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{StatusCode, header, request::Parts};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

use schemas::bounds;

use super::problem::{FieldError, Problem};

/// The JSON body of a request. An empty body is `{}`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Ok(Self(read(json_body(request).await?, Place::Body).map_err(Problem::invalid)?))
    }
}

/// A JSON object of a request as it stands: for PATCH.
pub struct RawBody(pub Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        match json_body(request).await? {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(not_an_object()),
        }
    }
}

/// The query parameters of a request.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(query_value(parts.uri.query().unwrap_or_default()), Place::Query).map(Self).map_err(Problem::invalid)
    }
}

/// A part of the path. One that cannot be decoded names nothing.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(part)) => Ok(Self(part)),
            Err(_) => {
                let detail = "A part of this path is not percent-encoded UTF-8: no id of ours needs encoding.";
                Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail))
            }
        }
    }
}

/// A call without query parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

async fn json_body(request: Request) -> Result<Value, Problem> {
    let json = match request.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or_default()) {
        None => true,
        Some(kind) => {
            let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            kind == "application/json" || kind.ends_with("+json")
        }
    };
    let bytes = whole_body(request).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    if !json {
        let detail = "Send JSON with the header `Content-Type: application/json`.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Problem::bad_request("malformed_json", format!("The body is not JSON: {e}. Correct it there.")))
}

pub async fn whole_body(request: Request) -> Result<axum::body::Bytes, Problem> {
    axum::body::to_bytes(request.into_body(), bounds::API_BODY_BYTES).await.map_err(|_| {
        let detail = format!("The body is over {} bytes: send less at once.", bounds::API_BODY_BYTES);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    })
}

/// A query as an object: a parameter that stands there once is a string, else a list of strings.
fn query_value(query: &str) -> Value {
    let mut map = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = Value::String(value.into_owned());
        match map.get_mut(name.as_ref()) {
            None => {
                map.insert(name.into_owned(), value);
            }
            Some(Value::Array(all)) => all.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    Value::Object(map)
}

/// For parameters that may be repeated.
pub fn many<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(d)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Body,
    Query,
}

impl Place {
    fn pointer(self, path: &str) -> String {
        match self {
            Place::Body => path.to_owned(),
            Place::Query => format!("?{}", path.trim_start_matches('/')),
        }
    }
}

fn not_an_object() -> Problem {
    Problem::field("", "wrong_type", "a JSON object is needed, such as {\"name\":\"…\"}")
}

/// Reads `T`, whose fields are all optional, and reports every field that is wrong, not the first one alone.
pub fn read<T: DeserializeOwned>(value: Value, place: Place) -> Result<T, Vec<FieldError>> {
    if !value.is_object() {
        return Err(not_an_object().errors);
    }
    let first = match serde_path_to_error::deserialize::<_, T>(&value) {
        Ok(read) => return Ok(read),
        Err(error) => explain(&error, place),
    };
    let Value::Object(map) = value else { return Err(vec![first]) };
    let mut errors: Vec<FieldError> = Vec::new();
    for (name, value) in map {
        let alone = Value::Object(Map::from_iter([(name, value)]));
        if let Err(error) = serde_path_to_error::deserialize::<_, T>(&alone) {
            errors.push(explain(&error, place));
        }
    }
    if errors.is_empty() { Err(vec![first]) } else { Err(errors) }
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>, place: Place) -> FieldError {
    let mut path = pointer(error.path());
    let message = error.inner().to_string();
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") {
        let (unknown, known) = names.split_first().map(|(u, k)| (*u, k)).unwrap_or(("", &[]));
        let end = format!("/{}", escape(unknown));
        if !path.ends_with(&end) {
            path.push_str(&end);
        }
        return unknown_name(place, path, unknown, known);
    }
    if message.starts_with("missing field") {
        let field = names.first().copied().unwrap_or_default();
        return FieldError::new(place.pointer(&format!("{path}/{field}")), "missing_field", "this field is needed");
    }
    if place == Place::Query && message.contains("sequence") {
        let detail = "this parameter may be given once only";
        return FieldError::new(place.pointer(&path), "repeated_parameter", detail);
    }
    if message.starts_with("unknown variant") {
        let (given, known) = names.split_first().map(|(g, k)| (*g, k)).unwrap_or(("", &[]));
        let detail = format!("`{given}` is not one of {}{}", known.join(", "), did_you_mean(given, known));
        return FieldError::new(place.pointer(&path), "invalid_value", detail);
    }
    let code = if message.starts_with("invalid type") { "wrong_type" } else { "invalid_value" };
    FieldError::new(place.pointer(&path), code, message)
}

fn unknown_name(place: Place, path: String, unknown: &str, known: &[&str]) -> FieldError {
    let (code, word) = match place {
        Place::Body => ("unknown_field", "field"),
        Place::Query => ("unknown_parameter", "parameter"),
    };
    let mut detail = format!("there is no {word} `{unknown}` here");
    let near = did_you_mean(unknown, known);
    if !near.is_empty() {
        detail.push_str(&near);
    } else if known.is_empty() {
        detail.push_str("; this call takes none");
    } else {
        detail.push_str(&format!("; known are: {}", known.join(", ")));
    }
    FieldError::new(place.pointer(&path), code, detail)
}

/// `; did you mean …?`, or nothing where no known name is near.
pub fn did_you_mean<S: AsRef<str>>(given: &str, known: &[S]) -> String {
    let given = given.to_lowercase();
    let nearest = known
        .iter()
        .map(|name| (strsim::osa_distance(&given, &name.as_ref().to_lowercase()), name.as_ref()))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, name)) if distance <= 1 + given.chars().count() / 3 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The fields of a patch that can be set. A field that is only shown may be sent back as it was shown, so that
/// what GET answers can be edited and sent; with another value it is an error.
pub fn without_read_only<T: DeserializeOwned>(
    patch: Map<String, Value>,
    shown: &Value,
) -> Result<Map<String, Value>, Problem> {
    let mut kept = Map::new();
    let mut errors = Vec::new();
    for (name, value) in patch {
        let nothing = Value::Object(Map::from_iter([(name.clone(), Value::Null)]));
        match read::<T>(nothing, Place::Body).err().unwrap_or_default().pop() {
            Some(unknown) if unknown.code == "unknown_field" => match shown.get(&name) {
                Some(current) if *current == value => {}
                Some(_) => {
                    let detail = format!("`{name}` is shown only, and cannot be set");
                    errors.push(FieldError::new(format!("/{}", escape(&name)), "read_only_field", detail));
                }
                None => errors.push(unknown),
            },
            _ => {
                kept.insert(name, value);
            }
        }
    }
    if errors.is_empty() { Ok(kept) } else { Err(Problem::invalid(errors)) }
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            map.remove(&name);
        } else {
            merge(map.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Outer {
        name: Option<String>,
        lookback_days: Option<u32>,
        goals: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        name: String,
    }

    fn errors(value: Value) -> Vec<(String, &'static str)> {
        let mut errors: Vec<_> =
            read::<Outer>(value, Place::Body).unwrap_err().into_iter().map(|e| (e.pointer, e.code)).collect();
        errors.sort();
        errors
    }

    #[test]
    fn every_wrong_field_is_named() {
        let outer = read::<Outer>(json!({"name": "a", "goals": [{"name": "g"}]}), Place::Body).unwrap();
        assert_eq!((outer.name.as_deref(), outer.lookback_days, outer.goals[0].name.as_str()), (Some("a"), None, "g"));
        assert_eq!(
            errors(json!({"name": 5, "lookback_day": 3, "goals": [{"name": "x"}, {"nam": "y"}]})),
            [
                ("/goals/1/nam".to_owned(), "unknown_field"),
                ("/lookback_day".to_owned(), "unknown_field"),
                ("/name".to_owned(), "wrong_type")
            ]
        );
        assert_eq!(errors(json!({"goals": [{}]})), [("/goals/0/name".to_owned(), "missing_field")]);
        assert_eq!(errors(json!([1])), [(String::new(), "wrong_type")]);
    }

    #[test]
    fn the_nearest_name_is_offered() {
        let errors = read::<Outer>(json!({"lookback_day": 3}), Place::Body).unwrap_err();
        assert!(errors[0].detail.contains("did you mean `lookback_days`?"), "{}", errors[0].detail);
        let errors = read::<NoParameters>(query_value("a=1"), Place::Query).unwrap_err();
        assert_eq!((errors[0].pointer.as_str(), errors[0].code), ("?a", "unknown_parameter"));
    }

    #[test]
    fn patches_follow_rfc_7396() {
        for (target, patch, result) in [
            (
                json!({"a": "b", "c": {"d": 1, "e": 2}}),
                json!({"a": null, "c": {"d": 3, "e": null}}),
                json!({"c": {"d": 3}}),
            ),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (json!({"a": 1}), json!({"a": {"b": null}}), json!({"a": {}})),
        ] {
            let mut merged = target;
            merge(&mut merged, patch);
            assert_eq!(merged, result);
        }
    }
}
