//! Goals, names and times in the shapes that senders give them.

use super::*;

#[test]
fn words_are_compared_by_their_letters() {
    let settings = custom(&[("vip-level", Dedup::Every, &["high_roller"])]);
    for (text, goal) in [
        ("event=First Time Deposit", "firsttimedeposits"),
        ("event=first-time_deposit", "firsttimedeposits"),
        ("goal=FIRST.DEPOSIT", "firsttimedeposits"),
        ("type=Sign-Up", "signups"),
        ("event=Re-Deposit", "deposits"),
        ("event=VIP+Level", "vip-level"),
        ("goal=HighRoller", "vip-level"),
        ("status=First+Dep", "firsttimedeposits"),
    ] {
        let reading = read_with(&format!("dyn=a&{text}"), &settings);
        assert_eq!((reading.reject, goals(&reading)), (None, vec![(goal, 1)]), "{text}");
        assert!(reading.corrections.is_empty(), "{text}");
    }
    for (text, state) in
        [("On+Hold", State::Pending), ("IN-PROGRESS", State::Pending), ("Charge-Back", State::Rejected)]
    {
        let reading = read(&format!("dyn=a&ftd=1&status={text}"));
        assert_eq!((reading.unmapped, reading.state), (false, Some(state)), "{text}");
    }
    for text in ["event=!!!", "event=-", "event=first", "event=depositfirst"] {
        assert!(read(&format!("dyn=a&{text}")).goals.is_empty(), "{text}");
    }
    let long = "first_".repeat(20);
    assert_eq!(read(&format!("dyn=a&event={long}deposit")).reject, Some(Reason::UnknownEvent));
}

#[test]
fn an_exact_word_comes_before_a_similar_one() {
    let mut settings = custom(&[("f.t.d", Dedup::Every, &[]), ("onhold!", Dedup::Every, &[])]);
    assert_eq!(goals(&read_with("dyn=a&event=f.t.d", &settings)), [("f.t.d", 1)]);
    assert_eq!(goals(&read_with("dyn=a&event=ftd", &settings)), [("firsttimedeposits", 1)]);
    Arc::make_mut(&mut settings.statuses).insert("on hold".into(), Meaning::state(State::Approved));
    assert_eq!(read_with("dyn=a&ftd=1&status=on+hold", &settings).state, Some(State::Approved));
    assert_eq!(read_with("dyn=a&ftd=1&status=on_hold", &settings).state, Some(State::Pending));
}

#[test]
fn a_goal_is_found_in_a_parameter_that_speaks_of_it() {
    for (text, goal) in [
        ("registration=1", "signups"),
        ("reg=true", "signups"),
        ("Sign_Up=YES", "signups"),
        ("first_deposit=true", "firsttimedeposits"),
        ("sale=1&order_ref=77", "sales"),
        ("event_name=ftd", "firsttimedeposits"),
        ("eventType=Registration", "signups"),
        ("action=deposit", "deposits"),
        ("conversion_type=sale", "sales"),
        ("cnv_status=lead", "signups"),
        ("et=ftd", "firsttimedeposits"),
        ("goal_name=ftd&first_deposit=1", "firsttimedeposits"),
    ] {
        let reading = read(&format!("dyn=a&{text}"));
        assert_eq!((reading.reject, goals(&reading)), (None, vec![(goal, 1)]), "{text}");
        assert_eq!(codes(&reading)[0], code::GOAL_ELSEWHERE, "{text}");
    }
    let reading = read("dyn=a&reg=1&status=hold");
    assert_eq!((goals(&reading), reading.state), (vec![("signups", 1)], Some(State::Pending)));
}

#[test]
fn no_goal_is_guessed() {
    for text in [
        "lead=12345",
        "sale=99.50",
        "deposit=100",
        "order=1001",
        "source=lead",
        "campaign=deposit",
        "event_id=1",
        "goal_id=7",
        "action=click",
        "registration=1&first_deposit=1",
        "registration=0",
        "event_name={event}",
    ] {
        let reading = read(&format!("dyn=a&{text}"));
        assert_eq!((reading.reject, goals(&reading)), (Some(Reason::MissingEvent), vec![]), "{text}");
    }
    assert_eq!(goals(&read("dyn=a&signups=1&event_name=ftd&sale=1")), [("signups", 1)]);
    assert_eq!(read("dyn=a&event={x}&reg=1").reject, Some(Reason::UnreplacedMacro));
    assert_eq!(read("dyn=a&signups=0&reg=1").reject, Some(Reason::MissingEvent));
}

