//! Whether an account's postbacks come and convert as they always did: silence, and reasons that are new. Pure.
//!
//! Owns: what is called wrong, since when, and with which examples. Refuses: fixed alarms. An account is compared with its
//! own habit, and one with little history is `new` and not wrong.

use std::collections::{BTreeMap, BTreeSet};

use schemas::{EventId, Reason, Time, outcome::Status, time::MINUTE_MS};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    rows::{AsOf, PostbackRow},
    show::span,
};

/// Hits without which nothing is known of an account.
const FEWEST: usize = 10;
/// Of the hits, the newest ones that are compared with all others: a fifth, within these bounds.
const RECENT: std::ops::RangeInclusive<usize> = 5..=200;
/// A reason is a problem from this many recent hits on, and from this share of them.
const FEWEST_OF_REASON: usize = 3;
const SHARE_PERCENT: usize = 10;
/// Hits in a row without a reason, after which it began anew.
const QUIET: usize = 20;
/// Pauses between good hits that make a habit.
const FEWEST_PAUSES: usize = 20;
/// Silence is that many times the longest usual pause, and at least an hour.
const TIMES_AS_LONG: i64 = 3;
const SHORTEST_SILENCE_MS: i64 = 60 * MINUTE_MS;
/// Clicks after which a first postback is missed.
const CLICKS_WITHOUT_POSTBACK: i64 = 100;
/// Clicks that one transaction id may stand for.
const CLICKS_PER_TID: usize = 5;
const EXAMPLES: usize = 3;

