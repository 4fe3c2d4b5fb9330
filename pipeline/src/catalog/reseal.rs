//! The secrets in a record, for those who seal them with another key.

use anyhow::{Context, Result};
use schemas::catalog::{Body, Record};
use sha2::{Digest, Sha256};

use crate::Sealer;

/// The record with its secrets open. Never to be written anywhere: it is to compare with, and to be sealed again.
pub struct Open(Record);

impl Open {
    pub fn of(mut record: Record, sealer: &Sealer) -> Result<Open> {
        for secret in secrets(&mut record) {
            *secret = sealer.unseal(secret)?;
        }
        Ok(Open(record))
    }

    pub fn sealed(&self, sealer: &Sealer) -> Record {
        let mut record = self.0.clone();
        for secret in secrets(&mut record) {
            *secret = sealer.seal(secret);
        }
        record
    }

    /// What tells it from any other, whatever it was sealed with.
    pub fn print(&self) -> Result<[u8; 32]> {
        let bytes = serde_json::to_vec(&self.0).context("a catalog record cannot be written")?;
        Ok(Sha256::digest(bytes).into())
    }
}

fn secrets(record: &mut Record) -> Vec<&mut String> {
    match &mut record.body {
        Body::Account(account) => {
            let older = account.previous_tokens.iter_mut().map(|previous| &mut previous.token);
            let hmac = account.hmac.iter_mut().map(|hmac| &mut hmac.secret);
            std::iter::once(&mut account.token).chain(older).chain(hmac).collect()
        }
        Body::Answer(answer) => vec![&mut answer.sealed],
        Body::Link(_) | Body::Program(_) | Body::Key(_) | Body::Reprocess(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn every_secret_is_sealed_with_the_other_key() {
        let (one, other) = (Sealer::from_text(KEY).unwrap(), Sealer::from_text(&KEY.replace("00", "ff")).unwrap());
        let body = json!({ "account": {
            "id": "a", "name": "a", "program": "generic", "token": one.seal("now"),
            "previous_tokens": [{ "token": one.seal("then"), "valid_until": "2026-01-01T00:00:00.000Z" }],
            "hmac": { "algorithm": "sha256", "in": "query", "name": "h", "over": "query", "encoding": "hex",
                      "secret": one.seal("secret") },
            "lookback_days": 90, "lifetime_days": 90, "waiting_days": 7, "max_count": 100,
            "created": "2026-01-01T00:00:00.000Z",
        }});
        let record = |body| Record {
            v: 1,
            id: "r".into(),
            tenant: "t".into(),
            time: schemas::Time::from_ms(0),
            base: 0,
            body: serde_json::from_value(body).unwrap(),
        };
        let answer = json!({ "answer": { "key": "k", "request": "r", "status": 201, "sealed": one.seal("{}"),
                             "time": "2026-01-01T00:00:00.000Z" } });
        for record in [record(body), record(answer)] {
            let open = Open::of(record.clone(), &one).unwrap();
            let moved = open.sealed(&other);
            assert!(Open::of(moved.clone(), &one).is_err());
            let again = Open::of(moved, &other).unwrap();
            assert_eq!(again.print().unwrap(), open.print().unwrap());
            let text = serde_json::to_string(&again.0).unwrap();
            assert!(!text.contains("s1:"), "something is still sealed: {text}");
        }
    }

    #[test]
    fn what_has_no_secrets_stays_as_it_is() {
        let (one, other) = (Sealer::from_text(KEY).unwrap(), Sealer::from_text(&KEY.replace("00", "ff")).unwrap());
        let link = json!({ "v": 1, "id": "r", "tenant": "t", "time": "2026-01-01T00:00:00.000Z", "base": 0, "body": {
            "link": { "id": "l", "account": "a", "name": "l", "destination": "https://a.example",
                      "created": "2026-01-01T00:00:00.000Z" } } });
        let record: Record = serde_json::from_value(link).unwrap();
        assert_eq!(Open::of(record.clone(), &one).unwrap().sealed(&other), record);
    }
}
