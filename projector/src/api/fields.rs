//! Judges single values of requests: names, durations, times, currencies, addresses.
//! Every function says what is wrong and what would be right; none of them looks anything up.

use ipnet::IpNet;
use jiff::tz::TimeZone;
use schemas::{Currency, Time, bounds};

use super::problem::{FieldError, Problem};

/// Collects everything that is wrong with a request.
#[derive(Default)]
pub struct Errors(pub Vec<FieldError>);

impl Errors {
    pub fn add(&mut self, pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) {
        self.0.push(FieldError::new(pointer, code, detail));
    }

    pub fn take<T>(&mut self, pointer: &str, result: Result<T, Wrong>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Wrong(code, detail)) => {
                self.add(pointer, code, detail);
                None
            }
        }
    }

    pub fn done(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// A code and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub &'static str, pub String);

impl Wrong {
    pub fn at(self, pointer: &str) -> Problem {
        Problem::field(pointer, self.0, self.1)
    }
}

pub fn name(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Wrong("missing_field", "a name is needed".to_owned()));
    }
    if text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err(Wrong("invalid_name", "a name has at most 200 characters, and no control characters".to_owned()));
    }
    Ok(text.to_owned())
}

/// Goals become count parameters of postback URLs, so their names are plain.
pub fn goal_name(text: &str) -> Result<String, Wrong> {
    let folded = text.trim().to_ascii_lowercase();
    let plain = folded.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if folded.is_empty() || folded.len() > 40 || !plain {
        let detail = format!("`{text}`: a goal has 1 to 40 letters, digits, `_` or `-`");
        return Err(Wrong("invalid_goal", detail));
    }
    Ok(folded)
}

/// A word of an event or status macro, folded.
pub fn word(text: &str) -> Result<String, Wrong> {
    let folded = text.trim().to_lowercase();
    if folded.is_empty() || folded.len() > 100 || folded.chars().any(char::is_control) {
        return Err(Wrong("invalid_word", format!("`{text}`: a word has 1 to 100 bytes, and no control characters")));
    }
    Ok(folded)
}

pub fn parameter_name(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    let plain = |b: u8| b.is_ascii_graphic() && !b"&=#?%+/\\\"'<>".contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        let detail =
            format!("`{text}`: a parameter name has 1 to 64 visible ASCII characters without & = # ? % + / and quotes");
        return Err(Wrong("invalid_parameter_name", detail));
    }
    Ok(text.to_owned())
}

pub fn currency(text: &str) -> Result<Currency, Wrong> {
    text.trim().parse().map_err(|e| Wrong("invalid_currency", format!("`{text}` is {e}")))
}

pub fn timezone(text: &str) -> Result<TimeZone, Wrong> {
    TimeZone::get(text).map_err(|_| {
        Wrong("invalid_timezone", format!("`{text}` is not an IANA time zone such as Europe/Malta or UTC"))
    })
}

/// The name under which a zone is kept.
pub fn timezone_name(text: &str) -> Result<String, Wrong> {
    let zone = timezone(text.trim())?;
    Ok(zone.iana_name().unwrap_or("UTC").to_owned())
}

pub fn time(text: &str) -> Result<Time, Wrong> {
    text.trim().parse().map_err(|e| Wrong("invalid_time", format!("`{text}` is {e}")))
}

pub fn cidr(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.map(|net| net.trunc().to_string()).map_err(|_| {
        Wrong("invalid_cidr", format!("`{text}` is not an address range such as 203.0.113.0/24 or 2001:db8::/48"))
    })
}

pub fn within(number: u64, least: u64, most: u64) -> Result<u64, Wrong> {
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(Wrong("out_of_range", format!("{number} is not within {least} to {most}")))
    }
}

