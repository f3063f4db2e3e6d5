//! Webhook deliveries: signed as Stripe signs them, or with a fault.

use super::Shared;
use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// How often an event that is not accepted is delivered again.
const TRIES_MAX: u32 = 5;
/// The wait after a first try that failed; it doubles. Stripe's own waits are hours.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// What is wrong with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Signed by somebody who does not know the secret.
    WrongSecret,
    /// Signed with an empty secret.
    EmptySecret,
    /// No signature header.
    Unsigned,
    /// Signed for another time than now, by so many seconds (negative: in the past).
    Skewed(i64),
    /// The body was parsed and written again on its way.
    Reserialized,
    /// The body was changed on its way.
    Tampered,
    /// Signed with two secrets, as while a secret is being rolled; the right one is last.
    TwoSignatures,
    /// Only a signature of a scheme that is no longer trusted.
    OldScheme,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Somebody who receives events.
pub(super) struct Webhook<'w> {
    url: &'w str,
    secret: &'w str,
}

impl<'w> Webhook<'w> {
    pub(super) fn new(url: &'w str, secret: &'w str) -> Self {
        Self { url, secret }
    }

    pub(super) async fn deliver(&self, event: &Value, fault: Fault) -> io::Result<Delivered> {
        let (signature, body) = dressed(event, self.secret, now(), fault);
        let mut request = Request::post(self.url)
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .header(header::USER_AGENT, "Stripe/1.0 (+https://stripe.com/docs/webhooks)");
        if let Some(signature) = signature {
            request = request.header("stripe-signature", signature);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Delivered { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// The header and body of a delivery.
fn dressed(event: &Value, secret: &str, now: i64, fault: Fault) -> (Option<String>, Vec<u8>) {
    let body = serde_json::to_vec_pretty(event).expect("a value is always JSON");
    let signature = match fault {
        Fault::Unsigned => None,
        Fault::WrongSecret => Some(sign(&body, "whsec_somebody_else", now)),
        Fault::EmptySecret => Some(sign(&body, "", now)),
        Fault::Skewed(seconds) => Some(sign(&body, secret, now + seconds)),
        Fault::TwoSignatures => {
            let right = sign(&body, secret, now);
            let wrong = sign(&body, "whsec_rolled_away", now);
            let (_, right) = right.split_once(',').expect("a signature has a time and a digest");
            Some(format!("{wrong},{right}"))
        }
        Fault::OldScheme => Some(sign(&body, secret, now).replace(",v1=", ",v0=")),
        Fault::None | Fault::Reserialized | Fault::Tampered => Some(sign(&body, secret, now)),
    };
    let body = match fault {
        Fault::Reserialized => serde_json::to_vec(event).expect("a value is always JSON"),
        Fault::Tampered => [body.as_slice(), b" "].concat(),
        _ => body,
    };
    (signature, body)
}

/// The value of `Stripe-Signature`: the time, and the HMAC-SHA-256 of the time, a dot and the body.
pub fn sign(body: &[u8], secret: &str, at: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{at}.").as_bytes());
    context.update(body);
    let mut header = format!("t={at},v1=");
    for byte in context.sign().as_ref() {
        write!(header, "{byte:02x}").expect("writing into a string never fails");
    }
    header
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(since.as_secs()).expect("seconds fit 64 bits for long")
}

/// Delivers events as they happen, one at a time.
pub(super) async fn deliver_all(shared: Arc<Shared>, url: String, mut events: mpsc::UnboundedReceiver<String>) {
    while let Some(id) = events.recv().await {
        let Some(event) = shared.world.lock().find(&id) else { continue };
        let webhook = Webhook::new(&url, &shared.options.webhook_secret);
        for tried in 0..TRIES_MAX {
            let delivered = webhook.deliver(&event, Fault::None).await;
            if delivered.is_ok_and(|delivered| (200..300).contains(&delivered.status)) {
                break;
            }
            tokio::time::sleep(RETRY_WAIT * 2_u32.pow(tried)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_hmac_of_time_dot_body() {
        // Checked with `printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec_x`.
        let signature = sign(b"{}", "whsec_x", 1_700_000_000);
        let (time, digest) = signature.split_once(",v1=").unwrap();
        assert_eq!((time, digest.len()), ("t=1700000000", 64));
        assert_eq!(digest, "be8cb8325f2202445260a855532f967e30ad2a9394ce28da66ee02880ddcb661");
    }
}
