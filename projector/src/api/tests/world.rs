//! A small stand-in for the rest of the process: a thread that writes the log and applies the catalog as the matcher
//! does, with outcomes made by hand, and the real projector behind it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use pipeline::{
    Appender, Batch, Block, Catalog, Log, LogEnd, Receipt, Sealer, append, clock,
    lifecycle::{Beat, Health},
    telemetry::Metrics,
};
use schemas::{
    EventBody, EventId, Outcome, Time,
    catalog::{ApiKey, Body as CatalogBody, Record, Scope},
    event::{self, Click},
    outcome::{AdjustOutcome, Change, ClickData, ClickRef, Conversion, Kind, Status},
};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::{
    api::{self, ApiConfig, ApiState, auth, auth::AdminKey},
    fresh::Freshness,
    reprocess::Source,
};

pub const ADMIN: &str = "cbk_configured_secret";

/// Decides like the matcher, as far as these tests need it.
#[derive(Default)]
pub struct Decisions {
    /// By event id.
    pub prepared: HashMap<EventId, Outcome>,
    /// Where each conversion stands.
    pub conversions: HashMap<String, (Conversion, ClickRef)>,
    foreign: HashSet<(String, String)>,
    /// How many catalog records are answered `Stale` before one is taken.
    pub stale: usize,
}

pub struct World {
    pub api: ApiState,
    pub appender: Appender,
    pub decisions: Arc<Mutex<Decisions>>,
    pub beat: Beat,
    router: Router,
    _dir: TempDir,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Reply {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
    /// Pointer and code of each error, sorted.
    pub fn errors(&self) -> Vec<(&str, &str)> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut errors: Vec<_> =
            errors.iter().map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap())).collect();
        errors.sort();
        errors
    }
}

impl World {
    pub fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let sealer = Arc::new(Sealer::open_or_create(dir.path()).unwrap());
        let catalog = Arc::new(Catalog::load(&log.reader().unwrap(), sealer).unwrap());
        let end = Arc::new(LogEnd::default());
        let (batches, taken) = sync_channel(64);
        let health = Health::new(Duration::from_secs(60));
        let beat = health.component("test");
        beat.set_ready(true);
        let heart = health.component("projector");
        let projector = crate::run::spawn(dir.path(), log.reader().unwrap(), taken, Arc::clone(&end), heart).unwrap();
        let (appender, requests) = append::channel(4_096);
        let decisions = Arc::new(Mutex::new(Decisions::default()));
        let writer = Writer {
            log,
            catalog: Arc::clone(&catalog),
            decisions: Arc::clone(&decisions),
            end: Arc::clone(&end),
            batches,
        };
        std::thread::spawn(move || writer.run(requests));
        let api = ApiState::new(ApiConfig {
            catalog,
            appender: appender.clone(),
            reports: projector.reports.clone(),
            fresh: Freshness::Folder { visible: projector.visible.clone(), end },
            past: Source::Folder(dir.path().to_owned()),
            public_url: "https://go.example/".to_owned(),
            admin: Some(AdminKey::new(ADMIN)),
            health,
            metrics: Metrics::install().unwrap(),
        });
        let router = api::router(api.clone());
        World { api, appender, decisions, beat, router, _dir: dir }
    }

    pub async fn ask(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status: parts.status, headers: parts.headers, body, text }
    }

    pub fn request(key: &str, method: Method, path: &str, body: Option<&Value>) -> Request<Body> {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        match body {
            None => request.body(Body::empty()).unwrap(),
            Some(body) => {
                request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()
            }
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask(Self::request(ADMIN, Method::GET, path, None)).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(Self::request(ADMIN, Method::POST, path, Some(&body))).await
    }
    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.ask(Self::request(ADMIN, Method::PATCH, path, Some(&body))).await
    }
    pub async fn get_as(&self, key: &str, path: &str) -> Reply {
        self.ask(Self::request(key, Method::GET, path, None)).await
    }
    pub async fn post_as(&self, key: &str, path: &str, body: Value) -> Reply {
        self.ask(Self::request(key, Method::POST, path, Some(&body))).await
    }

    /// A key of any tenant.
    pub async fn key(&self, tenant: &str, scope: Scope) -> String {
        let id = format!("k{}", auth::code(scope));
        let key = auth::new_key(&id);
        let record = Record {
            v: 1,
            id: id.clone(),
            tenant: tenant.to_owned(),
            time: clock::now(),
            base: 0,
            body: CatalogBody::Key(ApiKey {
                id,
                name: "test".to_owned(),
                scope,
                hash: auth::hash(&key),
                revoked: false,
                created: clock::now(),
            }),
        };
        assert_eq!(self.appender.append_catalog(record).await.unwrap(), append::Applied::Current);
        key
    }

    /// An account's id.
    pub async fn account(&self, name: &str) -> String {
        let reply = self.post("/v1/accounts", serde_json::json!({"name": name, "program": "generic"})).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
        reply.body["id"].as_str().unwrap().to_owned()
    }
}

