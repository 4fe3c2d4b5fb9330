//! The command line: every command and flag, with its help.
//!
//! Owns: names, defaults and help texts. Refuses: doing anything. A flag's value comes from the flag itself, else
//! from `CLICKBACK_<FLAG>`, else from the config file, else it is the default (see `config.rs`).

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use pipeline::kafka::MAX_PARTITIONS;
use schemas::catalog::Scope;

const ABOUT: &str = "Server-to-server conversion tracking: links, clicks, postbacks, exact reports";

const AFTER_HELP: &str = "\
Settings:
  Every flag is also an environment variable (--public-url: CLICKBACK_PUBLIC_URL) and a key of the
  file that --config names (public-url = \"https://t.example.com\"; lists are arrays). A flag wins
  over the variable, the variable over the file, the file over the default. A key that no flag has
  is an error.

  CLICKBACK_KEY         the key of a cluster itself (64 hex digits), instead of --key-file
  CLICKBACK_ADMIN_KEY   the admin key of tenant `default`, instead of a random one (run, demo)
  RUST_LOG              which log lines are written: error, warn, info, debug, matcher=debug …

Exit codes:
  0  good
  1  failed: the last line on stderr says why; `audit` found differences, `check` says rejected
  2  bad usage: unknown command, flag or key, or a value that cannot be read

Examples:
  clickback demo
  clickback run --data ./data --public-url https://t.example.com
  clickback check 'https://t.example.com/post-back/TOKEN?dyn={c}&signups=1' --program income-access";

#[derive(Parser, Debug)]
#[command(name = "clickback", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 110)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Read settings from this TOML file
    #[arg(long, global = true, value_name = "FILE", env = "CLICKBACK_CONFIG", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// How log lines on stderr are written
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "CLICKBACK_LOG_FORMAT",
        default_value = "text",
        help_heading = "Everywhere"
    )]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable lines
    Text,
    /// One JSON object per line; what `run` says on stdout is JSON too
    Json,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve links, postbacks and the API from one folder, in one process
    Run(RunArgs),
    /// `run` with a demo tenant and live simulated traffic, to look around
    Demo(DemoArgs),
    /// Make the topics and tables of a cluster; safe to repeat
    Init(InitArgs),
    /// Role of a cluster: serve tracking links and postbacks, and write them to Kafka
    Ingest(IngestArgs),
    /// Role of a cluster: decide what becomes of clicks and postbacks
    Matcher(MatcherArgs),
    /// Role of a cluster: keep the report tables and serve the API
    Projector(ProjectorArgs),
    /// Move a folder (log, decisions, catalog) into an empty cluster
    Migrate(MigrateArgs),
    /// Manage API keys
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyCommand),
    /// Explain what a postback, tracking or landing URL would do; needs no server
    Check(CheckArgs),
    /// Recompute every report row and every outcome from the log, and print differences
    Audit(AuditArgs),
    /// Build the report tables anew from the log, beside the live ones, then switch
    Rebuild(RebuildArgs),
}

const RUN_HELP: &str = "\
The folder is made if it is missing. The first start on an empty folder creates the tenant `default`
and prints an admin key, once, on stdout; CLICKBACK_ADMIN_KEY, if set, is the admin key instead.

SIGTERM and Ctrl-C answer what is in flight and end the process within 30 seconds. A second process
on the same folder is refused; `audit` may run beside it, `key create` and `rebuild` go through it.";

#[derive(Args, Debug, Clone)]
#[command(after_help = RUN_HELP)]
pub struct RunArgs {
    /// Folder of the log, the report tables and the keys
    #[arg(long, value_name = "DIR", env = "CLICKBACK_DATA", default_value = "./data")]
    pub data: PathBuf,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Args, Debug, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    pub public: PublicArgs,
    /// Private listener: reports and setup
    #[arg(long, value_name = "ADDR", env = "CLICKBACK_API", default_value = "127.0.0.1:8081")]
    pub api: SocketAddr,
}

