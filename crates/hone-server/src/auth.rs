//! Who may call: keys with scopes, of which digests alone are kept, and a limit of requests per key.
//!
//! A key is 32 random bytes, so one round of SHA-256 protects it: there is nothing to guess. While no key was ever
//! made the service is open, and then refuses what a web page of another origin sends through a visitor's browser.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use hone_store::{Key, Store};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fresh::Fresh;
use crate::session::Sessions;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask for answers.
    Infer,
    /// Say something about answers.
    Feedback,
    /// Read what was stored.
    Read,
    /// Everything, keys and variants included.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 4] = [Scope::Infer, Scope::Feedback, Scope::Read, Scope::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Infer => "infer",
            Scope::Feedback => "feedback",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }

    /// The scope of this name.
    pub fn named(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A key that was just made: the only time that it is seen.
#[derive(Debug, Clone, Serialize)]
pub struct NewKey {
    /// The key itself.
    pub secret: String,
    /// What is stored of it.
    pub stored: Key,
}

/// Makes a key.
pub fn new_key(name: &str, scopes: &[Scope], per_minute: Option<u32>) -> NewKey {
    let mut random = [0u8; 40];
    rand::rng().fill_bytes(&mut random);
    let id = format!("key-{}", hex(&random[32..]));
    let secret = format!("hone-{}", hex(&random[..32]));
    let stored = Key {
        id,
        name: name.to_owned(),
        hash: digest(&secret),
        scopes: scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        per_minute: per_minute.map(i64::from),
        created: jiff::Timestamp::now().as_millisecond(),
        revoked: None,
    };
    NewKey { secret, stored }
}

/// What is kept of a key.
pub fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys there are, and what each has left.
pub(crate) struct Keys {
    store: Arc<dyn Store>,
    known: Fresh<Known>,
    /// Requests per minute where a key sets no limit.
    usual: Option<u32>,
    /// Whether only this machine can reach the service.
    local: bool,
    buckets: Mutex<HashMap<String, Bucket>>,
}

struct Known {
    by_digest: HashMap<String, Arc<Key>>,
    /// Whether a key was ever made; ended ones count, or ending the last would open the service.
    any: bool,
}

/// Requests that may come now, refilled evenly.
struct Bucket {
    left: f64,
    at: Instant,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The key; None while the service is open.
    pub key: Option<Arc<Key>>,
}

impl Keys {
    pub fn new(store: Arc<dyn Store>, usual: Option<u32>, local: bool) -> Self {
        Keys { store, known: Fresh::default(), usual, local, buckets: Mutex::default() }
    }

    async fn read(&self) -> Result<Known> {
        let keys = self.store.keys().await?;
        let any = !keys.is_empty();
        let live = keys.into_iter().filter(|key| key.revoked.is_none());
        Ok(Known { by_digest: live.map(|key| (key.hash.clone(), Arc::new(key))).collect(), any })
    }

    /// Reads the keys again at once.
    pub async fn reread(&self) -> Result<()> {
        self.known.put(self.read().await?);
        Ok(())
    }

    /// Whether there are keys, so that callers need one.
    pub async fn needed(&self) -> Result<bool> {
        Ok(self.known.get(|| self.read()).await?.any)
    }

    /// Who sends a request: by a key, or by a session behind which a key stands.
    ///
    /// # Errors
    /// A key that is needed and missing, unknown or ended; a request that another site sent through a browser.
    pub async fn caller(&self, sessions: &Sessions, method: &Method, headers: &HeaderMap) -> Result<Caller> {
        if !self.needed().await? {
            refuse_other_origins(headers, self.local)?;
            return Ok(Caller { key: None });
        }
        match bearer(headers) {
            Some(secret) => self.caller_of(&digest(secret)).await,
            None => match sessions.key(method, headers)? {
                Some(digest) => self.caller_of(&digest).await,
                None => Err(refused("needed Authorization: Bearer KEY, got none")),
            },
        }
    }

    /// Who has the key of this digest. Nobody in particular while there are no keys.
    pub async fn caller_of(&self, digest: &str) -> Result<Caller> {
        let known = self.known.get(|| self.read()).await?;
        if !known.any {
            return Ok(Caller { key: None });
        }
        // Looked up by digest: how long that takes says nothing of the key.
        let key = known.by_digest.get(digest).cloned();
        let key = key.ok_or_else(|| refused("needed a key of this service, got an unknown or ended one"))?;
        Ok(Caller { key: Some(key) })
    }

    /// Takes one request from the caller's bucket.
    fn meter(&self, caller: &Caller) -> Result<()> {
        let own = caller.key.as_ref().and_then(|key| key.per_minute).map(|limit| limit.max(0) as f64);
        let Some(limit) = own.or(self.usual.map(f64::from)) else { return Ok(()) };
        let name = caller.key.as_ref().map_or("", |key| key.id.as_str());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let bucket = buckets.entry(name.to_owned()).or_insert(Bucket { left: limit, at: now });
        bucket.left = (bucket.left + now.duration_since(bucket.at).as_secs_f64() * limit / 60.0).min(limit);
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let wait = if limit > 0.0 { ((1.0 - bucket.left) * 60.0 / limit).ceil() } else { 60.0 };
        let message = format!("needed at most {limit} requests per minute, got more");
        Err(ApiError {
            retry_after: Some(wait.max(1.0) as u64),
            ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
        })
    }
}

impl Caller {
    /// Whether the caller may do what needs `scope`.
    pub fn may(&self, scope: Scope) -> bool {
        match &self.key {
            None => true,
            Some(key) => key.scopes.iter().any(|name| name == scope.name() || name == Scope::Admin.name()),
        }
    }
}

fn refused(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty())
}

