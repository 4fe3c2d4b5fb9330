//! `Idempotency-Key` on POST: the answer of a success is kept for 24 h and given again.
//!
//! The kept answer is sealed, as it may hold a token or a key. A key that comes with another request is refused, and
//! so is one whose first request still runs here.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use pipeline::clock;
use schemas::{bounds, catalog, time::DAY_MS};
use sha2::{Digest, Sha256};

use super::{
    ApiState,
    auth::Caller,
    input::whole_body,
    problem::Problem,
    writes::{self, Change},
};

pub const KEEP_MS: i64 = DAY_MS;
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The hashed `Idempotency-Key` of a request, where it has one.
#[derive(Clone, Debug)]
pub struct Idempotent(pub String);

/// For handlers.
pub struct MaybeIdempotent(pub Option<Idempotent>);

impl<S: Send + Sync> FromRequestParts<S> for MaybeIdempotent {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get::<Idempotent>().cloned()))
    }
}

/// Keys whose requests run in this process.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<String>>>);

struct Running {
    all: InFlight,
    key: String,
}

impl InFlight {
    fn start(&self, key: &str) -> Option<Running> {
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
        fresh.then(|| Running { all: self.clone(), key: key.to_owned() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

pub async fn layer(State(api): State<ApiState>, request: Request, next: Next) -> Result<Response, Problem> {
    let key = match (request.method(), request.headers().get(HEADER)) {
        // A check changes nothing, so there is nothing to keep.
        (&Method::POST, Some(key)) if request.uri().path() != "/v1/check" => key_text(key)?.to_owned(),
        _ => return Ok(next.run(request).await),
    };
    let Some(caller) = request.extensions().get::<Caller>().cloned() else { return Ok(next.run(request).await) };
    let key = digest(&[&caller.tenant, &caller.key, &key], b"");
    let (mut parts, body) = request.into_parts();
    let body = whole_body(Request::new(body)).await?;
    let asked = digest(&[parts.method.as_str(), &parts.uri.to_string()], &body);

    let Some(running) = api.in_flight.start(&key) else {
        let detail = "A request with this Idempotency-Key still runs: wait for it, then ask again.";
        return Err(Problem::conflict("idempotency_key_in_use", detail).retry_after(1));
    };
    if let Some(answer) = kept(&api, &caller.tenant, &key) {
        return replay(&api, &answer, &asked);
    }
    parts.extensions.insert(Idempotent(key.clone()));
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let response = keep(&api, &caller.tenant, key, asked, response).await?;
    drop(running);
    Ok(response)
}

fn key_text(key: &HeaderValue) -> Result<&str, Problem> {
    match key.to_str() {
        Ok(text) if (1..=bounds::NAME_BYTES).contains(&text.trim().len()) => Ok(text.trim()),
        _ => Err(Problem::bad_request(
            "invalid_idempotency_key",
            "An Idempotency-Key has 1 to 255 visible ASCII characters, such as a UUID.",
        )),
    }
}

fn digest(parts: &[&str], body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    hex::encode(hash.finalize())
}

fn kept(api: &ApiState, tenant: &str, key: &str) -> Option<Arc<catalog::Answer>> {
    api.catalog.view().answer(tenant, key).filter(|answer| clock::now().since(answer.time) < KEEP_MS)
}

fn replay(api: &ApiState, answer: &catalog::Answer, asked: &str) -> Result<Response, Problem> {
    if answer.request != asked {
        let detail = "This Idempotency-Key was used for another request: take a new key for a new request.";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail));
    }
    let body = api.catalog.sealer().unseal(&answer.sealed)?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Keeps a success. What failed changed nothing, so its key may be used again.
async fn keep(
    api: &ApiState,
    tenant: &str,
    key: String,
    request: String,
    response: Response,
) -> Result<Response, Problem> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, bounds::RECORD_BYTES).await.map_err(|e| anyhow::anyhow!(e))?;
    let sealed = api.catalog.sealer().seal(&String::from_utf8_lossy(&body));
    let answer = catalog::Answer { key, request, status: parts.status.as_u16(), sealed, time: clock::now() };
    writes::change(api, tenant, |_| Ok(Change::Write(catalog::Body::Answer(answer.clone())))).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}
