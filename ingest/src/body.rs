//! Reading a body: no more of it than the bound, no longer than its time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use schemas::bounds::BODY_BYTES;
use tokio::time::timeout;

use crate::answer::{self, Refusal};

pub(crate) async fn read(body: &mut Incoming, within: Duration) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(answer::LARGE_BODY);
    }
    timeout(within, read_all(body)).await.unwrap_or(Err(answer::SLOW_BODY))
}

async fn read_all(body: &mut Incoming) -> Result<Bytes, Refusal> {
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| answer::INCOMPLETE)?.into_data() else { continue };
        if whole.len() + parts.len() + data.len() > BODY_BYTES {
            return Err(answer::LARGE_BODY);
        }
        // Nearly every body comes in one piece, and that one needs no copy.
        if whole.is_empty() && parts.is_empty() {
            whole = data;
        } else {
            parts.extend_from_slice(&std::mem::take(&mut whole));
            parts.extend_from_slice(&data);
        }
    }
    Ok(if parts.is_empty() { whole } else { parts.freeze() })
}

/// Takes an unwanted body off the wire, up to a bound.
pub(crate) async fn drain(body: &mut Incoming, bytes: usize, within: Duration) {
    let draining = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > bytes {
                return;
            }
        }
    };
    if timeout(within, draining).await.is_err() {
        tracing::debug!("an unwanted body came slowly");
    }
}
