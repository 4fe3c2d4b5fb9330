//! The matcher's floor: reads events, parses them, keeps clicks and transactions in a HashMap, and writes an outcome for
//! each event. Nothing survives its end: no state on disk, no chain, no reading back, one dialect, one policy.
//!
//! `floor KAFKA EVENTS OUTCOMES COUNT`: ends after so many events, and says what it found.

#[path = "../kafka.rs"]
mod kafka;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde::{Deserialize, Serialize};

const WAIT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Event {
    id: String,
    tenant: String,
    time: String,
    body: Body,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    Click(Click),
    Hit(Hit),
}

#[derive(Clone, Deserialize, Serialize)]
struct Click {
    id: String,
    time: String,
    link: String,
    #[serde(rename = "dyn")]
    label: Option<String>,
    sub1: Option<String>,
    sub2: Option<String>,
    sub3: Option<String>,
}

#[derive(Deserialize)]
struct Hit {
    account: String,
    program: String,
    raw: Raw,
    reading: Reading,
}

#[derive(Deserialize, Serialize)]
struct Raw {
    method: String,
    query: String,
}

#[derive(Deserialize)]
struct Reading {
    click: Option<String>,
    #[serde(default)]
    goals: Vec<Goal>,
    tid: Option<String>,
    currency: Option<String>,
}

#[derive(Deserialize)]
struct Goal {
    goal: String,
    count: u32,
    money: Option<Money>,
}

#[derive(Deserialize)]
struct Money {
    earning: Option<String>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    v: u32,
    id: &'a str,
    tenant: &'a str,
    time: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<&'a Click>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hit: Option<HitOutcome<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change<'a>>,
}

#[derive(Serialize)]
struct HitOutcome<'a> {
    account: &'a str,
    program: &'a str,
    raw: &'a Raw,
    click: Option<&'a Click>,
    named: Option<&'a str>,
    outcome: &'static str,
}

#[derive(Serialize)]
struct Change<'a> {
    account: &'a str,
    click: &'a str,
    click_time: &'a str,
    time: &'a str,
    goal: &'a str,
    count: u32,
    currency: Option<&'a str>,
    earning: Option<&'a str>,
    tid: Option<&'a str>,
}

#[derive(Default)]
struct State {
    clicks: HashMap<String, Known>,
}

struct Known {
    click: Click,
    /// Transaction and goal.
    seen: HashSet<(Option<String>, String)>,
}

impl State {
    fn outcome(&mut self, event: &Event) -> Result<Vec<u8>> {
        let kind = match &event.body {
            Body::Click(_) => "click",
            Body::Hit(_) => "hit",
        };
        let mut outcome = Outcome {
            v: 1,
            id: &event.id,
            tenant: &event.tenant,
            time: &event.time,
            kind,
            click: None,
            hit: None,
            changes: Vec::new(),
        };
        match &event.body {
            Body::Click(click) => {
                let known = Known { click: click.clone(), seen: HashSet::new() };
                outcome.click = Some(click);
                self.clicks.insert(click.id.clone(), known);
                Ok(serde_json::to_vec(&outcome)?)
            }
            Body::Hit(hit) => {
                let known = hit.reading.click.as_ref().and_then(|id| self.clicks.get_mut(id));
                decide(&mut outcome, hit, known)
            }
        }
    }
}

fn decide<'a>(outcome: &mut Outcome<'a>, hit: &'a Hit, known: Option<&'a mut Known>) -> Result<Vec<u8>> {
    let reading = &hit.reading;
    let mut answer = HitOutcome {
        account: &hit.account,
        program: &hit.program,
        raw: &hit.raw,
        click: None,
        named: reading.click.as_deref(),
        outcome: "waiting",
    };
    if let Some(Known { click, seen }) = known {
        for goal in &reading.goals {
            if seen.insert((reading.tid.clone(), goal.goal.clone())) {
                outcome.changes.push(Change {
                    account: &hit.account,
                    click: &click.id,
                    click_time: &click.time,
                    time: outcome.time,
                    goal: &goal.goal,
                    count: goal.count,
                    currency: reading.currency.as_deref(),
                    earning: goal.money.as_ref().and_then(|money| money.earning.as_deref()),
                    tid: reading.tid.as_deref(),
                });
            }
        }
        answer.outcome = if outcome.changes.is_empty() { "duplicate" } else { "converted" };
        answer.click = Some(click);
    }
    outcome.hit = Some(answer);
    Ok(serde_json::to_vec(outcome)?)
}

fn kind<'m>(message: &'m BorrowedMessage<'_>) -> Option<&'m [u8]> {
    message.headers()?.iter().find(|header| header.key == "type")?.value
}

fn open(kafka: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = kafka::reader(kafka).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().first().context("no such topic")?.partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kafka, events, outcomes, count] = args.as_slice() else { bail!("floor KAFKA EVENTS OUTCOMES COUNT") };
    let mut left: u64 = count.parse()?;
    println!("ready");
    let consumer = open(kafka, events)?;
    let producer: ThreadedProducer<DefaultProducerContext> = kafka::writer(kafka).create()?;
    let mut state = State::default();
    while left > 0 {
        let Some(message) = consumer.poll(WAIT) else { continue };
        let message = message?;
        if kind(&message) == Some(b"identity") {
            continue;
        }
        left -= 1;
        let event: Event = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let payload = state.outcome(&event)?;
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: "type", value: kind(&message) })
            .insert(Header { key: "src", value: Some(message.offset().to_string().as_bytes()) });
        let mut record = BaseRecord::to(outcomes)
            .partition(message.partition())
            .key(message.key().unwrap_or_default())
            .headers(headers)
            .payload(&payload);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => bail!("{error}"),
            }
        }
    }
    producer.flush(WAIT)?;
    Ok(())
}
