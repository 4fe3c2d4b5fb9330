//! The `clickback` binary: reads the command line and starts one command.

mod admin;
mod audit;
mod check;
mod cli;
mod cluster;
#[cfg(test)]
mod compose;
mod config;
mod control;
mod demo;
mod edge;
mod init;
mod key;
mod keys;
mod listener;
mod matcher_role;
mod migrate;
mod out;
mod projector_role;
mod rebuild;
mod run;
mod serve;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use pipeline::{kafka::NodeThreads, telemetry};
use tokio::runtime::Runtime;

use crate::{
    cli::{Cli, Command, KeyCommand, LogFormat},
    config::Stop,
    serve::Threads,
};

/// Events are made on one thread and dropped on another, which the system's allocator pays for dearly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BAD_USAGE: u8 = 2;
/// For reads of the tables that are still under way when the listeners are closed.
const LAST_READS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = match config::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        // Exits with 0 after help and version, with 2 otherwise.
        Err(Stop::Clap(error)) => error.exit(),
        Err(Stop::File(error)) => {
            eprintln!("clickback: {error:#}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    start(cli).unwrap_or_else(|error| {
        eprintln!("clickback: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let format = match cli.common.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    let filter = std::env::var("RUST_LOG").ok();
    let usual = if matches!(cli.command, Command::Demo(_)) { "warn" } else { "info,scylla=warn" };
    telemetry::init(format, Some(filter.as_deref().unwrap_or(usual)))?;
    let common = cli.common;
    match cli.command {
        Command::Run(args) => serve(run::run(&common, args), Threads::join),
        Command::Demo(args) => serve(demo::run(&common, args), Threads::join),
        Command::Init(args) => runtime()?.block_on(init::run(&common, args)).map(good),
        Command::Ingest(args) => serve(edge::run(&common, args), NodeThreads::join),
        Command::Matcher(args) => runtime()?.block_on(matcher_role::run(&common, args)).map(good),
        Command::Projector(args) => serve(projector_role::run(&common, args), NodeThreads::join),
        Command::Migrate(args) => migrate::run(&common, &args).map(good),
        Command::Key(KeyCommand::Create(args)) => runtime()?.block_on(key::create(&common, args)).map(good),
        Command::Rebuild(args) => runtime()?.block_on(rebuild::run(&common, args)).map(good),
        Command::Check(args) => check::run(&args),
        Command::Audit(args) => runtime()?.block_on(audit::run(&common, args)),
    }
}

fn good((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")
}

/// The threads behind the listeners end when the runtime is gone, and with it every task that could still send them
/// something.
fn serve<T>(
    command: impl Future<Output = anyhow::Result<T>>,
    join: impl FnOnce(T) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let served = runtime.block_on(command);
    runtime.shutdown_timeout(LAST_READS);
    join(served?).map(good)
}
