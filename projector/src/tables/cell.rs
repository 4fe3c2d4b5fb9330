//! One stored cell row: the sums of one account and value on one UTC day, for the day and for its quarters of an hour.

use anyhow::{Context, Result, bail};

use crate::fold::{QUARTERS_PER_DAY, Sums};

/// The slot of the whole day; quarter `q` has slot `q + 1`.
pub const WHOLE_DAY: u8 = 0;
const SLOTS: u8 = QUARTERS_PER_DAY as u8 + 1;
const MEASURE_BITS: u32 = 24;

/// Entries sorted by slot, then measure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    entries: Vec<(u32, Sums)>,
}

impl Cell {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Absolute = previous + delta.
    pub fn add(&mut self, slot: u8, measure: u32, by: Sums) -> Result<()> {
        if slot >= SLOTS || measure >> MEASURE_BITS != 0 {
            bail!("no such entry in a cell: slot {slot}, measure {measure}");
        }
        let key = u32::from(slot) << MEASURE_BITS | measure;
        match self.entries.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => {
                let sums = &mut self.entries[at].1;
                *sums = sums.plus(by).context("a report cell overflows")?;
            }
            Err(at) => self.entries.insert(at, (key, by)),
        }
        Ok(())
    }

    /// `(slot, measure, sums)`, those of the whole day first. What has become zero is left out.
    pub fn entries(&self) -> impl Iterator<Item = (u8, u32, Sums)> + '_ {
        let parts = |(key, sums): &(u32, Sums)| ((key >> MEASURE_BITS) as u8, key & ((1 << MEASURE_BITS) - 1), *sums);
        self.entries.iter().map(parts).filter(|(_, _, sums)| !sums.is_zero())
    }

    /// The day's totals and its quarters, as they are stored.
    pub fn encode(&self, totals: &mut Vec<u8>, quarters: &mut Vec<u8>) {
        totals.clear();
        quarters.clear();
        let split = self.entries.partition_point(|(key, _)| key >> MEASURE_BITS == u32::from(WHOLE_DAY));
        encode_entries(&self.entries[..split], totals);
        encode_entries(&self.entries[split..], quarters);
    }

    pub fn decode(totals: &[u8], quarters: &[u8]) -> Result<Cell> {
        let mut cell = Cell::default();
        cell.read(totals)?;
        cell.read(quarters)?;
        Ok(cell)
    }

    /// Takes the entries of one stored part in.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<()> {
        let mut key = 0;
        while !bytes.is_empty() {
            let head = take_varint(&mut bytes)? as u64;
            key += (head >> 2) as u32;
            let count = unzigzag(take_varint(&mut bytes)?) as i64;
            let earning = if head & 1 != 0 { unzigzag(take_varint(&mut bytes)?) } else { 0 };
            let value = if head & 2 != 0 { unzigzag(take_varint(&mut bytes)?) } else { 0 };
            self.entries.push((key, Sums { count, earning, value }));
        }
        Ok(())
    }
}

/// Each entry: distance of its key from the one before, with two bits for the money that follows; count; money.
fn encode_entries(entries: &[(u32, Sums)], out: &mut Vec<u8>) {
    let mut before = 0;
    for (key, sums) in entries.iter().filter(|(_, sums)| !sums.is_zero()) {
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

    proptest! {
        #[test]
        fn stored_cells_read_back_whatever_the_order(
            deltas in proptest::collection::vec((0u8..97, 0u32..1 << 24, any::<i64>(), any::<i64>(), any::<i64>()), 0..40),
        ) {
            let half = |n: i64| n / 1024;
            let add = |cell: &mut Cell, d: &(u8, u32, i64, i64, i64)| {
                let by = Sums { count: half(d.2), earning: i128::from(d.3) * 1000, value: i128::from(d.4) };
                cell.add(d.0, d.1, by).unwrap();
            };
            let (mut forth, mut back) = (Cell::default(), Cell::default());
            deltas.iter().for_each(|d| add(&mut forth, d));
            deltas.iter().rev().for_each(|d| add(&mut back, d));
            prop_assert_eq!(&forth, &back);
            let (mut totals, mut quarters) = (Vec::new(), Vec::new());
            forth.encode(&mut totals, &mut quarters);
            let read = Cell::decode(&totals, &quarters).unwrap();
            prop_assert!(read.entries().eq(forth.entries()));
        }
    }

    #[test]
    fn refuses_to_overflow() {
        let mut cell = Cell::default();
        cell.add(0, 0, Sums { count: i64::MAX, ..Sums::default() }).unwrap();
        assert!(cell.add(0, 0, Sums::ONE).is_err());
        assert!(cell.add(97, 0, Sums::ONE).is_err());
    }
}
