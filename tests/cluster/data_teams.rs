//! What data teams read: every record on real topics is as the published schemas and `asyncapi.yaml` say, and the example in
//! Python comes to the same conversions as we do, whoever wrote to the topics and how often.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use ::matcher::{Cause, State, apply, decide};
use pipeline::{
    Draft,
    kafka::{
        Topic,
        records::{self, Number},
    },
};
use rdkafka::{
    message::OwnedHeaders,
    producer::{BaseProducer, BaseRecord, Producer},
};
use schemas::{
    Amount, ConversionId, ConversionRecord, Event, EventBody, EventId, Outcome, Time,
    catalog::Body,
    chain::{Chain, Link},
    event::{Adjust, Item, ItemBody, Name, Reprocess},
    goal::Dedup,
    id::alias_shard,
    outcome::{ClickRef, Conversion, Kind},
};
use serde_json::{Value, json};

use crate::world::{Edge, World, account, link, token};

const PATIENCE: Duration = Duration::from_secs(60);

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

struct Writer(BaseProducer);

impl Writer {
    fn on(world: &World) -> Writer {
        Writer(world.cluster().producer().create().unwrap())
    }

    fn send(&self, topic: &str, partition: u16, key: &str, headers: OwnedHeaders, payload: &[u8]) {
        let record = BaseRecord::to(topic).partition(partition.into()).key(key).headers(headers).payload(payload);
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn flush(self) {
        self.0.flush(PATIENCE).unwrap();
    }
}

/// A matcher that knows of no other: it decides all events from the first on, and writes all outcomes.
fn decide_everything(world: &World) {
    let (writer, topic) = (Writer::on(world), world.cluster().topic(Topic::Outcomes));
    let mut partitions: BTreeMap<u16, (State, Chain)> = BTreeMap::new();
    for stored in world.all(Topic::Events).into_iter().filter(|stored| !stored.is_identity()) {
        let (state, prev) = partitions.entry(stored.partition).or_insert_with(|| (State::default(), Chain::FIRST));
        let (event, cause) = (stored.event(), Cause { src: stored.offset, appended: Time::from_ms(stored.time) });
        let outcome = decide(state, cause, &event).unwrap();
        apply(state, cause, &event, &outcome);
        let payload = serde_json::to_vec(&outcome).unwrap();
        let link = Link { src: stored.offset, prev: *prev, chain: prev.next(&payload) };
        *prev = link.chain;
        let number = Number { from: event.from, n: event.n };
        let headers = records::outcome_headers(outcome.kind.code(), number, &link, None);
        writer.send(&topic, stored.partition, &stored.key, headers, &payload);
    }
    writer.flush();
}

async fn visitors(edge: &Edge, from: usize) {
    for n in from..from + 6 {
        let click = edge.get(&format!("/c/spring?dyn=X{n}&sub1=s{n}")).await.expect(302);
        let id = click.header("x-clickback-click").unwrap().to_owned();
        for query in [
            format!("clickId={id}&signups=1&earning=10"),
            format!("dyn=x{n}&deposits=1&tid={n}a&earning=5.25&value=100&currency=USD"),
            format!("dyn=x{n}&deposits=1&tid={n}b&earning=7"),
            format!("dyn=x{n}&deposits=1&tid={n}b&earning=7"),
            format!("clickId={id}&deposits=1&tid={n}b&earning=-7"),
            format!("dyn=x{n}&status=rejected&tid={n}a"),
            format!("dyn=early{n}&firsttimedeposits=1"),
            format!("dyn=x{n}&event=nonsense"),
        ] {
            edge.post_back(&query).await.expect(200);
        }
        edge.get(&format!("/c/spring?dyn=early{n}")).await.expect(302);
        let url = format!("/post-back/{}?dyn=Autumn{n}&signups=2&player=p{n}&earning=1", token(2));
        edge.get(&url).await.expect(200);
    }
}

fn draft(shard: u16, n: u64, body: EventBody) -> Draft {
    let now = pipeline::clock::now();
    Draft { id: EventId::new(now, shard, n), tenant: "default".into(), time: now, shard, body }
}

/// A correction by hand, a label's conversion too, and a name that is read again, so that a conversion is withdrawn.
fn by_the_api(world: &World) {
    let events: Vec<Event> =
        world.all(Topic::Events).iter().filter(|stored| !stored.is_identity()).map(|stored| stored.event()).collect();
    let (conversions, _) = rebuilt(&world.taken());
    let mut drafts = Vec::new();
    for (n, row) in (0..).zip(conversions.values().filter(|row| row.goal == "signups").take(8)) {
        let label = row.dyn_.clone().filter(|_| row.click.is_none()).map(Name::Label);
        let on = label.or(row.click.map(Name::Click)).unwrap();
        let shard = match &on {
            Name::Click(id) => id.shard(),
            Name::Alias(text) | Name::Label(text) => alias_shard("default", &row.account, text),
        };
        let adjust = Adjust {
            account: row.account.clone(),
            conversion: row.id.to_string(),
            on,
            state: None,
            earning: Some("12.34".parse().unwrap()),
            value: None,
            reason: "agreed".into(),
            by: "key_1".into(),
        };
        drafts.push(draft(shard, n, EventBody::Adjust(adjust)));
    }
    let shard = alias_shard("default", "acc_one", "x1");
    let items = events.iter().filter_map(|event| {
        let what = match &event.body {
            EventBody::Click(click) if click.alias.as_deref() == Some("x1") => ItemBody::Click(click.id),
            EventBody::Hit(hit) if event.id.shard() == shard && hit.account == "acc_one" => {
                let mut reading = hit.reading.clone();
                reading.goals.iter_mut().for_each(|goal| goal.dedup = Dedup::Once);
                ItemBody::Hit { program: hit.program.clone(), reading, settings: hit.settings.clone() }
            }
            _ => return None,
        };
        Some(Item { id: event.id, time: event.time, log_time: event.time, what })
    });
    let reprocess = Reprocess {
        account: "acc_one".into(),
        request: "rp_1".into(),
        dry_run: false,
        name: Name::Alias("x1".into()),
        position: 1_000_000,
        items: items.collect(),
    };
    drafts.push(draft(shard, 100, EventBody::Reprocess(reprocess)));
    drafts.push(draft(3, 101, EventBody::Rules(1)));
    world.append(drafts);
}

/// Roles, a second matcher that decides all of it again, also while the first one is away, and the API's events.
async fn traffic(world: &World) {
    world.put(|sealer| {
        let mut campaigns = account("acc_two", &sealer.seal(&token(2)));
        campaigns.dyn_mode = serde_json::from_value(json!("campaign")).unwrap();
        let link = serde_json::from_value(link("autumn", "acc_two")).unwrap();
        let key =
            json!({ "id": "k", "name": "n", "scope": "read", "hash": "00", "created": "2026-01-01T00:00:00.000Z" });
        vec![Body::Account(Box::new(campaigns)), Body::Link(link), Body::Key(serde_json::from_value(key).unwrap())]
    });
    let edge = world.ingest();
    let matcher = world.matcher("one");
    visitors(&edge, 0).await;
    world.settle();
    decide_everything(world);
    assert!(matcher.stop().success());
    visitors(&edge, 10).await;
    decide_everything(world);
    let matcher = world.matcher("two");
    visitors(&edge, 20).await;
    world.settle();
    by_the_api(world);
    let repeated = world.all(Topic::Events).into_iter().find(|stored| stored.headers["type"] == "hit").unwrap();
    let Event { from, n, .. } = repeated.event();
    let headers = records::event_headers("hit", Number { from, n }, None);
    let topic = world.cluster().topic(Topic::Events);
    let writer = Writer::on(world);
    writer.send(&topic, repeated.partition, &repeated.key, headers, &repeated.payload);
    writer.flush();
    world.settle();
    assert!(edge.role.stop().success());
    assert!(matcher.stop().success());
}

type Sums = BTreeMap<[String; 4], (i64, Amount, Amount)>;

/// Conversions as they stand, and every version of them on the way.
fn rebuilt(taken: &[Vec<Outcome>]) -> (BTreeMap<ConversionId, ConversionRecord>, Vec<ConversionRecord>) {
    let (mut all, mut versions) = (BTreeMap::<ConversionId, ConversionRecord>::new(), Vec::new());
    for outcome in taken.iter().flatten() {
        for hit in &outcome.hits {
            for conversion in hit.goals.iter().filter_map(|goal| goal.conversion.as_ref()) {
                let new =
                    flat(outcome, conversion, hit.click.as_ref(), hit.label.as_deref(), &hit.account, &hit.program);
                note(&mut all, &mut versions, new);
            }
        }
        if let Some(adjust) = &outcome.adjust
            && let Some(conversion) = &adjust.conversion
        {
            let (account, program) = (&adjust.account, adjust.program.clone().unwrap_or_default());
            note(&mut all, &mut versions, flat(outcome, conversion, None, adjust.label.as_deref(), account, &program));
        }
    }
    (all, versions)
}

fn note(
    all: &mut BTreeMap<ConversionId, ConversionRecord>,
    versions: &mut Vec<ConversionRecord>,
    mut new: ConversionRecord,
) {
    if let Some(known) = all.get(&new.id) {
        if known.version >= new.version {
            return;
        }
        // What it was made on stays.
        let click_time = if known.click.is_some() { known.click_time } else { new.time };
        let (changed, made) = (new.clone(), known.clone());
        new = ConversionRecord { click_time, ..made };
        (new.version, new.count, new.state) = (changed.version, changed.count, changed.state);
        (new.earning, new.value, new.currency) = (changed.earning, changed.value, changed.currency);
        (new.tid, new.player, new.goal) = (changed.tid, changed.player, changed.goal);
        (new.time, new.updated, new.withdrawn) = (changed.time, changed.updated, changed.withdrawn);
    }
    versions.push(new.clone());
    all.insert(new.id, new);
}

fn flat(
    outcome: &Outcome,
    conversion: &Conversion,
    click: Option<&ClickRef>,
    label: Option<&str>,
    account: &str,
    program: &str,
) -> ConversionRecord {
    let mut row = serde_json::to_value(conversion).unwrap();
    for (name, value) in [
        ("v", json!(1)),
        ("tenant", json!("default")),
        ("account", json!(account)),
        ("program", json!(program)),
        ("link", json!(click.map(|click| &click.link))),
        ("click", json!(click.map(|click| click.id))),
        ("click_time", json!(click.map_or(conversion.time, |click| click.time))),
        ("dyn", click.map_or(json!(label), |click| json!(click.dyn_))),
        ("updated", json!(outcome.time)),
    ] {
        row[name] = value;
    }
    let mut row: ConversionRecord = serde_json::from_value(row).unwrap();
    if let Some(click) = click.cloned() {
        (row.sub1, row.sub2, row.sub3, row.sub4, row.sub5) =
            (click.sub1, click.sub2, click.sub3, click.sub4, click.sub5);
    }
    row
}

fn sums(taken: &[Vec<Outcome>]) -> Sums {
    let mut all = Sums::new();
    for change in taken.iter().flatten().flat_map(|outcome| &outcome.changes) {
        let (state, currency) = (change.state.code().to_owned(), change.currency.code().to_owned());
        let sum = all.entry([change.account.clone(), change.goal.clone(), state, currency]).or_default();
        sum.0 += change.count;
        sum.1 = sum.1.plus(change.earning.unwrap_or_default()).unwrap();
        sum.2 = sum.2.plus(change.value.unwrap_or_default()).unwrap();
    }
    all
}

/// A Python with the example's requirements in a folder of its own, below `target`.
fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("data-teams");
    let python = venv.join("bin/python");
    let requirements = workspace().join("docs/data-teams/requirements.txt");
    let run = |program: &Path, args: &[&str]| -> Result<(), String> {
        let output = Command::new(program).args(args).output().map_err(|e| format!("{}: {e}", program.display()))?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let version = wanted.trim().rsplit("==").next().unwrap();
    let is_there = format!("import confluent_kafka as c; assert c.__version__ == '{version}'");
    let make = || -> Result<(), String> {
        run(Path::new("python3"), &["-m", "venv", venv.to_str().unwrap()])?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r"];
        run(&python, &[&pip[..], &[requirements.to_str().unwrap()]].concat())?;
        run(&python, &["-c", &is_there])
    };
    match run(&python, &["-c", &is_there]).or_else(|_| make()) {
        Ok(()) => Some(python),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "the example in Python cannot be run: {why}");
            eprintln!("skipped: the example in Python cannot be run: {why}");
            None
        }
    }
}

