//! Who calls, and what the caller may do.
//!
//! A key is `cbk_<id>_<secret>`; only its SHA-256 is known here. It opens its own tenant and nothing else.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use pipeline::secrets;
use schemas::{catalog::Scope, id};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ApiState, problem::Problem};

/// The tenant of an installation that nobody configured otherwise.
pub const DEFAULT_TENANT: &str = "default";

#[derive(Clone, Debug)]
pub struct Caller {
    pub tenant: String,
    pub scope: Scope,
    /// Id of the key.
    pub key: String,
}

impl Caller {
    /// Tokens and URLs with tokens in them are not for keys that may only read.
    pub fn sees_tokens(&self) -> bool {
        self.scope >= Scope::Write
    }

    fn need(self, scope: Scope) -> Result<Self, Problem> {
        if self.scope >= scope {
            return Ok(self);
        }
        let detail = format!("This call needs a key of scope `{}`; this one is `{}`.", code(scope), code(self.scope));
        Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail))
    }
}

pub fn code(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Write => "write",
        Scope::Admin => "admin",
    }
}

/// The key of the configuration: admin of the default tenant. Kept as a hash, like every key.
#[derive(Clone)]
pub struct AdminKey(String);

impl AdminKey {
    pub fn new(key: &str) -> Self {
        Self(hash(key))
    }
}

/// SHA-256 of a whole key, hex.
pub fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

/// A new key of this id: `cbk_<id>_<secret>`.
pub fn new_key(id: &str) -> String {
    id::short_name(&format!("cbk_{id}_"), &secrets::random::<32>())
}

/// Lets a request with a valid key through and notes whose it is.
pub async fn authenticate(State(api): State<ApiState>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let caller = caller(&api, request.headers().get(header::AUTHORIZATION).map(|v| v.to_str().unwrap_or_default()))?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn caller(api: &ApiState, authorization: Option<&str>) -> Result<Caller, Problem> {
    let Some(authorization) = authorization else {
        return Err(Problem::unauthorized("missing_key", "Send an API key: `Authorization: Bearer cbk_…`."));
    };
    let key = match authorization.split_once(' ') {
        Some((kind, key)) if kind.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => return Err(Problem::unauthorized("invalid_key", "The header has to read `Authorization: Bearer cbk_…`.")),
    };
    let hash = hash(key);
    if let Some(admin) = &api.admin
        && same(&admin.0, &hash)
    {
        return Ok(Caller { tenant: DEFAULT_TENANT.to_owned(), scope: Scope::Admin, key: "configured".to_owned() });
    }
    match api.catalog.view().key_by_hash(&hash) {
        Some((tenant, key)) if same(&key.hash, &hash) && !key.revoked => {
            Ok(Caller { tenant, scope: key.scope, key: key.id })
        }
        _ => Err(Problem::unauthorized("invalid_key", "This API key is unknown or was revoked: use another one.")),
    }
}

/// Takes the same time whatever differs.
fn same(a: &str, b: &str) -> bool {
    bool::from(a.as_bytes().ct_eq(b.as_bytes()))
}

macro_rules! callers {
    ($($(#[$doc:meta])* $name:ident = $scope:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name(pub Caller);

        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = Problem;
            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
                let caller = parts.extensions.get::<Caller>().cloned();
                let caller = caller.ok_or_else(|| Problem::unauthorized("missing_key", "Send an API key."))?;
                caller.need($scope).map(Self)
            }
        }
    )*};
}

callers! {
    /// Any key.
    Reader = Scope::Read;
    /// A key that may change accounts, links, clicks and conversions.
    Writer = Scope::Write;
    /// A key that may change keys, tokens and programs.
    Admin = Scope::Admin;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_themselves_and_are_kept_as_hashes() {
        let key = new_key("k1");
        let parts: Vec<&str> = key.split('_').collect();
        assert_eq!((parts[0], parts[1], parts[2].len()), ("cbk", "k1", 32));
        assert_eq!(hash(&key).len(), 64);
        assert!(same(&hash(&key), &hash(&key)) && !same(&hash(&key), &hash(&new_key("k1"))));
    }
}
