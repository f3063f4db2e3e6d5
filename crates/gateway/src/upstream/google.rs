//! Tokens for a service account of Google's (RFC 7523): a signed claim is exchanged for a token of about an hour.
//!
//! A token is used until five minutes before its end. Then one request gets a new one while the others go on with the
//! old; where there is none that still counts, they wait for that one (U-35). A refusal is remembered for a moment, so that
//! a wrong key is not tried as often as there are requests.

use super::client::HttpClient;
use super::declared::BadUpstream;
use arc_swap::ArcSwapOption;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use domain::Timestamp;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long before its end a token is replaced.
const MARGIN_MS: i64 = 5 * 60 * 1_000;
/// How long a claim counts, in seconds; Google allows an hour.
const CLAIM_S: i64 = 3_600;
/// How long a refusal is remembered.
const REFUSED_MS: i64 = 2_000;
/// The longest that an exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer to one.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What tokens are asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Where, unless the account says otherwise.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// A service account, with the token that it has now.
pub(super) struct ServiceAccount {
    client: HttpClient,
    email: String,
    key_id: Option<String>,
    project: Option<String>,
    token_uri: Uri,
    key: RsaKeyPair,
    token: ArcSwapOption<Token>,
    /// Held by whoever gets a new token; what the last attempt was refused with, and when.
    exchange: Mutex<Option<(Timestamp, String)>>,
}

struct Token {
    header: HeaderValue,
    ends_at: Timestamp,
}

