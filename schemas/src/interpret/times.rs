//! The time that a sender gives a conversion.
//!
//! Numbers are unix time, in the unit that their length tells. A time without a zone is one of the account's zone, from the
//! database that is part of the build, so that every machine reads the same. Where clocks are set back, the earlier of two
//! instants is meant; where they are set forward, the time after the gap.

use jiff::{civil::DateTime, tz::TimeZoneDatabase};

use crate::{
    Time, bounds,
    interpret::remarks::{Picked, Remarks, code, pick, shown},
    params::{Params, Role},
    settings::AccountSettings,
};

/// Earlier times are counters or mistakes: 2000-01-01.
const EARLIEST: Time = Time::from_ms(946_684_800_000);

/// `None` where the receipt is the time, as nothing readable was sent.
pub(super) fn read(params: &Params, settings: &AccountSettings, receipt: Time, remarks: &mut Remarks) -> Option<Time> {
    let (param, picked) = pick(params, remarks, |role| (role == Role::Ts).then_some(0))?;
    let Picked::Text(text) = picked else { return None };
    let latest = receipt.plus_ms(bounds::CLICK_AHEAD_MS);
    let Some((time, how)) = parse(&text, &settings.timezone) else {
        remarks.note(code::TIME, || {
            format!("{} is no time, so the receipt is: send unix seconds, milliseconds or RFC 3339", shown(param))
        });
        return None;
    };
    if !(EARLIEST..=latest).contains(&time) {
        remarks.note(code::TIME, || format!("{} is {time}, which cannot be; the receipt is the time", shown(param)));
        return None;
    }
    match how {
        How::Plain => {}
        How::Repaired => remarks.note(code::TIME_READ, || format!("{} was read as {time}", shown(param))),
        How::Local => remarks.note(code::TIME_LOCAL, || {
            format!("{} has no zone; in the account's zone {} it is {time}", shown(param), settings.timezone)
        }),
    }
    Some(time)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Plain,
    /// A `+` that had become a space was put back.
    Repaired,
    /// In the account's zone.
    Local,
}

fn parse(text: &str, zone: &str) -> Option<(Time, How)> {
    if let Some(time) = parse_unix(text) {
        return Some((time, How::Plain));
    }
    if let Ok(time) = text.parse() {
        return Some((time, How::Plain));
    }
    // A date alone would put the conversion before its click, so it is no time.
    if !text.contains(':') {
        return None;
    }
    if let Some((head, offset)) = text.rsplit_once(' ') {
        if offset.eq_ignore_ascii_case("UTC") || offset.eq_ignore_ascii_case("GMT") {
            return format!("{}Z", head.trim_end()).parse().ok().map(|time| (time, How::Plain));
        }
        if head.contains(':') && offset.contains(':') {
            return format!("{head}+{offset}").parse().ok().map(|time| (time, How::Repaired));
        }
    }
    let civil: DateTime = text.replace('/', "-").parse().ok()?;
    let zone = TimeZoneDatabase::bundled().get(zone).ok()?;
    let instant = civil.to_zoned(zone).ok()?.timestamp();
    Some((Time::from_ms(instant.as_millisecond()), How::Local))
}

/// Seconds (perhaps with places), milliseconds, microseconds or nanoseconds since 1970.
fn parse_unix(text: &str) -> Option<Time> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(places.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    Some(Time::from_ms(match whole.len() {
        ..=11 => number * 1_000 + thousandths(places),
        12..=15 => number,
        16..=18 => number / 1_000,
        _ => number / 1_000_000,
    }))
}

fn thousandths(places: &str) -> i64 {
    let digits = places.bytes().chain(std::iter::repeat(b'0')).take(3);
    digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Option<Time> {
        text.parse().ok()
    }

    #[test]
    fn times_of_all_kinds() {
        let utc = "2026-11-22T08:00:00Z";
        for (text, expected, how) in [
            ("1795334400", utc, How::Plain),
            ("1795334400000", utc, How::Plain),
            ("1795334400000000", utc, How::Plain),
            ("1795334400000000000", utc, How::Plain),
            ("1795334400.250", "2026-11-22T08:00:00.250Z", How::Plain),
            ("2026-11-22T08:00:00Z", utc, How::Plain),
            ("2026-11-22t08:00:00z", utc, How::Plain),
            ("2026-11-22 08:00:00Z", utc, How::Plain),
            ("2026-11-22 10:00:00+02:00", utc, How::Plain),
            ("2026-11-22T10:00:00 02:00", utc, How::Repaired),
            ("2026-11-22 10:00:00 02:00", utc, How::Repaired),
            ("2026-11-22 08:00:00 UTC", utc, How::Plain),
            ("2026-11-22 08:00:00 gmt", utc, How::Plain),
            ("2026-11-22 10:00:00", utc, How::Local),
            ("2026-11-22T10:00:00", utc, How::Local),
            ("2026-11-22 10:00", utc, How::Local),
            ("2026/11/22 10:00:00", utc, How::Local),
            ("2026-11-22 10:00:00.5", "2026-11-22T08:00:00.5Z", How::Local),
            // Clocks go back at 4:00, and forward at 3:00.
            ("2026-10-25 03:30:00", "2026-10-25T00:30:00Z", How::Local),
            ("2026-03-29 03:30:00", "2026-03-29T01:30:00Z", How::Local),
        ] {
            assert_eq!(parse(text, "Europe/Kyiv"), time(expected).map(|time| (time, how)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in
            ["", "yesterday", "2026-11-22", "22.11.2026 10:00", "11/22/2026 10:00", "10:00", "1.x", "-5", "1e9", ":"]
        {
            assert_eq!(parse(text, "Europe/Kyiv"), None, "{text}");
        }
        assert_eq!(parse("2026-11-22 10:00:00", "Mars/Base"), None);
    }

    proptest! {
        #[test]
        fn any_instant_reads_back_in_every_way(seconds in 946_684_800i64..4_000_000_000, text in "\\PC{0,40}") {
            let instant = Time::from_ms(seconds * 1_000);
            let written = instant.to_string();
            for text in [seconds.to_string(), (seconds * 1_000).to_string(), written.clone(), written.replace('T', " ")] {
                prop_assert_eq!(parse(&text, "UTC"), Some((instant, How::Plain)));
            }
            let local = written.trim_end_matches("Z").replace('T', " ");
            prop_assert_eq!(parse(&local, "UTC"), Some((instant, How::Local)));
            parse(&text, "Europe/Kyiv");
        }
    }
}