#[derive(Args, Debug, Clone)]
pub struct PublicArgs {
    /// Public listener: tracking links and postbacks
    #[arg(long, value_name = "ADDR", env = "CLICKBACK_INGEST", default_value = "127.0.0.1:8080")]
    pub ingest: SocketAddr,
    /// How the public listener is reached from outside; links and postback URLs start with it
    /// [default: http://<ingest address>]
    #[arg(long, value_name = "URL", env = "CLICKBACK_PUBLIC_URL", value_parser = public_url)]
    pub public_url: Option<String>,
    /// Proxies whose X-Forwarded-For is believed [default: none]
    #[arg(long, value_name = "CIDR", env = "CLICKBACK_TRUSTED_PROXY", value_delimiter = ',', value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,
}

const DEMO_HELP: &str = "\
Serves as `run` does, creates the tenant `demo` with accounts on several programs and their links
through the API, then plays visitors and operators over HTTP: clicks, sign-ups, deposits with money,
repeats, late postbacks, postbacks before their click, macros left raw, unknown clicks. It goes on
until Ctrl-C. The folder stays: start it again to go on with it, delete it to begin anew.";

#[derive(Args, Debug, Clone)]
#[command(after_help = DEMO_HELP)]
pub struct DemoArgs {
    /// Folder of the demo
    #[arg(long, value_name = "DIR", env = "CLICKBACK_DATA", default_value = "./data-demo")]
    pub data: PathBuf,
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Requests per second, clicks and postbacks together
    #[arg(long, value_name = "N", env = "CLICKBACK_RATE", default_value = "50",
          value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub rate: u32,
    /// End after this many seconds; 0: on Ctrl-C only
    #[arg(long, value_name = "N", env = "CLICKBACK_SECONDS", default_value = "0")]
    pub seconds: u64,
}

#[derive(Args, Debug, Clone)]
pub struct KafkaArgs {
    /// Kafka brokers
    #[arg(long, value_name = "HOST:PORT,…", env = "CLICKBACK_KAFKA", required = true, value_parser = brokers)]
    pub kafka: String,
    /// What the names of the topics begin with
    #[arg(long, value_name = "NAME", env = "CLICKBACK_TOPIC_PREFIX", default_value = "clickback",
          value_parser = topic_prefix)]
    pub topic_prefix: String,
}

#[derive(Args, Debug, Clone)]
pub struct KeyFileArgs {
    /// File of the key that secrets in the catalog are sealed with; every role of a cluster needs the same
    /// [default: the variable CLICKBACK_KEY]
    #[arg(long, value_name = "FILE", env = "CLICKBACK_KEY_FILE")]
    pub key_file: Option<PathBuf>,
}

const INIT_HELP: &str = "\
Creates the topics PREFIX.events, .outcomes, .conversions and .catalog with the settings that they
need, and writes a record into each partition that says which cluster it belongs to. What is there
already is checked and left as it is; a difference is an error. Run it again after an interruption.

The number of partitions is fixed for life: take as many as the largest number of machines that will
ever share the work.

The file of --key-file is made if it is missing and the cluster is new. Keep it as safe as the topics:
without it nobody can read the tokens in the catalog.

With --scylla it also makes the keyspace, named after the topics, and the report tables in it.";

#[derive(Args, Debug, Clone)]
#[command(after_help = INIT_HELP)]
pub struct InitArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Nodes of the database of the report tables; without it only topics are made
    #[arg(long, value_name = "HOST:PORT,…", env = "CLICKBACK_SCYLLA", value_parser = brokers)]
    pub scylla: Option<String>,
    /// Partitions of events, outcomes and conversions [default: as they are, else 8]
    #[arg(long, value_name = "N", env = "CLICKBACK_PARTITIONS",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_PARTITIONS)))]
    pub partitions: Option<u16>,
    /// Brokers that keep each record [default: as it is, else 3 where there are so many brokers, else 1]
    #[arg(long, value_name = "N", env = "CLICKBACK_REPLICATION", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub replication: Option<u16>,
    /// Switches this rule version on, once every matcher knows it; there is no way back
    #[arg(long, value_name = "N", env = "CLICKBACK_RULES", value_parser = clap::value_parser!(u32).range(1..))]
    pub rules: Option<u32>,
    #[command(flatten)]
    pub key: KeyFileArgs,
}

