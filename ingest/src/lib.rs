//! The public edge: tracking links and postback URLs.
//!
//! Owns: how a request is resolved, read, made durable and answered.
//! Refuses: to decide what a postback is worth; to keep state beside short counts; to redirect anywhere but to a
//! stored destination; to write a token or a sender's text into its own logs.
//! Invariant: no 2xx on a postback before its event is durable, and no click id in a redirect before the click is.

mod address;
mod answer;
mod auth;
mod body;
mod click;
mod edge;
mod meters;
mod postback;
mod serve;
#[cfg(test)]
mod tests;
mod visitor;
mod wire;

use std::time::Duration;

use ipnet::IpNet;
use schemas::bounds;
pub use serve::serve;

#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Who may name the client in `X-Forwarded-For`.
    pub trusted_proxies: Vec<IpNet>,
    /// A connection without progress is closed after one to two times this.
    pub patience: Duration,
    /// For the whole body of a request.
    pub body: Duration,
    /// For a postback to become durable; then `503`.
    pub durable: Duration,
    /// For a click to become durable; then the visitor goes on without a click id.
    pub click_durable: Duration,
    /// For requests that were begun before the shutdown.
    pub drain: Duration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            connections: bounds::INGEST_CONNECTIONS,
            trusted_proxies: Vec::new(),
            patience: Duration::from_secs(20),
            body: Duration::from_secs(15),
            durable: Duration::from_secs(10),
            click_durable: Duration::from_secs(2),
            drain: Duration::from_secs(20),
        }
    }
}
