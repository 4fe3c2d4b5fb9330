//! API keys as records of the catalog.
//!
//! Owns: what is recorded of a key. Refuses: to keep the key itself; it is shown once.

use pipeline::View;
use projector::api::auth;
pub use projector::api::auth::DEFAULT_TENANT;
use schemas::{
    catalog::{ApiKey, Body, Record, Scope},
    id::short_name,
};

/// What a key is besides its text.
#[derive(Clone, Debug)]
pub struct Grant {
    pub tenant: String,
    /// Fixed for a key that the next start replaces; else drawn.
    pub id: String,
    pub name: String,
    pub scope: Scope,
}

impl Grant {
    pub fn new(tenant: &str, name: &str, scope: Scope) -> Grant {
        let id = short_name("", &pipeline::secrets::random::<12>());
        Grant { tenant: tenant.to_owned(), id, name: name.to_owned(), scope }
    }

    pub fn fixed(tenant: &str, id: &str, name: &str, scope: Scope) -> Grant {
        Grant { tenant: tenant.to_owned(), id: id.to_owned(), name: name.to_owned(), scope }
    }

    pub fn draw(&self) -> String {
        auth::new_key(&self.id)
    }

    /// The record that puts this key in force, in place of an earlier one of the same id.
    pub fn record(&self, view: &View, key: &str) -> Record {
        let now = pipeline::clock::now();
        let body = Body::Key(ApiKey {
            id: self.id.clone(),
            name: self.name.clone(),
            scope: self.scope,
            hash: auth::hash(key),
            revoked: false,
            created: now,
        });
        Record {
            v: 1,
            id: short_name("", &pipeline::secrets::random::<16>()),
            tenant: self.tenant.clone(),
            time: now,
            base: view.version(&self.tenant, &body.thing()),
            body,
        }
    }
}
