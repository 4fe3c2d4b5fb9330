//! `clickback migrate`: a folder goes into a cluster, and what comes after is decided as the folder would have.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use pipeline::{LogReader, Sealer, catalog::reseal::Open, kafka::Topic};
use reqwest::Method;
use schemas::{
    EventBody, Outcome,
    catalog::Record,
    outcome::{HitOutcome, Kind, Status},
};
use serde_json::{Value, json};
use system_tests::{Account, Answer, Finished, Folder, Link, Role, Server, clickback};

use crate::{
    topics::Books,
    world::{World, given},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Clicks, and so hits, of the bulk.
const CLICKS: usize = 3_000;

/// An account of a folder with everything in it that a migration can get wrong.
struct Story {
    account: Account,
    link: Link,
    click: String,
    waits: String,
    lost: String,
    counted: String,
}

async fn import(server: &Server, account: &Account, from: usize, count: usize) {
    for first in (from..from + count).step_by(1_000) {
        let clicks: Vec<Value> = (first..(first + 1_000).min(from + count))
            .map(|n| json!({ "account": account.id, "id": format!("f{n}"), "sub1": "import" }))
            .collect();
        let answer = server.post("/v1/clicks", &json!({ "clicks": clicks })).await;
        assert_eq!(answer["accepted"], clicks.len(), "{answer}");
    }
}

async fn hits(server: &Server, account: &Account, from: usize, count: usize) {
    for first in (from..from + count).step_by(100) {
        let hits: Vec<Value> = (first..(first + 100).min(from + count))
            .map(|n| json!({ "clickId": format!("f{n}"), "deposits": 1, "tid": format!("t{n}"), "earning": "2.50" }))
            .collect();
        let body = serde_json::to_vec(&hits).unwrap();
        server.postback_body(account, "", "application/json", body).await.expect(200);
    }
}

async fn tell(server: &Server) -> Story {
    let settings = json!({ "goals": [{ "name": "kyc" }], "hmac": null });
    let (account, link) = server.account_with_link(settings).await;
    let click = server.follow_link(&link, "dyn=Anna&sub1=s").await;
    server.accepted(&account, &format!("clickId={}&signups=1&earning=10", click.id)).await;
    let counted = server.accepted(&account, "dyn=anna&deposits=1&tid=7&earning=20&currency=USD").await.hit();
    server.accepted(&account, "dyn=anna&signups=1").await;
    let waits = server.accepted(&account, "dyn=later&firsttimedeposits=1&earning=5").await.hit();
    let lost = server.accepted(&account, "dyn=never&event=kyc").await.hit();
    server.postback(&account, "dyn=anna&event=nonsense").await.expect(200);
    server.accepted(&account, "dyn=anna&status=rejected&tid=unknown").await;

    let (labels, _) = server.account_with_link(json!({ "dyn": "campaign" })).await;
    server.accepted(&labels, "dyn=Autumn&signups=2&player=p").await;
    let row = server.latest(&format!("/v1/conversions?account={}&goal=signups", account.id)).await;
    let id = row["items"][0]["id"].as_str().unwrap();
    let by_hand = json!({ "earning": "11.00", "reason": "agreed" });
    server.post(&format!("/v1/conversions/{id}/adjust"), &by_hand).await;
    reprocess(server, &account).await;
    server.post("/v1/keys", &json!({ "name": "for data", "scope": "read" })).await;
    Story { account, link, click: click.id, waits, lost, counted }
}

/// Read again with a goal that changed, so that something changes.
async fn reprocess(server: &Server, account: &Account) {
    let goals = json!({ "goals": [{ "name": "kyc" }, { "name": "deposits", "dedup": "once" }] });
    server.change_account(account, goals).await;
    let path = format!("/v1/accounts/{}/reprocess", account.id);
    let range = json!({ "from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z" });
    let started = server.call(Method::POST, &path, Some(&range)).await.expect(202).json();
    let path = format!("{path}/{}", started["id"].as_str().unwrap());
    let until = Instant::now() + PATIENCE;
    while server.get(&path).await["state"] != "done" {
        assert!(Instant::now() < until, "the reprocess job does not end");
        tokio::task::yield_now().await;
    }
}

fn args(world: &World, folder: &Folder, key: Option<&str>) -> Vec<String> {
    let data = folder.data().to_str().unwrap().to_owned();
    let args = ["migrate", "--data", &data, "--kafka", &world.kafka, "--topic-prefix", &world.prefix];
    let key = key.map(|key| ["--key-file", key]);
    args.into_iter().chain(key.into_iter().flatten()).map(str::to_owned).collect()
}

fn migrate(world: &World, folder: &Folder, key: Option<&str>) -> Finished {
    let mut args = args(world, folder, key);
    args.extend(["--log-format".to_owned(), "json".to_owned()]);
    clickback(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[track_caller]
fn moved(finished: &Finished) -> Value {
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

fn outcomes(folder: &Folder) -> Vec<Outcome> {
    let log = LogReader::open(&folder.data()).unwrap();
    let (mut all, end) = (Vec::new(), log.position().unwrap().next);
    while (all.len() as u64) < end {
        for block in log.outcome_blocks(all.len() as u64, 1_000_000).unwrap() {
            all.extend(block.outcomes().map(|outcome| serde_json::from_slice::<Outcome>(outcome.unwrap().1).unwrap()));
        }
    }
    all
}

/// The topics come to the same as the folder.
fn assert_same(world: &World, folder: &Folder) {
    let there = world.taken();
    assert_eq!(Books::of(there.iter().flatten()), Books::of(&outcomes(folder)));
    for (partition, outcomes) in there.iter().enumerate() {
        for hit in outcomes.iter().flat_map(|outcome| &outcome.hits) {
            assert_eq!(usize::from(hit.hit.id.shard()) % there.len(), partition, "{hit:?}");
        }
    }
}

/// The catalog of both, with secrets open.
fn assert_same_catalog(world: &World, folder: &Folder, key: &Sealer) {
    let own = Sealer::open(&folder.data()).unwrap().unwrap();
    let log = LogReader::open(&folder.data()).unwrap();
    let expected = log.catalog(0, 10_000).unwrap().into_iter().map(|(_, record)| (record, &own));
    let there = world.all(Topic::Catalog).into_iter().filter(|stored| !stored.is_identity());
    let there: Vec<Record> = there.map(|stored| serde_json::from_slice(&stored.payload).unwrap()).collect();
    let print = |record: Record, key: &Sealer| Open::of(record, key).unwrap().print().unwrap();
    let expected: Vec<_> = expected.map(|(record, key)| print(record, key)).collect();
    assert!(expected.len() > 5);
    assert_eq!(there.into_iter().map(|record| print(record, key)).collect::<Vec<_>>(), expected);
}

struct Edge {
    role: Role,
    token: String,
}

impl Edge {
    async fn post_back(&self, query: &str) -> Answer {
        let url = format!("{}/post-back/{}?{query}", self.role.url("ingest"), self.token);
        Answer::of(self.role.http.get(url)).await.expect(200)
    }
}

fn only_goal(hit: &HitOutcome) -> (&str, Status, u32) {
    let goal = &hit.goals[0];
    (goal.goal.as_str(), goal.outcome, goal.conversion.as_ref().map_or(0, |conversion| conversion.version))
}

/// What comes after in a cluster is decided as it would have been in the folder.
async fn assert_goes_on(world: &World, story: &Story, args: &[&str]) {
    let _matcher = world.matcher("state");
    let edge = Edge { role: world.try_ingest(args).unwrap(), token: story.account.token.clone() };
    // A repeat, by the other name of the click.
    let again = edge.post_back("dyn=ANNA&deposits=1&tid=7&earning=20&currency=USD").await.hit();
    let again = world.decided(&again, 0);
    assert_eq!(only_goal(&again).1, Status::Duplicate);
    assert_eq!(again.goals[0].same_as.map(|hit| hit.to_string()).as_deref(), Some(story.counted.as_str()));
    // A chargeback changes it.
    let back = edge.post_back(&format!("clickId={}&deposits=1&tid=7&earning=-20&currency=USD", story.click)).await;
    let back = world.decided(&back.hit(), 0);
    assert_eq!(only_goal(&back).1, Status::Updated);
    let conversion = back.goals[0].conversion.as_ref().unwrap();
    assert_eq!(conversion.earning.unwrap().to_string(), "0.00");
    // A late goal of a click that came in bulk.
    let late = world.decided(&edge.post_back("clickId=F17&firsttimedeposits=1").await.hit(), 0);
    assert_eq!(only_goal(&late), ("firsttimedeposits", Status::Converted, 1));
    let twice = world.decided(&edge.post_back("clickId=f17&deposits=1&tid=t17&earning=2.50").await.hit(), 0);
    assert_eq!(only_goal(&twice).1, Status::Duplicate);
    // The click that a hit waits for, over the folder's link.
    let id = story.waits.parse().unwrap();
    let known = world.taken().iter().flatten().flat_map(|outcome| &outcome.hits).filter(|hit| hit.hit.id == id).count();
    let url = format!("{}/c/{}?dyn=Later", edge.role.url("ingest"), story.link.id);
    let click = Answer::of(edge.role.http.get(url)).await.expect(302);
    let woken = world.decided(&story.waits, known);
    assert_eq!(only_goal(&woken), ("firsttimedeposits", Status::Converted, 1));
    let id = click.header("x-clickback-click").unwrap();
    assert_eq!(woken.click.map(|click| click.id.to_string()).as_deref(), Some(id));
    let waits = Books::of(world.taken().iter().flatten());
    assert_eq!(waits.hits[&story.lost.parse().unwrap()].outcome, Status::Waiting);
    assert!(edge.role.stop().success());
}

/// Killed while it writes the events, and once before; each time it goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_moved_also_in_three_parts() {
    let Some(world) = World::bare() else { return };
    let folder = Folder::new();
    let server = Server::start_on(&folder);
    let story = tell(&server).await;
    import(&server, &story.account, 0, CLICKS).await;
    hits(&server, &story.account, 0, CLICKS).await;
    server.stop();
    let made = world.init(&["--partitions", "3"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);

    let key = world.key_file();
    let events = LogReader::open(&folder.data()).unwrap().position().unwrap().next as usize;
    for topic in [Topic::Outcomes, Topic::Events] {
        let args = args(&world, &folder, Some(&key));
        let mut command = system_tests::command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + PATIENCE;
        while world.records(topic) < 100 {
            assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "it ended, or wrote nothing");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // On a machine that is busy it may come late, and there is nothing left to go on with; what goes on without a race is
        // shown by the next test.
        let late = world.records(topic) >= events || world.records(Topic::Catalog) > 1;
        let (outcomes, events) = (world.records(Topic::Outcomes), world.records(Topic::Events));
        eprintln!("killed with {outcomes} outcomes, {events} events{}", if late { ": too late" } else { "" });
    }
    let said = moved(&migrate(&world, &folder, Some(&key)));
    assert_eq!(said["events"], events);
    assert_same(&world, &folder);
    assert_same_catalog(&world, &folder, &Sealer::open_file(key.as_ref()).unwrap().unwrap());
    assert_eq!(moved(&migrate(&world, &folder, Some(&key)))["written"], 0, "there is nothing left to do");

    assert_goes_on(&world, &story, &[]).await;
    let refused = migrate(&world, &folder, Some(&key));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is not empty"), "{}", refused.stderr);
}

/// With the folder's own key, and in two parts: a folder that went on is moved on.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_went_on_is_moved_on() {
    let Some(world) = World::bare() else { return };
    let folder = Folder::new();
    let server = Server::start_on(&folder);
    let story = tell(&server).await;
    import(&server, &story.account, 0, 20).await;
    let refused = migrate(&world, &folder, None);
    assert!(refused.code == Some(1) && refused.stderr.contains("in use"), "{}", refused.stderr);
    server.stop();
    let refused = migrate(&world, &folder, None);
    assert!(refused.code == Some(1) && refused.stderr.contains("clickback init"), "{}", refused.stderr);

    let key = folder.data().join("key").to_str().unwrap().to_owned();
    let made = world.init(&["--partitions", "5", "--key-file", &key]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let other = world.folder.path().join("other").to_str().unwrap().to_owned();
    Sealer::open_or_create_file(other.as_ref()).unwrap();
    let refused = migrate(&world, &folder, Some(&other));
    assert!(refused.code == Some(1) && refused.stderr.contains("--key-file"), "{}", refused.stderr);

    moved(&migrate(&world, &folder, None));
    assert_same(&world, &folder);
    let server = Server::start_on(&folder);
    hits(&server, &story.account, 0, 20).await;
    server.stop();
    let said = moved(&migrate(&world, &folder, None));
    assert!(said["written"].as_u64().unwrap() > 20, "{said}");
    assert_same(&world, &folder);
    assert_same_catalog(&world, &folder, &Sealer::open(&folder.data()).unwrap().unwrap());
    // Log time and rules are those of every partition.
    let ticks = outcomes(&folder).iter().filter(|outcome| outcome.kind == Kind::Tick).count();
    for outcomes in world.taken() {
        assert!(outcomes.iter().filter(|outcome| outcome.kind == Kind::Tick).count() >= ticks);
    }
    assert_goes_on(&world, &story, &["--key-file", &key]).await;
}

/// Topics that are in use are left as they are, whatever stands there.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_in_use_is_refused() {
    let Some(world) = World::new(2) else { return };
    let folder = Folder::new();
    let server = Server::start_on(&folder);
    tell(&server).await;
    server.stop();
    let edge = world.ingest();
    edge.post_back("dyn=a&signups=1").await.expect(200);
    assert!(edge.role.stop().success());
    let counts = || [Topic::Events, Topic::Outcomes, Topic::Catalog].map(|topic| world.records(topic));
    let before = counts();
    let refused = migrate(&world, &folder, Some(&world.key_file()));
    assert!(refused.code == Some(1) && refused.stderr.contains("is not empty"), "{}", refused.stderr);
    assert_eq!(counts(), before);
    let ours = world.events(1);
    assert!(ours.iter().any(|stored| matches!(stored.event().body, EventBody::Hit(_))));
}

/// What the API says, without what is of the moment.
struct Said(Vec<(&'static str, Value)>);

impl Said {
    async fn of(http: &reqwest::Client, api: &str, key: &str) -> Said {
        let mut said = Vec::new();
        for path in [
            "/v1/reports/conversions?group_by=link,goal,state",
            "/v1/reports/conversions?group_by=sub1&basis=conversion&tz=Asia/Kathmandu",
            "/v1/reports/conversions?group_by=dyn,hour",
            "/v1/reports/postbacks?limit=1000",
            "/v1/conversions?limit=1000",
            "/v1/accounts",
        ] {
            let join = if path.contains('?') { '&' } else { '?' };
            let after = if path == "/v1/accounts" { String::new() } else { format!("{join}after=latest&wait=30s") };
            let answer = Answer::of(http.get(format!("{api}{path}{after}")).bearer_auth(key)).await.expect(200).json();
            let list = if answer["rows"].is_array() { "rows" } else { "items" };
            let mut rows: Vec<Value> = answer[list].as_array().unwrap().clone();
            assert!(!rows.is_empty(), "{path}: {answer}");
            // Lists of a cluster are sorted by time; of what came in the same millisecond the order is another one.
            rows.sort_by_key(Value::to_string);
            rows.iter_mut().for_each(without_addresses);
            said.push((path, json!({ "rows": rows, "totals": answer["totals"] })));
        }
        Said(said)
    }
}

/// Where the public listener is differs from process to process.
fn without_addresses(row: &mut Value) {
    if let Some(base) = row.get("postback_base").and_then(Value::as_str) {
        row["postback_base"] = json!(base.split_once("/post-back/").unwrap().1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_and_keys_are_the_same_before_and_after() {
    let Some(scylla) = given("CLICKBACK_TEST_SCYLLA") else { return };
    let Some(world) = World::bare() else { return };
    let server = Server::start();
    tell(&server).await;
    let key = server.new_key("default", "read");
    let before = Said::of(&server.http, &server.api, &key).await;
    let folder = server.stop();

    let made = world.init(&["--partitions", "3", "--scylla", &scylla]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    moved(&migrate(&world, &folder, Some(&world.key_file())));
    let state = world.folder.path().join("state").to_str().unwrap().to_owned();
    let (kafka, prefix, sealing) = (world.kafka.clone(), world.prefix.clone(), world.key_file());
    let start = |role: &[&str]| {
        let usual = ["--kafka", &kafka, "--topic-prefix", &prefix];
        Role::start(&[role, &usual].concat()).unwrap_or_else(|stderr| panic!("{role:?} did not start:\n{stderr}"))
    };
    let _matcher = start(&["matcher", "--state", &state, "--admin", "127.0.0.1:0"]);
    let projector = start(&["projector", "--scylla", &scylla, "--key-file", &sealing, "--api", "127.0.0.1:0"]);
    let after = Said::of(&projector.http, &projector.url("api"), &key).await;
    for ((path, before), (_, after)) in before.0.iter().zip(&after.0) {
        assert_eq!(before, after, "{path}");
    }
    let audit = clickback(&["audit", "--kafka", &kafka, "--topic-prefix", &prefix, "--scylla", &scylla]);
    assert_eq!(audit.code, Some(0), "{}\n{}", audit.stdout, audit.stderr);
}
