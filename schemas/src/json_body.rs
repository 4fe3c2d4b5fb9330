//! Bodies of postbacks: which kind they are, and the hits and members of JSON ones.
//!
//! Values are passed on as they stand; whether an object within an object is looked into is for `params` to say.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::{
    bounds,
    params::{self, RawRequest},
    segments,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    None,
    Form,
    Json,
    /// Of a type that is not read.
    Unknown,
}

/// The body of a request as text.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub kind: BodyKind,
    pub text: Cow<'a, str>,
    /// It is JSON under a form's content type.
    pub json_as_form: bool,
    /// The text of a form that was encoded as a whole.
    decoded: Option<String>,
}

/// The part of a body that one hit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Nothing,
    Form(&'a str),
    /// One object, or what should be one.
    Json(&'a str),
    /// Why the body cannot be read.
    Unread(&'static str),
}

/// Of a malformed array: one hit, so that the request is on record.
const BAD_ARRAY: &str = "it is not a JSON object and not an array of 1 to 100 of them";

impl<'a> Body<'a> {
    pub(crate) fn new(raw: &RawRequest<'a>) -> Body<'a> {
        let none = Body { kind: BodyKind::None, text: Cow::Borrowed(""), json_as_form: false, decoded: None };
        let Some(bytes) = raw.body else { return none };
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return none;
        }
        let looks_like_json = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['));
        match declared(raw.content_type) {
            Some(BodyKind::Json) => Body { kind: BodyKind::Json, text: json_text(bytes), ..none },
            Some(BodyKind::Form) => {
                let json = json_text(bytes);
                if looks_like_json && serde_json::from_str::<&RawValue>(&json).is_ok() {
                    return Body { kind: BodyKind::Json, text: json, json_as_form: true, ..none };
                }
                Body::form(bytes)
            }
            Some(_) => Body { kind: BodyKind::Unknown, ..none },
            None if looks_like_json => Body { kind: BodyKind::Json, text: json_text(bytes), ..none },
            None if bytes.contains(&b'=') => Body::form(bytes),
            None => Body { kind: BodyKind::Unknown, ..none },
        }
    }

    fn form(bytes: &'a [u8]) -> Body<'a> {
        let text = params::encoded_text(bytes);
        let decoded = segments::decode_whole(text.trim_ascii());
        Body { kind: BodyKind::Form, text, json_as_form: false, decoded }
    }

    /// The form before and after it was decoded as a whole.
    pub(crate) fn decoded_whole(&self) -> Option<(&str, &str)> {
        self.decoded.as_deref().map(|after| (self.text.trim_ascii(), after))
    }

    /// One piece per hit; more than one only for a JSON array.
    pub(crate) fn pieces(&self) -> Vec<Piece<'_>> {
        match self.kind {
            BodyKind::None => vec![Piece::Nothing],
            BodyKind::Unknown => vec![Piece::Unread("it is neither a form nor JSON")],
            BodyKind::Form => vec![Piece::Form(self.decoded.as_deref().unwrap_or(self.text.trim_ascii()))],
            BodyKind::Json => {
                let text = self.text.trim_ascii();
                if !text.starts_with('[') {
                    return vec![Piece::Json(text)];
                }
                match elements(text) {
                    Some(elements) if !elements.is_empty() => {
                        elements.into_iter().map(|element| Piece::Json(element.get())).collect()
                    }
                    _ => vec![Piece::Unread(BAD_ARRAY)],
                }
            }
        }
    }
}

/// The kind that the content type says; `None` where it says nothing.
fn declared(content_type: Option<&str>) -> Option<BodyKind> {
    let essence = content_type?.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    if essence.is_empty() || is("text/plain") || is("application/octet-stream") {
        return None;
    }
    let json_suffix = essence.len().checked_sub(5).and_then(|at| essence.get(at..));
    if is("application/json") || is("text/json") || json_suffix.is_some_and(|s| s.eq_ignore_ascii_case("+json")) {
        return Some(BodyKind::Json);
    }
    Some(if is("application/x-www-form-urlencoded") { BodyKind::Form } else { BodyKind::Unknown })
}

/// Text of a JSON body. A byte that is not UTF-8 becomes a lone surrogate escape: legal to look at, and impossible to
/// decode, so that it spoils the one value that it stands in and no other.
fn json_text(bytes: &[u8]) -> Cow<'_, str> {
    params::utf8_or(bytes, |byte, out| {
        out.push_str("\\udc");
        out.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        out.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    })
}

/// The text of a JSON string token. `None` if an escape in it cannot be decoded.
pub(crate) fn unescape(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(token).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

fn elements(text: &str) -> Option<Vec<&RawValue>> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de RawValue>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = seq.next_element()? {
                if list.len() == bounds::HITS_PER_REQUEST {
                    return Err(A::Error::custom("too many"));
                }
                list.push(element);
            }
            Ok(list)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let list = json.deserialize_seq(Elements).ok()?;
    json.end().ok().map(|()| list)
}

/// Calls `each` with the members of a JSON object, in order. `None` if the text is no object; what came before the
/// mistake has been passed on then.
pub(crate) fn members<'a>(text: &'a str, each: &mut dyn FnMut(Cow<'a, str>, &'a RawValue)) -> Option<()> {
    struct Members<'f, 'de>(&'f mut dyn FnMut(Cow<'de, str>, &'de RawValue));
    impl<'de> Visitor<'de> for Members<'_, 'de> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                let name = unescape(key.get()).unwrap_or(Cow::Borrowed(key.get()));
                (self.0)(name, value);
            }
            Ok(())
        }
    }
    impl<'de> DeserializeSeed<'de> for Members<'_, 'de> {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_map(self)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    Members(each).deserialize(&mut json).ok()?;
    json.end().ok()
}
