//! The one place that reads the wall clock. Pure modules get their time from here, through a record.

use std::time::{SystemTime, UNIX_EPOCH};

use schemas::Time;

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_of_our_days() {
        let year_2024: schemas::Time = "2024-01-01T00:00:00Z".parse().unwrap();
        assert!(super::now() > year_2024);
    }
}
