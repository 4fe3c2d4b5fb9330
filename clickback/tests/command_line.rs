//! The real binary: where its settings come from, and what the demo does.

use std::process::{Command, Output};

use serde_json::Value;

fn clickback(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickback"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLICKBACK_") {
            command.env_remove(name);
        }
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clickback.toml");
    std::fs::write(&file, "data = \"from-file\"\n").unwrap();
    let data = |with_flag: bool, with_env: bool, with_file: bool| {
        let mut command = clickback(&["audit"]);
        command.current_dir(folder.path());
        if with_flag {
            command.args(["--data", "from-flag"]);
        }
        if with_env {
            command.env("CLICKBACK_DATA", "from-env");
        }
        if with_file {
            command.env("CLICKBACK_CONFIG", &file);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    assert!(data(true, true, true).contains("from-flag"));
    assert!(data(false, true, true).contains("from-env"));
    assert!(data(false, false, true).contains("from-file"));
    assert!(data(false, false, false).contains("./data"));
}

#[test]
fn a_bad_value_is_bad_usage_wherever_it_stands() {
    let output = clickback(&["run"]).env("CLICKBACK_INGEST", "here").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let output = clickback(&["key", "create", "--tenant", "Not Good", "--scope", "read"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let output = clickback(&["run", "--public-url", "t.example.com"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn the_demo_shows_every_kind_of_outcome_and_its_figures_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let args = ["demo", "--ingest", "127.0.0.1:0", "--api", "127.0.0.1:0", "--rate", "150", "--seconds", "8"];
    let output = clickback(&args).args(["--log-format", "json", "--data", data]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines: Vec<Value> =
        output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let greeting = &lines[0];
    assert!(greeting["api_key"].as_str().unwrap().starts_with("cbk_"), "{greeting}");
    let last = lines.last().unwrap();
    assert_eq!(last["failures"], 0, "{last}\n{}", stderr(&output));
    for outcome in ["converted", "waiting", "duplicate", "rejected"] {
        assert!(last["outcomes"][outcome].as_u64() > Some(0), "no {outcome}: {last}");
    }
    let counted: u64 = last["outcomes"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(Some(counted), last["postbacks"].as_u64(), "every postback has one outcome: {last}");

    let audit = clickback(&["audit", "--data", data]).output().unwrap();
    assert_eq!(audit.status.code(), Some(0), "{}", String::from_utf8_lossy(&audit.stdout));
}
