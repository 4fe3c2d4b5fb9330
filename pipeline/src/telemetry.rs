//! Logs to stderr, and the process's metrics as Prometheus text.
//!
//! Owns: the form of the logs and the recorder of metrics. Refuses: an endpoint of its own; the API serves `render`.
//! Invariant: what is measured takes bounded memory, also while nobody asks for it.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `filter` as in `RUST_LOG`, for example `info,matcher=debug`; `None` = `info`.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<()> {
    let filter = filter.unwrap_or("info");
    let filter = EnvFilter::try_new(filter).with_context(|| format!("`{filter}` is no log filter"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => logs.with_target(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(|error| anyhow!("logs were set up before: {error}"))
}

/// Seconds: from a commit to a slow report.
const BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Samples of histograms wait in memory until they are sorted into buckets.
const UPKEEP: Duration = Duration::from_secs(5);

static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

/// Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
}

impl Metrics {
    /// The process's recorder; the first call installs it.
    pub fn install() -> Result<Metrics> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &*installed {
            return Ok(metrics.clone());
        }
        let recorder = PrometheusBuilder::new().set_buckets(BUCKETS)?.install_recorder()?;
        let metrics = Metrics { recorder };
        let own = metrics.clone();
        std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP);
                    own.recorder.run_upkeep();
                }
            })
            .context("the metrics thread")?;
        Ok(installed.insert(metrics).clone())
    }

    /// Prometheus text.
    pub fn render(&self) -> String {
        self.recorder.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_by_whoever_asks() {
        let metrics = Metrics::install().unwrap();
        metrics::counter!("clickback_test_total", "kind" => "a").increment(3);
        metrics::histogram!("clickback_test_seconds").record(0.004);
        let text = Metrics::install().unwrap().render();
        assert!(text.contains("clickback_test_total{kind=\"a\"} 3"), "{text}");
        assert!(text.contains("clickback_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert_eq!(text, metrics.render());
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let error = init(LogFormat::Json, Some("a=b=c")).unwrap_err();
        assert!(format!("{error:#}").contains("log filter"));
    }
}
