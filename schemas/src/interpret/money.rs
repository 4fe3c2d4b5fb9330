//! Earning, value and currency of a hit. What cannot be read is left out and never guessed.

use crate::{
    Amount, Currency, Reason,
    amount::{self, Problem},
    currency_mark::Mark,
    event::Money,
    interpret::remarks::{Picked, Remarks, code, cut, pick, shown},
    params::{Param, Params, Role, Value},
};

pub(crate) fn read(params: &Params, account: Currency, remarks: &mut Remarks) -> (Money, Currency) {
    let earning = read_amount(params, remarks, |role| if let Role::Earning(rank) = role { Some(rank) } else { None });
    let value = read_amount(params, remarks, |role| if let Role::Value(rank) = role { Some(rank) } else { None });
    if matches!((&earning, &value), (Sent::Nothing, Sent::Nothing)) {
        note_unknown_names(params, remarks);
    }
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
        Picked::Text(text) => amount::read(&text),
        Picked::Unreadable => Err(Problem::NoNumber),
    };
    let read = match read {
        Ok(read) => read,
        Err(problem) => {
            remarks.note(code::AMOUNT, || format!("{} was left out: {}", shown(param), problem.why()));
            return Sent::Unreadable;
        }
    };
    note_amount(param, &read, remarks);
    Sent::Amount(read.amount, read.mark)
}

fn note_amount(param: &Param, read: &amount::Read, remarks: &mut Remarks) {
    for (found, code) in [
        (read.decimal_comma, code::DECIMAL_COMMA),
        (read.thousands, code::THOUSANDS),
        (read.mark.is_some(), code::CURRENCY_SIGN),
        (read.bracketed, code::NEGATIVE),
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
    let mut fix = "send one ISO 4217 code such as EUR";
    if let Picked::Text(text) = picked {
        if let Ok(currency) = text.parse() {
            return Ok(Some(currency));
        }
        let meant = Mark::read(&text).and_then(|mark| mark.currency(None, account));
        let list = list_of_currencies(&text, account);
        let same = list.first().filter(|first| list.iter().all(|currency| currency == *first));
        if let Some(currency) = meant.or_else(|| Currency::from_number(&text)).or_else(|| same.copied()) {
            remarks.note(code::CURRENCY_CODE, || format!("{} was read as {currency}", shown(param)));
            return Ok(Some(currency));
        }
        if !list.is_empty() {
            fix = "it lists several: keep one of them, or the sender's placeholder for the currency";
        }
    }
    remarks.note(code::CURRENCY, || format!("{} is not one currency, so amounts were left out: {fix}", shown(param)));
    Err(())
}

/// The entries of a list such as `rub,usd,eur`, as templates show it; empty if it is none.
fn list_of_currencies(text: &str, account: Currency) -> Vec<Currency> {
    const MOST: usize = 200;
    let parts = || {
        let parts = text.split([',', ';', '|', '/', ' ']).map(str::trim);
        parts.filter(|part| !part.is_empty())
    };
    if text.len() > MOST || parts().count() < 2 {
        return Vec::new();
    }
    let read = |part| Mark::read(part)?.currency(None, account);
    parts().map(read).collect::<Option<_>>().unwrap_or_default()
}

/// Names of money that the contract does not list: what they mean is the sender's to say.
const MONEY_WORDS: &[&str] = &[
    "amount",
    "bounty",
    "cash",
    "commission",
    "cost",
    "cpa",
    "deposit",
    "earning",
    "earnings",
    "ggr",
    "income",
    "money",
    "ngr",
    "payment",
    "payout",
    "price",
    "profit",
    "purchase",
    "revenue",
    "reward",
    "sale",
    "sum",
    "total",
    "turnover",
    "value",
];
/// Words beside them that make them something else.
const OTHER_WORDS: &[&str] =
    &["count", "country", "date", "id", "method", "model", "name", "no", "number", "status", "system", "time", "type"];
const MOST_NOTED: usize = 3;

/// Money under a name that is not read is no money, but its sender should hear of it.
fn note_unknown_names(params: &Params, remarks: &mut Remarks) {
    let mut noted = 0;
    for param in params.list.iter().filter(|p| p.role == Role::Other && sounds_like_money(&p.name)) {
        let Value::Text { text, .. } = param.value() else { continue };
        if noted == MOST_NOTED || amount::read(&text).is_err() {
            continue;
        }
        noted += 1;
        remarks.note(code::MONEY_UNREAD, || {
            format!("{} was not read as money: send it as earning if the affiliate earns it, as value if the player paid it", shown(param))
        });
    }
}

fn sounds_like_money(name: &str) -> bool {
    let is = |words: &[&str], word: &str| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    let words = || name.split(|c: char| !c.is_ascii_alphabetic());
    words().any(|word| is(MONEY_WORDS, word)) && !words().any(|word| is(OTHER_WORDS, word))
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

#[cfg(test)]
mod tests;
