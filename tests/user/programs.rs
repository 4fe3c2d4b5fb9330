//! The catalogue of programs: built-in ones and the tenant's own are equal citizens.

use reqwest::Method;
use serde_json::json;
use system_tests::Server;

#[tokio::test]
async fn the_catalogue_is_searched_by_name_and_id() {
    let server = Server::start();
    let all = server.get("/v1/programs?limit=1000").await["items"].as_array().unwrap().clone();
    assert!(all.len() >= 30, "{}", all.len());
    for program in &all {
        for field in [
            "id",
            "name",
            "click_param",
            "click_in",
            "click_value",
            "placeholders",
            "statuses",
            "postback",
            "source",
            "verified",
        ] {
            assert!(!program[field].is_null(), "{field} of {program}");
        }
    }
    let found = server.get("/v1/programs?q=income").await;
    assert!(found["items"].as_array().unwrap().iter().any(|p| p["id"] == "income-access"), "{found}");
    assert_eq!(server.get("/v1/programs/generic").await["click_param"], "click_id");
}

#[tokio::test]
async fn a_program_of_ones_own_is_made_changed_and_used() {
    let server = Server::start();
    let program = json!({ "id": "my-network", "name": "My network", "click_param": "visit", "placeholders": { "click_id": "{visit}" }, "currency": "USD", "statuses": { "1": { "goal": "signups" } } });
    server.post("/v1/programs", &program).await;
    server.refused(Method::POST, "/v1/programs", Some(&program), 409).await;
    let account = server.create_account(json!({ "program": "my-network" })).await;
    let link = server.create_link(&account, "https://x.example/").await;
    let click = server.follow_link(&link, "").await;
    assert_eq!(click.landing("visit"), Some(click.id.clone()));
    let row = server.decided(&account, &format!("clickId={}&status=1", click.id)).await;
    assert_eq!((&row["goals"][0]["goal"], &row["goals"][0]["currency"]), (&json!("signups"), &json!("USD")), "{row}");

    server.patch("/v1/programs/my-network", &json!({ "click_param": "v2" })).await;
    let click = server.follow_link(&link, "").await;
    assert_eq!(click.landing("v2"), Some(click.id.clone()), "a changed program holds for its accounts");
}
