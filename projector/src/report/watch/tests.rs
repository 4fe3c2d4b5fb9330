use proptest::prelude::*;
use schemas::{EventId, time::DAY_MS};

use super::*;
use crate::report::GoalRow;

const NOW: Time = Time::from_ms(1_800_000_000_000);

/// `minutes` ago.
fn hit(minutes: i64, outcome: Status, reason: Option<Reason>) -> PostbackRow {
    let time = NOW.plus_ms(-minutes * MINUTE_MS);
    PostbackRow {
        hit: EventId::new(time, 0, minutes as u64),
        time,
        account: "acc".into(),
        method: "GET".into(),
        raw: String::new(),
        body: None,
        remote: None,
        outcome,
        reason,
        hint: reason.map(|reason| format!("do something about {}", reason.code())),
        partial: false,
        corrections: Vec::new(),
        click: Some(format!("click-{minutes}")),
        waiting_until: None,
        goals: Vec::new(),
        since_click_ms: None,
    }
}

fn good(minutes: i64) -> PostbackRow {
    hit(minutes, Status::Converted, None)
}

fn lost(minutes: i64) -> PostbackRow {
    hit(minutes, Status::Rejected, Some(Reason::UnreplacedMacro))
}

fn of(hits: &[PostbackRow], clicks: i64) -> AccountHealth {
    let figures = Figures { hits, more: false, from: NOW.plus_ms(-30 * DAY_MS), now: NOW, clicks };
    watch(&figures, AsOf::default())
}

fn codes(health: &AccountHealth) -> Vec<&str> {
    health.problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn a_quiet_new_account_is_new_and_one_with_visitors_misses_its_first_postback() {
    assert_eq!(of(&[], 99).status, HealthStatus::New);
    let missing = of(&[], 100);
    assert_eq!((missing.status, codes(&missing)), (HealthStatus::Silent, vec!["no_postbacks"]));
    assert_eq!(of(&[good(5), good(10)], 1_000).status, HealthStatus::New);
}

#[test]
fn a_macro_that_broke_is_named_with_its_beginning() {
    let hits: Vec<_> = (0..8).map(lost).chain((8..200).map(good)).collect();
    let health = of(&hits, 0);
    assert_eq!((health.status, codes(&health)), (HealthStatus::Failing, vec!["unreplaced_macro"]));
    let problem = &health.problems[0];
    assert_eq!((problem.percent, problem.usual_percent), (Some(20), Some(0)));
    assert_eq!((problem.since, health.since), (Some(hits[7].time), Some(hits[7].time)));
    assert_eq!(problem.examples, [hits[0].hit, hits[1].hit, hits[2].hit]);
    assert_eq!(problem.fix, "do something about unreplaced_macro");
    assert_eq!(health.last_good_hit, Some(hits[8].time));
}

#[test]
fn what_was_always_so_is_no_problem() {
    let hits: Vec<_> = (0..200).map(|n| if n % 4 == 0 { lost(n) } else { good(n) }).collect();
    let health = of(&hits, 0);
    assert_eq!((health.status, health.habit.percent["unreplaced_macro"]), (HealthStatus::Healthy, 25));
    let ignored: Vec<_> = (0..30).map(|n| hit(n, Status::Rejected, Some(Reason::IgnoredStatus))).collect();
    assert_eq!(of(&ignored, 0).status, HealthStatus::Healthy);
}

#[test]
fn an_account_that_never_had_a_good_hit_is_failing() {
    for count in [3, 8, 10, 200, 1_000] {
        let hits: Vec<_> = (0..count).map(lost).collect();
        let health = of(&hits, 0);
        assert_eq!((health.status, codes(&health)), (HealthStatus::Failing, vec!["unreplaced_macro"]), "{count}");
        assert_eq!(health.since, hits.last().map(|hit| hit.time));
    }
}

#[test]
fn silence_is_measured_by_the_accounts_own_pauses() {
    let every = |minutes: i64, since: i64| (0..50).map(|n| good(since + n * minutes)).collect::<Vec<_>>();
    for (minutes, since, status) in [
        (10, 59, HealthStatus::Healthy),
        (10, 61, HealthStatus::Silent),
        (600, 1_799, HealthStatus::Healthy),
        (600, 1_801, HealthStatus::Silent),
    ] {
        let health = of(&every(minutes, since), 0);
        assert_eq!(health.status, status, "every {minutes} min, the last one {since} min ago");
        assert_eq!(health.habit.pause_s, Some(minutes * 60));
    }
    let mut hits = every(10, 100);
    hits.insert(0, lost(1));
    let health = of(&hits, 0);
    assert_eq!(codes(&health), ["silence"]);
    assert!(health.problems[0].detail.starts_with("A postback came"), "{health:?}");
}

#[test]
fn a_transaction_id_that_names_no_transaction_is_seen() {
    let with_tid = |minutes: i64, tid: &str| {
        let goal = GoalRow {
            goal: "deposits".into(),
            count: 1,
            outcome: Status::Converted,
            reason: None,
            conversion: None,
            state: None,
            earning: None,
            value: None,
            currency: None,
            tid: Some(tid.into()),
            player: None,
            same_as: None,
        };
        PostbackRow { goals: vec![goal], ..good(minutes) }
    };
    let constant: Vec<_> = (0..20).map(|n| with_tid(n, "0")).collect();
    assert_eq!(codes(&of(&constant, 0)), ["constant_tid"]);
    let own: Vec<_> = (0..20).map(|n| with_tid(n, &n.to_string())).collect();
    assert_eq!(of(&own, 0).status, HealthStatus::Healthy);
}

#[test]
fn tests_and_withdrawn_hits_say_nothing() {
    let hits: Vec<_> = (0..40).map(|n| hit(n, Status::Test, Some(Reason::MissingEvent))).collect();
    let health = of(&hits, 0);
    assert_eq!((health.status, health.looked_at.hits), (HealthStatus::New, 40));
}

proptest! {
    #[test]
    fn a_regular_account_is_healthy_at_any_rate(
        minutes in 1i64..500, count in 10usize..300, one_in in 2usize..12, jitter in 0i64..3,
    ) {
        let hits: Vec<_> = (0..count)
            .map(|n| if n % one_in == 1 { lost(n as i64 * minutes) } else { good(n as i64 * minutes + jitter) })
            .collect();
        let health = of(&hits, 10);
        prop_assert_eq!(health.status, HealthStatus::Healthy, "{:?}", health.problems);
    }

    #[test]
    fn any_history_is_answered(outcomes in prop::collection::vec((0usize..7, prop::option::of(0usize..29), 0i64..90), 0..120)) {
        let mut minutes = 0;
        let hits: Vec<_> = outcomes
            .iter()
            .map(|(outcome, reason, pause)| {
                minutes += pause;
                hit(minutes, Status::ALL[*outcome], reason.and_then(|at| Reason::ALL.get(at).copied()))
            })
            .collect();
        let health = of(&hits, 500);
        prop_assert_eq!(health.problems.is_empty(), matches!(health.status, HealthStatus::Healthy | HealthStatus::New));
        for problem in &health.problems {
            prop_assert!(problem.percent.is_none_or(|percent| percent <= 100) && !problem.fix.is_empty());
        }
    }
}
