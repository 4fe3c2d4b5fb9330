//! One running `clickback run`, started on ports that the system gives.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Role,
    cluster::{self, Cluster},
    command,
};

/// The admin key of every server that a test starts.
pub const ADMIN_KEY: &str = "cbk_test_0123456789abcdefghjkmnpqrstvwxyz";
const START: Duration = Duration::from_secs(60);

/// A data folder that outlives the processes that run on it; or a cluster.
#[derive(Clone)]
pub struct Folder {
    dir: Arc<tempfile::TempDir>,
    cluster: Option<Arc<Cluster>>,
}

impl Folder {
    #[allow(clippy::new_without_default, reason = "it makes a folder on disk")]
    pub fn new() -> Folder {
        Folder { dir: Arc::new(tempfile::tempdir().unwrap()), cluster: None }
    }

    /// What `--data` is given.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    pub fn audit(&self) -> command::Finished {
        if let Some(cluster) = &self.cluster {
            return cluster.audit();
        }
        crate::clickback(&["audit", "--data", self.data().to_str().unwrap()])
    }

    /// Every report row and every outcome is what a fold of the log gives.
    pub fn assert_audit_is_clean(&self) {
        let audit = self.audit();
        assert_eq!(audit.code, Some(0), "audit finds differences:\n{}\n{}", audit.stdout, audit.stderr);
    }
}

/// How a server is started.
#[derive(Default)]
pub struct Setup {
    pub args: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A program that starts the binary in its place, e.g. with a limit on file sizes.
    pub through: Vec<String>,
    /// Do not set the admin key: the process makes one on its first start.
    pub own_admin_key: bool,
}

pub struct Server {
    child: Option<Child>,
    pub folder: Folder,
    pub ingest: String,
    pub api: String,
    pub key: String,
    pub http: reqwest::Client,
    /// All lines of stdout up to readiness.
    pub greeting: Vec<Value>,
    errors: Arc<Mutex<String>>,
}

impl Server {
    /// On a new folder; or, where the tests run on a cluster, with a new tenant.
    pub fn start() -> Server {
        if cluster::is_meant() { Server::on_cluster() } else { Server::start_on(&Folder::new()) }
    }

    fn on_cluster() -> Server {
        Server::of(&Cluster::shared())
    }

    /// A new tenant of a cluster.
    pub fn of(cluster: &Arc<Cluster>) -> Server {
        let folder = Folder { cluster: Some(Arc::clone(cluster)), ..Folder::new() };
        let mut server = Server {
            child: None,
            folder,
            ingest: cluster.ingest.url("ingest"),
            api: cluster.projector.url("api"),
            key: String::new(),
            http: client(),
            greeting: Vec::new(),
            errors: Arc::default(),
        };
        server.key = server.new_key(&Cluster::new_tenant(), "admin");
        server
    }

    /// A key of this tenant, made on the command line.
    pub fn new_key(&self, tenant: &str, scope: &str) -> String {
        let mut args = ["key", "create", "--tenant", tenant, "--scope", scope].map(str::to_owned).to_vec();
        match &self.folder.cluster {
            Some(cluster) => {
                args.extend(cluster.topics());
                args.extend(["--key-file".to_owned(), cluster.key_file()]);
            }
            None => args.extend(["--data".to_owned(), self.folder.data().to_str().unwrap().to_owned()]),
        }
        let made = crate::clickback(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        made.stdout.trim().to_owned()
    }

    pub fn start_on(folder: &Folder) -> Server {
        Server::start_with(folder, Setup::default())
    }

    pub fn start_with(folder: &Folder, setup: Setup) -> Server {
        Server::try_start(folder, setup).unwrap_or_else(|stderr| panic!("the server did not start:\n{stderr}"))
    }

    /// `Err` is what the process wrote to stderr before it ended.
    pub fn try_start(folder: &Folder, setup: Setup) -> Result<Server, String> {
        let mut child = spawn(folder, &setup);
        let errors = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let collected = errors.clone();
        let collector = std::thread::spawn(move || collect(stderr, &collected));

        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let deadline = Instant::now() + START;
        let mut greeting = Vec::new();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => greeting.push(serde_json::from_str::<Value>(&line).unwrap_or(Value::String(line))),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    child.wait().unwrap();
                    collector.join().unwrap();
                    return Err(errors.lock().unwrap().clone());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("not ready in {START:?}; it said {greeting:?}"),
            }
            if let (Some(ingest), Some(api)) = (field(&greeting, "ingest"), field(&greeting, "api")) {
                let key = if setup.own_admin_key { field(&greeting, "admin_key") } else { Some(ADMIN_KEY.to_owned()) };
                return Ok(Server {
                    child: Some(child),
                    folder: folder.clone(),
                    ingest: url_of(&ingest),
                    api: url_of(&api),
                    key: key.unwrap_or_default(),
                    http: client(),
                    greeting,
                    errors,
                });
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What the process wrote to stderr so far.
    pub fn stderr(&self) -> String {
        if let Some(cluster) = &self.folder.cluster {
            return [&cluster.ingest, &cluster.matcher, &cluster.projector].map(Role::stderr).concat();
        }
        self.errors.lock().unwrap().clone()
    }

    /// As a crash or the out-of-memory killer would end it.
    pub fn kill(mut self) -> Folder {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.folder.clone()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end of a process that was told to end.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.take().unwrap().wait().unwrap();
        (status, self.stderr())
    }

    /// As `systemctl stop` ends it.
    pub fn stop(self) -> Folder {
        let folder = self.folder.clone();
        self.signal("TERM");
        let (status, stderr) = self.ended();
        assert!(status.success(), "{status}\n{stderr}");
        folder
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        let errors = self.stderr();
        if errors.contains("panicked at") && !std::thread::panicking() {
            panic!("the server panicked:\n{errors}");
        }
    }
}

fn spawn(folder: &Folder, setup: &Setup) -> Child {
    let mut run = command::command(&["run", "--ingest", "127.0.0.1:0", "--api", "127.0.0.1:0", "--log-format", "json"]);
    run.arg("--data").arg(folder.data()).args(&setup.args);
    if let Some((program, args)) = setup.through.split_first() {
        let mut through = Command::new(program);
        through.args(args).arg(run.get_program()).args(run.get_args()).stdin(Stdio::null());
        for (name, value) in run.get_envs() {
            match value {
                Some(value) => through.env(name, value),
                None => through.env_remove(name),
            };
        }
        run = through;
    }
    if !setup.own_admin_key {
        run.env("CLICKBACK_ADMIN_KEY", ADMIN_KEY);
    }
    run.envs(setup.environment.iter().map(|(n, v)| (n, v)));
    run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn collect(stderr: impl Read, into: &Mutex<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let mut text = into.lock().unwrap();
        text.push_str(&line);
        text.push('\n');
    }
}

pub(crate) fn field(greeting: &[Value], name: &str) -> Option<String> {
    greeting.iter().find_map(|line| line[name].as_str().map(str::to_owned))
}

pub(crate) fn url_of(address: &str) -> String {
    if address.starts_with("http") { address.to_owned() } else { format!("http://{address}") }
}

/// Never follows a redirect: where a link leads to is what is tested.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}
