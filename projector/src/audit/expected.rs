//! What the tables should show, from the outcomes alone, by the plainest way that there is.
//!
//! Deliberately shares nothing with `fold` and `tables` but the rows of the contract: the same mistake must not be
//! made twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use rapidhash::v3::rapidhash_v3;
use schemas::{
    ClickId, Outcome, Time,
    bounds::FREE_VALUES_PER_DAY,
    event::Correction,
    outcome::{Change, ClickData, ClickRef, Conversion, HitOutcome, Kind, Status},
};
use serde::Serialize;

use crate::report::{ChangeRow, ClickRow, ConversionRow, GoalRow, PostbackRow, What, show::general_hint};

/// Names a cell: tenant, account, family, value (`None`: those beyond the named ones), UTC day.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub tenant: String,
    pub account: String,
    pub family: &'static str,
    pub value: Option<String>,
    pub day: i64,
}

/// Quarter of an hour of the day (`None`: the whole day) and what is measured, as text.
pub type Entry = (Option<u8>, String);

/// Count, earning, value.
pub type Figures = (i64, i128, i128);

pub const FAMILIES: [&str; 8] = ["account", "link", "dyn", "sub1", "sub2", "sub3", "sub4", "sub5"];

#[derive(Clone, Debug)]
pub struct ExpectedHit {
    pub row: u64,
    pub id: schemas::EventId,
    /// Hashes, as every hit of the log stands here.
    pub request: u64,
    pub decision: u64,
}

#[derive(Default)]
pub struct Expected {
    pub next: u64,
    pub cells: BTreeMap<Place, BTreeMap<Entry, Figures>>,
    named: HashMap<(String, String, &'static str, i64), HashSet<String>>,
    pub hits: BTreeMap<u64, ExpectedHit>,
    rows_of_hits: HashMap<schemas::EventId, u64>,
    pub clicks: BTreeMap<u64, u64>,
    /// By id; with changes.
    pub conversions: HashMap<String, ConversionRow>,
}

pub fn hash<T: Serialize>(row: &T) -> Result<u64> {
    Ok(rapidhash_v3(&serde_json::to_vec(row)?))
}

/// The part of a row that never changes, and the part that later outcomes replace.
pub fn hashes(row: &PostbackRow) -> Result<(u64, u64)> {
    let request = hash(&(row.hit, row.time, &row.account, &row.method, &row.raw, &row.body, &row.remote))?;
    let decision = PostbackRow { method: String::new(), raw: String::new(), body: None, remote: None, ..row.clone() };
    Ok((request, hash(&decision)?))
}

impl Expected {
    pub fn take(&mut self, src: u64, outcome: &Outcome) -> Result<()> {
        self.next = src + 1;
        if outcome.reprocess.as_ref().is_some_and(|reprocess| reprocess.dry_run) {
            return Ok(());
        }
        if let (Kind::Click, None, Some(click)) = (outcome.kind, outcome.reason, &outcome.click) {
            self.click(src, outcome, click)?;
        }
        for hit in &outcome.hits {
            self.hit(src, outcome, hit)?;
            for goal in &hit.goals {
                let changed = matches!(goal.outcome, Status::Converted | Status::Updated | Status::Withdrawn);
                if let (true, Some(conversion)) = (changed, &goal.conversion) {
                    let what = match (goal.outcome, outcome.kind) {
                        (Status::Withdrawn, _) => What::Withdrawn,
                        (_, Kind::Reprocess) => What::Reprocessed,
                        (Status::Converted, _) => What::Made,
                        _ => What::Updated,
                    };
                    let by = By { what, hit: Some(hit), click: hit.click.as_ref(), label: hit.label.as_deref() };
                    self.conversion(outcome.time, &hit.account, &hit.program, by, conversion, None);
                }
            }
        }
        if let Some(adjust) = &outcome.adjust
            && adjust.outcome == Status::Updated
            && let Some(conversion) = &adjust.conversion
        {
            let by = By { what: What::Adjusted, hit: None, click: None, label: adjust.label.as_deref() };
            let program = adjust.program.as_deref().unwrap_or_default();
            let hand = Some((adjust.by.as_str(), adjust.note.as_str()));
            self.conversion(outcome.time, &adjust.account, program, by, conversion, hand);
        }
        outcome.changes.iter().try_for_each(|change| self.change(outcome, change))
    }

