//! The rules of matching and deduplication, one test per rule, named by its words.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use schemas::{
    ClickId, EventBody, Reason, Time,
    bounds::{TICK_LEAP_MS, TICK_STEP_MS, WAITING_PER_NAME},
    event::{Adjust, Click, Name},
    goal::Dedup,
    outcome::{Kind, Status},
    status::State,
    time::{DAY_MS, MINUTE_MS},
};
use support::{
    ACCOUNTS, HitStep, NameStep, START, Step, own_click,
    play::{BONUS, DEPOSITS, SALES, SIGNUPS, alias, hit, in_state, last, own, result, start, status},
};

#[test]
fn seed_example_signup_then_first_deposit_and_repeats_change_nothing() {
    let mut log = start();
    log.click(0, None);
    let signup = log.hit(own(SIGNUPS));
    assert_eq!(result(&signup), (Status::Converted, None));
    assert_eq!(signup.click.as_ref().unwrap().id, own_click(0));
    let deposit = log.hit(HitStep { earning: Some(50), tid: Some(0), ..own(DEPOSITS) });
    assert_eq!(deposit.goals[0].conversion.as_ref().unwrap().earning.unwrap().to_string(), "50.00");
    for (again, first) in
        [(own(SIGNUPS), signup), (HitStep { earning: Some(50), tid: Some(0), ..own(DEPOSITS) }, deposit)]
    {
        let repeat = log.hit(again);
        assert_eq!(result(&repeat), (Status::Duplicate, Some(Reason::Duplicate)));
        assert_eq!(repeat.goals[0].same_as, Some(first.hit.id));
        assert!(last(&log).changes.is_empty());
    }
    assert_eq!(in_state(&log, State::Approved), (2, "50.00".to_owned()));
}

#[test]
fn once_is_per_player_where_given() {
    let mut log = start();
    log.click(0, None);
    for (player, expected) in [(Some(0), Status::Converted), (Some(1), Status::Converted), (Some(0), Status::Duplicate)]
    {
        assert_eq!(log.hit(HitStep { player, ..own(SIGNUPS) }).outcome, expected);
    }
}

#[test]
fn once_made_with_one_transaction_and_another_is_other_transaction() {
    let mut log = start();
    log.click(0, None);
    log.hit(HitStep { tid: Some(0), ..own(SIGNUPS) });
    let other = log.hit(HitStep { tid: Some(1), earning: Some(70), ..own(SIGNUPS) });
    assert_eq!(result(&other), (Status::Duplicate, Some(Reason::OtherTransaction)));
    assert!(last(&log).changes.is_empty());
}

#[test]
fn every_counts_every_hit() {
    let mut log = start();
    log.click(0, None);
    assert_eq!(log.hit(own(BONUS)).outcome, Status::Converted);
    assert_eq!(log.hit(own(BONUS)).outcome, Status::Converted);
}

#[test]
fn changed_earning_is_a_signed_change_in_the_bucket_of_the_original() {
    let mut log = start();
    log.click(0, None);
    let first = log.hit(HitStep { earning: Some(50), tid: Some(0), ..own(DEPOSITS) });
    log.pass(3 * DAY_MS);
    let second = log.hit(HitStep { earning: Some(70), tid: Some(0), ..own(DEPOSITS) });
    assert_eq!(second.outcome, Status::Updated);
    let change = &last(&log).changes[0];
    assert_eq!((change.count, change.earning.unwrap().to_string().as_str()), (0, "20.00"));
    assert_eq!(change.time, first.hit.time);
    let absent_is_no_change = log.hit(HitStep { tid: Some(0), ..own(DEPOSITS) });
    assert_eq!(absent_is_no_change.outcome, Status::Duplicate);
}

#[test]
fn chargeback_is_added_once_per_amount_and_a_repeat_of_the_original_is_a_duplicate() {
    let mut log = start();
    log.click(0, None);
    let original = HitStep { earning: Some(50), tid: Some(0), ..own(DEPOSITS) };
    let chargeback = HitStep { earning: Some(-20), tid: Some(0), ..own(DEPOSITS) };
    log.hit(original.clone());
    assert_eq!(log.hit(chargeback.clone()).outcome, Status::Updated);
    assert_eq!(log.hit(chargeback).outcome, Status::Duplicate);
    assert_eq!(log.hit(original).outcome, Status::Duplicate);
    assert_eq!(in_state(&log, State::Approved), (1, "30.00".to_owned()));
}

