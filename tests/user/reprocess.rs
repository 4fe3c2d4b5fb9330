//! `reprocess`: the result equals having had the settings from the start.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Account, Server};

/// Asks until the job is done; every answer is one look at its progress.
async fn done(server: &Server, account: &Account, body: Value) -> Value {
    let path = format!("/v1/accounts/{}/reprocess", account.id);
    let started = server.call(Method::POST, &path, Some(&body)).await.expect(202).json();
    let path = format!("{path}/{}", started["id"].as_str().unwrap());
    let job = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let job = server.get(&path).await;
            if job["state"] == "done" {
                return job;
            }
            tokio::task::yield_now().await;
        }
    });
    job.await.expect("the job ends")
}

async fn send_all(server: &Server, account: &Account, link: &system_tests::Link) -> Vec<String> {
    let click = server.follow_link(link, "dyn=a").await;
    let mut hits = Vec::new();
    for rest in [
        "event=kyc",
        "event=kyc&player=p",
        "status=7&tid=1&earning=5",
        "status=7&tid=2&earning=6",
        "event=sale&tid=3&earning=1",
    ] {
        hits.push(server.postback(account, &format!("clickId={}&{rest}", click.id)).await.expect(200).hit());
    }
    hits
}

#[tokio::test]
async fn hits_are_read_again_with_todays_settings() {
    let server = Server::start();
    let settings =
        json!({ "goals": [{ "name": "kyc" }], "statuses": { "7": { "goal": "deposits", "state": "approved" } } });
    let (before, link) = server.account_with_link(json!({})).await;
    let hits = send_all(&server, &before, &link).await;
    let (from_the_start, link) = server.account_with_link(settings.clone()).await;
    send_all(&server, &from_the_start, &link).await;
    let expected = server.conversions_report(&format!("account={}", from_the_start.id)).await["totals"].clone();

    server.change_account(&before, settings).await;
    let range = json!({ "from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z" });
    let mut dry = range.clone();
    dry["dry_run"] = json!(true);
    let job = done(&server, &before, dry).await;
    assert!(job["would_change"].as_u64().unwrap() > 0, "{job}");
    let untouched = server.conversions_report(&format!("account={}", before.id)).await["totals"].clone();
    assert_ne!(untouched, expected, "a dry run changes nothing");

    let job = done(&server, &before, range.clone()).await;
    assert_eq!(job["hits"], 5, "{job}");
    assert!(job["changed"].as_u64().unwrap() > 0 && job["receipt"].is_string(), "{job}");
    let report = server.conversions_report(&format!("account={}", before.id)).await["totals"].clone();
    assert_eq!(report, expected);
    let row = server.latest(&format!("/v1/hits/{}", hits[0])).await;
    assert_eq!(row["outcome"], "converted");

    let again = done(&server, &before, range).await;
    assert_eq!(again["changed"], 0, "a second time changes nothing: {again}");
    server.folder.assert_audit_is_clean();
}

#[tokio::test]
async fn what_no_longer_holds_is_withdrawn_and_hand_adjustments_stay() {
    let server = Server::start();
    let settings = json!({ "goals": [{ "name": "kyc" }, { "name": "vip" }] });
    let (account, link) = server.account_with_link(settings).await;
    let click = server.follow_link(&link, "").await;
    let gone = server.accepted(&account, &format!("clickId={}&event=vip", click.id)).await;
    server.accepted(&account, &format!("clickId={}&event=kyc&earning=5", click.id)).await;
    let kyc = server.latest("/v1/conversions?goal=kyc").await["items"][0]["id"].as_str().unwrap().to_owned();
    server.post(&format!("/v1/conversions/{kyc}/adjust"), &json!({ "earning": "9", "reason": "Agreed" })).await;
    server.latest("/v1/conversions").await;

    server.change_account(&account, json!({ "goals": [{ "name": "kyc" }] })).await;
    done(&server, &account, json!({ "from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z" })).await;
    assert_eq!(server.hit(&gone).await["outcome"], "withdrawn");
    let totals = server.conversions_report("").await["totals"].clone();
    assert_eq!(totals["goals"], json!({ "kyc": 1 }));
    assert_eq!(totals["earnings"][0]["amount"], "9.00");
    server.folder.assert_audit_is_clean();
}

