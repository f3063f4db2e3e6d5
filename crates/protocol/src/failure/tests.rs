//! The fixtures, and what holds for every answer.

use super::recovery::LASTS_MS_MAX;
use super::*;
use crate::dialect::Dialect;
use crate::provider::{self, Provider};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// 2026-11-22T10:00:00Z
const NOW: Timestamp = Timestamp(1_795_341_600_000);

/// One answer of a fixture file, and what is expected of it.
struct Case {
    title: String,
    provider: Provider,
    guessed: Provider,
    cause: String,
    recovery: String,
    answer: Pasted,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/failures");
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let provider = Provider::from_name(name).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for part in text.strip_prefix("=== ").unwrap().split("\n=== ") {
            let (head, answer) = part.split_once('\n').unwrap();
            let (expected, title) = head.split_once(" | ").unwrap();
            let (expected, guessed) = match expected.split_once(" guess=") {
                Some((expected, guessed)) => (expected, Provider::from_name(guessed).unwrap()),
                None => (expected, provider),
            };
            let (cause, recovery) = expected.split_once(' ').unwrap();
            let (cause, recovery) = (cause.to_owned(), recovery.to_owned());
            let answer = Pasted::read(answer).unwrap();
            let title = format!("{name}: {title}");
            cases.push(Case { title, provider, guessed, cause, recovery, answer });
        }
    }
    cases
}

fn failure_of(provider: Provider, answer: &Pasted) -> Failure {
    match answer.status {
        Some(200) => Failure::inside(provider, &answer.headers, &answer.body, NOW).expect("an error inside"),
        status => Failure::read(provider, status.unwrap(), &answer.headers, &answer.body, NOW),
    }
}

/// `told 1m30s`, `calendar 2026-…`, `-`.
fn shown(recovery: Option<&Recovery>, like: &str) -> String {
    let Some(recovery) = recovery else { return "-".to_owned() };
    let at = jiff::Timestamp::from_millisecond(recovery.at.0).unwrap();
    let basis = if recovery.basis == Basis::Clamped { "clamped" } else { recovery.basis.name() };
    let wanted = like.split(' ').nth(1).and_then(crate::moment::Moment::reset);
    match wanted.and_then(|wanted| wanted.at(NOW)) {
        Some(wanted) if wanted == recovery.at => like.replace(like.split(' ').next().unwrap(), basis),
        _ => format!("{basis} {at}"),
    }
}

