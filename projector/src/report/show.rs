//! From stored rows to the rows of the contract.

use schemas::{EventId, Reason, Time, event::Correction, outcome::Status};

use super::rows::{ChangeRow, ClickRow, ConversionRow, GoalRow, PostbackRow};
use crate::tables::{HitRow, StoredChange, StoredClick, StoredConversion};

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

pub fn postback(account: &str, hit: &HitRow<'_>) -> PostbackRow {
    let decision = &hit.decision;
    let goals: Vec<GoalRow> = decision
        .goals
        .iter()
        .map(|goal| {
            let conversion = goal.conversion.as_ref();
            GoalRow {
                goal: goal.goal.to_owned(),
                count: goal.count,
                outcome: goal.outcome,
                reason: goal.reason,
                conversion: conversion.map(|c| c.id.to_string()),
                state: conversion.map(|c| c.state),
                earning: conversion.and_then(|c| c.earning),
                value: conversion.and_then(|c| c.value),
                currency: conversion.map(|c| c.currency.code()),
                tid: conversion.and_then(|c| owned(c.tid)),
                player: conversion.and_then(|c| owned(c.player)),
                same_as: goal.same_as,
            }
        })
        .collect();
    let named = decision.named.or(decision.label);
    let hint = owned(decision.hint).or_else(|| {
        let same_as = decision.goals.iter().find_map(|goal| goal.same_as);
        decision.reason.map(|reason| general_hint(reason, hit.time, same_as))
    });
    PostbackRow {
        hit: hit.id,
        time: hit.time,
        account: account.to_owned(),
        method: hit.method.to_owned(),
        raw: hit.raw.to_owned(),
        body: owned(hit.body),
        remote: owned(hit.remote),
        outcome: decision.outcome,
        reason: decision.reason,
        hint,
        partial: decision.outcome != Status::Rejected && goals.iter().any(|goal| goal.outcome == Status::Rejected),
        corrections: decision
            .corrections
            .iter()
            .map(|(code, detail)| Correction { code: (*code).to_owned(), detail: (*detail).to_owned() })
            .collect(),
        click: decision.click.map(|(id, _)| id.to_string()).or(owned(named)),
        waiting_until: decision.waiting_until,
        goals,
        since_click_ms: decision.click.map(|(_, time)| hit.time.since(time)),
    }
}

/// What is known of a reason, and of a repeat which hit it repeats: ids tell the time of their hits.
pub(crate) fn general_hint(reason: Reason, time: Time, same_as: Option<EventId>) -> String {
    let Some(earlier) = same_as.filter(|_| reason == Reason::Duplicate) else { return reason.hint().to_owned() };
    let ago = span(time.since(earlier.time()));
    format!(
        "The same conversion was counted before, by hit {earlier}, {ago} earlier: the goal's dedup and repeat_window say what is the same."
    )
}

/// Two digits or so are enough to see whether somebody sends again or repeats himself.
pub(super) fn span(ms: i64) -> String {
    match ms / 1_000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

pub fn click(account: &str, row: &StoredClick<'_>) -> ClickRow {
    let [sub1, sub2, sub3, sub4, sub5] = row.origin.subs.map(owned);
    ClickRow {
        id: row.id.to_string(),
        time: row.time,
        account: account.to_owned(),
        program: row.program.to_owned(),
        link: owned(row.origin.link),
        dyn_: owned(row.origin.dyn_),
        foreign: owned(row.foreign),
        sub1,
        sub2,
        sub3,
        sub4,
        sub5,
        flags: row.flags.iter().map(|flag| (*flag).to_owned()).collect(),
    }
}

pub fn conversion(account: &str, row: &StoredConversion<'_>) -> ConversionRow {
    let [sub1, sub2, sub3, sub4, sub5] = row.origin.subs.map(owned);
    ConversionRow {
        id: row.id.to_string(),
        version: row.version,
        account: account.to_owned(),
        program: row.program.to_owned(),
        link: owned(row.origin.link),
        click: row.click.map(|id| id.to_string()),
        click_time: row.click_time,
        dyn_: owned(row.origin.dyn_),
        sub1,
        sub2,
        sub3,
        sub4,
        sub5,
        goal: row.goal.to_owned(),
        count: row.count,
        state: row.state,
        earning: row.earning,
        value: row.value,
        currency: row.currency.code(),
        tid: owned(row.tid),
        player: owned(row.player),
        time: row.time,
        withdrawn: row.withdrawn,
        updated: row.updated,
        changes: None,
    }
}

pub fn change(row: &StoredChange<'_>) -> ChangeRow {
    ChangeRow {
        version: row.version,
        time: row.time,
        what: row.what,
        hit: row.hit,
        by: row.hand.map(|(by, _)| by.to_owned()),
        note: row.hand.map(|(_, note)| note.to_owned()),
        count: row.count,
        state: row.state,
        earning: row.earning,
        value: row.value,
        currency: row.currency.code(),
    }
}
