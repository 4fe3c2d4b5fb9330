//! May this postback count: the account's signature, its rate limit, and how many refusals are recorded.
//!
//! Refuses to decide anything from a secret that is missing: a signature that cannot be checked is wrong.
//! Invariant: every map here is bounded, and comparing a signature takes the same time wherever it differs.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, alphabet, engine::general_purpose};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};
use hmac::{Mac, SimpleHmac};
use hyper::HeaderMap;
use schemas::{
    Time,
    bounds::REFUSALS_PER_MINUTE,
    catalog::{Hmac, HmacAlgorithm, HmacEncoding, HmacOver, HmacPlace},
    time::MINUTE_MS,
};

/// Accounts with a limiter or a refusal count in memory at once; one more empties the map.
const ACCOUNTS: usize = 10_000;

const FORGIVING: general_purpose::GeneralPurposeConfig = general_purpose::GeneralPurposeConfig::new()
    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: general_purpose::GeneralPurpose = general_purpose::GeneralPurpose::new(&alphabet::STANDARD, FORGIVING);
const URL_SAFE: general_purpose::GeneralPurpose = general_purpose::GeneralPurpose::new(&alphabet::URL_SAFE, FORGIVING);

/// Whether the request carries the signature that the account asks for.
pub(crate) fn signature_is_right(rule: &Hmac, secret: &[u8], headers: &HeaderMap, query: &[u8], body: &[u8]) -> bool {
    let given = match rule.place {
        HmacPlace::Header => headers.get(rule.name.as_str()).map(|value| value.as_bytes().to_vec()),
        HmacPlace::Query => signature_parameter(query, &rule.name),
    };
    let Some(given) = given.and_then(|text| decode(rule, text.trim_ascii())) else { return false };
    let unsigned;
    let message = match (rule.over, rule.place) {
        (HmacOver::Body, _) => body,
        (HmacOver::Query, HmacPlace::Header) => query,
        (HmacOver::Query, HmacPlace::Query) => {
            unsigned = without_parameter(query, &rule.name);
            &unsigned[..]
        }
    };
    match rule.algorithm {
        HmacAlgorithm::Sha256 => verify::<SimpleHmac<sha2::Sha256>>(secret, message, &given),
        HmacAlgorithm::Sha1 => verify::<SimpleHmac<sha1::Sha1>>(secret, message, &given),
        HmacAlgorithm::Md5 => verify::<SimpleHmac<md5::Md5>>(secret, message, &given),
    }
}

fn verify<M: Mac + hmac::digest::KeyInit>(secret: &[u8], message: &[u8], given: &[u8]) -> bool {
    <M as Mac>::new_from_slice(secret).is_ok_and(|mac| mac.chain_update(message).verify_slice(given).is_ok())
}

/// Hex in any case or base64 of either alphabet; `sha256=` in front is the habit of some senders.
fn decode(rule: &Hmac, text: &[u8]) -> Option<Vec<u8>> {
    let prefix: &[u8] = match rule.algorithm {
        HmacAlgorithm::Sha256 => b"sha256=",
        HmacAlgorithm::Sha1 => b"sha1=",
        HmacAlgorithm::Md5 => b"md5=",
    };
    let text = text.strip_prefix(prefix).unwrap_or(text);
    match rule.encoding {
        HmacEncoding::Hex => hex::decode(text).ok(),
        HmacEncoding::Base64 => STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok(),
    }
}

fn pairs(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|byte| *byte == b'&')
}

fn name_and_value(pair: &[u8]) -> (&[u8], Option<&[u8]>) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], Some(&pair[at + 1..])),
        None => (pair, None),
    }
}

fn is_named(pair: &[u8], name: &str) -> bool {
    let lower = |byte: u8| byte.to_ascii_lowercase();
    percent_encoding::percent_decode(name_and_value(pair).0).map(lower).eq(name.bytes().map(lower))
}

/// A `+` stays a plus: it is a digit of base64, and no signature has a space in it.
fn signature_parameter(query: &[u8], name: &str) -> Option<Vec<u8>> {
    let value = name_and_value(pairs(query).find(|pair| is_named(pair, name))?).1?;
    Some(percent_encoding::percent_decode(value).collect())
}

/// The query as it was received, less the signature.
fn without_parameter(query: &[u8], name: &str) -> Vec<u8> {
    let kept: Vec<&[u8]> = pairs(query).filter(|pair| !is_named(pair, name)).collect();
    kept.join(&b'&')
}

struct Rate {
    per_second: u32,
    limiter: DefaultDirectRateLimiter,
}

struct Refusals {
    minute: i64,
    count: u32,
}

/// Counts of this process, by `tenant/account`.
#[derive(Default)]
pub(crate) struct Limits {
    rates: RwLock<HashMap<String, Arc<Rate>>>,
    refusals: Mutex<HashMap<String, Refusals>>,
}

impl Limits {
    /// `Err` says how long to wait.
    pub(crate) fn take(&self, account: &str, per_second: u32) -> Result<(), Duration> {
        let rate = self.rate(account, per_second);
        rate.limiter
            .check()
            .map_err(|not_until| not_until.wait_time_from(governor::clock::DefaultClock::default().now()))
    }

    fn rate(&self, account: &str, per_second: u32) -> Arc<Rate> {
        let known = self.rates.read().unwrap_or_else(PoisonError::into_inner).get(account).cloned();
        if let Some(rate) = known.filter(|rate| rate.per_second == per_second) {
            return rate;
        }
        let quota = Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN));
        let rate = Arc::new(Rate { per_second, limiter: RateLimiter::direct(quota) });
        let mut rates = self.rates.write().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= ACCOUNTS {
            rates.clear();
        }
        rates.insert(account.to_owned(), rate.clone());
        rate
    }

    /// Whether so many more `401` or `403` of this account are recorded in this minute.
    pub(crate) fn record_refusals(&self, account: &str, now: Time, hits: usize) -> bool {
        let minute = now.ms() / MINUTE_MS;
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= ACCOUNTS && !refusals.contains_key(account) {
            refusals.retain(|_, refused| refused.minute == minute);
            if refusals.len() >= ACCOUNTS {
                return false;
            }
        }
        let refused = refusals.entry(account.to_owned()).or_insert(Refusals { minute, count: 0 });
        if refused.minute != minute {
            *refused = Refusals { minute, count: 0 };
        }
        let count = refused.count.saturating_add(u32::try_from(hits).unwrap_or(u32::MAX));
        if count > REFUSALS_PER_MINUTE {
            return false;
        }
        refused.count = count;
        true
    }
}

#[cfg(test)]
mod tests;