#[test]
fn chargeback_on_a_new_key_is_an_entry_with_count_0_until_the_original_comes() {
    let mut log = start();
    log.click(0, None);
    log.hit(HitStep { earning: Some(-20), tid: Some(0), ..own(DEPOSITS) });
    assert_eq!(in_state(&log, State::Approved), (0, "-20.00".to_owned()));
    assert_eq!(log.hit(HitStep { earning: Some(50), tid: Some(0), ..own(DEPOSITS) }).outcome, Status::Converted);
    assert_eq!(in_state(&log, State::Approved), (1, "30.00".to_owned()));
}

#[test]
fn money_in_another_currency_moves_whole_or_not_at_all() {
    let mut log = start();
    log.click(0, None);
    log.hit(HitStep { earning: Some(50), value: Some(70), tid: Some(0), ..own(DEPOSITS) });
    let part = log.hit(HitStep { earning: Some(50), usd: true, tid: Some(0), ..own(DEPOSITS) });
    assert_eq!(result(&part), (Status::Duplicate, Some(Reason::InvalidCurrency)));
    let whole = log.hit(HitStep { earning: Some(50), value: Some(70), usd: true, tid: Some(0), ..own(DEPOSITS) });
    assert_eq!(whole.outcome, Status::Updated);
    let counts: Vec<_> = last(&log).changes.iter().map(|c| (c.currency.code(), c.count)).collect();
    assert_eq!(counts, [("EUR", -1), ("USD", 1)]);
}

#[test]
fn pending_never_follows_a_decision_and_an_older_ts_never_replaces_a_newer_one() {
    let mut log = start();
    log.click(0, None).pass(10 * DAY_MS);
    let say = |state, ts_ago_ms| HitStep { state: Some(state), ts_ago_ms, tid: Some(0), ..own(DEPOSITS) };
    assert_eq!(log.hit(say(State::Pending, Some(5 * DAY_MS))).outcome, Status::Converted);
    assert_eq!(log.hit(say(State::Approved, Some(3 * DAY_MS))).outcome, Status::Updated);
    assert_eq!(log.hit(say(State::Pending, Some(DAY_MS))).outcome, Status::Duplicate);
    assert_eq!(log.hit(say(State::Rejected, Some(4 * DAY_MS))).outcome, Status::Duplicate);
    assert_eq!(log.hit(say(State::Rejected, Some(2 * DAY_MS))).outcome, Status::Updated);
    assert_eq!(in_state(&log, State::Rejected).0, 1);
    assert_eq!(in_state(&log, State::Approved).0, 0);
}

#[test]
fn without_tid_an_explicit_status_updates_the_only_pending_one() {
    let mut log = start();
    log.click(0, None);
    log.hit(HitStep { state: Some(State::Pending), earning: Some(50), ..own(DEPOSITS) });
    let approval = HitStep { state: Some(State::Approved), earning: Some(50), ..own(DEPOSITS) };
    assert_eq!(log.hit(approval.clone()).outcome, Status::Updated);
    let repeat = log.hit(approval);
    assert_eq!(repeat.outcome, Status::Duplicate, "a retry of the approval is not a second conversion");
    assert_eq!(in_state(&log, State::Approved), (1, "50.00".to_owned()));
}

#[test]
fn without_tid_the_same_meaning_is_a_duplicate_within_the_repeat_window() {
    let mut log = start();
    log.click(0, None);
    let deposit = HitStep { earning: Some(50), ..own(DEPOSITS) };
    let first = log.hit(deposit.clone());
    log.pass(9 * MINUTE_MS);
    let repeat = log.hit(deposit.clone());
    assert_eq!((repeat.outcome, repeat.goals[0].same_as), (Status::Duplicate, Some(first.hit.id)));
    assert_eq!(log.hit(HitStep { earning: Some(70), ..own(DEPOSITS) }).outcome, Status::Converted);
    log.pass(9 * MINUTE_MS);
    assert_eq!(log.hit(deposit).outcome, Status::Converted, "measured from the last counted one");
}

#[test]
fn without_tid_the_same_ts_is_a_duplicate_for_ever() {
    let mut log = start();
    log.click(0, None).pass(DAY_MS);
    log.hit(HitStep { earning: Some(50), ts_ago_ms: Some(0), ..own(DEPOSITS) });
    log.pass(3 * DAY_MS - 1);
    assert_eq!(
        log.hit(HitStep { earning: Some(50), ts_ago_ms: Some(3 * DAY_MS), ..own(DEPOSITS) }).outcome,
        Status::Duplicate
    );
    assert_eq!(log.hit(HitStep { earning: Some(50), ts_ago_ms: Some(0), ..own(DEPOSITS) }).outcome, Status::Converted);
}

