//! Makes the form of a hit that is stored: values of the parameters that an account names are replaced by a keyed
//! hash, in query, form and JSON, and nothing else changes.
//!
//! Works on the text, so that the rest stays as it was received. Absent values and placeholders are nobody's data and
//! stay, so that they are still seen as what they are. Refuses to keep a body of a type that is not read.
//! Invariant: without names to redact, the stored form reads the same as the request.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    event::Raw,
    json_body::{self, Body, BodyKind, Piece},
    params::{self, Param, RawRequest, Value},
    segments::{Segments, decode_whole},
};

/// Replaces a value: gets the name in lower case and the decoded value.
pub type Hash<'h> = &'h dyn Fn(&str, &[u8]) -> String;

const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// The stored form: one per reading of `interpret`. `remote` is left to the caller.
pub fn redact(raw: &RawRequest, names: &[String], hash: Hash) -> Vec<Raw> {
    let body = Body::new(raw);
    let query = redact_encoded(&params::encoded_text(raw.query), names, hash);
    let base = Raw {
        method: raw.method.to_owned(),
        query,
        content_type: raw.content_type.map(ToOwned::to_owned),
        ..Raw::default()
    };
    if body.kind == BodyKind::Json && body.text.trim_ascii().starts_with('[') {
        let pieces = body.pieces();
        let element = |piece: &Piece| match piece {
            // What is no object stays in an array, so that it is not taken for something else.
            Piece::Json(text) if text.starts_with('{') => redact_json(text, names, hash),
            Piece::Json(text) => format!("[{}]", redact_json(text, names, hash)),
            _ => redact_json(&body.text, names, hash),
        };
        return pieces.iter().map(|piece| Raw { body: Some(element(piece)), ..base.clone() }).collect();
    }
    let text = match body.kind {
        BodyKind::None => None,
        BodyKind::Form => Some(redact_encoded(&body.text, names, hash)),
        BodyKind::Json => Some(redact_json(&body.text, names, hash)),
        BodyKind::Unknown => Some(format!("({} bytes that were not read)", raw.body.map_or(0, <[u8]>::len))),
    };
    vec![Raw { body: text, ..base }]
}

fn listed<'n>(name: &str, names: &'n [String]) -> Option<&'n str> {
    names.iter().find(|n| n.len() == name.len() && n.eq_ignore_ascii_case(name)).map(String::as_str)
}

/// What takes the place of a parameter's value; `None` if it stays.
fn replacement(name: &str, param: &Param, names: &[String], hash: Hash) -> Option<String> {
    let name = listed(name, names)?.to_ascii_lowercase();
    match param.value() {
        Value::Absent | Value::Macro => None,
        Value::Text { text, .. } => Some(hash(&name, text.as_bytes())),
        Value::Undecodable | Value::Nested => Some(hash(&name, param.raw().as_bytes())),
    }
}

fn redact_encoded(text: &str, names: &[String], hash: Hash) -> String {
    if names.is_empty() {
        return text.to_owned();
    }
    // What was encoded as a whole is kept decoded only where something in it must not be kept.
    if let Some(decoded) = decode_whole(text.trim_ascii()) {
        let kept = redact_parameters(&decoded, names, hash);
        return if kept == decoded { text.to_owned() } else { kept };
    }
    redact_parameters(text, names, hash)
}

fn redact_parameters(text: &str, names: &[String], hash: Hash) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    for segment in Segments::new(text, true) {
        let (name, _) = segment.name();
        let param = Param::encoded(name.clone(), segment.value);
        let Some(new) = replacement(&name, &param, names, hash) else { continue };
        // The value is a part of the text, so the distance of their starts is its place.
        let at = segment.value.as_ptr() as usize - text.as_ptr() as usize;
        out.push_str(&text[copied..at]);
        out.extend(utf8_percent_encode(&new, KEEP));
        copied = at + segment.value.len();
    }
    out.push_str(&text[copied..]);
    out
}

/// Goes through the tokens of a JSON text, at any depth. The text may be broken: then as far as it can be followed.
fn redact_json(text: &str, names: &[String], hash: Hash) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let end = string_end(bytes, at);
        let key = &text[at..end];
        at = skip_space(bytes, end);
        if bytes.get(at) != Some(&b':') {
            continue;
        }
        at = skip_space(bytes, at + 1);
        let name = json_body::unescape(key).unwrap_or_default();
        if listed(name.trim(), names).is_none() {
            continue;
        }
        let value = &text[at..value_end(bytes, at)];
        let param = Param::json("".into(), value);
        if let Some(new) = replacement(name.trim(), &param, names, hash) {
            out.push_str(&text[copied..at]);
            out.push_str(&serde_json::Value::String(new).to_string());
            copied = at + value.len();
        }
        at += value.len();
    }
    out.push_str(&text[copied..]);
    out
}

fn skip_space(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|b| !b.is_ascii_whitespace()).map_or(bytes.len(), |n| from + n)
}

