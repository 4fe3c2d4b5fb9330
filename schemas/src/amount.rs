//! Reads amounts as senders really write them: decimal comma, thousands separators, currency signs and codes.
//!
//! Refuses to guess: `1,234` may be a thousand or one and a bit, so it is no amount. Never touches a float.

use rust_decimal::Decimal;

use crate::{Amount, Currency, money::BadAmount};

/// An amount as it was understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read {
    pub amount: Amount,
    /// The currency that stood beside the number.
    pub mark: Option<Mark>,
    pub decimal_comma: bool,
    pub thousands: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    Code(Currency),
    Sign(&'static Sign),
}

/// A currency sign and the currencies that use it, the usual one first.
#[derive(Debug, PartialEq)]
pub struct Sign {
    text: &'static str,
    fits: &'static [&'static str],
    /// The usual one may be taken where nothing else is said.
    certain: bool,
}

const fn sign(text: &'static str, fits: &'static [&'static str], certain: bool) -> Sign {
    Sign { text, fits, certain }
}

/// Longer signs stand before those that they contain.
static SIGNS: &[Sign] = &[
    sign("€", &["EUR"], true),
    sign("US$", &["USD"], true),
    sign("CA$", &["CAD"], true),
    sign("AU$", &["AUD"], true),
    sign("R$", &["BRL"], true),
    sign("$", &["USD", "CAD", "AUD", "NZD", "SGD", "HKD", "MXN", "ARS", "CLP", "COP", "TWD"], true),
    sign("£", &["GBP", "EGP", "GIP", "FKP"], true),
    sign("¥", &["JPY", "CNY"], false),
    sign("￥", &["JPY", "CNY"], false),
    sign("₽", &["RUB"], true),
    sign("₴", &["UAH"], true),
    sign("₹", &["INR"], true),
    sign("₺", &["TRY"], true),
    sign("₿", &["BTC"], true),
    sign("₸", &["KZT"], true),
    sign("₩", &["KRW"], true),
    sign("₦", &["NGN"], true),
    sign("₫", &["VND"], true),
    sign("₱", &["PHP"], true),
    sign("₪", &["ILS"], true),
    sign("₼", &["AZN"], true),
    sign("₾", &["GEL"], true),
    sign("zł", &["PLN"], true),
    sign("Kč", &["CZK"], true),
    sign("kr", &["SEK", "NOK", "DKK", "ISK"], false),
    sign("Ft", &["HUF"], true),
];

impl Mark {
    /// The currency that this mark means beside an explicit one and the account's; `None` where it contradicts the
    /// explicit one or may mean several.
    pub fn currency(self, explicit: Option<Currency>, account: Currency) -> Option<Currency> {
        match self {
            Mark::Code(code) => (explicit.is_none() || explicit == Some(code)).then_some(code),
            Mark::Sign(sign) => {
                let expected = explicit.unwrap_or(account);
                if sign.fits.contains(&expected.code()) {
                    return Some(expected);
                }
                let usual = sign.fits.first().filter(|_| sign.certain && explicit.is_none())?;
                usual.parse().ok()
            }
        }
    }
}

/// A sign that stands alone, as in `currency=€`.
pub fn read_sign(text: &str) -> Option<Mark> {
    SIGNS.iter().find(|sign| sign.text == text).map(Mark::Sign)
}

/// Reads one amount. Surrounding space is fine, anything unclear is not.
pub fn read(text: &str) -> Result<Read, BadAmount> {
    let (mut negative, rest) = take_sign(text.trim());
    let (before, rest) = take_prefix(rest)?;
    let (mut rest, after) = take_suffix(rest)?;
    if negative.is_none() && before.is_some() {
        (negative, rest) = take_sign(rest);
    }
    let number = Number::read(rest).ok_or(BadAmount)?;
    let amount = Amount::new(number.value)?;
    Ok(Read {
        amount: if negative == Some(true) && !amount.is_zero() { amount.negated() } else { amount },
        mark: agree(before, after)?,
        decimal_comma: number.decimal_comma,
        thousands: number.thousands,
    })
}

/// `$50 USD` is fine, `€50 USD` is not.
fn agree(before: Option<Mark>, after: Option<Mark>) -> Result<Option<Mark>, BadAmount> {
    match (before, after) {
        (Some(Mark::Sign(sign)), Some(Mark::Code(code))) | (Some(Mark::Code(code)), Some(Mark::Sign(sign))) => {
            if sign.fits.contains(&code.code()) { Ok(Some(Mark::Code(code))) } else { Err(BadAmount) }
        }
        (Some(one), Some(other)) => {
            if one == other {
                Ok(Some(one))
            } else {
                Err(BadAmount)
            }
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// The sign in front: `Some(true)` is a minus.
fn take_sign(text: &str) -> (Option<bool>, &str) {
    if let Some(rest) = text.strip_prefix(['-', '\u{2212}']) {
        return (Some(true), rest.trim_start());
    }
    match text.strip_prefix('+') {
        Some(rest) => (Some(false), rest),
        None => (None, text),
    }
}

fn take_prefix(text: &str) -> Result<(Option<Mark>, &str), BadAmount> {
    if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-')) {
        return Ok((None, text));
    }
    if let Some((sign, rest)) = SIGNS.iter().find_map(|s| text.strip_prefix(s.text).map(|rest| (s, rest))) {
        return Ok((Some(Mark::Sign(sign)), rest.trim_start()));
    }
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (code, rest) = text.split_at(end);
    if code.is_empty() {
        return Ok((None, text));
    }
    Ok((Some(Mark::Code(code.parse().map_err(|_| BadAmount)?)), rest.trim_start()))
}

fn take_suffix(text: &str) -> Result<(&str, Option<Mark>), BadAmount> {
    if text.ends_with(|c: char| c.is_ascii_digit()) {
        return Ok((text, None));
    }
    if let Some((sign, rest)) = SIGNS.iter().find_map(|s| text.strip_suffix(s.text).map(|rest| (s, rest))) {
        return Ok((rest.trim_end(), Some(Mark::Sign(sign))));
    }
    let start = text.rfind(|c: char| !c.is_ascii_alphabetic()).map_or(0, |at| at + 1);
    let Some((rest, code)) = text.split_at_checked(start) else { return Err(BadAmount) };
    if code.is_empty() {
        return Ok((text, None));
    }
    Ok((rest.trim_end(), Some(Mark::Code(code.parse().map_err(|_| BadAmount)?))))
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
    fn read(text: &str) -> Option<Groups> {
        let mut groups = Groups { leading_zero: text.starts_with('0'), ..Groups::default() };
        for c in text.chars() {
            match c {
                '0'..='9' => {
                    groups.mantissa = groups.mantissa * 10 + i128::from(c as u8 - b'0');
                    groups.digits += 1;
                    groups.lengths[groups.count] += 1;
                    if groups.digits > MOST_DIGITS {
                        return None;
                    }
                }
                _ => {
                    let slot = groups.separators.get_mut(groups.count)?;
                    *slot = match c {
                        '.' => b'.',
                        ',' => b',',
                        ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}' => b' ',
                        '\'' | '\u{2019}' => b'\'',
                        _ => return None,
                    };
                    groups.count += 1;
                }
            }
        }
        (groups.digits > 0 && groups.lengths[groups.count] > 0).then_some(groups)
    }

    /// The first `upto` separators part thousands: groups of three after a first one of 1 to 3 digits.
    fn are_thousands(&self, upto: usize) -> bool {
        !self.leading_zero
            && (1..=3).contains(&self.lengths[0])
            && self.lengths[1..=upto].iter().all(|length| *length == 3)
            && self.separators[..upto].iter().all(|s| *s == self.separators[0])
    }
}

impl Number {
    fn read(text: &str) -> Option<Number> {
        let (text, exponent) = match text.split_once(['e', 'E']) {
            None => (text, 0),
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
        };
        let groups = Groups::read(text)?;
        let last = groups.count.checked_sub(1).map(|i| groups.separators[i]);
        let (places, decimal_comma, thousands) = match (groups.count, last) {
            (_, None) => (0, false, false),
            (1, Some(b'.')) => (groups.lengths[1], false, false),
            (1, Some(b',')) if groups.lengths[1] != 3 || groups.leading_zero || groups.lengths[0] > 3 => {
                (groups.lengths[1], true, false)
            }
            (1, Some(b',')) => return None,
            (count, Some(_)) if groups.are_thousands(count) => (0, false, true),
            (count, Some(mark @ (b'.' | b','))) if groups.separators[0] != mark && groups.are_thousands(count - 1) => {
                (groups.lengths[count], mark == b',', true)
            }
            _ => return None,
        };
        if exponent != 0 && (decimal_comma || thousands) {
            return None;
        }
        let value = scaled(groups.mantissa, i64::from(places) - i64::from(exponent))?;
        Some(Number { value, decimal_comma, thousands })
    }
}

fn read_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn scaled(mut mantissa: i128, mut scale: i64) -> Option<Decimal> {
    if mantissa == 0 {
        return Some(Decimal::ZERO);
    }
    while scale > i64::from(MOST_DIGITS) && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    if scale < 0 {
        let factor = 10i128.checked_pow(u32::try_from(-scale).ok()?)?;
        mantissa = mantissa.checked_mul(factor)?;
        scale = 0;
    }
    Decimal::try_from_i128_with_scale(mantissa, u32::try_from(scale).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<String> {
        read(text).ok().map(|read| read.amount.to_string())
    }

    #[test]
    fn plain_and_local_ways_to_write() {
        for (text, amount) in [
            ("50", "50.00"),
            ("0", "0.00"),
            ("12.5", "12.50"),
            ("12.500", "12.50"),
            ("1.234", "1.234"),
            (".5", "0.50"),
            ("12,5", "12.50"),
            ("12,50", "12.50"),
            ("0,123", "0.123"),
            (",5", "0.50"),
            ("1234,567", "1234.567"),
            ("1,234.56", "1234.56"),
            ("1.234,56", "1234.56"),
            ("1,234,567", "1234567.00"),
            ("1.234.567,89", "1234567.89"),
            ("1 234,50", "1234.50"),
            ("1\u{a0}234.50", "1234.50"),
            ("1'234.50", "1234.50"),
            ("1 234", "1234.00"),
            ("-5", "-5.00"),
            ("\u{2212}5.25", "-5.25"),
            ("+5", "5.00"),
            ("€50", "50.00"),
            ("-€50", "-50.00"),
            ("€-50", "-50.00"),
            ("€ 50", "50.00"),
            ("50€", "50.00"),
            ("50 USD", "50.00"),
            ("usd50.5", "50.50"),
            ("R$ 1.234,50", "1234.50"),
            ("$50 USD", "50.00"),
            ("1e2", "100.00"),
            ("1.5E-3", "0.0015"),
            ("0.00000001", "0.00000001"),
            ("100e-2", "1.00"),
            ("-0", "0.00"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(amount), "{text}");
        }
    }

    #[test]
    fn unclear_is_no_amount() {
        for text in [
            "",
            "-",
            "abc",
            "1,234",
            "12,345",
            "1.2.3",
            "1,23,456",
            "1.234.56",
            "0,123,456",
            "12 50",
            "12.",
            "12,",
            "--5",
            "+-5",
            "-€-5",
            "5-",
            "(5.00)",
            "€50 USD",
            "50 XYZ",
            "50 usd eur",
            "1e",
            "1e999",
            "1,5e2",
            "5,",
            "$",
            "0.123456789",
            "1000000000000",
            "12345678901234567890123456789",
            "NaN",
            "inf",
            "0x10",
            "1/2",
            "5%",
            "１２",
            "10,20,30",
            "1.234,567.8",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn what_was_corrected_is_told() {
        let read = |text| super::read(text).unwrap();
        assert!(read("12,50").decimal_comma && !read("12.50").decimal_comma);
        assert!(read("1,234.50").thousands && !read("1234.50").thousands);
        assert_eq!(read("50 usd").mark, Some(Mark::Code(Currency::USD)));
        assert_eq!(read("50").mark, None);
    }

    #[test]
    fn a_sign_is_read_beside_what_is_known() {
        let mark = read("$5").unwrap().mark.unwrap();
        let cad: Currency = "CAD".parse().unwrap();
        assert_eq!(mark.currency(None, Currency::EUR), Some(Currency::USD));
        assert_eq!(mark.currency(None, cad), Some(cad));
        assert_eq!(mark.currency(Some(Currency::EUR), Currency::USD), None);
        let yen = read("¥5").unwrap().mark.unwrap();
        assert_eq!(yen.currency(None, Currency::EUR), None);
        assert_eq!(yen.currency(None, "CNY".parse().unwrap()).map(Currency::code), Some("CNY"));
        let code = read("5 USD").unwrap().mark.unwrap();
        assert_eq!(code.currency(None, Currency::EUR), Some(Currency::USD));
        assert_eq!(code.currency(Some(Currency::EUR), Currency::EUR), None);
    }

    #[test]
    fn every_sign_names_known_currencies() {
        for sign in SIGNS {
            for code in sign.fits {
                assert!(code.parse::<Currency>().is_ok(), "{code}");
            }
        }
    }

    proptest! {
        #[test]
        fn plain_decimals_are_read_exactly(units in -99_999_999_999_999_999_999i128..=99_999_999_999_999_999_999) {
            let amount = Amount::from_units(units).unwrap();
            let text = amount.to_string();
            let read = read(&text).unwrap();
            prop_assert_eq!(read.amount, amount);
            prop_assert_eq!((read.mark, read.thousands, read.decimal_comma), (None, false, false));
        }

        #[test]
        fn a_decimal_comma_is_never_off_by_a_thousand(whole in 0u32..1_000_000, cents in 0u32..100) {
            let expected: Amount = format!("{whole}.{cents:02}").parse().unwrap();
            prop_assert_eq!(read(&format!("{whole},{cents:02}")).unwrap().amount, expected);
        }

        #[test]
        fn any_text_is_fine(text in any::<String>(), near in "[-+0-9.,'eE €$a-z]{0,40}") {
            for text in [text, near] {
                if let Ok(read) = read(&text) {
                    prop_assert!(read.amount.decimal().scale() <= 8);
                }
            }
        }
    }
}
