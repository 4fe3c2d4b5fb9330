//! Which click a hit belongs to, what repeats mean, and what a later hit changes. The rules themselves are shown
//! beside `matcher::decide`; here they are met through the listeners.

use serde_json::{Value, json};
use system_tests::Server;

fn outcome(row: &Value) -> (&str, &str) {
    (row["outcome"].as_str().unwrap(), row["reason"].as_str().unwrap_or(""))
}

#[tokio::test]
async fn a_hit_before_its_click_waits_and_converts_when_the_click_comes() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let early = server.accepted(&account, "dyn=Late-1&signups=1").await;
    let row = server.hit(&early).await;
    assert_eq!(row["outcome"], "waiting");
    assert!(row["waiting_until"].is_string() && row["click"] == "Late-1", "{row}");
    let click = server.follow_link(&link, "dyn=late-1").await;
    let row = server.hit(&early).await;
    assert_eq!((row["outcome"].as_str(), &row["click"]), (Some("converted"), &json!(click.id)));
    assert_eq!(server.conversions_report("").await["totals"]["goals"], json!({ "signups": 1 }));
}

#[tokio::test]
async fn without_waiting_days_an_unknown_name_is_rejected_at_once() {
    let server = Server::start();
    let account = server.create_account(json!({ "waiting_days": 0 })).await;
    let row = server.decided(&account, "dyn=nobody&signups=1").await;
    assert_eq!(outcome(&row), ("rejected", "unknown_click"));
    assert!(row["hint"].as_str().unwrap().len() > 10);
}

#[tokio::test]
async fn a_click_of_another_account_is_wrong_account_and_of_another_tenant_unknown() {
    let server = Server::start();
    let (_, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let other = server.create_account(json!({ "waiting_days": 0 })).await;
    let row = server.decided(&other, &format!("clickId={}&signups=1", click.id)).await;
    assert_eq!(outcome(&row), ("rejected", "wrong_account"));

    let key = server.new_key("other", "admin");
    let body = json!({ "name": "Theirs", "program": "generic", "waiting_days": 0 });
    let theirs = server.call_as(&key, reqwest::Method::POST, "/v1/accounts", Some(&body)).await.expect(201).json();
    let url = format!("{}/post-back/{}", server.ingest, theirs["token"].as_str().unwrap());
    let query = format!("clickId={}&signups=1", click.id);
    let answer = system_tests::Answer::of(server.http.get(format!("{url}?{query}"))).await.expect(200);
    let path = format!("/v1/hits/{}?after={}&wait=20s", answer.hit(), answer.receipt());
    let row = server.call_as(&key, reqwest::Method::GET, &path, None).await.expect(200).json();
    assert_eq!(outcome(&row), ("rejected", "unknown_click"), "{row}");
}

#[tokio::test]
async fn a_re_click_never_doubles_a_conversion() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let first = server.follow_link(&link, "dyn=again").await;
    server.accepted(&account, "dyn=again&signups=1").await;
    let second = server.follow_link(&link, "dyn=again").await;
    let row = server.decided(&account, "dyn=again&signups=1").await;
    assert_eq!((outcome(&row).0, &row["click"]), ("duplicate", &json!(first.id)));
    let row = server.decided(&account, "dyn=again&event=deposit&tid=1").await;
    assert_eq!((outcome(&row).0, &row["click"]), ("converted", &json!(second.id)), "the latest click");
}

#[tokio::test]
async fn a_campaigns_dyn_is_a_label_of_many_clicks() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({ "dyn": "campaign" })).await;
    server.follow_link(&link, "dyn=autumn").await;
    let click = server.follow_link(&link, "dyn=autumn").await;
    let row = server.decided(&account, "dyn=autumn&deposits=1&tid=1&earning=3").await;
    assert_eq!(outcome(&row).0, "converted");
    assert_eq!(row["click"], "autumn", "what the sender named");
    let row = server.decided(&account, &format!("clickId={}&dyn=autumn&deposits=1&tid=2", click.id)).await;
    assert_eq!(row["click"], click.id, "our own id comes first");
    let report = server.conversions_report("group_by=dyn").await;
    let row = &report["rows"][0];
    assert_eq!((row["clicks"].as_i64(), &row["goals"]), (Some(2), &json!({ "deposits": 2 })), "{report}");
}

