//! Measures Clickback against its floor and its peer, and writes the figures into docs/benchmarks.md.
//!
//! Every ratio has both sides in one run, on one machine, alternating; the result is compared with the oracle before
//! any speed is printed. CPU time is user and system of all server processes of a side; the load generator's is not
//! counted. Nothing here is part of the product.

mod clickback;
mod figures;
mod http;
mod load;
mod page;
mod postgres;
mod process;
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
    /// Only these figures: pipeline, latency, reports, disk
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
    let mut page = page::Page::default();
    if options.wants("pipeline") {
        page.add(figures::pipeline::measure(&options, &place).await?);
    }
    if options.wants("latency") {
        page.add(figures::latency::measure(&options, &place).await?);
    }
    if options.wants("reports") {
        page.add(figures::reports::measure(&options, &place).await?);
    }
    if options.wants("disk") {
        page.add(figures::disk::measure(&options, &place).await?);
    }
    page.finish(&options)
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