#[test]
fn u_01_u_03_u_04_u_16_u_17_every_recorded_failure_is_understood() {
    let mut wrong = Vec::new();
    for case in cases() {
        let failure = failure_of(case.provider, &case.answer);
        let found = (failure.cause.name(), shown(failure.recovery.as_ref(), &case.recovery));
        if found != (&case.cause, case.recovery.clone()) {
            wrong.push(format!(
                "{}\n    {} {} expected, {found:?} found by {:?}",
                case.title, case.cause, case.recovery, failure.evidence
            ));
        }
        let guessed = provider::guess(case.answer.status.unwrap(), &case.answer.headers, &case.answer.body);
        if guessed != case.guessed {
            wrong.push(format!("{}\n    guessed {guessed:?}, not {:?}", case.title, case.guessed));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Each cause that an answer can have is in the fixtures, and each provider.
#[test]
fn the_fixtures_leave_nothing_out() {
    let cases = cases();
    let causes: BTreeSet<_> = cases.iter().map(|case| case.cause.as_str()).collect();
    let missing: Vec<_> = Cause::ALL.iter().filter(|cause| !causes.contains(cause.name())).collect();
    assert_eq!(missing, [&Cause::Network], "there is no answer to a broken connection");
    let providers: BTreeSet<_> = cases.iter().map(|case| case.provider.name()).collect();
    assert_eq!(providers.len(), Provider::ALL.len());
}

/// U-04, S-37: whatever the operator's trouble is, callers do not read of it.
#[test]
fn u_04_callers_are_told_nothing_of_the_operator_s_account() {
    for case in cases() {
        let failure = failure_of(case.provider, &case.answer);
        let error = failure.caller_error(NOW);
        for dialect in Dialect::ALL {
            let body = error.body(dialect, Some("req_1"));
            let text = String::from_utf8_lossy(&body).to_lowercase();
            for secret in [
                "org-abc",
                "org_01",
                "sk-abc",
                "aiza",
                "444455556666",
                "acme-123",
                "123456789012",
                "insufficient balance",
            ] {
                assert!(!text.contains(secret), "{}: {text}", case.title);
            }
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(value["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
        }
        match failure.fault() {
            Fault::Account if !matches!(failure.cause, Cause::ModelNotFound | Cause::RateTooBigOnce) => {
                assert_eq!((error.status, &*error.code), (503, "no_upstream_available"), "{}", case.title);
            }
            Fault::Caller if failure.cause != Cause::Cancelled => assert!(error.status < 500, "{}", case.title),
            _ => {}
        }
        assert_eq!(error.retry_after_ms.is_some(), matches!(error.status, 409 | 503) && failure.recovery.is_some());
    }
}

#[test]
fn dialects_have_their_own_shapes() {
    let answer = Pasted::read("HTTP/2 529\nretry-after: 7\n\n{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}").unwrap();
    let error = failure_of(Provider::Anthropic, &answer).caller_error(NOW);
    let message = "No upstream can serve this model now. Try again later.";
    assert_eq!((error.status, error.retry_after_ms), (503, Some(7_000)));
    let open_ai = format!(
        r#"{{"error":{{"message":"{message}","type":"upstream_error","param":null,"code":"no_upstream_available"}}}}"#
    );
    assert_eq!(error.body(Dialect::Chat, None), open_ai);
    assert_eq!(error.event(Dialect::Chat, None), format!("data: {open_ai}\n\n"));
    let read = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap();
    assert_eq!(
        read(&error.body(Dialect::Messages, Some("req_7"))),
        serde_json::json!({"type": "error", "error": {"type": "overloaded_error", "message": message}, "request_id": "req_7"})
    );
    let gemini = read(&error.body(Dialect::Gemini, None));
    assert_eq!((&gemini["error"]["code"], &gemini["error"]["status"]), (&503.into(), &"UNAVAILABLE".into()));
    assert_eq!(gemini["error"]["details"][1]["retryDelay"], "7.000s");
    let kinds = [Dialect::Chat, Dialect::Messages, Dialect::Gemini].map(|dialect| error.text(dialect).kind);
    assert_eq!(kinds, ["upstream_error", "overloaded_error", "UNAVAILABLE"]);
    for dialect in Dialect::ALL {
        let event = String::from_utf8(error.event(dialect, None).to_vec()).unwrap();
        assert_eq!((event.matches("data: ").count(), event.matches("\n\n").count()), (1, 1), "{event}");
    }
}

#[test]
fn every_cause_has_a_name_and_something_to_be_done() {
    let names: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(names.len(), 27);
    for cause in Cause::ALL {
        for provider in Provider::ALL {
            assert!(cause.remedy(provider).len() > 10);
        }
        // Who is to blame for a request of its own does not rest.
        assert!(cause.fault() != Fault::Caller || cause.scope() == Scope::Request, "{cause:?}");
        assert!(cause.retry() != Retry::SameLater || cause.passes(), "{cause:?} has no end to wait for");
    }
}

#[test]
fn a_window_of_some_models_leaves_the_others() {
    let scope = |claim: &str| {
        let head = "HTTP/2 429\nanthropic-ratelimit-unified-status: rejected\nanthropic-ratelimit-unified-representative-claim";
        failure_of(Provider::Anthropic, &Pasted::read(&format!("{head}: {claim}\n\n")).unwrap()).scope
    };
    assert_eq!(
        (scope("five_hour"), scope("seven_day"), scope("seven_day_opus")),
        (Scope::Account, Scope::Account, Scope::Model)
    );
}

#[test]
fn no_answer_is_a_failure_too() {
    let failure = Failure::without_answer(Provider::OpenAi, Cause::Network, "reset by peer", NOW);
    assert_eq!((failure.fault(), failure.retry(), failure.status), (Fault::Network, Retry::SameLater, 0));
    assert_eq!(failure.retry_after_ms(NOW), Some(5_000));
    assert_eq!(failure.caller_error(NOW).status, 502);
}

#[test]
fn the_provider_s_own_word_on_repeating_binds_for_itself() {
    let answer = Pasted::read("HTTP/2 503\nx-should-retry: false\n\n").unwrap();
    assert_eq!(failure_of(Provider::OpenAi, &answer).retry(), Retry::Elsewhere);
}

#[test]
fn answers_of_success_are_no_failures() {
    for body in [
        r#"{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"error"},"finish_reason":"stop"}],"error":null}"#,
        r#"{"type":"message","content":[{"type":"text","text":"\"error\": {}"}],"stop_reason":"end_turn"}"#,
        r#"{"candidates":[{"finishReason":"STOP","content":{"parts":[{"text":"x"}]}}]}"#,
        r#"{"object":"response","status":"completed","error":null}"#,
        "data: {\"choices\":[{\"delta\":{\"content\":\"data: {\\\"error\\\":1}\"}}]}\n\ndata: [DONE]\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "plain text",
    ] {
        let failure = Failure::inside(Provider::Generic, &HeaderMap::new(), body.as_bytes(), NOW);
        assert_eq!(failure, None, "{body}");
    }
}

/// Bedrock tells errors in a binary stream by a frame with the header `:exception-type`.
#[test]
fn a_binary_stream_tells_its_exception() {
    let mut body = b"\0\0\0\x80\0\0\0\x60\x01\x02\x03\x04\x0f:exception-type\x07\0\x13throttlingException\x0d:content-type\x07\0\x10application/json".to_vec();
    body.extend_from_slice(b"{\"message\":\"Too many tokens, please wait.\"}\x01\x02\x03\x04");
    let failure = Failure::inside(Provider::Bedrock, &HeaderMap::new(), &body, NOW).unwrap();
    assert_eq!((failure.cause, failure.evidence.field), (Cause::RateTokens, "message"));
}

/// What is said in a failure is not printed by accident.
#[test]
fn s_37_debug_shows_no_message() {
    let answer = Pasted::read(
        "HTTP/2 400\n\n{\"error\":{\"message\":\"the prompt was SECRET\",\"type\":\"invalid_request_error\"}}",
    )
    .unwrap();
    let failure = failure_of(Provider::OpenAi, &answer);
    assert!(!format!("{failure:?}").contains("SECRET"));
    assert!(failure.told.message.contains("SECRET"));
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let names = prop::sample::select(vec![
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset",
        "x-ratelimit-remaining",
        "anthropic-ratelimit-unified-status",
        "anthropic-ratelimit-unified-representative-claim",
        "anthropic-ratelimit-unified-5h-reset",
        "anthropic-ratelimit-unified-5h-utilization",
        "x-amzn-errortype",
        "content-type",
        "x-should-retry",
    ]);
    let values = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (0..4_000_000_000_000_i64).prop_map(|number| number.to_string()),
        "[0-9]{1,19}(d|h|m|s|ms)([0-9]{1,3}\\.[0-9]{0,9}s)?",
        prop::sample::select(vec![
            "rejected",
            "five_hour",
            "true",
            "false",
            "text/event-stream",
            "ThrottlingException:",
            "inf",
            "NaN",
            "-1",
            "9999-12-31T23:59:59Z",
            "Thu, 01 Jan 9999 00:00:00 GMT",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,30}",
    ];
    prop::collection::vec((names, values), 0..6).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = value.parse() {
                headers.append(name, value);
            }
        }
        headers
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let recorded: Vec<_> = cases().into_iter().map(|case| case.answer.body.to_vec()).collect();
    let recorded = prop::sample::select(recorded);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        // Recorded ones, cut and with a byte changed.
        (recorded, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
            |(mut body, cut, at, byte)| {
                if !body.is_empty() {
                    let at = at.index(body.len());
                    body[at] = byte;
                    body.truncate(cut.index(body.len()) + 1);
                }
                body
            }
        ),
        "(\"|'|\\{|\\}|:|,|message|code|error|429|[a-z ]|\\\\){0,60}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// U-01: whatever comes is answered, and no time is in the past or beyond what can be meant.
    #[test]
    fn u_01_any_answer_is_understood_within_bounds(
        provider in prop::sample::select(Provider::ALL.to_vec()),
        status in prop_oneof![Just(429_u16), 200..600_u16, any::<u16>()],
        headers in any_headers(),
        body in any_body(),
        now in 0..4_102_444_800_000_i64,
    ) {
        let now = Timestamp(now);
        provider::guess(status, &headers, &body);
        let read = Failure::read(provider, status, &headers, &body, now);
        let inside = Failure::inside(provider, &headers, &body, now);
        let in_event = Failure::in_event(provider, &headers, Some(b"error"), &body, now);
        for failure in [Some(read), inside, in_event].into_iter().flatten() {
            prop_assert_eq!(failure.recovery.is_some(), failure.cause.passes());
            if let Some(recovery) = &failure.recovery {
                let wait = recovery.at.0 - now.0;
                prop_assert!((0..=LASTS_MS_MAX).contains(&wait), "{:?}", recovery);
            }
            let error = failure.caller_error(now);
            prop_assert!((400..600).contains(&error.status));
            prop_assert!(error.message.chars().count() <= 1_100 && !error.message.is_empty());
            for dialect in Dialect::ALL {
                let event = error.event(dialect, None);
                let inner = &event[..event.len() - 2];
                prop_assert!(!inner.contains(&b'\r') && inner.iter().filter(|byte| **byte == b'\n').count() <= 1);
            }
        }
    }

    #[test]
    fn any_paste_is_taken_apart(text in any::<String>(), status in 0..1_200_u32) {
        _ = Pasted::read(&text);
        _ = Pasted::read(&format!("HTTP/2 {status}\n{text}"));
        _ = Pasted::read(&format!("< HTTP/2 {status}\n< {text}"));
        _ = Pasted::read(&format!("Error code: {status} - {text}"));
    }
}
