//! How events and catalog records reach the one writer of the log: a bounded queue.
//!
//! Owns: the queue's bounds, in requests, events and bytes.
//! Refuses: to wait for room. A full queue is `Busy` at once, so that a client hears it and not a time-out.
//! Invariant: `Ok` only after the writer said that the event is durable.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use schemas::{Event, EventBody, EventId, Time, Unnumbered, bounds, catalog::Record, event};
use tokio::sync::{mpsc, mpsc::error::TrySendError, oneshot};

use crate::Receipt;

/// Bytes of events that may wait for the writer.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// What an event costs beside its texts.
const EVENT_BYTES: usize = 1024;

/// An event before the writer of the log has numbered it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub id: EventId,
    pub tenant: String,
    pub time: Time,
    /// Which partition it belongs to.
    pub shard: u16,
    pub body: EventBody,
}

impl Draft {
    pub fn into_event(self, from: EventId, n: u64) -> Event {
        Event { v: event::VERSION, id: self.id, tenant: self.tenant, time: self.time, from, n, body: self.body }
    }

    /// Memory that it takes while it waits, roughly.
    fn weight(&self) -> usize {
        EVENT_BYTES
            + match &self.body {
                EventBody::Hit(hit) => 2 * (hit.raw.query.len() + hit.raw.body.as_ref().map_or(0, String::len)),
                EventBody::Reprocess(reprocess) => reprocess.items.len() * EVENT_BYTES,
                EventBody::Click(_) | EventBody::Tick | EventBody::Adjust(_) | EventBody::Rules(_) => 0,
            }
    }
}

/// An event for a writer that does not look into it: whoever made it has written it, while its texts were at hand.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    pub shard: u16,
    pub event: Unnumbered,
}

impl Written {
    fn of(draft: &Draft) -> Result<Self, Unavailable> {
        let event = Unnumbered::new(draft.id, &draft.tenant, draft.time, &draft.body)
            .map_err(|error| Unavailable::NotDurable(format!("an event cannot be written: {error}")))?;
        Ok(Self { shard: draft.shard, event })
    }
}

#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// The queue is full: try again.
    #[error("too many events wait for the log")]
    Busy,
    #[error("the log cannot be written: {0}")]
    NotDurable(String),
    #[error("the log is closed")]
    Closed,
}

/// What became of a catalog record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Applied {
    /// It is now the current version of its thing.
    Current,
    /// Its base was not the current version: it changed nothing.
    Stale,
}

/// What the writer takes from the queue. It answers each one exactly once.
#[derive(Debug)]
pub enum Request<E = Draft> {
    Events { events: Vec<E>, answer: oneshot::Sender<Result<Vec<Receipt>, Unavailable>>, held: Held },
    Catalog { record: Box<Record>, answer: oneshot::Sender<Result<Applied, Unavailable>>, held: Held },
}

#[derive(Clone)]
pub struct Appender {
    queue: Queue,
    waiting: Arc<Waiting>,
}

#[derive(Clone)]
enum Queue {
    Drafts(mpsc::Sender<Request<Draft>>),
    Written(mpsc::Sender<Request<Written>>),
}

/// To a writer that decides events. `capacity` bounds the requests, and also the events in them.
pub fn channel(capacity: usize) -> (Appender, mpsc::Receiver<Request<Draft>>) {
    let (queue, receiver) = mpsc::channel(capacity.max(1));
    (Appender { queue: Queue::Drafts(queue), waiting: Waiting::with_room(capacity) }, receiver)
}

/// To a writer that only numbers events.
pub fn written_channel(capacity: usize) -> (Appender, mpsc::Receiver<Request<Written>>) {
    let (queue, receiver) = mpsc::channel(capacity.max(1));
    (Appender { queue: Queue::Written(queue), waiting: Waiting::with_room(capacity) }, receiver)
}

impl Appender {
    pub async fn append(&self, draft: Draft) -> Result<Receipt, Unavailable> {
        let receipts = self.append_all(vec![draft]).await?;
        receipts.into_iter().next().ok_or(Unavailable::Closed)
    }

    /// All in one batch: `Ok` says that all of them are durable. An error says that none is, in one process; in a cluster
    /// it is not known of which. The receipts are in the order of the drafts.
    pub async fn append_all(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, Unavailable> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let held = Waiting::hold(&self.waiting, drafts.len(), drafts.iter().map(Draft::weight).sum())?;
        let (answer, answered) = oneshot::channel();
        match &self.queue {
            Queue::Drafts(queue) => send(queue, Request::Events { events: drafts, answer, held })?,
            Queue::Written(queue) => {
                let events = drafts.iter().map(Written::of).collect::<Result<_, _>>()?;
                drop(drafts);
                send(queue, Request::Events { events, answer, held })?;
            }
        }
        answered.await.unwrap_or(Err(Unavailable::Closed))
    }

