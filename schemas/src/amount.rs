//! Reads amounts as senders really write them: decimal comma, thousands separators, currency signs and codes.
//!
//! Refuses to guess: `1,234` may be a thousand or one and a bit, so it is no amount. Never touches a float.

use rust_decimal::Decimal;

use crate::{
    Amount,
    currency_mark::Mark,
    money::{self, BadAmount},
};

/// An amount as it was understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read {
    pub amount: Amount,
    /// The currency that stood beside the number.
    pub mark: Option<Mark>,
    pub decimal_comma: bool,
    pub thousands: bool,
    /// Negative by its brackets, as in `(5.00)`.
    pub bracketed: bool,
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    NoNumber,
    /// One comma before three digits: thousands or decimals.
    EitherComma,
    TooManyPlaces,
    TooLarge,
    /// What stands beside the number is no currency, or two.
    Beside,
}

impl Problem {
    /// Completes "… was left out: ".
    pub fn why(self) -> &'static str {
        match self {
            Problem::NoNumber => "it cannot be read as an amount; send a plain decimal such as 12.50",
            Problem::EitherComma => {
                "its comma may part thousands or decimals; send a decimal point and no thousands separator, such as 1234.00"
            }
            Problem::TooManyPlaces => "an amount has at most 8 decimal places, and it is not rounded",
            Problem::TooLarge => "an amount is below 1000000000000",
            Problem::Beside => "what stands beside the number is not one currency; send a plain decimal such as 12.50",
        }
    }
}

/// Reads one amount. Surrounding space is fine, anything unclear is not.
pub fn read(text: &str) -> Result<Read, Problem> {
    let parts = Parts::of(text)?;
    let number = match parts.closed_by {
        None => Number::read(parts.number)?,
        // `5,-` and `5.` have a decimal separator with nothing behind it.
        Some(separator) => Number::read(&format!("{}{separator}00", parts.number))?,
    };
    if number.value.normalize().scale() > money::PLACES {
        return Err(Problem::TooManyPlaces);
    }
    let amount = Amount::new(number.value).map_err(|BadAmount| Problem::TooLarge)?;
    Ok(Read {
        amount: if parts.negative && !amount.is_zero() { amount.negated() } else { amount },
        mark: parts.mark,
        decimal_comma: number.decimal_comma,
        thousands: number.thousands,
        bracketed: parts.bracketed,
    })
}

fn is_space(c: char) -> bool {
    // Marks of the direction of writing stand around amounts in right-to-left text.
    c.is_whitespace()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn is_minus(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2013}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}')
}

fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// A text cut into what stands before, within and behind the number.
struct Parts<'a> {
    negative: bool,
    bracketed: bool,
    number: &'a str,
    /// The decimal separator that the number ends with.
    closed_by: Option<char>,
    mark: Option<Mark>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Parts<'a>, Problem> {
        let digit = |c: char| c.is_ascii_digit();
        let first = text.find(digit).ok_or(Problem::NoNumber)?;
        let end = text.rfind(digit).map_or(first, |at| at + 1);
        let (mut head, tail) = (text[..first].trim_start_matches(is_space), trim_end(&text[end..]));
        let bracketed = head.starts_with('(') && tail.ends_with(')');
        let tail = if bracketed {
            head = &head[1..];
            &tail[..tail.len() - 1]
        } else {
            tail
        };
        let head = Head::of(head)?;
        if bracketed && head.negative {
            return Err(Problem::NoNumber);
        }
        let (closed_by, behind) = closing(tail);
        let behind = match trim(behind) {
            "" => None,
            text => Some(Mark::read(text).ok_or(Problem::Beside)?),
        };
        let mark = match (head.mark, behind) {
            (Some(one), Some(other)) => Some(one.with(other).ok_or(Problem::Beside)?),
            (one, other) => one.or(other),
        };
        let number = &text[first - usize::from(head.has_point)..end];
        Ok(Parts { negative: head.negative || bracketed, bracketed, number, closed_by, mark })
    }
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// What stands before the first digit: a sign, a currency, or both in any order, and perhaps a decimal point.
struct Head {
    negative: bool,
    mark: Option<Mark>,
    has_point: bool,
}

