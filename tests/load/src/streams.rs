//! The matcher's peer on Kafka Streams, from `tests/load/kafka-streams`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use xtask::{attend, stack::java};

use crate::Place;

pub struct Peer {
    java: java::Java,
    class_path: OsString,
    folder: TempDir,
}

/// A JDK, not only a JRE, and Maven. Where they are missing, so is the peer.
pub fn tools() -> Result<java::Java> {
    let java = java::Java::find()?;
    for program in [java.compiler(), "mvn".into()] {
        let asked = Command::new(&program).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(asked.is_ok_and(|status| status.success()), "there is no {}", Path::new(&program).display());
    }
    Ok(java)
}

impl Peer {
    pub fn build(java: java::Java, place: &Place) -> Result<Peer> {
        let project = xtask::root().join("tests/load/kafka-streams");
        let jars = java::class_path("kafka-streams", &project.join("pom.xml"))?;
        let folder = tempfile::tempdir_in(&place.folder)?;
        let classes = folder.path().join("classes");
        let mut compile = Command::new(java.compiler());
        compile.args(["--release", "17", "-cp"]).arg(&jars).arg("-d").arg(&classes);
        attend::succeed(compile.args(sources(&project.join("src/main/java/clickback/peer"))?))?;
        let mut class_path = classes.into_os_string();
        class_path.push(":");
        class_path.push(jars);
        Ok(Peer { java, class_path, folder })
    }

    /// Ends by itself after so many events, when all is committed.
    pub fn command(&self, kafka: &str, (events, outcomes): (&str, &str), count: usize) -> Command {
        let mut command = Command::new(self.java.program());
        command.args(["-Xms1g", "-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]);
        command.arg("-cp").arg(&self.class_path).arg("clickback.peer.Peer");
        command.args([kafka, events, outcomes, &count.to_string()]).arg(self.folder.path().join(events));
        command
    }
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "java"));
    Ok(paths)
}
