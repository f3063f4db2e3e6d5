//! Amazon's Signature Version 4, for requests without a query ("Create a signed AWS API request" in the IAM user guide).

use super::address::encoded;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use bytes::Bytes;
use domain::Timestamp;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request};
use http_body_util::Full;
use std::fmt::Write;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// The service in a signature's scope; also of its runtime.
const SERVICE: &str = "bedrock";

/// A pair of keys, for one region.
pub(super) struct Signer {
    id: Box<str>,
    secret: Box<str>,
    session: Option<HeaderValue>,
    region: Box<str>,
}

impl Signer {
    pub(super) fn new(id: &str, secret: &str, session: Option<HeaderValue>, region: &str) -> Self {
        Self { id: id.into(), secret: secret.into(), session, region: region.into() }
    }

    /// Signs a request with its host, type, date and body.
    pub(super) fn sign(&self, request: &mut Request<Full<Bytes>>, body: &[u8], now: Timestamp) {
        let authority = request.uri().authority().expect("an upstream's address is whole").as_str();
        let host = HeaderValue::try_from(authority).expect("a host is fit for a header");
        let path = request.uri().path().to_owned();
        let (method, headers) = (request.method().to_string(), request.headers_mut());
        headers.insert(HOST, host);
        let time = time(now);
        headers.insert(DATE, HeaderValue::try_from(&time).expect("digits are fit for a header"));
        if let Some(session) = &self.session {
            headers.insert(TOKEN, session.clone());
        }
        let authorization = self.authorization(&method, &path, headers, body, &time, SERVICE);
        let mut authorization = HeaderValue::try_from(authorization).expect("names and hex are fit for a header");
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
    }

    /// The header over what is to be signed: of the headers those that are named here and there.
    fn authorization(
        &self,
        method: &str,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
        time: &str,
        service: &str,
    ) -> String {
        // In the order of their names.
        let signed = [CONTENT_TYPE, HOST, DATE, TOKEN];
        let signed: Vec<_> = signed.iter().filter_map(|name| Some((name.as_str(), headers.get(name)?))).collect();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        // What stands in the request's path is encoded once more.
        let mut canonical = format!("{method}\n{}\n\n", encoded(path, b"/"));
        for (name, value) in signed {
            let value = String::from_utf8_lossy(value.as_bytes());
            writeln!(canonical, "{name}:{}", value.trim()).expect("a text takes what is written");
        }
        write!(canonical, "\n{names}\n{}", hex(digest(&SHA256, body).as_ref())).expect("a text takes what is written");

        let Self { id, region, .. } = self;
        let day = &time[..8];
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes());
        let mut key = mac(format!("AWS4{}", self.secret).as_bytes(), day);
        for part in [region, service, "aws4_request"] {
            key = mac(key.as_ref(), part);
        }
        let signature = hex(mac(key.as_ref(), &to_sign).as_ref());
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }
}

/// `20150830T123600Z`.
fn time(now: Timestamp) -> String {
    let time = jiff::Timestamp::from_second(now.seconds()).unwrap_or_default();
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a text takes what is written");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    /// 2015-08-30T12:36:00Z.
    const NOW: Timestamp = Timestamp(1_440_938_160_000);

    /// The cases that Amazon publishes for signers: request, headers that are signed, signature.
    #[test]
    fn signatures_are_those_of_amazon_s_test_suite() {
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8\
                     YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHN\
                     VXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let form = "application/x-www-form-urlencoded";
        for (method, path, headers, body, names, signature) in [
            (
                "GET",
                "/",
                vec![],
                "",
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "POST",
                "/",
                vec![],
                "",
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "POST",
                "/",
                vec![(CONTENT_TYPE, form)],
                "Param1=value1",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "POST",
                "/",
                vec![(TOKEN, token)],
                "",
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            (
                "GET",
                "/ሴ",
                vec![],
                "",
                "host;x-amz-date",
                "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
            ),
        ] {
            let signer = Signer::new("AKIDEXAMPLE", SECRET, None, "us-east-1");
            let mut all = HeaderMap::new();
            all.insert(HOST, HeaderValue::from_static("example.amazonaws.com"));
            all.insert(DATE, HeaderValue::try_from(time(NOW)).unwrap());
            all.extend(headers.into_iter().map(|(name, value)| (name, HeaderValue::try_from(value).unwrap())));
            let authorization = signer.authorization(method, path, &all, body.as_bytes(), &time(NOW), "service");
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={names}, Signature={signature}"
            );
            assert_eq!(authorization, expected, "{method} {path}");
        }
    }
}
