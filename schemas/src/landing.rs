//! The redirect of a tracking link: from a stored destination to the URL that the visitor is sent to.
//!
//! Owns: where the click id, `dyn` and the subs go in a destination, and which destinations may be stored.
//! Refuses: to let a visitor's values reach the scheme, host or port, or end a parameter: they are percent-encoded.
//! Invariant: what is not replaced stays byte for byte (a space or a letter beyond ASCII is percent-encoded, as a
//! `Location` header needs it), in the same order.

mod explain;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::{ClickId, bounds, catalog::ClickIn};

pub use explain::{Finding, LinkFindings, explain_link};

/// A value: all but the unreserved characters is encoded.
pub(crate) const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Text that is a part of a URL already: only what cannot stand in a header is encoded.
const TEXT: &AsciiSet = &CONTROLS.add(b' ');

/// A URL cut at the places that matter here; the parts make up the whole, without the `?` and `#`.
struct Parts<'a> {
    /// Scheme, host and port.
    origin: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Self {
        let host = url.find("://").map_or(0, |at| at + 3);
        let end = url[host..].find(['/', '?', '#', '\\']).map_or(url.len(), |at| host + at);
        let (origin, rest) = url.split_at(end);
        let (rest, fragment) = split(rest, '#');
        let (path, query) = split(rest, '?');
        Self { origin, path, query, fragment }
    }

    fn after_origin(&self) -> impl Iterator<Item = &'a str> {
        [Some(self.path), self.query, self.fragment].into_iter().flatten()
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// What the placeholders of one redirect stand for.
struct Values<'a> {
    click_id: Option<&'a str>,
    dyn_value: Option<&'a str>,
    subs: [Option<&'a str>; 5],
}

impl<'a> Values<'a> {
    /// If a placeholder starts here: its value and its length. The braces may be percent-encoded.
    fn at(&self, text: &str) -> Option<(&'a str, usize)> {
        let name = strip_brace(text, '{', "%7b")?;
        let (value, rest) = if let Some(rest) = name.strip_prefix("click_id") {
            (self.click_id, rest)
        } else if let Some(rest) = name.strip_prefix("dyn") {
            (self.dyn_value, rest)
        } else {
            let rest = name.strip_prefix("sub")?;
            let digit = rest.bytes().next().filter(u8::is_ascii_digit)?;
            let index = usize::from(digit.wrapping_sub(b'1'));
            (*self.subs.get(index)?, &rest[1..])
        };
        let rest = strip_brace(rest, '}', "%7d")?;
        Some((value.unwrap_or_default(), text.len() - rest.len()))
    }

    fn fill(&self, out: &mut String, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find(['{', '%']) {
            out.extend(utf8_percent_encode(&rest[..at], TEXT));
            rest = &rest[at..];
            if let Some((value, length)) = self.at(rest) {
                out.extend(utf8_percent_encode(value, VALUE));
                rest = &rest[length..];
            } else {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
        out.extend(utf8_percent_encode(rest, TEXT));
    }
}

fn strip_brace<'t>(text: &'t str, brace: char, encoded: &str) -> Option<&'t str> {
    text.strip_prefix(brace)
        .or_else(|| text.get(..3).filter(|start| start.eq_ignore_ascii_case(encoded)).map(|_| &text[3..]))
}

/// True if the text has a `{click_id}` in it.
fn has_click_id(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find("click_id") {
        let before = &rest[..at];
        let encoded = before.len().checked_sub(3).and_then(|from| before.as_bytes().get(from..));
        let opened = before.ends_with('{') || encoded.is_some_and(|end| end.eq_ignore_ascii_case(b"%7b"));
        if opened && strip_brace(&rest[at + 8..], '}', "%7d").is_some() {
            return true;
        }
        rest = &rest[at + 8..];
    }
    false
}

