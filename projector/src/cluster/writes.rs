//! What an outcome writes into the tables of rows. Pure: a function of the outcome, its `src` and the log time.
//!
//! Owns: the columns of every row. Refuses: to read; a row that depends on what stands there already is two rows.
//! Invariant: the same outcome gives the same writes, each with a time stamp that follows from `src`, so they can be
//! written any number of times, by anybody, in any order.

use anyhow::Result;
use schemas::{
    ClickId, ConversionId, EventId, Outcome, Time,
    name::fold as fold_name,
    outcome::{ClickData, HitOutcome, Kind},
};
use serde::{Deserialize, Serialize};

use super::lists::{List, scope};
use crate::{
    fold::{Folded, Version},
    tables::{Decision, StoredClick, StoredConversion, encode},
};

/// The part of a hit's row that never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Received<'a> {
    /// Log time when it came.
    pub log_time: Time,
    pub method: &'a str,
    pub raw: &'a str,
    pub body: Option<&'a str>,
    pub remote: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountKey {
    pub tenant: String,
    pub account: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// `data`: `StoredClick`, whose account number is 0.
    Click {
        of: AccountKey,
        time: Time,
        id: ClickId,
        data: Vec<u8>,
    },
    /// `received`: `Received`; `decision`: `Decision`.
    Hit {
        of: AccountKey,
        time: Time,
        id: EventId,
        received: Vec<u8>,
        decision: Vec<u8>,
    },
    /// A later decision on a hit; `again`: it was read again by the event at this `src`.
    Decision {
        of: AccountKey,
        time: Time,
        id: EventId,
        decision: Vec<u8>,
        again: bool,
    },
    /// `data`: `StoredConversion` as this version says it, whose account number is 0.
    Version {
        of: AccountKey,
        id: ConversionId,
        version: u32,
        data: Vec<u8>,
    },
    Entry(Entry),
}

impl Row {
    /// The conversion that it is a version of.
    pub fn conversion(&self) -> Option<ConversionId> {
        match self {
            Row::Version { id, .. } => Some(*id),
            Row::Click { .. } | Row::Hit { .. } | Row::Decision { .. } | Row::Entry(_) => None,
        }
    }
}

/// That something stands in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub list: List,
    pub tenant: String,
    pub scope: String,
    /// What the list is sorted by. Of hits and clicks: the time of their row.
    pub time: Time,
    pub id: Vec<u8>,
    pub account: String,
    /// Of a conversion; else 0.
    pub version: u32,
}

/// Of one outcome, with `src` and the log time before it.
pub fn writes(src: u64, log_time: Time, outcome: &Outcome, folded: &Folded<'_>) -> Result<Vec<Row>> {
    let mut rows = Rows { outcome, log_time, rows: Vec::new(), buffer: Vec::new() };
    if let Some(click) = folded.click {
        rows.click(click)?;
    }
    for hit in folded.hits {
        rows.hit(hit)?;
    }
    for version in &folded.versions {
        rows.version(version)?;
    }
    rows.adjust(src);
    Ok(rows.rows)
}

struct Rows<'o> {
    outcome: &'o Outcome,
    log_time: Time,
    rows: Vec<Row>,
    buffer: Vec<u8>,
}

