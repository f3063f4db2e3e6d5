//! What an answer consumed is the same in the ledger, however its provider counts.

use crate::fixtures::{PROVIDERS, quirks};
use domain::usage::{Meter, Usage};
use protocol::canonical::{Dialect, Event, Reported, Source};
use protocol::dialect::{Quirks, StreamReader, Target, read_answer, read_request, write_request};
use std::borrow::Cow;

fn body(dialect: Dialect, usage: &str) -> String {
    match dialect {
        Dialect::Chat | Dialect::Completions => {
            format!(r#"{{"choices":[{{"message":{{"content":"x"}}}}],"usage":{usage}}}"#)
        }
        Dialect::Messages => format!(r#"{{"content":[{{"type":"text","text":"x"}}],"usage":{usage}}}"#),
        Dialect::Gemini => {
            format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}}}}],"usageMetadata":{usage}}}"#)
        }
        Dialect::Responses => format!(r#"{{"status":"completed","output":[],"usage":{usage}}}"#),
        Dialect::Converse => format!(r#"{{"output":{{"message":{{"content":[{{"text":"x"}}]}}}},"usage":{usage}}}"#),
    }
}

fn reported(dialect: Dialect, usage: &str, quirks: &Quirks) -> Reported {
    read_answer(dialect, body(dialect, usage).as_bytes(), quirks).expect("the answer is sound").usage
}

#[track_caller]
fn check(dialect: Dialect, usage: &str, expected: &[(Meter, u64)]) {
    let mut sum = Usage::default();
    for (meter, count) in expected {
        sum[*meter] = *count;
    }
    assert_eq!(reported(dialect, usage, &quirks(dialect)), Reported::Usage(sum), "{usage}");
}

#[test]
fn u_26_one_conversation_counts_the_same_everywhere() {
    use Meter::*;
    let inside = [(Input, 1040), (CachedInput, 5000), (Output, 60), (Reasoning, 90)];
    check(
        Dialect::Chat,
        r#"{"prompt_tokens":6040,"completion_tokens":150,"total_tokens":6190,"prompt_tokens_details":{"cached_tokens":5000},"completion_tokens_details":{"reasoning_tokens":90}}"#,
        &inside,
    );
    check(
        Dialect::Responses,
        r#"{"input_tokens":6040,"input_tokens_details":{"cached_tokens":5000},"output_tokens":150,"output_tokens_details":{"reasoning_tokens":90},"total_tokens":6190}"#,
        &inside,
    );
    check(
        Dialect::Messages,
        r#"{"input_tokens":40,"cache_creation_input_tokens":1000,"cache_creation":{"ephemeral_5m_input_tokens":800,"ephemeral_1h_input_tokens":200},"cache_read_input_tokens":5000,"output_tokens":150,"output_tokens_details":{"thinking_tokens":90}}"#,
        &[(Input, 40), (CachedInput, 5000), (CacheWrite5m, 800), (CacheWrite1h, 200), (Output, 60), (Reasoning, 90)],
    );
    check(
        Dialect::Gemini,
        r#"{"promptTokenCount":6040,"cachedContentTokenCount":5000,"toolUsePromptTokenCount":300,"candidatesTokenCount":60,"thoughtsTokenCount":90,"totalTokenCount":6490}"#,
        &[(Input, 1340), (CachedInput, 5000), (Output, 60), (Reasoning, 90)],
    );
    check(
        Dialect::Converse,
        r#"{"inputTokens":40,"cacheReadInputTokens":5000,"cacheWriteInputTokens":1000,"outputTokens":150}"#,
        &[(Input, 40), (CachedInput, 5000), (CacheWrite5m, 1000), (Output, 150)],
    );
    let xai = r#"{"prompt_tokens":6040,"prompt_tokens_details":{"cached_tokens":5000},"completion_tokens":60,"completion_tokens_details":{"reasoning_tokens":90},"total_tokens":6190}"#;
    let of_xai = reported(Dialect::Chat, xai, &Quirks::of("xai").unwrap());
    assert_eq!(of_xai.usage().unwrap().output_tokens(), 150);
    assert!(matches!(of_xai, Reported::Usage(_)));
    // Kinds of input and output that have prices of their own.
    check(
        Dialect::Gemini,
        r#"{"promptTokenCount":100,"candidatesTokenCount":50,"totalTokenCount":150,"promptTokensDetails":[{"modality":"TEXT","tokenCount":60},{"modality":"AUDIO","tokenCount":30},{"modality":"IMAGE","tokenCount":10}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":40}]}"#,
        &[(Input, 60), (InputAudio, 30), (InputImage, 10), (Output, 10), (OutputImage, 40)],
    );
    // What was compacted before the last pass is billed too.
    check(
        Dialect::Messages,
        r#"{"input_tokens":612,"output_tokens":2819,"iterations":[{"type":"compaction","input_tokens":60385,"output_tokens":522},{"type":"message","input_tokens":612,"output_tokens":2819}]}"#,
        &[(Input, 60_997), (Output, 3341)],
    );
}

