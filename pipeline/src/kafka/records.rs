//! Records as they stand on the topics: key, headers and payload.
//!
//! Owns: what the headers are called and what they say. Refuses: a record that is not ours, with the reason.
//! Invariant: the payload is exactly the JSON that embedded mode has in its log, so the chain over the payloads of
//! outcomes is the same in both modes.
//!
//! The key is the shard, as decimal text: all that concerns one click has one key, and partition = key mod N.

use rdkafka::message::{Header, Headers, OwnedHeaders};
use schemas::{
    Event, EventId,
    chain::{Chain, Link},
};

pub const TYPE: &str = "type";
pub const TRACEPARENT: &str = "traceparent";
pub const FROM: &str = "from";
pub const N: &str = "n";
pub const SRC: &str = "src";
pub const PREV: &str = "prev";
pub const CHAIN: &str = "chain";
/// The `type` of the record that `init` writes first into every partition. It is no event and has no outcome.
pub const IDENTITY: &str = "identity";

/// The partition of a shard.
pub fn partition(shard: u16, partitions: u16) -> u16 {
    shard % partitions.max(1)
}

/// A record before it is sent.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub key: String,
    pub headers: OwnedHeaders,
    pub payload: Vec<u8>,
}

/// Which event it is: `n` counts the events of the run `from` in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    pub from: EventId,
    pub n: u64,
}

#[derive(thiserror::Error, Debug, PartialEq, Eq)]
pub enum BadRecord {
    #[error("it has no header `{0}`")]
    Missing(&'static str),
    #[error("its header `{0}` cannot be read")]
    Unreadable(&'static str),
    #[error("it has no payload")]
    Empty,
    #[error("its payload cannot be read: {0}")]
    Payload(String),
}

pub fn encode_event(event: &Event, shard: u16, traceparent: Option<&str>) -> serde_json::Result<Encoded> {
    let number = Number { from: event.from, n: event.n };
    Ok(Encoded {
        key: shard.to_string(),
        headers: event_headers(event.body.kind(), number, traceparent),
        payload: serde_json::to_vec(event)?,
    })
}

pub fn event_headers(kind: &str, number: Number, traceparent: Option<&str>) -> OwnedHeaders {
    traced(numbered(typed(5, kind), number), traceparent)
}

/// `payload` is the outcome as it was chained; `key` is the key of its event.
pub fn outcome_headers(kind: &str, number: Number, link: &Link, traceparent: Option<&str>) -> OwnedHeaders {
    let headers = numbered(typed(7, kind), number)
        .insert(Header { key: SRC, value: Some(link.src.to_string().as_bytes()) })
        .insert(Header { key: PREV, value: Some(link.prev.as_str()) })
        .insert(Header { key: CHAIN, value: Some(link.chain.as_str()) });
    traced(headers, traceparent)
}

/// Headers of a record that is neither event nor outcome.
pub fn typed(room: usize, kind: &str) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(room).insert(Header { key: TYPE, value: Some(kind) })
}

fn numbered(headers: OwnedHeaders, number: Number) -> OwnedHeaders {
    headers
        .insert(Header { key: FROM, value: Some(&number.from.chars()[..]) })
        .insert(Header { key: N, value: Some(number.n.to_string().as_bytes()) })
}

fn traced(headers: OwnedHeaders, traceparent: Option<&str>) -> OwnedHeaders {
    match traceparent {
        Some(value) => headers.insert(Header { key: TRACEPARENT, value: Some(value) }),
        None => headers,
    }
}

/// The value of a header; of several with one name the first.
pub fn header<'h>(headers: Option<&'h impl Headers>, name: &str) -> Option<&'h [u8]> {
    headers?.iter().find(|header| header.key == name)?.value
}

fn text<'h>(headers: Option<&'h impl Headers>, name: &'static str) -> Result<&'h str, BadRecord> {
    let value = header(headers, name).ok_or(BadRecord::Missing(name))?;
    std::str::from_utf8(value).map_err(|_| BadRecord::Unreadable(name))
}

fn number(headers: Option<&impl Headers>, name: &'static str) -> Result<u64, BadRecord> {
    text(headers, name)?.parse().map_err(|_| BadRecord::Unreadable(name))
}

pub fn kind(headers: Option<&impl Headers>) -> Result<&str, BadRecord> {
    text(headers, TYPE)
}

pub fn is_identity(headers: Option<&impl Headers>) -> bool {
    header(headers, TYPE) == Some(IDENTITY.as_bytes())
}

pub fn traceparent(headers: Option<&impl Headers>) -> Option<&str> {
    std::str::from_utf8(header(headers, TRACEPARENT)?).ok()
}

pub fn decode_number(headers: Option<&impl Headers>) -> Result<Number, BadRecord> {
    let from = EventId::parse(text(headers, FROM)?.as_bytes()).ok_or(BadRecord::Unreadable(FROM))?;
    Ok(Number { from, n: number(headers, N)? })
}

