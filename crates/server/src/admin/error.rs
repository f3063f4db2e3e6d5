//! Why the operator's and the members' API refuse, and how it says so: always in OpenAI's error shape.

use crate::idempotency::SafeToRepeat;
use crate::router::json;
use axum::response::{IntoResponse, Response};
use domain::ledger::Refusal;
use http::{HeaderValue, StatusCode, header};
use protocol::openai::ErrorBody;
use serde::{Deserialize, Serialize};
use store::passwords::Busy;
use store::{HoldError, StoreError};
use utoipa::ToSchema;

/// Longest message. A reader's complaint can quote what it read, and that can be anything.
const MESSAGE_CHARS_MAX: usize = 400;

/// A request that is not done, with everything that its answer says.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    param: Option<&'static str>,
    /// Seconds after which to come again.
    retry_after: Option<u64>,
    safe_to_repeat: bool,
}

/// The body of every refusal.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ErrorObject {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For people: what happened and what to do next.
    pub message: String,
    /// The kind of error.
    #[schema(example = "invalid_request_error")]
    pub r#type: String,
    /// The field that is to blame, if one is.
    pub param: Option<String>,
    /// The case, for programs.
    #[schema(example = "not_found")]
    pub code: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, message: message.into(), param: None, retry_after: None, safe_to_repeat: false }
    }

    /// No operator's key, or one that is not known. All look alike.
    pub fn unauthorized() -> Self {
        let message = "This needs an operator's key: send it as \"Authorization: Bearer op-tg…\".";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    }

    /// No session and no key, or ones that are not known or over. All look alike.
    pub fn not_signed_in() -> Self {
        let message = "This needs a session or a key: send it as \"Authorization: Bearer se-tg…\" or \"Bearer sk-tg…\". \
                       POST /api/v1/session opens a session.";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    }

    /// No such user, a wrong password, no password, or a blocked user. All look alike (S-52).
    pub fn wrong_password() -> Self {
        let message = "The e-mail address or the password is wrong.";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_credentials", message)
    }

    /// Whoever asks is known and may not do that.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", code, message)
    }

    /// Too often. Comes with the time after which it is worth trying again.
    pub fn too_many(message: impl Into<String>, seconds: u64) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", message);
        Self { retry_after: Some(seconds), ..problem }
    }

    /// Something is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", message)
    }

    /// The path is there, the method is not.
    pub fn method_not_allowed() -> Self {
        let message = "This endpoint does not take that method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message)
    }

    /// The request as a whole makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_request", message)
    }

    /// One field makes no sense.
    pub fn bad_field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::bad_request(message) }
    }

    /// A name is taken.
    pub fn conflict(param: &'static str, message: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::CONFLICT, "invalid_request_error", "conflict", message);
        Self { param: Some(param), ..problem }
    }

    /// What is asked for does not go with what is there.
    pub fn in_the_way(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "invalid_request_error", code, message)
    }

    /// There is not enough money for it.
    pub fn not_enough(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "billing_error", code, message)
    }

    /// The body is too large.
    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("The body is larger than {bytes_max} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large", message)
    }

    /// The body came too slowly.
    pub fn too_slow() -> Self {
        let message = "The body did not come in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "body_timeout", message)
    }

    /// The body is not JSON by its own account.
    pub fn not_json() -> Self {
        let message = "Send JSON, and say so: \"Content-Type: application/json\".";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type", message)
    }

    /// The store cannot do it now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "store_unavailable", message);
        Self { retry_after: Some(1), ..problem }
    }

    /// To ask again with the same idempotency key does it once, whether or not it was done.
    #[must_use]
    pub fn repeatable(self) -> Self {
        Self { safe_to_repeat: true, ..self }
    }

    /// Whoever provides payments cannot do it now, or refuses.
    pub fn provider(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "server_error", "payment_provider_error", message)
    }

    /// Puts something in front of the message.
    #[must_use]
    pub fn after(mut self, message: &str) -> Self {
        self.message = format!("{message} {}", self.message);
        self
    }
}

/// A rule's refusal is the operator's to read; everything else is logged and only named.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(message) => Self::bad_request(sentence(&message)),
            StoreError::Conflict(message) => {
                Self::new(StatusCode::CONFLICT, "invalid_request_error", "conflict", sentence(&message))
            }
            error => {
                tracing::error!(%error, "the API cannot reach the store");
                Self::unavailable("The store cannot do that now. Try again in a moment; the gateway's log says more.")
            }
        }
    }
}

impl From<Busy> for Problem {
    fn from(_: Busy) -> Self {
        Self::too_many("Too many people are signing in at this moment. Try again in a few seconds.", 5)
    }
}

/// Why the ledger did not take an entry.
impl From<HoldError> for Problem {
    fn from(error: HoldError) -> Self {
        let refusal = match error {
            HoldError::Refused(refusal) => refusal,
            HoldError::TooManyOpen | HoldError::Unavailable => {
                return Self::unavailable(
                    "The ledger did not confirm this in time. It may be booked all the same: look at the account before \
                     trying again.",
                );
            }
        };
        match refusal {
            Refusal::Wallet { available, needed } => {
                let message = format!(
                    "The account has ${available} available, and this needs ${needed}. Money that is held by open \
                     requests comes back when they end."
                );
                Self::not_enough("insufficient_balance", message)
            }
            Refusal::Debt { owed } => {
                let message = format!("The account owes ${owed}. The next money put in pays that first.");
                Self::not_enough("debt", message)
            }
            Refusal::Forbidden(why) => Self::in_the_way("refused", sentence(why)),
            refusal => {
                tracing::error!(?refusal, "a refusal of requests was given to an operator");
                Self::in_the_way("refused", "The ledger refuses this.")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let message = one_line(&self.message);
        let body = ErrorBody { message: &message, kind: self.kind, param: self.param, code: Some(self.code) };
        let mut response = json(self.status, body.json());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.safe_to_repeat {
            response.extensions_mut().insert(SafeToRepeat);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Rules speak in fragments; answers in sentences.
pub fn sentence(fragment: &str) -> String {
    let mut letters = fragment.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    let stop = if fragment.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

fn one_line(message: &str) -> String {
    let plain = message.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut line: String = plain.take(MESSAGE_CHARS_MAX).collect();
    if line.len() < message.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_36_a_message_is_one_bounded_line() {
        assert_eq!(one_line("a\r\nb\u{1b}[2J"), "a  b [2J");
        assert_eq!(one_line(&"x".repeat(1_000_000)).chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn rules_are_told_as_sentences() {
        assert_eq!(sentence("a quota is not negative"), "A quota is not negative.");
        assert_eq!(sentence(""), ".");
    }
}
