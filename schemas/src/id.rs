//! Ids: click ids, event ids, tokens and short names.
//!
//! A click id is 26 characters of lower-case Crockford base32 and describes itself: 48 bits of milliseconds,
//! a 16-bit shard, 50 random bits and 16 check bits. Check bits tell our own ids from garbage and from foreign
//! ids without a look-up. There is no `-` or `_` in it, as networks strip GUIDs and cut long values.

use crc::{CRC_16_IBM_SDLC, CRC_32_ISO_HDLC, Crc};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

use crate::Time;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CHECK: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);
/// Turns the check bits of one kind of id into those of the other, so that no id is ever both.
const CLICK: u16 = 0;
const EVENT: u16 = 0x5A5A;
const TOKEN_CHECK: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const fn decode_table() -> [u8; 256] {
    let mut table = [0xFF; 256];
    let mut i = 0;
    while i < 32 {
        table[ALPHABET[i] as usize] = i as u8;
        table[ALPHABET[i].to_ascii_uppercase() as usize] = i as u8;
        i += 1;
    }
    table[b'o' as usize] = 0;
    table[b'O' as usize] = 0;
    table[b'i' as usize] = 1;
    table[b'I' as usize] = 1;
    table[b'l' as usize] = 1;
    table[b'L' as usize] = 1;
    table
}
static DECODE: [u8; 256] = decode_table();

pub const ID_CHARS: usize = 26;
const PAYLOAD_MASK: u128 = (1 << 114) - 1;

fn pack(time: Time, shard: u16, random: u64) -> u128 {
    let ms = (time.ms().max(0) as u128) & ((1 << 48) - 1);
    (ms << 66) | ((shard as u128) << 50) | (random as u128 & ((1 << 50) - 1))
}

fn encode(payload: u128, check: u16) -> [u8; ID_CHARS] {
    let mut out = [0; ID_CHARS];
    let head = payload >> 4;
    for (i, slot) in out.iter_mut().take(22).enumerate() {
        *slot = ALPHABET[((head >> (5 * (21 - i))) & 31) as usize];
    }
    let tail = (((payload & 0xF) as u32) << 16) | check as u32;
    for (i, slot) in out.iter_mut().skip(22).enumerate() {
        *slot = ALPHABET[((tail >> (5 * (3 - i))) & 31) as usize];
    }
    out
}

fn decode(text: &[u8]) -> Option<(u128, u16)> {
    if text.len() != ID_CHARS {
        return None;
    }
    let mut head = 0u128;
    for byte in &text[..22] {
        let digit = DECODE[*byte as usize];
        if digit == 0xFF {
            return None;
        }
        head = (head << 5) | digit as u128;
    }
    let mut tail = 0u32;
    for byte in &text[22..] {
        let digit = DECODE[*byte as usize];
        if digit == 0xFF {
            return None;
        }
        tail = (tail << 5) | digit as u32;
    }
    Some(((head << 4) | (tail >> 16) as u128, tail as u16))
}

/// True for the characters that an id is written with, in any case.
pub(crate) fn is_digit(byte: u8) -> bool {
    ALPHABET.contains(&byte.to_ascii_lowercase())
}

/// The time in the first characters of an id, be it cut or whole.
pub(crate) fn time_of(chars: &[u8]) -> Option<Time> {
    let head = chars.first_chunk::<10>()?;
    let digit = |byte: &u8| Some(DECODE[*byte as usize]).filter(|digit| *digit != 0xFF);
    let bits = head.iter().try_fold(0i64, |bits, byte| Some((bits << 5) | i64::from(digit(byte)?)))?;
    Some(Time::from_ms(bits >> 2))
}

macro_rules! sortable_id {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// `random` gives the low 50 bits; the caller draws it.
            pub fn new(time: Time, shard: u16, random: u64) -> Self {
                Self(pack(time, shard, random))
            }
            pub fn time(self) -> Time {
                Time::from_ms((self.0 >> 66) as i64)
            }
            pub fn shard(self) -> u16 {
                (self.0 >> 50) as u16
            }
            /// The 114 bits without the check bits, for compact storage.
            pub fn bits(self) -> u128 {
                self.0
            }
            pub fn from_bits(bits: u128) -> Self {
                Self(bits & PAYLOAD_MASK)
            }
            pub fn chars(self) -> [u8; ID_CHARS] {
                encode(self.0, CHECK.checksum(&self.0.to_be_bytes()) ^ $kind)
            }
            /// Reads an id in any case; `None` unless the check bits are right.
            pub fn parse(text: &[u8]) -> Option<Self> {
                let (payload, check) = decode(text)?;
                (CHECK.checksum(&payload.to_be_bytes()) ^ $kind == check).then_some(Self(payload))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::parse(text.as_bytes()).ok_or(BadId)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if !s.is_human_readable() {
                    return s.serialize_u128(self.0);
                }
                s.serialize_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if !d.is_human_readable() {
                    return u128::deserialize(d).map(Self::from_bits);
                }
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an id of 26 base32 characters with right check bits")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(Visitor)
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-hjkmnp-tv-z]{26}$" })
            }
        }
    };
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not one of our ids: 26 base32 characters with right check bits are needed")]
pub struct BadId;

sortable_id! {
    /// Names one click. Sorts by time.
    ClickId, CLICK
}
sortable_id! {
    /// Names one event of the log; the id of a hit is the id of its event. Its check bits differ from a click
    /// id's, so a hit id that somebody pastes into a postback is never taken for a click.
    EventId, EVENT
}

/// Names one conversion: 16 bytes of the hash of the key under which it was first made. As text, 26 characters of
/// lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversionId(pub [u8; 16]);

