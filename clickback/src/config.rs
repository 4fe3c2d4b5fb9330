//! The optional config file: its keys are the flags, and they become the flags' defaults.
//!
//! Owns: the order flag > environment > file > default. Refuses: keys that no flag has, so that a slip of the pen
//! never leaves a setting silently at its default.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::{CommandFactory, FromArgMatches};

use crate::cli::Cli;

const NOT_KEYS: [&str; 3] = ["config", "help", "version"];

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// Help and version, which are good, and bad usage.
    Clap(clap::Error),
    File(anyhow::Error),
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        Stop::Clap(error)
    }
}

pub fn parse(args: Vec<OsString>) -> Result<Cli, Stop> {
    let file = named_file(&args).or_else(|| std::env::var_os("CLICKBACK_CONFIG").filter(|v| !v.is_empty()));
    let text = match file.map(PathBuf::from) {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("the config file {} cannot be read", path.display()))
                .map_err(Stop::File)?;
            Some((path.display().to_string(), text))
        }
    };
    parse_with(args, text)
}

/// `--config` before the command line is read as a whole, as the file's values are defaults in that reading.
fn named_file(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter().skip(1).take_while(|a| *a != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().cloned();
        }
        if let Some(path) = arg.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

fn parse_with(args: Vec<OsString>, file: Option<(String, String)>) -> Result<Cli, Stop> {
    let mut command = Cli::command();
    if let Some((name, text)) = &file {
        let values = read(text, &command).with_context(|| format!("in the config file {name}")).map_err(Stop::File)?;
        command = with_defaults(command, &values);
    }
    let matches = command.try_get_matches_from_mut(args).map_err(|error| match &file {
        Some((name, _)) if error.kind() == clap::error::ErrorKind::ValueValidation => {
            Stop::File(anyhow::anyhow!("{}\n(a value that no flag gives may stand in {name})", plain(&error)))
        }
        _ => Stop::Clap(error),
    })?;
    Ok(Cli::from_arg_matches(&matches)?)
}

fn plain(error: &clap::Error) -> String {
    error.to_string().trim_start_matches("error: ").trim_end().to_owned()
}

/// Key → values, checked against the flags of all commands.
fn read(text: &str, command: &clap::Command) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let table: toml::Table = text.parse()?;
    let known = flags(command);
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let flag = key.replace('_', "-");
        if !known.contains(flag.as_str()) {
            bail!("unknown key `{key}`; did you mean `{}`?", nearest(&flag, &known));
        }
        let many = takes_many(command, &flag);
        let list = match value {
            toml::Value::Array(items) if many => {
                items.iter().map(|v| scalar(&key, v)).collect::<anyhow::Result<Vec<_>>>()?
            }
            toml::Value::Array(_) => bail!("`{key}` takes one value, not a list"),
            one => vec![scalar(&key, &one)?],
        };
        if values.insert(flag, list).is_some() {
            bail!("`{key}` is given twice");
        }
    }
    Ok(values)
}

fn scalar(key: &str, value: &toml::Value) -> anyhow::Result<String> {
    match value {
        toml::Value::String(s) => Ok(s.clone()),
        toml::Value::Integer(n) => Ok(n.to_string()),
        toml::Value::Boolean(b) => Ok(b.to_string()),
        other => bail!("`{key}` takes text, a whole number, true or false, not {}", other.type_str()),
    }
}

fn flags(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|a| a.get_long()).filter(|l| !NOT_KEYS.contains(l));
    let mut all: BTreeSet<String> = own.map(str::to_owned).collect();
    for sub in command.get_subcommands() {
        all.extend(flags(sub));
    }
    all
}

fn takes_many(command: &clap::Command, flag: &str) -> bool {
    command.get_arguments().any(|a| a.get_long() == Some(flag) && a.get_value_delimiter().is_some())
        || command.get_subcommands().any(|s| takes_many(s, flag))
}

fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> &'a str {
    let distance = |k: &&String| strsim::damerau_levenshtein(key, k);
    known.iter().min_by_key(distance).map_or("data", String::as_str)
}

fn with_defaults(command: clap::Command, values: &BTreeMap<String, Vec<String>>) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_long().and_then(|l| values.get(l)) {
        Some(list) => arg.required(false).default_values(list.clone()),
        None => arg,
    });
    command.mut_subcommands(|sub| with_defaults(sub, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, KeyCommand, LogFormat, RunArgs};
    use schemas::catalog::Scope;

    fn with(args: &[&str], file: &str) -> Result<Cli, Stop> {
        let args = std::iter::once("clickback").chain(args.iter().copied()).map(OsString::from).collect();
        parse_with(args, Some(("clickback.toml".to_owned(), file.to_owned())))
    }

    fn run(args: &[&str], file: &str) -> RunArgs {
        match with(args, file).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(args: &[&str], file: &str) -> String {
        match with(args, file).unwrap_err() {
            Stop::File(error) => format!("{error:#}"),
            Stop::Clap(error) => error.to_string(),
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "data = \"/srv/cb\"\ningest = \"127.0.0.1:7000\"\npublic_url = \"https://t.example.com\"\n";
        let run = run(&["run", "--ingest", "127.0.0.1:7001"], file);
        assert_eq!(run.data.to_str(), Some("/srv/cb"));
        assert_eq!(run.serve.public.ingest.to_string(), "127.0.0.1:7001");
        assert_eq!(run.serve.api.to_string(), "127.0.0.1:8081");
        assert_eq!(run.serve.public.public_url.as_deref(), Some("https://t.example.com"));
    }

    #[test]
    fn lists_are_arrays() {
        let run = run(&["run"], "trusted-proxy = [\"10.0.0.0/8\", \"192.0.2.1\"]");
        assert_eq!(run.serve.public.trusted_proxy.len(), 2);
        assert!(refusal(&["run"], "data = [\"a\", \"b\"]").contains("one value"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        assert!(refusal(&["run"], "pubic-url = \"x\"").contains("did you mean `public-url`?"));
        assert!(refusal(&["run"], "ingst = \"x\"").contains("did you mean `ingest`?"));
        assert!(refusal(&["run"], "config = \"x\"").contains("unknown key `config`"));
        assert!(refusal(&["run"], "public-url = \"http://a\"\npublic_url = \"http://b\"").contains("twice"));
    }

    #[test]
    fn a_bad_value_names_the_file() {
        let text = refusal(&["run"], "ingest = \"here\"");
        assert!(text.contains("--ingest") && text.contains("clickback.toml"), "{text}");
    }

    #[test]
    fn keys_reach_global_and_required_flags_and_switches() {
        let cli = with(&["key", "create"], "tenant = \"t\"\nscope = \"read\"\nlog-format = \"json\"").unwrap();
        assert_eq!(cli.common.log_format, LogFormat::Json);
        match cli.command {
            Command::Key(KeyCommand::Create(key)) => assert_eq!((key.tenant.as_str(), key.scope), ("t", Scope::Read)),
            other => panic!("{other:?}"),
        }
        match with(&["check", "http://x/"], "json = true").unwrap().command {
            Command::Check(check) => assert!(check.json),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_is_found_before_the_rest_is_read() {
        let args = |a: &[&str]| a.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(named_file(&args(&["clickback", "run", "--config", "a.toml"])), Some("a.toml".into()));
        assert_eq!(named_file(&args(&["clickback", "--config=b.toml", "run"])), Some("b.toml".into()));
        assert_eq!(named_file(&args(&["clickback", "check", "--", "--config=b.toml"])), None);
    }
}