    fn click(&mut self, src: u64, outcome: &Outcome, click: &ClickData) -> Result<()> {
        let flagged = click.flags.iter().any(|flag| ["preview", "prefetch", "bot"].contains(&flag.as_str()));
        let measure = if flagged { "flagged clicks" } else { "clicks" };
        let values = values_of_click(click);
        self.count(&outcome.tenant, &click.account, &values, click.time, measure, (1, 0, 0))?;
        let row = ClickRow {
            id: click.id.to_string(),
            time: click.time,
            account: click.account.clone(),
            program: click.program.clone(),
            link: click.link.clone(),
            dyn_: click.dyn_.clone(),
            foreign: click.foreign.clone(),
            sub1: click.sub1.clone(),
            sub2: click.sub2.clone(),
            sub3: click.sub3.clone(),
            sub4: click.sub4.clone(),
            sub5: click.sub5.clone(),
            flags: click.flags.clone(),
        };
        self.clicks.insert(src, hash(&row)?);
        Ok(())
    }

    fn hit(&mut self, src: u64, outcome: &Outcome, hit: &HitOutcome) -> Result<()> {
        let (request, decision) = hashes(&postback_row(hit))?;
        if hit.hit.id == outcome.id {
            self.rows_of_hits.insert(hit.hit.id, src);
            self.hits.insert(src, ExpectedHit { row: src, id: hit.hit.id, request, decision });
        } else {
            let row = self.rows_of_hits.get(&hit.hit.id).context("an outcome of a hit that was never received")?;
            let known = self.hits.get_mut(row).context("a hit without a row")?;
            known.decision = decision;
        }
        Ok(())
    }

    fn conversion(
        &mut self,
        time: Time,
        account: &str,
        program: &str,
        by: By<'_>,
        conversion: &Conversion,
        hand: Option<(&str, &str)>,
    ) {
        let change = ChangeRow {
            version: conversion.version,
            time,
            what: by.what,
            hit: by.hit.map(|hit| hit.hit.id),
            by: hand.map(|(by, _)| by.to_owned()),
            note: hand.map(|(_, note)| note.to_owned()),
            count: conversion.count,
            state: conversion.state,
            earning: conversion.earning,
            value: conversion.value,
            currency: conversion.currency.code(),
        };
        if let Some(row) = self.conversions.get_mut(&conversion.id.to_string()) {
            if conversion.version > row.version {
                set(row, conversion, time);
                row.changes.get_or_insert_default().push(change);
            }
            return;
        }
        let values = by.click.map(values_of_ref).unwrap_or_else(|| values_of_label(by.label));
        let [link, dyn_, sub1, sub2, sub3, sub4, sub5] = values.map(|value| value.map(str::to_owned));
        let mut row = ConversionRow {
            id: conversion.id.to_string(),
            version: 0,
            account: account.to_owned(),
            program: program.to_owned(),
            link,
            click: by.click.map(|click| click.id.to_string()),
            click_time: by.click.map_or(conversion.time, |click| click.time),
            dyn_,
            sub1,
            sub2,
            sub3,
            sub4,
            sub5,
            goal: String::new(),
            count: 0,
            state: conversion.state,
            earning: None,
            value: None,
            currency: "",
            tid: None,
            player: None,
            time: conversion.time,
            withdrawn: false,
            updated: time,
            changes: Some(vec![change]),
        };
        set(&mut row, conversion, time);
        self.conversions.insert(conversion.id.to_string(), row);
    }

    fn change(&mut self, outcome: &Outcome, change: &Change) -> Result<()> {
        let values = values_of_change(outcome, change);
        let money = |amount: Option<schemas::Amount>| amount.map_or(0, schemas::Amount::units);
        let figures = (change.count, money(change.earning), money(change.value));
        for (basis, time) in [("click", change.click_time), ("conversion", change.time)] {
            let measure = format!("{} {} {} by {basis} time", change.goal, change.state, change.currency);
            self.count(&outcome.tenant, &change.account, &values, time, &measure, figures)?;
        }
        Ok(())
    }

    fn count(
        &mut self,
        tenant: &str,
        account: &str,
        values: &[Option<&str>; 7],
        time: Time,
        measure: &str,
        by: Figures,
    ) -> Result<()> {
        let day = time.ms() / 86_400_000;
        let quarter = (time.ms() % 86_400_000 / 900_000) as u8;
        let all = [Some("")].into_iter().chain(values.iter().copied());
        for (number, (family, value)) in FAMILIES.into_iter().zip(all).enumerate() {
            let Some(value) = value else { continue };
            let mut place = Place {
                tenant: tenant.to_owned(),
                account: account.to_owned(),
                family,
                value: Some(value.to_owned()),
                day,
            };
            if number >= 2 {
                let named = self.named.entry((tenant.to_owned(), account.to_owned(), family, day)).or_default();
                if named.len() < FREE_VALUES_PER_DAY {
                    named.insert(value.to_owned());
                }
                if !named.contains(value) {
                    place.value = None;
                }
            }
            let cell = self.cells.entry(place).or_default();
            for slot in [None, Some(quarter)] {
                let sums = cell.entry((slot, measure.to_owned())).or_default();
                let added = (sums.0.checked_add(by.0), sums.1.checked_add(by.1), sums.2.checked_add(by.2));
                let (Some(count), Some(earning), Some(value)) = added else { anyhow::bail!("a cell overflows") };
                *sums = (count, earning, value);
            }
        }
        Ok(())
    }
}

struct By<'a> {
    what: What,
    hit: Option<&'a HitOutcome>,
    click: Option<&'a ClickRef>,
    label: Option<&'a str>,
}