/// What is looked at.
pub struct Figures<'a> {
    /// Newest first.
    pub hits: &'a [PostbackRow],
    /// There are older ones in the time that was looked at.
    pub more: bool,
    pub from: Time,
    pub now: Time,
    /// Of visitors, in the last 7 days.
    pub clicks: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Healthy,
    /// Too little came so far to tell.
    New,
    /// Postbacks come, and more of them fail than usual.
    Failing,
    /// Good postbacks have stopped.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccountHealth {
    pub status: HealthStatus,
    /// Since when the first of the problems is there.
    pub since: Option<Time>,
    pub problems: Vec<HealthProblem>,
    pub last_hit: Option<Time>,
    /// The newest one that made or changed a conversion.
    pub last_good_hit: Option<Time>,
    pub habit: Habit,
    pub looked_at: LookedAt,
    pub as_of: AsOf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthProblem {
    /// A reason code, or `silence`, `no_postbacks`, `constant_tid`.
    pub code: &'static str,
    pub detail: String,
    pub since: Option<Time>,
    /// Of the recent hits, in percent.
    pub percent: Option<usize>,
    /// Of the hits before them.
    pub usual_percent: Option<usize>,
    /// Hit ids, the newest first.
    #[schema(value_type = Vec<String>)]
    pub examples: Vec<EventId>,
    pub fix: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Habit {
    /// Of the hits that were looked at, in percent, by reason; `null` is not a reason.
    pub percent: BTreeMap<&'static str, usize>,
    /// Longest of the usual pauses between good hits (99 of 100 are shorter); `null` while there are too few.
    pub pause_s: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LookedAt {
    pub hits: usize,
    pub from: Time,
    /// There are more hits in this time: only the newest were looked at.
    pub more: bool,
}

/// Tests and what a reprocess took back say nothing about a sender.
fn counts(hit: &PostbackRow) -> bool {
    !matches!(hit.outcome, Status::Test | Status::Withdrawn)
}

fn is_good(hit: &PostbackRow) -> bool {
    matches!(hit.outcome, Status::Converted | Status::Updated)
}

/// The reasons of a hit and its goals that somebody has to do something about.
fn reasons(hit: &PostbackRow) -> impl Iterator<Item = Reason> {
    let of_goals = hit.goals.iter().filter_map(|goal| goal.reason);
    let all: BTreeSet<Reason> = hit.reason.into_iter().chain(of_goals).collect();
    // A repeat harms nobody, and an ignored word is ignored because somebody said so.
    all.into_iter().filter(|reason| !matches!(reason, Reason::Duplicate | Reason::IgnoredStatus))
}

fn has(hit: &PostbackRow, wanted: Reason) -> bool {
    reasons(hit).any(|reason| reason == wanted)
}

pub fn watch(figures: &Figures<'_>, as_of: AsOf) -> AccountHealth {
    let hits: Vec<&PostbackRow> = figures.hits.iter().filter(|hit| counts(hit)).collect();
    let pauses = pauses(&hits);
    let mut problems: Vec<HealthProblem> = silence(figures, &hits, &pauses).into_iter().collect();
    let silent = !problems.is_empty();
    problems.extend(risen_reasons(&hits));
    problems.extend(constant_tid(&hits));
    let status = match (silent, problems.is_empty()) {
        (true, _) => HealthStatus::Silent,
        (false, false) => HealthStatus::Failing,
        (false, true) if hits.len() < FEWEST => HealthStatus::New,
        (false, true) => HealthStatus::Healthy,
    };
    AccountHealth {
        status,
        since: problems.iter().filter_map(|problem| problem.since).min(),
        problems,
        last_hit: hits.first().map(|hit| hit.time),
        last_good_hit: hits.iter().find(|hit| is_good(hit)).map(|hit| hit.time),
        habit: Habit { percent: percents(&hits), pause_s: usual(&pauses).map(|ms| ms / 1_000) },
        looked_at: LookedAt { hits: figures.hits.len(), from: figures.from, more: figures.more },
        as_of,
    }
}

/// Milliseconds between one good hit and the next, the shortest first.
fn pauses(hits: &[&PostbackRow]) -> Vec<i64> {
    let good: Vec<Time> = hits.iter().filter(|hit| is_good(hit)).map(|hit| hit.time).collect();
    let mut pauses: Vec<i64> = good.windows(2).map(|pair| pair[0].since(pair[1])).collect();
    pauses.sort_unstable();
    pauses
}

fn usual(pauses: &[i64]) -> Option<i64> {
    (pauses.len() >= FEWEST_PAUSES).then(|| pauses[(pauses.len() * 99).div_ceil(100) - 1])
}

fn silence(figures: &Figures<'_>, hits: &[&PostbackRow], pauses: &[i64]) -> Option<HealthProblem> {
    let problem = |code, since, detail, fix: &str| HealthProblem {
        code,
        detail,
        since,
        percent: None,
        usual_percent: None,
        examples: Vec::new(),
        fix: fix.to_owned(),
    };
    if hits.is_empty() {
        return (figures.clicks >= CLICKS_WITHOUT_POSTBACK).then(|| {
            let detail = format!(
                "{} visitors followed the links in the last 7 days, and no postback came since {}.",
                figures.clicks, figures.from
            );
            let fix = "Ask the account manager whether the postback URLs are set and active, and check with POST /v1/check that the links carry the program's parameter.";
            problem("no_postbacks", None, detail, fix)
        });
    }
    let longest = (usual(pauses)? * TIMES_AS_LONG).max(*pauses.last()?).max(SHORTEST_SILENCE_MS);
    let last = hits.iter().find(|hit| is_good(hit))?.time;
    let quiet = figures.now.since(last);
    (quiet > longest).then(|| {
        let newer = hits.iter().take_while(|hit| !is_good(hit)).count();
        let what = match newer {
            0 => "No postback came".to_owned(),
            1 => "A postback came, but none that made a conversion".to_owned(),
        newer => format!("{newer} postbacks came, and none of them made a conversion"),
        };
        let (quiet, usual) = (span(quiet), span(pauses.last().copied().unwrap_or_default()));
        let detail = format!("{what} in {quiet}; the longest pause before was {usual}.");
        let fix = match newer {
            0 => "Ask the operator whether the postback URLs are still set and their server still sends; an expired campaign or a changed token stops them without a word.",
            _ => "Look at the reasons of the hits since then: they come, and none is understood.",
        };
        problem("silence", Some(last), detail, fix)
    })
}

/// Reasons that recent hits have much more often than the ones before. Where no hit is good at all, there is no habit to hold
/// them against.
fn risen_reasons(hits: &[&PostbackRow]) -> Vec<HealthProblem> {
    let (recent, before) = hits.split_at((hits.len() / 5).clamp(*RECENT.start(), *RECENT.end()).min(hits.len()));
    let percent = |hits: &[&PostbackRow], reason| {
        let of = hits.iter().filter(|hit| has(hit, reason)).count();
        (of, if hits.is_empty() { 0 } else { of * 100 / hits.len() })
    };
    let none_good = !hits.iter().any(|hit| is_good(hit));
    let all: BTreeSet<Reason> = recent.iter().flat_map(|hit| reasons(hit)).collect();
    let risen = all.into_iter().filter_map(|reason| {
        let ((count, now), (_, usual)) = (percent(recent, reason), percent(before, reason));
        let is_risen = count >= FEWEST_OF_REASON && now >= SHARE_PERCENT && (none_good || now > 2 * usual);
        is_risen.then(|| risen_reason(hits, reason, (count, recent.len()), now, usual))
    });
    risen.collect()
}

fn risen_reason(
    hits: &[&PostbackRow],
    reason: Reason,
    (count, of): (usize, usize),
    now: usize,
    usual: usize,
) -> HealthProblem {
    let with: Vec<&&PostbackRow> = hits.iter().filter(|hit| has(hit, reason)).collect();
    let newest = with.first();
    let hint = newest.filter(|hit| hit.reason == Some(reason)).and_then(|hit| hit.hint.clone());
    let code = reason.code();
    HealthProblem {
        code,
        detail: format!("{count} of the last {of} postbacks have the reason {code} ({now} %; before: {usual} %)."),
        since: began(hits, reason),
        percent: Some(now),
        usual_percent: Some(usual),
        examples: with.iter().take(EXAMPLES).map(|hit| hit.hit).collect(),
        fix: hint.unwrap_or_else(|| reason.hint().to_owned()),
    }
}

/// The first hit of a reason after it had not come for a while.
fn began(hits: &[&PostbackRow], reason: Reason) -> Option<Time> {
    let (mut since, mut without) = (None, 0);
    for hit in hits {
        if has(hit, reason) {
            (since, without) = (Some(hit.time), 0);
        } else {
            without += 1;
            if without == QUIET {
                break;
            }
        }
    }
    since
}

/// One transaction id for many clicks tells nothing apart: true conversions of one click are taken for repeats.
fn constant_tid(hits: &[&PostbackRow]) -> Option<HealthProblem> {
    let mut clicks: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut with_tid = 0;
    for hit in hits {
        let Some(click) = hit.click.as_deref() else { continue };
        let tids: BTreeSet<&str> = hit.goals.iter().filter_map(|goal| goal.tid.as_deref()).collect();
        with_tid += usize::from(!tids.is_empty());
        for tid in tids {
            clicks.entry(tid).or_default().insert(click);
        }
    }
    let (tid, clicks) = clicks.into_iter().max_by_key(|(_, clicks)| clicks.len())?;
    let of = |hit: &&&PostbackRow| hit.goals.iter().any(|goal| goal.tid.as_deref() == Some(tid));
    let same: Vec<_> = hits.iter().filter(of).collect();
    if clicks.len() < CLICKS_PER_TID || same.len() * 2 < with_tid {
        return None;
    }
    Some(HealthProblem {
        code: "constant_tid",
        detail: format!("The transaction id {tid} came with {} different clicks, so it names no transaction.", clicks.len()),
        since: same.last().map(|hit| hit.time),
        percent: Some(same.len() * 100 / hits.len()),
        usual_percent: None,
        examples: same.iter().take(EXAMPLES).map(|hit| hit.hit).collect(),
        fix: "Put the program's placeholder for the transaction id there, or leave tid out: with a constant one, a second deposit of the same click is taken for a repeat.".to_owned(),
    })
}

fn percents(hits: &[&PostbackRow]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::<&'static str, usize>::new();
    hits.iter().flat_map(|hit| reasons(hit)).for_each(|reason| *counts.entry(reason.code()).or_default() += 1);
    counts.into_iter().map(|(code, count)| (code, count * 100 / hits.len())).collect()
}

#[cfg(test)]
mod tests;
