//! What commands say on stdout: text for people, or JSON objects, one per line. Logs go to stderr.

use std::io::Write;

use anyhow::Context;
use serde_json::Value;

/// A reader that went away (`clickback … | head -1`) is no failure of ours.
pub fn say(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("stdout cannot be written"),
        _ => Ok(()),
    }
}

pub fn say_json(value: &Value) -> anyhow::Result<()> {
    say(&value.to_string())
}
