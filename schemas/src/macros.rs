//! Tells a placeholder that the sender did not replace from an ordinary value.
//!
//! Works on the raw value: `%AD_ID%` or `%%DEPOSIT%%` are no longer readable once they have been decoded.
//! What encloses a name decides how much it says: braces and doubled signs are a placeholder wherever they stand;
//! single signs only between separators; round brackets, and signs of ordinary text, only where nothing else stands
//! beside them. Refuses to guess about anything else.
//! Invariant: time is bounded, as longer values are data.

use std::borrow::Cow;

/// A placeholder is short; longer values are data.
const LONGEST: usize = 512;
/// Bytes between the signs of a placeholder.
const LONGEST_NAME: usize = 100;

/// True if the raw value is, or holds, a placeholder: as it stands, or percent-encoded once or twice.
pub fn is_macro(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST {
        return false;
    }
    if bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return literals::is_literal(bytes) || (bytes.contains(&b'_') && holds_placeholder(bytes));
    }
    if is_left_over(bytes) {
        return true;
    }
    if !bytes.contains(&b'%') {
        return false;
    }
    if is_left_over(&decode_signs(bytes)) {
        return true;
    }
    let once: Cow<[u8]> = percent_encoding::percent_decode(bytes).into();
    if matches!(once, Cow::Borrowed(_)) {
        return false;
    }
    let twice: Cow<[u8]> = percent_encoding::percent_decode(&once).into();
    is_decoded_left_over(&once) || (matches!(twice, Cow::Owned(_)) && is_decoded_left_over(&twice))
}

/// Signs and space decoded, and nothing else: `%AD_ID%25` and `%7B%DATE%%7D` stay readable.
fn decode_signs(raw: &[u8]) -> Vec<u8> {
    let hex = |b: &u8| char::from(*b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let sign = |rest: &[u8]| match rest {
        [b'%', high, low, ..] => Some((hex(high)? << 4) | hex(low)?).filter(|b| b.is_ascii_punctuation() || *b == b' '),
        _ => None,
    };
    let mut out = Vec::with_capacity(raw.len());
    let (mut at, mut percent) = (0, false);
    while at < raw.len() {
        let found = sign(&raw[at..]);
        // A decoded sign and that of an encoded byte are no double sign.
        if percent && found.is_none() && raw[at] == b'%' {
            out.push(0);
        }
        percent = found == Some(b'%');
        let (byte, step) = found.map_or((raw[at], 1), |sign| (sign, 3));
        out.push(byte);
        at += step;
    }
    out
}

fn is_left_over(value: &[u8]) -> bool {
    let value = trim(value);
    literals::is_literal(value) || is_prefixed(value) || is_half(value) || holds_placeholder(value)
}

fn is_decoded_left_over(value: &[u8]) -> bool {
    is_left_over(value) || is_broken(trim(value))
}

/// Without space and quotes, those of other scripts among them.
fn trim(mut value: &[u8]) -> &[u8] {
    const WIDE: &[&[u8]] = &[b"\xC2\xA0", b"\xE2\x80\x8B", b"\xE2\x80\x9C", b"\xE2\x80\x9D", b"\xEF\xBB\xBF"];
    let outer = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'+' | b'`');
    loop {
        let start = value.iter().position(|b| !outer(b)).unwrap_or(value.len());
        let end = value.iter().rposition(|b| !outer(b)).map_or(start, |last| last + 1);
        value = &value[start..end];
        let wide = WIDE.iter().find_map(|sign| value.strip_prefix(*sign).or_else(|| value.strip_suffix(*sign)));
        match wide {
            Some(inner) => value = inner,
            None => return value,
        }
    }
}

/// `:x`, `%x`: a name behind one sign is the whole value. `:30` and `%C3%A9` are something else.
fn is_prefixed(value: &[u8]) -> bool {
    let Some((sign, name)) = value.split_first() else { return false };
    let encoded = *sign == b'%' && name.iter().take(2).all(u8::is_ascii_hexdigit);
    matches!(sign, b':' | b'%') && is_word(name) && !encoded
}

/// `A50`: the letters of a currency, and a number.
fn is_price(name: &[u8]) -> bool {
    let letters = name.iter().take_while(|b| b.is_ascii_uppercase()).count();
    letters < name.len() && letters <= 3 && name[letters..].iter().all(u8::is_ascii_digit) && name.len() > letters + 1
}

