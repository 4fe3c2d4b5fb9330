//! The listener: connections, their bounds, and the end of both.
//!
//! Refuses a connection that makes no progress, however it goes about it: a head or a body that does not arrive,
//! an answer that is not read, silence. What is no HTTP is refused by the HTTP parser (400, 414 or 431), counted, and
//! not recorded.
//! Invariant: never more connections than the bound; after `shutdown` every request that was begun is answered or
//! its time is up.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pipeline::{Appender, Catalog};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{IngestConfig, edge::Edge, wire::Wire};

/// A longer head is refused by the HTTP parser. It has room beyond the bounds of URI and headers, so that the
/// refusal can say which of them it was.
pub(crate) const HEAD_BUFFER: usize = 128 * 1024;
/// Pause after the system had no file or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the public edge until `shutdown`, then drains.
pub async fn serve(
    listener: TcpListener,
    config: IngestConfig,
    catalog: Arc<Catalog>,
    log: Appender,
    shutdown: CancellationToken,
) {
    let edge = Arc::new(Edge::new(config, catalog, log));
    let slots = Arc::new(Semaphore::new(edge.config.connections));
    let connections = TaskTracker::new();
    while let Some(Ok(slot)) = shutdown.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await {
        let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                let served = serve_connection(Arc::clone(&edge), stream, peer, shutdown.child_token());
                connections.spawn(async move {
                    served.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    // Every connection keeps to the drain time by itself; the rest is for tasks that are just starting.
    if timeout(edge.config.drain + Duration::from_secs(1), connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections were cut off at the end of the drain time");
    }
}

/// Requests of one connection: if none is being answered and none was since the last look, it is stuck or idle.
#[derive(Default)]
struct Progress {
    begun: AtomicU32,
    ended: AtomicU32,
}

struct Connection {
    edge: Arc<Edge>,
    peer: SocketAddr,
    progress: Progress,
}

impl Connection {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<crate::answer::Answer, Infallible> {
        self.progress.begun.fetch_add(1, Relaxed);
        let answer = self.edge.answer(request, self.peer).await;
        self.progress.ended.fetch_add(1, Relaxed);
        Ok(answer)
    }

    fn is_stuck(&self, seen: &mut u32) -> bool {
        let ended = self.progress.ended.load(Relaxed);
        let before = std::mem::replace(seen, ended);
        ended == before && ended == self.progress.begun.load(Relaxed)
    }
}

async fn serve_connection(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection went away at once");
        return;
    }
    edge.meters.connections.increment(1.0);
    let (patience, drain) = (edge.config.patience, edge.config.drain);
    let connection = Arc::new(Connection { edge, peer, progress: Progress::default() });
    let served = Arc::clone(&connection);
    let mut http = pin!(
        http1::Builder::new()
            // One timer per connection, below, does the work of this one per request.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BUFFER)
            .half_close(true)
            // Answers are short: a copy costs less than a list of pieces.
            .writev(false)
            .serve_connection(
                TokioIo::new(Wire::new(stream)),
                service_fn(move |request| Arc::clone(&served).answer(request))
            )
    );
    // A timer and a token take locks whenever they are polled, and a request polls its connection twice. In here they are
    // polled when they have something to say.
    let mut calls = FuturesUnordered::from_iter([call(patience, Some(shutdown.clone()))]);
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            ended = http.as_mut() => {
                if let Err(error) = ended {
                    if error.is_parse() {
                        connection.edge.meters.unparsed.increment(1);
                    }
                    tracing::debug!(%error, "a connection ended early");
                }
                break;
            }
            Some(called) = calls.next() => match called {
                Call::Look if connection.is_stuck(&mut seen) => break,
                Call::Look => calls.push(call(patience, Some(shutdown.clone()))),
                Call::Drain => {
                    http.as_mut().graceful_shutdown();
                    calls.push(call(drain, None));
                }
                Call::End => break,
            }
        }
    }
    connection.edge.meters.connections.decrement(1.0);
}

/// What comes to a connection from outside.
enum Call {
    /// Time to see whether it is stuck.
    Look,
    /// No more requests after those that were begun.
    Drain,
    /// The drain time is up.
    End,
}

async fn call(after: Duration, shutdown: Option<CancellationToken>) -> Call {
    let Some(shutdown) = shutdown else {
        sleep(after).await;
        return Call::End;
    };
    match timeout(after, shutdown.cancelled()).await {
        Ok(()) => Call::Drain,
        Err(_) => Call::Look,
    }
}
