//! Ranges of time and their division into hours, days and months of a time zone.

use jiff::{
    Timestamp, ToSpan,
    civil::Date,
    tz::{Offset, TimeZone},
};
use schemas::Time;

use super::query::{Dimension, Moment, QueryError};

/// Days of the default range, today included.
const DEFAULT_DAYS: i32 = 7;
/// Rows of time of one report.
const MAX_SLOTS: usize = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: Time,
    /// Exclusive.
    pub to: Time,
}

impl Range {
    pub const ALL: Range = Range { from: Time::from_ms(0), to: Time::from_ms(i64::MAX) };

    pub fn contains(&self, time: Time) -> bool {
        self.from <= time && time < self.to
    }
}

pub fn zone(name: &str) -> Result<TimeZone, QueryError> {
    let unknown = || {
        QueryError::refused("tz", "unknown_timezone", format!("`{name}` is no IANA time zone such as Europe/Berlin"))
    };
    TimeZone::get(name).map_err(|_| unknown())
}

/// `to` as an instant is exclusive; as a date that day is in. Without both: the last 7 days.
pub fn resolve(from: Option<&Moment>, to: Option<&Moment>, tz: &TimeZone, now: Time) -> Result<Range, QueryError> {
    let today = timestamp(now).to_zoned(tz.clone()).date();
    let to = match to {
        Some(Moment::Instant(time)) => *time,
        Some(Moment::Date(text)) => start_of(next_day(date("to", text)?), tz)?,
        None => start_of(next_day(today), tz)?,
    };
    let from = match from {
        Some(Moment::Instant(time)) => *time,
        Some(Moment::Date(text)) => start_of(date("from", text)?, tz)?,
        None => {
            let last = timestamp(to.plus_ms(-1)).to_zoned(tz.clone()).date();
            start_of(last.saturating_sub((DEFAULT_DAYS - 1).days()), tz)?
        }
    };
    if from > to {
        return Err(QueryError::refused("from", "invalid_range", "`from` is after `to`"));
    }
    Ok(Range { from, to })
}

fn date(parameter: &'static str, text: &str) -> Result<Date, QueryError> {
    let bad = || QueryError::refused(parameter, "invalid_time", format!("`{text}` is no date such as 2026-11-22"));
    text.parse().map_err(|_| bad())
}

fn next_day(date: Date) -> Date {
    date.tomorrow().unwrap_or(Date::MAX)
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_millisecond(time.ms()).unwrap_or(Timestamp::MAX)
}

/// The first instant of a day: where clocks skip midnight, the one after the gap.
fn start_of(date: Date, tz: &TimeZone) -> Result<Time, QueryError> {
    let start = date.to_zoned(tz.clone()).map_err(anyhow::Error::from)?;
    Ok(Time::from_ms(start.timestamp().as_millisecond()))
}

/// A piece of the range, with its keys for the time dimensions that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub range: Range,
    pub keys: Vec<String>,
}

/// The range in pieces, in order and without gaps: one per hour, day or month, or one for all.
#[derive(Clone, Debug)]
pub struct Slots(pub Vec<Slot>);

impl Slots {
    pub fn new(range: Range, dimensions: &[Dimension], tz: &TimeZone) -> Result<Self, QueryError> {
        if dimensions.is_empty() || range.from >= range.to {
            return Ok(Self(vec![Slot { range, keys: vec![String::new(); dimensions.len()] }]));
        }
        let mut slots = Vec::new();
        let mut from = range.from;
        while from < range.to {
            if slots.len() >= MAX_SLOTS {
                let detail = format!("the range has more than {MAX_SLOTS} rows of time: ask for less");
                return Err(QueryError::refused("from", "range_too_long", detail));
            }
            let to = end_of_slot(from, dimensions, tz)?.min(range.to);
            let keys = dimensions.iter().map(|dimension| key(from, *dimension, tz)).collect();
            slots.push(Slot { range: Range { from, to }, keys });
            from = to;
        }
        Ok(Self(slots))
    }

    /// Which slot holds an instant of the range.
    pub fn at(&self, time: Time) -> Option<usize> {
        let at = self.0.partition_point(|slot| slot.range.to <= time);
        self.0.get(at).filter(|slot| slot.range.contains(time)).map(|_| at)
    }

    /// Whether every inner edge lies on a multiple of `step_ms`.
    pub fn are_aligned(&self, step_ms: i64) -> bool {
        self.0.iter().skip(1).all(|slot| slot.range.from.ms() % step_ms == 0)
    }
}

