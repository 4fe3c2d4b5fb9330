//! Measures Clickback against its floor and its peer, and writes the figures into docs/benchmarks.md.
//!
//! Every ratio has both sides in one run, on one machine, alternating; the result is compared with the oracle before
//! any speed is printed. CPU time is user and system of all server processes of a side; the load generator's is not
//! counted. Nothing here is part of the product.

mod clickback;
mod cluster;
mod figures;
mod http;
mod kafka;
mod load;
mod page;
mod postgres;
mod process;
mod streams;
mod workload;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures and writes docs/benchmarks.md; run it as `cargo xtask bench`")]
pub struct Options {
    /// Alternating runs of every side; the medians count
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// Postbacks per run
    #[arg(long, default_value_t = 200_000)]
    pub hits: usize,
    /// Clicks that they belong to
    #[arg(long, default_value_t = 50_000)]
    pub clicks: usize,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Connections of the peer to PostgreSQL
    #[arg(long, default_value_t = 1)]
    pub postgres_connections: usize,
    /// Events of the large folder whose reports are timed
    #[arg(long, default_value_t = 1_000_000)]
    pub large: usize,
    /// Postbacks per run of the figures of cluster mode, at most
    #[arg(long, default_value_t = 100_000)]
    pub cluster_hits: usize,
    /// Clicks that they belong to, for the matcher
    #[arg(long, default_value_t = 25_000)]
    pub cluster_clicks: usize,
    /// Partitions of a cluster's topics
    #[arg(long, default_value_t = 4)]
    pub partitions: u16,
    /// Runs with a small and with a large state of the matcher
    #[arg(long, default_value_t = 3)]
    pub state_runs: usize,
    /// Postbacks per second on the whole cluster
    #[arg(long, default_value_t = 5_000.0)]
    pub cluster_rate: f64,
    /// Only these figures: pipeline, latency, reports, disk; ingest, matcher, state, cluster. The page's part on embedded
    /// or on cluster mode is written when all of its figures were measured
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Folder for all data; its disk is what is measured
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Print the figures and leave docs/benchmarks.md as it is
    #[arg(long)]
    pub dry: bool,
}

impl Options {
    fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == figure)
    }
}

/// Where the binaries and the data of this run are.
pub struct Place {
    pub clickback: PathBuf,
    pub bare: PathBuf,
    pub postgres_peer: PathBuf,
    pub folder: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let folder = match &options.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    // The database runs as another user and has to reach its folder below this one.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let own = std::env::current_exe()?;
    let beside = |name: &str| own.with_file_name(name);
    let place = Place {
        clickback: std::env::var_os("CLICKBACK_BIN").map(PathBuf::from).context("run it as `cargo xtask bench`")?,
        bare: beside("bare"),
        postgres_peer: beside("postgres_peer"),
        folder: folder.path().to_owned(),
    };
    let mut embedded = page::Page::of("figures");
    if options.wants("pipeline") {
        embedded.add(figures::pipeline::measure(&options, &place).await?);
    }
    if options.wants("latency") {
        embedded.add(figures::latency::measure(&options, &place).await?);
    }
    if options.wants("reports") {
        embedded.add(figures::reports::measure(&options, &place).await?);
    }
    if options.wants("disk") {
        embedded.add(figures::disk::measure(&options, &place).await?);
    }
    embedded.finish(&options, 4)?;
    let mut cluster = page::Page::of("cluster figures");
    if options.wants("ingest") {
        cluster.add(figures::ingest::measure(&options, &place).await?);
    }
    if options.wants("matcher") {
        cluster.add(figures::matcher::measure(&options, &place).await?);
    }
    if options.wants("state") {
        cluster.add(figures::state::measure(&options, &place).await?);
    }
    if options.wants("cluster") {
        cluster.add(figures::cluster::measure(&options, &place).await?);
    }
    cluster.finish(&options, 4)
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