struct Writer {
    log: Log,
    catalog: Arc<Catalog>,
    decisions: Arc<Mutex<Decisions>>,
    end: Arc<LogEnd>,
    batches: SyncSender<Arc<Batch>>,
}

impl Writer {
    fn run(mut self, mut requests: tokio::sync::mpsc::Receiver<append::Request>) {
        let run = EventId::new(clock::now(), 0, 1);
        while let Some(request) = requests.blocking_recv() {
            match request {
                append::Request::Catalog { record, answer, .. } => {
                    let mut decisions = self.decisions.lock().unwrap();
                    let applied = if decisions.stale > 0 {
                        decisions.stale -= 1;
                        append::Applied::Stale
                    } else {
                        let bytes = serde_json::to_vec(&record).unwrap();
                        self.log.append(&[], &[(self.log.catalog_next(), bytes)]).unwrap();
                        self.catalog.apply(&record)
                    };
                    drop(answer.send(Ok(applied)));
                }
                append::Request::Events { events: drafts, answer, .. } => {
                    let first = self.log.position().next;
                    let events: Vec<_> =
                        drafts.into_iter().zip(first..).map(|(draft, n)| draft.into_event(run, n)).collect();
                    self.append(first, &events);
                    let receipts =
                        (first..).take(events.len()).map(|src| Receipt::Logged { partition: 0, src }).collect();
                    drop(answer.send(Ok(receipts)));
                }
            }
        }
    }

    fn append(&mut self, first: u64, events: &[schemas::Event]) {
        let mut decisions = self.decisions.lock().unwrap();
        let outcomes: Vec<Arc<Outcome>> = events.iter().map(|event| Arc::new(decisions.decide(event))).collect();
        drop(decisions);
        let prev = self.log.position().chain;
        let (mut chain, mut event_lines, mut outcome_lines) = (prev, Vec::new(), Vec::new());
        for (event, outcome) in events.iter().zip(&outcomes) {
            event_lines.extend(serde_json::to_vec(event).unwrap());
            event_lines.push(b'\n');
            let payload = serde_json::to_vec(outcome).unwrap();
            chain = chain.next(&payload);
            outcome_lines.extend(payload);
            outcome_lines.push(b'\n');
        }
        let block = Block {
            first,
            count: events.len() as u32,
            time: clock::now(),
            events: event_lines,
            outcomes: outcome_lines,
            prev,
            chain,
        };
        self.log.append(&[block], &[]).unwrap();
        let position = self.log.position();
        self.end.set(position.next);
        drop(self.batches.send(Arc::new(Batch { first, end: position, outcomes })));
    }
}

pub fn outcome(event: &schemas::Event, kind: Kind) -> Outcome {
    Outcome::blank(event.id, &event.tenant, event.time, kind)
}

