//! One process on one folder: the log's writer, the matcher, the projector and both listeners, and how they start
//! and end together.
//!
//! Owns: the order of start and stop. Refuses: to go on when one part has ended; the process ends, and the next start
//! recovers from the log. Invariant: on an orderly stop everything answered is in the tables, too.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use ingest::IngestConfig;
use matcher::embedded::Parts;
use pipeline::{
    Appender, Applied, Catalog, Log, LogEnd, Sealer,
    lifecycle::{CancellationToken, Health, stop_signal},
    telemetry::Metrics,
};
use projector::{
    api::{ApiConfig, ApiState, auth::AdminKey},
    fresh::Freshness,
    reprocess::Source,
    run::Projector,
};
use schemas::{bounds, catalog::Scope};
use tokio_util::task::TaskTracker;

use crate::{
    cli::{PublicArgs, ServeArgs},
    control::{self, Door, KeyRequest},
    keys::{DEFAULT_TENANT, Grant},
    listener,
};

/// Batches that the projector may be behind before it reads them from the log.
const BATCHES: usize = 64;
/// A part that has not moved for this long is stuck, and `/livez` says so.
pub const STUCK: Duration = Duration::from_secs(30);
pub const LOOK: Duration = Duration::from_millis(200);
/// For requests under way after the signal. The threads' last writes come on top; all of it stays below 30 s.
pub const DRAIN: Duration = Duration::from_secs(22);
const ADMIN_KEY: &str = "CLICKBACK_ADMIN_KEY";

pub struct Start<'a> {
    pub data: &'a Path,
    pub serve: &'a ServeArgs,
    /// Make the admin key of the tenant `default` if it has no key at all.
    pub first_key: bool,
}

/// What the control listener and the demo may do with a running process.
pub struct Inside {
    catalog: Arc<Catalog>,
    appender: Appender,
    projector: Arc<Projector>,
}

impl Inside {
    pub async fn new_key(&self, request: &KeyRequest) -> anyhow::Result<String> {
        self.put_key(&Grant::new(&request.tenant, &request.name, request.scope)).await
    }

    pub async fn put_key(&self, grant: &Grant) -> anyhow::Result<String> {
        let key = grant.draw();
        let record = grant.record(&self.catalog.view(), &key);
        match self.appender.append_catalog(record).await.context("the key cannot be recorded")? {
            Applied::Current => Ok(key),
            Applied::Stale => bail!("the key was changed by somebody else at the same time: try again"),
        }
    }

    /// Answers with the number of outcomes in the new tables.
    pub async fn rebuild(&self) -> anyhow::Result<u64> {
        self.projector.rebuild().await?;
        Ok(*self.projector.visible.borrow())
    }
}

/// A process that is ready.
pub struct Process {
    pub ingest: SocketAddr,
    pub api: SocketAddr,
    pub public_url: String,
    /// Of the first start; it is known now and never again.
    pub first_key: Option<String>,
    pub inside: Arc<Inside>,
    matcher: JoinHandle<anyhow::Result<()>>,
    servers: TaskTracker,
    stop: CancellationToken,
    halt: CancellationToken,
    _door: Door,
}

/// The threads that end when nobody can send them anything any more: after the runtime with all its tasks.
#[must_use]
pub struct Threads {
    matcher: JoinHandle<anyhow::Result<()>>,
    projector: Arc<Projector>,
    halt: CancellationToken,
}

