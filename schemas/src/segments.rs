//! Walks through the text of a query or form, one `name=value` after the other, and mends what copying a URL breaks:
//! `&amp;`, `&currency` that became `¤cy`, a second `?`, `;` for `&`, a path in front, the whole of it encoded once more.
//!
//! Refuses to decode values. Invariant: every value is a part of the text, in order.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::{
    macros,
    params::{decode, encoded_text, trimmed},
};

/// How a parameter's name or place was repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fix {
    HtmlMangled,
    SecondQuestionMark,
    /// It begins the query with another sign than `?`: it was glued to the token.
    Glued,
    Semicolon,
    /// `\u0026` for `&`.
    JsonEscaped,
    /// Brackets or quotes around the name: `params[dyn]`, `dyn[]`, `"dyn"`.
    Name,
}

/// One `name=value` of a query or form, as it stands there.
pub(crate) struct Segment<'a> {
    raw_name: &'a str,
    pub value: &'a str,
    entity: Option<&'static str>,
    pub fix: Option<Fix>,
    /// The name with the sign in front of it that was mended.
    pub before: &'a str,
}

/// Characters that HTML makes of `&name` when a URL is copied out of a page: the sign, its second byte, its entity.
/// All but the last begin with the byte `C2`.
const ENTITIES: &[(&str, &str, &str)] = &[
    ("¤", "%C2%A4", "curren"),
    ("¶", "%C2%B6", "para"),
    ("®", "%C2%AE", "reg"),
    ("§", "%C2%A7", "sect"),
    ("¬", "%C2%AC", "not"),
    ("©", "%C2%A9", "copy"),
    ("×", "%C3%97", "times"),
];

/// What stands in front of a name where `&` should, with what it is.
const SIGNS: &[(&str, Fix)] = &[
    ("?", Fix::SecondQuestionMark),
    ("%3F", Fix::SecondQuestionMark),
    ("amp;", Fix::HtmlMangled),
    ("amp%3B", Fix::HtmlMangled),
    ("#38;", Fix::HtmlMangled),
    ("%26", Fix::Glued),
    (";", Fix::Glued),
    ("/", Fix::Glued),
    ("%2F", Fix::Glued),
];

impl<'a> Segment<'a> {
    /// The name as it was meant.
    pub(crate) fn name(&self) -> (Cow<'a, str>, Option<Fix>) {
        if self.entity.is_none() && self.raw_name.bytes().all(is_name_byte) {
            return (Cow::Borrowed(self.raw_name), None);
        }
        let mut fix = None;
        let mut name = self.raw_name;
        while let Some((rest, sign)) =
            SIGNS.iter().find_map(|(sign, fix)| Some((strip_prefix_any_case(name, sign)?, *fix)))
        {
            (name, fix) = (rest, Some(sign));
        }
        let raw_name = name;
        let name = match decode(name) {
            Some(name) => trimmed(name),
            None => return (Cow::Borrowed(name), fix),
        };
        if let Some(entity) = self.entity {
            return (Cow::Owned(format!("{entity}{name}")), Some(Fix::HtmlMangled));
        }
        for (sign, _, entity) in ENTITIES {
            let tail = name.strip_prefix(sign).or_else(|| strip_prefix_any_case(&name, entity)?.strip_prefix(';'));
            if let Some(tail) = tail {
                return (Cow::Owned(format!("{entity}{tail}")), Some(Fix::HtmlMangled));
            }
        }
        let plain = plain_name(&name);
        if plain.len() == name.len() || plain.is_empty() || macros::is_macro(raw_name) {
            return (name, fix);
        }
        (Cow::Owned(plain.to_owned()), fix.or(Some(Fix::Name)))
    }
}

