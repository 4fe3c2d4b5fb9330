//! What a restart on the same folder keeps, and what its flags change.

use serde_json::json;
use system_tests::{Account, Answer, Server, Setup};

#[tokio::test]
async fn forwarded_addresses_are_believed_only_from_trusted_proxies() {
    let folder = system_tests::Folder::new();
    let call = async |server: &Server, account: &Account| {
        let url = format!("{}/post-back/{}?dyn=a&signups=1", server.ingest, account.token);
        Answer::of(server.http.get(url).header("X-Forwarded-For", "198.51.100.7")).await.status
    };
    let server = Server::start_on(&folder);
    let account = server.create_account(json!({ "allow": ["198.51.100.0/24"] })).await;
    assert_eq!(call(&server, &account).await, 403);
    server.stop();
    let args = vec!["--trusted-proxy".to_owned(), "127.0.0.0/8".to_owned()];
    let server = Server::start_with(&folder, Setup { args, ..Setup::default() });
    assert_eq!(call(&server, &account).await, 200);
}

#[tokio::test]
async fn an_idempotency_key_outlives_the_process() {
    let server = Server::start();
    let send = async |server: &Server| {
        let body = json!({ "name": "Once", "program": "generic" });
        let request = server.http.post(format!("{}/v1/accounts", server.api)).bearer_auth(&server.key);
        Answer::of(request.header("Idempotency-Key", "k1").json(&body)).await.expect(201).json()
    };
    let first = send(&server).await;
    let folder = server.stop();
    let server = Server::start_on(&folder);
    assert_eq!(send(&server).await["id"], first["id"]);
}