/// Just behind the string that begins at `from`.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' if bytes.get(at + 1).is_some_and(u8::is_ascii) => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Just behind the value that begins at `from`: a string, a bracketed group, or a plain token.
fn value_end(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from) {
        Some(b'"') => return string_end(bytes, from),
        Some(b'{' | b'[') => {}
        _ => {
            let end = bytes[from..].iter().position(|b| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace());
            return end.map_or(bytes.len(), |n| from + n);
        }
    }
    let (mut at, mut depth) = (from, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Vec<String> {
        ["email", "user_ip"].map(str::to_owned).to_vec()
    }

    fn hash(name: &str, value: &[u8]) -> String {
        format!("h:{name}/{}", value.len())
    }

    fn kept(query: &str, body: Option<&str>, content_type: Option<&str>) -> Vec<Raw> {
        let raw = RawRequest { method: "POST", query: query.as_bytes(), body: body.map(str::as_bytes), content_type };
        redact(&raw, &names(), &hash)
    }

    #[test]
    fn values_in_queries_and_forms() {
        for (text, expected) in [
            ("a=1&email=a%40b.c&x=%41", "a=1&email=h:email%2F5&x=%41"),
            ("EMAIL=a@b.c", "EMAIL=h:email%2F5"),
            ("e%6Dail=x&amp;user_ip=1.2.3.4", "e%6Dail=h:email%2F1&amp;user_ip=h:user_ip%2F7"),
            ("email=&email&email=null&email={email}", "email=&email&email=null&email={email}"),
            ("dyn=a?email=x", "dyn=a?email=h:email%2F1"),
            ("ref=https://x/?email=me", "ref=https://x/?email=h:email%2F2"),
            ("email=%FF", "email=h:email%2F3"),
            ("my_email=x&emails=y", "my_email=x&emails=y"),
        ] {
            assert_eq!(kept(text, None, None)[0].query, expected, "{text}");
            let form = kept("", Some(text), Some("application/x-www-form-urlencoded"));
            assert_eq!(form[0].body.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn values_in_json_at_any_depth() {
        let json = |text| kept("", Some(text), Some("application/json"));
        for (text, expected) in [
            (r#"{"email":"a@b.c", "x" : 1}"#, r#"{"email":"h:email/5", "x" : 1}"#),
            (r#"{ "Email" : 55 ,"y":"email"}"#, r#"{ "Email" : "h:email/2" ,"y":"email"}"#),
            (
                r#"{"user":{"em\u0061il":"q\"q"},"z":[{"user_ip":[1,"]"]}]}"#,
                r#"{"user":{"em\u0061il":"h:email/3"},"z":[{"user_ip":"h:user_ip/7"}]}"#,
            ),
            (r#"{"email":null,"user_ip":"{ip}"}"#, r#"{"email":null,"user_ip":"{ip}"}"#),
            (r#"{"email":"cut off"#, r#"{"email":"h:email/6""#),
            (r#"{"email":"#, r#"{"email":"#),
        ] {
            assert_eq!(json(text)[0].body.as_deref(), Some(expected), "{text}");
        }
        let list = json(r#"[{"email":"a"},7]"#);
        assert_eq!(list[0].body.as_deref(), Some(r#"{"email":"h:email/1"}"#));
        assert_eq!(list[1].body.as_deref(), Some("[7]"));
    }

    #[test]
    fn a_body_that_nobody_reads_is_not_kept() {
        let raw = &kept("dyn=a", Some("secret"), Some("multipart/form-data"))[0];
        assert_eq!(raw.body.as_deref(), Some("(6 bytes that were not read)"));
        assert_eq!(kept("dyn=a", Some("  "), Some("multipart/form-data"))[0].body, None);
    }

    proptest! {
        #[test]
        fn a_named_value_is_never_kept(
            before in "[a-z0-9=&?%{}\"\\\\:,]{0,20}", secret in "[A-Z]{6,12}", upper: bool, json: bool,
        ) {
            let name = if upper { "EMAIL" } else { "email" };
            let (query, body) = if json {
                (String::new(), Some(format!(r#"{{"a":1,"{name}":"{secret}","b":{{"{name}":"{secret}"}}}}"#)))
            } else {
                (format!("{before}&{name}={secret}&b=1"), Some(format!("x=1&{name}={secret}")))
            };
            for raw in kept(&query, body.as_deref(), None) {
                prop_assert!(!raw.query.contains(&secret));
                prop_assert!(!raw.body.is_some_and(|b| b.contains(&secret)));
            }
        }

        #[test]
        fn any_bytes_are_fine(query in any::<Vec<u8>>(), body in any::<Vec<u8>>(), near in "[\\[{}\\],:\"\\\\a-c ]{0,40}") {
            for body in [body.as_slice(), near.as_bytes()] {
                for content_type in [None, Some("application/json"), Some("application/x-www-form-urlencoded")] {
                    let raw = RawRequest { method: "POST", query: &query, body: Some(body), content_type };
                    let names: Vec<String> = ["a", "b", "email"].map(str::to_owned).to_vec();
                    prop_assert!(!redact(&raw, &names, &hash).is_empty());
                }
            }
        }
    }
}