impl Head {
    fn of(text: &str) -> Result<Head, Problem> {
        let text = trim_start(text);
        let (signed, rest) = match text.strip_prefix(is_minus) {
            Some(rest) => (Some(true), trim_start(rest)),
            None => match text.strip_prefix('+') {
                Some(rest) => (Some(false), trim_start(rest)),
                None => (None, text),
            },
        };
        let (before_point, has_point) = rest.strip_suffix('.').map_or((rest, false), |before| (before, true));
        let before = trim(before_point);
        // Not `0.5`: in `,5` the first of two amounts may be missing.
        if before.ends_with(',') {
            return Err(Problem::NoNumber);
        }
        let (negative, before) = match (signed, before.strip_suffix(is_minus)) {
            (Some(_), Some(_)) => return Err(Problem::NoNumber),
            (None, Some(before)) => (true, trim(before)),
            (signed, None) => (signed == Some(true), before),
        };
        if before.is_empty() {
            return Ok(Head { negative, mark: None, has_point });
        }
        let mark = Mark::read(before).ok_or(Problem::Beside)?;
        // The point of `Rs.500` belongs to the mark, that of `Rs .5` to the number.
        let is_abbreviation = mark.takes_a_point() && before_point.ends_with(char::is_alphabetic);
        Ok(Head { negative, mark: Some(mark), has_point: has_point && !is_abbreviation })
    }
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// A decimal separator that closes the number, and what follows: `5.`, `5,-`, `5.–`.
fn closing(tail: &str) -> (Option<char>, &str) {
    let Some(separator) = tail.chars().next().filter(|c| matches!(c, '.' | ',')) else { return (None, tail) };
    let rest = &tail[1..];
    let dash = |c: char| is_minus(c) || c == '\u{2014}';
    let behind = rest.strip_prefix(dash).map(|more| more.strip_prefix(dash).unwrap_or(more));
    match behind {
        Some(behind) => (Some(separator), behind),
        None if separator == '.' && !rest.starts_with(|c: char| !is_space(c)) => (Some('.'), rest),
        None => (None, tail),
    }
}

struct Number {
    value: Decimal,
    decimal_comma: bool,
    thousands: bool,
}

/// Separators of one number; more than these is no amount below the limit.
const MOST_GROUPS: usize = 10;
const MOST_DIGITS: u32 = 28;

/// The digits of a number as groups, with the separators between them.
#[derive(Default)]
struct Groups {
    mantissa: i128,
    digits: u32,
    lengths: [u32; MOST_GROUPS + 1],
    separators: [u8; MOST_GROUPS],
    count: usize,
    leading_zero: bool,
}

impl Groups {
    fn read(text: &str) -> Result<Groups, Problem> {
        let mut groups = Groups { leading_zero: text.starts_with('0'), ..Groups::default() };
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                groups.mantissa = groups.mantissa * 10 + i128::from(digit);
                groups.digits += 1;
                groups.lengths[groups.count] += 1;
                if groups.digits > MOST_DIGITS {
                    return Err(if groups.count == 0 { Problem::TooLarge } else { Problem::TooManyPlaces });
                }
                continue;
            }
            let slot = groups.separators.get_mut(groups.count).ok_or(Problem::NoNumber)?;
            *slot = match c {
                '.' => b'.',
                ',' => b',',
                '_' => b'_',
                '\'' | '\u{2019}' | '\u{2bc}' | '\u{b4}' | '`' => b'\'',
                c if c.is_whitespace() && !c.is_control() => b' ',
                _ => return Err(Problem::NoNumber),
            };
            groups.count += 1;
        }
        if groups.digits > 0 && groups.lengths[groups.count] > 0 { Ok(groups) } else { Err(Problem::NoNumber) }
    }

    /// The first `upto` separators part thousands: groups of three after a first one of 1 to 3 digits, or as in India,
    /// where only the last group has three and those before it two.
    fn are_thousands(&self, upto: usize) -> bool {
        let groups = &self.lengths[1..=upto];
        let (Some((last, between)), false) = (groups.split_last(), self.leading_zero) else { return false };
        let western = (1..=3).contains(&self.lengths[0]) && groups.iter().all(|length| *length == 3);
        let indian = (1..=2).contains(&self.lengths[0])
            && self.separators[0] == b','
            && !between.is_empty()
            && *last == 3
            && between.iter().all(|length| *length == 2);
        (western || indian) && self.separators[..upto].iter().all(|s| *s == self.separators[0])
    }
}

impl Number {
    fn read(text: &str) -> Result<Number, Problem> {
        let (text, exponent) = match text.split_once(['e', 'E']) {
            None => (text, 0),
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent).ok_or(Problem::NoNumber)?),
        };
        let groups = Groups::read(text)?;
        let last = groups.count.checked_sub(1).map(|i| groups.separators[i]);
        let (places, decimal_comma, thousands) = match (groups.count, last) {
            (_, None) => (0, false, false),
            (1, Some(b'.')) => (groups.lengths[1], false, false),
            (1, Some(b',')) if groups.lengths[0] == 0 => return Err(Problem::NoNumber),
            (1, Some(b',')) if groups.lengths[1] != 3 || groups.leading_zero || groups.lengths[0] > 3 => {
                (groups.lengths[1], true, false)
            }
            (1, Some(b',')) => return Err(Problem::EitherComma),
            (count, Some(_)) if groups.are_thousands(count) => (0, false, true),
            (count, Some(mark @ (b'.' | b','))) if groups.separators[0] != mark && groups.are_thousands(count - 1) => {
                (groups.lengths[count], mark == b',', true)
            }
            _ => return Err(Problem::NoNumber),
        };
        if exponent != 0 && (decimal_comma || thousands) {
            return Err(Problem::NoNumber);
        }
        let value = scaled(groups.mantissa, i64::from(places) - i64::from(exponent))?;
        Ok(Number { value, decimal_comma, thousands })
    }
}

/// Of `1E 3`, too: a plus that a URL made a space.
fn read_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['-', '+', ' ']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size: i32 = digits.parse().ok()?;
    Some(if text.starts_with('-') { -size } else { size })
}

fn scaled(mut mantissa: i128, mut scale: i64) -> Result<Decimal, Problem> {
    if mantissa == 0 {
        return Ok(Decimal::ZERO);
    }
    while scale > i64::from(MOST_DIGITS) && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    if scale < 0 {
        let factor = u32::try_from(-scale).ok().and_then(|places| 10i128.checked_pow(places));
        mantissa = factor.and_then(|factor| mantissa.checked_mul(factor)).ok_or(Problem::TooLarge)?;
        scale = 0;
    }
    let scale = u32::try_from(scale).map_err(|_| Problem::TooManyPlaces)?;
    let otherwise = if scale > MOST_DIGITS { Problem::TooManyPlaces } else { Problem::TooLarge };
    Decimal::try_from_i128_with_scale(mantissa, scale).map_err(|_| otherwise)
}

#[cfg(test)]
mod tests;
