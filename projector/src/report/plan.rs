//! What a conversion report's question comes down to: accounts, a range in slots, keys and filters.

use schemas::{Currency, status::State};

use super::{
    Directory,
    query::{Basis, Dimension, Filter, Match, QueryError, ReportQuery},
    range::{Range, Slots, resolve, zone},
};
use crate::fold::{Family, Measure, Origin};

pub struct Account {
    pub name: String,
    pub program: Option<String>,
}

pub struct Plan {
    pub tenant: String,
    pub accounts: Vec<Account>,
    pub range: Range,
    pub slots: Slots,
    pub tz: String,
    pub basis: Basis,
    pub bots: bool,
    /// The time dimensions of the groups, in the order asked for.
    pub times: Vec<Dimension>,
    /// Account, program and what is of the click, in the order asked for.
    pub details: Vec<Dimension>,
    /// Goal, currency and state, in the order asked for.
    pub of_conversion: Vec<Dimension>,
    /// Filters on what is of the click.
    pub origin: Vec<(Dimension, Filter)>,
    pub goal: Filter,
    pub currency: Filter,
    pub state: Filter,
}

impl Plan {
    /// `accounts`: all of the tenant.
    pub fn new(accounts: Vec<String>, directory: &Directory<'_>, query: &ReportQuery) -> Result<Plan, QueryError> {
        let pick = |wanted: fn(&Dimension) -> bool| query.group_by.iter().copied().filter(wanted).collect::<Vec<_>>();
        for (at, dimension) in query.group_by.iter().enumerate() {
            if query.group_by[..at].contains(dimension) {
                let detail = format!("`{dimension}` stands there twice");
                return Err(QueryError::refused("group_by", "duplicate_dimension", detail));
            }
        }
        let filter = |dimension: Dimension| query.filters.get(&dimension).cloned().unwrap_or_default();
        let mut origin = Vec::new();
        for (dimension, filter) in &query.filters {
            if dimension.is_time() {
                let detail = "time is filtered by `from` and `to`".to_owned();
                return Err(QueryError::refused(dimension.name(), "unknown_parameter", detail));
            }
            if family(*dimension).is_some() {
                origin.push((*dimension, filter.clone()));
            }
        }
        let currency = checked(filter(Dimension::Currency), "currency", |text| {
            text.parse().ok().map(|currency: Currency| currency.code().to_owned())
        })?;
        let state = checked(filter(Dimension::State), "state", |text| {
            State::ALL.iter().find(|state| state.code() == text).map(|state| state.code().to_owned())
        })?;
        let tz = time_zone_name(directory, query);
        let zone = zone(&tz)?;
        let range = resolve(query.from.as_ref(), query.to.as_ref(), &zone, query.now)?;
        let times = pick(|dimension| dimension.is_time());
        Ok(Plan {
            tenant: query.tenant.clone(),
            accounts: admitted(accounts, directory, query),
            slots: Slots::new(range, &times, &zone)?,
            range,
            tz,

            basis: query.basis,
            bots: query.bots,
            times,
            details: pick(|dimension| !dimension.is_time() && !dimension.is_of_conversion()),
            of_conversion: pick(|dimension| dimension.is_of_conversion()),
            origin,
            goal: filter(Dimension::Goal),
            currency,
            state,
        })
    }

    /// The one family that groups and filters need; `None`: several, so cells do not have it.
    pub fn family(&self) -> Option<Family> {
        let of_groups = self.details.iter().filter_map(|dimension| family(*dimension));
        let of_filters = self.origin.iter().filter_map(|(dimension, _)| family(*dimension));
        let mut needed = Family::Account;
        for family in of_groups.chain(of_filters) {
            if needed != Family::Account && needed != family {
                return None;
            }
            needed = family;
        }
        Some(needed)
    }

    /// Whether a measure is in this report at all.
    pub fn wants(&self, measure: Measure<'_>, basis: Basis) -> bool {
        match measure {
            Measure::Clicks { flagged } => self.bots || !flagged,
            Measure::Conversions { goal, state, currency } => {
                basis == self.basis
                    && self.goal.admits(Some(goal))
                    && self.state.admits(Some(state.code()))
                    && self.currency.admits(Some(currency.code()))
            }
        }
    }

    /// The values of the one family that can pass, where the filters say which.
    pub fn named_values(&self) -> Option<Vec<String>> {
        let (_, filter) = self.origin.first()?;
        let values = filter.positive()?;
        let mut admitted: Vec<String> =
            values.into_iter().filter(|value| filter.admits(Some(value))).map(str::to_owned).collect();
        admitted.sort_unstable();
        admitted.dedup();
        Some(admitted)
    }

    /// Whether what stands under this origin passes the filters.
    pub fn admits(&self, origin: &Origin<'_>) -> bool {
        self.origin
            .iter()
            .all(|(dimension, filter)| filter.admits(family(*dimension).and_then(|family| origin.value(family))))
    }
}

pub fn family(dimension: Dimension) -> Option<Family> {
    Some(match dimension {
        Dimension::Link => Family::Link,
        Dimension::Dyn => Family::Dyn,
        Dimension::Sub1 => Family::Sub1,
        Dimension::Sub2 => Family::Sub2,
        Dimension::Sub3 => Family::Sub3,
        Dimension::Sub4 => Family::Sub4,
        Dimension::Sub5 => Family::Sub5,
        _ => return None,
    })
}

/// Values of a closed list are checked, as a typing error would otherwise look like no conversions.
fn checked(
    filter: Filter,
    parameter: &'static str,
    canonical: impl Fn(&str) -> Option<String>,
) -> Result<Filter, QueryError> {
    let known = |text: String| {
        let unknown = || QueryError::refused(parameter, "invalid_value", format!("`{text}` is no {parameter}"));
        canonical(&text).ok_or_else(unknown)
    };
    let matches = filter.0.into_iter().map(|test| {
        Ok(match test {
            Match::Is(text) => Match::Is(known(text)?),
            Match::Not(text) => Match::Not(known(text)?),
            other => other,
        })
    });
    Ok(Filter(matches.collect::<Result<_, QueryError>>()?))
}

fn time_zone_name(directory: &Directory<'_>, query: &ReportQuery) -> String {
    if let Some(name) = &query.tz {
        return name.clone();
    }
    let filtered = query.filters.get(&Dimension::Account).and_then(|filter| filter.positive());
    let zone_of = |name: &&str| (directory.account)(name).map(|account| account.timezone);
    match filtered.as_deref() {
        Some([one]) => zone_of(one).unwrap_or_else(|| "UTC".to_owned()),
        _ => "UTC".to_owned(),
    }
}

fn admitted(accounts: Vec<String>, directory: &Directory<'_>, query: &ReportQuery) -> Vec<Account> {
    let admits = |dimension: Dimension, value: Option<&str>| {
        query.filters.get(&dimension).is_none_or(|filter| filter.admits(value))
    };
    let named = accounts.into_iter().filter(|name| admits(Dimension::Account, Some(name)));
    let with_program = named.map(|name| {
        let program = (directory.account)(&name).map(|account| account.program);
        Account { name, program }
    });
    with_program.filter(|account| admits(Dimension::Program, account.program.as_deref())).collect()
}