#[test]
fn unmapped_status_makes_pending_and_changes_no_existing_one() {
    let mut log = start();
    log.click(0, None);
    let unmapped = HitStep { unmapped: true, tid: Some(0), ..own(DEPOSITS) };
    assert_eq!(result(&log.hit(unmapped.clone())), (Status::Converted, Some(Reason::UnmappedStatus)));
    assert_eq!(in_state(&log, State::Pending).0, 1);
    log.hit(HitStep { state: Some(State::Approved), unmapped: false, ..unmapped.clone() });
    assert_eq!(result(&log.hit(unmapped)), (Status::Duplicate, Some(Reason::UnmappedStatus)));
    assert_eq!(in_state(&log, State::Approved).0, 1);
}

#[test]
fn status_alone_goes_to_the_only_pending_one_of_the_default_goal_else_to_the_only_one() {
    let mut log = start();
    log.click(0, None);
    log.hit(own(SIGNUPS));
    log.hit(HitStep { state: Some(State::Pending), tid: Some(0), ..own(SALES) });
    assert_eq!(log.hit(status(State::Approved)).goals[0].goal, "sales");
    let several = log.hit(status(State::Rejected));
    assert_eq!(result(&several), (Status::Rejected, Some(Reason::AmbiguousStatus)));
    let by_tid = log.hit(HitStep { tid: Some(0), ..status(State::Rejected) });
    assert_eq!((by_tid.outcome, by_tid.goals[0].goal.as_str()), (Status::Updated, "sales"));
}

#[test]
fn status_alone_without_a_conversion_makes_one_of_the_default_goal() {
    let mut log = start();
    log.click(0, None);
    let made = log.hit(status(State::Pending));
    assert_eq!((made.outcome, made.goals[0].goal.as_str()), (Status::Converted, "sales"));
    assert_eq!(log.hit(status(State::Approved)).outcome, Status::Updated);
    assert_eq!(in_state(&log, State::Approved).0, 1);
}

#[test]
fn a_rejection_waits_for_the_first_conversion_that_it_fits() {
    let mut log = start();
    log.click(0, None);
    let rejection = log.hit(status(State::Rejected));
    assert_eq!(rejection.outcome, Status::Waiting);
    log.hit(own(SIGNUPS));
    let entries: Vec<_> = last(&log).hits.iter().map(|h| (h.hit.id, h.outcome)).collect();
    assert_eq!(entries, [(last(&log).id, Status::Converted), (rejection.hit.id, Status::Updated)]);
    assert_eq!((in_state(&log, State::Approved).0, in_state(&log, State::Rejected).0), (0, 1));
}

#[test]
fn a_rejection_without_a_conversion_expires_as_no_conversion() {
    let mut log = start();
    log.click(0, None);
    let rejection = log.hit(status(State::Rejected));
    for _ in 0..8 {
        log.tick_after(DAY_MS);
    }
    let expired = log.outcomes.iter().flat_map(|o| &o.hits).rfind(|h| h.hit.id == rejection.hit.id).unwrap();
    assert_eq!(result(expired), (Status::Rejected, Some(Reason::NoConversion)));
}

#[test]
fn a_hit_before_its_click_waits_and_is_decided_when_the_click_comes() {
    let mut log = start();
    let early = log.hit(alias(SIGNUPS));
    assert_eq!(early.outcome, Status::Waiting);
    assert_eq!(early.waiting_until, Some(early.hit.time.plus_days(7)));
    log.click(0, Some(0));
    let woken = &last(&log).hits[0];
    assert_eq!((woken.hit.id, woken.outcome), (early.hit.id, Status::Converted));
    assert_eq!(woken.hit.raw, None, "the raw request stands in the record of the hit itself");
}

#[test]
fn a_hit_whose_click_never_comes_expires_as_unknown_click() {
    let mut log = start();
    let early = log.hit(own(SIGNUPS));
    let mut outcomes: Vec<_> = (0..8).map(|_| log.tick_after(DAY_MS)).collect();
    outcomes.retain(|o| !o.hits.is_empty());
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].hits[0].hit.id, early.hit.id);
    assert_eq!(result(&outcomes[0].hits[0]), (Status::Rejected, Some(Reason::UnknownClick)));
    log.click(0, None);
    assert!(last(&log).hits.is_empty());
}

#[test]
fn waiting_days_0_is_not_at_all() {
    let mut log = start();
    let refused = log.hit(HitStep { waiting_days: 0, ..own(SIGNUPS) });
    assert_eq!(result(&refused), (Status::Rejected, Some(Reason::UnknownClick)));
}