/// A browser says where a request comes from; a page of another site must not use an open service through it. On an
/// address of this machine (`local`), the host it asks for must be this machine too, or a name that was made to point
/// here would count as the service's own.
pub(crate) fn refuse_other_origins(headers: &HeaderMap, local: bool) -> Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host");
    let foreign = match text("origin") {
        None => headers.contains_key("origin"),
        Some(origin) => origin.split_once("://").is_none_or(|(_, from)| Some(from) != host),
    };
    let elsewhere = local && host.is_some_and(|host| !is_this_machine(host));
    if foreign || elsewhere || text("sec-fetch-site") == Some("cross-site") {
        let message =
            "needed a request of the service's own pages or of a program, got one from another site";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "cross_site", message));
    }
    Ok(())
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A scope as a type, for [`Allowed`].
pub(crate) trait Needs: Send + Sync + 'static {
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($name:ident),*) => {$(
        #[doc = concat!("Needs the scope of this name.")]
        pub(crate) struct $name;
        impl Needs for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )*};
}
needs!(Infer, Feedback, Read, Admin);

/// A caller whose key has the scope, within its limit of requests. Handlers that take one are closed to all others.
pub(crate) struct Allowed<N>(pub Caller, PhantomData<N>);

impl<N: Needs> FromRequestParts<App> for Allowed<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let caller = app.keys.caller(&app.sessions, &parts.method, &parts.headers).await?;
        app.keys.meter(&caller)?;
        if !caller.may(N::SCOPE) {
            let message = format!("needed a key with the scope {}, got one without", N::SCOPE.name());
            return Err(ApiError::new(StatusCode::FORBIDDEN, "missing_scope", message));
        }
        Ok(Allowed(caller, PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_kept_as_digests() {
        let made = new_key("app", &[Scope::Infer], Some(5));
        assert_eq!(made.secret.len(), 5 + 64);
        assert_eq!(made.stored.hash, digest(&made.secret));
        assert!(!format!("{:?}", made.stored).contains(&made.secret));
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn what_other_sites_send_is_refused() {
        let headers = |lines: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                let name = axum::http::HeaderName::try_from(*name).expect("name");
                headers.insert(name, value.parse().expect("value"));
            }
            headers
        };
        for (lines, fine) in [
            (&[][..], true),
            (&[("host", "localhost:8080")], true),
            (&[("host", "[::1]:8080")], true),
            (&[("host", "evil.example:8080")], false),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], true),
            (&[("host", "localhost:8080"), ("origin", "http://evil.example")], false),
            (&[("host", "localhost:8080"), ("origin", "null")], false),
            (&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")], false),
        ] {
            assert_eq!(refuse_other_origins(&headers(lines), true).is_ok(), fine, "{lines:?}");
        }
    }
}
