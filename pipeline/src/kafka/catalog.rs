//! The catalog's topic: a thread that reads it into the view, one that finds its end, and one that writes to it.
//!
//! Owns: how far this process has read. Refuses: to answer for a record before it was read back, in the order in which
//! everybody reads it; to go on when Kafka has less than was read.
//! Invariant: a catalog that says it has caught up has everything that was acknowledged before it was asked.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    producer::{BaseProducer, BaseRecord, Producer},
};
use schemas::catalog::Record;
use tokio::sync::oneshot;

use super::{
    Cluster, Layout, Voice,
    copy::{Copy, Found},
    identity::Reports,
    records,
    session::same_cluster,
    topics::{Problem, Topic},
};
use crate::{
    Applied, Catalog, Unavailable,
    catalog::{Behind, CatchUp},
    lifecycle::{Beat, CancellationToken},
};

const POLL: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);
/// The end is looked up this often at most, whoever asks.
const PACE: Duration = Duration::from_secs(1);
/// For Kafka to say where the end is, and then for us to read up to it.
const END: Duration = Duration::from_secs(2);
const CATCH_UP: Duration = Duration::from_secs(3);
/// Requests that may wait for the end.
const WAITING: usize = 4_096;
/// Records that may wait to be written, and that are written together.
const WRITES: usize = 1_024;
const TOGETHER: usize = 64;
const DELIVERY: Duration = Duration::from_secs(5);

type WriteAnswer = oneshot::Sender<Result<Applied, Unavailable>>;

/// What the three threads share.
struct Shared {
    catalog: Arc<Catalog>,
    /// Offset that is read next.
    next: AtomicU64,
    /// Kafka has shown that it is this cluster; until then its end says nothing.
    confirmed: AtomicBool,
    /// Who waits for which record.
    waiting: Mutex<HashMap<String, Waiting>>,
}

/// A record is answered for when it was read back and its delivery was reported, in whichever order.
struct Waiting {
    answer: WriteAnswer,
    applied: Option<Applied>,
    delivered: bool,
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record that was sent twice is answered for by its first: the second one is stale by itself.
    fn note(&self, id: &str, applied: Option<Applied>, delivered: bool) {
        let mut all = self.waiting();
        let Some(waiting) = all.get_mut(id) else { return };
        waiting.applied = waiting.applied.or(applied);
        waiting.delivered |= delivered;
        if let (Some(applied), true) = (waiting.applied, waiting.delivered)
            && let Some(waiting) = all.remove(id)
        {
            waiting.answer.send(Ok(applied)).ok();
        }
    }
}

/// Takes records to be written; each is answered once it was read back.
#[derive(Clone)]
pub(super) struct CatalogWriter {
    writes: SyncSender<(Record, WriteAnswer)>,
}

impl CatalogWriter {
    /// Writes nothing.
    #[cfg(test)]
    pub(super) fn closed() -> Self {
        Self { writes: sync_channel(1).0 }
    }

    pub(super) fn put(&self, record: Record, answer: WriteAnswer) {
        match self.writes.try_send((record, answer)) {
            Ok(()) => {}
            Err(TrySendError::Full((_, answer))) => {
                answer.send(Err(Unavailable::Busy)).ok();
            }
            Err(TrySendError::Disconnected((_, answer))) => {
                answer.send(Err(Unavailable::Closed)).ok();
            }
        }
    }
}

pub(super) struct Parts {
    pub(super) cluster: Cluster,
    pub(super) layout: Layout,
    pub(super) confirmed: bool,
    pub(super) catalog: Arc<Catalog>,
    /// Where the copy is kept, and what it said.
    pub(super) copy: Option<(PathBuf, Option<Found>)>,
    pub(super) beat: Beat,
    pub(super) stop: CancellationToken,
}

