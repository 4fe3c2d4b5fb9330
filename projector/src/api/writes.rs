//! Writes to the catalog: read, change, append on that version; when another writer was first, read again.
//! Owns: ids of new things. Invariant: an answer follows only after the record is the current version.

use pipeline::{Applied, View, clock, secrets};
use schemas::{
    EventId,
    catalog::{Body, Record},
    id,
};
use sha2::{Digest, Sha256};

use super::{ApiState, idempotency::Idempotent, problem::Problem};

/// Attempts before a caller is told that others write the same thing all the time.
const ATTEMPTS: usize = 10;

/// What a change wants to write, if anything.
pub enum Change {
    Write(Body),
    /// Nothing would differ.
    Nothing,
}

/// Appends what `make` makes of the current view; `make` runs again when its view was out of date.
pub async fn change(
    api: &ApiState,
    tenant: &str,
    mut make: impl FnMut(&View) -> Result<Change, Problem> + Send,
) -> Result<(), Problem> {
    for _ in 0..ATTEMPTS {
        let record = {
            let view = api.catalog.view();
            let Change::Write(body) = make(&view)? else { return Ok(()) };
            record(tenant, view.version(tenant, &body.thing()), body)
        };
        match api.appender.append_catalog(record).await? {
            Applied::Current => return Ok(()),
            Applied::Stale => {}
        }
    }
    Err(Problem::conflict("conflict", "Others change the same thing all the time: read it again and try again."))
}

fn record(tenant: &str, base: u64, body: Body) -> Record {
    let time = clock::now();
    Record { v: 1, id: event_id().to_string(), tenant: tenant.to_owned(), time, base, body }
}

/// A new event id of now.
pub fn event_id() -> EventId {
    EventId::new(clock::now(), 0, secrets::random_bits())
}

/// The id of a new thing. With an `Idempotency-Key` it follows from that key: a call that is repeated after a crash
/// between the thing and its kept answer finds what it made and makes no second one.
pub fn new_id(prefix: &str, idempotent: Option<&Idempotent>) -> String {
    match idempotent {
        None => id::short_name(prefix, &secrets::random::<12>()),
        Some(key) => {
            let digest = Sha256::new().chain_update(prefix).chain_update([0]).chain_update(&key.0).finalize();
            id::short_name(prefix, &digest[..12])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_repeat_only_with_an_idempotency_key() {
        let key = Idempotent("abc".to_owned());
        assert_ne!(new_id("acc_", None), new_id("acc_", None));
        assert_eq!(new_id("acc_", Some(&key)), new_id("acc_", Some(&key)));
        assert_ne!(new_id("acc_", Some(&key)), new_id("acc_", Some(&Idempotent("abd".to_owned()))));
        assert_ne!(new_id("acc_", Some(&key))[4..], new_id("lnk_", Some(&key))[4..]);
    }
}