#[test]
fn json_is_read_one_level_deep() {
    let own = id(1).to_string();
    for body in [
        r#"{"data":{"click_id":"A","event":"ftd","payout":5,"currency":"USD","transaction_id":"t1","player_id":9}}"#,
        r#"{"event":"ftd","data":{"click_id":"A","payout":"5","currency":"USD","tid":"t1","player":9}}"#,
        r#"{"event":{"name":"ftd"},"click":{"id":"A"},"payout":5,"currency":"USD","transaction":{"id":"t1"},"player":{"id":9}}"#,
        r#"{"event":{"code":"FTD"},"click":{"id":"A"},"amount":{"value":5,"currency":"USD"},"order":{"id":"t1"},"user":{"id":9}}"#,
        r#"{"params":{"data":{"x":1}},"data.click_id":"A","data.ftd":true,"data[payout]":5,"currency":"USD","tid":"t1","player":9}"#,
    ] {
        let reading = one(&json(body), &settings());
        assert_eq!((reading.reject, reading.name.clone()), (None, alias("a")), "{body}: {:?}", reading.hint);
        assert_eq!(goals(&reading), [("firsttimedeposits", 1)], "{body}");
        assert_eq!((money(&reading, 0).0, reading.currency), (some("5.00"), Some(Currency::USD)), "{body}");
        assert_eq!((reading.tid.as_deref(), reading.player.as_deref()), (Some("t1"), Some("9")), "{body}");
    }
    let reading = one(&json(&format!(r#"{{"payload":{{"ref":"{own}","signups":1}}}}"#)), &settings());
    assert_eq!((reading.reject, reading.name), (None, Some(Name::Click(id(1)))));
}

#[test]
fn what_stands_outside_comes_first() {
    for body in [
        r#"{"dyn":"a","event":"ftd","user":{"type":"sale","dyn":"b"}}"#,
        r#"{"user":{"event":"sale","dyn":"b"},"dyn":"a","ftd":1}"#,
        r#"{"meta":{"goal":{"deep":"sale"}},"dyn":"a","ftd":1}"#,
        r#"{"user.type":"sale","dyn":"a","ftd":1}"#,
    ] {
        let reading = one(&json(body), &settings());
        assert_eq!((reading.reject, reading.name.clone()), (None, alias("a")), "{body}");
        assert_eq!(goals(&reading), [("firsttimedeposits", 1)], "{body}");
    }
    let raw = RawRequest { query: b"dyn=query", ..json(r#"{"data":{"dyn":"body","signups":1}}"#) };
    assert_eq!(one(&raw, &settings()).name, alias("query"));
    let deep = r#"{"data":{"more":{"dyn":"a","signups":1}}}"#;
    assert_eq!(one(&json(deep), &settings()).reject, Some(Reason::MissingClick));
}

#[test]
fn forms_with_paths_as_names() {
    for text in
        ["data[dyn]=a&data[signups]=1", "p.dyn=a&p.event=reg", "click[id]=x&dyn=a&signups=1", "dyn[]=a&signups[]=1"]
    {
        let reading = read(text);
        assert_eq!((reading.reject, reading.name.clone()), (None, alias("a")), "{text}");
        assert_eq!(goals(&reading), [("signups", 1)], "{text}");
    }
}

#[test]
fn local_times_are_of_the_accounts_zone() {
    let settings = AccountSettings { timezone: "Asia/Kolkata".into(), ..settings() };
    let reading = read_with("dyn=a&ftd=1&ts=2026-11-22+10:00:00", &settings);
    assert_eq!(reading.ts.map(|ts| ts.to_string()).as_deref(), Some("2026-11-22T04:30:00.000Z"));
    assert_eq!(codes(&reading), [code::TIME_LOCAL]);
    assert!(reading.corrections[0].detail.contains("Asia/Kolkata"), "{:?}", reading.corrections);
    let reading = read("dyn=a&ftd=1&ts=2026-11-22");
    assert_eq!((reading.ts, codes(&reading)), (None, vec![code::TIME]));
}

#[test]
fn a_transaction_id_that_says_nothing_is_left_out() {
    for text in [
        "deposits=1&tid=0",
        "deposits=1&tid=000",
        "event=ftd&tid=First-Time-Deposits",
        "status=approved&deposits=1&tid=approved",
    ] {
        let reading = read(&format!("dyn=a&{text}"));
        assert_eq!((reading.reject, reading.tid.clone(), codes(&reading)), (None, None, vec![code::TID]), "{text}");
    }
    for tid in ["1", "10", "0a", "ftd-1", "deposits-17"] {
        assert_eq!(read(&format!("dyn=a&deposits=1&tid={tid}")).tid.as_deref(), Some(tid));
    }
}
