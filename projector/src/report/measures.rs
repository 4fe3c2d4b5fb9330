//! From sums to the figures of a report row: counts, money, rates and earnings per click. All of it is exact integer
//! arithmetic, rounded half up where a quotient is written.

use std::collections::BTreeMap;

use schemas::{Currency, money::PLACES, status::State};

use super::{
    rows::{Epc, Measures, MoneyRow, Rates, StateCounts},
    tally::{Tally, Texts},
};

/// Places of rates and of earnings per click.
const QUOTIENT_PLACES: u32 = 6;

pub fn measures(tally: &Tally, texts: &Texts, with_clicks: bool) -> Measures {
    let mut counts = StateCounts::default();
    let mut goals = BTreeMap::<String, i64>::new();
    let mut money = BTreeMap::<(&'static str, State), (i128, i128)>::new();
    for ((goal, state, currency), sums) in &tally.conversions {
        *count_of(&mut counts, *state) += sums.count;
        if sums.count != 0 {
            let goal = goals.entry(texts.text(*goal).unwrap_or_default().to_owned()).or_default();
            *goal += if *state == State::Rejected { 0 } else { sums.count };
        }
        let entry = money.entry((currency.code(), *state)).or_default();
        *entry = (entry.0 + sums.earning, entry.1 + sums.value);
    }
    let rows = |pick: fn(&(i128, i128)) -> i128| {
        let of = money.iter().filter(|(_, sums)| pick(sums) != 0);
        of.map(|((currency, state), sums)| MoneyRow { currency, state: *state, amount: amount(pick(sums)) }).collect()
    };
    let clicks = with_clicks.then_some(tally.clicks);
    Measures {
        clicks,
        rates: rates(clicks, &goals),
        goals,
        conversions: counts,
        earnings: rows(|sums| sums.0),
        values: rows(|sums| sums.1),
        epc: epc(clicks, &money),
    }
}

fn count_of(counts: &mut StateCounts, state: State) -> &mut i64 {
    match state {
        State::Pending => &mut counts.pending,
        State::Approved => &mut counts.approved,
        State::Rejected => &mut counts.rejected,
    }
}

fn rates(clicks: Option<i64>, goals: &BTreeMap<String, i64>) -> Rates {
    let goal = |name: &str| goals.get(name).copied().unwrap_or(0);
    let rate = |part: i64, of: i64| quotient(i128::from(part), i128::from(of));
    let (signups, ftds) = (goal("signups"), goal("firsttimedeposits"));
    Rates {
        click_to_signup: clicks.and_then(|clicks| rate(signups, clicks)),
        signup_to_ftd: rate(ftds, signups),
        click_to_ftd: clicks.and_then(|clicks| rate(ftds, clicks)),
    }
}

/// Earnings pending and approved per click.
fn epc(clicks: Option<i64>, money: &BTreeMap<(&'static str, State), (i128, i128)>) -> Vec<Epc> {
    let Some(clicks) = clicks.filter(|clicks| *clicks > 0) else { return Vec::new() };
    let mut sums = BTreeMap::<&'static str, i128>::new();
    for ((currency, state), (earning, _)) in money {
        if *state != State::Rejected {
            *sums.entry(currency).or_default() += earning;
        }
    }
    let per_click = |sum: i128| quotient(sum, i128::from(clicks) * 10i128.pow(PLACES));
    let of = sums.into_iter().filter(|(_, sum)| *sum != 0);
    of.filter_map(|(currency, sum)| Some(Epc { currency, amount: per_click(sum)? })).collect()
}

/// Earnings (or values) of a currency, pending and approved, in units; for sorting.
pub fn money_of(tally: &Tally, currency: Currency, state: Option<State>, value: bool) -> i128 {
    let wanted = |of: State| state.map_or(of != State::Rejected, |state| state == of);
    let of = tally.conversions.iter().filter(|((_, state, of), _)| *of == currency && wanted(*state));
    of.map(|(_, sums)| if value { sums.value } else { sums.earning }).sum()
}

/// A sum of units of 10⁻⁸ as a decimal with at least two places.
pub fn amount(units: i128) -> String {
    decimal(units, PLACES)
}

/// `None` without a positive denominator.
pub fn quotient(numerator: i128, denominator: i128) -> Option<String> {
    if denominator <= 0 {
        return None;
    }
    let scaled = numerator.checked_mul(10i128.pow(QUOTIENT_PLACES))?;
    let (sign, scaled) = (scaled.signum(), scaled.abs());
    let rounded = (scaled.checked_mul(2)?.checked_add(denominator)?) / denominator.checked_mul(2)?;
    Some(decimal(sign * rounded, QUOTIENT_PLACES))
}

fn decimal(units: i128, places: u32) -> String {
    let one = 10u128.pow(places);
    let (whole, part) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
    let sign = if units < 0 { "-" } else { "" };
    let mut text = format!("{sign}{whole}.{part:0width$}", width = places as usize);
    let shortest = text.len() - places as usize + 2;
    while text.len() > shortest && text.ends_with('0') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Sums;

    #[test]
    fn amounts_and_quotients_are_plain_decimals() {
        assert_eq!(amount(5_000_000_000), "50.00");
        assert_eq!(amount(-1), "-0.00000001");
        assert_eq!(amount(123_456_000), "1.23456");
        assert_eq!(quotient(1, 3).as_deref(), Some("0.333333"));
        assert_eq!(quotient(2, 3).as_deref(), Some("0.666667"));
        assert_eq!(quotient(-1, 4).as_deref(), Some("-0.25"));
        assert_eq!(quotient(1, 0), None);
    }

    #[test]
    fn a_row_of_figures() {
        let mut texts = Texts::default();
        let (signups, ftd) = (texts.number("signups"), texts.number("firsttimedeposits"));
        let eur = Currency::EUR;
        let sums = |count, earning: i128| Sums { count, earning: earning * 100_000_000, value: 0 };
        let mut tally = Tally { clicks: 4, ..Tally::default() };
        tally.add((signups, State::Approved, eur), sums(2, 0)).unwrap();
        tally.add((ftd, State::Pending, eur), sums(1, 50)).unwrap();
        tally.add((ftd, State::Rejected, eur), sums(3, 70)).unwrap();
        tally.add((ftd, State::Approved, Currency::USD), sums(0, 0)).unwrap();
        let row = measures(&tally, &texts, true);
        assert_eq!(row.conversions, StateCounts { pending: 1, approved: 2, rejected: 3 });
        assert_eq!(row.goals, BTreeMap::from([("signups".to_owned(), 2), ("firsttimedeposits".to_owned(), 1)]));
        let money = |state, amount: &str| MoneyRow { currency: "EUR", state, amount: amount.to_owned() };
        assert_eq!(row.earnings, [money(State::Pending, "50.00"), money(State::Rejected, "70.00")]);
        assert_eq!(row.rates.click_to_signup.as_deref(), Some("0.50"));
        assert_eq!(row.epc, [Epc { currency: "EUR", amount: "12.50".to_owned() }]);
        let no_clicks = measures(&tally, &texts, false);
        assert_eq!((no_clicks.clicks, no_clicks.rates.click_to_ftd, no_clicks.epc.len()), (None, None, 0));
    }
}