#[test]
fn beyond_200_waiting_hits_of_a_name_unknown_click_at_once() {
    let mut log = start();
    for _ in 0..WAITING_PER_NAME {
        assert_eq!(log.hit(own(BONUS)).outcome, Status::Waiting);
    }
    assert_eq!(result(&log.hit(own(BONUS))), (Status::Rejected, Some(Reason::UnknownClick)));
    log.click(0, None);
    assert_eq!(last(&log).hits.len(), WAITING_PER_NAME);
}

#[test]
fn a_re_click_never_doubles_a_conversion() {
    let mut log = start();
    log.click(0, Some(0));
    log.hit(alias(SIGNUPS));
    log.pass(MINUTE_MS);
    log.click(1, Some(0));
    let repeat = log.hit(alias(SIGNUPS));
    assert_eq!((repeat.outcome, repeat.click.unwrap().id), (Status::Duplicate, own_click(0)));
    let other_goal = log.hit(alias(BONUS));
    assert_eq!(other_goal.click.unwrap().id, own_click(1), "else the newest click");
}

#[test]
fn an_alias_click_far_in_the_future_neither_wakes_nor_is_preferred() {
    let mut log = start();
    log.hit(alias(SIGNUPS));
    log.step(&Step::Click { own: 0, account: 0, alias: Some(0), ago_ms: -20 * MINUTE_MS }, |_, d| d);
    assert!(last(&log).hits.is_empty());
    log.click(1, Some(0));
    assert_eq!(last(&log).hits[0].click.as_ref().unwrap().id, own_click(1));
}

#[test]
fn wrong_account_of_this_tenant_and_unknown_of_another() {
    let mut log = start();
    log.click(0, None);
    let other = log.hit(HitStep { account: 1, ..own(SIGNUPS) });
    assert_eq!(result(&other), (Status::Rejected, Some(Reason::WrongAccount)));
    let early = log.hit(HitStep { account: 1, ..hit(NameStep::Own(1), SIGNUPS) });
    assert_eq!(early.outcome, Status::Waiting);
    log.click(1, None);
    assert_eq!(result(&last(&log).hits[0]), (Status::Rejected, Some(Reason::WrongAccount)));

    let (_, mut event) = log.events[2].clone();
    event.tenant = "t2".to_owned();
    (event.n, event.id) = (99, schemas::EventId::new(event.time, 0, 99));
    log.append(event);
    assert_eq!(last(&log).hits[0].outcome, Status::Waiting);
}

#[test]
fn look_back_limits_the_first_conversion_and_lifetime_the_later_ones() {
    let mut log = start();
    log.click(0, None).click(1, None);
    log.hit(own(SIGNUPS));
    log.pass(40 * DAY_MS);
    assert_eq!(log.hit(own(BONUS)).outcome, Status::Converted, "within 60 days of the last conversion");
    let expired = log.hit(hit(NameStep::Own(1), SIGNUPS));
    assert_eq!(result(&expired), (Status::Rejected, Some(Reason::ExpiredClick)));
    let unknown_and_old = log.hit(hit(NameStep::Own(2), SIGNUPS));
    assert_eq!(result(&unknown_and_old), (Status::Rejected, Some(Reason::ExpiredClick)), "its age is read from the id");
    log.pass(61 * DAY_MS);
    assert_eq!(result(&log.hit(own(BONUS))), (Status::Rejected, Some(Reason::ExpiredClick)));
    let change = log.hit(HitStep { earning: Some(50), ..own(SIGNUPS) });
    assert_eq!(change.outcome, Status::Updated, "changes never expire");
}

#[test]
fn a_label_counts_without_a_click_at_conversion_time() {
    let mut log = start();
    let counted = log.hit(hit(NameStep::Label, BONUS));
    assert_eq!((counted.outcome, counted.click, counted.label.as_deref()), (Status::Converted, None, Some("campaign")));
    let change = &last(&log).changes[0];
    assert_eq!((change.click, change.click_time), (None, change.time));
}

#[test]
fn several_goals_of_one_hit_each_have_an_outcome_and_the_best_is_the_hits() {
    let mut log = start();
    log.click(0, None);
    log.hit(own(SIGNUPS));
    let both = log.hit(HitStep { goals: vec![(SIGNUPS, 1), (DEPOSITS, 2)], earning: Some(50), ..own(SALES) });
    let outcomes: Vec<_> = both.goals.iter().map(|g| (g.goal.as_str(), g.count, g.outcome)).collect();
    assert_eq!(outcomes, [("signups", 1, Status::Duplicate), ("deposits", 2, Status::Converted)]);
    assert_eq!(result(&both), (Status::Converted, None));
    assert_eq!(in_state(&log, State::Approved), (3, "50.00".to_owned()));
}

