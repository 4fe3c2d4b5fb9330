//! An event as JSON that lacks its number: whoever makes an event writes it, and whoever counts events adds `from` and `n`.
//!
//! Refuses to look into what was written. Invariant: with its number it is, byte for byte, what serde makes of the `Event`.

use std::io::Write;

use serde::Serialize;

use crate::{EventBody, EventId, Time, event};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnumbered {
    text: Vec<u8>,
    /// Where the number belongs.
    at: usize,
    kind: &'static str,
}

#[derive(Serialize)]
struct Head<'e> {
    v: u32,
    id: EventId,
    tenant: &'e str,
    time: Time,
}

/// Room for a usual hit.
const ROOM: usize = 1_536;
const NUMBER: usize = 64;

impl Unnumbered {
    pub fn new(id: EventId, tenant: &str, time: Time, body: &EventBody) -> serde_json::Result<Self> {
        let mut text = Vec::with_capacity(ROOM);
        serde_json::to_writer(&mut text, &Head { v: event::VERSION, id, tenant, time })?;
        text.pop();
        let at = text.len();
        text.extend_from_slice(b",\"body\":");
        serde_json::to_writer(&mut text, body)?;
        text.push(b'}');
        Ok(Self { text, at, kind: body.kind() })
    }

    /// The `type` header.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    pub fn number(&self, from: EventId, n: u64) -> Vec<u8> {
        let (head, body) = self.text.split_at(self.at);
        let mut whole = Vec::with_capacity(self.text.len() + NUMBER);
        whole.extend_from_slice(head);
        whole.extend_from_slice(b",\"from\":\"");
        whole.extend_from_slice(&from.chars());
        whole.extend_from_slice(b"\",\"n\":");
        // A `Vec` takes everything.
        write!(whole, "{n}").unwrap_or_default();
        whole.extend_from_slice(body);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, interpret, settings::AccountSettings};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn with_its_number_it_is_the_event(
            ms in 0i64..4_000_000_000_000, shard: u16, random: u64, n: u64, tenant in ".{0,12}", query in ".{0,40}", body in 0..3
        ) {
            let time = Time::from_ms(ms);
            let raw = event::Raw { method: "GET".into(), query, ..event::Raw::default() };
            let reading = interpret::interpret(&interpret::stored(&raw), &AccountSettings::generic("t", "a"), time);
            let body = match body {
                0 => EventBody::Tick,
                1 => EventBody::Rules(7),
                _ => EventBody::Hit(event::Hit {
                    account: tenant.clone(),
                    program: "generic".into(),
                    raw,
                    reading: reading.into_iter().next().unwrap(),
                    settings: event::HitSettings {
                        lookback_days: 90,
                        lifetime_days: 1_825,
                        waiting_days: 7,
                        default_goal: "sales".into(),
                        default_dedup: crate::goal::Dedup::Once,
                        default_repeat_window_s: 600,
                    },
                }),
            };
            let (id, from) = (EventId::new(time, shard, random), EventId::new(time, 0, random ^ 1));
            let event = Event { v: event::VERSION, id, tenant, time, from, n, body };
            let written = Unnumbered::new(event.id, &event.tenant, event.time, &event.body).unwrap();
            prop_assert_eq!(written.number(from, n), serde_json::to_vec(&event).unwrap());
            prop_assert_eq!(written.kind(), event.body.kind());
        }
    }
}