/// The event's `from` and `n` stand in its payload, too; that is where they are taken from.
pub fn decode_event(payload: Option<&[u8]>) -> Result<Event, BadRecord> {
    serde_json::from_slice(payload.ok_or(BadRecord::Empty)?).map_err(|error| BadRecord::Payload(error.to_string()))
}

/// The place of an outcome in the chain. Whether it is to be taken is for `schemas::chain::judge` to say.
pub fn decode_link(headers: Option<&impl Headers>) -> Result<Link, BadRecord> {
    let chain = |name| Chain::parse(text(headers, name)?).ok_or(BadRecord::Unreadable(name));
    Ok(Link { src: number(headers, SRC)?, prev: chain(PREV)?, chain: chain(CHAIN)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rdkafka::message::OwnedHeaders;
    use schemas::{EventBody, Time, event};

    fn tick(n: u64) -> Event {
        let time = Time::from_ms(1_700_000_000_000);
        let (id, from) = (EventId::new(time, 9, n), EventId::new(time, 0, 77));
        Event { v: event::VERSION, id, tenant: String::new(), time, from, n, body: EventBody::Tick }
    }

    fn names(headers: &OwnedHeaders) -> Vec<&str> {
        headers.iter().map(|header| header.key).collect()
    }

    #[test]
    fn an_event_is_its_json_with_headers_beside_it() {
        let event = tick(3);
        let encoded = encode_event(&event, 517, None).unwrap();
        assert_eq!(
            (encoded.key.as_str(), encoded.payload.as_slice()),
            ("517", &serde_json::to_vec(&event).unwrap()[..])
        );
        assert_eq!(names(&encoded.headers), ["type", "from", "n"]);
        assert_eq!(kind(Some(&encoded.headers)), Ok("tick"));
        assert_eq!(decode_number(Some(&encoded.headers)), Ok(Number { from: event.from, n: 3 }));
        assert_eq!(decode_event(Some(&encoded.payload)), Ok(event));
    }

    #[test]
    fn a_trace_is_carried_where_there_is_one() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let encoded = encode_event(&tick(0), 0, Some(trace)).unwrap();
        assert_eq!(traceparent(Some(&encoded.headers)), Some(trace));
        assert_eq!(traceparent(Some(&encode_event(&tick(0), 0, None).unwrap().headers)), None);
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let none: Option<&OwnedHeaders> = None;
        assert_eq!(kind(none), Err(BadRecord::Missing(TYPE)));
        assert_eq!(decode_link(none), Err(BadRecord::Missing(SRC)));
        assert_eq!(decode_number(Some(&typed(1, "hit"))), Err(BadRecord::Missing(FROM)));
        let bad = typed(2, "hit").insert(Header { key: SRC, value: Some("-1") });
        assert_eq!(decode_link(Some(&bad)), Err(BadRecord::Unreadable(SRC)));
        let bad = typed(2, "hit").insert(Header { key: FROM, value: Some("0000") });
        assert_eq!(decode_number(Some(&bad)), Err(BadRecord::Unreadable(FROM)));
        assert_eq!(decode_event(None), Err(BadRecord::Empty));
        assert!(matches!(decode_event(Some(b"{}")), Err(BadRecord::Payload(_))));
        assert!(is_identity(Some(&typed(1, IDENTITY))) && !is_identity(Some(&typed(1, "hit"))) && !is_identity(none));
    }

    #[test]
    fn a_shard_has_one_partition() {
        assert_eq!((partition(0, 8), partition(517, 8), partition(u16::MAX, 8)), (0, 5, 7));
        assert_eq!(partition(517, 1), 0);
    }

    proptest! {
        #[test]
        fn an_outcome_keeps_its_place(src: u64, n: u64, random: u64, before: Vec<u8>, payload: Vec<u8>) {
            let prev = Chain::FIRST.next(&before);
            let link = Link { src, prev, chain: prev.next(&payload) };
            let number = Number { from: EventId::new(Time::from_ms(5), 1, random), n };
            let headers = outcome_headers("hit", number, &link, None);
            prop_assert_eq!(names(&headers), ["type", "from", "n", "src", "prev", "chain"]);
            prop_assert_eq!(decode_link(Some(&headers)), Ok(link));
            prop_assert_eq!(decode_number(Some(&headers)), Ok(number));
        }

        #[test]
        fn nothing_that_stands_in_a_header_is_a_panic(value: Vec<u8>) {
            let headers = typed(9, "hit")
                .insert(Header { key: SRC, value: Some(&value) })
                .insert(Header { key: PREV, value: Some(&value) })
                .insert(Header { key: FROM, value: Some(&value) })
                .insert(Header { key: N, value: Some(&value) });
            prop_assert!(decode_link(Some(&headers)).is_err());
            prop_assert!(decode_number(Some(&headers)).is_err());
        }
    }
}
