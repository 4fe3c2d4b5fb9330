//! The past of a cluster, for what is read again: its tables, and single records of its topics.
//!
//! Invariant: the *visible* position of a partition is read before the lists, so what came before it is in them.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use pipeline::kafka::{self, EventReader};
use schemas::{ClickId, Event, Outcome, Time, bounds::ITEMS_PER_REPROCESS, name::fold as fold_name};
use tokio::{runtime::Handle, sync::watch};

use super::{
    lists::{List, scope},
    positions,
    read::{
        hits::bits,
        walk::{Bounds, buckets, entries},
    },
    store::Store,
    writes::Received,
};
use crate::{
    report::Range,
    reprocess::{
        history::TooLong,
        past::{At, Past, PastClick, PastHit},
    },
    tables::{Decision, StoredClick, decode},
};

/// Where it is read.
#[derive(Clone)]
pub struct Source {
    pub cluster: kafka::Cluster,
    pub partitions: u16,
    pub store: watch::Receiver<Arc<Store>>,
    pub runtime: Handle,
}

impl Source {
    /// What became of events that are visible. Blocking.
    pub fn outcomes(&self, places: &[At]) -> Result<Vec<Outcome>> {
        let mut reader = EventReader::new(&self.cluster);
        places.iter().map(|(partition, src)| reader.outcome(*partition, *src)).collect()
    }
}

/// Blocking, outside of the runtime's own threads.
pub struct OfCluster<'s> {
    of: &'s Source,
    store: Arc<Store>,
    events: EventReader,
    tenant: &'s str,
    account: &'s str,
}

impl<'s> OfCluster<'s> {
    pub fn new(of: &'s Source, tenant: &'s str, account: &'s str) -> Self {
        let store = Arc::clone(&of.store.borrow());
        Self { of, store, events: EventReader::new(&of.cluster), tenant, account }
    }

    /// Time, id and account of everything in a list.
    fn list(&self, list: List, scope: &str) -> Result<Vec<(i64, Vec<u8>, String)>> {
        let most = ITEMS_PER_REPROCESS * 4;
        let bounds = Bounds::of(Range::ALL);
        self.of.runtime.block_on(async {
            let mut found = Vec::new();
            let mut all = entries(&self.store, list, self.tenant, scope, &bounds);
            while let Some(entry) = all.try_next().await? {
                found.push((entry.key.time, entry.key.id, entry.account));
                if found.len() >= most {
                    return Err(TooLong.into());
                }
            }
            Ok(found)
        })
    }

    /// Hits of the account among the entries of a list.
    fn hits(&self, list: List, scope: &str) -> Result<Vec<PastHit>> {
        let found = self.list(list, scope)?.into_iter().filter(|(.., account)| account == self.account);
        self.of.runtime.block_on(async {
            let mut hits = BTreeSet::new();
            for (time, id, account) in found {
                type Row = (Option<i32>, Option<i64>, Option<Vec<u8>>, Option<i64>);
                let bucket = List::Hits.bucket(Time::from_ms(time));
                let values = (self.tenant, account, bucket, time, id);
                let row =
                    self.store.session.execute_unpaged(&self.store.reads.past_hit, values).await?.into_rows_result()?;
                hits.extend(row.maybe_first_row::<Row>()?.map(past).transpose()?.flatten());
            }
            Ok(hits.into_iter().collect())
        })
    }

    fn adjusts(&self, list: List, scope: &str) -> Result<Vec<(At, Time)>> {
        self.of.runtime.block_on(async {
            let bounds = Bounds::of(Range::ALL);
            let mut of_list = buckets(&self.store, list, self.tenant, scope, &bounds);
            let mut found = Vec::new();
            while let Some(bucket) = of_list.try_next().await? {
                let values = (list as i8, self.tenant, scope, bucket);
                let rows = self.store.session.execute_iter(self.store.reads.past_entries.clone(), values).await?;
                let mut rows = rows.rows_stream::<(i32, i64, i64)>()?;
                while let Some((partition, src, time)) = rows.try_next().await? {
                    found.push((at(partition, src)?, Time::from_ms(time)));
                }
            }
            Ok(found)
        })
    }
}

