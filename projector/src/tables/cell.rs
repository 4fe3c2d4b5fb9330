//! One cell: the sums of one account and value on one UTC day, for the day and for its quarters of an hour.

use anyhow::{Context, Result, bail};
use smallvec::SmallVec;

use crate::fold::{QUARTERS_PER_DAY, Sums};

/// The slot of the whole day; quarter `q` has slot `q + 1`.
pub const WHOLE_DAY: u8 = 0;
const MEASURE_BITS: u32 = 24;
const MEASURE_MASK: u32 = (1 << MEASURE_BITS) - 1;

/// Entries sorted by slot, then measure.
type Entries = SmallVec<[(u32, Sums); 2]>;

/// What is added to a cell: quarters of an hour only. The whole day follows from them when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    entries: Entries,
}

impl Cell {
    pub fn add(&mut self, quarter: u8, measure: u32, by: Sums) -> Result<()> {
        if i64::from(quarter) >= QUARTERS_PER_DAY || measure >> MEASURE_BITS != 0 {
            bail!("no such entry in a cell: quarter {quarter}, measure {measure}");
        }
        let key = u32::from(quarter + 1) << MEASURE_BITS | measure;
        match self.entries.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => add_to(&mut self.entries[at].1, by)?,
            Err(at) => self.entries.insert(at, (key, by)),
        }
        Ok(())
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        encode_entries(self.days()?.iter().chain(&self.entries), out);
        Ok(())
    }

    /// The stored form in two: the whole day, and its quarters.
    pub fn encode_apart(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut whole, mut quarters) = (Vec::new(), Vec::new());
        encode_entries(self.days()?.iter(), &mut whole);
        encode_entries(self.entries.iter(), &mut quarters);
        Ok((whole, quarters))
    }

    /// A cell of its stored quarters.
    pub fn of_quarters(bytes: &[u8]) -> Result<Self> {
        Ok(Self { entries: stored(bytes).collect::<Result<_>>()? })
    }

    fn days(&self) -> Result<Entries> {
        let mut days = Entries::new();
        for (key, by) in &self.entries {
            let key = key & MEASURE_MASK;
            match days.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(at) => add_to(&mut days[at].1, *by)?,
                Err(at) => days.insert(at, (key, *by)),
            }
        }
        Ok(days)
    }
}

fn add_to(sums: &mut Sums, by: Sums) -> Result<()> {
    *sums = sums.plus(by).context("a report cell overflows")?;
    Ok(())
}

/// The sum of two stored cells, appended.
pub fn add_stored(one: &[u8], other: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut sum = Entries::new();
    let mut others = stored(other).peekable();
    for entry in stored(one) {
        let (key, mut sums) = entry?;
        while let Some(next) = others.next_if(|next| next.as_ref().is_ok_and(|(next, _)| *next < key)) {
            sum.push(next?);
        }
        if let Some(same) = others.next_if(|next| next.as_ref().is_ok_and(|(next, _)| *next == key)) {
            add_to(&mut sums, same?.1)?;
        }
        sum.push((key, sums));
    }
    for rest in others {
        sum.push(rest?);
    }
    encode_entries(sum.iter(), out);
    Ok(())
}

/// The entries of a stored cell. Those of the whole day come first.
pub fn stored_entries(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, u32, Sums)>> + '_ {
    stored(bytes).map(|entry| entry.map(|(key, sums)| parts(key, sums)))
}

fn parts(key: u32, sums: Sums) -> (u8, u32, Sums) {
    ((key >> MEASURE_BITS) as u8, key & MEASURE_MASK, sums)
}

fn stored(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Sums)>> + '_ {
    let mut key = 0;
    std::iter::from_fn(move || (!bytes.is_empty()).then(|| take_entry(&mut bytes, &mut key)))
}

