//! The matcher of a cluster: `replica` on Kafka, one thread per partition.
//!
//! Owns: which partitions this process works on, their folders, their threads, and the end of the process.
//! Refuses: to believe in being the only one. The consumer group says who should work on a partition; its offsets are
//! neither committed nor read, and nothing is fetched by it. Two processes on one partition do no harm.
//! Invariant: whatever happens to a partition here, its state is a function of `events[p]` and `outcomes[p]`.

mod partition;

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use anyhow::{Context, Result, bail};
use pipeline::{
    kafka::{Cluster, Layout, Work, share},
    lifecycle::{Beat, CancellationToken},
};

use self::partition::{End, Partition};
use crate::UnknownRules;

pub struct Parts {
    pub cluster: Cluster,
    pub layout: Layout,
    /// Folder of the state; it can be deleted while nobody works on it.
    pub state: PathBuf,
    pub beat: Beat,
    pub stop: CancellationToken,
}

/// Takes the folder, joins the group and starts the thread. It ends after `stop`, or with what ended it.
pub fn start(parts: Parts) -> Result<JoinHandle<Result<()>>> {
    // Topics that are made anew have a new id, and so a state that begins anew.
    let dir = parts.state.join(parts.layout.id.to_string());
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let lock = lock(&parts.state)?;
    std::thread::Builder::new()
        .name("matcher".to_owned())
        .spawn(move || {
            let _lock = lock;
            let open = |number: u16, stop| -> Result<Work<End>> {
                let partition = Partition::open(&parts.cluster, number, dir.join(number.to_string()), stop)?;
                Ok(Box::new(move || partition.run()))
            };
            share(&parts.cluster, "matcher", (parts.beat, &parts.stop), open, ended)
        })
        .context("cannot start the matcher's thread")
}

/// Of two processes with one folder, each would save over the other's state.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!("another matcher works on the folder {}: give each one its own --state", dir.display()),
    }
}

/// What the end of one partition's work means for the process.
fn ended(_: u16, end: End) -> Result<()> {
    match end {
        End::Stopped | End::Halted => Ok(()),
        End::Released(version) => Err(UnknownRules(version).into()),
    }
}
