//! One module per figure; each gives one section of the page.

pub mod disk;
pub mod latency;
pub mod pipeline;
pub mod reports;
