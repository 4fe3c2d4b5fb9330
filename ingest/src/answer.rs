//! The answers of the public edge: JSON, a pixel, or what an account asks for.
//!
//! Refuses to say `accepted` without a receipt. Texts of refusals are constants, so nothing a sender wrote is sent
//! back except in a hit's own hint.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use pipeline::Receipt;
use schemas::{EventId, Reason, catalog::AnswerMode};
use serde::Serialize;

pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) const RECEIPT: HeaderName = HeaderName::from_static("x-clickback-receipt");
pub(crate) const CLICK: HeaderName = HeaderName::from_static("x-clickback-click");
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const GIF: HeaderValue = HeaderValue::from_static("image/gif");

/// One transparent pixel.
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\
\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// An answer to a request that is not recorded.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    body: &'static str,
    allow: Option<&'static str>,
    retry_after: Option<u64>,
}

macro_rules! refusals {
    ($($name:ident = $status:ident, $reason:literal, $hint:literal;)*) => {
        $(pub(crate) const $name: Refusal = Refusal {
            status: StatusCode::$status,
            body: concat!(r#"{"status":"refused","reason":""#, $reason, r#"","hint":""#, $hint, r#""}"#),
            allow: None,
            retry_after: None,
        };)*
        #[cfg(test)]
        const REFUSALS: &[Refusal] = &[$($name,)*];
    };
}

refusals! {
    INCOMPLETE = BAD_REQUEST, "incomplete_body", "The body ended early or is not framed as HTTP says: send it again.";
    NOT_FOUND = NOT_FOUND, "not_found", "There are only tracking links, /c/..., and postback URLs, /post-back/..., here.";
    UNKNOWN_LINK = NOT_FOUND, "unknown_link", "There is no such tracking link: copy it again from the account's links.";
    UNKNOWN_TOKEN = NOT_FOUND, "unknown_token", "There is no such postback URL: copy it again from the account.";
    BAD_METHOD = METHOD_NOT_ALLOWED, "method_not_allowed", "Use one of the methods in the Allow header.";
    SLOW_BODY = REQUEST_TIMEOUT, "slow_body", "The body did not arrive in time: send it again.";
    LARGE_BODY = PAYLOAD_TOO_LARGE, "body_too_large", "A body may have 256 KiB at most.";
    LONG_URI = URI_TOO_LONG, "uri_too_long", "Path and query may have 16 KiB at most: send more parameters in the body.";
    UNKNOWN_TYPE = UNSUPPORTED_MEDIA_TYPE, "unknown_content_type", "Send parameters in the query, as a form (application/x-www-form-urlencoded) or as flat JSON (application/json).";
    RATE_LIMITED = TOO_MANY_REQUESTS, "rate_limited", "The account's rate_limit is reached: send again after the time in Retry-After.";
    LARGE_HEADERS = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "All headers together may have 32 KiB at most.";
    NOT_DURABLE = SERVICE_UNAVAILABLE, "not_durable", "It could not be stored just now: send the same request again after the time in Retry-After.";
    UNREAD_CATALOG = SERVICE_UNAVAILABLE, "catalog_unread", "It is not known just now whether this URL exists: send the same request again after the time in Retry-After.";
    ADDRESS_NOT_ALLOWED = FORBIDDEN, "address_not_allowed", "The sender's address is not in the account's allow list. So many such requests came that this one was only counted.";
    BAD_SIGNATURE = UNAUTHORIZED, "bad_signature", "The signature is missing or wrong. So many such requests came that this one was only counted.";
}

impl Refusal {
    pub(crate) fn allow(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    /// At least a second.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..self }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        let mut answer = with_body(refusal.status, JSON, Bytes::from_static(refusal.body.as_bytes()));
        if let Some(methods) = refusal.allow {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(seconds) = refusal.retry_after {
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        answer
    }
}

pub(crate) fn with_body(status: StatusCode, kind: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// What is said of one hit that is durable.
#[derive(Serialize)]
pub(crate) struct Told<'a> {
    pub(crate) status: &'static str,
    pub(crate) hit: EventId,
    pub(crate) receipt: Receipt,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<&'a str>,
}

impl<'a> Told<'a> {
    pub(crate) fn new(hit: EventId, receipt: Receipt, reject: Option<(Reason, Option<&'a str>)>) -> Self {
        let hint = reject.map(|(reason, hint)| hint.unwrap_or(reason.hint()));
        Told { status: word(reject.is_none()), hit, receipt, reason: reject.map(|(reason, _)| reason), hint }
    }
}

/// What is said of a JSON array: it counts as accepted if one of its hits is.
#[derive(Serialize)]
pub(crate) struct ToldAll<'a> {
    status: &'static str,
    receipt: &'a str,
    hits: &'a [Told<'a>],
}

fn word(accepted: bool) -> &'static str {
    if accepted { "accepted" } else { "rejected" }
}

/// How the answer to a recorded request looks.
pub(crate) struct Manner {
    pub(crate) mode: AnswerMode,
    /// Of a refusal `401` or `403`, of a rejection on a strict account `400`: these are always JSON.
    pub(crate) refused_with: Option<StatusCode>,
    /// The request was a JSON array.
    pub(crate) array: bool,
}

impl Manner {
    /// What the account asks for; without that, a pixel for who wants an image first of all.
    pub(crate) fn mode(account: AnswerMode, headers: &HeaderMap) -> AnswerMode {
        match account {
            AnswerMode::Json if wants_image(headers) => AnswerMode::Gif,
            mode => mode,
        }
    }
}

fn wants_image(headers: &HeaderMap) -> bool {
    let first = headers.get(ACCEPT).map(|accept| accept.as_bytes().trim_ascii_start());
    first.and_then(|accept| accept.get(..6)).is_some_and(|kind| kind.eq_ignore_ascii_case(b"image/"))
}

pub(crate) fn recorded(told: &[Told<'_>], manner: &Manner) -> Answer {
    let receipt = Receipt::last_of_each(told.iter().map(|told| told.receipt));
    let mut answer = match (manner.refused_with, manner.mode) {
        (Some(status), _) => with_body(status, JSON, json(told, &receipt, manner.array)),
        (None, AnswerMode::Json) => with_body(StatusCode::OK, JSON, json(told, &receipt, manner.array)),
        (None, AnswerMode::Ok) => with_body(StatusCode::OK, TEXT, Bytes::from_static(b"OK")),
        (None, AnswerMode::Empty) => empty(StatusCode::NO_CONTENT),
        (None, AnswerMode::Gif) => {
            let mut pixel = with_body(StatusCode::OK, GIF, Bytes::from_static(PIXEL));
            pixel.headers_mut().insert(CACHE_CONTROL, NO_STORE);
            pixel
        }
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(receipt)) {
        answer.headers_mut().insert(RECEIPT, value);
    }
    answer
}

fn json(told: &[Told<'_>], receipt: &str, array: bool) -> Bytes {
    let mut body = Vec::with_capacity(128 * told.len());
    let written = match told {
        [one] if !array => serde_json::to_writer(&mut body, one),
        hits => {
            let status = word(hits.iter().any(|hit| hit.reason.is_none()));
            serde_json::to_writer(&mut body, &ToldAll { status, receipt, hits })
        }
    };
    written.map_or_else(|_| Bytes::new(), |()| Bytes::from(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_json() {
        for refusal in REFUSALS {
            let body: serde_json::Value = serde_json::from_str(refusal.body).unwrap();
            assert_eq!(body["status"], "refused");
            assert!(body["hint"].as_str().unwrap().ends_with('.'));
        }
    }

    #[test]
    fn an_image_is_sent_to_who_asks_for_one_first() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            wants_image(&headers)
        };
        assert!(wants("image/*") && wants("image/avif,image/webp,*/*;q=0.8") && wants(" Image/gif"));
        assert!(!wants("*/*") && !wants("text/html,image/avif") && !wants("") && !wants("imag"));
    }
}
