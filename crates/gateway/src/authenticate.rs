//! Who is calling, and whether this key may call at all.

use crate::failure::{Case, Failure};
use domain::Timestamp;
use http::{HeaderMap, Uri, header};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::accounts::AccountStatus;
use store::keys::{Caller, Callers, Key, KeyStatus};
use store::secrets::{SecretKind, Secrets};

/// Longest credential that is looked at, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 256;

/// Finds callers by what they present.
pub struct Authenticator {
    secrets: Secrets,
    callers: Callers,
}

impl Authenticator {
    /// An authenticator over the keys of a store.
    pub fn new(secrets: Secrets, callers: Callers) -> Self {
        Self { secrets, callers }
    }

    /// Makes and recognises secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Keys or accounts changed.
    pub fn forget_callers(&self) {
        self.callers.forget();
    }

    /// Whoever presents a key, whatever state it is in: an exhausted or blocked key can still be told why.
    pub async fn identify(&self, headers: &HeaderMap, uri: &Uri, now: Timestamp) -> Result<Arc<Caller>, Failure> {
        let presented = presented(headers, uri)?;
        let digest = self.secrets.digest(SecretKind::Key, &presented).ok_or_else(|| not_a_key(&presented))?;
        let found = self.callers.find(&digest).await.map_err(|error| {
            Failure::new(Case::StoreUnavailable, "Keys cannot be looked up now. Try again in a moment.")
                .retry_after(Duration::from_secs(1))
                .detail(error.to_string())
        })?;
        match found {
            Some(caller) if caller.secret_valid_until.is_none_or(|until| now < until) => Ok(caller),
            _ => Err(unknown()),
        }
    }
}

/// Whether the key may be used now, from there.
pub fn permit(caller: &Caller, peer: IpAddr, now: Timestamp) -> Result<(), Failure> {
    let Caller { key, account, .. } = caller;
    if account.status == AccountStatus::Suspended {
        let message = format!("The account \"{}\" is suspended. Ask its operator.", account.name);
        return Err(Failure::new(Case::AccountSuspended, message));
    }
    if key.status != KeyStatus::Active {
        let message = format!("The key \"{}\" is blocked. Use another key, or ask its owner.", key.name);
        return Err(Failure::new(Case::KeyDisabled, message));
    }
    if key.expires_at.is_some_and(|at| at <= now) {
        let message = format!("The key \"{}\" has expired. Use another key, or ask its owner.", key.name);
        return Err(Failure::new(Case::KeyExpired, message));
    }
    if let Some(allowed) = &key.addresses
        && !allowed.iter().any(|block| contains(block, peer))
    {
        let message = format!("The key \"{}\" may not be used from {peer}.", key.name);
        return Err(Failure::new(Case::AddressNotAllowed, message));
    }
    Ok(())
}

/// Whether the key may ask for that model. A trailing `*` in its list stands for any ending.
pub fn allows_model(key: &Key, model: &str) -> bool {
    key.models.as_ref().is_none_or(|models| {
        models.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => allowed == model,
        })
    })
}

/// The one credential of a request. Two different ones are refused: picking one silently would let a proxy and the
/// gateway disagree on who calls (C-12).
fn presented(headers: &HeaderMap, uri: &Uri) -> Result<String, Failure> {
    let mut found: Option<&str> = None;
    let texts = ["x-api-key", "x-goog-api-key"].into_iter().flat_map(|name| headers.get_all(name)).map(|v| v.to_str());
    let bearers = headers.get_all(header::AUTHORIZATION).iter().map(|value| value.to_str().map(strip_bearer));
    let query = uri.query().into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.strip_prefix("key="));
    for credential in bearers.chain(texts).chain(query.map(Ok)) {
        // Bytes outside ASCII are in no key.
        let credential = credential.map_err(|_| unknown())?.trim();
        if credential.is_empty() {
            continue;
        }
        if credential.len() > CREDENTIAL_BYTES_MAX {
            return Err(unknown());
        }
        if found.is_some_and(|other| other != credential) {
            let message = "Two different keys were presented. Send one, in one place.";
            return Err(Failure::new(Case::InvalidKey, message));
        }
        found = Some(credential);
    }
    found.map(str::to_owned).ok_or_else(|| {
        let message = "No key was presented. Send one as \"Authorization: Bearer sk-…\".";
        Failure::new(Case::MissingKey, message)
    })
}

fn strip_bearer(value: &str) -> &str {
    match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest,
        _ => value,
    }
}

/// What is no key of a caller. Both kinds are printed side by side at the first start, and are easily confused.
fn not_a_key(presented: &str) -> Failure {
    if !presented.starts_with(SecretKind::Operator.prefix()) {
        return unknown();
    }
    let message =
        "This has the form of an operator's key. Requests to models need a caller's, which begins with \"sk-tg\".";
    Failure::new(Case::InvalidKey, message)
}

fn unknown() -> Failure {
    Failure::new(Case::InvalidKey, "The key is not known here. Check that it is complete and still in use.")
}

/// Whether an address is in a block such as `10.0.0.0/8`, or is that address. A block that cannot be read contains
/// nothing. IPv4 addresses that come mapped into IPv6 count as what they are.
pub fn contains(block: &str, address: IpAddr) -> bool {
    let (network, prefix) = match block.split_once('/') {
        Some((network, prefix)) => (network, prefix.parse::<u32>().ok()),
        None => (block, Some(128)),
    };
    let (Ok(network), Some(prefix)) = (network.parse::<IpAddr>(), prefix) else { return false };
    match (network.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_matched_by_block() {
        let check = |block: &str, address: &str, expected: bool| {
            assert_eq!(contains(block, address.parse().unwrap()), expected, "{block} {address}");
        };
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("nonsense", "10.0.0.1", false);
        check("10.0.0.0/x", "10.0.0.1", false);
    }

    #[test]
    fn c_12_one_key_in_one_request() {
        let check = |headers: &[(&'static str, &str)], uri: &str, expected: Result<&str, Case>| {
            let map = headers.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
            });
            let found = presented(&map.collect(), &uri.parse().unwrap()).map_err(|failure| failure.case);
            assert_eq!(found, expected.map(str::to_owned), "{headers:?} {uri}");
        };
        check(&[("authorization", "Bearer sk-1")], "/", Ok("sk-1"));
        check(&[("authorization", "bearer sk-1")], "/", Ok("sk-1"));
        check(&[("authorization", "sk-1")], "/", Ok("sk-1"));
        check(&[("x-api-key", "sk-1")], "/", Ok("sk-1"));
        check(&[("x-goog-api-key", "sk-1")], "/", Ok("sk-1"));
        check(&[], "/v1/models?key=sk-1", Ok("sk-1"));
        check(&[("authorization", "Bearer sk-1"), ("x-api-key", "sk-1")], "/", Ok("sk-1"));
        check(&[("authorization", "Bearer sk-1"), ("x-api-key", "sk-2")], "/", Err(Case::InvalidKey));
        check(&[("authorization", "Bearer sk-1")], "/?key=sk-2", Err(Case::InvalidKey));
        check(&[("authorization", "Bearer ")], "/", Err(Case::MissingKey));
        check(&[], "/", Err(Case::MissingKey));
    }
}