#[test]
fn adjusting_by_hand_is_signed_and_repeats_of_the_sender_do_not_undo_it() {
    let mut log = start();
    log.click(0, None);
    let sent = HitStep { earning: Some(50), state: Some(State::Approved), tid: Some(0), ..own(DEPOSITS) };
    let made = log.hit(sent.clone());
    let adjust = |conversion: String| {
        EventBody::Adjust(Adjust {
            account: ACCOUNTS[0].to_owned(),
            conversion,
            on: Name::Click(own_click(0)),
            state: Some(State::Rejected),
            earning: Some("10".parse().unwrap()),
            value: None,
            reason: "fraud".to_owned(),
            by: "k1".to_owned(),
        })
    };
    log.push(adjust(made.goals[0].conversion.as_ref().unwrap().id.to_string()));
    assert_eq!(last(&log).adjust.as_ref().unwrap().outcome, Status::Updated);
    assert_eq!(log.hit(sent.clone()).outcome, Status::Duplicate);
    assert_eq!((in_state(&log, State::Approved).0, in_state(&log, State::Rejected)), (0, (1, "10.00".to_owned())));
    log.push(adjust("nope".to_owned()));
    assert_eq!(last(&log).reason, Some(Reason::NotFound));
    assert_eq!(log.hit(HitStep { earning: Some(70), ..sent }).outcome, Status::Updated, "news from the sender count");
}

#[test]
fn an_import_whose_foreign_id_already_names_a_click_changes_nothing() {
    let mut log = start();
    let import = |number: u64| {
        let time = Time::from_ms(START);
        EventBody::Click(Click {
            id: ClickId::new(time, 0, 100 + number),
            account: ACCOUNTS[0].to_owned(),
            program: "generic".to_owned(),
            link: None,
            time,
            dyn_: None,
            foreign: Some("X".to_owned()),
            sub1: None,
            sub2: None,
            sub3: None,
            sub4: None,
            sub5: None,
            flags: vec![],
            agent: None,
            referrer: None,
            alias: Some("x".to_owned()),
            lookback_days: 30,
            lifetime_days: 60,
            waiting_days: 7,
        })
    };
    log.push(import(1));
    assert!(last(&log).click.is_some());
    log.push(import(2));
    assert_eq!((last(&log).click.as_ref(), last(&log).reason), (None, Some(Reason::Duplicate)));
}

#[test]
fn log_time_moves_by_ticks_only_in_bounded_steps_and_never_back() {
    let mut log = start();
    assert_eq!(log.state.meta.log_time, Time::from_ms(START));
    log.pass(30 * MINUTE_MS);
    log.click(0, None);
    assert_eq!(log.state.meta.log_time, Time::from_ms(START), "a click is no tick");
    log.tick_after(0);
    assert_eq!(log.state.meta.log_time, Time::from_ms(START + TICK_STEP_MS));
    log.tick_after(5 * DAY_MS);
    assert_eq!(
        log.state.meta.log_time,
        Time::from_ms(START + TICK_STEP_MS + TICK_LEAP_MS),
        "a day, when over an hour behind"
    );
    let before = log.state.meta.log_time;
    log.pass(-20 * DAY_MS);
    log.tick_after(0);
    assert_eq!(log.state.meta.log_time, before);
}

#[test]
fn an_event_of_a_forgotten_run_is_too_late() {
    let mut log = start();
    log.click(0, None);
    let (_, old) = log.events[1].clone();
    for _ in 0..16 {
        log.tick_after(DAY_MS);
    }
    let from = schemas::EventId::new(Time::from_ms(START), 0, 77);
    log.append(schemas::Event { from, n: 5, ..old });
    assert_eq!((last(&log).kind, last(&log).reason), (Kind::Repeat, Some(Reason::TooLate)));
}

#[test]
fn an_unknown_rule_version_is_refused() {
    let log = start();
    let (cause, mut event) = log.events[0].clone();
    event.body = EventBody::Rules(2);
    event.n = 1;
    let error = matcher::decide(&log.state, cause, &event).unwrap_err();
    assert!(error.to_string().contains("rule version 2"));
}

#[test]
fn policies_have_their_words() {
    assert_eq!(
        support::GOALS.map(|(_, d)| d),
        [Dedup::Once, Dedup::PerTransaction, Dedup::PerTransaction, Dedup::Every]
    );
}
