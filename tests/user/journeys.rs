//! Imported clicks, the look-up of a click, its journey, single conversions, and corrections by hand.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::Server;

#[tokio::test]
async fn imported_clicks_are_matched_by_their_foreign_id_and_importing_again_changes_nothing() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    let clicks = json!({ "clicks": [
        { "account": account.id, "id": "Voluum-9a", "time": "2026-11-20T10:00:00Z", "dyn": "data", "sub1": "s" },
        { "account": account.id, "id": "late", "time": "2099-01-01T00:00:00Z" },
        { "account": "nobody", "id": "x" }
    ] });
    let made = server.post("/v1/clicks", &clicks).await;
    assert_eq!(made["accepted"], 1, "{made}");
    let reasons: Vec<_> = made["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["index"].as_u64().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(reasons[0], (1, "future_time"));
    assert_eq!(reasons[1].0, 2);
    assert!(made["receipt"].is_string());

    server.post("/v1/clicks", &clicks).await;
    let found = server.latest(&format!("/v1/clicks?account={}&id=voluum-9A", account.id)).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");

    let row = server.decided(&account, "clickId=Voluum-9a&signups=1").await;
    assert_eq!((&row["outcome"], &row["click"]), (&json!("converted"), &found["items"][0]["id"]), "{row}");
    let report = server.conversions_report("from=2026-11-20&to=2026-11-20").await;
    assert_eq!(report["totals"]["clicks"], 1, "at the click's own time: {report}");
    assert_eq!(report["totals"]["goals"], json!({ "signups": 1 }));
}

#[tokio::test]
async fn clicks_are_looked_up_by_dyn() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let first = server.follow_link(&link, "dyn=Abc").await;
    server.follow_link(&link, "dyn=other").await;
    let found = server.latest(&format!("/v1/clicks?account={}&dyn=abc", account.id)).await;
    let ids: Vec<_> = found["items"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [first.id]);
}

#[tokio::test]
async fn the_journey_shows_click_hits_and_conversions_with_every_change() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "dyn=j&sub1=a").await;
    let send = async |rest: &str| server.accepted(&account, &format!("clickId={}&{rest}", click.id)).await;
    send("event=sale&tid=1&earning=10&status=pending").await;
    send("event=sale&tid=1&status=approved").await;
    send("event=sale&tid=1&status=approved").await;
    let journey = server.latest(&format!("/v1/clicks/{}", click.id)).await;
    assert_eq!((&journey["click"]["id"], &journey["click"]["sub1"]), (&json!(click.id), &json!("a")));
    let outcomes: Vec<_> = journey["hits"].as_array().unwrap().iter().map(|h| h["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.contains(&"converted") && outcomes.contains(&"updated") && outcomes.contains(&"duplicate"));
    let conversions = journey["conversions"].as_array().unwrap();
    assert_eq!((conversions.len(), &conversions[0]["state"]), (1, &json!("approved")));
    assert_eq!(conversions[0]["changes"].as_array().unwrap().len(), 2, "{conversions:#?}");
}

#[tokio::test]
async fn conversions_are_filtered_read_and_adjusted_by_hand() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    for (tid, player) in [("t1", "p1"), ("t2", "p2")] {
        server
            .accepted(&account, &format!("clickId={}&event=deposit&tid={tid}&player={player}&earning=10", click.id))
            .await;
    }
    let all = server.latest("/v1/conversions").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
    let one = server.latest("/v1/conversions?tid=t1&goal=deposits&state=approved&player=p1").await["items"][0].clone();
    assert_eq!(one["tid"], "t1");
    let path = format!("/v1/conversions/{}", one["id"].as_str().unwrap());

    let adjusted = server
        .call(Method::POST, &format!("{path}/adjust"), Some(&json!({ "state": "rejected", "reason": "Self-excluded" })))
        .await;
    assert!((200..300).contains(&adjusted.status), "{}", adjusted.text());
    let read = server.latest(&path).await;
    assert_eq!((&read["state"], &read["version"]), (&json!("rejected"), &json!(2)), "{read}");
    let changes = read["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2);
    assert!(changes.iter().any(|c| c.to_string().contains("Self-excluded")), "{changes:#?}");

    server.post(&format!("{path}/adjust"), &json!({ "earning": "7.5", "state": "approved", "reason": "Agreed" })).await;
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["earnings"], json!([{ "currency": "EUR", "state": "approved", "amount": "17.50" }]));
    // A repeat of the sender's own words changes nothing.
    let row =
        server.decided(&account, &format!("clickId={}&event=deposit&tid=t1&player=p1&earning=10", click.id)).await;
    assert_eq!(row["outcome"], "duplicate");

    server
        .refused(
            Method::POST,
            "/v1/conversions/nosuch/adjust",
            Some(&json!({ "state": "approved", "reason": "x" })),
            404,
        )
        .await;
    let empty = server.refused(Method::POST, &format!("{path}/adjust"), Some(&json!({ "reason": "x" })), 400).await;
    assert_ne!(empty["errors"], Value::Null);
    server.folder.assert_audit_is_clean();
}
