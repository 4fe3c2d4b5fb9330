//! The binary, and commands that run to their end.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The binary under test: what `cargo xtask test` built, else it is built here, once.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("CLICKBACK_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let built = Command::new(cargo)
        .current_dir(workspace)
        .args(["build", "--quiet", "--package", "clickback", "--message-format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(built.status.success(), "the binary does not build");
    let messages = built.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let mut paths = messages.filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).unwrap();
        message["executable"].as_str().map(PathBuf::from)
    });
    paths.next_back().expect("cargo says where the binary is")
}

/// A command with nothing of our own environment that would change its settings.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLICKBACK_") {
            command.env_remove(name);
        }
    }
    command
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn clickback(args: &[&str]) -> Finished {
    clickback_with(args, &[])
}

pub fn clickback_with(args: &[&str], environment: &[(&str, &str)]) -> Finished {
    let output = command(args).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let finished = Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!finished.stderr.contains("panicked at"), "{args:?} panicked:\n{}", finished.stderr);
    finished
}