#[tokio::test]
async fn once_is_once_per_click_and_per_player() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let send = async |rest: &str| server.decided(&account, &format!("clickId={}&{rest}", click.id)).await;
    assert_eq!(outcome(&send("signups=1&tid=a").await).0, "converted");
    assert_eq!(outcome(&send("signups=1&tid=a").await), ("duplicate", "duplicate"));
    assert_eq!(outcome(&send("signups=1&tid=b").await), ("duplicate", "other_transaction"));
    assert_eq!(outcome(&send("signups=1&player=p").await).0, "converted");
    assert_eq!(outcome(&send("signups=1&player=p").await).0, "duplicate");
}

#[tokio::test]
async fn a_changed_earning_or_state_updates_and_a_chargeback_is_added() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let send =
        async |rest: &str| server.decided(&account, &format!("clickId={}&event=sale&tid=1&{rest}", click.id)).await;
    assert_eq!(outcome(&send("earning=10&status=pending").await).0, "converted");
    assert_eq!(outcome(&send("earning=12&status=pending").await).0, "updated");
    assert_eq!(outcome(&send("status=approved").await).0, "updated");
    assert_eq!(outcome(&send("status=approved").await).0, "duplicate");
    assert_eq!(outcome(&send("status=pending").await).0, "duplicate", "pending never follows approved");
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["earnings"], json!([{ "currency": "EUR", "state": "approved", "amount": "12.00" }]));
    assert_eq!(outcome(&send("earning=-5").await).0, "updated");
    assert_eq!(outcome(&send("earning=-5").await).0, "duplicate", "once per amount");
    assert_eq!(outcome(&send("earning=12").await).0, "duplicate", "a repeat of the original");
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["earnings"][0]["amount"], "7.00");
    assert_eq!(report["totals"]["goals"], json!({ "sales": 1 }));
    assert_eq!(outcome(&send("status=rejected").await).0, "updated");
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["conversions"], json!({ "pending": 0, "approved": 0, "rejected": 1 }));
    server.folder.assert_audit_is_clean();
}

#[tokio::test]
async fn a_status_without_a_goal_goes_to_the_conversion_that_it_fits() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let send = async |rest: &str| server.decided(&account, &format!("clickId={}&{rest}", click.id)).await;
    let row = send("status=pending&tid=A").await;
    assert_eq!((outcome(&row).0, &row["goals"][0]["goal"]), ("converted", &json!("sales")), "the default goal");
    send("status=pending&tid=B").await;
    assert_eq!(outcome(&send("status=approved").await), ("rejected", "ambiguous_status"));
    let row = send("status=approved&tid=B").await;
    assert_eq!((outcome(&row).0, &row["goals"][0]["tid"]), ("updated", &json!("B")));
    let row = send("status=rejected").await;
    assert_eq!((outcome(&row).0, &row["goals"][0]["tid"]), ("updated", &json!("A")), "the only pending one: {row}");
}

#[tokio::test]
async fn a_rejection_before_its_conversion_waits_for_it() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let early = server.accepted(&account, &format!("clickId={}&status=rejected&tid=9", click.id)).await;
    assert_eq!(server.hit(&early).await["outcome"], "waiting");
    server.accepted(&account, &format!("clickId={}&event=sale&tid=9&earning=4", click.id)).await;
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["conversions"], json!({ "pending": 0, "approved": 0, "rejected": 1 }));
}

#[tokio::test]
async fn an_expired_click_of_ours_is_known_from_its_id() {
    let server = Server::start();
    let account = server.create_account(json!({ "lookback_days": 1 })).await;
    let old = schemas::ClickId::new(schemas::Time::from_ms(1_600_000_000_000), 4, 5);
    let row = server.decided(&account, &format!("clickId={old}&signups=1")).await;
    assert_eq!(outcome(&row), ("rejected", "expired_click"));
}
