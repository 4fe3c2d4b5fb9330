//! The project's own tasks: `cargo xtask TASK`.
//!
//! Owns: what the checks are called and how they start. Refuses: to test anything itself; tests live beside the code
//! and in `tests/`. Invariant: every task works from a clean clone, with cargo and the tools that `.ci/run` names.

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::Result;
use xtask::{
    attend::{Attending, succeed},
    binary, cargo, root,
};

mod deps;
mod servers;
mod walk;

const HELP: &str = "\
cargo xtask TASK

  test [--long] [ARGS…]   build everything and run all tests, of the crates and of the whole system; --long kills the
                          process more often and tries more inputs; ARGS go to `cargo test`. Brings up a Kafka and a
                          database first, and says what it skips where it cannot; with CI set it fails instead
  stack [--brokers N]     bring up the same servers, for work by hand, until Ctrl-C; N is 1 to 3
  chaos [--rounds N]      break a cluster under traffic in every way, 12 rounds (about half an hour), and compare what it
                          counted with what was sent; a short form is among the tests. Needs JDK 17 and Maven
  readme [FILE]           run the walk-through of README.md as it is written, and compare what it prints
  schemas [--anew]        write schemas/json-schema from the types, and readings and outcomes of schemas/examples from
                          the code; a change that breaks readers is refused, unless --anew says that nothing was
                          published yet
  deps                    licences and sources of all dependencies against deny.toml
  bench [ARGS…]           measure, and write docs/benchmarks.md; `cargo xtask bench --help` tells more
  ci                      everything that .ci/run does after fmt and clippy
";

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    let done = match task.to_str() {
        Some("test") => servers::test(rest),
        Some("stack") => servers::stack(&rest),
        Some("chaos") => servers::chaos(&rest),
        Some("readme") => walk::run(rest),
        Some("schemas") => schemas(&rest),
        Some("deps") => deps::check(),
        Some("bench") => bench(rest),
        Some("ci") => servers::test(Vec::new()).and_then(|()| walk::run(Vec::new())).and_then(|()| deps::check()),
        Some("help" | "--help" | "-h") => {
            eprint!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn schemas(args: &[OsString]) -> Result<()> {
    let _attending = Attending::begin()?;
    let mode = if args.iter().any(|a| a == "--anew") { "anew" } else { "additive" };
    let mut test = cargo();
    test.args(["test", "--quiet", "--package", "schemas", "--test", "contract", "published_schemas"]);
    succeed(test.env("UPDATE_SCHEMAS", mode))?;
    // Hits first, as outcomes follow from their readings. The second fails where the pinned bytes have changed.
    for part in ["hits_of", "outcomes_of"] {
        let mut test = cargo();
        test.args(["test", "--quiet", "--package", "system-tests", "--test", "golden", part]);
        succeed(test.env("UPDATE_EXAMPLES", "1"))?;
    }
    Ok(())
}

fn bench(args: Vec<OsString>) -> Result<()> {
    let _attending = Attending::begin()?;
    let binary = binary(&["--release"])?;
    let target = root().join("target/load");
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "--bins", "--locked", "--manifest-path", "tests/load/Cargo.toml"]);
    succeed(build.arg("--target-dir").arg(&target))?;
    succeed(Command::new(target.join("release/bench")).args(args).env("CLICKBACK_BIN", binary))
}
