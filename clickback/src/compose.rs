//! What docker-compose.yml says to the binary, against what the binary takes. The containers themselves are not run.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};
use saphyr::{LoadableYamlNode as _, Yaml};

use crate::cli::Cli;

const FILE: &str = include_str!("../../docker-compose.yml");
const THREE: &str = include_str!("../../three-brokers.env");

fn document() -> Yaml<'static> {
    Yaml::load_from_str(FILE).unwrap().remove(0)
}

/// A field of a mapping, or of what is merged into it.
fn field<'y>(of: &'y Yaml<'static>, name: &str) -> Option<&'y Yaml<'static>> {
    let map = of.as_mapping()?;
    let own = |name: &str| map.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    own(name).or_else(|| field(own("<<")?, name))
}

fn names(of: &Yaml<'static>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (key, value) in of.as_mapping().unwrap() {
        match key.as_str().unwrap() {
            "<<" => all.extend(names(value)),
            name => all.extend([name.to_owned()]),
        }
    }
    all
}

fn texts(of: &Yaml<'static>) -> Vec<String> {
    of.as_sequence().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn services_are_started_with_flags_and_variables_that_are_there() {
    let document = document();
    let mut found = 0;
    for (name, service) in field(&document, "services").unwrap().as_mapping().unwrap() {
        if field(service, "image").and_then(|image| image.as_str()) != Some("clickback") {
            continue;
        }
        let name = name.as_str().unwrap();
        let command = texts(field(service, "command").unwrap());
        let mut subcommand = Cli::command();
        for word in command.iter().take_while(|word| !word.starts_with('-')) {
            let Some(next) = subcommand.find_subcommand(word).cloned() else { break };
            subcommand = next;
        }
        if subcommand.get_name() == "clickback" {
            assert_eq!(name, "projector", "`clickback {}` is no command", command[0]);
            continue;
        }
        let variables = field(service, "environment").map(names).unwrap_or_default();
        let known = |variable: &str| subcommand.get_arguments().any(|arg| arg.get_env().is_some_and(|e| e == variable));
        for variable in &variables {
            assert!(known(variable), "{name}: {variable} is no variable of `clickback {}`", command[0]);
        }
        // Values of variables do not matter here; that a required one is there does.
        let mut line = vec!["clickback".to_owned()];
        line.extend(command);
        line.extend(["--kafka".to_owned(), "kafka-1:9092".to_owned()]);
        if variables.contains("CLICKBACK_SCYLLA") {
            line.extend(["--scylla".to_owned(), "scylla:9042".to_owned()]);
        }
        Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{name}: {error}"));
        found += 1;
    }
    assert!(found >= 4, "{found} services of ours");
}

#[test]
fn what_is_named_is_there() {
    let document = document();
    let (services, volumes) = (field(&document, "services").unwrap(), names(field(&document, "volumes").unwrap()));
    let all = names(services);
    let mut used = BTreeSet::new();
    for name in &all {
        let service = field(services, name).unwrap();
        for other in field(service, "depends_on").map(names).unwrap_or_default() {
            assert!(all.contains(&other), "{name} depends on {other}");
        }
        let mounts = field(service, "volumes").map(texts).unwrap_or_default();
        used.extend(mounts.iter().map(|mount| mount.split(':').next().unwrap().to_owned()));
    }
    assert_eq!(used, volumes);
    for line in THREE.lines().filter(|line| !line.starts_with('#')) {
        let (variable, _) = line.split_once('=').unwrap();
        assert!(FILE.contains(&format!("${{{variable}:-")), "{variable} of three-brokers.env is read nowhere");
    }
}
