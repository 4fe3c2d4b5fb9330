//! `GET /c/{link}`: the redirect, what is recorded of a click, and what a visitor never sees.

use reqwest::Method;
use serde_json::json;
use system_tests::{Answer, Link, Server};

async fn link_to(server: &Server, destination: &str) -> Link {
    let account = server.create_account(json!({})).await;
    server.create_link(&account, destination).await
}

#[tokio::test]
async fn the_redirect_keeps_query_and_fragment_and_adds_the_programs_parameter() {
    let server = Server::start();
    let link = link_to(&server, "https://casino.example/a?x=1&empty=&x=2#frag").await;
    let answer = server.open_link(&link, "dyn=d1").await.expect(302);
    let id = answer.header("x-clickback-click").unwrap();
    let location = answer.header("location").unwrap();
    assert_eq!(location, format!("https://casino.example/a?x=1&empty=&x=2&click_id={id}#frag"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(id.len(), 26);
    answer.receipt();
}

#[tokio::test]
async fn templates_in_the_destination_are_replaced_and_percent_encoded() {
    let server = Server::start();
    let link = link_to(&server, "https://casino.example/{sub1}?visit={click_id}&d={dyn}&none={sub2}").await;
    let click = server.follow_link(&link, "dyn=a%26b&sub1=x%20y").await;
    let expected = format!("https://casino.example/x%20y?visit={}&d=a%26b&none=", click.id);
    assert_eq!(click.location.as_str(), expected, "nothing is appended beside {{click_id}}");
}

#[tokio::test]
async fn a_parameter_that_the_destination_has_is_set_and_not_repeated() {
    let server = Server::start();
    let link = link_to(&server, "https://casino.example/?click_id=old&x=1").await;
    let click = server.follow_link(&link, "").await;
    let named: Vec<_> = click.location.query_pairs().filter(|(n, _)| n == "click_id").collect();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].1, click.id.as_str());
}

#[tokio::test]
async fn head_shows_the_destination_and_counts_nothing() {
    let server = Server::start();
    let link = link_to(&server, "https://casino.example/a?x=1").await;
    let url = format!("{}/c/{}", server.ingest, link.id);
    let head = Answer::of(server.http.head(url)).await.expect(302);
    assert_eq!(head.header("location"), Some("https://casino.example/a?x=1"));
    assert!(head.headers.keys().all(|name| !name.as_str().starts_with("x-clickback")));
    server.follow_link(&link, "").await;
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["clicks"], 1);
}

#[tokio::test]
async fn an_unknown_link_is_404_and_an_archived_one_goes_on_working() {
    let server = Server::start();
    let (_, link) = server.account_with_link(json!({})).await;
    server.patch(&format!("/v1/links/{}", link.id), &json!({ "archived": true })).await;
    server.follow_link(&link, "").await;
    let unknown = Link { id: "nosuchlink".to_owned(), url: String::new() };
    server.open_link(&unknown, "").await.expect(404);
}

#[tokio::test]
async fn values_that_are_empty_too_long_or_macros_are_absent_and_noted_on_the_click() {
    let server = Server::start();
    let (_, link) = server.account_with_link(json!({})).await;
    let long = "x".repeat(256);
    let click = server.follow_link(&link, &format!("dyn=%7Bclickid%7D&sub1=&sub2={long}&sub3=kept")).await;
    let journey = server.latest(&format!("/v1/clicks/{}", click.id)).await;
    let recorded = &journey["click"];
    assert!(recorded["dyn"].is_null() && recorded["sub1"].is_null() && recorded["sub2"].is_null(), "{recorded}");
    assert_eq!(recorded["sub3"], "kept");
    let flags = recorded["flags"].to_string();
    assert!(flags.contains("dyn_dropped") && flags.contains("sub2_dropped"), "{flags}");
}

#[tokio::test]
async fn flagged_clicks_are_counted_only_with_bots_include() {
    let server = Server::start();
    let (_, link) = server.account_with_link(json!({})).await;
    let url = format!("{}/c/{}", server.ingest, link.id);
    let plain = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    for (agent, purpose) in [(plain, ""), ("Googlebot/2.1 (+http://www.google.com/bot.html)", ""), (plain, "prefetch")]
    {
        let mut request = server.http.get(&url).header("user-agent", agent);
        if !purpose.is_empty() {
            request = request.header("sec-purpose", purpose);
        }
        Answer::of(request).await.expect(302);
    }
    assert_eq!(server.conversions_report("").await["totals"]["clicks"], 1);
    assert_eq!(server.conversions_report("bots=include").await["totals"]["clicks"], 3);
}

#[tokio::test]
async fn redirects_go_to_stored_destinations_only() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    for destination in ["javascript:alert(1)", "/relative", "ftp://x.example/", "https://", "data:text/html,x"] {
        let body = json!({ "name": "Bad", "destination": destination });
        let path = format!("/v1/accounts/{}/links", account.id);
        server.refused(Method::POST, &path, Some(&body), 400).await;
    }
    let link = server.create_link(&account, "https://casino.example/").await;
    let click = server.follow_link(&link, "url=https://evil.example&destination=https://evil.example").await;
    assert_eq!(click.location.host_str(), Some("casino.example"));
}

#[tokio::test]
async fn the_click_parameter_is_the_accounts_else_the_programs_and_may_be_in_the_path() {
    let server = Server::start();
    let account = server.create_account(json!({ "program": "income-access", "click_param": "subid" })).await;
    let link = server.create_link(&account, "https://casino.example/").await;
    let click = server.follow_link(&link, "").await;
    assert_eq!(click.landing("subid"), Some(click.id.clone()));
    assert_eq!(click.landing("c"), None);

    let program = json!({ "id": "in-path", "name": "In the path", "click_param": "p", "click_in": "path" });
    server.post("/v1/programs", &program).await;
    let account = server.create_account(json!({ "program": "in-path" })).await;
    let link = server.create_link(&account, "https://casino.example/go?x=1").await;
    let click = server.follow_link(&link, "").await;
    assert!(click.location.path().contains(&click.id), "{}", click.location);
    assert_eq!(click.location.query(), Some("x=1"));
}
