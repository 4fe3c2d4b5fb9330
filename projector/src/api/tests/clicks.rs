use axum::http::StatusCode;
use serde_json::json;

use super::world::{World, ago};

#[tokio::test]
async fn clicks_are_imported_looked_up_and_counted_once() {
    let world = World::start();
    let account = world.account("a").await;
    let link = world
        .post(&format!("/v1/accounts/{account}/links"), json!({"name": "l", "destination": "https://c.example/"}))
        .await;
    let link = link.body["id"].as_str().unwrap();
    let time = ago(60).to_string();
    let clicks = json!({"clicks": [
        {"account": account, "id": "Foreign-1", "time": time, "dyn": "d1", "sub1": "s1"},
        {"link": link, "id": "Foreign-2", "dyn": "d1"},
    ]});
    let made = world.post("/v1/clicks", clicks.clone()).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    assert_eq!(
        (&made.body["accepted"], &made.body["rejected"], &made.body["receipt"]),
        (&json!(2), &json!([]), &json!("0-1"))
    );

    let receipt = made.body["receipt"].as_str().unwrap();
    let found = world.get(&format!("/v1/clicks?account={account}&id=foreign-1&after={receipt}&wait=10s")).await;
    assert_eq!(found.status, StatusCode::OK, "{}", found.text);
    let click = &found.body["items"][0];
    assert_eq!(found.body["items"].as_array().unwrap().len(), 1, "{}", found.text);
    assert_eq!((&click["foreign"], &click["dyn"], &click["sub1"]), (&json!("Foreign-1"), &json!("d1"), &json!("s1")));
    assert_eq!((&click["time"], &click["account"]), (&json!(time), &json!(account)));
    let by_dyn = world.get(&format!("/v1/clicks?account={account}&dyn=d1")).await;
    assert_eq!(by_dyn.body["items"].as_array().unwrap().len(), 2, "{}", by_dyn.text);

    let again = world.post("/v1/clicks", clicks).await;
    assert_eq!(again.body["accepted"], 2);
    let found = world.get(&format!("/v1/clicks?account={account}&dyn=d1&after=latest&wait=10s")).await;
    assert_eq!(found.body["items"].as_array().unwrap().len(), 2, "idempotent by account and id");

    let own = click["id"].as_str().unwrap();
    let journey = world.get(&format!("/v1/clicks/{own}")).await;
    assert_eq!(
        (&journey.body["click"], &journey.body["hits"], &journey.body["conversions"]),
        (click, &json!([]), &json!([])),
        "{}",
        journey.text
    );
    assert_eq!(world.get("/v1/clicks/nope").await.status, StatusCode::NOT_FOUND);
    let other = world.key("other", schemas::catalog::Scope::Admin).await;
    assert_eq!(world.get_as(&other, &format!("/v1/clicks/{own}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_foreign_id_is_the_alias_and_a_dyn_beside_it_is_data() {
    let world = World::start();
    let account = world.account("a").await;
    world
        .post("/v1/clicks", json!({"clicks": [{"account": account, "id": "F-1", "dyn": "{macro}", "sub2": ""}]}))
        .await;
    let found = world.get(&format!("/v1/clicks?account={account}&id=F-1&after=latest&wait=10s")).await;
    let click = &found.body["items"][0];
    assert_eq!((&click["dyn"], &click["sub2"]), (&json!(null), &json!(null)));
    assert_eq!(click["flags"], json!(["dyn_dropped", "sub2_dropped"]));
    let view = world.api.catalog.view();
    let input = serde_json::from_value(json!({"account": account, "id": "F-1", "dyn": "D"})).unwrap();
    let draft = crate::api::click_import::draft(&view, "default", ago(0), &input).unwrap();
    let schemas::EventBody::Click(click) = draft.body else { panic!() };
    assert_eq!(
        (click.alias.as_deref(), click.foreign.as_deref(), click.dyn_.as_deref()),
        (Some("f-1"), Some("F-1"), Some("D"))
    );
    assert_eq!(draft.shard, schemas::id::alias_shard("default", &account, "f-1"));
    assert_eq!(click.id.shard(), draft.shard);
}

#[tokio::test]
async fn clicks_that_cannot_be_taken_are_rejected_alone() {
    let world = World::start();
    let account = world.account("a").await;
    let second = world.account("b").await;
    let link = world
        .post(&format!("/v1/accounts/{second}/links"), json!({"name": "l", "destination": "https://c.example/"}))
        .await;
    let link = link.body["id"].as_str().unwrap();
    let own = schemas::ClickId::new(ago(5), 1, 2).to_string();
    let reply = world
        .post(
            "/v1/clicks",
            json!({"clicks": [
                {"id": "x"},
                {"account": "acc_none", "id": "x"},
                {"link": "lnk_none", "id": "x"},
                {"account": account, "link": link, "id": "x"},
                {"account": account},
                {"account": account, "id": " null "},
                {"account": account, "id": "{click_id}"},
                {"account": account, "id": "x".repeat(256)},
                {"account": account, "id": own},
                {"account": account, "id": "x", "time": "yesterday"},
                {"account": account, "id": "x", "time": ago(-11).to_string()},
                {"account": account, "id": "y", "time": ago(-9).to_string()},
            ]}),
        )
        .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.body["accepted"], 1);
    let reasons: Vec<_> = reply.body["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["index"].as_u64().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        reasons,
        [
            (0, "missing_account"),
            (1, "unknown_account"),
            (2, "unknown_link"),
            (3, "wrong_account"),
            (4, "missing_id"),
            (5, "missing_id"),
            (6, "unreplaced_macro"),
            (7, "malformed_id"),
            (8, "own_id"),
            (9, "invalid_time"),
            (10, "future_time"),
        ]
    );
    let none = world.post("/v1/clicks", json!({"clicks": []})).await;
    assert_eq!((&none.body["accepted"], &none.body["receipt"]), (&json!(0), &json!(null)));
    let many: Vec<_> = (0..1_001).map(|n| json!({"account": account, "id": n.to_string()})).collect();
    assert_eq!(world.post("/v1/clicks", json!({"clicks": many})).await.errors(), [("/clicks", "too_many")]);
    assert_eq!(world.post("/v1/clicks", json!({"clicks": many[..1_000]})).await.body["accepted"], 1_000);
    let unknown = json!({"clicks": [{"account": account, "id": "x"}, {"account": account, "idd": "x"}]});
    assert_eq!(world.post("/v1/clicks", unknown).await.errors(), [("/clicks/1/idd", "unknown_field")]);
    assert_eq!(world.post("/v1/clicks", json!({})).await.errors(), [("/clicks", "missing_field")]);
}

#[tokio::test]
async fn a_look_up_needs_an_account_and_one_name() {
    let world = World::start();
    let account = world.account("a").await;
    assert_eq!(world.get("/v1/clicks?id=x").await.errors(), [("?account", "missing_parameter")]);
    assert_eq!(world.get(&format!("/v1/clicks?account={account}")).await.errors(), [("?id", "missing_parameter")]);
    let both = world.get(&format!("/v1/clicks?account={account}&id=x&dyn=y")).await;
    assert_eq!(both.errors(), [("?dyn", "invalid_parameter")]);
    assert_eq!(world.get("/v1/clicks?account=acc_none&id=x").await.status, StatusCode::NOT_FOUND);
}
