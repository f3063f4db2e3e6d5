//! What callers may read of a provider's words.

use super::Failure;
use super::cause::{Cause, Fault};
use super::told::Form;

/// What stands in place of what callers must not read.
const HIDDEN: &str = "[hidden]";
/// Longest message for callers, in characters.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// What callers are told of anything that is the operator's trouble.
const NO_UPSTREAM: &str = "No upstream can serve this model now. Try again later.";

/// The message for a caller.
pub(super) fn message(failure: &Failure) -> String {
    let neutral = match failure.cause {
        Cause::ModelNotFound => "The upstream does not have this model, or not under the name that the route gives it.",
        Cause::RateTooBigOnce => {
            "The request is larger than any upstream of this model takes within a minute. Make it smaller, or its \
             output cap."
        }
        Cause::StateBound => {
            "The request refers to an earlier answer, or to reasoning, that the upstream now serving it cannot read. \
             Leave out previous_response_id, encrypted reasoning and thinking signatures, and send it again."
        }
        Cause::Timeout => "The upstream did not answer in time. Try again.",
        Cause::Server | Cause::Network => "The upstream failed: it answered with an error. Try again.",
        cause if cause.fault() == Fault::Caller => {
            let told = failure.told.message.trim();
            if told.is_empty() || matches!(failure.told.form, Form::Html | Form::Text) {
                return format!("The upstream refused the request: {}.", failure.cause.meaning());
            }
            return shortened(&hidden(told));
        }
        _ => NO_UPSTREAM,
    };
    neutral.to_owned()
}

/// Nothing in the text has to be hidden.
pub(super) fn is_clean(text: &str) -> bool {
    words(text).all(|word| !is_secret(word))
}

/// The text with keys, ids of organisations, projects and accounts, addresses of mail and resource names hidden.
fn hidden(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for word in words(text) {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        clean.push_str(&text[from..at]);
        clean.push_str(if is_secret(word) { HIDDEN } else { word });
        from = at + word.len();
    }
    clean.push_str(&text[from..]);
    clean
}

/// The runs of letters, digits and what ids are joined with.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_joint = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '/' | '@' | '.' | '*');
    text.split(move |c: char| !is_joint(c))
        .map(|word| word.trim_matches(['.', ':', '/']))
        .filter(|word| !word.is_empty())
}

/// Whether a word names the operator's account or is a credential.
fn is_secret(word: &str) -> bool {
    const PREFIXES: [&str; 17] = [
        "sk-",
        "sk_",
        "org-",
        "org_",
        "proj_",
        "proj-",
        "gsk_",
        "xai-",
        "AIza",
        "bce-v3/",
        "arn:",
        "projects/",
        "Bearer",
        "user-",
        "AKIA",
        "ASIA",
        "ak-",
    ];
    // "org-" alone, or "user-defined", is a word; an id has digits or goes on for long.
    let goes_on = |rest: &str| rest.len() >= 12 || rest.bytes().any(|byte| byte.is_ascii_digit() || byte == b'*');
    let starts =
        PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && goes_on(rest)));
    starts || is_mail(word) || is_uuid(word) || is_long_number(word)
}

fn is_mail(word: &str) -> bool {
    word.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
}

/// Teams and tenants are named so. Ids of requests are as well, and nobody misses them.
fn is_uuid(word: &str) -> bool {
    let parts: Vec<_> = word.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Ids of accounts (12 digits at AWS) and of projects. Counts of tokens are shorter.
fn is_long_number(word: &str) -> bool {
    word.len() >= 11 && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn shortened(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
    plain.take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u_21_names_of_the_operator_s_account_are_hidden() {
        for (told, clean) in [
            (
                "Rate limit for m in organization org-AbC123dEf on requests",
                "Rate limit for m in organization [hidden] on requests",
            ),
            ("Incorrect API key provided: sk-proj-abc***xyz9.", "Incorrect API key provided: [hidden]."),
            ("team 0aa6f0d3-1111-2222-3333-444455556666/x", "team 0aa6f0d3-1111-2222-3333-444455556666/x"),
            ("Too many for team 0aa6f0d3-1111-2222-3333-444455556666.", "Too many for team [hidden]."),
            ("arn:aws:bedrock:us-east-1:123456789012:model/x is no model", "[hidden] is no model"),
            ("consumer 'projects/123456789'", "consumer '[hidden]'"),
            ("ask ann@example.com", "ask [hidden]"),
            (
                "maximum context length is 128000 tokens, 1500000 given",
                "maximum context length is 128000 tokens, 1500000 given",
            ),
            ("a user-defined org-wide rule; messages[0].content", "a user-defined org-wide rule; messages[0].content"),
        ] {
            if told == clean {
                assert!(is_clean(told) || told.contains("/x"), "{told}");
            }
            assert_eq!(hidden(told), clean);
        }
    }
}