fn example(python: &Path, world: &World, args: &[&str]) -> Output {
    let mut run = Command::new(python);
    run.arg(workspace().join("docs/data-teams/conversions.py"));
    run.args(["--kafka", &world.kafka, "--topic-prefix", &world.prefix]).args(args).output().unwrap()
}

#[track_caller]
fn printed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_rebuilt(python: &Path, world: &World) {
    let taken = world.taken();
    let (conversions, versions) = rebuilt(&taken);
    assert!(conversions.values().any(|row| row.withdrawn) && conversions.values().any(|row| row.click.is_none()));
    assert!(versions.len() > conversions.len() + 10);

    let said = printed(&example(python, world, &[]));
    assert_eq!(said["conversions"], json!(conversions));
    let there: Sums = said["sums"].as_array().unwrap().iter().map(sum_of).collect();
    assert_eq!(there, sums(&taken));
    let all = taken.iter().flatten();
    let clicks = all.clone().filter(|outcome| outcome.kind == Kind::Click && outcome.click.is_some()).count();
    assert_eq!(said["clicks"], json!({ "acc_one": clicks }));
    assert_eq!(said["taken"], all.count());
    assert!(said["skipped"].as_u64().unwrap() > 100, "there are no repeats on the topic: {}", said["skipped"]);

    // In any order, and twice.
    let (writer, topic) = (Writer::on(world), world.cluster().topic(Topic::Conversions));
    for row in versions.iter().rev().chain(versions.iter().step_by(2)) {
        let payload = serde_json::to_vec(row).unwrap();
        writer.send(&topic, 0, &row.id.to_string(), records::typed(1, "conversion"), &payload);
    }
    writer.flush();
    let connected = printed(&example(python, world, &["--connector"]));
    assert_eq!(connected["conversions"], said["conversions"]);
}

