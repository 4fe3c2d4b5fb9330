//! Earning, value and currency of a hit. What cannot be read is left out and never guessed.

use crate::{
    Amount, Currency, Reason,
    amount::{self, Mark},
    event::Money,
    interpret::remarks::{Picked, Remarks, code, cut, pick, shown},
    params::{Param, Params, Role},
};

pub(crate) fn read(params: &Params, account: Currency, remarks: &mut Remarks) -> (Money, Currency) {
    let earning = read_amount(params, remarks, |role| if let Role::Earning(rank) = role { Some(rank) } else { None });
    let value = read_amount(params, remarks, |role| if let Role::Value(rank) = role { Some(rank) } else { None });
    let explicit = read_currency(params, account, remarks);
    let mut money = Money::default();
    if matches!(earning, Sent::Unreadable) || matches!(value, Sent::Unreadable) {
        money.problem = Some(Reason::InvalidAmount);
    }
    let currency = match explicit {
        Ok(explicit) => resolve(explicit, account, [earning.mark(), value.mark()], remarks),
        Err(()) => None,
    };
    match currency {
        Some(_) => {
            money.earning = earning.amount();
            money.value = value.amount();
        }
        None => money.problem = money.problem.or(Some(Reason::InvalidCurrency)),
    }
    (money, currency.unwrap_or(account))
}

enum Sent {
    Nothing,
    Unreadable,
    Amount(Amount, Option<Mark>),
}

impl Sent {
    fn amount(&self) -> Option<Amount> {
        if let Sent::Amount(amount, _) = self { Some(*amount) } else { None }
    }
    fn mark(&self) -> Option<Mark> {
        if let Sent::Amount(_, mark) = self { *mark } else { None }
    }
}

fn read_amount(params: &Params, remarks: &mut Remarks, rank: impl Fn(Role) -> Option<u8>) -> Sent {
    let Some((param, picked)) = pick(params, remarks, rank) else { return Sent::Nothing };
    let read = match picked {
        Picked::Text(text) => amount::read(&text).ok(),
        Picked::Unreadable => None,
    };
    let Some(read) = read else {
        remarks.note(code::AMOUNT, || {
            format!("{} cannot be read as an amount and was left out: send a plain decimal such as 12.50", shown(param))
        });
        return Sent::Unreadable;
    };
    note_amount(param, &read, remarks);
    Sent::Amount(read.amount, read.mark)
}

fn note_amount(param: &Param, read: &amount::Read, remarks: &mut Remarks) {
    for (found, code) in [
        (read.decimal_comma, code::DECIMAL_COMMA),
        (read.thousands, code::THOUSANDS),
        (read.mark.is_some(), code::CURRENCY_SIGN),
    ] {
        if found {
            remarks.note(code, || format!("{} was read as {}", shown(param), read.amount));
        }
    }
}

/// The currency that is sent on its own. `Err` if it cannot be read.
fn read_currency(params: &Params, account: Currency, remarks: &mut Remarks) -> Result<Option<Currency>, ()> {
    let only = |role| (role == Role::Currency).then_some(0);
    let Some((param, picked)) = pick(params, remarks, only) else { return Ok(None) };
    if let Picked::Text(text) = picked {
        if let Ok(currency) = text.parse() {
            return Ok(Some(currency));
        }
        // The rouble's code until 1998 is still in use.
        let old = text.eq_ignore_ascii_case("RUR").then_some("RUB").and_then(|code| code.parse().ok());
        let sign = || amount::read_sign(&text).and_then(|mark| mark.currency(None, account));
        if let Some(currency) = old.or_else(sign) {
            remarks.note(code::CURRENCY_CODE, || format!("{} was read as {currency}", shown(param)));
            return Ok(Some(currency));
        }
    }
    remarks.note(code::CURRENCY, || {
        format!("{} is no currency, so amounts were left out: send an ISO 4217 code such as EUR", shown(param))
    });
    Err(())
}

/// The one currency of the hit. `None` if what was sent contradicts itself.
fn resolve(
    explicit: Option<Currency>,
    account: Currency,
    marks: [Option<Mark>; 2],
    remarks: &mut Remarks,
) -> Option<Currency> {
    let mut known = explicit;
    for mark in marks.into_iter().flatten() {
        match mark.currency(known, account) {
            Some(currency) => known = Some(currency),
            None => {
                remarks.note(code::CURRENCY, || {
                    let beside = cut(known.map_or("no currency", Currency::code)).into_owned();
                    format!("the sign or code in the amount is unclear beside {beside}, so amounts were left out")
                });
                return None;
            }
        }
    }
    Some(known.unwrap_or(account))
}
