//! Server processes, and the CPU time that they and their children used.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Clock ticks per second of /proc; fixed on Linux.
const TICKS: f64 = 100.0;

pub struct Server {
    child: Child,
    /// Processes whose CPU time counts, with their descendants.
    roots: Vec<u32>,
    pub greeting: Vec<String>,
}

impl Server {
    /// Starts a program that prints its addresses; `lines` of its output are read.
    pub fn start(command: &mut Command, lines: usize) -> Result<Server> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?} cannot be started"))?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let greeting: Vec<String> = output.lines().take(lines).collect::<std::io::Result<_>>()?;
        if greeting.len() < lines {
            bail!("{command:?} ended at once: {:?}", child.wait()?);
        }
        let pid = child.id();
        Ok(Server { child, roots: vec![pid], greeting })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Counts this process and its children, too.
    pub fn with(mut self, root: u32) -> Server {
        self.roots.push(root);
        self
    }

    /// User and system time so far, of the processes and all their descendants.
    pub fn cpu(&self) -> Result<Duration> {
        let mut parents = HashMap::new();
        let mut ticks = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if let Some((parent, used)) = stat(pid) {
                parents.insert(pid, parent);
                ticks.insert(pid, used);
            }
        }
        let ours = |mut pid: u32| loop {
            if self.roots.contains(&pid) {
                return true;
            }
            match parents.get(&pid) {
                Some(parent) if *parent > 1 => pid = *parent,
                _ => return false,
            }
        };
        let total: u64 = ticks.iter().filter(|(pid, _)| ours(**pid)).map(|(_, t)| *t).sum();
        Ok(Duration::from_secs_f64(total as f64 / TICKS))
    }

    /// Waits for a program that ends by itself.
    pub fn wait(&mut self) -> Result<()> {
        if !self.child.wait()?.success() {
            bail!("a program did not end well");
        }
        Ok(())
    }

    /// Sends the signal, and waits for the end.
    pub fn stop(&mut self, signal: &str) -> Result<()> {
        let told = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status()?;
        if !told.success() || !self.child.wait()?.success() {
            bail!("the server did not end well");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// User and system time of all our children that have ended and were waited for.
pub fn ended_children_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit_once(')').context("/proc/self/stat")?.1.split_whitespace();
    // cutime and cstime; see `stat`.
    let ticks = fields.skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
}

/// Parent, and ticks of the process with those of its ended children.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // After the name: state, ppid, …; utime, stime, cutime, cstime are fields 14 to 17 of the line.
    let used = (11..15).map(number).sum::<Option<u64>>()?;
    Some((number(1)? as u32, used))
}

/// Size of an SQLite file of a process that has ended, with its write-ahead log folded in: that one is bounded, and
/// grows with the load and not with what is kept.
pub fn file_bytes(path: &Path) -> Result<u64> {
    let folded = rusqlite::Connection::open(path)?;
    folded.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    drop(folded);
    Ok(fs::metadata(path)?.len())
}

/// Median of appending 4 KiB and fdatasync.
pub fn fdatasync_ms(folder: &Path) -> Result<f64> {
    use std::io::Write;
    let path = folder.join("fdatasync");
    let mut file = fs::File::create(&path)?;
    let block = [7u8; 4_096];
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let start = std::time::Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    fs::remove_file(path)?;
    Ok(crate::median(&times))
}