/// A placeholder that was cut: `{click_id`, `##CLICK_ID`, `click_id}}`.
fn is_half(value: &[u8]) -> bool {
    let begun = [b"{".as_slice(), b"${", b"#{", b"##", b"%%", b"[["].iter().any(|sign| value.starts_with(sign));
    let name = value.iter().position(|b| is_word_byte(*b)).unwrap_or(0);
    if begun && is_word(&value[name..]) && value[..name].iter().all(|b| b"{$#%[ ".contains(b)) {
        return true;
    }
    let name = value.iter().take_while(|b| is_word_byte(**b)).count();
    name < value.len() && is_word(&value[..name]) && value[name..].iter().all(|b| *b == b'}')
}

/// `%AD_ID%` of which a client made bytes (`AD`, `5F` …), the sign for a byte that it could not read, or the letter that
/// the byte is in Latin-1: one such sign, a name, and the `%` that is left.
fn is_broken(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"%").unwrap_or(value);
    let name = match value {
        [0xEF, 0xBF, 0xBD, name @ ..] | [0xC2 | 0xC3, 0x80..=0xBF, name @ ..] | [0xA0..=0xFF, name @ ..] => name,
        _ => return false,
    };
    let inner = name.strip_suffix(b"%").map(|inner| inner.strip_suffix(b"%").unwrap_or(inner));
    inner.is_some_and(is_word)
}

/// How much else may stand beside a placeholder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Beside {
    Anything,
    /// `_`, `-` and their like on either side of it.
    Separators,
    /// Nothing but other placeholders, and separators.
    Nothing,
}

struct Placeholder {
    end: usize,
    beside: Beside,
}

fn holds_placeholder(value: &[u8]) -> bool {
    let (mut at, mut weak, mut other) = (0, false, false);
    while at < value.len() {
        let Some(found) = placeholder(&value[at..]) else {
            // Quotes within a value are JSON's.
            other |= value[at].is_ascii_alphanumeric() || matches!(value[at], b'"' | 0x80..);
            at += 1;
            continue;
        };
        let end = at + found.end;
        let apart = (at == 0 || is_separator(value[at - 1])) && value.get(end).is_none_or(|b| is_separator(*b));
        if found.beside == Beside::Anything || (found.beside == Beside::Separators && apart) {
            return true;
        }
        weak = true;
        at = end;
    }
    weak && !other
}

fn is_separator(byte: u8) -> bool {
    b"_-.,:;|~".contains(&byte)
}

/// The placeholder that a text begins with.
fn placeholder(text: &[u8]) -> Option<Placeholder> {
    use Beside::{Anything, Nothing, Separators};
    let first = *text.first()?;
    if !b"{[<(#%!$@_*~^|".contains(&first) {
        return None;
    }
    let signs = text.iter().take_while(|b| **b == first).count();
    match first {
        b'{' => bracketed(text, signs, b'}', Anything, is_expression),
        b'[' => bracketed(text, signs, b']', if signs > 1 { Anything } else { Separators }, is_name),
        b'<' => bracketed(text, signs, b'>', Separators, is_name),
        b'(' => bracketed(text, signs, b')', Nothing, is_word),
        b'$' | b'%' if matches!(text.get(signs), Some(b'(')) => {
            let inner = bracketed(&text[signs..], 1, b')', Anything, is_word)?;
            Some(Placeholder { end: signs + inner.end, ..inner })
        }
        b'#' | b'%' | b'$' if signs > 1 => paired(text, signs, Anything, is_expression),
        b'#' | b'%' | b'$' | b'@' => {
            let pair = paired(text, signs, Separators, is_word);
            match pair {
                // `$a_$b`: the second sign begins another one.
                Some(pair) if first != b'$' || !text.get(pair.end).is_some_and(u8::is_ascii_alphanumeric) => Some(pair),
                _ if first == b'$' => variable(text),
                _ => None,
            }
        }
        b'!' => paired(text, signs, if signs > 1 { Separators } else { Nothing }, is_word),
        b'_' if signs > 1 => underscored(text, signs).or_else(|| paired(text, signs, Separators, is_word)),
        b'_' => None,
        _ => paired(text, signs, Nothing, is_word),
    }
}

