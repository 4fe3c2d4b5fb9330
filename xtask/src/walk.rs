//! Runs the walk-through of README.md as it is written, and compares what it prints with what stands there.
//!
//! - ```` ```sh run=walk ```` blocks run one after the other in one shell, so variables live on.
//! - A ```` ```text ```` block right after such a block is what it must print; `…` stands for any text within a line,
//!   a line that is `…` alone for any number of lines.
//! - The walk runs against a process of its own, on a temporary folder and on ports that the system gives; where the
//!   text says 127.0.0.1:8080 and 127.0.0.1:8081, these are put in its place, and back in what is printed.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const INGEST: &str = "127.0.0.1:8080";
const API: &str = "127.0.0.1:8081";
/// The admin key of the walk's process. The shell sees it as `KEY`.
const KEY: &str = "cbk_walk_0123456789abcdefghjkmnpq";
const READY: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq)]
struct Step {
    line: usize,
    script: String,
    expected: Option<String>,
}

pub fn run(args: Vec<OsString>) -> Result<()> {
    let file = args.first().map_or_else(|| crate::root().join("README.md"), PathBuf::from);
    let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let steps = steps(&text);
    if steps.is_empty() {
        bail!("{} has no block tagged `sh run=walk`", file.display());
    }
    let binary = crate::binary(&[])?;
    let folder = tempfile::tempdir()?;
    let process = Process::start(&binary, &folder.path().join("data"))?;
    let outputs = process.walk(&binary, folder.path(), &steps)?;
    let mut failed = 0;
    for (step, output) in steps.iter().zip(&outputs) {
        if let Some(expected) = &step.expected
            && !matches(expected, output)
        {
            failed += 1;
            eprintln!(
                "{}:{}: prints something else.\n--- expected\n{}\n--- printed\n{}\n",
                file.display(),
                step.line,
                expected.trim_end(),
                output.trim_end()
            );
        }
    }
    if failed > 0 {
        bail!("{failed} of {} steps of {} print something else", steps.len(), file.display());
    }
    eprintln!("{}: {} steps ran as written", file.display(), steps.len());
    Ok(())
}

/// The walk's blocks, in order, with the output block that follows each.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = text.lines().enumerate();
    // True while only blank lines or prose without another block stand between a step and what it prints.
    let mut open = false;
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body = lines.by_ref().map(|(_, l)| l).take_while(|l| !l.starts_with("```"));
        let body = body.fold(String::new(), |all, l| all + l + "\n");
        let mut words = info.split_whitespace();
        match (words.next(), words.next()) {
            (Some("sh"), Some("run=walk")) => {
                steps.push(Step { line: number + 1, script: body, expected: None });
                open = true;
            }
            (Some("text" | "json"), _) if open => {
                if let Some(step) = steps.last_mut() {
                    step.expected = Some(body);
                }
                open = false;
            }
            _ => open = false,
        }
    }
    steps
}

/// Line by line; `…` as the module says. Space at the ends of lines does not count.
fn matches(expected: &str, printed: &str) -> bool {
    let trimmed = |text: &str| text.trim_end().lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
    lines_match(&trimmed(expected), &trimmed(printed))
}

fn lines_match(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((wild, rest)) if wild.trim() == "…" => {
            (0..=printed.len()).any(|skip| lines_match(rest, &printed[skip..]))
        }
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, others)| line_matches(line, first) && lines_match(rest, others))
        }
    }
}

fn line_matches(expected: &str, printed: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut left) = parts.next().and_then(|start| printed.strip_prefix(start)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return left.is_empty() };
    for part in middle {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

struct Process {
    child: Child,
    ingest: String,
    api: String,
}

impl Process {
    fn start(binary: &Path, data: &Path) -> Result<Process> {
        let (ingest, api) = (free_address()?, free_address()?);
        let child = Command::new(binary)
            .args(["run", "--ingest", &ingest, "--api", &api, "--data"])
            .arg(data)
            .env("CLICKBACK_ADMIN_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let mut process = Process { child, ingest, api };
        process.wait_until_ready()?;
        Ok(process)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < READY {
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended at once: {status}");
            }
            if ready(&self.api) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the process is not ready after {READY:?}")
    }

    /// Runs all steps in one shell and gives what each printed. A step that fails ends the walk.
    fn walk(&self, binary: &Path, folder: &Path, steps: &[Step]) -> Result<Vec<String>> {
        let mut shell = Command::new("bash")
            .arg("-seu")
            .current_dir(folder)
            .env("KEY", KEY)
            .env("PATH", path_with(binary)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("bash cannot be started")?;
        let mut script = String::from("set -o pipefail\n");
        for (index, step) in steps.iter().enumerate() {
            script.push_str(&self.with_addresses(&step.script));
            script.push_str(&format!("\necho; echo '=== end of step {index} ==='\n"));
        }
        let mut input = shell.stdin.take().context("no input of the shell")?;
        let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));

        let mut outputs = Vec::new();
        let mut current = String::new();
        for line in BufReader::new(shell.stdout.take().context("no output of the shell")?).lines() {
            let line = line?;
            if line.starts_with("=== end of step ") {
                outputs.push(std::mem::take(&mut current));
            } else {
                current.push_str(&self.with_documented_addresses(&line));
                current.push('\n');
            }
        }
        let status = shell.wait()?;
        writer.join().map_err(|_| anyhow::anyhow!("the shell's input was cut off"))?.ok();
        if !status.success() {
            let at = steps.get(outputs.len()).map_or(0, |s| s.line);
            bail!("the block at line {at} fails ({status}); it printed:\n{current}");
        }
        Ok(outputs)
    }

    fn with_addresses(&self, text: &str) -> String {
        text.replace(INGEST, &self.ingest).replace(API, &self.api)
    }

    fn with_documented_addresses(&self, text: &str) -> String {
        text.replace(&self.ingest, INGEST).replace(&self.api, API)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// `clickback` in the walk is the binary that was just built.
fn path_with(binary: &Path) -> Result<OsString> {
    let folder = binary.parent().context("the binary has no folder")?.to_owned();
    let old = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&old)))?)
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn ready(api: &str) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(api) else { return false };
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n");
    let mut status = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && BufReader::new(stream).read_line(&mut status).is_ok()
        && status.starts_with("HTTP/1.1 200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_the_output_that_follows() {
        let text = "# x\n```sh run=walk\necho a\n```\nprints\n```text\na\n```\n```sh\nnot run\n```\n```text\nnot it\n```\n```sh run=walk\nb=1\n```\n";
        let found = steps(text);
        assert_eq!(
            found,
            [
                Step { line: 2, script: "echo a\n".to_owned(), expected: Some("a\n".to_owned()) },
                Step { line: 15, script: "b=1\n".to_owned(), expected: None },
            ]
        );
    }

    #[test]
    fn dots_stand_for_any_text() {
        assert!(matches("a … c\n…\nend\n", "a b c\nx\ny\nend\n\n"));
        assert!(matches("{\"id\":\"…\",\"n\":1}\n", "{\"id\":\"k7\",\"n\":1}"));
        assert!(!matches("{\"id\":\"…\",\"n\":1}", "{\"id\":\"k7\",\"n\":2}"));
        assert!(!matches("a\n", "a\nb\n"));
        assert!(!matches("a\nb\n", "a\n"));
        assert!(!matches("a…a", "a"));
        assert!(matches("…", ""));
    }
}