fn take_entry(bytes: &mut &[u8], key: &mut u32) -> Result<(u32, Sums)> {
    let head = take_varint(bytes)? as u64;
    *key += (head >> 2) as u32;
    let count = unzigzag(take_varint(bytes)?) as i64;
    let earning = if head & 1 != 0 { unzigzag(take_varint(bytes)?) } else { 0 };
    let value = if head & 2 != 0 { unzigzag(take_varint(bytes)?) } else { 0 };
    Ok((*key, Sums { count, earning, value }))
}

/// Each entry: distance of its key from the one before, with two bits for the money that follows; count; money.
fn encode_entries<'e>(entries: impl Iterator<Item = &'e (u32, Sums)>, out: &mut Vec<u8>) {
    let mut before = 0;
    for (key, sums) in entries.filter(|(_, sums)| !sums.is_zero()) {
        let marks = u128::from(sums.earning != 0) | u128::from(sums.value != 0) << 1;
        put_varint(out, u128::from(key - before) << 2 | marks);
        put_varint(out, zigzag(i128::from(sums.count)));
        for money in [sums.earning, sums.value] {
            if money != 0 {
                put_varint(out, zigzag(money));
            }
        }
        before = *key;
    }
}

fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)) as u128
}

fn unzigzag(value: u128) -> i128 {
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

fn put_varint(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u128> {
    let mut value = 0u128;
    for shift in (0..128).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { bail!("a stored cell ends too early") };
        *bytes = rest;
        value |= u128::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number in a stored cell is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Vec<(u8, u32, Sums)> {
        stored_entries(bytes).map(Result::unwrap).collect()
    }

    proptest! {
        #[test]
        fn stored_cells_read_back_whatever_the_order(
            deltas in proptest::collection::vec((0u8..96, 0u32..9, any::<i64>(), any::<i64>(), any::<i64>()), 0..40),
            split in 0usize..40,
        ) {
            let of = |deltas: &[(u8, u32, i64, i64, i64)]| {
                let mut cell = Cell::default();
                for d in deltas {
                    let by = Sums { count: d.2 / 1024, earning: i128::from(d.3) * 1000, value: i128::from(d.4) };
                    cell.add(d.0, d.1, by).unwrap();
                }
                let mut stored = Vec::new();
                cell.encode(&mut stored).unwrap();
                stored
            };
            let whole = of(&deltas);
            let back: Vec<_> = deltas.iter().rev().copied().collect();
            prop_assert_eq!(&whole, &of(&back));
            let mut expected = std::collections::BTreeMap::<(u8, u32), Sums>::new();
            for d in &deltas {
                let by = Sums { count: d.2 / 1024, earning: i128::from(d.3) * 1000, value: i128::from(d.4) };
                for slot in [0, d.0 + 1] {
                    let sums = expected.entry((slot, d.1)).or_default();
                    *sums = sums.plus(by).unwrap();
                }
            }
            let expected: Vec<_> = expected.into_iter().filter(|(_, s)| !s.is_zero()).map(|(k, s)| (k.0, k.1, s)).collect();
            prop_assert_eq!(read(&whole), expected);
            let (left, right) = deltas.split_at(split.min(deltas.len()));
            let mut sum = Vec::new();
            add_stored(&of(left), &of(right), &mut sum).unwrap();
            prop_assert_eq!(sum, whole);
        }
    }

    #[test]
    fn refuses_to_overflow() {
        let most = Sums { count: i64::MAX, ..Sums::default() };
        let mut cell = Cell::default();
        cell.add(0, 0, most).unwrap();
        assert!(cell.add(0, 0, Sums::ONE).is_err());
        assert!(cell.add(96, 0, Sums::ONE).is_err());
        let mut stored = Vec::new();
        cell.encode(&mut stored).unwrap();
        assert!(add_stored(&stored, &stored, &mut Vec::new()).is_err());
        cell.add(1, 0, most).unwrap();
        assert!(cell.encode(&mut Vec::new()).is_err());
    }
}
