//! Runs commands so that Ctrl-C and SIGTERM end them in good order.
//!
//! Owns: what happens to the commands of a task, and to what those started, when the task is told to end. Refuses: to
//! leave anything running. Invariant: while an [`Attending`] lives, a first signal only makes [`stopping`] true; a second
//! one, or one at any other time, does what it always does.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// How often something is looked at that cannot be waited for.
pub const POLL: Duration = Duration::from_millis(20);
/// What was told to end has this long for it.
const GRACE: Duration = Duration::from_secs(5);

static IDLE: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Holds the default action of signals back.
pub struct Attending(());

impl Attending {
    pub fn begin() -> Result<Attending> {
        static REGISTERED: LazyLock<io::Result<()>> = LazyLock::new(register);
        if let Err(error) = &*REGISTERED {
            bail!("signals cannot be caught: {error}");
        }
        IDLE.store(false, Ordering::SeqCst);
        Ok(Attending(()))
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        IDLE.store(true, Ordering::SeqCst);
    }
}

fn register() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal must not find the flag that it sets itself.
        flag::register_conditional_default(signal, IDLE.clone())?;
        flag::register_conditional_default(signal, STOP.clone())?;
        flag::register(signal, STOP.clone())?;
    }
    Ok(())
}

/// True once the task was told to end.
pub fn stopping() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// Tells all that runs side by side to end, as a signal does.
pub fn stop() {
    STOP.store(true, Ordering::SeqCst);
}

/// Runs a command to its end; an error if it fails, or is told to end before. Needs an [`Attending`]: the command does
/// not see Ctrl-C itself.
pub fn succeed(command: &mut Command) -> Result<()> {
    let mut child = spawn(command)?;
    let status = wait(&mut child, None)?;
    if !status.success() {
        bail!("failed: {command:?}");
    }
    Ok(())
}

/// What a command prints that is ended at the limit. It must be little: nobody reads before it has ended.
pub fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    wait(&mut child, Some(limit)).with_context(|| format!("{command:?}"))?;
    Ok(child.wait_with_output()?)
}

/// In a process group of its own, so that a signal reaches all that it starts, and Ctrl-C reaches us first.
fn spawn(command: &mut Command) -> Result<Child> {
    command.process_group(0).spawn().with_context(|| format!("{command:?} cannot be started"))
}

fn wait(child: &mut Child, limit: Option<Duration>) -> Result<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stopping() {
            end(child)?;
            bail!("told to end");
        }
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            end(child)?;
            bail!("no end after {limit:?}");
        }
        thread::sleep(POLL);
    }
}

/// Asks a child and what it started to end, and makes them.
fn end(child: &mut Child) -> Result<()> {
    let group = Pid::from_child(child);
    kill_process_group(group, Signal::TERM).ok();
    let begun = Instant::now();
    while child.try_wait()?.is_none() && begun.elapsed() < GRACE {
        thread::sleep(POLL);
    }
    // The child's own children may still be at it.
    kill_process_group(group, Signal::KILL).ok();
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended_with_what_it_started() {
        let begun = Instant::now();
        let error =
            output(Command::new("sh").args(["-c", "sleep 60 | sleep 60"]), Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("no end after"), "{error:#}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let error = succeed(&mut Command::new("no-such-command-of-clickback")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-command-of-clickback"));
    }
}
