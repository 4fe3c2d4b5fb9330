//! The postback report: every hit with its current outcome, newest first.

use anyhow::Result;
use schemas::{ClickId, EventId, Reason, name::fold as fold_name, outcome::Status};

use super::{
    query::{PostbackQuery, QueryError},
    range::{Range, resolve, zone},
    reader::Snapshot,
    rows::{Page, PostbackRow},
    show,
    walk::{Candidates, Go, Table, below, walk},
};
use crate::tables::{HitRow, Kind, Order, decode, ranges, term};

pub fn page(snapshot: &mut Snapshot<'_>, query: &PostbackQuery) -> Result<Page<PostbackRow>, QueryError> {
    let range = range(query)?;
    let cursor = cursor(query.cursor.as_deref())?;
    let as_of = snapshot.as_of;
    let Some(search) = Search::new(snapshot, query) else {
        return Ok(Page { items: Vec::new(), cursor: None, as_of });
    };
    let wanted = Wanted::new(query, range);
    let candidates = search.candidates(snapshot);
    let rows = below(ranges(snapshot.conn(), Order::Hits, range.from, range.to)?, cursor);
    let mut items = Vec::new();
    let rest = walk(snapshot, Table::Hits, &candidates, &rows, |snapshot, _, data| {
        let hit: HitRow<'_> = decode(data)?;
        if search.accounts.binary_search(&hit.account).is_ok() && wanted.is(&hit) {
            items.push(show::postback(snapshot.names().account_text(hit.account), &hit));
        }
        Ok(if items.len() < query.limit { Go::On } else { Go::Enough })
    })?;
    Ok(Page { items, cursor: rest.map(|row| row.to_string()), as_of })
}

pub fn range(query: &PostbackQuery) -> Result<Range, QueryError> {
    let tz = zone(query.tz.as_deref().unwrap_or("UTC"))?;
    resolve(query.from.as_ref(), query.to.as_ref(), &tz, query.now)
}

pub fn cursor(text: Option<&str>) -> Result<Option<i64>, QueryError> {
    text.map(|text| text.parse().map_err(|_| no_cursor())).transpose()
}

pub fn no_cursor() -> QueryError {
    QueryError::refused("cursor", "invalid_cursor", "this is no cursor of this list")
}

pub fn one(snapshot: &Snapshot<'_>, tenant: &str, id: EventId) -> Result<Option<PostbackRow>> {
    let wanted = term(Kind::HitId, 0, &id.bits().to_be_bytes());
    for row in snapshot.segments().rows(snapshot.conn(), wanted, 0, i64::MAX, usize::MAX)? {
        let mut read = snapshot.conn().prepare_cached("SELECT data FROM hits WHERE src = ?")?;
        let mut rows = read.query([row])?;
        let Some(row) = rows.next()? else { continue };
        let hit: HitRow<'_> = decode(row.get_ref(0)?.as_blob()?)?;
        if hit.id == id && is_of_tenant(snapshot, tenant, hit.account) {
            return Ok(Some(show::postback(snapshot.names().account_text(hit.account), &hit)));
        }
    }
    Ok(None)
}

pub fn is_of_tenant(snapshot: &Snapshot<'_>, tenant: &str, account: u32) -> bool {
    let names = snapshot.names();
    names.account_name(account).and_then(|account| names.tenant_name(account.tenant)) == Some(tenant)
}

/// The question, ready to be put to a row whose account is asked for.
pub struct Wanted<'q> {
    query: &'q PostbackQuery,
    range: Range,
    text: Option<String>,
}

impl<'q> Wanted<'q> {
    pub fn new(query: &'q PostbackQuery, range: Range) -> Self {
        Self { query, range, text: query.q.as_deref().map(fold_name) }
    }

    pub fn is(&self, hit: &HitRow<'_>) -> bool {
        let (query, decision) = (self.query, &hit.decision);
        let conversions = || decision.goals.iter().filter_map(|goal| goal.conversion.as_ref());
        let (tids, players) = (|| conversions().filter_map(|c| c.tid), || conversions().filter_map(|c| c.player));
        self.range.contains(hit.time)
            && (query.outcomes.is_empty() || query.outcomes.contains(&decision.outcome))
            && (query.reasons.is_empty() || decision.reason.is_some_and(|reason| query.reasons.contains(&reason)))
            && query.reason.admits(decision.reason.map(Reason::code))
            && query.click.admits_all(|text| is_of_click(hit, text), has_no_click(hit))
            && query.tid.admits_all(|text| tids().any(|tid| tid == text), tids().next().is_none())
            && query.player.admits_all(|text| players().any(|player| player == text), players().next().is_none())
            && self.text.as_deref().is_none_or(|text| has_text(hit, text))
    }
}

