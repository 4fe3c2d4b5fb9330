//! A public edge on a port of its own, before a log that a test can look into and break.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{IngestConfig, serve};
use pipeline::{
    Catalog, Draft, Log, Receipt, Request, Sealer, Unavailable,
    append::{Applied, channel},
};
use reqwest::{Client, Method, RequestBuilder, Response, redirect::Policy};
use schemas::{
    Time,
    catalog::{Account, Body, Link, Record},
    event::{self, EventBody},
    id,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub const TENANT: &str = "default";
pub const ACCOUNT: &str = "acc_one";
pub const LINK: &str = "spring";

/// What the log does with events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Weather {
    #[default]
    Fair,
    /// Says that nothing can be written.
    Broken,
    /// Never answers.
    Silent,
    /// Answers each request only when the test lets it.
    Held,
}

pub struct Edge {
    pub address: SocketAddr,
    pub catalog: Arc<Catalog>,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<()>,
    pub release: Arc<Semaphore>,
    client: Client,
    weather: Arc<Mutex<Weather>>,
    drafts: Arc<Mutex<Vec<Draft>>>,
    arrived: Mutex<mpsc::UnboundedReceiver<()>>,
    _dir: TempDir,
}

pub fn token(n: u8) -> String {
    id::new_token(&[n; 28])
}

pub fn account(sealer: &Sealer, id: &str, token: &str, with: Value) -> Account {
    let mut fields = json!({
        "id": id, "name": id, "program": "generic", "token": sealer.seal(token), "lookback_days": 90,
        "lifetime_days": 1825, "waiting_days": 7, "max_count": 100, "created": "2026-01-01T00:00:00.000Z",
    });
    for (name, value) in with.as_object().unwrap() {
        fields[name] = value.clone();
    }
    if let Some(secret) = fields.pointer_mut("/hmac/secret") {
        *secret = sealer.seal(secret.as_str().unwrap()).into();
    }
    serde_json::from_value(fields).unwrap()
}

impl Edge {
    pub async fn start() -> Self {
        Self::with(json!({}), IngestConfig::default()).await
    }

    /// With one account, which has the given fields, and one link of it.
    pub async fn with(fields: Value, config: IngestConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let sealer = Arc::new(Sealer::open_or_create(dir.path()).unwrap());
        let catalog = Arc::new(Catalog::load(&log.reader().unwrap(), sealer).unwrap());
        let (appender, queue) = channel(1_000);
        let (weather, drafts, release) =
            (Arc::default(), Arc::<Mutex<Vec<Draft>>>::default(), Arc::new(Semaphore::new(0)));
        let (arrival, arrived) = mpsc::unbounded_channel();
        tokio::spawn(write(queue, Arc::clone(&weather), Arc::clone(&drafts), Arc::clone(&release), arrival));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, config, catalog.clone(), appender, shutdown.clone()));
        let client = Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
        let arrived = Mutex::new(arrived);
        let edge = Edge { address, catalog, shutdown, served, release, client, weather, drafts, arrived, _dir: dir };
        edge.put(0, Body::Account(Box::new(account(edge.catalog.sealer(), ACCOUNT, &token(1), fields))));
        edge.link(LINK, json!({}));
        edge
    }

    pub fn put(&self, base: u64, body: Body) {
        let id = format!("{}-{base}", body.thing());
        let record = Record { v: 1, id, tenant: TENANT.into(), time: pipeline::clock::now(), base, body };
        assert_eq!(self.catalog.apply(&record), Applied::Current);
    }

    pub fn link(&self, id: &str, with: Value) {
        let mut fields = json!({
            "id": id, "account": ACCOUNT, "name": id, "destination": "https://casino.example/play?lang=en#top",
            "created": "2026-01-01T00:00:00.000Z",
        });
        for (name, value) in with.as_object().unwrap() {
            fields[name] = value.clone();
        }
        self.put(0, Body::Link(serde_json::from_value::<Link>(fields).unwrap()));
    }

    pub fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// A postback of the account by GET.
    pub async fn get(&self, query: &str) -> Response {
        self.request("GET", &format!("{}?{query}", path())).send().await.unwrap()
    }

    pub async fn post(&self, query: &str, content_type: Option<&str>, body: impl Into<Vec<u8>>) -> Response {
        let request = self.request("POST", &format!("{}?{query}", path())).body(body.into());
        let request = match content_type {
            Some(kind) => request.header("content-type", kind),
            None => request,
        };
        request.send().await.unwrap()
    }

    pub async fn click(&self, query: &str) -> Response {
        self.request("GET", &format!("/c/{LINK}?{query}")).send().await.unwrap()
    }

    /// What the log has been given.
    pub fn drafts(&self) -> Vec<Draft> {
        self.drafts.lock().unwrap().clone()
    }
    pub fn hits(&self) -> Vec<event::Hit> {
        let hit = |draft: Draft| if let EventBody::Hit(hit) = draft.body { Some(hit) } else { None };
        self.drafts().into_iter().filter_map(hit).collect()
    }
    pub fn clicks(&self) -> Vec<event::Click> {
        let click = |draft: Draft| if let EventBody::Click(click) = draft.body { Some(click) } else { None };
        self.drafts().into_iter().filter_map(click).collect()
    }
    pub fn hit(&self) -> event::Hit {
        let mut hits = self.hits();
        assert_eq!(hits.len(), 1, "exactly one hit is recorded");
        hits.remove(0)
    }

    /// Until the log has been given one more request.
    #[allow(clippy::await_holding_lock, reason = "one test, one waiter")]
    pub async fn next_arrival(&self) {
        self.arrived.lock().unwrap().recv().await.unwrap();
    }

    /// Sends bytes on a connection of their own and reads to its end.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The edge may answer and close before it has all of a request.
        drop(stream.write_all(bytes).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        drop(read.expect("the edge ends every connection"));
        answer
    }
}

/// Path of the account's postbacks.
pub fn path() -> String {
    format!("/post-back/{}", token(1))
}

pub fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub fn time(text: &str) -> Time {
    text.parse().unwrap()
}

async fn write(
    mut queue: mpsc::Receiver<Request>,
    weather: Arc<Mutex<Weather>>,
    drafts: Arc<Mutex<Vec<Draft>>>,
    release: Arc<Semaphore>,
    arrival: mpsc::UnboundedSender<()>,
) {
    let mut unanswered = Vec::new();
    while let Some(request) = queue.recv().await {
        let Request::Events { events: new, answer, .. } = request else { continue };
        if arrival.send(()).is_err() {
            return;
        }
        let weather = *weather.lock().unwrap();
        match weather {
            Weather::Silent => {
                unanswered.push(answer);
                continue;
            }
            Weather::Broken => {
                drop(answer.send(Err(Unavailable::NotDurable("no room".into()))));
                continue;
            }
            Weather::Held => release.acquire().await.unwrap().forget(),
            Weather::Fair => {}
        }
        let receipts = {
            let mut kept = drafts.lock().unwrap();
            let first = kept.len() as u64;
            kept.extend(new);
            (first..kept.len() as u64).map(|src| Receipt::Logged { partition: 0, src }).collect()
        };
        drop(answer.send(Ok(receipts)));
    }
}