impl ConversionId {
    pub fn chars(self) -> [u8; ID_CHARS] {
        let bits = u128::from_be_bytes(self.0);
        let mut out = [0; ID_CHARS];
        // 130 bits: the last two are always zero.
        for (i, slot) in out.iter_mut().enumerate() {
            let digit = if i < ID_CHARS - 1 { bits >> (123 - 5 * i) } else { bits << 2 };
            *slot = ALPHABET[(digit & 31) as usize];
        }
        out
    }
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (last, first) = text.split_last()?;
        if text.len() != ID_CHARS {
            return None;
        }
        let digit = |byte: &u8| Some(DECODE[*byte as usize]).filter(|digit| *digit != 0xFF);
        let bits = first.iter().try_fold(0u128, |bits, byte| Some((bits << 5) | u128::from(digit(byte)?)))?;
        let last = digit(last).filter(|digit| digit & 3 == 0)?;
        Some(Self(((bits << 3) | u128::from(last >> 2)).to_be_bytes()))
    }
}

impl fmt::Display for ConversionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
    }
}

impl fmt::Debug for ConversionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConversionId {
    type Err = BadConversionId;
    fn from_str(text: &str) -> Result<Self, BadConversionId> {
        Self::parse(text.as_bytes()).ok_or(BadConversionId)
    }
}

/// Text for people and JSON, 16 bytes for compact storage.
impl serde::Serialize for ConversionId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if !s.is_human_readable() {
            return self.0.serialize(s);
        }
        s.serialize_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
    }
}

impl<'de> serde::Deserialize<'de> for ConversionId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return <[u8; 16]>::deserialize(d).map(Self);
        }
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for ConversionId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ConversionId".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a conversion's id: 26 base32 characters are needed")]
pub struct BadConversionId;

/// The shard of a click that has an alias: clicks and hits of one alias meet in one partition.
pub fn alias_shard(tenant: &str, account: &str, folded_alias: &str) -> u16 {
    let mut hash = Sha256::new();
    for part in [tenant, account, folded_alias] {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    u16::from_be_bytes([digest[0], digest[1]])
}

/// `chars` characters of base32 from random bytes; one byte gives one character.
pub fn short_name(prefix: &str, random: &[u8]) -> String {
    let mut out = String::with_capacity(prefix.len() + random.len());
    out.push_str(prefix);
    out.extend(random.iter().map(|b| ALPHABET[(b & 31) as usize] as char));
    out
}

pub const TOKEN_CHARS: usize = 32;

/// A postback token: 28 random characters and 4 check characters.
pub fn new_token(random: &[u8; 28]) -> String {
    let body = short_name("", random);
    let check = token_check(body.as_bytes());
    body + &check
}

/// False for anything that we cannot have issued, so that garbage is refused without a look-up.
pub fn token_is_well_formed(token: &str) -> bool {
    let bytes = token.as_bytes();
    bytes.len() == TOKEN_CHARS
        && bytes.iter().all(|b| ALPHABET.contains(b))
        && token_check(&bytes[..28]).as_bytes() == &bytes[28..]
}

fn token_check(body: &[u8]) -> String {
    let sum = TOKEN_CHECK.checksum(body);
    (0..4).map(|i| ALPHABET[((sum >> (5 * i)) & 31) as usize] as char).collect()
}

/// Lower-case base32 of a digest's first bytes, 5 bits a character.
pub fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut acc, mut bits) = (0u32, 0);
    for byte in bytes {
        acc = (acc << 8) | *byte as u32;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(ALPHABET[((acc >> bits) & 31) as usize] as char);
        }
    }
    if bits > 0 {
        out.push(ALPHABET[((acc << (5 - bits)) & 31) as usize] as char);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn click_id_survives_text_in_any_case(ms in 0i64..253_402_300_800_000, shard: u16, random: u64) {
            let id = ClickId::new(Time::from_ms(ms), shard, random);
            let text = id.to_string();
            prop_assert_eq!(text.len(), ID_CHARS);
            prop_assert!(text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()));
            prop_assert_eq!(ClickId::parse(text.as_bytes()), Some(id));
            prop_assert_eq!(ClickId::parse(text.to_uppercase().as_bytes()), Some(id));
            prop_assert_eq!((id.time().ms(), id.shard()), (ms, shard));
            prop_assert_eq!(EventId::parse(text.as_bytes()), None);
        }

        #[test]
        fn conversion_ids_survive_text_and_keep_its_order(a: [u8; 16], b: [u8; 16]) {
            let text = ConversionId(a).to_string();
            prop_assert_eq!(&text, &base32(&a));
            prop_assert_eq!(ConversionId::parse(text.as_bytes()), Some(ConversionId(a)));
            prop_assert_eq!(ConversionId::parse(&text.as_bytes()[1..]), None);
            prop_assert_eq!(text.cmp(&ConversionId(b).to_string()), a.cmp(&b));
        }

        #[test]
        fn one_changed_character_is_never_ours(ms in 0i64..253_402_300_800_000, random: u64, at in 0usize..26, to in 0usize..32) {
            let id = ClickId::new(Time::from_ms(ms), 7, random);
            let mut chars = id.chars();
            prop_assume!(chars[at] != ALPHABET[to]);
            chars[at] = ALPHABET[to];
            prop_assert_eq!(ClickId::parse(&chars), None);
        }

        #[test]
        fn tokens_carry_their_check(random: [u8; 28], at in 0usize..32) {
            let token = new_token(&random);
            prop_assert!(token_is_well_formed(&token));
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            prop_assert!(!token_is_well_formed(&String::from_utf8_lossy(&other)));
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let early = ClickId::new(Time::from_ms(1_000), 9, u64::MAX);
        let late = ClickId::new(Time::from_ms(1_001), 0, 0);
        assert!(early < late && early.to_string() < late.to_string());
    }
}
