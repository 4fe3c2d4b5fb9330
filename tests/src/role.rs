//! One running role of a cluster.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    command,
    server::{client, collect, field, url_of},
};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Role {
    child: Option<Child>,
    /// The line that says that it is ready.
    pub greeting: Value,
    pub http: reqwest::Client,
    errors: Arc<Mutex<String>>,
}

impl Role {
    /// `Err` is what the process wrote to stderr before it ended.
    pub fn start(args: &[&str]) -> Result<Role, String> {
        Role::spawn(command::command(args))
    }

    /// Of a build that knows a rule version more.
    pub fn start_newer(args: &[&str]) -> Result<Role, String> {
        Role::spawn(command::newer_command(args))
    }

    fn spawn(mut run: Command) -> Result<Role, String> {
        let run = run.args(["--log-format", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (stderr, collected) = (child.stderr.take().unwrap(), errors.clone());
        let collector = std::thread::spawn(move || collect(stderr, &collected));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match serde_json::from_str::<Value>(&line) {
            Ok(greeting) => Ok(Role { child: Some(child), greeting, http: client(), errors }),
            Err(_) => {
                child.wait().unwrap();
                collector.join().unwrap();
                Err(errors.lock().unwrap().clone())
            }
        }
    }

    /// An address that it said it listens on.
    pub fn url(&self, listener: &str) -> String {
        url_of(&field(std::slice::from_ref(&self.greeting), listener).unwrap())
    }

    pub fn stderr(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits until it has said this on stderr.
    pub fn says(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.stderr().contains(text) {
            assert!(Instant::now() < until, "it did not say `{text}`:\n{}", self.stderr());
            std::thread::yield_now();
        }
    }

    /// Waits until it has ended by itself.
    pub fn ends(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        while !self.has_ended() {
            assert!(Instant::now() < until, "it did not end:\n{}", self.stderr());
            std::thread::yield_now();
        }
        let code = self.child.take().unwrap().wait().unwrap().code();
        (code, self.stderr())
    }

    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// As `systemctl stop` ends it.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        let mut child = self.child.take().unwrap();
        child.wait().unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        let errors = self.stderr();
        if std::thread::panicking() {
            eprintln!("the process said:\n{errors}");
        } else if errors.contains("panicked at") {
            panic!("the process panicked:\n{errors}");
        }
    }
}
