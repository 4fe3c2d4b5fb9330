//! The live table: what became of the postbacks, and what the reports say, as everybody can ask for it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt::Write as _,
    io::IsTerminal,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use schemas::Time;
use serde::Deserialize;

use super::{client::Client, traffic::Tally};
use crate::out;

/// Hits that were counted and may come up again at the edge of a page.
const REMEMBERED: usize = 20_000;
/// Pages of new hits that one look reads.
const PAGES: usize = 10;
/// Waiting hits that one look asks for again.
const ASKED_AGAIN: usize = 50;
const ORDER: [&str; 7] = ["converted", "updated", "waiting", "duplicate", "rejected", "withdrawn", "test"];

#[derive(Deserialize)]
struct Postbacks {
    rows: Vec<Hit>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Hit {
    hit: String,
    outcome: String,
    reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Report {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    account_name: Option<String>,
    program: Option<String>,
    clicks: Option<i64>,
    goals: BTreeMap<String, i64>,
    earnings: Vec<Money>,
    rates: Rates,
}

#[derive(Deserialize)]
struct Money {
    currency: String,
    state: String,
    amount: String,
}

#[derive(Deserialize)]
struct Rates {
    click_to_signup: Option<String>,
}

/// Counts of the hits since the start, kept up to date by asking for what is new and for what waited.
#[derive(Default)]
struct Outcomes {
    counts: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    waiting: HashSet<String>,
    seen: HashSet<String>,
    order: VecDeque<String>,
}

impl Outcomes {
    /// False: this hit was counted before.
    fn count(&mut self, hit: Hit) -> bool {
        if !self.seen.insert(hit.hit.clone()) {
            return false;
        }
        self.order.push_back(hit.hit.clone());
        if self.order.len() > REMEMBERED
            && let Some(old) = self.order.pop_front()
        {
            self.seen.remove(&old);
        }
        self.add(hit);
        true
    }

    fn add(&mut self, hit: Hit) {
        *self.counts.entry(hit.outcome.clone()).or_default() += 1;
        match hit.outcome.as_str() {
            "waiting" if self.waiting.len() < REMEMBERED => {
                self.waiting.insert(hit.hit);
            }
            "rejected" => *self.reasons.entry(hit.reason.unwrap_or_default()).or_default() += 1,
            _ => {}
        }
    }

    /// A hit that waited has another outcome now.
    fn decided(&mut self, hit: Hit) {
        if hit.outcome != "waiting" && self.waiting.remove(&hit.hit) {
            if let Some(count) = self.counts.get_mut("waiting") {
                *count = count.saturating_sub(1);
            }
            self.add(hit);
        }
    }

    fn of(&self, outcome: &str) -> u64 {
        self.counts.get(outcome).copied().unwrap_or_default()
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// How the board shows itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Face {
    /// A table in place, for a terminal.
    Table,
    Line,
    Json,
}

pub struct Board<'a> {
    client: &'a Client,
    tally: &'a Tally,
    since: Time,
    begun: Instant,
    outcomes: Outcomes,
    report: Report,
    /// How long the last look waited for everything acknowledged to be in the reports.
    behind: Duration,
    face: Face,
    lines: usize,
    last: (Instant, u64),
    rate: f64,
}

impl<'a> Board<'a> {
    pub fn new(client: &'a Client, tally: &'a Tally, since: Time, json: bool) -> Board<'a> {
        let now = Instant::now();
        let face = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Face::Json,
            (false, true) => Face::Table,
            (false, false) => Face::Line,
        };
        Board {
            client,
            tally,
            since,
            begun: now,
            outcomes: Outcomes::default(),
            report: Report::default(),
            behind: Duration::ZERO,
            face,
            lines: 0,
            last: (now, 0),
            rate: 0.0,
        }
    }

    /// A table in place changes every second; lines in a file or a pipe come every five.
    pub fn pace(&self) -> Duration {
        Duration::from_secs(if self.face == Face::Table { 1 } else { 5 })
    }