fn sum_of(row: &Value) -> ([String; 4], (i64, Amount, Amount)) {
    let text = |at: usize| row[at].as_str().unwrap().to_owned();
    let amount = |at: usize| row[at].as_str().unwrap().parse().unwrap();
    ([text(0), text(1), text(2), text(3)], (row[4].as_i64().unwrap(), amount(5), amount(6)))
}

/// An outcome whose predecessor is not there is not taken; the next one on another chain stops the example.
fn assert_alarm(python: &Path, world: &World) {
    let taken = world.taken();
    let next = taken[0].len() as u64 + 1;
    let send = |src: u64| {
        let prev = Chain::FIRST.next(b"another history");
        let link = Link { src, prev, chain: prev.next(b"{}") };
        let number = Number { from: EventId::new(Time::from_ms(1), 0, 1), n: 0 };
        let writer = Writer::on(world);
        let headers = records::outcome_headers("hit", number, &link, None);
        writer.send(&world.cluster().topic(Topic::Outcomes), 0, "0", headers, b"{}");
        writer.flush();
    };
    send(next + 5);
    let output = example(python, world, &[]);
    assert_eq!(printed(&output)["taken"], taken.iter().flatten().count());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("partition 0: outcome {next} is missing")), "{said}");
    send(next);
    let output = example(python, world, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("ALARM"), "{said}");
}

