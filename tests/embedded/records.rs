//! What stands in the log of a busy folder: every record fits its published schema, and the chain holds.

use std::{collections::BTreeMap, path::Path};

use schemas::chain::Chain;
use serde_json::{Value, json};
use system_tests::{Folder, Server};

fn validator(name: &str) -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../schemas/json-schema/{name}.json"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn check(validator: &jsonschema::Validator, payload: &[u8]) -> Value {
    let record: Value = serde_json::from_slice(payload).unwrap();
    let problems: Vec<String> = validator.iter_errors(&record).map(|e| format!("{}: {e}", e.instance_path)).collect();
    assert!(problems.is_empty(), "{problems:#?}\n{record:#}");
    record
}

struct Block {
    first: i64,
    count: i64,
    prev: String,
    chain: String,
    events: Vec<u8>,
    outcomes: Vec<u8>,
}

fn blocks(folder: &Folder) -> Vec<Block> {
    let log = rusqlite::Connection::open(folder.data().join("log.db")).unwrap();
    let mut statement =
        log.prepare("select first, count, prev, chain, events, outcomes from blocks order by first").unwrap();
    let rows = statement.query_map([], |row| {
        Ok(Block {
            first: row.get(0)?,
            count: row.get(1)?,
            prev: row.get(2)?,
            chain: row.get(3)?,
            events: row.get(4)?,
            outcomes: row.get(5)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect()
}

async fn busy_folder() -> Folder {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({ "goals": [{ "name": "kyc" }] })).await;
    let click = server.follow_link(&link, "dyn=a&sub1=x").await;
    for rest in [
        "signups=1",
        "signups=1",
        "deposits=3&earning=1.5&tid=1",
        "status=pending&tid=9",
        "status=approved&tid=9",
        "event=vip",
        "test=1&signups=1",
        "earning=-2&deposits=1&tid=1",
    ] {
        server.postback(&account, &format!("clickId={}&{rest}", click.id)).await.expect(200);
    }
    server.postback(&account, "dyn=early&signups=1&earning=x").await.expect(200);
    server.follow_link(&link, "dyn=early").await;
    server.postback(&account, "clickId=%7Bmacro%7D&signups=1").await.expect(200);
    server.post("/v1/clicks", &json!({ "clicks": [{ "account": account.id, "id": "f1" }] })).await;
    let conversion =
        server.latest("/v1/conversions?goal=deposits").await["items"][0]["id"].as_str().unwrap().to_owned();
    server.post(&format!("/v1/conversions/{conversion}/adjust"), &json!({ "state": "rejected", "reason": "r" })).await;
    server.change_account(&account, json!({ "goals": [{ "name": "kyc" }, { "name": "vip" }] })).await;
    let path = format!("/v1/accounts/{}/reprocess", account.id);
    let job = server.post(&path, &json!({ "from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z" })).await;
    let path = format!("{path}/{}", job["id"].as_str().unwrap());
    while server.get(&path).await["state"] != "done" {
        tokio::task::yield_now().await;
    }
    server.conversions_report("").await;
    server.stop()
}

#[tokio::test]
async fn every_record_fits_its_published_schema_and_the_chain_holds() {
    let folder = busy_folder().await;
    let (events, outcomes) = (validator("event"), validator("outcome"));
    let (mut next, mut chain) = (0, Chain::FIRST);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for block in blocks(&folder) {
        assert_eq!((block.first, block.prev.as_str()), (next, chain.as_str()));
        let (event_lines, outcome_lines) = (lines(&block.events), lines(&block.outcomes));
        assert_eq!(
            (event_lines.len() as i64, outcome_lines.len() as i64),
            (block.count, block.count),
            "one outcome per event"
        );
        for (event, payload) in event_lines.into_iter().zip(outcome_lines) {
            let event = check(&events, event);
            let outcome = check(&outcomes, payload);
            assert_eq!((&event["id"], &event["tenant"]), (&outcome["id"], &outcome["tenant"]));
            *kinds.entry(outcome["kind"].as_str().unwrap().to_owned()).or_default() += 1;
            chain = chain.next(payload);
            next += 1;
        }
        assert_eq!(block.chain, chain.as_str());
    }
    for kind in ["click", "hit", "adjust", "reprocess"] {
        assert!(kinds.contains_key(kind), "{kinds:?}");
    }
}

#[tokio::test]
async fn every_catalog_record_fits_its_published_schema_and_holds_no_secret() {
    let server = Server::start();
    let hmac = json!({ "algorithm": "sha256", "in": "query", "name": "s", "over": "query", "encoding": "hex", "secret": "very-secret" });
    let (account, _) = server.account_with_link(json!({ "hmac": hmac })).await;
    let key =
        server.post("/v1/keys", &json!({ "name": "k", "scope": "read" })).await["key"].as_str().unwrap().to_owned();
    server.post("/v1/programs", &json!({ "id": "own", "name": "Own", "click_param": "x" })).await;
    let folder = server.stop();
    let log = rusqlite::Connection::open(folder.data().join("log.db")).unwrap();
    let mut statement = log.prepare("select record from catalog order by seq").unwrap();
    let records: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let catalog = validator("catalog");
    assert!(records.len() >= 4);
    for record in &records {
        let text = check(&catalog, record).to_string();
        for secret in [account.token.as_str(), "very-secret", key.as_str()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    // Nor does any file of the folder.
    for entry in std::fs::read_dir(folder.data()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [account.token.as_str(), "very-secret", key.as_str()] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()));
        }
    }
}

/// `clickback.outcomes` alone is enough for a warehouse: the sum of all changes is the report.
#[tokio::test]
async fn the_sum_of_all_changes_is_the_report() {
    let folder = busy_folder().await;
    let mut earning = BTreeMap::<String, schemas::Amount>::new();
    let mut counts = BTreeMap::<(String, String), i64>::new();
    for block in blocks(&folder) {
        for payload in lines(&block.outcomes) {
            let outcome: schemas::Outcome = serde_json::from_slice(payload).unwrap();
            for change in outcome.changes {
                *counts.entry((change.goal, change.state.code().to_owned())).or_default() += change.count;
                let sum = earning.entry(change.state.code().to_owned()).or_default();
                *sum = sum.plus(change.earning.unwrap_or_default()).unwrap();
            }
        }
    }
    let server = Server::start_on(&folder);
    let report = server.conversions_report("group_by=goal,state").await;
    let mut reported = BTreeMap::new();
    let mut money = BTreeMap::new();
    for row in report["rows"].as_array().unwrap() {
        let (goal, state) = (row["goal"].as_str().unwrap().to_owned(), row["state"].as_str().unwrap().to_owned());
        reported.insert((goal, state.clone()), row["conversions"][&state].as_i64().unwrap());
        for sum in row["earnings"].as_array().unwrap() {
            let amount: schemas::Amount = sum["amount"].as_str().unwrap().parse().unwrap();
            let entry: &mut schemas::Amount = money.entry(state.clone()).or_default();
            *entry = entry.plus(amount).unwrap();
        }
    }
    counts.retain(|_, n| *n != 0);
    reported.retain(|_, n| *n != 0);
    earning.retain(|_, a| !a.is_zero());
    money.retain(|_, a| !a.is_zero());
    assert_eq!((reported, money), (counts, earning));
}