impl Decisions {
    fn decide(&mut self, event: &schemas::Event) -> Outcome {
        if let Some(prepared) = self.prepared.remove(&event.id) {
            return prepared;
        }
        match &event.body {
            EventBody::Click(click) => self.click(event, click),
            EventBody::Adjust(adjust) => self.adjust(event, adjust),
            EventBody::Reprocess(reprocess) => Outcome {
                reprocess: Some(schemas::outcome::ReprocessOutcome {
                    account: reprocess.account.clone(),
                    request: reprocess.request.clone(),
                    dry_run: reprocess.dry_run,
                    changed: 0,
                    clicks: Vec::new(),
                    label: None,
                }),
                ..outcome(event, Kind::Reprocess)
            },
            EventBody::Hit(_) => outcome(event, Kind::Hit),
            EventBody::Tick => Outcome { log_time: Some(event.time), ..outcome(event, Kind::Tick) },
            EventBody::Rules(version) => Outcome { rules: Some(*version), ..outcome(event, Kind::Rules) },
        }
    }

    fn click(&mut self, event: &schemas::Event, click: &Click) -> Outcome {
        let again = click.foreign.as_ref().is_some_and(|id| !self.foreign.insert((click.account.clone(), id.clone())));
        if again {
            return Outcome { reason: Some(schemas::Reason::Duplicate), ..outcome(event, Kind::Click) };
        }
        Outcome { click: Some(click_data(click)), ..outcome(event, Kind::Click) }
    }

    fn adjust(&mut self, event: &schemas::Event, adjust: &event::Adjust) -> Outcome {
        let (conversion, click) = self.conversions.get_mut(&adjust.conversion).expect("the test made it");
        let before = change(&adjust.account, click, conversion, -1);
        conversion.version += 1;
        conversion.state = adjust.state.unwrap_or(conversion.state);
        conversion.earning = adjust.earning.or(conversion.earning);
        conversion.value = adjust.value.or(conversion.value);
        let after = change(&adjust.account, click, conversion, 1);
        Outcome {
            click: Some(ClickData {
                id: click.id,
                time: click.time,
                account: adjust.account.clone(),
                program: "generic".to_owned(),
                link: click.link.clone(),
                dyn_: click.dyn_.clone(),
                foreign: None,
                sub1: click.sub1.clone(),
                sub2: None,
                sub3: None,
                sub4: None,
                sub5: None,
                flags: Vec::new(),
            }),
            adjust: Some(AdjustOutcome {
                account: adjust.account.clone(),
                outcome: Status::Updated,
                note: adjust.reason.clone(),
                by: adjust.by.clone(),
                program: Some("generic".to_owned()),
                label: None,
                conversion: Some(conversion.clone()),
            }),
            changes: vec![before, after],
            ..outcome(event, Kind::Adjust)
        }
    }
}

pub fn change(account: &str, click: &ClickRef, conversion: &Conversion, sign: i64) -> Change {
    let signed = |amount: Option<schemas::Amount>| amount.map(|a| if sign < 0 { a.negated() } else { a });
    Change {
        conversion: conversion.id,
        account: account.to_owned(),
        click: Some(click.id),
        click_time: click.time,
        time: conversion.time,
        goal: conversion.goal.clone(),
        state: conversion.state,
        currency: conversion.currency,
        count: sign * i64::from(conversion.count),
        earning: signed(conversion.earning),
        value: signed(conversion.value),
    }
}

fn click_data(click: &Click) -> ClickData {
    let click = click.clone();
    ClickData {
        id: click.id,
        time: click.time,
        account: click.account,
        program: click.program,
        link: click.link,
        dyn_: click.dyn_,
        foreign: click.foreign,
        sub1: click.sub1,
        sub2: click.sub2,
        sub3: click.sub3,
        sub4: click.sub4,
        sub5: click.sub5,
        flags: click.flags,
    }
}

/// An instant of the past, so that reports of the last days show it.
pub fn ago(minutes: i64) -> Time {
    clock::now().plus_ms(-minutes * 60_000)
}
