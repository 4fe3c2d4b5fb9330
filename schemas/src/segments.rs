//! Walks through the text of a query or form, one `name=value` after the other, and mends what copying a URL breaks:
//! `&amp;`, `&currency` that became `¤cy`, a second `?`.
//!
//! Refuses to decode values. Invariant: every value is a part of the text, in order.

use std::borrow::Cow;

use crate::params::decode;

/// How a parameter's name or place was repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fix {
    HtmlMangled,
    SecondQuestionMark,
}

/// One `name=value` of a query or form, as it stands there.
pub(crate) struct Segment<'a> {
    raw_name: &'a str,
    pub value: &'a str,
    entity: Option<&'static str>,
    pub fix: Option<Fix>,
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

impl<'a> Segment<'a> {
    /// The name as it was meant.
    pub(crate) fn name(&self) -> (Cow<'a, str>, Option<Fix>) {
        if self.entity.is_none() && self.raw_name.bytes().all(is_name_byte) {
            return (Cow::Borrowed(self.raw_name), None);
        }
        let mut fix = None;
        let mut name = self.raw_name;
        while let Some(rest) = name.strip_prefix('?') {
            (name, fix) = (rest, Some(Fix::SecondQuestionMark));
        }
        while let Some(rest) = strip_prefix_any_case(name, "amp;").or_else(|| strip_prefix_any_case(name, "amp%3B")) {
            (name, fix) = (rest, Some(Fix::HtmlMangled));
        }
        let name = match decode(name) {
            Some(Cow::Owned(name)) => Cow::Owned(name.trim().to_owned()),
            Some(Cow::Borrowed(name)) => Cow::Borrowed(name.trim()),
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
        (name, fix)
    }
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    if head.eq_ignore_ascii_case(prefix) { text.get(prefix.len()..) } else { None }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Walks through a query or form, and finds parameters that were glued to the one before by a second `?` or by HTML.
pub(crate) struct Segments<'a> {
    rest: &'a str,
    /// The rest of a segment that held another parameter.
    pending: Option<(&'a str, Option<&'static str>, Fix)>,
    /// Look for parameters after the `?` of a URL that is a value, too.
    in_urls: bool,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(text: &'a str, in_urls: bool) -> Self {
        Segments { rest: text, pending: None, in_urls }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let (part, entity, fix) = match self.pending.take() {
            Some((part, entity, fix)) => (Part::whole(part), entity, Some(fix)),
            None => loop {
                if self.rest.is_empty() {
                    return None;
                }
                let part = Part::read(self.rest);
                self.rest = self.rest.get(part.end + 1..).unwrap_or_default();
                if part.end > 0 {
                    break (part, None, None);
                }
            },
        };
        let mut value = part.value;
        if part.has_another_equals
            && let Some(hidden) = find_hidden(value, self.in_urls)
        {
            self.pending = Some((&value[hidden.after..], hidden.entity, hidden.fix));
            value = &value[..hidden.at];
        }
        Some(Segment { raw_name: part.name, value, entity, fix })
    }
}

/// What stands before the first `&`.
struct Part<'a> {
    name: &'a str,
    value: &'a str,
    end: usize,
    has_another_equals: bool,
}

impl<'a> Part<'a> {
    /// Of a text without `&`. Reads no further than it must: a long value may hide thousands of parameters.
    fn whole(text: &'a str) -> Part<'a> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Part { name, value, end: text.len(), has_another_equals: value.contains('=') }
    }

    fn read(text: &'a str) -> Part<'a> {
        let mut equals = None;
        let mut has_another_equals = false;
        let mut end = text.len();
        for (i, byte) in text.bytes().enumerate() {
            match byte {
                b'&' => {
                    end = i;
                    break;
                }
                b'=' if equals.is_none() => equals = Some(i),
                b'=' => has_another_equals = true,
                _ => {}
            }
        }
        let (name, value) = match equals {
            Some(at) => (&text[..at], &text[at + 1..end]),
            None => (&text[..end], ""),
        };
        Part { name, value, end, has_another_equals }
    }
}

/// Another parameter within a value: it ends at `at`, the other begins at `after`.
struct Hidden {
    at: usize,
    after: usize,
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
                return Some(Hidden { at: word - 1, after: word, entity: None, fix: Fix::SecondQuestionMark });
            }
            if let Some((at, after, entity)) = entity_before(value, word) {
                return Some(Hidden { at, after, entity: Some(entity), fix: Fix::HtmlMangled });
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