/// `dyn` of `params[dyn]`, `dyn[]`, `dyn[0]` and `"dyn"`.
fn plain_name(name: &str) -> &str {
    let quotes = |c: char| c.is_ascii_punctuation() && !matches!(c, '_' | '-' | '.' | '[' | ']');
    let mut name = name.trim_matches(quotes);
    while let Some((head, inner)) = name.strip_suffix(']').and_then(|open| open.rsplit_once('[')) {
        let index = inner.bytes().all(|b| b.is_ascii_digit());
        name = if index { head } else { return inner.trim_matches(quotes) };
    }
    name
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    if head.eq_ignore_ascii_case(prefix) { text.get(prefix.len()..) } else { None }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// The text decoded, if the whole of it was percent-encoded once more (or twice): `dyn%3Dabc%26signups%3D1`.
pub(crate) fn decode_whole(text: &str) -> Option<String> {
    let mut whole = decode_whole_once(text)?;
    for _ in 0..2 {
        match decode_whole_once(&whole) {
            Some(again) => whole = again,
            None => break,
        }
    }
    whole.contains('=').then_some(whole)
}

fn decode_whole_once(text: &str) -> Option<String> {
    let full_width = |text: &str| text.contains('＝');
    if text.contains('&') || !(text.contains('%') || full_width(text)) {
        return None;
    }
    let names_nothing = !text.contains('=');
    if !names_nothing && (is_url(text) || !has_encoded_parameter(text.as_bytes())) {
        return None;
    }
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    let mut decoded = encoded_text(&bytes).into_owned();
    if names_nothing && !decoded.contains('=') && full_width(&decoded) {
        decoded = decoded.chars().map(half_width).collect();
    }
    Some(decoded)
}

/// The ASCII sign that a full-width one stands for.
pub(crate) fn half_width(sign: char) -> char {
    match sign {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(sign) - 0xFEE0).unwrap_or(sign),
        other => other,
    }
}

/// `%26name%3D` is in it.
fn has_encoded_parameter(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.windows(3).position(|sign| sign == b"%26") {
        rest = &rest[at + 3..];
        let name = rest.iter().take_while(|b| is_name_byte(**b)).count();
        let sign = rest.get(name..name + 3);
        if name > 0 && sign.is_some_and(|sign| sign.eq_ignore_ascii_case(b"%3D")) {
            return true;
        }
        rest = &rest[name..];
    }
    false
}

