//! Figures per group while a report is being put together.

use std::collections::HashMap;

use anyhow::{Context, Result};
use schemas::{Currency, status::State};

use super::query::QueryError;
use crate::fold::{Measure, Sums};

/// Groups of one report.
const MAX_GROUPS: usize = 500_000;

/// Short numbers for the texts of one report.
#[derive(Debug)]
pub struct Texts {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
}

/// The value of those without one.
pub const NONE: u32 = 0;
/// The values beyond the named ones.
pub const OTHER_VALUES: u32 = 1;

impl Default for Texts {
    fn default() -> Self {
        Self { texts: vec![String::new(); 2], numbers: HashMap::new() }
    }
}

impl Texts {
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }
    pub fn of_option(&mut self, text: Option<&str>) -> u32 {
        text.map_or(NONE, |text| self.number(text))
    }
    pub fn text(&self, number: u32) -> Option<&str> {
        if number <= OTHER_VALUES { None } else { self.texts.get(number as usize).map(String::as_str) }
    }
}

/// Goal (a text's number), state and currency.
pub type Kind = (u32, State, Currency);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub clicks: i64,
    pub conversions: Vec<(Kind, Sums)>,
}

impl Tally {
    pub fn add(&mut self, kind: Kind, by: Sums) -> Result<()> {
        match self.conversions.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sums)) => *sums = sums.plus(by).context("a report's sum overflows")?,
            None => self.conversions.push((kind, by)),
        }
        Ok(())
    }
    pub fn add_all(&mut self, other: &Tally) -> Result<()> {
        self.clicks = self.clicks.checked_add(other.clicks).context("a report's sum overflows")?;
        other.conversions.iter().try_for_each(|(kind, sums)| self.add(*kind, *sums))
    }
    pub fn is_zero(&self) -> bool {
        self.clicks == 0 && self.conversions.iter().all(|(_, sums)| sums.is_zero())
    }
}

/// A measured amount on its way into a group; what the report leaves out has been left out.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    Clicks,
    Conversions(Kind),
}

impl Item {
    pub fn of(measure: Measure<'_>, texts: &mut Texts) -> Item {
        match measure {
            Measure::Clicks { .. } => Item::Clicks,
            Measure::Conversions { goal, state, currency } => Item::Conversions((texts.number(goal), state, currency)),
        }
    }
}

/// Tallies by their group: numbers of the slot of time and of the other keys.
#[derive(Debug, Default)]
pub struct Groups {
    pub texts: Texts,
    pub tallies: HashMap<Vec<u32>, Tally>,
}

impl Groups {
    pub fn add(&mut self, key: &[u32], item: Item, by: Sums) -> Result<(), QueryError> {
        if !self.tallies.contains_key(key) {
            if self.tallies.len() >= MAX_GROUPS {
                let detail = format!("the report has more than {MAX_GROUPS} rows: group by less, or filter more");
                return Err(QueryError::refused("group_by", "too_many_rows", detail));
            }
            self.tallies.insert(key.to_vec(), Tally::default());
        }
        let Some(tally) = self.tallies.get_mut(key) else { return Ok(()) };
        match item {
            Item::Clicks => {
                tally.clicks = tally.clicks.checked_add(by.count).context("a report's sum overflows")?;
            }
            Item::Conversions(kind) => tally.add(kind, by)?,
        }
        Ok(())
    }
}
