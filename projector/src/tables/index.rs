//! Under which terms a row is found.

use schemas::{
    ClickId,
    name::fold,
    outcome::{HitOutcome, Status},
};

use super::{
    rows::StoredConversion,
    terms::{Kind, Pending, term},
};

/// What a hit's present outcome adds. Terms of an earlier outcome stay, so readers look at the row.
pub fn decision(pending: &mut Pending, tenant: u32, account: u32, row: i64, hit: &HitOutcome) {
    // Most hits convert: to find those, all are looked through.
    if hit.outcome != Status::Converted {
        let outcome = [hit.outcome as u8];
        pending.add(term(Kind::HitOutcomeOfTenant, tenant, &outcome), row);
        pending.add(term(Kind::HitOutcomeOfAccount, account, &outcome), row);
    }
    if let Some(reason) = hit.reason {
        pending.add(term(Kind::HitReasonOfTenant, tenant, &[reason as u8]), row);
        pending.add(term(Kind::HitReasonOfAccount, account, &[reason as u8]), row);
    }
    let click = hit.click.as_ref().map(|click| click.id);
    if let Some(click) = click {
        pending.add(term(Kind::HitClick, 0, &click.bits().to_be_bytes()), row);
    }
    for name in [&hit.named, &hit.label].into_iter().flatten() {
        match ClickId::parse(name.as_bytes()) {
            Some(id) if Some(id) == click => {}
            Some(id) => pending.add(term(Kind::HitClick, 0, &id.bits().to_be_bytes()), row),
            None => pending.add(term(Kind::HitName, tenant, fold(name).as_bytes()), row),
        }
    }
    for conversion in hit.goals.iter().filter_map(|goal| goal.conversion.as_ref()) {
        for (kind, value) in [(Kind::HitTid, &conversion.tid), (Kind::HitPlayer, &conversion.player)] {
            if let Some(value) = value {
                pending.add(term(kind, tenant, value.as_bytes()), row);
            }
        }
    }
}

pub fn conversion(pending: &mut Pending, tenant: u32, account: u32, number: i64, row: &StoredConversion<'_>) {
    pending.add(term(Kind::ConversionId, 0, &row.id.0), number);
    pending.add(term(Kind::ConversionOfTenant, tenant, b""), number);
    pending.add(term(Kind::ConversionOfAccount, account, b""), number);
    if let Some(click) = row.click {
        pending.add(term(Kind::ConversionClick, 0, &click.bits().to_be_bytes()), number);
    }
    names(pending, tenant, number, row);
}

pub fn names(pending: &mut Pending, tenant: u32, number: i64, row: &StoredConversion<'_>) {
    for (kind, value) in [(Kind::ConversionTid, row.tid), (Kind::ConversionPlayer, row.player)] {
        if let Some(value) = value {
            pending.add(term(kind, tenant, value.as_bytes()), number);
        }
    }
}
