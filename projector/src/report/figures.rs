//! The conversions report: which source answers it, its rows, their order and pages.

use std::cmp::Ordering;

use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use schemas::{Currency, Time, status::State, time::DAY_MS};
use serde::{Deserialize, Serialize};

use super::{
    Directory,
    by_cells::{ByCells, Marks, mark_key},
    by_rows::ByRows,
    measures::{measures, money_of},
    plan::{Plan, family},
    query::{Basis, Dimension, Match, QueryError, ReportQuery},
    range::Range,
    rows::{Report, ReportRow, Understood},
    source::Source,
    tally::{Groups, OTHER_VALUES, Tally, Texts},
};
use crate::fold::QUARTER_MS;

pub fn answer(source: &mut dyn Source, directory: &Directory<'_>, query: &ReportQuery) -> Result<Report, QueryError> {
    answer_from(source, directory, query, read)
}

/// The same report without cells.
#[cfg(test)]
pub fn answer_by_rows(
    source: &mut dyn Source,
    directory: &Directory<'_>,
    query: &ReportQuery,
) -> Result<Report, QueryError> {
    answer_from(source, directory, query, all_by_rows)
}

type Read = fn(&mut dyn Source, &Plan) -> Result<(Groups, Marks), QueryError>;

fn answer_from(
    source: &mut dyn Source,
    directory: &Directory<'_>,
    query: &ReportQuery,
    read: Read,
) -> Result<Report, QueryError> {
    let plan = Plan::new(source.accounts(directory, &query.tenant), directory, query)?;
    let sort = query.sort.as_deref().map(|text| Sort::parse(text, &query.group_by)).transpose()?;
    let after = query.cursor.as_deref().map(Mark::parse).transpose()?;
    let (groups, marks) = read(source, &plan)?;
    let mut total = Tally::default();
    for tally in groups.tallies.values() {
        total.add_all(tally)?;
    }
    let mut lines = lines(&plan, query, &groups, &marks, sort.as_ref())?;
    let order = |a: &Line, b: &Line| a.mark.compare(&b.mark, sort.as_ref().is_some_and(|sort| sort.falling));
    lines.sort_by(order);
    if let Some(after) = after {
        let falling = sort.as_ref().is_some_and(|sort| sort.falling);
        lines.retain(|line| line.mark.compare(&after, falling) == Ordering::Greater);
    }
    let limit = query.limit.unwrap_or(usize::MAX);
    let more = lines.len() > limit;
    lines.truncate(limit);
    let cursor = lines.last().filter(|_| more).map(|line| line.mark.text()).transpose()?;
    let with_clicks = plan.of_conversion.is_empty();
    let rows = lines.into_iter().map(|line| line.row(directory, &groups.texts, with_clicks)).collect();
    Ok(Report {
        rows,
        totals: measures(&total, &groups.texts, true),
        as_of: source.as_of(),
        query: understood(&plan, query),
        cursor,
    })
}

/// Cells where they have the combination, rows for what is left of the range at its ends, rows for all else.
fn read(source: &mut dyn Source, plan: &Plan) -> Result<(Groups, Marks), QueryError> {
    let up = |time: Time| (time.ms() + QUARTER_MS - 1).div_euclid(QUARTER_MS) * QUARTER_MS;
    let down = |time: Time| time.ms().div_euclid(QUARTER_MS) * QUARTER_MS;
    let inner = Range { from: Time::from_ms(up(plan.range.from)), to: Time::from_ms(down(plan.range.to)) };
    let family = plan.family().filter(|_| plan.slots.are_aligned(QUARTER_MS) && inner.from < inner.to);
    let Some(family) = family else { return all_by_rows(source, plan) };
    let days = (plan.range.from.ms().div_euclid(DAY_MS), plan.range.to.ms().div_euclid(DAY_MS));
    if !plan.origin.is_empty() && source.has_other(plan, family, days)? {
        // A value that is looked for may be among those that are not named: single rows have it.
        match all_by_rows(source, plan) {
            Err(QueryError::Refused { code: "too_many_rows", .. }) => {}
            answer => return answer,
        }
    }
    let mut groups = Groups::default();
    let mut rows = ByRows::new(plan);
    rows.read(source, &mut groups, Range { from: plan.range.from, to: inner.from })?;
    rows.read(source, &mut groups, Range { from: inner.to, to: plan.range.to })?;
    let mut cells = ByCells::new(plan, family, inner);
    cells.read(source, &mut groups)?;
    Ok((groups, cells.marks))
}

fn all_by_rows(source: &mut dyn Source, plan: &Plan) -> Result<(Groups, Marks), QueryError> {
    let mut groups = Groups::default();
    ByRows::new(plan).read(source, &mut groups, plan.range)?;
    Ok((groups, Marks::default()))
}