impl ServiceAccount {
    /// Reads the JSON file that Google gives out.
    pub(super) fn read(json: &str, client: HttpClient) -> Result<Self, BadUpstream> {
        #[derive(Deserialize)]
        struct File {
            client_email: String,
            private_key: String,
            private_key_id: Option<String>,
            project_id: Option<String>,
            token_uri: Option<String>,
        }
        let bad = |message: &str| BadUpstream::new("service_account", message);
        // The error of the reader would show what it read.
        let file: File = serde_json::from_str(json)
            .map_err(|_| bad("it is no JSON of a service account with client_email and private_key"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes())
            .map_err(|_| bad("its private_key is not in PEM (BEGIN PRIVATE KEY)"))?;
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
            .map_err(|_| bad("its private_key is no RSA key that can be used"))?;
        let token_uri: Uri =
            file.token_uri.as_deref().unwrap_or(TOKEN_URI).parse().map_err(|_| bad("its token_uri is no address"))?;
        if token_uri.scheme().is_none() || token_uri.authority().is_none() {
            return Err(bad("its token_uri is no address"));
        }
        Ok(Self {
            client,
            email: file.client_email,
            key_id: file.private_key_id,
            project: file.project_id,
            token_uri,
            key,
            token: ArcSwapOption::empty(),
            exchange: Mutex::new(None),
        })
    }

    /// The project that it belongs to.
    pub(super) fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// A header with a token that counts at that time, or why there is none.
    pub(super) async fn token(&self, now: Timestamp) -> Result<HeaderValue, String> {
        if let Some(token) = self.token_until(now.plus_ms(MARGIN_MS)) {
            return Ok(token);
        }
        let mut refused = match (self.exchange.try_lock(), self.token_until(now)) {
            (Ok(exchange), _) => exchange,
            // Somebody is getting a new one.
            (Err(_), Some(old)) => return Ok(old),
            (Err(_), None) => self.exchange.lock().await,
        };
        if let Some(token) = self.token_until(now.plus_ms(MARGIN_MS)) {
            return Ok(token);
        }
        let error = match &*refused {
            Some((at, error)) if now < at.plus_ms(REFUSED_MS) => error.clone(),
            _ => match self.exchange(now).await {
                Ok(token) => {
                    let header = token.header.clone();
                    self.token.store(Some(Arc::new(token)));
                    *refused = None;
                    return Ok(header);
                }
                Err(error) => {
                    tracing::warn!(account = %self.email, %error, "no new token for a service account");
                    *refused = Some((now, error.clone()));
                    error
                }
            },
        };
        self.token_until(now).ok_or(error)
    }

    /// The provider took this token no longer.
    pub(super) fn forget(&self, header: &HeaderValue) {
        if let Some(current) = &*self.token.load()
            && current.header == *header
        {
            self.token.compare_and_swap(current, None);
        }
    }

    fn token_until(&self, time: Timestamp) -> Option<HeaderValue> {
        let token = self.token.load();
        token.as_ref().filter(|token| time < token.ends_at).map(|token| token.header.clone())
    }

    async fn exchange(&self, now: Timestamp) -> Result<Token, String> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
            expires_in: i64,
        }
        let claim = self.claim(now)?;
        let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={claim}");
        let mut request =
            Request::post(self.token_uri.clone()).body(Full::new(Bytes::from(form))).expect("a valid head");
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| super::innermost(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|_| "the answer broke off or is too long".to_owned())?.to_bytes();
            if !status.is_success() {
                return Err(format!("status {status}: {}", refusal(&body)));
            }
            serde_json::from_slice::<Answer>(&body).map_err(|_| "the answer holds no token".to_owned())
        };
        let answer = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
        let Answer { access_token, expires_in } = answer.map_err(|_| "no answer in time".to_owned())??;
        let header = HeaderValue::try_from(format!("Bearer {access_token}"));
        let mut header = header.map_err(|_| "the token is not fit for a header".to_owned())?;
        header.set_sensitive(true);
        Ok(Token { header, ends_at: now.plus_ms(expires_in.clamp(0, 86_400) * 1_000) })
    }

    /// The signed claim (RFC 7519), as RS256.
    fn claim(&self, now: Timestamp) -> Result<String, String> {
        let head = json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let from = now.seconds();
        let (account, uri) = (&self.email, self.token_uri.to_string());
        let claims = json!({"iss": account, "scope": SCOPE, "aud": uri, "iat": from, "exp": from + CLAIM_S});
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(head), part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature)
            .map_err(|_| "the claim cannot be signed".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// What a refusal says, without what it may repeat of the claim: `{"error": "invalid_grant", "error_description": "…"}`.
fn refusal(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| value[name].as_str().unwrap_or_default().chars().take(200).collect::<String>();
    format!("{} {}", text("error"), text("error_description"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::http_client;
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use base64::engine::general_purpose::STANDARD;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// An account whose tokens are named by how many there were, for 400 seconds each; every second exchange is refused.
    async fn account() -> (ServiceAccount, Arc<AtomicUsize>) {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/token", listener.local_addr().unwrap());
        let exchanges = Arc::<AtomicUsize>::default();
        let counted = exchanges.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = Vec::new();
                while !asked.windows(10).any(|bytes| bytes == b"assertion=") {
                    assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
                }
                let count = counted.fetch_add(1, Ordering::Relaxed);
                let (status, body) = match count % 2 {
                    0 => (200, format!(r#"{{"access_token":"t{count}","expires_in":400}}"#)),
                    _ => (503, r#"{"error":"unavailable"}"#.to_owned()),
                };
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
        let json = json!({"client_email": "a@b", "private_key": pem, "token_uri": uri}).to_string();
        (ServiceAccount::read(&json, http_client()).unwrap(), exchanges)
    }

    #[tokio::test]
    async fn u_35_a_token_is_replaced_before_its_end_and_used_until_it() {
        let (account, exchanges) = account().await;
        let at = async |second: i64| {
            let token = account.token(Timestamp(1_000_000 + second * 1_000)).await;
            (token.map(|header| header.to_str().unwrap().to_owned()), exchanges.load(Ordering::Relaxed))
        };
        let (first, third) = (Ok("Bearer t0".to_owned()), Ok("Bearer t2".to_owned()));
        assert_eq!(at(0).await, (first.clone(), 1));
        assert_eq!(at(99).await, (first.clone(), 1));
        // Five minutes before its end another is asked for; it is refused, and the old one counts still.
        assert_eq!(at(101).await, (first.clone(), 2));
        assert_eq!(at(102).await, (first, 2), "the refusal is remembered");
        assert_eq!(at(104).await, (third.clone(), 3));
        assert_eq!(at(105).await, (third, 3));
        let (late, exchanged) = at(505).await;
        assert!(late.unwrap_err().contains("503") && exchanged == 4);
        assert_eq!(at(506).await.1, 4);
        assert_eq!(at(508).await, (Ok("Bearer t4".to_owned()), 5));
        account.forget(&HeaderValue::from_static("Bearer t2"));
        assert_eq!(at(509).await.1, 5, "another token was refused");
        account.forget(&HeaderValue::from_static("Bearer t4"));
        assert!(at(509).await.0.is_err());
    }
}
