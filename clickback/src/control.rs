//! How a command reaches the process that runs on a folder: a listener of its own on the loopback address, named in a
//! file of mode 0600 in the folder, together with a key that is drawn at every start.
//!
//! Owns: what may be asked of a running process from the command line. Refuses: everybody who cannot read the folder.
//! It is not part of the API listener, as that one may be bound to a network.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::post,
};
use pipeline::lifecycle::CancellationToken;
use schemas::catalog::Scope;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{listener, serve::Inside};

const FILE: &str = "control.json";
const CONNECTIONS: usize = 16;

#[derive(Serialize, Deserialize)]
struct Whereabouts {
    address: SocketAddr,
    key: String,
    pid: u32,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct KeyRequest {
    pub tenant: String,
    pub name: String,
    pub scope: Scope,
}

#[derive(Serialize, Deserialize, Debug)]
pub struct KeyAnswer {
    pub key: String,
}

#[derive(Serialize, Deserialize, Debug)]
pub struct RebuildAnswer {
    /// Outcomes that the new tables hold.
    pub outcomes: u64,
}

#[derive(Serialize, Deserialize)]
struct Refusal {
    error: String,
}

type Failed = (StatusCode, Json<Refusal>);

/// Removes the file when the process ends as it should. A file that a crash left is harmless: nobody listens there,
/// and the key is of no use any more.
pub struct Door {
    path: PathBuf,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control file was not removed");
        }
    }
}

/// Opens the door and serves it until `stop`.
pub async fn open(
    data: &Path,
    inside: Arc<Inside>,
    servers: &TaskTracker,
    stop: CancellationToken,
) -> anyhow::Result<Door> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the control listener")?;
    let key = schemas::id::short_name("", &pipeline::secrets::random::<32>());
    let whereabouts = Whereabouts { address: listener.local_addr()?, key: key.clone(), pid: std::process::id() };
    let path = data.join(FILE);
    write_private(&path, &serde_json::to_vec(&whereabouts)?)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    let router = Router::new()
        .route("/key", post(create_key))
        .route("/rebuild", post(rebuild))
        .layer(from_fn_with_state(Arc::new(key), admit))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(inside);
    servers.spawn(listener::serve(listener, router, CONNECTIONS, stop));
    Ok(Door { path })
}

/// Under its name there is only ever a whole file, and never one that others may read.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    fs::rename(fresh, path)
}

async fn admit(State(key): State<Arc<String>>, request: Request, next: Next) -> Result<Response, Failed> {
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let sent = sent.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    if !bool::from(sent.as_bytes().ct_eq(key.as_bytes())) {
        return Err((StatusCode::UNAUTHORIZED, Json(Refusal { error: "the control key is wrong".to_owned() })));
    }
    Ok(next.run(request).await)
}

fn failed(error: anyhow::Error) -> Failed {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(Refusal { error: format!("{error:#}") }))
}

async fn create_key(
    State(inside): State<Arc<Inside>>,
    Json(request): Json<KeyRequest>,
) -> Result<Json<KeyAnswer>, Failed> {
    let key = inside.new_key(&request).await.map_err(failed)?;
    Ok(Json(KeyAnswer { key }))
}

async fn rebuild(State(inside): State<Arc<Inside>>) -> Result<Json<RebuildAnswer>, Failed> {
    let outcomes = inside.rebuild().await.map_err(failed)?;
    Ok(Json(RebuildAnswer { outcomes }))
}

/// A process that runs on a folder.
pub struct Running {
    whereabouts: Whereabouts,
    http: reqwest::Client,
}

impl Running {
    /// `None` if no process left its whereabouts here, or the one that did is gone.
    pub async fn on(data: &Path) -> anyhow::Result<Option<Running>> {
        let path = data.join(FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("{} cannot be read", path.display()))?,
        };
        let whereabouts: Whereabouts =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is not a control file", path.display()))?;
        match tokio::net::TcpStream::connect(whereabouts.address).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error).context("the running process cannot be reached"),
        }
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy().build()?;
        Ok(Some(Running { whereabouts, http }))
    }

    pub async fn create_key(&self, request: &KeyRequest) -> anyhow::Result<KeyAnswer> {
        self.ask("key", request).await
    }

    pub async fn rebuild(&self) -> anyhow::Result<RebuildAnswer> {
        self.ask("rebuild", &()).await
    }

    async fn ask<B: Serialize, A: DeserializeOwned>(&self, what: &str, body: &B) -> anyhow::Result<A> {
        let url = format!("http://{}/{what}", self.whereabouts.address);
        let request = self.http.post(url).bearer_auth(&self.whereabouts.key).json(body);
        let response = request.send().await.context("the running process does not answer")?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            bail!("another program listens where process {} did; start clickback again", self.whereabouts.pid);
        }
        let bytes = response.bytes().await?;
        if !status.is_success() {
            let error = serde_json::from_slice(&bytes).map_or_else(|_| status.to_string(), |r: Refusal| r.error);
            bail!("the running process (pid {}) says: {error}", self.whereabouts.pid);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_private_and_replaced_as_a_whole() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn nobody_is_there_without_a_file_or_behind_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Running::on(dir.path()).await.unwrap().is_none());
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let old = Whereabouts { address: gone, key: "k".into(), pid: 1 };
        write_private(&dir.path().join(FILE), &serde_json::to_vec(&old).unwrap()).unwrap();
        assert!(Running::on(dir.path()).await.unwrap().is_none());
    }
}
