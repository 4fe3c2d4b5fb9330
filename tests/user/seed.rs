//! The example that the product is made for, from link to report, as a person would go through it.

use serde_json::json;
use system_tests::Server;

#[tokio::test]
async fn an_income_access_account_from_link_to_report() {
    let server = Server::start();
    let account = server.create_account(json!({ "name": "Casino North", "program": "income-access" })).await;
    assert!(account.json["postback_base"].as_str().unwrap().ends_with(&format!("/post-back/{}", account.token)));

    let urls = server.get(&format!("/v1/accounts/{}/postback-urls", account.id)).await;
    assert_eq!((urls["supported"].as_bool(), urls["mode"].as_str()), (Some(true), Some("per_goal")));
    let signup = urls["urls"][0]["url"].as_str().unwrap();
    assert_eq!(urls["urls"][0]["goal"], "signups");
    assert!(signup.contains(&account.token) && signup.contains("{c}") && signup.contains("signups=1"), "{signup}");

    let link = server.create_link(&account, "https://casino.example/welcome?btag=a_101&lang=en#top").await;
    let click = server.follow_link(&link, "sub1=newsletter").await;
    assert_eq!(click.landing("c").as_deref(), Some(click.id.as_str()));
    assert_eq!(click.landing("btag").as_deref(), Some("a_101"));
    assert_eq!(click.location.fragment(), Some("top"));

    // The operator puts the id in the place of its placeholder and calls both URLs.
    server.accepted(&account, &format!("dyn={}&signups=1", click.id)).await;
    server.accepted(&account, &format!("clickId={}&earning=50&firsttimedeposits=1", click.id)).await;

    let postbacks = server.postbacks_report("").await;
    let rows = postbacks["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|r| r["outcome"] == "converted" && r["click"] == click.id), "{rows:#?}");
    assert_eq!(rows[0]["goals"][0]["earning"], "50.00");

    let before = server.conversions_report("group_by=link").await;
    let row = &before["rows"][0];
    assert_eq!(row["link"], link.id);
    assert_eq!(row["clicks"], 1);
    assert_eq!(row["goals"], json!({ "signups": 1, "firsttimedeposits": 1 }));
    assert_eq!(row["conversions"], json!({ "pending": 0, "approved": 2, "rejected": 0 }));
    assert_eq!(row["earnings"], json!([{ "currency": "EUR", "state": "approved", "amount": "50.00" }]));
    assert_eq!(row["epc"], json!([{ "currency": "EUR", "amount": "50.00" }]));
    for rate in ["click_to_signup", "signup_to_ftd", "click_to_ftd"] {
        let rate = row["rates"][rate].as_str().unwrap();
        assert_eq!(rate.parse::<f64>().unwrap(), 1.0, "{rate}");
    }

    // Sent again, they are duplicates and change nothing.
    for query in [format!("dyn={}&signups=1", click.id), format!("clickId={}&earning=50&firsttimedeposits=1", click.id)]
    {
        let again = server.decided(&account, &query).await;
        assert_eq!((&again["outcome"], &again["reason"]), (&json!("duplicate"), &json!("duplicate")));
        assert!(again["goals"][0]["same_as"].is_string());
    }
    let after = server.conversions_report("group_by=link").await;
    assert_eq!(after["rows"], before["rows"]);
    assert_eq!(after["totals"], before["totals"]);
    server.folder.assert_audit_is_clean();
}

/// `accepted → in the report within a second`: without any waiting parameter, the report follows by itself.
#[tokio::test]
async fn the_report_follows_within_a_second() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let receipt = server.accepted(&account, &format!("clickId={}&signups=1", click.id)).await.receipt();
    let report = server.get(&format!("/v1/reports/postbacks?after={receipt}&wait=1s")).await;
    assert_eq!(report["rows"][0]["outcome"], "converted");
}
