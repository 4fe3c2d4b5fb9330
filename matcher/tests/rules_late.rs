//! The rules for hits that come late, twice, or without saying which conversion they mean, one test per rule.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use schemas::{
    EventBody, Reason,
    event::{Adjust, Name},
    outcome::{HitOutcome, Status},
    status::State,
    time::{DAY_MS, MINUTE_MS},
};
use support::{
    ACCOUNTS, HitStep, Log, NameStep, Step, own_click,
    play::{DEPOSITS, SALES, SIGNUPS, alias, hit, in_state, last, own, result, start, status},
};

fn deposit(earning: i64) -> HitStep {
    HitStep { earning: Some(earning), tid: Some(0), ..own(DEPOSITS) }
}

fn stated(state: State, step: HitStep) -> HitStep {
    HitStep { state: Some(state), ..step }
}

fn by_hand(log: &mut Log, hit: &HitOutcome, state: Option<State>, earning: Option<&str>) {
    log.push(EventBody::Adjust(Adjust {
        account: ACCOUNTS[0].to_owned(),
        conversion: hit.goals[0].conversion.as_ref().unwrap().id.to_string(),
        on: Name::Click(own_click(0)),
        state,
        earning: earning.map(|e| e.parse().unwrap()),
        value: None,
        reason: "by hand".to_owned(),
        by: "k1".to_owned(),
    }));
    assert_eq!(last(log).adjust.as_ref().unwrap().outcome, Status::Updated);
}

#[test]
fn once_goal_of_a_label_without_a_player_counts_every_hit_subject_to_the_repeat_window() {
    let mut log = start();
    let lead = hit(NameStep::Label, SIGNUPS);
    assert_eq!(log.hit(lead.clone()).outcome, Status::Converted);
    log.pass(9 * MINUTE_MS);
    assert_eq!(log.hit(lead.clone()).outcome, Status::Duplicate);
    log.pass(2 * MINUTE_MS);
    assert_eq!(log.hit(lead.clone()).outcome, Status::Converted, "another visitor of the campaign");
    for (tid, expected) in [(0, Status::Converted), (1, Status::Converted), (0, Status::Duplicate)] {
        assert_eq!(log.hit(HitStep { tid: Some(tid), ..lead.clone() }).outcome, expected, "told by the transaction");
    }
    for (player, expected) in [(0, Status::Converted), (0, Status::Duplicate)] {
        log.pass(DAY_MS);
        assert_eq!(log.hit(HitStep { player: Some(player), ..lead.clone() }).outcome, expected, "once per player");
    }
    assert_eq!(in_state(&log, State::Approved).0, 5);
}

#[test]
fn unmapped_status_beside_other_money_changes_no_existing_conversion() {
    let mut log = start();
    log.click(0, None);
    log.hit(deposit(50));
    let unmapped = log.hit(HitStep { unmapped: true, ..deposit(70) });
    assert_eq!(result(&unmapped), (Status::Duplicate, Some(Reason::UnmappedStatus)));
    assert_eq!(in_state(&log, State::Approved), (1, "50.00".to_owned()));
}

#[test]
fn without_tid_a_status_that_is_older_than_the_pending_one_is_about_another_conversion() {
    let mut log = start();
    log.click(0, None).pass(DAY_MS);
    let at = |state, earning, ago| HitStep { ts_ago_ms: Some(ago), tid: None, ..stated(state, deposit(earning)) };
    log.hit(at(State::Pending, 50, 0));
    assert_eq!(log.hit(at(State::Approved, 70, MINUTE_MS)).outcome, Status::Converted);
    assert_eq!(in_state(&log, State::Pending), (1, "50.00".to_owned()));
    assert_eq!(in_state(&log, State::Approved), (1, "70.00".to_owned()));
}

#[test]
fn chargeback_entry_is_no_conversion_that_a_status_alone_could_mean() {
    let mut log = start();
    log.click(0, None);
    let sale = HitStep { earning: Some(50), ..own(SALES) };
    log.hit(sale.clone());
    log.hit(HitStep { earning: Some(-20), ..sale });
    assert_eq!(log.hit(status(State::Rejected)).outcome, Status::Updated);
    assert_eq!(in_state(&log, State::Rejected), (1, "50.00".to_owned()));
    assert_eq!(in_state(&log, State::Approved), (0, "-20.00".to_owned()));
}

