//! Licences and sources of all dependencies, against the lists in `deny.toml`.
//!
//! Needs nothing but cargo, so it works where `cargo deny` is not installed.

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub fn check() -> Result<()> {
    let text = std::fs::read_to_string(crate::root().join("deny.toml")).context("deny.toml")?;
    let rules: toml::Table = text.parse().context("deny.toml")?;
    let allowed = list(&rules, "licenses", "allow");
    let registries = list(&rules, "sources", "allow-registry");

    let output = crate::cargo().args(["metadata", "--format-version", "1", "--locked"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;

    let mut problems = Vec::new();
    for package in packages {
        let name = format!("{} {}", text_of(&package["name"]), text_of(&package["version"]));
        let licence = text_of(&package["license"]);
        if !acceptable(licence, &allowed) {
            problems.push(format!("{name}: the licence `{licence}` is not allowed"));
        }
        if let Some(source) = package["source"].as_str() {
            let known = source.strip_prefix("registry+").is_some_and(|s| registries.iter().any(|r| r == s));
            if !known {
                problems.push(format!("{name}: the source {source} is not allowed"));
            }
        }
    }
    if !problems.is_empty() {
        bail!("dependencies:\n  {}", problems.join("\n  "));
    }
    eprintln!("{} packages: licences and sources are as deny.toml allows", packages.len());
    Ok(())
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(rules: &toml::Table, section: &str, key: &str) -> Vec<String> {
    let values = rules.get(section).and_then(|s| s.get(key)).and_then(|v| v.as_array());
    values.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// SPDX expressions as they occur: `A OR B`, the old `A/B`, `(A OR B) AND C`. Every part of an AND must have one
/// allowed choice.
fn acceptable(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace(" / ", "/").replace('/', " OR ").replace(['(', ')'], " ");
    !expression.trim().is_empty()
        && expression
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|choice| allowed.iter().any(|a| a == choice.trim())))
}

#[cfg(test)]
mod tests {
    use super::acceptable;

    #[test]
    fn expressions() {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned(), "Unicode-3.0".to_owned()];
        for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "Apache-2.0 / MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"]
        {
            assert!(acceptable(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "LGPL-2.1-or-later"] {
            assert!(!acceptable(bad, &allowed), "{bad}");
        }
    }
}
