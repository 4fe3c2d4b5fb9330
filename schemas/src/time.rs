//! Instants: milliseconds since 1970, UTC, written as RFC 3339 with three places.

use std::{fmt, str::FromStr};

/// An instant in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// 9999-12-31T23:59:59.999Z: later instants cannot be written.
const MAX_MS: i64 = 253_402_300_799_999;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an RFC 3339 time such as 2026-11-22T08:00:00Z")]
pub struct BadTime;

impl Time {
    pub const fn from_ms(ms: i64) -> Self {
        let ms = if ms < 0 { 0 } else { ms };
        Self(if ms > MAX_MS { MAX_MS } else { ms })
    }
    pub const fn ms(self) -> i64 {
        self.0
    }
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }
    pub const fn plus_days(self, days: u16) -> Self {
        self.plus_ms(days as i64 * DAY_MS)
    }
    /// Milliseconds from `earlier` to this instant; negative if that is later.
    pub const fn since(self, earlier: Time) -> i64 {
        self.0 - earlier.0
    }

    /// The 24 characters `2026-11-22T08:00:00.000Z`.
    fn chars(self) -> [u8; 24] {
        let days = self.0.div_euclid(DAY_MS);
        let ms = self.0.rem_euclid(DAY_MS);
        let (year, month, day) = civil(days);
        let mut out = *b"0000-00-00T00:00:00.000Z";
        put(&mut out[0..4], year as u32);
        put(&mut out[5..7], month);
        put(&mut out[8..10], day);
        put(&mut out[11..13], (ms / 3_600_000) as u32);
        put(&mut out[14..16], (ms / 60_000 % 60) as u32);
        put(&mut out[17..19], (ms / 1_000 % 60) as u32);
        put(&mut out[20..23], (ms % 1_000) as u32);
        out
    }
}

fn put(out: &mut [u8], mut number: u32) {
    for slot in out.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day count since 1970 (Gregorian calendar). Every record is stamped several times,
/// and a general time library's formatter was a tenth of the cost of a hit.
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Time {
    type Err = BadTime;
    fn from_str(text: &str) -> Result<Self, BadTime> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| BadTime)?;
        match instant.as_millisecond() {
            ms @ 0..=MAX_MS => Ok(Self(ms)),
            _ => Err(BadTime),
        }
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if !s.is_human_readable() {
            return s.serialize_i64(self.0);
        }
        s.serialize_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
    }
}

impl<'de> serde::Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return i64::deserialize(d).map(Self::from_ms);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "format": "date-time",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_with_three_places() {
        assert_eq!(Time::from_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!("2024-02-29T23:59:59.9Z".parse::<Time>().unwrap().to_string(), "2024-02-29T23:59:59.900Z");
        assert_eq!("2026-11-22T09:00:00+01:00".parse::<Time>().unwrap().to_string(), "2026-11-22T08:00:00.000Z");
        assert_eq!("yesterday".parse::<Time>(), Err(BadTime));
    }

    proptest! {
        #[test]
        fn agrees_with_the_time_library(ms in 0i64..MAX_MS) {
            let ours = Time::from_ms(ms);
            let theirs = jiff::Timestamp::from_millisecond(ms).unwrap();
            prop_assert_eq!(ours.to_string(), format!("{theirs:.3}"));
            prop_assert_eq!(ours.to_string().parse::<Time>(), Ok(ours));
        }
    }
}
