//! Reads stored hits again with today's settings: one event per name that they concern.

use std::path::Path;

use anyhow::Result;
use pipeline::{Appender, Catalog};
use schemas::catalog::ReprocessRequest;

use crate::report::Reports;
use tokio::sync::watch;

/// What a reprocess did, for `ReprocessRequest`'s fields `hits`, `changed`, `receipt`, `problems`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub hits: u64,
    pub changed: u64,
    pub receipt: Option<String>,
    pub problems: Vec<String>,
}

/// Everything that a reprocess reads and sends through.
#[derive(Clone)]
pub struct Context {
    pub dir: std::path::PathBuf,
    pub reports: Reports,
    pub visible: watch::Receiver<u64>,
    pub appender: Appender,
    pub catalog: std::sync::Arc<Catalog>,
}

/// Runs one request to its end; may be run again from the start after a crash. The caller records `done`.
pub async fn run(_context: Context, _tenant: &str, _request: &ReprocessRequest) -> Result<Progress> {
    anyhow::bail!("not built yet")
}

#[allow(dead_code)]
fn unused(_: &Path) {}
