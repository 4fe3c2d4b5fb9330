//! The parts of `cargo xtask` that tests may want for themselves: servers to run against.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

pub mod attend;
pub mod stack;

pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the binary and says where it is.
pub fn binary(flags: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "clickback", "--bin", "clickback", "--message-format", "json"]);
    let built = build.args(flags).stderr(Stdio::inherit()).output().context("cargo build")?;
    if !built.status.success() {
        bail!("the binary does not build");
    }
    let mut paths = built.stdout.split(|b| *b == b'\n').filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    paths.next_back().context("cargo did not say where the binary is")
}

/// Builds the binary, and beside it one that knows a rule version more.
pub fn binary_and_newer() -> Result<(PathBuf, PathBuf)> {
    let newer = binary(&["--features", "next-rules"])?;
    let kept = newer.with_file_name(format!("clickback-newer{}", env::consts::EXE_SUFFIX));
    std::fs::copy(&newer, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok((binary(&[])?, kept))
}

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
