//! The load generator: keep-alive connections, as fast as answers come or at a given rate.
//!
//! At a given rate a request's time is counted from the moment when it was due, so a stall of the server is seen by
//! all requests that it delays, not only by the ones on the wire.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What was sent and how it went.
pub struct Outcome {
    pub wall: Duration,
    /// Microseconds.
    pub latency: Histogram<u64>,
    pub requests: usize,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

pub struct Plan<'a> {
    pub address: &'a str,
    pub connections: usize,
    /// Requests per second of all connections together; `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// What every answer must begin with: the status line up to the code.
    pub status: &'static str,
}

/// Gets the index of a request and the head of its answer.
pub type Seen = Arc<dyn Fn(usize, &str) + Send + Sync>;

/// Sends all requests once, spread over the connections; `seen` gets every answer's head.
pub async fn send(plan: &Plan<'_>, requests: Arc<Vec<String>>, seen: Seen) -> Result<Outcome> {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..plan.connections {
        let worker = Worker {
            stream: TcpStream::connect(plan.address).await.context("connect")?,
            buffer: Vec::with_capacity(4_096),
            status: plan.status,
        };
        worker.stream.set_nodelay(true)?;
        workers.push(tokio::spawn(work(worker, requests.clone(), next.clone(), start, plan.rate, seen.clone())));
    }
    let mut latency = Histogram::new(3)?;
    for worker in workers {
        latency.add(worker.await??)?;
    }
    Ok(Outcome { wall: start.elapsed(), latency, requests: requests.len() })
}

/// As `send`; gives this header of every answer, too.
pub async fn send_for_header(
    plan: &Plan<'_>,
    requests: Arc<Vec<String>>,
    name: &'static str,
) -> Result<(Outcome, Vec<String>)> {
    let values = Arc::new(Mutex::new(vec![String::new(); requests.len()]));
    let collected = values.clone();
    let seen: Seen = Arc::new(move |index, head| {
        if let (Ok(mut values), Some(value)) = (collected.lock(), header(head, name)) {
            value.clone_into(&mut values[index]);
        }
    });
    let outcome = send(plan, requests, seen).await?;
    let values = values.lock().map(|values| values.clone()).unwrap_or_default();
    Ok((outcome, values))
}

async fn work(
    mut worker: Worker,
    requests: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    start: Instant,
    rate: Option<f64>,
    seen: Seen,
) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new(3)?;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(index) else { return Ok(latency) };
        let due = match rate {
            Some(rate) => {
                let due = start + Duration::from_secs_f64(index as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                due
            }
            None => Instant::now(),
        };
        worker.ask(request, index, &seen).await?;
        latency.record(due.elapsed().as_micros() as u64)?;
    }
}

struct Worker {
    stream: TcpStream,
    buffer: Vec<u8>,
    status: &'static str,
}

impl Worker {
    async fn ask(&mut self, request: &str, index: usize, seen: &Seen) -> Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed after `{}`", String::from_utf8_lossy(&self.buffer));
            }
            if let Some(head) = head_of_whole(&self.buffer) {
                if !head.starts_with(self.status) {
                    bail!("answered `{}`", String::from_utf8_lossy(&self.buffer));
                }
                seen(index, head);
                return Ok(());
            }
        }
    }
}

/// The head, once the whole answer is there.
fn head_of_whole(answer: &[u8]) -> Option<&str> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let length = header(head, "content-length").and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
    (answer.len() >= end + 4 + length).then_some(head)
}

/// A header's value; names in heads of our servers are lower case.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