/// `__A__B__`: the sign may stand in the name, too.
fn underscored(text: &[u8], signs: usize) -> Option<Placeholder> {
    let end = text.iter().take_while(|b| is_word_byte(**b)).count();
    let inner = text[signs..end].strip_suffix(&text[..signs])?;
    is_word(inner).then_some(Placeholder { end, beside: Beside::Separators })
}

/// `$x`, beside nothing but more of its kind; `$50` and `$A50` are prices.
fn variable(text: &[u8]) -> Option<Placeholder> {
    let name = text[1..].iter().take_while(|b| is_word_byte(**b)).count();
    let is_name = is_word(&text[1..=name]) && !is_price(&text[1..=name]);
    is_name.then_some(Placeholder { end: name + 1, beside: Beside::Nothing })
}

/// `{x}`, `{{x}}`, `{%x%}`, `{{ x }}`, `[[[x]]]`, `[=x=]`, `<?x?>`: signs within the brackets belong to them.
fn bracketed(
    text: &[u8],
    signs: usize,
    close: u8,
    beside: Beside,
    is_inner: impl Fn(&[u8]) -> bool,
) -> Option<Placeholder> {
    let length = text[signs..].iter().take(LONGEST_NAME).position(|b| *b == close || *b == text[0])?;
    let after = signs + length;
    let closing = text[after..].iter().take_while(|b| **b == close).count();
    if closing < signs {
        return None;
    }
    let whole = &text[signs..after];
    let decorated = |b: &u8| b"%$@!#:=?&*~^|/".contains(b) || is_space(*b);
    let start = whole.iter().position(|b| !decorated(b))?;
    let end = whole.iter().rposition(|b| !decorated(b))? + 1;
    let inner = &whole[start..end];
    let meant = is_inner(inner) && !is_nothing(inner) && !is_guid(inner);
    // A lone digit is the place of an argument, longer numbers are ids.
    let argument = text[0] == b'{' && inner.len() == 1 && inner[0].is_ascii_digit();
    (meant || argument).then_some(Placeholder { end: after + signs, beside })
}

/// `#x#`, `##x##`, `%%x%%`, `__X__`: as many signs behind the name as before it.
fn paired(text: &[u8], signs: usize, beside: Beside, is_inner: impl Fn(&[u8]) -> bool) -> Option<Placeholder> {
    let sign = text[0];
    if signs > 3 {
        return None;
    }
    let close = &[sign; 3][..signs];
    let length = text[signs..].windows(signs).take(LONGEST_NAME).position(|run| run == close)?;
    let after = signs + length;
    let closing = text[after..].iter().take_while(|b| **b == sign).count();
    // Where two of them meet, their signs do, too: `%%a%%%%b%%`.
    let closed = closing == signs || closing == 2 * signs;
    (closed && is_inner(&text[signs..after])).then_some(Placeholder { end: after + signs, beside })
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'+'
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn starts_like_a_name(inner: &[u8]) -> bool {
    inner.len() <= LONGEST_NAME && inner.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
}

/// A name without space.
fn is_word(inner: &[u8]) -> bool {
    starts_like_a_name(inner) && inner.iter().all(|b| is_word_byte(*b)) && !is_nothing(inner)
}

fn is_name(inner: &[u8]) -> bool {
    starts_like_a_name(inner) && inner.iter().all(|b| is_word_byte(*b) || matches!(b, b' ' | b'+' | b':'))
}

/// A name, perhaps with arguments: `SUB_ID_SHORT(action)`, `status:lead=0 sale=1`, `date:Y-m-d,Europe/Kyiv`.
fn is_expression(inner: &[u8]) -> bool {
    starts_like_a_name(inner)
        && inner.iter().all(|b| b.is_ascii_alphanumeric() || b" _.-+:,=/()|*?!&'[]<>@;".contains(b))
}

/// What stands in brackets where there is no value at all.
fn is_nothing(inner: &[u8]) -> bool {
    let words: [&[u8]; 6] = [b"null", b"none", b"undefined", b"n/a", b"true", b"false"];
    words.iter().any(|word| inner.eq_ignore_ascii_case(word))
}

/// GUIDs are often written in braces.
fn is_guid(inner: &[u8]) -> bool {
    matches!(inner.len(), 32 | 36) && inner.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
}

mod literals;
#[cfg(test)]
mod tests;
