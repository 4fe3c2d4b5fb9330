//! Clicks that were made elsewhere: each becomes an event like a visitor's, under the id that it has there.
//!
//! A click is judged alone: one that cannot be taken is `rejected` with its index, the others are imported. The
//! matcher keeps the first click of an account and foreign id, so an import may be sent again.

use pipeline::{Draft, View, secrets};
use schemas::{ClickId, EventBody, EventId, Time, bounds, check, event::Click, id::alias_shard, macros, name};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClickInput {
    /// This or `link` is needed.
    account: Option<String>,
    link: Option<String>,
    /// The id under which the click is known elsewhere, and which postbacks will bring.
    #[schema(value_type = String, required = true)]
    id: Option<String>,
    /// When the visitor clicked; default now.
    #[schema(format = DateTime)]
    time: Option<String>,
    /// Kept as data.
    #[serde(rename = "dyn")]
    dyn_: Option<String>,
    sub1: Option<String>,
    sub2: Option<String>,
    sub3: Option<String>,
    sub4: Option<String>,
    sub5: Option<String>,
}

/// Why a click was not imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Neither an account nor a link is given.
    MissingAccount,
    UnknownAccount,
    UnknownLink,
    /// The link belongs to another account than the one given.
    WrongAccount,
    /// No id, or a placeholder for an absent one such as `null`.
    MissingId,
    /// Over 255 bytes, or with control characters.
    MalformedId,
    /// The id is a macro that nobody replaced.
    UnreplacedMacro,
    /// The id is one that Clickback gave: such a click is here already, or belongs to another installation.
    OwnId,
    InvalidTime,
    /// Over 10 minutes in the future.
    FutureTime,
}

/// The event of an imported click.
pub fn draft(view: &View, tenant: &str, now: Time, input: &ClickInput) -> Result<Draft, Refusal> {
    let (entry, link) = place(view, tenant, input)?;
    let foreign = foreign_id(input.id.as_deref().unwrap_or_default())?;
    let time = match &input.time {
        None => now,
        Some(text) => text.trim().parse::<Time>().map_err(|_| Refusal::InvalidTime)?,
    };
    if time.since(now) > bounds::CLICK_AHEAD_MS {
        return Err(Refusal::FutureTime);
    }
    let alias = name::fold(&foreign);
    let shard = alias_shard(tenant, &entry.record.id, &alias);
    let mut flags = Vec::new();
    let mut kept = |name: &str, value: &Option<String>| {
        let value = value.as_deref()?;
        if usable(value) {
            return Some(value.to_owned());
        }
        flags.push(format!("{name}_dropped"));
        None
    };
    let dyn_ = kept("dyn", &input.dyn_);
    let subs = [
        ("sub1", &input.sub1),
        ("sub2", &input.sub2),
        ("sub3", &input.sub3),
        ("sub4", &input.sub4),
        ("sub5", &input.sub5),
    ];
    let [sub1, sub2, sub3, sub4, sub5] = subs.map(|(name, value)| kept(name, value));
    let settings = &entry.settings;
    let click = Click {
        id: ClickId::new(time, shard, secrets::random_bits()),
        account: entry.record.id.clone(),
        program: entry.record.program.clone(),
        link,
        time,
        dyn_,
        foreign: Some(foreign),
        sub1,
        sub2,
        sub3,
        sub4,
        sub5,
        flags,
        agent: None,
        referrer: None,
        alias: Some(alias),
        lookback_days: settings.lookback_days,
        lifetime_days: settings.lifetime_days,
        waiting_days: settings.waiting_days,
    };
    Ok(Draft {
        id: EventId::new(now, shard, secrets::random_bits()),
        tenant: tenant.to_owned(),
        time: now,
        shard,
        body: EventBody::Click(click),
    })
}

type Place = (std::sync::Arc<pipeline::AccountEntry>, Option<String>);

fn place(view: &View, tenant: &str, input: &ClickInput) -> Result<Place, Refusal> {
    let link = match &input.link {
        None => None,
        Some(id) => Some(view.link(id).filter(|link| link.tenant == tenant).ok_or(Refusal::UnknownLink)?),
    };
    match (&input.account, link) {
        (None, None) => Err(Refusal::MissingAccount),
        (Some(account), Some(link)) if *account != link.record.account => Err(Refusal::WrongAccount),
        (_, Some(link)) => Ok((link.account.clone(), Some(link.record.id.clone()))),
        (Some(account), None) => Ok((view.account(tenant, account).ok_or(Refusal::UnknownAccount)?, None)),
    }
}

fn foreign_id(text: &str) -> Result<String, Refusal> {
    let text = name::clean(text);
    if check::is_absent(text) {
        return Err(Refusal::MissingId);
    }
    if macros::is_macro(text) {
        return Err(Refusal::UnreplacedMacro);
    }
    if text.len() > bounds::NAME_BYTES || text.chars().any(char::is_control) {
        return Err(Refusal::MalformedId);
    }
    // A hit with such an id is looked up as one of our own, never as an alias.
    if check::is_own_click(text) {
        return Err(Refusal::OwnId);
    }
    Ok(text.to_owned())
}

/// As on a tracking link.
fn usable(value: &str) -> bool {
    !value.trim().is_empty()
        && value.len() <= bounds::NAME_BYTES
        && !value.chars().any(char::is_control)
        && !macros::is_macro(value)
}
