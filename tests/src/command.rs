//! The binary, and commands that run to their end.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The binary under test: what `cargo xtask test` built, else it is built here, once.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| given("CLICKBACK_BIN").unwrap_or_else(|| xtask::binary(&[]).unwrap()))
}

/// A build that knows a rule version more.
fn newer_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| given("CLICKBACK_NEWER_BIN").unwrap_or_else(|| xtask::binary_and_newer().unwrap().1))
}

fn given(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// A command with nothing of our own environment that would change its settings.
pub fn command(args: &[&str]) -> Command {
    command_of(binary(), args)
}

fn command_of(binary: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLICKBACK_") {
            command.env_remove(name);
        }
    }
    command
}

/// Of a build that knows a rule version more.
pub fn newer_command(args: &[&str]) -> Command {
    command_of(newer_binary(), args)
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
    finish(command(args).envs(environment.iter().copied()))
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let finished = Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!finished.stderr.contains("panicked at"), "{command:?} panicked:\n{}", finished.stderr);
    finished
}