/// `asyncapi.yaml`, as it describes one message of one topic.
struct Described {
    kinds: Vec<String>,
    headers: BTreeSet<String>,
    of_headers: jsonschema::Validator,
    of_key: jsonschema::Validator,
    of_payload: jsonschema::Validator,
}

/// The document with what it refers to in its place.
fn resolved(value: &Value, document: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut all: serde_json::Map<String, Value> = match fields.get("$ref").and_then(Value::as_str) {
                Some(local) if local.starts_with("#/") => {
                    let found = document.pointer(&local[1..]).unwrap_or_else(|| panic!("{local} is not there"));
                    resolved(found, document).as_object().unwrap().clone()
                }
                Some(file) => {
                    let text = std::fs::read_to_string(workspace().join("schemas").join(file)).unwrap();
                    return serde_json::from_str(&text).unwrap();
                }
                None => serde_json::Map::new(),
            };
            for (name, field) in fields.iter().filter(|(name, _)| *name != "$ref") {
                all.insert(name.clone(), resolved(field, document));
            }
            Value::Object(all)
        }
        Value::Array(list) => Value::Array(list.iter().map(|item| resolved(item, document)).collect()),
        other => other.clone(),
    }
}

fn described(topic: Topic) -> Vec<Described> {
    let text = std::fs::read_to_string(workspace().join("schemas/asyncapi.yaml")).unwrap();
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let channels = document["channels"].as_object().unwrap();
    let address = format!("clickback.{}", topic.name());
    let channel = channels.values().find(|channel| channel["address"] == address).unwrap();
    let of_message = |message: &Value| {
        let message = resolved(message, &document);
        let strings = |list: &Value| list.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
        Described {
            kinds: strings(&message["headers"]["properties"]["type"]["x-known-values"]),
            headers: message["headers"]["properties"].as_object().unwrap().keys().cloned().collect(),
            of_headers: jsonschema::validator_for(&message["headers"]).unwrap(),
            of_key: jsonschema::validator_for(&message["bindings"]["kafka"]["key"]).unwrap(),
            of_payload: jsonschema::validator_for(&message["payload"]).unwrap(),
        }
    };
    channel["messages"].as_object().unwrap().values().map(of_message).collect()
}