/// `500ms`, `2s`, `10m`, `1h`, `7d`, as milliseconds.
pub fn duration(text: &str) -> Result<i64, Wrong> {
    let wrong = || Wrong("invalid_duration", format!("`{text}` is not a duration such as \"10m\", \"2h\" or \"7d\""));
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: i64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == "0" => 0,
        _ => return Err(wrong()),
    };
    number.parse::<i64>().ok().and_then(|n| n.checked_mul(unit_ms)).ok_or_else(wrong)
}

pub fn duration_within(text: &str, least_ms: i64, most_ms: i64) -> Result<i64, Wrong> {
    let ms = duration(text)?;
    if (least_ms..=most_ms).contains(&ms) {
        return Ok(ms);
    }
    let detail = format!("`{text}` is not within {} to {}", duration_text(least_ms), duration_text(most_ms));
    Err(Wrong("out_of_range", detail))
}

/// In the largest unit that fits without a rest.
pub fn duration_text(ms: i64) -> String {
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms != 0 && ms % unit_ms == 0 {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

pub fn flag(text: &str) -> Result<bool, Wrong> {
    match text {
        "" | "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(Wrong("invalid_value", format!("`{text}` is neither true nor false"))),
    }
}

/// A parameter that is a flag, false where it is absent.
pub fn given_flag(text: Option<&str>, pointer: &str) -> Result<bool, Problem> {
    text.map_or(Ok(false), flag).map_err(|wrong| wrong.at(pointer))
}

/// The size of a page.
pub fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = given(text) else { return Ok(bounds::PAGE_DEFAULT) };
    match text.parse::<usize>() {
        Ok(limit) if (1..=bounds::PAGE_MAX).contains(&limit) => Ok(limit),
        _ => Err(Problem::field("?limit", "out_of_range", format!("`{text}` is not within 1 to {}", bounds::PAGE_MAX))),
    }
}

/// Absent and empty are alike where an empty value has no meaning of its own.
pub fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|t| !t.is_empty())
}

/// The names that we give are at most this long; longer ones are not looked up.
pub fn id_like(text: &str) -> bool {
    !text.is_empty() && text.len() <= bounds::NAME_BYTES && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, ms) in
            [("10m", 600_000), ("7d", 604_800_000), ("2s", 2_000), ("1h", 3_600_000), ("250ms", 250), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(ms), "{text}");
        }
        for bad in ["", "10", "m", "-1d", "1.5h", "7 days", "99999999999999999999d", "9223372036854775807d"] {
            assert_eq!(duration(bad).map_err(|w| w.0), Err("invalid_duration"), "{bad}");
        }
    }

    #[test]
    fn addresses_zones_and_currencies_are_checked() {
        assert_eq!(cidr("203.0.113.9").unwrap(), "203.0.113.9/32");
        assert_eq!(cidr("203.0.113.9/24").unwrap(), "203.0.113.0/24");
        assert_eq!(cidr("2001:db8::1/48").unwrap(), "2001:db8::/48");
        for bad in ["", "300.1.1.1", "10.0.0.0/33", "localhost"] {
            assert_eq!(cidr(bad).map_err(|w| w.0), Err("invalid_cidr"), "{bad}");
        }
        assert_eq!(timezone_name("europe/malta").unwrap(), "Europe/Malta");
        assert_eq!(timezone_name("Mars/Base").map_err(|w| w.0), Err("invalid_timezone"));
        assert_eq!(currency("usd").unwrap().code(), "USD");
        assert_eq!(currency("XXZ").map_err(|w| w.0), Err("invalid_currency"));
    }

    #[test]
    fn goal_names_are_plain() {
        assert_eq!(goal_name(" VIP_Level-2 ").unwrap(), "vip_level-2");
        for bad in ["", "a b", "ä", "a&b", &"x".repeat(41)] {
            assert_eq!(goal_name(bad).map_err(|w| w.0), Err("invalid_goal"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn durations_survive_text(ms in 0i64..10_000_000_000) {
            prop_assert_eq!(duration(&duration_text(ms)), Ok(ms));
        }
    }
}