#[test]
fn rejection_does_not_wait_for_a_chargeback_entry() {
    let mut log = start();
    log.click(0, None);
    let rejection = log.hit(status(State::Rejected));
    log.hit(HitStep { earning: Some(-20), ..own(SALES) });
    assert_eq!(last(&log).hits.len(), 1);
    log.hit(HitStep { earning: Some(50), ..own(SALES) });
    let woken = &last(&log).hits[1];
    assert_eq!((woken.hit.id, woken.outcome), (rejection.hit.id, Status::Updated));
}

#[test]
fn older_statement_replaces_neither_state_nor_money() {
    let mut log = start();
    log.click(0, None).pass(10 * DAY_MS);
    log.hit(HitStep { ts_ago_ms: Some(DAY_MS), ..stated(State::Approved, deposit(70)) });
    let late = HitStep { ts_ago_ms: Some(3 * DAY_MS), value: Some(50), ..stated(State::Pending, deposit(50)) };
    let added = log.hit(late.clone());
    let conversion = added.goals[0].conversion.as_ref().unwrap();
    assert_eq!(conversion.earning.unwrap().to_string(), "70.00");
    assert_eq!(conversion.value.unwrap().to_string(), "50.00", "what is missing is added");
    assert_eq!(log.hit(HitStep { value: Some(70), ..late }).outcome, Status::Duplicate);
}

#[test]
fn late_retry_of_the_pending_one_does_not_undo_the_approval_or_its_money() {
    let mut log = start();
    log.click(0, None);
    log.hit(stated(State::Pending, deposit(50)));
    log.hit(stated(State::Approved, deposit(70)));
    assert_eq!(log.hit(stated(State::Pending, deposit(50))).outcome, Status::Duplicate);
    assert_eq!(in_state(&log, State::Approved), (1, "70.00".to_owned()));
    assert_eq!(log.hit(stated(State::Pending, deposit(-20))).outcome, Status::Updated, "chargebacks have no order");
    assert_eq!(in_state(&log, State::Approved), (1, "50.00".to_owned()));
}

#[test]
fn approval_that_comes_after_a_waiting_rejection_and_its_conversion_counts() {
    let mut log = start();
    log.click(0, None);
    log.hit(status(State::Rejected));
    log.hit(deposit(50));
    assert_eq!(in_state(&log, State::Rejected).0, 1);
    assert_eq!(log.hit(deposit(50)).outcome, Status::Duplicate, "a repeat without a status says nothing about it");
    assert_eq!(log.hit(stated(State::Approved, deposit(50))).outcome, Status::Updated);
    assert_eq!((in_state(&log, State::Rejected).0, in_state(&log, State::Approved).0), (0, 1));
}

#[test]
fn re_click_does_not_double_a_players_once_goal_whatever_its_transaction() {
    let mut log = start();
    log.click(0, Some(0));
    let signup = |tid| HitStep { player: Some(0), tid: Some(tid), ..alias(SIGNUPS) };
    log.hit(signup(0));
    log.pass(MINUTE_MS);
    log.click(1, Some(0));
    assert_eq!(result(&log.hit(signup(1))), (Status::Duplicate, Some(Reason::OtherTransaction)));
    assert_eq!(in_state(&log, State::Approved).0, 1);
}

#[test]
fn state_that_was_refused_makes_no_repeat_of_the_sender_undo_the_hand() {
    let approved = stated(State::Approved, HitStep { tid: Some(0), ..own(SIGNUPS) });
    for (what, tid) in [("another transaction", 1), ("pending after approved", 0)] {
        let mut log = start();
        log.click(0, None);
        let made = log.hit(approved.clone());
        by_hand(&mut log, &made, Some(State::Pending), None);
        let refused = log.hit(HitStep { tid: Some(tid), ..stated(State::Pending, approved.clone()) });
        assert_eq!(refused.outcome, Status::Duplicate, "{what}");
        assert_eq!(log.hit(approved.clone()).outcome, Status::Duplicate, "{what}");
        assert_eq!(in_state(&log, State::Pending).0, 1, "{what}");
    }
}