impl Process {
    pub async fn start(start: Start<'_>) -> anyhow::Result<Process> {
        let ingest = listener::bind(start.serve.public.ingest, "--ingest").await?;
        let api = listener::bind(start.serve.api, "--api").await?;
        let (ingest_address, api_address) = (ingest.local_addr()?, api.local_addr()?);
        let public_url = public_url(&start.serve.public, ingest_address);
        let metrics = Metrics::install()?;
        let health = Health::new(STUCK);

        let log = Log::open(start.data)?;
        let catalog = Arc::new(load_catalog(start.data, &log)?);
        let (appender, requests) = pipeline::append::channel(bounds::APPEND_QUEUE);
        let end = Arc::new(LogEnd::new(log.position().next));
        let (batches, taken) = mpsc::sync_channel(BATCHES);
        let beat = health.component("projector");
        let projector = Arc::new(projector::run::spawn(start.data, log.reader()?, taken, Arc::clone(&end), beat)?);
        let inside = Arc::new(Inside { catalog, appender, projector });

        let (stop, halt) = (CancellationToken::new(), CancellationToken::new());
        let servers = TaskTracker::new();
        let parts = Parts {
            dir: start.data.to_owned(),
            log,
            requests,
            catalog: Arc::clone(&inside.catalog),
            batches,
            end: Arc::clone(&end),
            beat: health.component("matcher"),
            stop: halt.clone(),
        };
        let state = ApiState::new(ApiConfig {
            catalog: Arc::clone(&inside.catalog),
            appender: inside.appender.clone(),
            reports: inside.projector.reports.clone(),
            fresh: Freshness::Folder { visible: inside.projector.visible.clone(), end },
            past: Source::Folder(start.data.to_owned()),
            public_url: public_url.clone(),
            admin: admin_key(),
            health,
            metrics,
        });
        // API and control are there before the matcher has recovered: the one says so on /readyz, the other waits.
        let router = projector::api::router(state.clone());
        servers.spawn(listener::serve(api, router, bounds::API_CONNECTIONS, stop.clone()));
        let door = control::open(start.data, Arc::clone(&inside), &servers, stop.clone()).await?;
        let matcher = tokio::task::spawn_blocking(move || matcher::embedded::start(parts)).await??;
        projector::api::resume_reprocesses(&state);
        let first_key = if start.first_key { first_key(&inside).await? } else { None };

        let config =
            IngestConfig { trusted_proxies: start.serve.public.trusted_proxy.clone(), ..IngestConfig::default() };
        let catalog = Arc::clone(&inside.catalog);
        servers.spawn(ingest::serve(ingest, config, catalog, inside.appender.clone(), stop.clone()));
        Ok(Process {
            ingest: ingest_address,
            api: api_address,
            public_url,
            first_key,
            inside,
            matcher,
            servers,
            stop,
            halt,
            _door: door,
        })
    }

    /// Returns when a part has ended by itself; why stands in what `Threads::join` gives.
    pub async fn ended(&self) {
        let mut look = tokio::time::interval(LOOK);
        let mut visible = self.inside.projector.visible.clone();
        let projector = async { while visible.changed().await.is_ok() {} };
        let matcher = async {
            while !self.matcher.is_finished() {
                look.tick().await;
            }
        };
        tokio::select! {
            () = projector => tracing::error!("the projector ended"),
            () = matcher => tracing::error!("the matcher ended"),
        }
    }

    /// Stops the listeners and answers what was begun. The rest ends with the runtime and with `Threads::join`.
    pub async fn stop(self) -> Threads {
        tracing::info!("stopping");
        tokio::spawn(second_signal());
        self.stop.cancel();
        self.servers.close();
        if tokio::time::timeout(DRAIN, self.servers.wait()).await.is_err() {
            tracing::warn!("requests that were still under way are cut off");
        }
        Threads { matcher: self.matcher, projector: Arc::clone(&self.inside.projector), halt: self.halt }
    }
}

impl Threads {
    /// Call it when the runtime is gone. A reading that still goes on is not waited for: it can append nothing more.
    pub fn join(self) -> anyhow::Result<()> {
        self.halt.cancel();
        let matcher = self.matcher.join().map_err(|_| anyhow!("the matcher panicked")).flatten();
        let projector = match Arc::into_inner(self.projector) {
            Some(projector) => projector.join(),
            None => Err(anyhow!("the projector is still in use")),
        };
        matcher.context("the matcher ended")?;
        projector.context("the projector ended")
    }
}

/// Who asks twice does not want to wait. What was answered is in the log; the next start makes up for the rest.
pub async fn second_signal() {
    if stop_signal().await.is_ok() {
        tracing::warn!("stopped at once");
        std::process::exit(1);
    }
}

/// How the public listener is reached.
pub fn public_url(args: &PublicArgs, listener: SocketAddr) -> String {
    let url = args.public_url.clone().unwrap_or_else(|| format!("http://{listener}"));
    if args.public_url.is_none() && listener.ip().is_unspecified() {
        tracing::warn!("links and postback URLs begin with {url}, where nobody reaches them: set --public-url");
    }
    url
}

pub fn load_catalog(data: &Path, log: &Log) -> anyhow::Result<Catalog> {
    let sealer = Arc::new(Sealer::open_or_create(data)?);
    Catalog::load(&log.reader()?, sealer).context("the catalog cannot be read")
}

pub fn admin_key() -> Option<AdminKey> {
    std::env::var(ADMIN_KEY).ok().filter(|key| !key.is_empty()).map(|key| AdminKey::new(&key))
}

/// Without a key nobody could ever use the folder, so the first start makes one, unless one is configured.
async fn first_key(inside: &Inside) -> anyhow::Result<Option<String>> {
    if admin_key().is_some() || inside.catalog.view().keys(DEFAULT_TENANT).next().is_some() {
        return Ok(None);
    }
    inside.put_key(&Grant::new(DEFAULT_TENANT, "first admin key", Scope::Admin)).await.map(Some)
}
