use axum::http::StatusCode;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn lists_answer_items_and_cursor_and_never_cap_silently() {
    let world = World::start();
    let mut made = Vec::new();
    for n in 0..7 {
        // No id has a `u`, so none is found by a name.
        made.push(world.account(&format!("blue {n}")).await);
    }
    made.sort();
    let mut seen = Vec::new();
    let mut path = "/v1/accounts?limit=3".to_owned();
    let mut pages = 0;
    loop {
        let page = world.get(&path).await;
        pages += 1;
        let items = page.body["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page.body["cursor"].as_str() {
            Some(cursor) => path = format!("/v1/accounts?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((pages, seen), (3, made));
    for bad in ["0", "1001", "-1", "many"] {
        let reply = world.get(&format!("/v1/accounts?limit={bad}")).await;
        assert_eq!(reply.errors(), [("?limit", "out_of_range")], "{bad}");
    }
    let found = world.get("/v1/accounts?q=BLUE%203").await;
    assert_eq!(found.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn links_are_created_with_their_url_and_listed_and_patched() {
    let world = World::start();
    let account = world.account("a").await;
    let path = format!("/v1/accounts/{account}/links");
    let destination = "https://casino.example/lp?lang=de#top";
    let made = world.post(&path, json!({"name": "l", "destination": destination})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(made.body["url"], format!("https://go.example/c/{id}"));
    assert_eq!((&made.body["destination"], &made.body["dyn"]), (&json!(destination), &json!("click")));
    assert_eq!(world.get(&path).await.body["items"], json!([made.body]));
    let link = format!("/v1/links/{id}");
    assert_eq!(world.get(&link).await.body, made.body);
    assert_eq!(world.api.catalog.view().link(id).unwrap().record.destination, destination);

    let patched = world.patch(&link, json!({"name": "new", "archived": true, "dyn": "campaign"})).await;
    assert_eq!((&patched.body["name"], &patched.body["dyn"]), (&json!("new"), &json!("campaign")), "{}", patched.text);
    assert_eq!(world.get(&path).await.body["items"], json!([]));
    assert_eq!(world.get(&format!("{path}?archived=true")).await.body["items"], json!([patched.body]));
    assert!(world.api.catalog.view().link(id).is_some(), "archived links go on working");

    world.post("/v1/clicks", json!({"clicks": [{"link": id, "id": "f1"}]})).await;
    assert_eq!(world.patch(&link, json!({"dyn": "click"})).await.code(), "dyn_fixed");
    for bad in ["", "javascript:alert(1)", "ftp://x.example/", "//x.example", "not a url", "https://"] {
        let reply = world.post(&path, json!({"name": "l", "destination": bad})).await;
        assert_eq!((reply.status, reply.errors()[0].0), (StatusCode::BAD_REQUEST, "/destination"), "{bad}");
    }
    assert_eq!(world.post(&path, json!({"destination": destination})).await.errors(), [("/name", "missing_field")]);
}

#[tokio::test]
async fn programs_built_in_and_own_are_equal_citizens() {
    let world = World::start();
    let found = world.get("/v1/programs?q=income%20access").await;
    let item = &found.body["items"][0];
    for field in [
        "id",
        "name",
        "click_param",
        "click_in",
        "click_value",
        "placeholders",
        "statuses",
        "currency",
        "timezone",
        "default_goal",
        "postback",
        "source",
        "verified",
    ] {
        assert!(item.get(field).is_some(), "{field}: {item}");
    }
    assert_eq!(
        (&item["id"], &item["click_param"], &item["built_in"]),
        (&json!("income-access"), &json!("c"), &json!(true))
    );
    assert!(world.get("/v1/programs?limit=1000").await.body["items"].as_array().unwrap().len() >= 30);

    let own = json!({
        "name": "My Program", "click_param": "s2", "placeholders": {"click_id": "#s2#", "amount": "#price#"},
        "statuses": {"1": "approved", "Lead": {"goal": "signups"}}, "currency": "usd", "timezone": "Europe/Malta",
        "default_goal": "signups", "source": "their mail"
    });
    let made = world.post("/v1/programs", own.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!((&made.body["id"], &made.body["built_in"]), (&json!("my-program"), &json!(false)));
    assert_eq!(made.body["statuses"], json!({"1": "approved", "lead": {"goal": "signups"}}));
    assert_eq!(world.get("/v1/programs/my-program").await.body, made.body);
    assert_eq!(world.get("/v1/programs?q=my-program").await.body["items"], json!([made.body]));
    assert_eq!(world.post("/v1/programs", own).await.code(), "already_exists");
    let account = world.post("/v1/accounts", json!({"name": "a", "program": "my-program"})).await;
    assert_eq!((&account.body["currency"], &account.body["click_param"]), (&json!("USD"), &json!("s2")));

    let patched = world
        .patch("/v1/programs/my-program", json!({"click_param": "sub", "currency": null, "statuses": {"1": null}}))
        .await;
    assert_eq!(
        (&patched.body["click_param"], &patched.body["currency"]),
        (&json!("sub"), &Value::Null),
        "{}",
        patched.text
    );
    assert_eq!(patched.body["statuses"], json!({"lead": {"goal": "signups"}}));
    let id = account.body["id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/v1/accounts/{id}")).await.body["click_param"], "sub");

    let copy = world.patch("/v1/programs/income-access", json!({"click_param": "cc"})).await;
    assert_eq!((&copy.body["click_param"], &copy.body["built_in"]), (&json!("cc"), &json!(false)), "{}", copy.text);
    assert_eq!(world.get("/v1/programs?q=income%20access").await.body["items"].as_array().unwrap().len(), 1);
    for (body, pointer, code) in [
        (json!({"name": "x"}), "/click_param", "missing_field"),
        (json!({"name": "x", "click_param": "c", "click_in": "header"}), "/click_in", "invalid_value"),
        (
            json!({"name": "x", "click_param": "c", "placeholders": {"click": "{c}"}}),
            "/placeholders/click",
            "unknown_placeholder",
        ),
        (json!({"name": "x", "click_param": "c", "id": "No Slug"}), "/id", "invalid_id"),
        (json!({"name": "x", "click_param": "c", "curency": "EUR"}), "/curency", "unknown_field"),
    ] {
        assert_eq!(world.post("/v1/programs", body).await.errors(), [(pointer, code)]);
    }
    assert_eq!(world.patch("/v1/programs/my-program", json!({"id": "x"})).await.errors(), [("/id", "read_only_field")]);
}

#[tokio::test]
async fn check_explains_with_the_accounts_settings() {
    let world = World::start();
    let made = world.post("/v1/accounts", json!({"name": "a", "program": "affilka", "goals": [{"name": "vip"}]})).await;
    let (id, base) = (made.body["id"].as_str().unwrap(), made.body["postback_base"].as_str().unwrap());
    let url = format!("{base}?clickId=abc&vip=2&earning=1,50&currency=USD&tid=T");
    let reply = world.post("/v1/check", json!({"url": url, "account": id})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    for (field, value) in [
        ("would", json!("accepted")),
        ("reason", Value::Null),
        ("hint", Value::Null),
        ("click", json!("abc")),
        ("dyn", Value::Null),
        ("goals", json!([{"goal": "vip", "count": 2}])),
        ("earning", json!("1.50")),
        ("currency", json!("USD")),
        ("tid", json!("T")),
    ] {
        assert_eq!(reply.body[field], value, "{field}");
    }
    assert_eq!(reply.body["corrections"].as_array().unwrap().len(), 1);
    let generic = world.post("/v1/check", json!({"url": url})).await;
    assert_eq!((&generic.body["would"], &generic.body["reason"]), (&json!("rejected"), &json!("missing_event")));
    let foreign =
        world.post("/v1/check", json!({"url": "https://x.example/post-back/abc?clickId=1&vip=1", "account": id})).await;
    assert!(foreign.body["findings"].to_string().contains("not this account's"), "{}", foreign.text);
    let landing = world.post("/v1/check", json!({"url": "https://casino.example/?payload=x", "account": id})).await;
    assert_eq!((&landing.body["kind"], &landing.body["would"]), (&json!("link"), &json!("rejected")));
    assert_eq!(world.post("/v1/check", json!({})).await.errors(), [("/url", "missing_field")]);
}

#[tokio::test]
async fn reprocess_is_accepted_and_shows_its_figures() {
    let world = World::start();
    let account = world.account("a").await;
    let path = format!("/v1/accounts/{account}/reprocess");
    let made = world.post(&path, json!({"from": "2026-01-01", "to": "2026-01-31", "dry_run": true})).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    let id = made.body["id"].as_str().unwrap();
    let shown = world.get(&format!("{path}/{id}")).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
    assert!(["running", "done"].contains(&shown.body["state"].as_str().unwrap()));
    assert_eq!((&shown.body["hits"], &shown.body["would_change"]), (&json!(0), &json!(0)));
    assert!(shown.body.get("changed").is_none());
    assert_eq!(
        (&shown.body["from"], &shown.body["to"]),
        (&json!("2026-01-01T00:00:00.000Z"), &json!("2026-02-01T00:00:00.000Z"))
    );
    assert_eq!(world.get(&format!("{path}/rep_none")).await.status, StatusCode::NOT_FOUND);
    for (body, pointer, code) in [
        (json!({"to": "2026-01-31"}), "/from", "missing_field"),
        (json!({"from": "2026-01-31", "to": "2026-01-01"}), "/to", "out_of_range"),
        (json!({"from": "x", "to": "2026-01-01"}), "/from", "invalid_time"),
        (json!({"from": "2026-01-01", "to": "2026-01-02", "dryrun": true}), "/dryrun", "unknown_field"),
    ] {
        assert_eq!(world.post(&path, body).await.errors(), [(pointer, code)]);
    }
}
