//! docs/benchmarks.md: the figures of each mode stand between two marks; the words around them are written by people.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};

use crate::Options;

/// One section with its table.
pub struct Section {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// What follows from the table.
    pub results: Vec<String>,
}

pub struct Page {
    mark: &'static str,
    sections: Vec<Section>,
}

impl Page {
    /// What stands between `<!-- MARK: begin -->` and its end.
    pub fn of(mark: &'static str) -> Page {
        Page { mark, sections: Vec::new() }
    }

    pub fn add(&mut self, section: Section) {
        eprintln!("{}", text(&section));
        self.sections.push(section);
    }

    /// Writes them down, if all that belong there were measured.
    pub fn finish(&self, options: &Options, all: usize) -> Result<()> {
        if options.dry || self.sections.len() < all {
            return Ok(());
        }
        let mut body = machine();
        for section in &self.sections {
            body.push_str(&text(section));
        }
        let (begin, end) = (format!("<!-- {}: begin -->", self.mark), format!("<!-- {}: end -->", self.mark));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md");
        let page = fs::read_to_string(&path).context("docs/benchmarks.md")?;
        let (before, rest) = page.split_once(&begin).context("docs/benchmarks.md has lost its mark")?;
        let (_, after) = rest.split_once(&end).context("docs/benchmarks.md has lost its mark")?;
        fs::write(&path, format!("{before}{begin}\n{body}\n{end}{after}"))?;
        Ok(())
    }
}

fn text(section: &Section) -> String {
    let mut out = format!("\n### {}\n\n", section.title);
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    out.push_str(&line(&section.head));
    out.push_str(&line(&vec!["---".to_owned(); section.head.len()]));
    for row in &section.rows {
        out.push_str(&line(row));
    }
    out.push('\n');
    for result in &section.results {
        writeln!(out, "- {result}").ok();
    }
    out
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name").and_then(|l| l.split_once(':')))
        .map_or("?", |(_, m)| m.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    format!("Machine: {cores} cores ({model}), Linux, everything on 127.0.0.1; load average at the end {load}.\n")
}

pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => {
            let digits = format!("{value:.0}");
            let mut out = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    out.push(' ');
                }
                out.push(digit);
            }
            out
        }
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
