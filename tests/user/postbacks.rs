//! How a postback is read, over the wire: names, goals, statuses, money, encodings. The finer rules are shown beside
//! `schemas::interpret`.

use serde_json::{Value, json};
use system_tests::{Account, Click, Server};

struct Stage {
    server: Server,
    account: Account,
    click: Click,
}

impl Stage {
    async fn set(settings: Value) -> Stage {
        let server = Server::start();
        let (account, link) = server.account_with_link(settings).await;
        let click = server.follow_link(&link, "dyn=d1").await;
        Stage { server, account, click }
    }

    /// Status of the answer and reason, for a query in which `ID` is the click id.
    async fn reason(&self, query: &str) -> String {
        let query = query.replace("ID", &self.click.id);
        let answer = self.server.postback(&self.account, &query).await.expect(200).json();
        answer["reason"].as_str().unwrap_or("accepted").to_owned()
    }

    async fn decided(&self, query: &str) -> Value {
        self.server.decided(&self.account, &query.replace("ID", &self.click.id)).await
    }
}

#[tokio::test]
async fn reasons_that_ingest_gives() {
    let stage = Stage::set(json!({})).await;
    let other = schemas::ClickId::new(schemas::Time::from_ms(1_700_000_000_000), 1, 2);
    let many: String = (0..201).map(|n| format!("&p{n}=1")).collect();
    let cases = [
        ("clickId=ID&signups=1", "accepted"),
        ("CLICKID=ID&SIGNUPS=1", "accepted"),
        ("signups=1", "missing_click"),
        ("clickId=&dyn=null&signups=1", "missing_click"),
        ("clickId=%7Bclick_id%7D&signups=1", "unreplaced_macro"),
        ("dyn=%25%25CLICK%25%25&signups=1", "unreplaced_macro"),
        ("dyn=%25%25CLICK_ID%25%25&signups=1", "accepted"),
        (&format!("clickId=ID&dyn={other}&signups=1"), "ambiguous_click"),
        (&format!("clickId={}&signups=1", "x".repeat(256)), "malformed_click"),
        ("clickId=a%00b&signups=1", "malformed_click"),
        ("clickId=ID", "missing_event"),
        ("clickId=ID&signups=0", "missing_event"),
        ("clickId=ID&event=nonsense", "unknown_event"),
        ("clickId=ID&signups=1&event=deposit", "ambiguous_event"),
        ("clickId=ID&deposits=101", "invalid_count"),
        ("clickId=ID&deposits=many", "invalid_count"),
        ("clickId=ID&status=nonsense", "unmapped_status"),
        ("clickId=%ff%fe&signups=1", "invalid_encoding"),
        (&format!("clickId=ID&signups=1{many}"), "too_many_parameters"),
    ];
    for (query, expected) in cases {
        assert_eq!(stage.reason(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn our_own_id_is_found_in_any_parameter() {
    let stage = Stage::set(json!({})).await;
    for name in ["clickId", "dyn", "subid", "cnv_id", "aff_sub", "whatever"] {
        let row = stage.decided(&format!("{name}=ID&event=deposit&tid=t-{name}")).await;
        assert_eq!((&row["outcome"], &row["click"]), (&json!("converted"), &json!(stage.click.id)), "{name}: {row}");
    }
    let upper = stage.click.id.to_uppercase();
    let row = stage.decided(&format!("clickId=%20{upper}%20&event=deposit&tid=upper")).await;
    assert_eq!(row["outcome"], "converted", "{row}");
}

#[tokio::test]
async fn several_counts_are_several_goals_and_money_belongs_to_the_deepest() {
    let stage = Stage::set(json!({})).await;
    let row = stage.decided("clickId=ID&signups=1&deposits=3&earning=30&value=100&tid=t").await;
    let goals = row["goals"].as_array().unwrap();
    assert_eq!(goals.len(), 2);
    assert_eq!((&goals[0]["goal"], &goals[0]["earning"]), (&json!("signups"), &Value::Null));
    assert_eq!((&goals[1]["goal"], &goals[1]["count"]), (&json!("deposits"), &json!(3)));
    assert_eq!((&goals[1]["earning"], &goals[1]["value"]), (&json!("30.00"), &json!("100.00")));
    let report = stage.server.conversions_report("").await;
    assert_eq!(report["totals"]["goals"], json!({ "signups": 1, "deposits": 3 }));
}

#[tokio::test]
async fn money_is_read_where_that_is_unambiguous_and_left_out_where_not() {
    let stage = Stage::set(json!({})).await;
    let cases = [
        ("earning=12.5", json!("12.50"), "EUR", Value::Null),
        ("payout=12,50", json!("12.50"), "EUR", Value::Null),
        ("earning=7&currency=usd", json!("7.00"), "USD", Value::Null),
        ("earning=0.00000001&currency=BTC", json!("0.00000001"), "BTC", Value::Null),
        ("commission=9&sum=8", json!("9.00"), "EUR", Value::Null),
        ("earning=abc", Value::Null, "EUR", json!("invalid_amount")),
        ("earning=5&currency=XXQ", Value::Null, "EUR", json!("invalid_currency")),
    ];
    for (index, (query, earning, currency, reason)) in cases.into_iter().enumerate() {
        let row = stage.decided(&format!("clickId=ID&event=deposit&tid=m{index}&{query}")).await;
        let goal = &row["goals"][0];
        assert_eq!(row["outcome"], "converted", "{query}: {row}");
        assert_eq!((&goal["earning"], goal["currency"].as_str()), (&earning, Some(currency)), "{query}");
        assert_eq!(goal["reason"], reason, "{query}");
    }
    let rows = stage.server.conversions_report("group_by=currency").await["rows"].as_array().unwrap().clone();
    let currencies: Vec<_> = rows.iter().map(|r| r["currency"].as_str().unwrap()).collect();
    assert_eq!(currencies.len(), 3, "{currencies:?}");
}

#[tokio::test]
async fn corrections_are_listed() {
    let stage = Stage::set(json!({})).await;
    let row = stage.decided("clickId=%20ID%20&signups=1&earning=12,50%20%E2%82%AC").await;
    assert_eq!(row["outcome"], "converted");
    assert!(row["corrections"].as_array().unwrap().len() >= 2, "{row}");
    assert!(row["corrections"].as_array().unwrap().iter().all(|c| c["code"].is_string() && c["detail"].is_string()));
}

#[tokio::test]
async fn forms_json_and_queries_say_the_same() {
    let stage = Stage::set(json!({})).await;
    let id = &stage.click.id;
    let form = "application/x-www-form-urlencoded";
    let send = async |query: &str, kind: &str, body: String| -> Value {
        let answer = stage.server.postback_body(&stage.account, query, kind, body).await.expect(200);
        stage.server.hit(&answer).await
    };
    let by_form = send("", form, format!("clickId={id}&event=deposit&tid=1&earning=5")).await;
    let by_json =
        send("", "application/json", json!({ "clickId": id, "event": "deposit", "tid": 2, "earning": 5 }).to_string())
            .await;
    let query_wins =
        send(&format!("clickId={id}&tid=3"), form, "clickId=other&event=deposit&tid=9&earning=5".to_owned()).await;
    for row in [by_form, by_json, query_wins] {
        assert_eq!((&row["outcome"], &row["goals"][0]["earning"]), (&json!("converted"), &json!("5.00")), "{row}");
    }
    for body in ["{", "[1]", "{\"a\":{\"b\":1}}", "\"text\""] {
        let answer = stage.server.postback_body(&stage.account, "", "application/json", body).await.expect(200).json();
        assert_eq!(answer["status"], "rejected", "{body}");
    }
}

#[tokio::test]
async fn custom_goals_and_status_maps_of_the_account() {
    let settings = json!({
        "goals": [{ "name": "kyc", "dedup": "once", "aliases": ["verified"] }],
        "statuses": { "7": { "state": "approved", "goal": "kyc" }, "8": "ignore", "9": "rejected" }
    });
    let stage = Stage::set(settings).await;
    let row = stage.decided("clickId=ID&event=verified").await;
    assert_eq!(row["goals"][0]["goal"], "kyc");
    assert_eq!(stage.reason("clickId=ID&kyc=1&player=p2").await, "accepted");
    let row = stage.decided("clickId=ID&status=7&player=p3").await;
    assert_eq!((&row["goals"][0]["goal"], &row["goals"][0]["state"]), (&json!("kyc"), &json!("approved")), "{row}");
    let row = stage.decided("clickId=ID&status=8").await;
    assert_eq!((&row["outcome"], &row["reason"]), (&json!("rejected"), &json!("ignored_status")));
    let row = stage.decided("clickId=ID&kyc=1&player=p4&status=what").await;
    assert_eq!((&row["goals"][0]["state"], &row["goals"][0]["reason"]), (&json!("pending"), &json!("unmapped_status")));
}

#[tokio::test]
async fn a_test_hit_is_in_no_report() {
    let stage = Stage::set(json!({})).await;
    let row = stage.decided("clickId=ID&signups=1&test=1").await;
    assert_eq!(row["outcome"], "test");
    let report = stage.server.conversions_report("").await;
    assert_eq!(report["totals"]["goals"], json!({}));
}

/// The token is a secret: it stands in no report.
#[tokio::test]
async fn raw_is_the_query_as_received_and_never_the_token() {
    let stage = Stage::set(json!({})).await;
    let row = stage.decided("clickId=ID&signups=1&odd=%zz&plus=a+b").await;
    assert_eq!(row["raw"], format!("clickId={}&signups=1&odd=%zz&plus=a+b", stage.click.id));
    assert!(!row.to_string().contains(&stage.account.token));
}