#[test]
fn u_22_u_24_missing_and_nonsense_are_told_apart() {
    for dialect in PROVIDERS {
        let of = |usage: &str| reported(dialect, usage, &quirks(dialect));
        assert_eq!(of("null"), Reported::Missing, "{}", dialect.name());
        assert_eq!(of("5"), Reported::Nonsense, "{}", dialect.name());
        let names = ["prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens"];
        for number in ["-1", "1.5", "\"5\"", "1e3", "1000000001", "true", "[]"] {
            let usage: Vec<String> = names.iter().map(|name| format!("\"{name}\":{number}")).collect();
            assert_eq!(of(&format!("{{{}}}", usage.join(","))), Reported::Nonsense, "{}: {number}", dialect.name());
        }
    }
}

#[test]
fn u_26_of_a_stream_the_last_usage_counts_key_by_key() {
    let last = |dialect: Dialect, events: &[&str]| {
        let mut reader = StreamReader::new(dialect, &quirks(dialect));
        let mut last = Reported::Missing;
        for event in events {
            reader.read(event.as_bytes(), &mut |event| {
                if let Event::Usage(usage) = event {
                    last = usage;
                }
            });
        }
        let usage = last.usage().copied().unwrap();
        (usage.input_tokens(), usage.output_tokens())
    };
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":43,"cache_read_input_tokens":5000,"output_tokens":2}}}"#;
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":17}}"#;
    let restated = r#"{"type":"message_delta","delta":{},"usage":{"input_tokens":61,"output_tokens":17}}"#;
    assert_eq!(last(Dialect::Messages, &[start]), (5043, 2));
    assert_eq!(last(Dialect::Messages, &[start, start]), (5043, 2));
    assert_eq!(last(Dialect::Messages, &[start, delta]), (5043, 17));
    assert_eq!(last(Dialect::Messages, &[start, delta, restated]), (5061, 17));
    let early = r#"{"candidates":[],"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#;
    let late = r#"{"candidates":[],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"thoughtsTokenCount":3,"totalTokenCount":16}}"#;
    assert_eq!(last(Dialect::Gemini, &[early]), (9, 0));
    assert_eq!(last(Dialect::Gemini, &[early, late, late]), (9, 7));
    let every =
        r#"{"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    let final_one = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4},"x_groq":{"usage":{"prompt_tokens":9,"completion_tokens":4}}}"#;
    assert_eq!(last(Dialect::Chat, &[every, final_one]), (9, 4));
}

/// A large image is read without a copy, and written into room that is made for it.
#[test]
fn p_large_images_are_held_no_more_than_twice() {
    let data = "A".repeat(4 << 20);
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
    );
    let request = read_request(Dialect::Chat, body.as_bytes()).unwrap();
    let protocol::canonical::PartKind::Image(media) = &request.messages[0].parts[0].kind else { panic!("no image") };
    assert!(matches!(&media.source, Source::Base64(Cow::Borrowed(_))), "the image was copied");
    for to in PROVIDERS {
        let quirks = quirks(to);
        let written = write_request(to, &request, &Target::new("upstream", &quirks)).unwrap();
        assert!(written.body.capacity() <= body.len() + 4096, "{}: {}", to.name(), written.body.capacity());
    }
}
