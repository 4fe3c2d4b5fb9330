//! One request: which route it is, whether its head is within bounds, and what is counted.

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, Request,
    body::{Body, Incoming},
    header::EXPECT,
};
use pipeline::{Appender, Catalog, secrets};
use schemas::bounds::{HEADER_BYTES, URI_BYTES};

use crate::{
    IngestConfig,
    answer::{self, Answer, Refusal},
    auth::Limits,
    body,
    meters::{Meters, Route},
    wire::Target,
};

pub(crate) struct Edge {
    pub(crate) config: IngestConfig,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) log: Appender,
    pub(crate) limits: Limits,
    pub(crate) meters: Meters,
}

/// A body that nobody read is taken off the wire up to this, as a sender that is cut off while it still writes
/// does not see the answer.
const DRAINED_BYTES: usize = 1024 * 1024;
const DRAINED_FOR: Duration = Duration::from_secs(2);

impl Edge {
    pub(crate) fn new(config: IngestConfig, catalog: Arc<Catalog>, log: Appender) -> Self {
        Self { config, catalog, log, limits: Limits::default(), meters: Meters::new() }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let begun = Instant::now();
        let (head, mut body) = request.into_parts();
        let target = Target::of(&head.uri);
        let (route, name) = route(&target.path);
        let answer = match within_bounds(&target, &head.headers) {
            Err(refusal) => refusal.into(),
            Ok(()) => match route {
                Route::Click => self.click(&head, &target.query, name).await,
                Route::PostBack => self.post_back(&head, &target.query, &mut body, name, peer).await,
                Route::Other => answer::NOT_FOUND.into(),
            },
        };
        if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
            body::drain(&mut body, DRAINED_BYTES, DRAINED_FOR).await;
        }
        self.meters.answered(route, answer.status(), begun.elapsed());
        answer
    }
}

/// `/c/{link}` or `/post-back/{token}`, and what follows. A token is told from what was glued to it by its reader.
fn route(path: &str) -> (Route, &str) {
    const POST_BACK: &str = "post-back/";
    let path = path.trim_start_matches('/');
    if let Some(link) = path.strip_prefix("c/") {
        let known = !link.is_empty() && !link.contains('/');
        return if known { (Route::Click, link) } else { (Route::Other, "") };
    }
    match path.split_at_checked(POST_BACK.len()) {
        Some((place, token)) if place.eq_ignore_ascii_case(POST_BACK) && !token.is_empty() => (Route::PostBack, token),
        _ => (Route::Other, ""),
    }
}

fn within_bounds(target: &Target, headers: &HeaderMap) -> Result<(), Refusal> {
    if target.len() > URI_BYTES {
        return Err(answer::LONG_URI);
    }
    let headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers > HEADER_BYTES {
        return Err(answer::LARGE_HEADERS);
    }
    Ok(())
}

/// Random bits for ids. The system is asked for a block at a time: asking per id costs more than the id.
pub(crate) fn random_bits() -> u64 {
    const BLOCK: usize = 512;
    thread_local! {
        static POOL: RefCell<(usize, [u8; BLOCK])> = const { RefCell::new((BLOCK, [0; BLOCK])) };
    }
    POOL.with_borrow_mut(|(used, block)| {
        if *used + 8 > BLOCK {
            *block = secrets::random();
            *used = 0;
        }
        let mut bits = [0; 8];
        bits.copy_from_slice(&block[*used..*used + 8]);
        *used += 8;
        u64::from_le_bytes(bits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_routes_lead_somewhere() {
        assert_eq!(route("/c/abc"), (Route::Click, "abc"));
        for path in ["/post-back/abc", "//post-back/abc", "/Post-Back/abc", "post-back/abc"] {
            assert_eq!(route(path), (Route::PostBack, "abc"), "{path}");
        }
        assert_eq!(route("/post-back//abc&dyn=a/b"), (Route::PostBack, "/abc&dyn=a/b"));
        for path in ["/", "*", "", "/c", "/c/", "/c/a/b", "/post-back/", "/post-backs/a", "/C/abc", "/v1/accounts"] {
            assert_eq!(route(path), (Route::Other, ""), "{path}");
        }
    }

    #[test]
    fn random_bits_do_not_repeat() {
        let drawn: std::collections::HashSet<u64> = (0..1_000).map(|_| random_bits()).collect();
        assert_eq!(drawn.len(), 1_000);
    }
}
