//! `GET /c/{link}`: a click is recorded and the visitor goes on to the link's destination.
//!
//! Refuses to stop a visitor: a click that cannot be made durable goes on without an id.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    header::{CACHE_CONTROL, HeaderValue, LOCATION},
    http::request::Parts,
};
use pipeline::{Draft, LinkEntry, Receipt, catalog::Behind, clock};
use schemas::{
    ClickId, EventBody, EventId, Time, event, id::alias_shard, interpret::encoded_text, landing, settings::DynMode,
};
use tokio::time::timeout;

use crate::{
    answer::{self, Answer, NO_STORE, Refusal},
    edge::{Edge, random_bits},
    postback::RETRY_SECONDS,
    visitor::{self, Values},
};

impl Edge {
    pub(crate) async fn click(&self, head: &Parts, query: &[u8], link: &str) -> Answer {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return answer::BAD_METHOD.allow("GET, HEAD").into();
        }
        let link = match self.link(link).await {
            Ok(link) => link,
            Err(refusal) => return refusal.into(),
        };
        let mut values = Values::read(&encoded_text(query));
        if head.method == Method::HEAD {
            return redirect(&link, &values, None);
        }
        values.flags.extend(visitor::flags(&head.headers).map(str::to_owned));
        let draft = draft(&link, &values, head, clock::now());
        let EventBody::Click(event::Click { id, .. }) = draft.body else { return redirect(&link, &values, None) };
        match timeout(self.config.click_durable, self.log.append(draft)).await {
            Ok(Ok(receipt)) => {
                self.meters.clicks.increment(1);
                redirect(&link, &values, Some((id, receipt)))
            }
            Ok(Err(_)) | Err(_) => {
                self.meters.undurable_clicks.increment(1);
                redirect(&link, &values, None)
            }
        }
    }

    /// A link that is not known here may have been made elsewhere just now.
    async fn link(&self, id: &str) -> Result<Arc<LinkEntry>, Refusal> {
        if let Some(link) = self.catalog.view().link(id) {
            return Ok(link);
        }
        self.catalog.catch_up().await.map_err(|Behind| answer::UNREAD_CATALOG.retry_after(RETRY_SECONDS))?;
        self.catalog.view().link(id).ok_or(answer::UNKNOWN_LINK)
    }
}

fn draft(link: &LinkEntry, values: &Values, head: &Parts, now: Time) -> Draft {
    let settings = &link.account.settings;
    let [mut dyn_, sub1, sub2, sub3, sub4, sub5] = values.kept.clone();
    let alias = match link.record.dyn_mode.unwrap_or(settings.dyn_mode) {
        DynMode::Click => dyn_.as_deref().map(schemas::name::fold),
        DynMode::Campaign => {
            // Conversions of a label carry it folded; folded here too, both stand in one row of a report.
            dyn_ = dyn_.as_deref().map(schemas::name::fold);
            None
        }
    };
    let shard = match &alias {
        Some(alias) => alias_shard(&link.tenant, &settings.account, alias),
        None => random_bits() as u16,
    };
    let click = event::Click {
        id: ClickId::new(now, shard, random_bits()),
        account: settings.account.clone(),
        program: settings.program.clone(),
        link: Some(link.record.id.clone()),
        time: now,
        dyn_,
        foreign: None,
        sub1,
        sub2,
        sub3,
        sub4,
        sub5,
        flags: values.flags.clone(),
        agent: visitor::agent(&head.headers),
        referrer: visitor::referrer_host(&head.headers),
        alias,
        lookback_days: settings.lookback_days,
        lifetime_days: settings.lifetime_days,
        waiting_days: settings.waiting_days,
    };
    Draft {
        id: EventId::new(now, shard, random_bits()),
        tenant: link.tenant.clone(),
        time: now,
        shard,
        body: EventBody::Click(click),
    }
}

fn redirect(link: &LinkEntry, values: &Values, click: Option<(ClickId, Receipt)>) -> Answer {
    let place = &link.account.click;
    let [dyn_, subs @ ..] = values.kept.each_ref().map(Option::as_deref);
    let id = click.as_ref().map(|(id, _)| id);
    let location =
        landing::destination(&link.record.destination, &place.param, place.place, &place.value, id, dyn_, subs);
    let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(location)) else {
        // Destinations are checked before they are stored, and values are percent-encoded.
        return answer::UNKNOWN_LINK.into();
    };
    let mut answer = answer::empty(StatusCode::FOUND);
    let headers = answer.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some((id, receipt)) = click {
        for (name, value) in [(answer::CLICK, id.to_string()), (answer::RECEIPT, receipt.to_string())] {
            if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
                headers.insert(name, value);
            }
        }
    }
    answer
}
