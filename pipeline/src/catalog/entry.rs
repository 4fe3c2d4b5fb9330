//! What a request gets from the view, ready to use.

use std::{fmt, net::IpAddr, sync::Arc};

use anyhow::{Context, Result};
use ipnet::IpNet;
use schemas::{
    Time,
    catalog::{Account, ClickIn, Link},
    settings::AccountSettings,
};

use crate::secrets::Sealer;

/// An account with everything that a request on it needs.
#[derive(Clone)]
pub struct AccountEntry {
    pub tenant: String,
    pub record: Account,
    pub version: u64,
    /// The current token, unsealed; empty if it cannot be unsealed, and then it is no token.
    pub token: String,
    pub settings: Arc<AccountSettings>,
    /// The record's `allow`, parsed. Ask `allows`: it also refuses where an entry cannot be parsed.
    pub allow: Vec<IpNet>,
    /// Unsealed. `None` although the record has `hmac`: it cannot be unsealed, and no signature is right.
    pub hmac_secret: Option<Vec<u8>>,
    pub click: ClickPlace,
}

/// How the click id is put into a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickPlace {
    /// The account's own parameter, else the program's.
    pub param: String,
    pub place: ClickIn,
    /// `{click_id}` within it is replaced.
    pub value: String,
}

/// A link and its account, both as they are now.
#[derive(Clone, Debug)]
pub struct LinkEntry {
    pub tenant: String,
    pub record: Arc<Link>,
    pub version: u64,
    pub account: Arc<AccountEntry>,
}

impl AccountEntry {
    /// Whether postbacks from this address are taken.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.record.allow.is_empty() || self.allow.iter().any(|net| net.contains(&address))
    }
}

/// Without secrets, as it may reach a log.
impl fmt::Debug for AccountEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountEntry")
            .field("tenant", &self.tenant)
            .field("id", &self.record.id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What is sealed in an account's record, or as much of it as can be opened.
#[derive(Default)]
pub(super) struct Opened {
    pub token: String,
    /// Older tokens that are taken until then.
    pub previous: Vec<(String, Time)>,
    pub hmac_secret: Option<Vec<u8>>,
    pub allow: Vec<IpNet>,
}

impl Opened {
    pub(super) fn of(record: &Account, sealer: &Sealer) -> (Opened, Option<anyhow::Error>) {
        let mut opened = Opened::default();
        let mut problem = None;
        let mut note = |result: Result<()>| {
            if let Err(error) = result {
                problem.get_or_insert(error.context(format!("account {}", record.id)));
            }
        };
        note(sealer.unseal(&record.token).context("its token").map(|token| opened.token = token));
        for older in &record.previous_tokens {
            let token = sealer.unseal(&older.token).context("an older token of it");
            note(token.map(|token| opened.previous.push((token, older.valid_until))));
        }
        if let Some(hmac) = &record.hmac {
            let secret = sealer.unseal(&hmac.secret).context("its HMAC secret");
            note(secret.map(|secret| opened.hmac_secret = Some(secret.into_bytes())));
        }
        for range in &record.allow {
            note(parse_range(range).map(|range| opened.allow.push(range)));
        }
        (opened, problem)
    }
}

/// A network in CIDR form, or one address.
fn parse_range(text: &str) -> Result<IpNet> {
    let text = text.trim();
    match text.parse::<IpNet>() {
        Ok(net) => Ok(net),
        Err(_) => Ok(text.parse::<IpAddr>().with_context(|| format!("`{text}` is no address range"))?.into()),
    }
}
