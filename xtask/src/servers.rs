//! The tasks that need servers: `test` and `stack`.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};
use xtask::{
    attend::{self, Attending, POLL, succeed},
    binary_and_newer, cargo,
    stack::Stack,
};

/// The one that is tested, and one that knows a rule version more.
type Binaries = (PathBuf, PathBuf);

/// All tests, with one Kafka and one database for the whole run.
pub fn test(mut args: Vec<OsString>) -> Result<()> {
    let long = args.iter().any(|a| a == "--long");
    args.retain(|a| a != "--long");
    let _attending = Attending::begin()?;
    // The servers come up while the tests compile.
    let (built, stack) = thread::scope(|scope| {
        let stack = scope.spawn(|| Stack::start(1));
        let built = build(&args);
        if built.is_err() {
            attend::stop();
        }
        (built, stack.join())
    });
    let binaries = built?;
    let mut stack = stack.unwrap_or_else(|_| bail!("a panic while the servers were started"))?;
    if attend::stopping() {
        bail!("told to end");
    }
    announce(&stack)?;
    let mut tested = succeed(&mut command(&stack, &["--workspace"], &args, &binaries, long));
    // What a user sees is tested on a cluster, too. Who named tests wants those only.
    if tested.is_ok() && args.is_empty() && stack.kafka.is_ok() && stack.scylla.is_ok() {
        let mut again = command(&stack, &["--package", "system-tests", "--test", "user"], &[], &binaries, long);
        tested = succeed(again.env("CLICKBACK_TEST_MODE", "cluster"));
    }
    for end in stack.ended() {
        eprintln!("xtask: {end}");
    }
    tested
}

fn command(stack: &Stack, which: &[&str], args: &[OsString], binaries: &Binaries, long: bool) -> Command {
    let mut test = cargo();
    test.arg("test").args(which).args(args).env("CLICKBACK_BIN", &binaries.0).env("CLICKBACK_NEWER_BIN", &binaries.1);
    for (_, variable, service) in stack.services() {
        match service {
            Ok(service) => test.env(variable, &service.addresses),
            Err(_) => test.env_remove(variable),
        };
    }
    // Some tests stop the broker for a while.
    let broker = stack.kafka.as_ref().ok().and_then(|kafka| kafka.servers.first()?.own_pid());
    match broker {
        Some(pid) => test.env("CLICKBACK_TEST_KAFKA_PID", pid.to_string()),
        None => test.env_remove("CLICKBACK_TEST_KAFKA_PID"),
    };
    if long {
        test.env("CLICKBACK_LONG", "1");
    }
    test
}

fn build(args: &[OsString]) -> Result<Binaries> {
    let binaries = binary_and_newer()?;
    succeed(cargo().args(["test", "--workspace", "--no-run"]).args(args))?;
    Ok(binaries)
}

/// Says what the tests run against, and what they skip. In CI nothing may be skipped.
fn announce(stack: &Stack) -> Result<()> {
    let ci = env::var_os("CI").is_some_and(|ci| !ci.is_empty());
    for (name, variable, service) in stack.services() {
        match service {
            Ok(service) => eprintln!("xtask: the {name} is at {} ({})", service.addresses, service.from),
            Err(error) if ci => bail!("there is no {name}, and CI is set: {error:#}"),
            Err(error) => eprintln!(
                "xtask: there is no {name}: ALL TESTS OF CLUSTER MODE THAT NEED IT ARE SKIPPED. {error:#}\n\
                 xtask: what helps: a container engine, or JDK 17 and Maven, or an address in {variable}"
            ),
        }
    }
    Ok(())
}

/// The long form of the chaos suite. It has servers of its own, as it kills them.
pub fn chaos(args: &[OsString]) -> Result<()> {
    let args: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    let rounds = match args.as_slice() {
        [] => None,
        ["--rounds", n] => Some(n.parse::<u32>().context("--rounds takes a number")?),
        _ => bail!("usage: cargo xtask chaos [--rounds N]"),
    };
    let _attending = Attending::begin()?;
    let (binary, newer) = binary_and_newer()?;
    let mut test = cargo();
    test.args(["test", "--package", "system-tests", "--test", "chaos", "--", "--nocapture"]);
    test.env("CLICKBACK_BIN", binary).env("CLICKBACK_NEWER_BIN", newer).env("CLICKBACK_LONG", "1");
    if let Some(rounds) = rounds {
        test.env("CLICKBACK_ROUNDS", rounds.to_string());
    }
    succeed(&mut test)
}

/// Servers for work by hand.
pub fn stack(args: &[OsString]) -> Result<()> {
    let args: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    let brokers = match args.as_slice() {
        [] => 1,
        ["--brokers", n] => n.parse().context("--brokers takes a number")?,
        _ => bail!("usage: cargo xtask stack [--brokers N]"),
    };
    let _attending = Attending::begin()?;
    let mut stack = Stack::start(brokers)?;
    let mut out = io::stdout();
    for (name, variable, service) in stack.services() {
        match service {
            Ok(service) => {
                writeln!(out, "export {variable}={}", service.addresses)?;
                for server in &service.servers {
                    eprintln!("xtask: {} has pid {}", server.name(), server.pid());
                }
            }
            Err(error) => bail!("there is no {name}: {error:#}"),
        }
    }
    eprintln!("xtask: Ctrl-C ends them");
    let mut told = 0;
    while !attend::stopping() {
        let ended = stack.ended();
        if ended.len() > told {
            eprintln!("xtask: {}", ended.join("\n"));
            told = ended.len();
        }
        thread::sleep(POLL);
    }
    Ok(())
}