    /// Asks the API, then shows what it said.
    pub async fn show(&mut self) -> anyhow::Result<()> {
        let asked = Instant::now();
        let from = format!("from={}", self.since);
        let path = format!("/v1/reports/conversions?{from}&group_by=account,program&limit=1000&after=latest&wait=5s");
        self.report = self.client.get(&path).await?;
        self.report.rows.sort_by(|a, b| b.clicks.cmp(&a.clicks).then_with(|| a.account_name.cmp(&b.account_name)));
        self.behind = asked.elapsed();
        self.read_new_hits(&from).await?;
        self.read_waiting_hits(&from).await?;
        self.measure_rate();
        match self.face {
            Face::Table => self.print(&self.table()),
            Face::Line => out::say(&self.line()),
            Face::Json => out::say_json(&self.object()),
        }
    }

    async fn read_new_hits(&mut self, from: &str) -> anyhow::Result<()> {
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let path = format!("/v1/reports/postbacks?{from}&limit=1000{cursor}");
            let page: Postbacks = self.client.get(&path).await?;
            let mut fresh = 0;
            for hit in page.rows {
                fresh += usize::from(self.outcomes.count(hit));
            }
            match page.cursor {
                Some(next) if fresh > 0 => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        Ok(())
    }

    async fn read_waiting_hits(&mut self, from: &str) -> anyhow::Result<()> {
        let path = format!("/v1/reports/postbacks?{from}&outcome=waiting&limit=1000");
        let page: Postbacks = self.client.get(&path).await?;
        let still: HashSet<&str> = page.rows.iter().map(|h| h.hit.as_str()).collect();
        let gone: Vec<String> =
            self.outcomes.waiting.iter().filter(|h| !still.contains(h.as_str())).take(ASKED_AGAIN).cloned().collect();
        for hit in gone {
            let hit: Hit = self.client.get(&format!("/v1/hits/{hit}")).await?;
            self.outcomes.decided(hit);
        }
        Ok(())
    }

    fn measure_rate(&mut self) {
        let (now, requests) = (Instant::now(), self.tally.requests());
        let seconds = now.duration_since(self.last.0).as_secs_f64();
        if seconds > 0.5 {
            self.rate = (requests - self.last.1) as f64 / seconds;
            self.last = (now, requests);
        }
    }

    fn print(&mut self, text: &str) -> anyhow::Result<()> {
        let text = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        // Back to the first line of the last table, and everything below it away; long lines are cut at the edge and
        // not wrapped, so that a line is a line.
        let back = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
        self.lines = text.lines().count();
        out::say(&format!("{back}\x1b[J\x1b[?7l{text}\x1b[?7h"))
    }

    fn clock(&self) -> String {
        let seconds = self.begun.elapsed().as_secs();
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    }

    fn line(&self) -> String {
        let mut text = format!(
            "{}  {:.0}/s  {} clicks  {} postbacks:",
            self.clock(),
            self.rate,
            self.tally.clicks.load(Relaxed),
            self.tally.postbacks.load(Relaxed)
        );
        for outcome in ORDER.into_iter().filter(|o| self.outcomes.of(o) > 0) {
            write!(text, " {outcome} {}", self.outcomes.of(outcome)).ok();
        }
        self.failures(&mut text);
        text
    }

    fn object(&self) -> serde_json::Value {
        serde_json::json!({
            "seconds": self.begun.elapsed().as_secs(),
            "rate": self.rate.round(),
            "clicks": self.tally.clicks.load(Relaxed),
            "postbacks": self.tally.postbacks.load(Relaxed),
            "outcomes": self.outcomes.counts,
            "reasons": self.outcomes.reasons,
            "failures": self.tally.failures.load(Relaxed),
        })
    }

    fn failures(&self, text: &mut String) {
        match self.tally.failures.load(Relaxed) {
            0 => {}
            n => {
                write!(text, "  {n} requests failed: {}", self.tally.last_failure()).ok();
            }
        }
    }

    fn table(&self) -> String {
        let (median, slow) = self.tally.answer_times();
        let ms = |d: Duration| d.as_secs_f64() * 1_000.0;
        let mut text = format!(
            "\n{}   {:.0} requests/s   answered in {:.1} ms (p99 {:.1} ms)   in the reports after {:.0} ms",
            self.clock(),
            self.rate,
            ms(median),
            ms(slow),
            ms(self.behind)
        );
        self.failures(&mut text);
        text.push_str("\n\n");
        self.outcome_rows(&mut text);
        text.push('\n');
        self.account_rows(&mut text);
        text
    }

    fn outcome_rows(&self, text: &mut String) {
        let total = self.outcomes.total();
        writeln!(text, "{:<12}{:>9}{:>9}", "postbacks", total, "").ok();
        for outcome in ORDER.into_iter().filter(|o| self.outcomes.of(o) > 0) {
            let count = self.outcomes.of(outcome);
            let share = count as f64 * 100.0 / total.max(1) as f64;
            let why = if outcome == "rejected" { self.reasons() } else { String::new() };
            writeln!(text, "  {outcome:<10}{count:>9}{share:>8.1}%  {why}").ok();
        }
    }

    /// The most frequent ones.
    fn reasons(&self) -> String {
        let mut reasons: Vec<(&String, &u64)> = self.outcomes.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        reasons.iter().take(4).map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
    }

    fn account_rows(&self, text: &mut String) {
        writeln!(
            text,
            "{:<18}{:<15}{:>7}{:>9}{:>11}{:>10}{:>8}  earned (approved)",
            "account", "program", "clicks", "sign-ups", "first dep.", "deposits", "rate"
        )
        .ok();
        for row in &self.report.rows {
            let goal = |name: &str| row.goals.get(name).copied().unwrap_or_default();
            let rate = row.rates.click_to_signup.as_deref().and_then(|r| r.parse::<f64>().ok());
            writeln!(
                text,
                "{:<18}{:<15}{:>7}{:>9}{:>11}{:>10}{:>8}  {}",
                row.account_name.as_deref().unwrap_or("-"),
                row.program.as_deref().unwrap_or("-"),
                row.clicks.unwrap_or_default(),
                goal("signups"),
                goal("firsttimedeposits"),
                goal("deposits"),
                rate.map_or_else(|| "-".to_owned(), |r| format!("{:.1}%", r * 100.0)),
                earned(&row.earnings)
            )
            .ok();
        }
    }
}

fn earned(earnings: &[Money]) -> String {
    let approved = earnings.iter().filter(|m| m.state == "approved");
    approved.map(|m| format!("{} {}", m.amount, m.currency)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(id: &str, outcome: &str) -> Hit {
        Hit { hit: id.into(), outcome: outcome.into(), reason: Some("unknown_click".into()) }
    }

    #[test]
    fn a_hit_counts_once_and_moves_when_it_is_decided() {
        let mut outcomes = Outcomes::default();
        assert!(outcomes.count(hit("a", "waiting")) && outcomes.count(hit("b", "rejected")));
        assert!(!outcomes.count(hit("a", "waiting")));
        assert_eq!((outcomes.of("waiting"), outcomes.total()), (1, 2));
        outcomes.decided(hit("a", "waiting"));
        assert_eq!(outcomes.of("waiting"), 1);
        outcomes.decided(hit("a", "converted"));
        outcomes.decided(hit("a", "converted"));
        assert_eq!((outcomes.of("waiting"), outcomes.of("converted"), outcomes.total()), (0, 1, 2));
        assert_eq!(outcomes.reasons["unknown_click"], 1);
    }

    #[test]
    fn earnings_of_one_currency_are_never_added_to_another() {
        let money = |currency: &str, state: &str, amount: &str| Money {
            currency: currency.into(),
            state: state.into(),
            amount: amount.into(),
        };
        let all = [money("EUR", "approved", "1.50"), money("EUR", "pending", "9.00"), money("USD", "approved", "2.00")];
        assert_eq!(earned(&all), "1.50 EUR, 2.00 USD");
    }
}