const INGEST_HELP: &str = "\
Answers a postback when Kafka has it on all in-sync replicas. While Kafka does not acknowledge, events
go to the spool, with fsync, and are answered from there; they are sent when Kafka is back, after a
restart too. A full spool answers 503. The folder also holds a copy of the catalog to start from when
Kafka is away. Give every process a folder of its own, on a disk that stays.

SIGTERM and Ctrl-C answer what is in flight and end the process within 30 seconds.";

#[derive(Args, Debug, Clone)]
#[command(after_help = INGEST_HELP)]
pub struct IngestArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub key: KeyFileArgs,
    #[command(flatten)]
    pub public: PublicArgs,
    /// Folder for events while Kafka is away
    #[arg(long, value_name = "DIR", env = "CLICKBACK_SPOOL", default_value = "./spool")]
    pub spool: PathBuf,
    /// Most that the spool may take of the disk
    #[arg(long, value_name = "MIB", env = "CLICKBACK_SPOOL_SIZE", default_value = "1024",
          value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub spool_size: u64,
    /// Private listener: /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDR", env = "CLICKBACK_ADMIN", default_value = "127.0.0.1:9080")]
    pub admin: SocketAddr,
}

const MATCHER_HELP: &str = "\
Several processes share the partitions; each needs a state folder of its own. The folder is a cache:
it can be deleted while no process works on it, and is rebuilt from the topics.

SIGTERM saves the state, hands the partitions over and ends the process.";

#[derive(Args, Debug, Clone)]
#[command(after_help = MATCHER_HELP)]
pub struct MatcherArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Folder of the state
    #[arg(long, value_name = "DIR", env = "CLICKBACK_STATE", default_value = "./matcher-state")]
    pub state: PathBuf,
    /// Private listener: /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDR", env = "CLICKBACK_ADMIN", default_value = "127.0.0.1:9081")]
    pub admin: SocketAddr,
}

const PROJECTOR_HELP: &str = "\
Several processes share the work on the tables, and each of them answers every question. The tables
are a cache: `clickback rebuild` builds them anew from the topics.

SIGTERM writes what was taken, hands the partitions over and ends the process within 30 seconds.";

#[derive(Args, Debug, Clone)]
#[command(after_help = PROJECTOR_HELP)]
pub struct ProjectorArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub scylla: ScyllaArgs,
    #[command(flatten)]
    pub key: KeyFileArgs,
    /// Private listener: reports and setup; also /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDR", env = "CLICKBACK_API", default_value = "127.0.0.1:8081")]
    pub api: SocketAddr,
    /// How the public listener of `ingest` is reached from outside; links and postback URLs start with it
    /// [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "CLICKBACK_PUBLIC_URL", value_parser = public_url)]
    pub public_url: Option<String>,
}

/// Of commands that work on a folder or on a cluster.
#[derive(Args, Debug, Clone)]
pub struct MaybeClusterArgs {
    /// Kafka brokers of a cluster, instead of a folder
    #[arg(long, value_name = "HOST:PORT,…", env = "CLICKBACK_KAFKA", requires = "scylla", value_parser = brokers)]
    pub kafka: Option<String>,
    /// Nodes of the cluster's database
    #[arg(long, value_name = "HOST:PORT,…", env = "CLICKBACK_SCYLLA", requires = "kafka", value_parser = brokers)]
    pub scylla: Option<String>,
    /// With --kafka: what the names of the topics begin with
    #[arg(long, value_name = "NAME", env = "CLICKBACK_TOPIC_PREFIX", default_value = "clickback",
          value_parser = topic_prefix)]
    pub topic_prefix: String,
}

