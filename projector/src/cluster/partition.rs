//! One source partition: reads its outcomes, folds them, writes them to the database.
//!
//! Owns: the loop from one beginning to the next doubt. Refuses: to keep anything in memory over a doubt.
//! Invariant: after any error it begins again from the place to restart from.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use metrics::{counter, gauge};
use pipeline::{
    kafka::{Cluster, Diverged, OutcomeReader},
    lifecycle::CancellationToken,
};
use tokio::{runtime::Handle, sync::watch};

use super::{conversions::Conversions, flush::Writer, store::Store};

/// The longest time that something taken waits for its flush.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Rows and cells of one flush; more would only make it wait longer.
const FLUSH_ROWS: usize = 16_384;
/// How often the place to restart from is looked at while nothing comes.
const SETTLE: Duration = Duration::from_secs(5);
/// For what was sent to be reported as delivered.
const DELIVERY: Duration = Duration::from_secs(5);
const FETCHED_KBYTES: u32 = 16_384;
/// Between two beginnings, when something is wrong.
const PAUSE: Duration = Duration::from_secs(1);

pub enum End {
    Stopped,
    /// An alarm was raised: nobody can go on before somebody has looked at it.
    Halted,
}

pub struct Partition {
    pub cluster: Cluster,
    pub number: u16,
    /// The generation that is read; it is followed when it changes.
    pub store: watch::Receiver<Arc<Store>>,
    pub runtime: Handle,
    pub stop: CancellationToken,
}

impl Partition {
    pub fn run(self) -> Result<End> {
        let label = self.number.to_string();
        gauge!("clickback_projector_halted", "partition" => label.clone()).set(0.0);
        while !self.stop.is_cancelled() {
            match self.live() {
                Ok(()) => {}
                Err(error) if error.is::<Diverged>() => {
                    gauge!("clickback_projector_halted", "partition" => label).set(1.0);
                    tracing::error!(partition = self.number, "ALARM, the partition is halted: {error:#}");
                    return Ok(End::Halted);
                }
                Err(error) => {
                    counter!("clickback_projector_errors_total", "partition" => label.clone()).increment(1);
                    tracing::warn!(partition = self.number, "begins again: {error:#}");
                    let pause = self.stop.cancelled();
                    // Who is stopped meanwhile does not wait.
                    drop(self.runtime.block_on(async { tokio::time::timeout(PAUSE, pause).await }));
                }
            }
        }
        Ok(End::Stopped)
    }

    /// From the place to restart from to the next doubt, to a new generation, or to the end.
    fn live(&self) -> Result<()> {
        let store = Arc::clone(&self.store.borrow());
        let mut writer = self.runtime.block_on(Writer::open((*store).clone(), self.number))?;
        let read = writer.restart().read;
        let opened = Conversions::open(&self.cluster, (*store).clone(), self.number, read);
        let mut conversions = self.runtime.block_on(opened)?;
        let mut reader = OutcomeReader::open(&self.cluster, self.number, writer.stand().place, FETCHED_KBYTES)?;
        tracing::info!(partition = self.number, from = writer.stand().place.position.next, tables = ?store, "begins");
        let lag = gauge!("clickback_projector_lag_outcomes", "partition" => self.number.to_string());
        let (mut flushed, mut settled) = (Instant::now(), Instant::now());
        let mut wait = Duration::ZERO;
        while !self.stop.is_cancelled() && Arc::ptr_eq(&store, &self.store.borrow()) {
            let left = if writer.has_taken() { wait.saturating_sub(flushed.elapsed()) } else { LONGEST_WAIT };
            if let Some(met) = reader.next(left)? {
                writer.take(&met)?;
                if writer.waiting() < FLUSH_ROWS && flushed.elapsed() < wait {
                    continue;
                }
            }
            if writer.has_taken() {
                let began = Instant::now();
                self.flush(&mut writer, &mut conversions)?;
                flushed = Instant::now();
                wait = began.elapsed().min(LONGEST_WAIT);
            }
            if settled.elapsed() >= SETTLE {
                self.settle(&mut writer, &mut conversions)?;
                lag.set(reader.end()?.saturating_sub(reader.place().offset) as f64);
                settled = Instant::now();
            }
        }
        self.flush(&mut writer, &mut conversions)
    }

    fn flush(&self, writer: &mut Writer, conversions: &mut Conversions) -> Result<()> {
        self.runtime.block_on(async {
            let changed = writer.flush().await?;
            conversions.send(changed).await
        })
    }

    /// Moves the place to restart from, and chooses the next one when every conversion before it is on its topic.
    fn settle(&self, writer: &mut Writer, conversions: &mut Conversions) -> Result<()> {
        self.runtime.block_on(conversions.read_back())?;
        if !self.runtime.block_on(writer.settle())? {
            return Ok(());
        }
        if !conversions.is_delivered(DELIVERY) {
            bail!("conversions that were sent may not have arrived");
        }
        self.runtime.block_on(writer.choose(conversions.read()))
    }
}
