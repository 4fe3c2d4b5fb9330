//! Receipts: the place of an event in the log, as clients carry it back to wait for their own write.

use std::{fmt, str::FromStr};

use schemas::EventId;
use serde::{Deserialize, Serialize};

/// Written as `0-1234`: partition, then position in it. Of an event that waits in a spool the position is not known yet:
/// `0-<run>-17` names it by its number in its run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Receipt {
    Logged { partition: u16, src: u64 },
    Spooled { partition: u16, from: EventId, n: u64 },
}

impl Receipt {
    pub fn partition(&self) -> u16 {
        match self {
            Receipt::Logged { partition, .. } | Receipt::Spooled { partition, .. } => *partition,
        }
    }

    /// The position in the log, where it is known.
    pub fn src(&self) -> Option<u64> {
        match self {
            Receipt::Logged { src, .. } => Some(*src),
            Receipt::Spooled { .. } => None,
        }
    }

    /// The last of every partition and run, with commas between: who waits for these has waited for all.
    pub fn last_of_each(all: impl IntoIterator<Item = Receipt>) -> String {
        let mut all = all.into_iter();
        let Some(first) = all.next() else { return String::new() };
        let Some(second) = all.next() else { return first.to_string() };
        let mut last = vec![first];
        for receipt in std::iter::once(second).chain(all) {
            match last.iter_mut().find(|known| known.is_comparable(&receipt)) {
                Some(known) => *known = receipt.max(*known),
                None => last.push(receipt),
            }
        }
        last.sort_unstable();
        last.iter().map(Receipt::to_string).collect::<Vec<_>>().join(",")
    }

    /// Both are of one list, in which the greater one comes later.
    fn is_comparable(&self, other: &Receipt) -> bool {
        match (self, other) {
            (Receipt::Logged { partition, .. }, Receipt::Logged { partition: others, .. }) => partition == others,
            (Receipt::Spooled { partition, from, .. }, Receipt::Spooled { partition: others, from: run, .. }) => {
                partition == others && from == run
            }
            (Receipt::Logged { .. }, Receipt::Spooled { .. }) | (Receipt::Spooled { .. }, Receipt::Logged { .. }) => {
                false
            }
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a receipt such as 0-1234")]
pub struct BadReceipt;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Receipt::Logged { partition, src } => write!(f, "{partition}-{src}"),
            Receipt::Spooled { partition, from, n } => write!(f, "{partition}-{from}-{n}"),
        }
    }
}

impl FromStr for Receipt {
    type Err = BadReceipt;
    fn from_str(text: &str) -> Result<Self, BadReceipt> {
        let mut parts = text.split('-');
        let (Some(partition), Some(second), third, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadReceipt);
        };
        let partition = digits(partition)?;
        match third {
            None => Ok(Receipt::Logged { partition, src: digits(second)? }),
            Some(n) => {
                let from = EventId::parse(second.as_bytes()).ok_or(BadReceipt)?;
                Ok(Receipt::Spooled { partition, from, n: digits(n)? })
            }
        }
    }
}

fn digits<N: FromStr>(text: &str) -> Result<N, BadReceipt> {
    let only_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    only_digits.then(|| text.parse().ok()).flatten().ok_or(BadReceipt)
}

impl Serialize for Receipt {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Receipt {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Time;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let receipt = Receipt::Logged { partition: 3, src: u64::MAX };
        assert_eq!(receipt.to_string().parse(), Ok(receipt));
        assert_eq!(serde_json::to_value(receipt).unwrap(), "3-18446744073709551615");
        let spooled = Receipt::Spooled { partition: 7, from: EventId::new(Time::from_ms(1), 0, 2), n: 17 };
        assert_eq!(spooled.to_string().parse(), Ok(spooled));
        let own = spooled.to_string();
        let bad_check = own.replacen("7-0", "7-1", 1);
        for bad in
            ["", "-", "0-", "-1", "0-+1", "0--1", "70000-1", "0-18446744073709551616", " 0-1", "0-1-2", &bad_check]
        {
            assert_eq!(bad.parse::<Receipt>(), Err(BadReceipt), "{bad}");
        }
        assert_eq!(format!("{own}-1").parse::<Receipt>(), Err(BadReceipt));
    }

    #[test]
    fn of_several_lists_each_last_receipt_is_named() {
        let run = EventId::new(Time::from_ms(1), 0, 2);
        let logged = |partition, src| Receipt::Logged { partition, src };
        let spooled = |n| Receipt::Spooled { partition: 3, from: run, n };
        assert_eq!(Receipt::last_of_each([logged(3, 7), logged(0, 2), logged(3, 8), logged(3, 6)]), "0-2,3-8");
        assert_eq!(Receipt::last_of_each([spooled(4), logged(3, 6), spooled(2)]), format!("3-6,3-{run}-4"));
        assert_eq!(Receipt::last_of_each([logged(0, 9)]), "0-9");
    }

    #[test]
    fn only_places_in_one_list_are_compared() {
        let run = |random| EventId::new(Time::from_ms(1), 0, random);
        let logged = |partition| Receipt::Logged { partition, src: 5 };
        let spooled = |partition, random| Receipt::Spooled { partition, from: run(random), n: 5 };
        assert!(logged(1).is_comparable(&logged(1)) && spooled(1, 2).is_comparable(&spooled(1, 2)));
        assert!(!logged(1).is_comparable(&logged(2)) && !logged(1).is_comparable(&spooled(1, 2)));
        assert!(!spooled(1, 2).is_comparable(&spooled(1, 3)) && !spooled(1, 2).is_comparable(&spooled(2, 2)));
    }
}