/// A row before its figures are written out.
struct Line {
    mark: Mark,
    dimensions: Vec<Dimension>,
    at_least: bool,
    tally: Tally,
}

/// What a row is sorted by, and where a page ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Of the sorted column, where that is no key.
    #[serde(rename = "f")]
    figure: Option<String>,
    #[serde(rename = "s")]
    sorted: Option<String>,
    #[serde(rename = "k")]
    keys: Vec<Option<String>>,
    #[serde(rename = "o")]
    other: bool,
}

impl Mark {
    fn text(&self) -> Result<String> {
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(self)?))
    }

    fn parse(text: &str) -> Result<Mark, QueryError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let bad = || QueryError::refused("cursor", "invalid_cursor", "this is no cursor of this report");
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(bad)
    }

    /// By the sorted column, then by the keys; those without a value come last.
    fn compare(&self, than: &Mark, falling: bool) -> Ordering {
        let figure = |mark: &Mark| mark.figure.as_ref().and_then(|text| text.parse::<i128>().ok());
        let by_column = match (figure(self), figure(than)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (a, b) => last_if_none(&self.sorted, &than.sorted).then(b.is_some().cmp(&a.is_some())),
        };
        let by_column = match falling {
            true if self.sorted.is_some() == than.sorted.is_some() => by_column.reverse(),
            _ => by_column,
        };
        by_column.then(self.other.cmp(&than.other)).then_with(|| {
            let pairs = self.keys.iter().zip(&than.keys);
            pairs.map(|(a, b)| last_if_none(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        })
    }
}

fn last_if_none(a: &Option<String>, b: &Option<String>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn lines(
    plan: &Plan,
    query: &ReportQuery,
    groups: &Groups,
    marks: &Marks,
    sort: Option<&Sort>,
) -> Result<Vec<Line>, QueryError> {
    let mut lines = Vec::new();
    for (key, tally) in &groups.tallies {
        let overflowed = !marks.overflowed.is_empty() && marks.overflowed.contains(&mark_key(plan, key));
        let free = plan.details.iter().zip(&key[1..]).find(|(dimension, _)| family(**dimension).is_some());
        let other = free.is_some_and(|(_, number)| *number == OTHER_VALUES);
        let unnamed = free.is_some_and(|(_, number)| *number <= OTHER_VALUES);
        for (of_conversion, tally) in split(plan, &groups.texts, tally)? {
            if tally.is_zero() || (!plan.of_conversion.is_empty() && tally.conversions.is_empty()) {
                continue;
            }
            let keys = query.group_by.iter().map(|dimension| {
                let at = |list: &[Dimension]| list.iter().position(|known| known == dimension);
                if let Some(at) = at(&plan.times) {
                    return Some(plan.slots.0[key[0] as usize].keys[at].clone());
                }
                match at(&plan.details) {
                    Some(at) => groups.texts.text(key[at + 1]).map(str::to_owned),
                    None => at(&plan.of_conversion).map(|at| of_conversion[at].clone()),
                }
            });
            let keys: Vec<_> = keys.collect();
            let (figure, sorted) = match sort {
                None => (None, None),
                Some(sort) => sort.value(&keys, &tally, &groups.texts),
            };
            let mark = Mark { figure, sorted, keys, other };
            lines.push(Line { mark, dimensions: query.group_by.clone(), at_least: overflowed && !unnamed, tally });
        }
    }
    Ok(lines)
}

/// A group's conversions by goal, currency and state, as far as these are asked for.
fn split(plan: &Plan, texts: &Texts, tally: &Tally) -> Result<Vec<(Vec<String>, Tally)>> {
    if plan.of_conversion.is_empty() {
        return Ok(vec![(Vec::new(), tally.clone())]);
    }
    let mut parts: Vec<(Vec<String>, Tally)> = Vec::new();
    for (kind, sums) in tally.conversions.iter().filter(|(_, sums)| !sums.is_zero()) {
        let (goal, state, currency) = *kind;
        let key = plan.of_conversion.iter().map(|dimension| match dimension {
            Dimension::Goal => texts.text(goal).unwrap_or_default().to_owned(),
            Dimension::State => state.code().to_owned(),
            _ => currency.code().to_owned(),
        });
        let key: Vec<_> = key.collect();
        let at = match parts.iter().position(|(known, _)| *known == key) {
            Some(at) => at,
            None => {
                parts.push((key, Tally::default()));
                parts.len() - 1
            }
        };
        parts[at].1.add(*kind, *sums)?;
    }
    Ok(parts)
}

impl Line {
    fn row(self, directory: &Directory<'_>, texts: &Texts, with_clicks: bool) -> ReportRow {
        let mut keys = Vec::with_capacity(self.dimensions.len() + 3);
        for (dimension, value) in self.dimensions.iter().zip(self.mark.keys) {
            let named = value.as_deref();
            let name = match dimension {
                Dimension::Account => {
                    Some(("account_name", named.and_then(&directory.account).map(|found| found.name)))
                }
                Dimension::Program => Some(("program_name", named.and_then(&directory.program))),
                Dimension::Link => Some(("link_name", named.and_then(&directory.link))),
                _ => None,
            };
            keys.push((dimension.name(), value));
            keys.extend(name);
        }
        let measures = measures(&self.tally, texts, with_clicks);
        ReportRow { keys, other: self.mark.other, at_least: self.at_least, measures }
    }
}

struct Sort {
    falling: bool,
    by: Column,
}

enum Column {
    Key(usize),
    Clicks,
    Conversions(Option<State>),
    Goal(String),
    Money { value: bool, state: Option<State>, currency: Currency },
    Rate(&'static str, Option<&'static str>),
}

impl Sort {
    fn parse(text: &str, group_by: &[Dimension]) -> Result<Sort, QueryError> {
        let (falling, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let by = group_by.iter().position(|dimension| dimension.name() == name).map(Column::Key);
        let unknown = || {
            let detail = format!(
                "`{name}` is no column to sort by: a group key, clicks, conversions, conversions_<state>, goal_<name>, \
                 earning_<CUR>, earning_<state>_<CUR>, value_<CUR>, value_<state>_<CUR>, click_to_signup, \
                 signup_to_ftd or click_to_ftd is needed"
            );
            QueryError::refused("sort", "invalid_sort", detail)
        };
        Ok(Sort { falling, by: by.or_else(|| column(name)).ok_or_else(unknown)? })
    }

    /// The figure of a row, or the text of its key; neither where the row has none.
    fn value(&self, keys: &[Option<String>], tally: &Tally, texts: &Texts) -> (Option<String>, Option<String>) {
        let count = |wanted: &dyn Fn(u32, State) -> bool| {
            let of = tally.conversions.iter().filter(|((goal, state, _), _)| wanted(*goal, *state));
            of.map(|(_, sums)| i128::from(sums.count)).sum::<i128>()
        };
        let goal = |name: &str| count(&|goal, state| texts.text(goal) == Some(name) && state != State::Rejected);
        let figure = match &self.by {
            Column::Key(at) => return (None, keys[*at].clone()),
            Column::Clicks => Some(i128::from(tally.clicks)),
            Column::Conversions(None) => Some(count(&|_, state| state != State::Rejected)),
            Column::Conversions(Some(of)) => Some(count(&|_, state| state == *of)),
            Column::Goal(name) => Some(goal(name)),
            Column::Money { value, state, currency } => Some(money_of(tally, *currency, *state, *value)),
            Column::Rate(part, of) => {
                let of = of.map_or(i128::from(tally.clicks), goal);
                (of > 0).then(|| goal(part) * 1_000_000_000_000 / of)
            }
        };
        let text = figure.map(|figure| figure.to_string());
        (text.clone(), text)
    }
}

fn column(name: &str) -> Option<Column> {
    let state = |text: &str| State::ALL.into_iter().find(|state| state.code() == text);
    if let Some(goal) = name.strip_prefix("goal_") {
        return Some(Column::Goal(goal.to_owned()));
    }
    if let Some(of) = name.strip_prefix("conversions_") {
        return state(of).map(|state| Column::Conversions(Some(state)));
    }
    for (prefix, value) in [("earning_", false), ("value_", true)] {
        if let Some(rest) = name.strip_prefix(prefix) {
            let (state, code) = match rest.split_once('_') {
                Some((of, code)) => (Some(state(of)?), code),
                None => (None, rest),
            };
            return Some(Column::Money { value, state, currency: code.parse().ok()? });
        }
    }
    Some(match name {
        "clicks" => Column::Clicks,
        "conversions" => Column::Conversions(None),
        "click_to_signup" => Column::Rate("signups", None),
        "signup_to_ftd" => Column::Rate("firsttimedeposits", Some("signups")),
        "click_to_ftd" => Column::Rate("firsttimedeposits", None),
        _ => return None,
    })
}

fn understood(plan: &Plan, query: &ReportQuery) -> Understood {
    let text = |test: &Match| match test {
        Match::Is(text) => text.clone(),
        Match::Not(text) => format!("!{text}"),
        Match::Without => String::new(),
        Match::With => "!".to_owned(),
    };
    Understood {
        from: plan.range.from,
        to: plan.range.to,
        tz: plan.tz.clone(),
        basis: match query.basis {
            Basis::Click => "click",
            Basis::Conversion => "conversion",
        },
        group_by: query.group_by.iter().map(|dimension| dimension.name()).collect(),
        filters: query.filters.iter().map(|(of, filter)| (of.name(), filter.0.iter().map(text).collect())).collect(),
        sort: query.sort.clone(),
        bots: if query.bots { "include" } else { "exclude" },
        limit: query.limit,
    }
}
