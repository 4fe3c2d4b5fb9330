//! Small numbers for tenants, accounts and measures, so that keys are short. Given in log order, so a rebuild gives
//! the same.

use anyhow::{Context, Result};
use hashbrown::HashMap;
use rusqlite::{Connection, params};
use schemas::{Currency, status::State};

use crate::{fold::Measure, report::Basis};

/// A measure's code in a cell: 0 and 1 are clicks; conversions take two each, one per basis.
const FIRST_CONVERSION_CODE: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountName {
    pub tenant: u32,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversionMeasure {
    pub goal: String,
    pub state: State,
    pub currency: Currency,
}

#[derive(Debug, Default)]
pub struct Names {
    tenants: Vec<String>,
    accounts: Vec<AccountName>,
    measures: Vec<ConversionMeasure>,
    tenant_ids: HashMap<String, u32>,
    account_ids: HashMap<u32, HashMap<String, u32>>,
    measure_ids: HashMap<String, Vec<(State, Currency, u32)>>,
    /// The account that was asked for last.
    last: u32,
    /// How many of each are in the file.
    stored: (u32, u32, u32),
}

impl Names {
    /// Reads what the file has beyond what is known here.
    pub fn refresh(&mut self, conn: &Connection) -> Result<()> {
        let (tenants, accounts, measures) = self.stored;
        let mut rows = conn.prepare_cached("SELECT name FROM tenants WHERE id >= ? ORDER BY id")?;
        for name in rows.query_map([tenants], |row| row.get::<_, String>(0))? {
            self.add_tenant(name?);
        }
        let mut rows = conn.prepare_cached("SELECT tenant, name FROM accounts WHERE id >= ? ORDER BY id")?;
        for row in rows.query_map([accounts], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (tenant, name): (u32, String) = row?;
            self.add_account(tenant, name);
        }
        let mut rows = conn.prepare_cached("SELECT goal, state, currency FROM measures WHERE id >= ? ORDER BY id")?;
        for row in rows.query_map([measures], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))? {
            let (goal, state, currency): (String, u32, String) = row?;
            let state = *State::ALL.get(state as usize).context("a stored measure has an unknown state")?;
            self.add_measure(goal, state, currency.parse()?);
        }
        self.stored = self.counts();
        Ok(())
    }

    pub fn store(&mut self, conn: &Connection) -> Result<()> {
        let (tenants, accounts, measures) = self.stored;
        for (id, name) in (0u32..).zip(&self.tenants).skip(tenants as usize) {
            conn.execute("INSERT INTO tenants(id, name) VALUES (?, ?)", params![id, name])?;
        }
        for (id, account) in (0u32..).zip(&self.accounts).skip(accounts as usize) {
            let row = params![id, account.tenant, account.name];
            conn.execute("INSERT INTO accounts(id, tenant, name) VALUES (?, ?, ?)", row)?;
        }
        for (id, measure) in (0u32..).zip(&self.measures).skip(measures as usize) {
            let row = params![id, measure.goal, measure.state as u32, measure.currency.code()];
            conn.execute("INSERT INTO measures(id, goal, state, currency) VALUES (?, ?, ?, ?)", row)?;
        }
        self.stored = self.counts();
        Ok(())
    }

    fn counts(&self) -> (u32, u32, u32) {
        (self.tenants.len() as u32, self.accounts.len() as u32, self.measures.len() as u32)
    }

    fn add_tenant(&mut self, name: String) -> u32 {
        let id = self.tenants.len() as u32;
        self.tenant_ids.insert(name.clone(), id);
        self.tenants.push(name);
        id
    }

    fn add_account(&mut self, tenant: u32, name: String) -> u32 {
        let id = self.accounts.len() as u32;
        self.account_ids.entry(tenant).or_default().insert(name.clone(), id);
        self.accounts.push(AccountName { tenant, name });
        id
    }

    fn add_measure(&mut self, goal: String, state: State, currency: Currency) -> u32 {
        let id = self.measures.len() as u32;
        self.measure_ids.entry(goal.clone()).or_default().push((state, currency, id));
        self.measures.push(ConversionMeasure { goal, state, currency });
        id
    }

    pub fn tenant_or_new(&mut self, name: &str) -> u32 {
        match self.tenant_ids.get(name) {
            Some(id) => *id,
            None => self.add_tenant(name.to_owned()),
        }
    }

    pub fn account_or_new(&mut self, tenant: u32, name: &str) -> u32 {
        // One outcome asks for its account several times.
        if self.accounts.get(self.last as usize).is_some_and(|last| last.tenant == tenant && last.name == name) {
            return self.last;
        }
        self.last = match self.account(tenant, name) {
            Some(id) => id,
            None => self.add_account(tenant, name.to_owned()),
        };
        self.last
    }

    /// The measure's code in a cell.
    pub fn code_or_new(&mut self, measure: Measure<'_>, basis: Basis) -> u32 {
        let Measure::Conversions { goal, state, currency } = measure else {
            return u32::from(measure == Measure::Clicks { flagged: true });
        };
        let known = self.measure_ids.get(goal).and_then(|ids| ids.iter().find(|m| (m.0, m.1) == (state, currency)));
        let id = match known {
            Some((_, _, id)) => *id,
            None => self.add_measure(goal.to_owned(), state, currency),
        };
        FIRST_CONVERSION_CODE + 2 * id + u32::from(basis == Basis::Conversion)
    }

    pub fn measure(&self, code: u32) -> Option<(Measure<'_>, Basis)> {
        let Some(of_conversion) = code.checked_sub(FIRST_CONVERSION_CODE) else {
            return Some((Measure::Clicks { flagged: code == 1 }, Basis::Click));
        };
        let found = self.measures.get(of_conversion as usize / 2)?;
        let basis = if of_conversion % 2 == 0 { Basis::Click } else { Basis::Conversion };
        let measure = Measure::Conversions { goal: &found.goal, state: found.state, currency: found.currency };
        Some((measure, basis))
    }

    pub fn tenant(&self, name: &str) -> Option<u32> {
        self.tenant_ids.get(name).copied()
    }
    pub fn tenant_name(&self, id: u32) -> Option<&str> {
        self.tenants.get(id as usize).map(String::as_str)
    }
    pub fn account(&self, tenant: u32, name: &str) -> Option<u32> {
        self.account_ids.get(&tenant)?.get(name).copied()
    }
    pub fn account_name(&self, id: u32) -> Option<&AccountName> {
        self.accounts.get(id as usize)
    }
    /// As rows show it.
    pub fn account_text(&self, id: u32) -> &str {
        self.account_name(id).map_or("", |account| &account.name)
    }
    /// In the order in which they first appeared.
    pub fn accounts_of(&self, tenant: u32) -> impl Iterator<Item = (u32, &str)> {
        let all = self.accounts.iter().enumerate();
        all.filter(move |(_, account)| account.tenant == tenant).map(|(id, account)| (id as u32, account.name.as_str()))
    }
    pub fn tenants_known(&self) -> usize {
        self.tenants.len()
    }
}
