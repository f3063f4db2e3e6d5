//! Events that Stripe delivers: whose they are, and what they say (S-27).

use super::wire;
use aws_lc_rs::hmac;
use domain::Timestamp;
use domain::payment::Provider;
use serde::Deserialize;
use serde_json::value::RawValue;
use store::payments::Event;

/// How far the time of a signature may be from ours, in seconds.
const TOLERANCE_SECONDS: i64 = 300;
/// Signatures that are looked at. Stripe sends as many as there are secrets in use: one, or two while one is rolled.
const SIGNATURES_MAX: usize = 8;
/// Longest signature header.
const HEADER_CHARS_MAX: usize = 2048;
/// Hexadecimal digits of an HMAC-SHA-256.
const DIGEST_CHARS: usize = 64;
/// What every signing secret begins with.
const PREFIX: &str = "whsec_";

/// The largest event that is read. Stripe's are a few KiB.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// The secret that deliveries are signed with.
pub struct Secret(hmac::Key);

/// Why a delivery is refused. Says nothing that helps to forge one.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// No signature, or none that can be read.
    #[error("the delivery carries no readable signature")]
    Unsigned,
    /// Too old, or from the future.
    #[error("the signature's time is more than {TOLERANCE_SECONDS} s from ours: check this machine's clock")]
    Stale,
    /// Not signed with our secret over these bytes.
    #[error("the signature is not of this body and our secret")]
    Forged,
    /// Signed, but not an event.
    #[error("the event cannot be read: {0}")]
    NotAnEvent(#[from] serde_json::Error),
    /// Signed, but its object is not as documented.
    #[error(transparent)]
    Unreadable(#[from] wire::Unreadable),
}

#[derive(Deserialize)]
struct Envelope<'b> {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    livemode: bool,
    /// Somebody else's account, connected to ours.
    #[serde(default)]
    account: Option<String>,
    #[serde(borrow)]
    data: Data<'b>,
}

#[derive(Deserialize)]
struct Data<'b> {
    #[serde(borrow)]
    object: &'b RawValue,
}

impl Secret {
    /// A secret as Stripe shows it, `whsec_…`. `None` for anything else: an empty secret would be everybody's.
    pub fn new(secret: &str) -> Option<Self> {
        let is_secret = secret.strip_prefix(PREFIX).is_some_and(|rest| !rest.trim().is_empty());
        is_secret.then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// Takes a delivery: the value of `Stripe-Signature` (absent, or there twice: `None`) and the body as it came.
    pub fn open(&self, signature: Option<&str>, body: &[u8], now: Timestamp) -> Result<Event, Rejected> {
        self.verify(signature, body, now)?;
        let envelope: Envelope<'_> = serde_json::from_slice(body)?;
        let deed = match envelope.account {
            Some(_) => None,
            None => wire::deed(&envelope.kind, envelope.data.object.get())?,
        };
        Ok(Event {
            provider: Provider::Stripe,
            id: envelope.id,
            kind: envelope.kind,
            livemode: envelope.livemode,
            created: Timestamp(envelope.created.saturating_mul(1000)),
            deed,
        })
    }

    fn verify(&self, signature: Option<&str>, body: &[u8], now: Timestamp) -> Result<(), Rejected> {
        let signature = signature.filter(|header| header.len() <= HEADER_CHARS_MAX).ok_or(Rejected::Unsigned)?;
        let (mut time, mut digests) = (None, Vec::new());
        for item in signature.split(',') {
            match item.trim().split_once('=') {
                Some(("t", _)) if time.is_some() => return Err(Rejected::Unsigned),
                Some(("t", value)) => time = Some(value),
                Some(("v1", digest)) if digests.len() < SIGNATURES_MAX => digests.extend(read_digest(digest)),
                // Other schemes are weaker, or not known yet.
                _ => {}
            }
        }
        let time = time.filter(|time| !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit()));
        let time = time.ok_or(Rejected::Unsigned)?;
        let seconds: i64 = time.parse().map_err(|_| Rejected::Stale)?;
        if digests.is_empty() {
            return Err(Rejected::Unsigned);
        }
        let signed = [time.as_bytes(), b".", body].concat();
        // `verify` compares in constant time; which of several signatures fits is no secret.
        let fits = digests.iter().any(|digest| hmac::verify(&self.0, &signed, digest).is_ok());
        if !fits {
            return Err(Rejected::Forged);
        }
        if now.seconds().abs_diff(seconds) > TOLERANCE_SECONDS.unsigned_abs() {
            return Err(Rejected::Stale);
        }
        Ok(())
    }
}

fn read_digest(text: &str) -> Option<[u8; DIGEST_CHARS / 2]> {
    let mut digest = [0; DIGEST_CHARS / 2];
    if text.len() != DIGEST_CHARS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(digest)
}
