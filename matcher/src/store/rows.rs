//! Keys and rows of `state.db`: what follows from a key is left out of its row.

use std::{borrow::Cow, sync::Arc};

use anyhow::{Result, bail};
use schemas::{ClickId, EventId, Time};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ledger::Ledger,
    state::{Click, Home, Key, Named, NamedClick, Waiting},
};

pub fn click_key(id: ClickId) -> [u8; 15] {
    bits_key(id.bits())
}

pub fn event_key(id: EventId) -> [u8; 15] {
    bits_key(id.bits())
}

/// 114 bits, left-aligned in 15 bytes, so that keys sort by time.
fn bits_key(bits: u128) -> [u8; 15] {
    let bytes = (bits << 6).to_be_bytes();
    std::array::from_fn(|i| bytes[i + 1])
}

fn key_bits(key: &[u8]) -> Result<u128> {
    let mut bytes = [0; 16];
    if key.len() != 15 {
        bail!("a key of the state cache has {} bytes instead of 15", key.len());
    }
    bytes[1..].copy_from_slice(key);
    Ok(u128::from_be_bytes(bytes) >> 6)
}

pub fn click_id(key: &[u8]) -> Result<ClickId> {
    key_bits(key).map(ClickId::from_bits)
}

pub fn event_id(key: &[u8]) -> Result<EventId> {
    key_bits(key).map(EventId::from_bits)
}

/// 16 bytes of a hash instead of tenant, account and alias: a third of the row.
pub fn text_key(key: &Key) -> [u8; 16] {
    let (kind, text) = match key {
        Key::Click(id) => (b'c', id.to_string()),
        Key::Alias(text) => (b'a', text.to_string()),
        Key::Label(text) => (b'l', text.to_string()),
    };
    let digest = Sha256::new().chain_update([kind]).chain_update(text).finalize();
    std::array::from_fn(|i| digest[i])
}

/// A click row: what follows from the id is left out.
#[derive(Serialize, Deserialize)]
pub struct StoredClick<'a> {
    pub home: i64,
    time: Option<Time>,
    dyn_: Option<Cow<'a, str>>,
    foreign: Option<Cow<'a, str>>,
    subs: [Option<Cow<'a, str>>; 5],
    alias: StoredAlias<'a>,
    touched: u64,
    ledger: Cow<'a, Ledger>,
    waiting: Cow<'a, [Arc<Waiting>]>,
}

#[derive(Serialize, Deserialize)]
enum StoredAlias<'a> {
    None,
    Dyn,
    Foreign,
    Text(Cow<'a, str>),
}

impl<'a> StoredClick<'a> {
    pub fn of(id: ClickId, click: &'a Click, home: i64) -> Self {
        let is = |text: &Option<Arc<str>>, alias: &str| text.as_ref().is_some_and(|t| t.to_ascii_lowercase() == alias);
        let alias = match &click.alias {
            None => StoredAlias::None,
            Some(alias) if is(&click.foreign, alias) => StoredAlias::Foreign,
            Some(alias) if is(&click.dyn_, alias) => StoredAlias::Dyn,
            Some(alias) => StoredAlias::Text(Cow::Borrowed(alias)),
        };
        let text = |text: &'a Option<Arc<str>>| text.as_deref().map(Cow::Borrowed);
        Self {
            home,
            time: (click.time != id.time()).then_some(click.time),
            dyn_: text(&click.dyn_),
            foreign: text(&click.foreign),
            subs: click.subs.each_ref().map(text),
            alias,
            touched: click.touched,
            ledger: Cow::Borrowed(&click.ledger),
            waiting: Cow::Borrowed(&click.waiting),
        }
    }

    pub fn into_click(self, id: ClickId, home: Arc<Home>) -> Click {
        let alias = match self.alias {
            StoredAlias::None => None,
            StoredAlias::Dyn => self.dyn_.as_ref().map(|t| t.to_ascii_lowercase().into()),
            StoredAlias::Foreign => self.foreign.as_ref().map(|t| t.to_ascii_lowercase().into()),
            StoredAlias::Text(text) => Some(text.into()),
        };
        let text = |text: Option<Cow<str>>| text.map(Arc::from);
        Click {
            home,
            time: self.time.unwrap_or_else(|| id.time()),
            dyn_: text(self.dyn_),
            foreign: text(self.foreign),
            subs: self.subs.map(text),
            alias,
            touched: self.touched,
            ledger: self.ledger.into_owned(),
            waiting: self.waiting.into_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct StoredName {
    clicks: Vec<(ClickId, Option<Time>, bool)>,
    waiting: Vec<Arc<Waiting>>,
    touched: u64,
}

impl StoredName {
    pub fn of(named: &Named) -> Self {
        let clicks = named.clicks.iter();
        Self {
            clicks: clicks.map(|c| (c.id, (c.time != c.id.time()).then_some(c.time), c.converted)).collect(),
            waiting: named.waiting.clone(),
            touched: named.touched,
        }
    }
    pub fn into_named(self) -> Named {
        let clicks = self.clicks.into_iter().map(|(id, time, converted)| NamedClick {
            id,
            time: time.unwrap_or_else(|| id.time()),
            converted,
        });
        Named { clicks: clicks.collect(), waiting: self.waiting, touched: self.touched }
    }
}
