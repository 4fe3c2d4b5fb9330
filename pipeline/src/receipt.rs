//! Receipts: the place of an event in the log, as clients carry it back to wait for their own write.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Written as `0-1234`: partition, then position in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Receipt {
    pub partition: u16,
    pub src: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a receipt such as 0-1234")]
pub struct BadReceipt;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.src)
    }
}

impl FromStr for Receipt {
    type Err = BadReceipt;
    fn from_str(text: &str) -> Result<Self, BadReceipt> {
        let (partition, src) = text.split_once('-').ok_or(BadReceipt)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(partition) || !digits(src) {
            return Err(BadReceipt);
        }
        Ok(Self { partition: partition.parse().map_err(|_| BadReceipt)?, src: src.parse().map_err(|_| BadReceipt)? })
    }
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

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let receipt = Receipt { partition: 3, src: u64::MAX };
        assert_eq!(receipt.to_string().parse(), Ok(receipt));
        assert_eq!(serde_json::to_value(receipt).unwrap(), "3-18446744073709551615");
        for bad in ["", "-", "0-", "-1", "0-+1", "0--1", "70000-1", "0-18446744073709551616", " 0-1", "0-1-2"] {
            assert_eq!(bad.parse::<Receipt>(), Err(BadReceipt), "{bad}");
        }
    }
}
