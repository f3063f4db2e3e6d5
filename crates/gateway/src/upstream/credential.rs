//! As whom an upstream is asked. Nothing here can be printed.

use super::SendError;
use super::declared::BadUpstream;
use super::google::ServiceAccount;
use super::signature::Signer;
use bytes::Bytes;
use domain::Timestamp;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Full;
use std::sync::Arc;

/// A shorter key stands in any text by chance.
const REPEATED_BYTES_MIN: usize = 8;

/// What proves who asks.
pub(super) enum Credential {
    /// Nothing.
    None,
    /// A header that is always the same.
    Header(HeaderName, HeaderValue),
    /// A token that is had for a service account, and had again before it ends.
    Google(Arc<ServiceAccount>),
    /// A signature over each request.
    Amazon(Box<Signer>),
}

impl Credential {
    /// `setting`: where the value comes from.
    pub(super) fn header(setting: &'static str, name: HeaderName, value: &str) -> Result<Self, BadUpstream> {
        Ok(Self::Header(name, secret(setting, value)?))
    }

    pub(super) fn amazon(id: &str, key: &str, session: Option<&str>, region: &str) -> Result<Self, BadUpstream> {
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_id {
            return Err(BadUpstream::new("access_key_id", "it is of letters and digits"));
        }
        let session = session.map(|token| secret("session_token", token)).transpose()?;
        Ok(Self::Amazon(Box::new(Signer::new(id, key, session, region))))
    }

    /// Puts it into a request, whose body is `body`, at a time.
    pub(super) async fn enter(
        &self,
        request: &mut Request<Full<Bytes>>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), SendError> {
        match self {
            Self::None => {}
            Self::Header(name, value) => {
                request.headers_mut().insert(name.clone(), value.clone());
            }
            Self::Google(account) => {
                let token = account.token(now).await.map_err(SendError::Credential)?;
                request.headers_mut().insert(AUTHORIZATION, token);
            }
            Self::Amazon(signer) => signer.sign(request, body, now),
        }
        Ok(())
    }

    /// Takes note of how the request that it was in was answered: a token that is no longer taken is not used again.
    pub(super) fn answered(&self, request: Option<&HeaderValue>, status: StatusCode) {
        if let (Self::Google(account), Some(token), StatusCode::UNAUTHORIZED) = (self, request, status) {
            account.forget(token);
        }
    }

    /// An answer repeats it, as some servers do where they quote the request.
    pub(super) fn is_in(&self, answer: &[u8]) -> bool {
        let Self::Header(_, value) = self else { return false };
        let value = value.as_bytes();
        let key = value.strip_prefix(b"Bearer ").unwrap_or(value);
        key.len() >= REPEATED_BYTES_MIN && memchr::memmem::find(answer, key).is_some()
    }

    /// Its answers say something of it: the header of the request is to be kept for [`answered`](Self::answered).
    pub(super) fn can_expire(&self) -> bool {
        matches!(self, Self::Google(_))
    }
}

/// A value that no log shows.
fn secret(setting: &'static str, value: &str) -> Result<HeaderValue, BadUpstream> {
    let value = HeaderValue::try_from(value);
    let mut value = value.map_err(|_| BadUpstream::new(setting, "it holds characters that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}