/// Applies the copy, then starts the threads.
pub(super) fn start(mut parts: Parts) -> Result<(CatalogWriter, Vec<JoinHandle<Result<()>>>)> {
    let copy = match parts.copy.take() {
        None => None,
        Some((dir, found)) => {
            let copy = Copy::open(&dir, &parts.layout, found.as_ref())?;
            Some((copy, found))
        }
    };
    let mut next = 0;
    for (at, record) in copy.iter().filter_map(|(_, found)| found.as_ref()).flat_map(|found| &found.records) {
        // What was stale then is stale again.
        let _: Applied = parts.catalog.apply(record);
        next = at + 1;
    }
    let catalog = Arc::clone(&parts.catalog);
    let shared = Arc::new(Shared {
        catalog,
        next: AtomicU64::new(next),
        confirmed: AtomicBool::new(parts.confirmed),
        waiting: Mutex::default(),
    });
    let (asking, asked) = sync_channel(WAITING);
    parts.catalog.read_on_by(asking);
    let (writes, written) = sync_channel(WRITES);
    let mut end = End { cluster: parts.cluster.clone(), shared: Arc::clone(&shared), stop: parts.stop.clone() };
    let mut writer = Writer {
        cluster: parts.cluster.clone(),
        layout: parts.layout.clone(),
        confirmed: parts.confirmed,
        shared: Arc::clone(&shared),
        stop: parts.stop.clone(),
        producer: None,
    };
    let reader = Reader { shared, copy: copy.map(|(copy, _)| copy), parts };
    let thread = |name: &str, work: Box<dyn FnOnce() -> Result<()> + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("the thread {name}"))
    };
    let threads = vec![
        thread("catalog", Box::new(move || reader.run()))?,
        thread("catalog-end", Box::new(move || end.run(&asked)))?,
        thread("catalog-write", Box::new(move || writer.run(&written)))?,
    ];
    Ok((CatalogWriter { writes }, threads))
}

struct Reader {
    parts: Parts,
    shared: Arc<Shared>,
    copy: Option<Copy>,
}

impl Reader {
    fn run(mut self) -> Result<()> {
        let consumer = self.connect()?;
        self.parts.beat.set_ready(true);
        while !self.parts.stop.is_cancelled() {
            self.parts.beat.beat();
            match consumer.as_ref().and_then(|consumer| consumer.poll(POLL)) {
                Some(Ok(message)) => self.take(&message)?,
                Some(Err(error)) if is_shorter(&error) => return self.shortened(&error),
                Some(Err(error)) => tracing::debug!(%error, "the catalog cannot be read just now"),
                // Nothing more just now: the copy may catch up.
                None => self.sync_copy(),
            }
        }
        self.sync_copy();
        self.parts.beat.finish();
        Ok(())
    }

    /// `None` only after `stop`.
    fn connect(&mut self) -> Result<Option<BaseConsumer<Voice>>> {
        while !self.parts.confirmed && !self.parts.stop.is_cancelled() {
            match same_cluster(&self.parts.cluster, &self.parts.layout) {
                Ok(()) => {
                    self.parts.confirmed = true;
                    self.shared.confirmed.store(true, Ordering::Release);
                }
                Err(Problem::Wrong(why)) => bail!("{why}"),
                Err(Problem::Unreachable(why)) => {
                    tracing::debug!("{why}");
                    // The copy is good enough to serve from.
                    self.parts.beat.set_ready(true);
                    std::thread::sleep(RETRY);
                }
            }
        }
        if self.parts.stop.is_cancelled() {
            return Ok(None);
        }
        let consumer = self.parts.cluster.open_reader().context("the catalog's reader")?;
        let mut list = TopicPartitionList::new();
        let next = i64::try_from(self.shared.next.load(Ordering::Acquire)).context("an offset")?;
        list.add_partition_offset(&self.parts.cluster.topic(Topic::Catalog), 0, Offset::Offset(next))?;
        consumer.assign(&list).context("the catalog's topic")?;
        Ok(Some(consumer))
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let at = u64::try_from(message.offset()).context("an offset")?;
        if !records::is_identity(message.headers()) {
            match serde_json::from_slice::<Record>(message.payload().unwrap_or_default()) {
                Ok(record) => self.apply(at, &record),
                Err(error) => {
                    metrics::counter!("clickback_catalog_problems_total").increment(1);
                    tracing::error!(at, %error, "a record of the catalog cannot be read and is passed over");
                }
            }
        }
        self.shared.next.store(at + 1, Ordering::Release);
        metrics::gauge!("clickback_catalog_position").set((at + 1) as f64);
        Ok(())
    }

    fn apply(&mut self, at: u64, record: &Record) {
        let applied = self.shared.catalog.apply(record);
        self.shared.note(&record.id, Some(applied), false);
        if let Some(Err(error)) = self.copy.as_mut().map(|copy| copy.add(at, record)) {
            self.drop_copy(&error);
        }
    }

    fn sync_copy(&mut self) {
        if let Some(Err(error)) = self.copy.as_mut().map(Copy::sync) {
            self.drop_copy(&error);
        }
    }

    /// A copy that cannot be written ends where it is; the next start goes on with it.
    fn drop_copy(&mut self, error: &anyhow::Error) {
        tracing::error!("the catalog's copy is not kept any more: {error:#}");
        self.copy = None;
    }

