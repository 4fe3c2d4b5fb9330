//! A JDK and the jars of the servers.
//!
//! Owns: `target/stack/NAME`, which is complete or not there. Refuses: to name any host; where jars come from is Maven's
//! own business and setting.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::attend;

const OLDEST: u32 = 17;

#[derive(Clone, Debug)]
pub struct Java {
    program: PathBuf,
}

impl Java {
    pub fn find() -> Result<Java> {
        let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java")).filter(|p| p.exists());
        let program = home.unwrap_or_else(|| "java".into());
        let printed = attend::output(Command::new(&program).arg("-version"), Duration::from_secs(20))
            .context("there is no Java")?;
        let text = String::from_utf8_lossy(&printed.stderr);
        match major(&text) {
            Some(major) if major >= OLDEST => Ok(Java { program }),
            Some(major) => bail!("Java {major} is too old; {OLDEST} is needed"),
            None => bail!("{} does not say its version", program.display()),
        }
    }

    pub fn program(&self) -> OsString {
        self.program.clone().into()
    }

    /// The compiler beside it. A JRE has none.
    pub fn compiler(&self) -> OsString {
        self.program.with_file_name("javac").into()
    }
}

/// From `openjdk version "17.0.15" 2025-04-15`; Java 8 calls itself `1.8`.
fn major(printed: &str) -> Option<u32> {
    let version = printed.split('"').nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        major => Some(major),
    }
}

/// The class path of a pom's jars. They are downloaded when they are not there, or the pom has changed.
pub fn class_path(name: &str, pom: &Path) -> Result<OsString> {
    // One at a time: Maven's own store is not made for two.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stack = crate::root().join("target/stack");
    let jars = stack.join(name);
    let wanted = fs::read(pom).with_context(|| format!("{} cannot be read", pom.display()))?;
    if fs::read(jars.join("pom.xml")).ok().as_deref() != Some(wanted.as_slice()) {
        fs::create_dir_all(&stack)?;
        // Moved into place when complete, so that neither a crash nor a second task leaves half of it there.
        let fresh = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&stack)?;
        eprintln!("xtask: fetching the jars of {name}, once");
        attend::succeed(&mut maven(pom, fresh.path()))?;
        fs::write(fresh.path().join("pom.xml"), &wanted)?;
        if jars.exists() {
            fs::remove_dir_all(&jars)?;
        }
        fs::rename(fresh.keep(), &jars)?;
    }
    Ok(jars.join("*").into())
}

fn maven(pom: &Path, into: &Path) -> Command {
    let mut command = Command::new("mvn");
    command
        .args(["--quiet", "--batch-mode", "-Dstyle.color=never", "--file"])
        .arg(pom)
        .arg("dependency:copy-dependencies");
    let mut folder = OsString::from("-DoutputDirectory=");
    folder.push(into);
    command.arg(folder).stdout(std::process::Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_java() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK …"), Some(17));
        assert_eq!(major("java version \"1.8.0_292\""), Some(8));
        assert_eq!(major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(major("openjdk version \"22-ea\""), Some(22));
        assert_eq!(major("command not found"), None);
    }

    #[test]
    fn maven_is_told_where_the_jars_go() {
        let command = maven(Path::new("a/pom.xml"), Path::new("/tmp/jars"));
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert_eq!(
            args,
            [
                "--quiet",
                "--batch-mode",
                "-Dstyle.color=never",
                "--file",
                "a/pom.xml",
                "dependency:copy-dependencies",
                "-DoutputDirectory=/tmp/jars"
            ]
        );
    }
}