#[derive(Args, Debug, Clone)]
pub struct ScyllaArgs {
    /// Nodes of the database of the report tables; the keyspace is named after the topics
    #[arg(long, value_name = "HOST:PORT,…", env = "CLICKBACK_SCYLLA", required = true, value_parser = brokers)]
    pub scylla: String,
}

const MIGRATE_HELP: &str = "\
Stop the process on the folder first: the folder is locked meanwhile, and only read. Run `clickback init`
before, and start the roles of the cluster after. Click ids, links, tokens, API keys and every decision
stay as they are; nothing is decided again. The report tables of the cluster come from its topics.

After an interruption run it again: it compares what is on the topics with what it would write, and goes
on after it. Topics that hold anything else are refused.

The catalog's secrets are sealed with the key of the cluster (--key-file, or CLICKBACK_KEY). Without one
the folder's key is taken, which fits a cluster that was made with `init --key-file DIR/key`; that is the
simplest, and what was redacted looks the same before and after.";

#[derive(Args, Debug, Clone)]
#[command(after_help = MIGRATE_HELP)]
pub struct MigrateArgs {
    /// Folder that is moved
    #[arg(long, value_name = "DIR", env = "CLICKBACK_DATA", default_value = "./data")]
    pub data: PathBuf,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Database of the report tables; nothing is written there, as they are made from the topics
    #[arg(long, value_name = "HOST:PORT,…", env = "CLICKBACK_SCYLLA")]
    pub scylla: Option<String>,
    #[command(flatten)]
    pub key: KeyFileArgs,
}

#[derive(Subcommand, Debug)]
pub enum KeyCommand {
    /// Create an API key and print it, once
    Create(KeyCreateArgs),
}

const KEY_HELP: &str = "\
A key sees its tenant only. A tenant exists from its first key on.

With --data it works beside a running process, and without one; with --kafka it writes to the catalog
of a cluster, which all its processes read.";

#[derive(Args, Debug, Clone)]
#[command(after_help = KEY_HELP)]
pub struct KeyCreateArgs {
    /// Tenant that the key belongs to
    #[arg(long, value_name = "T", env = "CLICKBACK_TENANT", required = true, value_parser = tenant_name)]
    pub tenant: String,
    /// read: reports; write: also accounts, links, clicks, conversions; admin: also keys, tokens, programs
    #[arg(long, value_name = "SCOPE", env = "CLICKBACK_SCOPE", required = true, value_parser = scope)]
    #[arg(hide_possible_values = true)]
    pub scope: Scope,
    /// What the key is for, shown in the list of keys
    #[arg(long, value_name = "TEXT", env = "CLICKBACK_NAME", default_value = "made on the command line")]
    pub name: String,
    /// Folder of the process
    #[arg(long, value_name = "DIR", env = "CLICKBACK_DATA", default_value = "./data")]
    pub data: PathBuf,
    /// Kafka brokers of a cluster, instead of a folder
    #[arg(long, value_name = "HOST:PORT,…", env = "CLICKBACK_KAFKA", value_parser = brokers)]
    pub kafka: Option<String>,
    /// With --kafka: what the names of the topics begin with
    #[arg(long, value_name = "NAME", env = "CLICKBACK_TOPIC_PREFIX", default_value = "clickback",
          value_parser = topic_prefix)]
    pub topic_prefix: String,
    #[command(flatten)]
    pub key: KeyFileArgs,
}

const CHECK_HELP: &str = "\
Exit code 0 if a postback would be accepted (or the tracking or landing URL carries what the program
expects), else 1. The settings of your own accounts are not known offline: POST /v1/check takes them
into account.";