fn set(row: &mut ConversionRow, to: &Conversion, time: Time) {
    if row.click.is_none() {
        row.click_time = to.time;
    }
    row.version = to.version;
    row.goal.clone_from(&to.goal);
    row.count = to.count;
    row.state = to.state;
    row.earning = to.earning;
    row.value = to.value;
    row.currency = to.currency.code();
    row.tid.clone_from(&to.tid);
    row.player.clone_from(&to.player);
    row.time = to.time;
    row.withdrawn = to.withdrawn;
    row.updated = time;
}

fn values_of_click(c: &ClickData) -> [Option<&str>; 7] {
    [&c.link, &c.dyn_, &c.sub1, &c.sub2, &c.sub3, &c.sub4, &c.sub5].map(Option::as_deref)
}

fn values_of_ref(c: &ClickRef) -> [Option<&str>; 7] {
    [&c.link, &c.dyn_, &c.sub1, &c.sub2, &c.sub3, &c.sub4, &c.sub5].map(Option::as_deref)
}

fn values_of_label(label: Option<&str>) -> [Option<&str>; 7] {
    [None, label, None, None, None, None, None]
}

fn values_of_change<'a>(outcome: &'a Outcome, change: &Change) -> [Option<&'a str>; 7] {
    let Some(id) = change.click else {
        let adjusted = outcome.adjust.as_ref().and_then(|adjust| adjust.label.as_deref());
        let replayed = outcome.reprocess.as_ref().and_then(|reprocess| reprocess.label.as_deref());
        let of_hit = outcome.hits.iter().find(|hit| {
            hit.goals.iter().any(|goal| goal.conversion.as_ref().is_some_and(|c| c.id == change.conversion))
        });
        return values_of_label(adjusted.or(replayed).or(of_hit.and_then(|hit| hit.label.as_deref())));
    };
    let is = |known: &ClickId| *known == id;
    if let Some(click) = outcome.click.as_ref().filter(|click| is(&click.id)) {
        return values_of_click(click);
    }
    let of_hits = outcome.hits.iter().filter_map(|hit| hit.click.as_ref());
    let replayed = outcome.reprocess.iter().flat_map(|reprocess| &reprocess.clicks);
    of_hits.chain(replayed).find(|click| is(&click.id)).map_or([None; 7], values_of_ref)
}

fn postback_row(hit: &HitOutcome) -> PostbackRow {
    let goals: Vec<GoalRow> = hit
        .goals
        .iter()
        .map(|goal| {
            let c = goal.conversion.as_ref();
            GoalRow {
                goal: goal.goal.clone(),
                count: goal.count,
                outcome: goal.outcome,
                reason: goal.reason,
                conversion: c.map(|c| c.id.to_string()),
                state: c.map(|c| c.state),
                earning: c.and_then(|c| c.earning),
                value: c.and_then(|c| c.value),
                currency: c.map(|c| c.currency.code()),
                tid: c.and_then(|c| c.tid.clone()),
                player: c.and_then(|c| c.player.clone()),
                same_as: goal.same_as,
            }
        })
        .collect();
    let click = hit.click.as_ref();
    let corrections: &Vec<Correction> = &hit.corrections;
    PostbackRow {
        hit: hit.hit.id,
        time: hit.hit.time,
        account: hit.account.clone(),
        method: hit.hit.method.clone().unwrap_or_default(),
        raw: hit.hit.raw.clone().unwrap_or_default(),
        body: hit.hit.body.clone(),
        remote: hit.hit.remote.clone(),
        outcome: hit.outcome,
        reason: hit.reason,
        hint: hit.hint.clone().or_else(|| {
            let same_as = hit.goals.iter().find_map(|goal| goal.same_as);
            hit.reason.map(|reason| general_hint(reason, hit.hit.time, same_as))
        }),
        partial: hit.outcome != Status::Rejected && goals.iter().any(|goal| goal.outcome == Status::Rejected),
        corrections: corrections.clone(),
        click: click.map(|click| click.id.to_string()).or_else(|| hit.named.clone()).or_else(|| hit.label.clone()),
        waiting_until: hit.waiting_until,
        goals,
        since_click_ms: click.map(|click| hit.hit.time.since(click.time)),
    }
}