fn end_of_slot(from: Time, dimensions: &[Dimension], tz: &TimeZone) -> Result<Time, QueryError> {
    let here = timestamp(from).to_zoned(tz.clone());
    if dimensions.contains(&Dimension::Hour) {
        let into = i64::from(here.minute()) * 60_000 + i64::from(here.second()) * 1_000 + i64::from(here.millisecond());
        let full = from.plus_ms(3_600_000 - into);
        // Where clocks change within an hour, the key's offset changes too.
        let change = tz.following(here.timestamp()).next().map(|t| Time::from_ms(t.timestamp().as_millisecond()));
        return Ok(change.filter(|change| *change > from).map_or(full, |change| change.min(full)));
    }
    let date = here.date();
    if dimensions.contains(&Dimension::Day) {
        return start_of(next_day(date), tz);
    }
    start_of(next_day(date.last_of_month()), tz)
}

fn key(from: Time, dimension: Dimension, tz: &TimeZone) -> String {
    let here = timestamp(from).to_zoned(tz.clone());
    let date = here.date();
    match dimension {
        Dimension::Month => format!("{:04}-{:02}", date.year(), date.month()),
        Dimension::Hour => format!("{date}T{:02}:00:00{}", here.hour(), offset(here.offset())),
        _ => date.to_string(),
    }
}

fn offset(offset: Offset) -> String {
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn keys(from: &str, to: &str, dimension: Dimension, tz: &str) -> Vec<String> {
        let range = Range { from: time(from), to: time(to) };
        let slots = Slots::new(range, &[dimension], &zone(tz).unwrap()).unwrap();
        assert!(slots.0.windows(2).all(|pair| pair[0].range.to == pair[1].range.from));
        assert_eq!((slots.0[0].range.from, slots.0[slots.0.len() - 1].range.to), (range.from, range.to));
        slots.0.into_iter().map(|slot| slot.keys.concat()).collect()
    }

    #[test]
    fn dates_are_days_of_the_zone_and_the_last_is_in() {
        let berlin = zone("Europe/Berlin").unwrap();
        let moment = |text: &str| text.parse::<Moment>().unwrap();
        let now = time("2026-11-22T23:30:00Z");
        let range = resolve(Some(&moment("2026-10-25")), Some(&moment("2026-10-25")), &berlin, now).unwrap();
        assert_eq!((range.from, range.to), (time("2026-10-24T22:00:00Z"), time("2026-10-25T23:00:00Z")));
        let week = resolve(None, None, &berlin, now).unwrap();
        assert_eq!((week.from, week.to), (time("2026-11-16T23:00:00Z"), time("2026-11-23T23:00:00Z")));
        let exact = resolve(Some(&moment("2026-11-22T08:00:00Z")), Some(&moment("2026-11-22T09:00:00Z")), &berlin, now);
        assert_eq!(exact.unwrap(), Range { from: time("2026-11-22T08:00:00Z"), to: time("2026-11-22T09:00:00Z") });
        assert!(resolve(Some(&moment("2026-11-23")), Some(&moment("2026-11-21")), &berlin, now).is_err());
    }

    #[test]
    fn hours_of_a_clock_change_are_told_apart_by_their_offset() {
        let keys = keys("2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z", Dimension::Hour, "Europe/Berlin");
        let expected = [
            "2026-10-25T01:00:00+02:00",
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T03:00:00+01:00",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn days_and_months_follow_the_zone() {
        let days = keys("2026-03-27T23:00:00Z", "2026-03-29T22:00:00Z", Dimension::Day, "Europe/Berlin");
        assert_eq!(days, ["2026-03-28", "2026-03-29"]);
        let months = keys("2026-01-31T12:00:00Z", "2026-03-01T12:00:00Z", Dimension::Month, "Asia/Kathmandu");
        assert_eq!(months, ["2026-01", "2026-02", "2026-03"]);
        let hours = keys("2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z", Dimension::Hour, "Asia/Kathmandu");
        assert_eq!(hours, ["2026-01-01T05:00:00+05:45", "2026-01-01T06:00:00+05:45"]);
        // Lord Howe Island moves its clocks by half an hour.
        let half = keys("2026-04-04T14:30:00Z", "2026-04-04T16:30:00Z", Dimension::Hour, "Australia/Lord_Howe");
        let expected = ["2026-04-05T01:00:00+11:00", "2026-04-05T01:00:00+10:30", "2026-04-05T02:00:00+10:30"];
        assert_eq!(half, expected);
    }
}
