//! What the reports have to say, from what was sent. None of the product's code is used: the few rules that matter for
//! this traffic are written here in another way, as plain facts about sets of requests.

use std::collections::{BTreeMap, BTreeSet};

use crate::traffic::{Line, STATEMENTS, What, cents, count};

/// One conversion, by what it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub visitor: u32,
    pub goal: String,
    pub transaction: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worth {
    pub count: u64,
    pub state: String,
    pub cents: Option<i64>,
}

/// Of the requests that arrived: a visitor who clicked has one sign-up if he signed up at all, one entry of deposits per
/// transaction, and one sale per transaction, of which the newest statement holds.
pub fn conversions(lines: &[Line], arrived: &BTreeSet<usize>) -> BTreeMap<Key, Worth> {
    let arrived = || arrived.iter().map(|number| &lines[*number]);
    let visitors: BTreeSet<u32> = arrived().filter(|line| line.what == What::Click).map(|line| line.visitor).collect();
    let mut newest: BTreeMap<Key, usize> = BTreeMap::new();
    for line in arrived().filter(|line| visitors.contains(&line.visitor)) {
        let (goal, transaction, statement) = match line.what {
            What::SignUp => ("signups", None, 0),
            What::Deposits(transaction) => ("deposits", Some(transaction), 0),
            What::Sale(transaction, statement) => ("sales", Some(transaction), statement),
            What::Click | What::Nothing => continue,
        };
        let key = Key { visitor: line.visitor, goal: goal.to_owned(), transaction };
        let known = newest.entry(key).or_insert(statement);
        *known = statement.max(*known);
    }
    newest.into_iter().map(|(key, statement)| (key.clone(), worth(&key, statement))).collect()
}

fn worth(key: &Key, statement: usize) -> Worth {
    let money = key.transaction.map(|transaction| cents(transaction, statement) as i64);
    match (key.goal.as_str(), key.transaction) {
        ("deposits", Some(transaction)) => {
            Worth { count: count(transaction), state: "approved".to_owned(), cents: money }
        }
        ("sales", _) => Worth { count: 1, state: STATEMENTS[statement].to_owned(), cents: money },
        _ => Worth { count: 1, state: "approved".to_owned(), cents: None },
    }
}

/// What a report adds up to.
pub fn totals<'w>(all: impl Iterator<Item = &'w Worth>) -> (u64, i64) {
    all.fold((0, 0), |(counts, cents), worth| (counts + worth.count, cents + worth.cents.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Line;

    #[test]
    fn what_did_not_arrive_does_not_count_and_the_newest_statement_holds() {
        let lines = [
            Line::of(7, What::Sale(3, 2)),
            Line::of(7, What::Click),
            Line::of(7, What::Sale(3, 1)),
            Line::of(7, What::Sale(3, 3)),
            Line::of(7, What::SignUp),
            Line::of(7, What::SignUp),
            Line::of(8, What::SignUp),
        ];
        let of = |arrived: &[usize]| conversions(&lines, &arrived.iter().copied().collect());
        assert!(of(&[0, 2, 4, 6]).is_empty(), "nobody clicked");
        let all = of(&[0, 1, 2, 4, 5, 6]);
        let sale = Key { visitor: 7, goal: "sales".to_owned(), transaction: Some(3) };
        assert_eq!(all[&sale], worth(&sale, 2));
        assert_eq!(all.len(), 2);
        assert_eq!(of(&[0, 1, 2, 3])[&sale].state, "rejected");
    }
}