#[test]
fn money_that_was_refused_makes_no_repeat_of_the_sender_undo_the_hand() {
    let approved = stated(State::Approved, deposit(70));
    let other_currency = HitStep { usd: true, ..stated(State::Rejected, deposit(50)) };
    let late_retry = HitStep { value: Some(50), ..stated(State::Pending, deposit(50)) };
    for (what, refused) in [("another currency", other_currency), ("a late retry", late_retry)] {
        let mut log = start();
        log.click(0, None);
        let made = log.hit(HitStep { value: refused.usd.then_some(50), ..approved.clone() });
        by_hand(&mut log, &made, None, Some("50"));
        let changed = log.hit(refused);
        assert_eq!(changed.outcome, Status::Updated, "{what}: something else in it is news");
        let last_word = changed.goals[0].conversion.as_ref().unwrap().state;
        assert_eq!(log.hit(stated(last_word, approved.clone())).outcome, Status::Duplicate, "{what}");
        assert_eq!(in_state(&log, last_word), (1, "50.00".to_owned()), "{what}");
    }
}

#[test]
fn one_alias_names_200_clicks_and_forgets_the_oldest_without_a_conversion() {
    let mut log = start();
    log.click(0, Some(0));
    log.hit(alias(SIGNUPS));
    for number in 1..=200 {
        log.pass(MINUTE_MS);
        log.click(number, Some(0));
    }
    let first = log.hit(alias(SIGNUPS));
    assert_eq!((first.outcome, first.click.unwrap().id), (Status::Duplicate, own_click(0)), "a converted click stays");
    let named = log.state.names.get(&matcher::state::Key::of("t1", ACCOUNTS[0], &Name::Alias("x".to_owned()))).unwrap();
    assert_eq!(named.clicks.len(), schemas::bounds::CLICKS_PER_ALIAS);
    assert!(named.clicks.iter().all(|c| c.id != own_click(1)));
}

#[test]
fn a_ts_before_the_click_is_corrected_to_the_receipt_and_said() {
    let mut log = start();
    log.click(0, None);
    let early = log.hit(HitStep { ts_ago_ms: Some(3 * DAY_MS), ..own(SIGNUPS) });
    assert_eq!(early.corrections[0].code, "time_before_click");
    assert_eq!(early.goals[0].conversion.as_ref().unwrap().time, early.hit.time);
}

#[test]
fn the_last_16_meanings_of_a_conversion_are_remembered() {
    let mut log = start();
    log.click(0, None);
    let pending = |cents: i64| HitStep { state: Some(State::Pending), earning: Some(cents), ..own(DEPOSITS) };
    log.hit(pending(1));
    assert_eq!(log.hit(pending(1)).outcome, Status::Duplicate);
    let entry = log.state.clicks.get(&own_click(0)).unwrap().ledger.entries[0].clone();
    assert!(entry.seen.len() <= schemas::bounds::SEEN_PER_CONVERSION && !entry.seen.is_empty());
}

#[test]
fn unconverted_clicks_leave_the_state_at_look_back_and_waiting_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = start();
    log.click(0, Some(0)).click(1, None);
    log.hit(hit(NameStep::Own(1), SIGNUPS));
    let position = |next| schemas::chain::Position { next, chain: schemas::chain::Chain::FIRST };
    let is_kept = |log: &mut Log, number: usize| {
        let (_, mut writer, _, _) = matcher::store::open(dir.path()).unwrap();
        writer.save(&matcher::store::Dirty::take(&mut log.state, position(log.events.len() as u64))).unwrap();
        let (mut reader, _, mut state, _) = matcher::store::open(dir.path()).unwrap();
        let mut asking = Log::of(&[Step::Hit(hit(NameStep::Own(number), SIGNUPS))]);
        reader.load(&mut state, &asking.events.remove(1).1).unwrap();
        state.clicks.get(&own_click(number)).is_some()
    };
    assert!(is_kept(&mut log, 0) && is_kept(&mut log, 1));
    for _ in 0..38 {
        log.tick_after(DAY_MS);
    }
    assert!(!is_kept(&mut log, 0), "30 days of look-back and 7 of waiting are over");
    assert!(is_kept(&mut log, 1), "a converted click stays");
    assert_eq!(result(&log.hit(own(SIGNUPS))), (Status::Rejected, Some(Reason::ExpiredClick)));
}