/// Clicks that share an alias, hits by that alias and by an own id, and a second run over a part of the hits only.
#[tokio::test]
async fn histories_of_aliases_keep_what_an_earlier_run_has_read() {
    let server = Server::start();
    let settings = json!({ "goals": [{ "name": "kyc" }, { "name": "vip" }] });
    let send = async |account: &Account, link: &system_tests::Link| {
        let first = server.follow_link(link, "dyn=Shared").await;
        let mut hits = vec![server.postback(account, "dyn=shared&event=kyc").await.expect(200).hit()];
        server.follow_link(link, "dyn=SHARED").await;
        for rest in ["dyn=Shared&event=kyc&player=b", "dyn=shared&event=vip&tid=1&earning=3"] {
            hits.push(server.postback(account, rest).await.expect(200).hit());
        }
        let own = format!("clickId={}&event=vip&tid=2&earning=4", first.id);
        hits.push(server.postback(account, &own).await.expect(200).hit());
        hits
    };
    let (from_the_start, link) = server.account_with_link(settings.clone()).await;
    send(&from_the_start, &link).await;
    let expected = server.conversions_report(&format!("account={}", from_the_start.id)).await["totals"].clone();

    let (before, link) = server.account_with_link(json!({})).await;
    let hits = send(&before, &link).await;
    server.change_account(&before, settings).await;
    let all = json!({ "from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z" });
    let job = done(&server, &before, all).await;
    assert_eq!((&job["hits"], &job["problems"]), (&json!(4), &json!([])), "{job}");
    let totals = server.conversions_report(&format!("account={}", before.id)).await["totals"].clone();
    assert_eq!(totals, expected);

    // Only the last hits are read again; the others keep what the first run read.
    let last = server.latest(&format!("/v1/hits/{}", hits[3])).await["time"].clone();
    let part = json!({ "from": last, "to": "2099-01-01T00:00:00Z" });
    let job = done(&server, &before, part).await;
    // Hits of one millisecond are in the range together.
    assert!((1..4).contains(&job["hits"].as_u64().unwrap()), "{job}");
    assert_eq!((&job["changed"], &job["problems"]), (&json!(0), &json!([])), "{job}");
    let totals = server.conversions_report(&format!("account={}", before.id)).await["totals"].clone();
    assert_eq!(totals, expected);
    server.folder.assert_audit_is_clean();
}

#[tokio::test]
async fn labels_are_read_again_and_what_is_void_leaves_their_cells() {
    let server = Server::start();
    let settings = json!({ "dyn": "campaign", "goals": [{ "name": "kyc" }] });
    let (account, link) = server.account_with_link(settings).await;
    server.follow_link(&link, "dyn=summer").await;
    server.accepted(&account, "dyn=summer&event=kyc&player=a&earning=5").await;
    server.accepted(&account, "dyn=summer&event=kyc&player=b&earning=6").await;
    let report = server.conversions_report("group_by=dyn").await;
    assert_eq!(report["rows"][0]["goals"], json!({ "kyc": 2 }), "{report}");
    server.change_account(&account, json!({ "goals": [] })).await;
    let all = json!({ "from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z" });
    let job = done(&server, &account, all).await;
    assert_eq!((&job["hits"], &job["changed"], &job["problems"]), (&json!(2), &json!(2), &json!([])), "{job}");
    let report = server.conversions_report("group_by=dyn").await;
    assert_eq!((&report["rows"][0]["clicks"], &report["rows"][0]["goals"]), (&json!(1), &json!({})), "{report}");
    server.folder.assert_audit_is_clean();
}
