//! The metrics of the public edge, with handles that are made once.

use std::time::Duration;

use hyper::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use schemas::Reason;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    Click,
    PostBack,
    Other,
}

const ROUTES: [(Route, &str); 3] = [(Route::Click, "click"), (Route::PostBack, "post-back"), (Route::Other, "other")];

const STATUSES: [StatusCode; 16] = [
    StatusCode::OK,
    StatusCode::NO_CONTENT,
    StatusCode::FOUND,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::URI_TOO_LONG,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

struct RouteMeters {
    by_status: Vec<Counter>,
    latency: Histogram,
}

pub(crate) struct Meters {
    routes: Vec<RouteMeters>,
    accepted: Counter,
    rejected: Vec<Counter>,
    unrecorded: Vec<(Reason, Counter)>,
    pub(crate) clicks: Counter,
    pub(crate) undurable_clicks: Counter,
    pub(crate) unparsed: Counter,
    pub(crate) connections: Gauge,
}

impl Meters {
    pub(crate) fn new() -> Self {
        describe();
        let route = |(_, name): (Route, &'static str)| RouteMeters {
            by_status: STATUSES
                .iter()
                .map(|status| {
                    let status = status.as_str().to_owned();
                    counter!("clickback_ingest_requests_total", "route" => name, "status" => status)
                })
                .collect(),
            latency: histogram!("clickback_ingest_answer_seconds", "route" => name),
        };
        let rejected = |reason: &Reason| counter!("clickback_ingest_hits_total", "outcome" => "rejected", "reason" => reason.code());
        let unrecorded = |reason: Reason| {
            (reason, counter!("clickback_ingest_refusals_unrecorded_total", "reason" => reason.code()))
        };
        Self {
            routes: ROUTES.into_iter().map(route).collect(),
            accepted: counter!("clickback_ingest_hits_total", "outcome" => "accepted", "reason" => ""),
            rejected: Reason::ALL.iter().map(rejected).collect(),
            unrecorded: [Reason::AddressNotAllowed, Reason::BadSignature].into_iter().map(unrecorded).collect(),
            clicks: counter!("clickback_clicks_total"),
            undurable_clicks: counter!("clickback_clicks_undurable_total"),
            unparsed: counter!("clickback_ingest_unparsed_total"),
            connections: gauge!("clickback_ingest_connections"),
        }
    }

    pub(crate) fn answered(&self, route: Route, status: StatusCode, after: Duration) {
        let Some(meters) = self.routes.get(route as usize) else { return };
        if let Some(counter) = STATUSES.iter().position(|known| *known == status).and_then(|i| meters.by_status.get(i))
        {
            counter.increment(1);
        }
        meters.latency.record(after.as_secs_f64());
    }

    pub(crate) fn hit(&self, reject: Option<Reason>) {
        match reject {
            None => self.accepted.increment(1),
            Some(reason) => {
                if let Some(counter) = self.rejected.get(reason as usize) {
                    counter.increment(1);
                }
            }
        }
    }

    pub(crate) fn unrecorded(&self, reason: Reason, hits: usize) {
        for (_, counter) in self.unrecorded.iter().filter(|(known, _)| *known == reason) {
            counter.increment(hits as u64);
        }
    }
}

fn describe() {
    describe_counter!("clickback_ingest_requests_total", "Requests on the public listener, by route and status");
    describe_histogram!("clickback_ingest_answer_seconds", "From the head of a request to its answer");
    describe_counter!("clickback_ingest_hits_total", "Recorded hits, as they were understood");
    describe_counter!("clickback_ingest_refusals_unrecorded_total", "401 and 403 beyond those that are recorded");
    describe_counter!("clickback_clicks_total", "Clicks that are durable");
    describe_counter!("clickback_clicks_undurable_total", "Visitors sent on without a click id");
    describe_counter!("clickback_ingest_unparsed_total", "Requests that are no HTTP: refused, the connection closed");
    describe_gauge!("clickback_ingest_connections", "Open connections on the public listener");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_stand_where_they_are_looked_for() {
        assert!(ROUTES.iter().enumerate().all(|(i, (route, _))| *route as usize == i));
        assert!(Reason::ALL.iter().enumerate().all(|(i, reason)| *reason as usize == i));
    }
}