fn at(partition: i32, src: i64) -> Result<At> {
    Ok((u16::try_from(partition).context("a row of no partition")?, src as u64))
}

/// `None`: a part of the row is still on its way, so it is not visible yet.
fn past(row: (Option<i32>, Option<i64>, Option<Vec<u8>>, Option<i64>)) -> Result<Option<PastHit>> {
    let (Some(partition), Some(src), Some(received), again) = row else { return Ok(None) };
    let received: Received<'_> = decode(&received)?;
    let read_again = again.map(|src| src as u64);
    Ok(Some(PastHit { at: at(partition, src)?, log_time: received.log_time, read_again }))
}

impl Past for OfCluster<'_> {
    fn position(&mut self, partition: u16) -> Result<u64> {
        let read = positions::read(&self.store, self.of.partitions);
        Ok(self.of.runtime.block_on(read)?.next(partition))
    }

    fn event(&mut self, (partition, src): At) -> Result<Event> {
        self.events.get(partition, src)
    }

    fn hits_between(&mut self, from: Time, to: Time, is_meant: &dyn Fn(&Decision<'_>) -> bool) -> Result<Vec<PastHit>> {
        let mut found = self.of.runtime.block_on(async {
            let bounds = Bounds::of(Range { from, to });
            let mut of_account = buckets(&self.store, List::Hits, self.tenant, self.account, &bounds);
            let mut found = Vec::new();
            while let Some(bucket) = of_account.try_next().await? {
                type Row = (Option<i32>, Option<i64>, Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>);
                let values = (self.tenant, self.account, bucket, from.ms(), to.ms());
                let rows = self.store.session.execute_iter(self.store.reads.past_hits.clone(), values).await?;
                let mut rows = rows.rows_stream::<Row>()?;
                while let Some((partition, src, received, again, decision)) = rows.try_next().await? {
                    let Some(decision) = decision else { continue };
                    if is_meant(&decode(&decision)?) {
                        found.extend(past((partition, src, received, again))?);
                    }
                }
            }
            anyhow::Ok(found)
        })?;
        // Events are read fastest in the order of the log.
        found.sort_unstable();
        Ok(found)
    }

    fn click(&mut self, id: ClickId) -> Result<Option<PastClick>> {
        let Some((time, key, account)) = self.list(List::ClickId, &id.to_string())?.into_iter().next() else {
            return Ok(None);
        };
        let bucket = List::Clicks.bucket(Time::from_ms(time));
        let row = self.of.runtime.block_on(async {
            let values = (self.tenant, &account, bucket, time, key);
            let found =
                self.store.session.execute_unpaged(&self.store.reads.past_click, values).await?.into_rows_result()?;
            anyhow::Ok(found.maybe_first_row::<(i32, i64, Vec<u8>)>()?)
        })?;
        let Some((partition, src, data)) = row else { return Ok(None) };
        let log_time = decode::<StoredClick<'_>>(&data)?.log_time;
        Ok(Some(PastClick { at: at(partition, src)?, is_ours: account == self.account, log_time }))
    }

    fn clicks_named(&mut self, name: &str) -> Result<Vec<At>> {
        let mut clicks = Vec::new();
        for (_, id, _) in self.list(List::ClickName, &scope(self.account, name))? {
            clicks.extend(self.click(ClickId::from_bits(bits(&id)?))?.map(|click| click.at));
        }
        Ok(clicks)
    }

    fn hits_of_click(&mut self, id: ClickId) -> Result<Vec<PastHit>> {
        self.hits(List::HitClick, &id.to_string())
    }

    fn hits_named(&mut self, name: &str) -> Result<Vec<PastHit>> {
        self.hits(List::HitName, name)
    }

    fn adjusts_of_click(&mut self, id: ClickId) -> Result<Vec<(At, Time)>> {
        self.adjusts(List::AdjustClick, &id.to_string())
    }

    fn adjusts_of_label(&mut self, label: &str) -> Result<Vec<(At, Time)>> {
        self.adjusts(List::AdjustLabel, &scope(self.account, &fold_name(label)))
    }

    fn breathe(&mut self) -> Result<()> {
        Ok(())
    }
}
