//! `clickback.conversions`: the whole current state of each conversion, for connectors.
//!
//! Owns: the records of one source partition; they stand in the partition of the same number.
//! Refuses: to send from memory alone: a record is what the tables hold.
//! Invariant: the last record of a key is as new as the tables at the place to restart from. One that was sent late by a
//! process that had lost the partition is met here again, and what is newer is sent behind it.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use lru::LruCache;
use pipeline::kafka::{
    Cluster, Sender, Topic, Voice,
    records::{Encoded, typed},
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use schemas::{ConversionId, ConversionRecord};

use super::{
    read::conversions::{current, versions},
    store::{AT_ONCE, Store},
};
use crate::tables::StoredConversion;

/// Versions that were sent lately.
const RECENT: usize = 100_000;
/// Records that are read back at once.
const READ_AT_ONCE: usize = 1_000;
const ANSWER: Duration = Duration::from_secs(5);

pub struct Conversions {
    store: Store,
    sender: Sender,
    back: BaseConsumer<Voice>,
    /// The offset after the last record that was read back.
    read: u64,
    recent: LruCache<ConversionId, u32>,
}

/// What can be told from a record without knowing all its fields.
#[derive(serde::Deserialize)]
struct Head {
    id: ConversionId,
    version: u32,
}

impl Conversions {
    /// Reads back from `from` on, or from the beginning where that is gone.
    pub async fn open(cluster: &Cluster, store: Store, partition: u16, from: u64) -> Result<Self> {
        let back = cluster.open_reader().context("the Kafka client cannot be set up")?;
        let topic = cluster.topic(Topic::Conversions);
        let (first, end) = back.fetch_watermarks(&topic, i32::from(partition), ANSWER)?;
        let from = i64::try_from(from).unwrap_or_default().clamp(first, end);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&topic, i32::from(partition), Offset::Offset(from))?;
        back.assign(&place)?;
        Ok(Self {
            store,
            sender: Sender::open(cluster, partition)?,
            back,
            read: u64::try_from(from).unwrap_or_default(),
            recent: LruCache::new(NonZeroUsize::new(RECENT).context("a cache of nothing")?),
        })
    }

    pub fn read(&self) -> u64 {
        self.read
    }

    /// Sends what the tables hold of these conversions.
    pub async fn send(&mut self, ids: impl IntoIterator<Item = ConversionId>) -> Result<()> {
        let read = stream::iter(ids).map(|id| self.record(id)).buffer_unordered(AT_ONCE);
        let records: Vec<Option<ConversionRecord>> = read.try_collect().await?;
        for record in records.into_iter().flatten() {
            self.recent.put(record.id, record.version);
            let key = record.id.to_string();
            let payload = serde_json::to_vec(&record)?;
            self.sender.send(Topic::Conversions, Encoded { key, headers: typed(1, "conversion"), payload })?;
        }
        Ok(self.sender.push()?)
    }

    /// The current state, which takes what is true of the click from the first version.
    async fn record(&self, id: ConversionId) -> Result<Option<ConversionRecord>> {
        let versions = versions(&self.store, &id.0).await?;
        let Some(first) = versions.first() else { return Ok(None) };
        Ok(Some(record(&first.tenant, &first.account, &current(&versions)?)))
    }

    /// Looks at what stands on the topic by now, and sends again where that is older than the tables.
    pub async fn read_back(&mut self) -> Result<()> {
        for _ in 0..READ_AT_ONCE {
            let head = match self.back.poll(Duration::ZERO) {
                None => return Ok(()),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the conversions are not read back now");
                    return Ok(());
                }
                Some(Ok(message)) => {
                    self.read = u64::try_from(message.offset()).unwrap_or_default() + 1;
                    // Tombstones and the identity record are nobody's state.
                    message.payload().and_then(|payload| serde_json::from_slice::<Head>(payload).ok())
                }
            };
            let Some(Head { id, version }) = head else { continue };
            let known = match self.recent.get(&id) {
                Some(known) => *known,
                None => self.record(id).await?.map_or(0, |record| record.version),
            };
            if version < known {
                metrics::counter!("clickback_projector_conversions_mended_total").increment(1);
                self.send([id]).await?;
            }
        }
        Ok(())
    }

    pub fn is_delivered(&self, wait: Duration) -> bool {
        self.sender.is_delivered(wait)
    }
}

fn record(tenant: &str, account: &str, row: &StoredConversion<'_>) -> ConversionRecord {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let [sub1, sub2, sub3, sub4, sub5] = row.origin.subs.map(owned);
    ConversionRecord {
        v: schemas::event::VERSION,
        id: row.id,
        version: row.version,
        tenant: tenant.to_owned(),
        account: account.to_owned(),
        program: row.program.to_owned(),
        link: owned(row.origin.link),
        click: row.click,
        click_time: row.click_time,
        dyn_: owned(row.origin.dyn_),
        sub1,
        sub2,
        sub3,
        sub4,
        sub5,
        goal: row.goal.to_owned(),
        count: row.count,
        state: row.state,
        earning: row.earning,
        value: row.value,
        currency: row.currency,
        tid: owned(row.tid),
        player: owned(row.player),
        time: row.time,
        updated: row.updated,
        withdrawn: row.withdrawn,
    }
}