/// Where a folder finds the rows.
struct Search<'q> {
    query: &'q PostbackQuery,
    tenant: u32,
    /// Of the tenant; those of the filter if there is one.
    accounts: Vec<u32>,
}

impl<'q> Search<'q> {
    /// `None`: no row can be meant.
    fn new(snapshot: &Snapshot<'_>, query: &'q PostbackQuery) -> Option<Self> {
        let names = snapshot.names();
        let tenant = names.tenant(&query.tenant)?;
        let of_tenant = names.accounts_of(tenant);
        let wanted = |name: &str| query.accounts.is_empty() || query.accounts.iter().any(|wanted| wanted == name);
        let mut accounts: Vec<u32> = of_tenant.filter(|(_, name)| wanted(name)).map(|(number, _)| number).collect();
        accounts.sort_unstable();
        Some(Self { query, tenant, accounts })
    }

    /// The rarest of what is asked for.
    fn candidates(&self, snapshot: &Snapshot<'_>) -> Candidates {
        let query = self.query;
        if let Some(clicks) = query.click.positive() {
            let of_click = |text: &str| match ClickId::parse(text.as_bytes()) {
                Some(id) => term(Kind::HitClick, 0, &id.bits().to_be_bytes()),
                None => term(Kind::HitName, self.tenant, fold_name(text).as_bytes()),
            };
            return Candidates::Any(clicks.into_iter().map(of_click).collect());
        }
        for (kind, filter) in [(Kind::HitTid, &query.tid), (Kind::HitPlayer, &query.player)] {
            if let Some(values) = filter.positive() {
                let terms = values.into_iter().map(|value| term(kind, self.tenant, value.as_bytes()));
                return Candidates::Any(terms.collect());
            }
        }
        let scoped = |of_tenant: Kind, of_account: Kind, values: &[u8]| {
            let pair = |value: &u8| match query.accounts.is_empty() {
                true => vec![term(of_tenant, self.tenant, &[*value])],
                false => self.accounts.iter().map(|account| term(of_account, *account, &[*value])).collect(),
            };
            Candidates::Any(values.iter().flat_map(pair).collect())
        };
        if !query.reasons.is_empty() {
            let reasons: Vec<u8> = query.reasons.iter().map(|reason| *reason as u8).collect();
            return scoped(Kind::HitReasonOfTenant, Kind::HitReasonOfAccount, &reasons);
        }
        if !query.outcomes.is_empty() && !query.outcomes.contains(&Status::Converted) {
            let outcomes: Vec<u8> = query.outcomes.iter().map(|outcome| *outcome as u8).collect();
            return scoped(Kind::HitOutcomeOfTenant, Kind::HitOutcomeOfAccount, &outcomes);
        }
        if !query.accounts.is_empty() {
            let of_account = |account: &u32| term(Kind::HitOfAccount, *account, b"");
            return Candidates::Any(self.accounts.iter().map(of_account).collect());
        }
        match snapshot.names().tenants_known() {
            0 | 1 => Candidates::All,
            _ => Candidates::Any(vec![term(Kind::HitOfTenant, self.tenant, b"")]),
        }
    }
}

/// By our id, or by the name as it was received.
fn is_of_click(hit: &HitRow<'_>, text: &str) -> bool {
    let decision = &hit.decision;
    let mut named = [decision.named, decision.label].into_iter().flatten();
    match ClickId::parse(text.as_bytes()) {
        Some(click) => {
            decision.click.is_some_and(|(id, _)| id == click)
                || named.any(|name| ClickId::parse(name.as_bytes()) == Some(click))
        }
        None => {
            let text = fold_name(text);
            named.any(|name| fold_name(name) == text)
        }
    }
}

fn has_no_click(hit: &HitRow<'_>) -> bool {
    let decision = &hit.decision;
    decision.click.is_none() && decision.named.is_none() && decision.label.is_none()
}

fn has_text(hit: &HitRow<'_>, text: &str) -> bool {
    let decision = &hit.decision;
    let texts = [Some(hit.raw), hit.body, decision.named, decision.label, decision.hint, hit.remote];
    let click = decision.click.map(|(id, _)| id.to_string());
    let of_goals = decision.goals.iter().flat_map(|goal| {
        let conversion = goal.conversion.as_ref();
        [Some(goal.goal), conversion.and_then(|c| c.tid), conversion.and_then(|c| c.player)]
    });
    let mut all = texts.into_iter().chain(of_goals).flatten().chain(click.as_deref());
    let conversions = || decision.goals.iter().filter_map(|goal| goal.conversion.as_ref());
    all.any(|known| fold_name(known).contains(text))
        || hit.id.to_string() == text
        || conversions().any(|c| c.id.to_string().contains(text))
}
