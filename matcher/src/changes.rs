//! The signed changes from one version of a conversion to the next: their sum over all records is the report.

use schemas::{
    Time,
    outcome::{Change, Conversion},
};

use crate::state::Key;

/// The signed changes from one version of a conversion to the next, each in the bucket of the original.
pub fn push_changes(
    changes: &mut Vec<Change>,
    before: Option<&Conversion>,
    after: &Conversion,
    account: &str,
    key: &Key,
    clicked: Option<Time>,
) {
    let change = |c: &Conversion, sign: i64| Change {
        conversion: c.id,
        account: account.to_owned(),
        click: if let Key::Click(id) = key { Some(*id) } else { None },
        click_time: clicked.unwrap_or(c.time),
        time: c.time,
        goal: c.goal.clone(),
        state: c.state,
        currency: c.currency,
        count: sign * i64::from(c.count),
        earning: c.earning.map(|a| if sign < 0 { a.negated() } else { a }),
        value: c.value.map(|a| if sign < 0 { a.negated() } else { a }),
    };
    let before = before.filter(|c| !c.withdrawn);
    let same_cell = |b: &Conversion| {
        !after.withdrawn
            && (&b.goal, b.state, b.currency, b.time) == (&after.goal, after.state, after.currency, after.time)
    };
    match before {
        Some(before) if same_cell(before) => {
            let minus = |a: Option<schemas::Amount>, b: Option<schemas::Amount>| match (a, b) {
                (Some(a), b) => a.minus(b.unwrap_or_default()).filter(|d| !d.is_zero()),
                (None, Some(b)) => Some(b.negated()),
                (None, None) => None,
            };
            let delta = Change {
                count: i64::from(after.count) - i64::from(before.count),
                earning: minus(after.earning, before.earning),
                value: minus(after.value, before.value),
                ..change(after, 1)
            };
            if delta.count != 0 || delta.earning.is_some() || delta.value.is_some() {
                changes.push(delta);
            }
        }
        _ => {
            changes.extend(before.map(|b| change(b, -1)));
            changes.extend((!after.withdrawn).then(|| change(after, 1)));
        }
    }
}