/// Where a redirect of this destination leads. Without a click id (HEAD, or a click that could not be made
/// durable) no click parameter is in the result.
pub fn destination(
    template: &str,
    click_param: &str,
    click_in: ClickIn,
    click_value: &str,
    click_id: Option<&ClickId>,
    dyn_value: Option<&str>,
    subs: [Option<&str>; 5],
) -> String {
    let chars = click_id.map(|id| id.chars());
    let click_id = chars.as_ref().and_then(|chars| std::str::from_utf8(chars).ok());
    let parts = Parts::of(template);
    let values = Values { click_id, dyn_value, subs };
    let placed = parts.after_origin().any(has_click_id);
    let value = click_id.map(|id| click_value.replace("{click_id}", id));
    let mut out = String::with_capacity(template.len() + 96);

    out.extend(utf8_percent_encode(parts.origin, TEXT));
    values.fill(&mut out, parts.path);
    if let (false, ClickIn::Path, Some(value)) = (placed, click_in, &value) {
        out.push_str(if out.ends_with('/') { "" } else { "/" });
        out.extend(utf8_percent_encode(value, VALUE));
    }
    let set = (!placed && click_in == ClickIn::Query).then_some((click_param, value.as_deref()));
    write_query(&mut out, parts.query, set, &values);
    if let Some(fragment) = parts.fragment {
        out.push('#');
        values.fill(&mut out, fragment);
    }
    out
}

/// Copies the query with the parameter of `set` replaced, added, or (without a value) left out.
fn write_query(out: &mut String, query: Option<&str>, set: Option<(&str, Option<&str>)>, values: &Values<'_>) {
    let mut missing = set.and_then(|(_, value)| value);
    let mut separator = '?';
    // After an empty pair (`?`, `a=1&`) the separator is there already.
    let mut open = false;
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let name = pair.split('=').next().unwrap_or_default();
        let replaced = set.is_some_and(|(param, _)| is_name(name, param));
        let empty_handed = values.click_id.is_none() && has_click_id(pair);
        if empty_handed || (replaced && missing.is_none()) {
            continue;
        }
        out.push(separator);
        separator = '&';
        open = pair.is_empty();
        match missing.filter(|_| replaced) {
            Some(value) => {
                out.extend(utf8_percent_encode(name, TEXT));
                out.push('=');
                out.extend(utf8_percent_encode(value, VALUE));
                missing = None;
            }
            None => values.fill(out, pair),
        }
    }
    if let (Some((param, _)), Some(value)) = (set, missing) {
        if !open {
            out.push(separator);
        }
        out.extend(utf8_percent_encode(param, VALUE));
        out.push('=');
        out.extend(utf8_percent_encode(value, VALUE));
    }
}

/// Compares a parameter's name as written with the name that it decodes to.
fn is_name(written: &str, name: &str) -> bool {
    written == name || (written.contains(['%', '+']) && percent_decode_str(&written.replace('+', " ")).eq(name.bytes()))
}

/// May this be stored as a link's destination? The error says what to change.
pub fn check_destination(text: &str) -> Result<(), String> {
    if text.len() > bounds::DESTINATION_BYTES {
        return Err(format!("{} bytes at most; this has {}", bounds::DESTINATION_BYTES, text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters, such as a line break".to_owned());
    }
    if text.trim() != text {
        return Err("must not start or end with a space".to_owned());
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return Err("must be an absolute address that starts with https:// or http://".to_owned());
    }
    let origin = Parts::of(text).origin;
    // A browser takes what follows the slashes of `https:///x/` for the host.
    if origin.ends_with("://") {
        return Err("must name a host after https://".to_owned());
    }
    if origin.contains('@') {
        return Err("must not have a user name or password before the host".to_owned());
    }
    // A visitor's value in the host would make the link lead anywhere.
    if origin.contains(['{', '}', '%', ' ']) {
        return Err(
            "must not have a placeholder or % in the host: those are for the path, query and fragment".to_owned()
        );
    }
    // Browsers read it as a slash, so the host that they see would not be the one that we see.
    if text.split(['?', '#']).next().unwrap_or_default().contains('\\') {
        return Err("must not have a backslash before the query: write /".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("is not a valid address: {error}"))?;
    if !origin.is_ascii() {
        return Err(format!("must have its host in ASCII: write {}", url.host_str().unwrap_or_default()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