/// Walks through a query or form, and finds parameters that were glued to the one before by a second `?`, by HTML
/// or by JSON.
pub(crate) struct Segments<'a> {
    /// Segments of a path in front of the query, without names and values: `/a/b?dyn=…`.
    path: &'a str,
    rest: &'a str,
    separator: u8,
    /// How the next parameter's place is mended.
    fix: Option<Fix>,
    /// The rest of a segment that held another parameter: the sign and what follows it.
    pending: Option<(&'a str, Hidden)>,
    /// Look for parameters after the `?` of a URL that is a value, too.
    in_urls: bool,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(text: &'a str, in_urls: bool) -> Self {
        let (path, rest) = split_path(text);
        let separator = separator(rest);
        let glued = match rest.as_bytes() {
            [first, second, ..] => path.is_empty() && *first == separator && *second != separator,
            _ => false,
        };
        Segments { path, rest, separator, fix: glued.then_some(Fix::Glued), pending: None, in_urls }
    }

    fn segment(&mut self, name: &'a str, value: &'a str, mended: Option<(&Hidden, &'a str)>) -> Segment<'a> {
        let mut value = value;
        if let Some(hidden) = value.contains('=').then(|| find_hidden(value, self.in_urls)).flatten() {
            let (kept, rest) = value.split_at(hidden.at);
            value = kept;
            self.pending = Some((rest, hidden));
        }
        match mended {
            Some((hidden, before)) => {
                Segment { raw_name: name, value, entity: hidden.entity, fix: Some(hidden.fix), before }
            }
            None => Segment { raw_name: name, value, entity: None, fix: self.fix.take(), before: name },
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        while !self.path.is_empty() {
            let (name, rest) = self.path.split_once('/').unwrap_or((self.path, ""));
            self.path = rest;
            if !name.is_empty() {
                return Some(Segment { raw_name: name, value: "", entity: None, fix: None, before: name });
            }
        }
        if let Some((text, hidden)) = self.pending.take() {
            let (name, value) = text[hidden.sign..].split_once('=').unwrap_or((&text[hidden.sign..], ""));
            let before = &text[..hidden.sign + name.len()];
            return Some(self.segment(name, value, Some((&hidden, before))));
        }
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let end = self.rest.bytes().position(|b| b == self.separator).unwrap_or(self.rest.len());
            let part = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if part.is_empty() {
                continue;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let segment = self.segment(name, value, None);
            if self.separator == b';' {
                self.fix = Some(Fix::Semicolon);
            }
            return Some(segment);
        }
    }
}

/// The path that a text begins with, and what follows it.
fn split_path(text: &str) -> (&str, &str) {
    if !text.starts_with('/') {
        return ("", text);
    }
    let end = text.bytes().position(|b| matches!(b, b'?' | b'&' | b';' | b'=')).unwrap_or(text.len());
    match text.as_bytes().get(end) {
        // The last segment is a parameter's name: `/abc/dyn=…`.
        Some(b'=') => {
            let name = text[..end].rfind('/').map_or(0, |slash| slash + 1);
            (&text[..name], &text[name..])
        }
        Some(b'?') => (&text[..end], &text[end + 1..]),
        _ => (&text[..end], &text[end..]),
    }
}

/// `;` only where there is no `&` and another parameter stands behind one.
fn separator(text: &str) -> u8 {
    if text.contains('&') || !text.contains(';') {
        return b'&';
    }
    let is_parameter =
        |part: &str| part.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(is_name_byte));
    if text.split(';').skip(1).any(is_parameter) { b';' } else { b'&' }
}

/// Another parameter within a value: it ends at `at`, and the other begins after a sign.
struct Hidden {
    at: usize,
    /// Bytes of the sign.
    sign: usize,
    entity: Option<&'static str>,
    fix: Fix,
}

fn find_hidden(value: &str, in_urls: bool) -> Option<Hidden> {
    let bytes = value.as_bytes();
    let mut word = 0;
    let mut in_url = None;
    for (i, byte) in bytes.iter().enumerate() {
        if is_name_byte(*byte) {
            continue;
        }
        if *byte == b'=' {
            let question = word > 0 && word < i && bytes[word - 1] == b'?';
            if question && (in_urls || !*in_url.get_or_insert_with(|| is_url(&value[..word - 1]))) {
                return Some(Hidden { at: word - 1, sign: 1, entity: None, fix: Fix::SecondQuestionMark });
            }
            if let Some((at, after, entity)) = entity_before(value, word) {
                return Some(Hidden { at, sign: after - at, entity: Some(entity), fix: Fix::HtmlMangled });
            }
            let escape = ["\\u0026", "%5Cu0026"].iter().find(|escape| {
                let at = word.checked_sub(1);
                let found = at.and_then(|at| value.get(at..at + escape.len()));
                found.is_some_and(|found| found.eq_ignore_ascii_case(escape))
            });
            if let Some(escape) = escape {
                return Some(Hidden { at: word - 1, sign: escape.len(), entity: None, fix: Fix::JsonEscaped });
            }
        }
        word = i + 1;
    }
    None
}

/// The HTML-mangled sign that the run of name characters at `word` follows (percent-encoded, it reaches into it).
fn entity_before(value: &str, word: usize) -> Option<(usize, usize, &'static str)> {
    ENTITIES.iter().find_map(|(sign, encoded, entity)| {
        if value[..word].ends_with(sign) {
            return Some((word - sign.len(), word, *entity));
        }
        let at = word.checked_sub("%C2%".len())?;
        let found = value.get(at..at + encoded.len())?;
        found.eq_ignore_ascii_case(encoded).then_some((at, at + encoded.len(), *entity))
    })
}

fn is_url(value: &str) -> bool {
    value.contains("://") || value.contains("%3A%2F%2F") || value.contains("%3a%2f%2f")
}