    /// Answers after the catalog view of this process has applied or refused the record.
    pub async fn append_catalog(&self, record: Record) -> Result<Applied, Unavailable> {
        let held = Waiting::hold(&self.waiting, 1, EVENT_BYTES)?;
        let (answer, answered) = oneshot::channel();
        let record = Box::new(record);
        match &self.queue {
            Queue::Drafts(queue) => send(queue, Request::Catalog { record, answer, held })?,
            Queue::Written(queue) => send(queue, Request::Catalog { record, answer, held })?,
        }
        answered.await.unwrap_or(Err(Unavailable::Closed))
    }
}

fn send<E>(queue: &mpsc::Sender<Request<E>>, request: Request<E>) -> Result<(), Unavailable> {
    queue.try_send(request).map_err(|error| match error {
        TrySendError::Full(_) => Unavailable::Busy,
        TrySendError::Closed(_) => Unavailable::Closed,
    })
}

/// Events and bytes of the requests that the writer has not taken yet. They are counted in the request and not by the
/// caller: one that goes away leaves its request in the queue.
#[derive(Debug)]
struct Waiting {
    events: AtomicUsize,
    bytes: AtomicUsize,
    max_events: usize,
}

/// A request's share of the queue's bounds; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    of: Arc<Waiting>,
    events: usize,
    bytes: usize,
}

impl Waiting {
    fn with_room(capacity: usize) -> Arc<Self> {
        let max_events = capacity.max(bounds::CLICKS_PER_IMPORT);
        Arc::new(Self { events: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_events })
    }

    /// A request that is too large for the bounds by itself still gets through when nothing else waits.
    fn hold(this: &Arc<Self>, events: usize, bytes: usize) -> Result<Held, Unavailable> {
        let events_before = this.events.fetch_add(events, Relaxed);
        let bytes_before = this.bytes.fetch_add(bytes, Relaxed);
        let held = Held { of: Arc::clone(this), events, bytes };
        let fits = events_before + events <= this.max_events && bytes_before + bytes <= QUEUE_BYTES;
        if fits || events_before == 0 { Ok(held) } else { Err(Unavailable::Busy) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.events.fetch_sub(self.events, Relaxed);
        self.of.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::event::{Hit, Raw};

    fn tick(n: u64) -> Draft {
        let time = Time::from_ms(1_000);
        Draft { id: EventId::new(time, 0, n), tenant: "t".into(), time, shard: 0, body: EventBody::Tick }
    }

    fn large_hit(bytes: usize) -> Draft {
        let hit = Hit {
            account: "a".into(),
            program: "generic".into(),
            raw: Raw { query: "x".repeat(bytes), ..Raw::default() },
            reading: event::Reading::default(),
            settings: event::HitSettings {
                lookback_days: 1,
                lifetime_days: 1,
                waiting_days: 1,
                default_goal: "sales".into(),
                default_dedup: schemas::goal::Dedup::Once,
                default_repeat_window_s: 0,
            },
        };
        Draft { body: EventBody::Hit(hit), ..tick(0) }
    }

    #[tokio::test]
    async fn full_is_busy_at_once_and_room_is_room_again() {
        let (appender, mut queue) = channel(2);
        let mut first = Box::pin(appender.append(tick(1)));
        let mut second = Box::pin(appender.append(tick(2)));
        assert!(futures_poll(&mut first).await.is_none() && futures_poll(&mut second).await.is_none());
        assert_eq!(appender.append(tick(3)).await, Err(Unavailable::Busy));

        let Some(Request::Events { events, answer, .. }) = queue.recv().await else { panic!("an event was queued") };
        assert_eq!(events, [tick(1)]);
        answer.send(Ok(vec![Receipt::Logged { partition: 0, src: 9 }])).unwrap();
        assert_eq!(first.await, Ok(Receipt::Logged { partition: 0, src: 9 }));
        assert!(futures_poll(&mut Box::pin(appender.append(tick(4)))).await.is_none());
    }

    #[tokio::test]
    async fn bytes_are_bounded_too() {
        let (appender, mut queue) = channel(1_000);
        let mut large = Box::pin(appender.append(large_hit(QUEUE_BYTES)));
        assert!(futures_poll(&mut large).await.is_none(), "alone, even a very large one is taken");
        assert_eq!(appender.append(tick(1)).await, Err(Unavailable::Busy));
        drop(large);
        assert_eq!(appender.append(tick(1)).await, Err(Unavailable::Busy), "it is still in the queue");
        drop(queue.recv().await);
        assert!(futures_poll(&mut Box::pin(appender.append(tick(1)))).await.is_none());
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_is_closed() {
        let (appender, mut queue) = channel(8);
        let mut waiting = Box::pin(appender.append(tick(1)));
        assert!(futures_poll(&mut waiting).await.is_none());
        drop(queue.recv().await);
        assert_eq!(waiting.await, Err(Unavailable::Closed));
        drop(queue);
        assert_eq!(appender.append(tick(2)).await, Err(Unavailable::Closed));
        assert_eq!(appender.append_all(Vec::new()).await, Ok(Vec::new()));
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(out) => std::task::Poll::Ready(Some(out)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