impl Rows<'_> {
    fn encode<T: Serialize>(&mut self, row: &T) -> Result<Vec<u8>> {
        encode(row, &mut self.buffer)?;
        Ok(self.buffer.clone())
    }

    fn entry(&mut self, list: List, scope: String, of: &AccountKey, time: Time, id: &[u8], version: u32) {
        let (tenant, account) = (of.tenant.clone(), of.account.clone());
        self.rows.push(Row::Entry(Entry { list, tenant, scope, time, id: id.to_vec(), account, version }));
    }

    fn click(&mut self, click: &ClickData) -> Result<()> {
        let of = AccountKey { tenant: self.outcome.tenant.clone(), account: click.account.clone() };
        let data = self.encode(&StoredClick::of(0, self.log_time, click))?;
        let id = click.id.bits().to_be_bytes();
        self.entry(List::ClickId, click.id.to_string(), &of, click.time, &id, 0);
        for name in [&click.foreign, &click.dyn_].into_iter().flatten() {
            let scope = scope(&click.account, &fold_name(name));
            self.entry(List::ClickName, scope, &of, click.time, &id, 0);
        }
        self.rows.push(Row::Click { of, time: click.time, id: click.id, data });
        Ok(())
    }

    fn hit(&mut self, hit: &HitOutcome) -> Result<()> {
        let of = AccountKey { tenant: hit.tenant.clone(), account: hit.account.clone() };
        let (id, time) = (hit.hit.id, hit.hit.time);
        let key = id.bits().to_be_bytes();
        let decision = self.encode(&Decision::from(hit))?;
        self.hit_names(&of, hit, &key);
        if id != self.outcome.id {
            let again = self.outcome.kind == Kind::Reprocess;
            self.rows.push(Row::Decision { of, time, id, decision, again });
            return Ok(());
        }
        let received = self.encode(&Received {
            log_time: self.log_time,
            method: hit.hit.method.as_deref().unwrap_or_default(),
            raw: hit.hit.raw.as_deref().unwrap_or_default(),
            body: hit.hit.body.as_deref(),
            remote: hit.hit.remote.as_deref(),
        })?;
        self.entry(List::HitId, id.to_string(), &of, time, &key, 0);
        self.entry(List::HitOfTenant, String::new(), &of, time, &key, 0);
        self.rows.push(Row::Hit { of, time, id, received, decision });
        Ok(())
    }

    /// Under which names the hit is found. Those of an earlier decision stay, so readers look at the row.
    fn hit_names(&mut self, of: &AccountKey, hit: &HitOutcome, key: &[u8]) {
        let time = hit.hit.time;
        let click = hit.click.as_ref().map(|click| click.id);
        if let Some(click) = click {
            self.entry(List::HitClick, click.to_string(), of, time, key, 0);
        }
        for name in [&hit.named, &hit.label].into_iter().flatten() {
            match ClickId::parse(name.as_bytes()) {
                Some(id) if Some(id) == click => {}
                Some(id) => self.entry(List::HitClick, id.to_string(), of, time, key, 0),
                None => self.entry(List::HitName, fold_name(name), of, time, key, 0),
            }
        }
        for conversion in hit.goals.iter().filter_map(|goal| goal.conversion.as_ref()) {
            for (list, value) in [(List::HitTid, &conversion.tid), (List::HitPlayer, &conversion.player)] {
                if let Some(value) = value {
                    self.entry(list, value.clone(), of, time, key, 0);
                }
            }
        }
    }

    fn version(&mut self, version: &Version<'_>) -> Result<()> {
        let tenant = self.outcome.hits.first().map_or(&self.outcome.tenant, |hit| &hit.tenant).clone();
        let of = AccountKey { tenant, account: version.account.to_owned() };
        let time = self.outcome.time;
        let row = StoredConversion::of(0, version, time);
        let (id, number) = (row.id, row.version);
        // Lists of changes are sorted by the latest of its times, so that who looks for conversions of a time need not look at
        // what was last changed before it.
        let latest = time.max(row.click_time).max(row.time);
        if number == 1 {
            self.entry(List::MadeOfTenant, String::new(), &of, time, &id.0, number);
            self.entry(List::MadeOfAccount, of.account.clone(), &of, time, &id.0, number);
        }
        self.entry(List::ChangedOfTenant, String::new(), &of, latest, &id.0, number);
        self.entry(List::ChangedOfAccount, of.account.clone(), &of, latest, &id.0, number);
        if let Some(click) = row.click {
            self.entry(List::ConversionClick, click.to_string(), &of, time, &id.0, number);
        }
        for (list, value) in [(List::ConversionTid, row.tid), (List::ConversionPlayer, row.player)] {
            if let Some(value) = value {
                self.entry(list, value.to_owned(), &of, time, &id.0, number);
            }
        }
        let data = self.encode(&row)?;
        self.rows.push(Row::Version { of, id, version: number, data });
        Ok(())
    }

    /// Corrections by hand are found again when the history of their click is read again.
    fn adjust(&mut self, src: u64) {
        let Some(adjust) = &self.outcome.adjust else { return };
        let of = AccountKey { tenant: self.outcome.tenant.clone(), account: adjust.account.clone() };
        let (time, key) = (self.log_time, src.to_be_bytes());
        if let Some(click) = &self.outcome.click {
            self.entry(List::AdjustClick, click.id.to_string(), &of, time, &key, 0);
        }
        if let Some(label) = &adjust.label {
            self.entry(List::AdjustLabel, scope(&adjust.account, &fold_name(label)), &of, time, &key, 0);
        }
    }
}