    fn shortened(&mut self, error: &KafkaError) -> Result<()> {
        let next = self.shared.next.load(Ordering::Acquire);
        let aside = self.copy.take().map(Copy::set_aside).transpose()?;
        let aside = aside.map(|path| format!(" The copy is kept as {}.", path.display())).unwrap_or_default();
        bail!(
            "{} does not have record {next} any more ({error}): Kafka lost what it had acknowledged. The next start reads what is left.{aside}",
            self.parts.cluster.topic(Topic::Catalog)
        );
    }
}

/// The log no longer has the place that was asked for.
fn is_shorter(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset))
}

/// Looks up the end for all who ask, and waits until the reader is there.
struct End {
    cluster: Cluster,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl End {
    fn run(&mut self, asked: &Receiver<CatchUp>) -> Result<()> {
        let consumer = self.cluster.open_reader().context("the catalog's end")?;
        let topic = self.cluster.topic(Topic::Catalog);
        let mut last: Option<Instant> = None;
        while !self.stop.is_cancelled() {
            let first = match asked.recv_timeout(POLL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Who comes while the pace is kept is served by the same look-up.
            if let Some(rest) = last.and_then(|last| PACE.checked_sub(last.elapsed())) {
                std::thread::sleep(rest);
            }
            last = Some(Instant::now());
            let all: Vec<CatchUp> = std::iter::once(first).chain(asked.try_iter()).collect();
            let found = self.look(&consumer, &topic);
            all.into_iter().for_each(|answer| {
                answer.send(found).ok();
            });
        }
        Ok(())
    }

    fn look(&self, consumer: &BaseConsumer<Voice>, topic: &str) -> Result<(), Behind> {
        if !self.shared.confirmed.load(Ordering::Acquire) {
            return Err(Behind);
        }
        let (_, end) = consumer.fetch_watermarks(topic, 0, END).map_err(|_| Behind)?;
        let end = u64::try_from(end).unwrap_or(0);
        let until = Instant::now() + CATCH_UP;
        while self.shared.next.load(Ordering::Acquire) < end {
            if Instant::now() > until || self.stop.is_cancelled() {
                return Err(Behind);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// Writes records. Who asked is answered by the reader.
struct Writer {
    cluster: Cluster,
    layout: Layout,
    confirmed: bool,
    shared: Arc<Shared>,
    stop: CancellationToken,
    producer: Option<BaseProducer<Reports>>,
}

impl Writer {
    fn run(&mut self, written: &Receiver<(Record, WriteAnswer)>) -> Result<()> {
        while !self.stop.is_cancelled() {
            let first = match written.recv_timeout(POLL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let all: Vec<_> = std::iter::once(first).chain(written.try_iter().take(TOGETHER)).collect();
            let ids: Vec<String> = all.iter().map(|(record, _)| record.id.clone()).collect();
            if let Err(error) = self.write(all) {
                // Unknown, not failed: the record may still come. Whoever asked reads again before they try again.
                tracing::warn!("the catalog cannot be written: {error:#}");
                self.producer = None;
                let mut waiting = self.shared.waiting();
                for waiting in ids.iter().filter_map(|id| waiting.remove(id)) {
                    waiting.answer.send(Err(Unavailable::NotDurable(format!("{error:#}")))).ok();
                }
            } else {
                ids.iter().for_each(|id| self.shared.note(id, None, true));
            }
        }
        Ok(())
    }

    fn write(&mut self, all: Vec<(Record, WriteAnswer)>) -> Result<()> {
        let mut payloads = Vec::with_capacity(all.len());
        for (record, answer) in all {
            payloads.push((record.body.thing(), serde_json::to_vec(&record)?));
            self.shared.waiting().insert(record.id, Waiting { answer, applied: None, delivered: false });
        }
        if !self.confirmed {
            same_cluster(&self.cluster, &self.layout)?;
            self.confirmed = true;
        }
        let topic = self.cluster.topic(Topic::Catalog);
        let producer = match &self.producer {
            Some(producer) => producer,
            None => {
                let mut config = self.cluster.producer();
                config.set("message.timeout.ms", DELIVERY.as_millis().to_string()).set("linger.ms", "0");
                self.producer.insert(config.create_with_context(Reports::default())?)
            }
        };
        for (thing, payload) in &payloads {
            let kind = thing.split('/').next().unwrap_or_default();
            let record =
                BaseRecord::to(&topic).partition(0).key(thing).headers(records::typed(1, kind)).payload(payload);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(DELIVERY + Duration::from_secs(1))?;
        producer.context().all_delivered(payloads.len()).map_err(anyhow::Error::msg)
    }
}