fn assert_described(world: &World, topic: Topic) {
    let (messages, partitions) = (described(topic), world.partitions());
    let mut seen = BTreeSet::new();
    for stored in world.all(topic) {
        let at = format!("{} {}/{}", topic.name(), stored.partition, stored.offset);
        let kind = &stored.headers["type"];
        let message = messages.iter().find(|message| message.kinds.contains(kind));
        let message = message.unwrap_or_else(|| panic!("{at}: nobody knows the type {kind}"));
        let names: BTreeSet<String> = stored.headers.keys().cloned().collect();
        assert!(names.is_subset(&message.headers), "{at}: {names:?}");
        let payload: Value = serde_json::from_slice(&stored.payload).unwrap();
        for (what, validator, value) in [
            ("headers", &message.of_headers, &json!(stored.headers)),
            ("key", &message.of_key, &json!(stored.key)),
            ("payload", &message.of_payload, &payload),
        ] {
            let problems: Vec<String> =
                validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path)).collect();
            assert!(problems.is_empty(), "{at}: {what}: {problems:#?}\n{value}");
        }
        assert_eq!(stored.offset == 0, kind == "identity", "{at}");
        if matches!(topic, Topic::Events | Topic::Outcomes) && stored.offset > 0 {
            let shard: u16 = stored.key.parse().unwrap();
            assert_eq!(shard % partitions, stored.partition, "{at}");
        }
        seen.insert(kind.clone());
    }
    let described: BTreeSet<String> = messages.into_iter().flat_map(|message| message.kinds).collect();
    let unseen: Vec<&String> = described.difference(&seen).collect();
    // Made by the API only, which has no process of its own here.
    let of_api: &[&str] = if topic == Topic::Catalog { &["answer", "program", "reprocess"] } else { &[] };
    assert_eq!(unseen, of_api.iter().collect::<Vec<_>>(), "{}", topic.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_as_described_and_rebuild_the_conversions() {
    let Some(world) = World::new(3) else { return };
    traffic(&world).await;
    let python = tokio::task::block_in_place(python);
    if let Some(python) = &python {
        assert_rebuilt(python, &world);
    }
    for topic in [Topic::Events, Topic::Outcomes, Topic::Catalog] {
        assert_described(&world, topic);
    }
    if let Some(python) = &python {
        assert_described(&world, Topic::Conversions);
        assert_alarm(python, &world);
    }
}
