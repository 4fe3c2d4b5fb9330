//! One module per figure; each gives one section of the page.

pub mod cluster;
pub mod disk;
pub mod ingest;
pub mod latency;
pub mod matcher;
pub mod pipeline;
pub mod reports;
pub mod state;
