//! One server process: its start, its log, its end.
//!
//! Owns: that no server outlives the process that started it, whatever ends that. Refuses: to end anything but its own
//! child, which it knows by pid (or the container that it named). Invariant: a [`Server`] that is dropped has ended.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::attend::{self, POLL};

/// A slow machine needs a quarter of it.
const READY: Duration = Duration::from_secs(120);
/// As much of a log is shown where a server ends by itself.
const TAIL: u64 = 4096;

/// How a server is started.
pub struct Recipe {
    pub name: String,
    pub program: OsString,
    pub args: Vec<OsString>,
    /// Where it works and has its log.
    pub folder: PathBuf,
    /// For a container: the command that takes it away. It is no child of ours.
    pub remove: Option<Vec<OsString>>,
}

pub struct Server {
    recipe: Recipe,
    child: Child,
    guard: Child,
}

impl Server {
    pub fn start(recipe: Recipe) -> Result<Server> {
        let (child, guard) = spawn(&recipe)?;
        Ok(Server { recipe, child, guard })
    }

    /// Ends it as SIGKILL does, and starts it on the same data and ports.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        (self.child, self.guard) = spawn(&self.recipe)?;
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// Where it works and has its data.
    pub fn folder(&self) -> &Path {
        &self.recipe.folder
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Of the server itself; a container's is not ours to know.
    pub fn own_pid(&self) -> Option<u32> {
        self.recipe.remove.is_none().then(|| self.pid())
    }

    /// SIGSTOP, SIGCONT and their like, for tests of faults.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            bail!("{} has ended", self.name());
        }
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// SIGKILL. Does nothing to a server that has ended.
    pub fn kill(&mut self) {
        // The guard first: it would hit whoever gets the pid next.
        self.guard.kill().ok();
        self.guard.wait().ok();
        if let Some(remove) = &self.recipe.remove
            && let Some((program, args)) = remove.split_first()
        {
            Command::new(program)
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .ok();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of what it had to say.
    pub fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(log_path(&self.recipe))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_path(recipe: &Recipe) -> PathBuf {
    recipe.folder.join(format!("{}.log", recipe.name))
}

fn spawn(recipe: &Recipe) -> Result<(Child, Child)> {
    let log = OpenOptions::new().create(true).append(true).open(log_path(recipe))?;
    // In a group of its own: Ctrl-C goes to the task, which first ends the tests and then the servers.
    let mut child = Command::new(&recipe.program)
        .args(&recipe.args)
        .current_dir(&recipe.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("{} cannot be started: {}", recipe.name, recipe.program.display()))?;
    match guard(recipe, child.id()) {
        Ok(guard) => Ok((child, guard)),
        Err(error) => {
            child.kill().ok();
            child.wait().ok();
            Err(error)
        }
    }
}

/// A shell that ends the server when our end of its input closes: at the latest when we are gone, by SIGKILL too.
fn guard(recipe: &Recipe, pid: u32) -> Result<Child> {
    let remove = recipe.remove.clone().unwrap_or_default();
    Command::new("sh")
        .args(["-c", "read -r _; kill -KILL \"$1\"; shift; \"$@\"", "sh", &pid.to_string()])
        .args(remove)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("sh cannot be started")
}

/// Polls until the servers answer. Ends early where one of them does, or the task is told to.
pub fn wait_until_ready(servers: &mut [Server], mut ready: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    loop {
        // Ended comes first: what answers on that port may be somebody else.
        for server in &mut *servers {
            if let Some(status) = server.ended() {
                bail!("{} ended at once ({status}); its log ends with:\n{}", server.name(), server.log_tail());
            }
        }
        if ready() {
            return Ok(());
        }
        if attend::stopping() {
            bail!("told to end");
        }
        if begun.elapsed() > READY {
            let tails: String = servers.iter().map(|s| format!("\n{}:\n{}", s.name(), s.log_tail())).collect();
            bail!("no answer after {READY:?}{tails}");
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(folder: &Path, script: &str) -> Recipe {
        Recipe {
            name: "it".to_owned(),
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            folder: folder.to_owned(),
            remove: None,
        }
    }

    fn runs(pid: u32) -> bool {
        Command::new("kill").args(["-0", &pid.to_string()]).stderr(Stdio::null()).status().unwrap().success()
    }

    #[test]
    fn a_server_is_gone_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(recipe(folder.path(), "sleep 60")).unwrap();
        let (first, guard) = (server.pid(), server.guard.id());
        assert!(runs(first) && runs(guard));
        server.restart().unwrap();
        assert!(!runs(first) && !runs(guard));
        let second = server.pid();
        server.signal(Signal::STOP).unwrap();
        drop(server);
        assert!(!runs(second));
    }

    #[test]
    fn the_guard_ends_a_server_whose_owner_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(recipe(folder.path(), "exec sleep 60")).unwrap();
        // What the system does when the owner is killed.
        drop(server.guard.stdin.take());
        server.child.wait().unwrap();
    }

    #[test]
    fn a_server_that_ends_at_once_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut servers = [Server::start(recipe(folder.path(), "echo the port is taken; exit 3")).unwrap()];
        let error = wait_until_ready(&mut servers, || false).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("exit status: 3") && text.contains("the port is taken"), "{text}");
    }
}
