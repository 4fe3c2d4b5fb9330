//! Whether the process is ready, whether it makes progress, and when it is asked to stop.
//!
//! Owns: the heartbeats of the process's components.
//! Refuses: to call a process live because it answers; each component has to show progress of its own.
//! Invariant: live = every component that was registered has beaten within the deadline, or has ended as it should.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
pub use tokio_util::sync::CancellationToken;

const STARTING: u8 = 0;
const READY: u8 = 1;
const FINISHED: u8 = 2;
const DIED: u8 = 3;

/// Cheap to clone.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    start: Instant,
    deadline: Duration,
    components: Mutex<Vec<Arc<Component>>>,
}

struct Component {
    name: &'static str,
    state: AtomicU8,
    /// Milliseconds from the start to its last beat.
    beat: AtomicU64,
}

/// One component's heartbeat. It beats from its loop, idle or not; dropped without `finish`, it has died.
pub struct Beat {
    shared: Arc<Shared>,
    component: Arc<Component>,
}

impl Health {
    /// A component has to beat at least once in `deadline`.
    pub fn new(deadline: Duration) -> Self {
        let shared = Shared { start: Instant::now(), deadline, components: Mutex::new(Vec::new()) };
        Self { shared: Arc::new(shared) }
    }

    /// Registers a component. It is not ready until it says so.
    pub fn component(&self, name: &'static str) -> Beat {
        let beat = AtomicU64::new(self.shared.elapsed());
        let component = Arc::new(Component { name, state: AtomicU8::new(STARTING), beat });
        self.components().push(Arc::clone(&component));
        Beat { shared: Arc::clone(&self.shared), component }
    }

    /// `Err` says which component is not ready.
    pub fn ready(&self) -> Result<(), String> {
        match self.components().iter().find(|component| component.state.load(Ordering::Acquire) != READY) {
            None => Ok(()),
            Some(component) => Err(format!("{} is {}", component.name, component.state())),
        }
    }

    /// `Err` says which component makes no progress.
    pub fn live(&self) -> Result<(), String> {
        self.live_at(self.shared.elapsed())
    }

    fn live_at(&self, now_ms: u64) -> Result<(), String> {
        let deadline = u64::try_from(self.shared.deadline.as_millis()).unwrap_or(u64::MAX);
        for component in self.components().iter() {
            match component.state.load(Ordering::Acquire) {
                FINISHED => {}
                DIED => return Err(format!("{} has died", component.name)),
                _ => {
                    let silent = now_ms.saturating_sub(component.beat.load(Ordering::Relaxed));
                    if silent > deadline {
                        return Err(format!("{} has made no progress for {} s", component.name, silent / 1_000));
                    }
                }
            }
        }
        Ok(())
    }

    fn components(&self) -> MutexGuard<'_, Vec<Arc<Component>>> {
        self.shared.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Component {
    fn state(&self) -> &'static str {
        match self.state.load(Ordering::Acquire) {
            READY => "ready",
            FINISHED => "finished",
            DIED => "dead",
            _ => "not ready",
        }
    }
}

impl Beat {
    /// Costs a reading of the clock.
    pub fn beat(&self) {
        self.component.beat.store(self.shared.elapsed(), Ordering::Relaxed);
    }

    pub fn set_ready(&self, ready: bool) {
        self.beat();
        self.component.state.store(if ready { READY } else { STARTING }, Ordering::Release);
    }

    /// The component ends as it should.
    pub fn finish(self) {
        self.component.state.store(FINISHED, Ordering::Release);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        if self.component.state.load(Ordering::Acquire) != FINISHED {
            self.component.state.store(DIED, Ordering::Release);
        }
    }
}

/// Ends when the process is asked to end, by SIGTERM or SIGINT. It listens from the call on, not only once it is polled:
/// before that a signal ends the process on the spot.
pub fn stop_signal() -> impl Future<Output = Result<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
    async move {
        let (mut terminate, mut interrupt) = signals.context("cannot listen for SIGTERM and SIGINT")?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_are() {
        let health = Health::new(Duration::from_secs(5));
        assert_eq!(health.ready(), Ok(()));
        let (one, two) = (health.component("matcher"), health.component("projector"));
        one.set_ready(true);
        assert_eq!(health.ready(), Err("projector is not ready".to_owned()));
        two.set_ready(true);
        assert_eq!(health.ready(), Ok(()));
        one.set_ready(false);
        assert!(health.ready().is_err());
    }

    #[test]
    fn live_while_all_beat() {
        let health = Health::new(Duration::from_secs(5));
        let (one, two) = (health.component("matcher"), health.component("projector"));
        let now = health.shared.elapsed();
        assert_eq!(health.live_at(now + 4_000), Ok(()));
        let error = health.live_at(now + 60_000).unwrap_err();
        assert!(error.starts_with("matcher has made no progress for "), "{error}");
        one.component.beat.store(now + 60_000, Ordering::Relaxed);
        assert!(health.live_at(now + 60_000).unwrap_err().starts_with("projector"));
        two.component.beat.store(now + 60_000, Ordering::Relaxed);
        assert_eq!(health.live_at(now + 60_000), Ok(()));
    }

    #[test]
    fn a_component_that_ends_without_a_word_has_died() {
        let health = Health::new(Duration::from_secs(5));
        let (one, two) = (health.component("matcher"), health.component("projector"));
        one.set_ready(true);
        two.finish();
        assert_eq!(health.live(), Ok(()));
        assert_eq!(health.ready(), Err("projector is finished".to_owned()));
        drop(one);
        assert_eq!(health.live(), Err("matcher has died".to_owned()));
    }
}