#[derive(Args, Debug, Clone)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// The URL, in quotes
    #[arg(value_name = "URL")]
    pub url: String,
    /// Program whose dialect is spoken [default: generic]
    #[arg(long, value_name = "ID", env = "CLICKBACK_PROGRAM")]
    pub program: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long, env = "CLICKBACK_JSON")]
    pub json: bool,
}

const AUDIT_HELP: &str = "\
Reads only, and may run beside a live process. Exit code 1 if anything differs.";

#[derive(Args, Debug, Clone)]
#[command(after_help = AUDIT_HELP)]
pub struct AuditArgs {
    /// Folder to audit
    #[arg(long, value_name = "DIR", env = "CLICKBACK_DATA", default_value = "./data")]
    pub data: PathBuf,
    #[command(flatten)]
    pub cluster: MaybeClusterArgs,
}

const REBUILD_HELP: &str = "\
With a process running on the folder, it goes on serving from the old tables until the new ones are
complete. Returns when the new tables are in use. Of a cluster, this command builds the new tables by
itself while the projectors go on with the old ones, which stay until the next rebuild.";

#[derive(Args, Debug, Clone)]
#[command(after_help = REBUILD_HELP)]
pub struct RebuildArgs {
    /// Folder whose tables are built anew
    #[arg(long, value_name = "DIR", env = "CLICKBACK_DATA", default_value = "./data")]
    pub data: PathBuf,
    #[command(flatten)]
    pub cluster: MaybeClusterArgs,
}

fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "read" => Ok(Scope::Read),
        "write" => Ok(Scope::Write),
        "admin" => Ok(Scope::Admin),
        _ => Err("read, write or admin is needed".to_owned()),
    }
}

fn brokers(text: &str) -> Result<String, String> {
    let is_address = |part: &str| {
        part.trim().rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    match text.split(',').all(is_address) {
        true => Ok(text.split(',').map(str::trim).collect::<Vec<_>>().join(",")),
        false => Err("addresses such as kafka-1:9092,kafka-2:9092 are needed".to_owned()),
    }
}

/// What Kafka takes in the name of a topic.
fn topic_prefix(text: &str) -> Result<String, String> {
    let fits = (1..=200).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    fits.then(|| text.to_owned())
        .ok_or_else(|| "1 to 200 characters of a-z, A-Z, 0-9, -, _ and . are needed".to_owned())
}

/// An address is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "a network such as 10.0.0.0/8 or an address is needed".to_owned())
}

fn tenant_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    fits.then(|| text.to_owned()).ok_or_else(|| "1 to 64 characters of a-z, 0-9, - and _ are needed".to_owned())
}

/// Without a slash at the end, as paths are appended.
fn public_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|e| format!("a URL such as https://t.example.com is needed: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("it must start with http:// or https:// and name a host".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must not have a query or a fragment".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable_and_help() {
        fn visit(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                assert!(arg.get_help().is_some(), "--{long} has no help");
                let env = format!("CLICKBACK_{}", long.replace('-', "_").to_uppercase());
                assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(env.as_str()), "--{long}");
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn public_urls_lose_their_last_slash() {
        assert_eq!(public_url("https://t.example.com/x/").unwrap(), "https://t.example.com/x");
        for bad in ["t.example.com", "ftp://t.example.com", "https://t.example.com/?a=1", "https://t.example.com/#x"] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn brokers_have_ports() {
        assert_eq!(brokers("a:1, b:65535").unwrap(), "a:1,b:65535");
        for bad in ["", "a", "a:", ":1", "a:1,", "a:70000"] {
            assert!(brokers(bad).is_err(), "{bad}");
        }
        assert!(topic_prefix("clickback").is_ok() && topic_prefix("a b").is_err() && topic_prefix("").is_err());
    }

    #[test]
    fn a_proxy_may_be_one_address() {
        assert_eq!(network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(network(" 10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert!(network("ten").is_err());
    }
}
