//! A new generation of the tables, built from the topics beside the live one, and then the switch.
//!
//! Owns: the tables that are being built. Refuses: to touch the live ones.
//! Invariant: the switch is one write of one row, after every source partition is nearly where the live tables are.
//! Interrupted, it leaves tables behind that nobody reads, and the next rebuild begins with dropping them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use pipeline::kafka::{Cluster, Layout, OutcomeReader};
use tokio::runtime::Handle;

use super::{
    flush::Writer,
    positions,
    store::{self, Database, Store},
};

const FETCHED_KBYTES: u32 = 16_384;
/// Rows and cells of one flush.
const FLUSH_ROWS: usize = 16_384;
/// So far behind the live tables a partition may be at the switch.
const NEAR: u64 = 1_000;
const WAIT: Duration = Duration::from_millis(200);

/// Answers with the number of outcomes in the new tables.
pub async fn rebuild(cluster: &Cluster, layout: &Layout, database: &Database) -> Result<u64> {
    let live = Store::open_any_form(database, &layout.id.to_string()).await?;
    let generation = live.generation + 1;
    for old in [live.generation.saturating_sub(1), generation] {
        live.drop_tables(old).await?;
    }
    store::create_tables(&live.session, &live.keyspace, generation).await?;
    store::set(&live.session, &live.keyspace, &format!("form-{generation}"), &store::FORM.to_string()).await?;
    let new = Store::of(Arc::clone(&live.session), &live.keyspace, generation).await?;
    loop {
        for partition in 0..layout.partitions {
            let (cluster, new) = (cluster.clone(), new.clone());
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || build(&cluster, partition, new, &runtime))
                .await?
                .with_context(|| format!("partition {partition}"))?;
        }
        let (old, built) =
            (positions::read(&live, layout.partitions).await?, positions::read(&new, layout.partitions).await?);
        if (0..layout.partitions).all(|partition| built.next(partition) + NEAR >= old.next(partition)) {
            store::set(&live.session, &live.keyspace, "live", &generation.to_string()).await?;
            return Ok((0..layout.partitions).map(|partition| built.next(partition) - 1).sum());
        }
    }
}

/// Brings one source partition to where its log ends by now. Continues where the tables are already.
fn build(cluster: &Cluster, partition: u16, store: Store, runtime: &Handle) -> Result<()> {
    let mut writer = runtime.block_on(Writer::open(store, partition))?;
    let mut reader = OutcomeReader::open(cluster, partition, writer.stand().place, FETCHED_KBYTES)?;
    let end = reader.end()?;
    loop {
        let met = reader.next(WAIT)?;
        match &met {
            Some(met) => writer.take(met)?,
            None if reader.offset() >= end => {}
            None => continue,
        }
        if met.is_none() || writer.waiting() >= FLUSH_ROWS {
            runtime.block_on(writer.flush())?;
        }
        if met.is_none() {
            // The conversions' topic is that of the live tables: it is read back from its beginning.
            return match runtime.block_on(writer.settle())? {
                true => runtime.block_on(writer.choose(0)),
                false => Ok(()),
            };
        }
    }
}
