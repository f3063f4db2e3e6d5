//! What callers and providers send that they should not: each is answered, and says where it is wrong.

use crate::fixtures::{CALLERS, PROVIDERS, SPOKEN, cases, events, quirks};
use bytes::Bytes;
use proptest::prelude::*;
use protocol::canonical::{Dialect, Event};
use protocol::dialect::{StreamReader, Target, read_answer, read_request, write_request};
use protocol::sse::EventReader;

#[track_caller]
fn refused(dialect: Dialect, body: &str, message: &str) {
    match read_request(dialect, body.as_bytes()) {
        Ok(request) => panic!("{}: read as {request:?}: {body}", dialect.name()),
        Err(refusal) => assert_eq!(refusal.message, message, "{}: {body}", dialect.name()),
    }
}

#[test]
fn c_23_a_body_is_one_json_object() {
    for dialect in CALLERS {
        for (body, message) in [
            ("", "the body is empty; it must be a JSON object"),
            ("[]", "the body must be a JSON object"),
            ("{\"model\":\"m\",}", "the body is not valid JSON from byte 13 on"),
            ("{\"model\":\"m\"} // x", "the body is not valid JSON from byte 14 on"),
            ("{\"model\":\"\\ud800\"}", "the body has a \\u escape that is half a character"),
        ] {
            refused(dialect, body, message);
        }
        assert!(read_request(dialect, b"{\"model\":\"\xff\"}").is_err());
        assert!(read_request(dialect, b"<html></html>").is_err());
        let deep = format!("{{\"messages\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        refused(dialect, &deep, "the body is nested deeper than 128 levels");
    }
}

#[test]
fn wrong_roles_empty_messages_and_unknown_parts() {
    let chat = |messages: &str, message: &str| {
        refused(Dialect::Chat, &format!(r#"{{"model":"m","messages":{messages}}}"#), message);
    };
    chat("[]", "messages: has no message of a user");
    chat("{}", "messages: must be an array, not an object");
    chat("[5]", "messages[0]: must be an object, not \"5\"");
    chat(r#"[{"content":"x"}]"#, "messages[0].role: is missing");
    chat(r#"[{"role":"robot","content":"x"}]"#, "messages[0].role: must be system, developer, user, assistant or tool");
    chat(r#"[{"role":"user"}]"#, "messages[0].content: is missing");
    chat(r#"[{"role":"user","content":5}]"#, "messages[0].content: must be a string or an array of parts, not \"5\"");
    chat(r#"[{"role":"system","content":"x"}]"#, "messages: has no message of a user");
    chat(r#"[{"role":"user","content":[{"text":"x"}]}]"#, "messages[0].content[0].type: is missing");
    chat(
        r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%%%"}}]}]"#,
        "messages[0].content[0].image_url.url: the data is not base64",
    );
    chat(
        r#"[{"role":"user","content":"x"},{"role":"tool","tool_call_id":"call_9","content":"x"}]"#,
        "messages: a tool result answers the call \"call_9\", which no message before it makes",
    );
    chat(r#"[{"role":"user","content":"x","role":"system"}]"#, "messages[0].role: is given twice");
    let messages = |messages: &str, message: &str| {
        refused(Dialect::Messages, &format!(r#"{{"model":"m","max_tokens":5,"messages":{messages}}}"#), message);
    };
    messages("[]", "messages: has no message of a user");
    messages(r#"[{"role":"tool","content":"x"}]"#, "messages[0].role: must be user, assistant or system");
    messages(r#"[{"role":"user","content":[{"type":"text"}]}]"#, "messages[0].content[0].text: is missing");
    messages(
        r#"[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"~"}}]}]"#,
        "messages[0].content[0].source.data: the data is not base64",
    );
    messages(
        r#"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}]"#,
        "messages: a tool result answers the call \"t\", which no message before it makes",
    );
    messages(
        r#"[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":"{}"}]}]"#,
        "messages[0].content[0].input: must be an object, not a string",
    );
    let gemini =
        |contents: &str, message: &str| refused(Dialect::Gemini, &format!(r#"{{"contents":{contents}}}"#), message);
    gemini("[]", "contents: has no message of a user");
    gemini(r#"[{"role":"system","parts":[{"text":"x"}]}]"#, "contents[0].role: must be user or model");
    gemini(
        r#"[{"parts":[{}]}]"#,
        "contents[0].parts[0]: must have text, inlineData, fileData, functionCall or functionResponse",
    );
    gemini(
        r#"[{"parts":[{"functionResponse":{"name":"f","response":{}}}]}]"#,
        "contents[0].parts[0].functionResponse: answers no functionCall before it",
    );
    gemini(
        r#"[{"parts":[{"inlineData":{"mimeType":"image/png","data":"="}}]}]"#,
        "contents[0].parts[0].inlineData.data: the data is not base64",
    );
    let responses = |input: &str, message: &str| {
        refused(Dialect::Responses, &format!(r#"{{"model":"m","input":{input}}}"#), message)
    };
    responses("[]", "input: has no message of a user");
    responses(r#"[{"role":"robot","content":"x"}]"#, "input[0].role: must be system, developer, user or assistant");
    responses(
        r#"[{"type":"function_call_output","call_id":"c","output":"x"}]"#,
        "input: a tool result answers the call \"c\", which no message before it makes",
    );
}

#[test]
fn u_24_numbers_as_strings_and_fields_given_twice() {
    const CHAT: &str = r#""model":"m","messages":[{"role":"user","content":"x"}]"#;
    let chat = |field: &str, message: &str| refused(Dialect::Chat, &format!("{{{CHAT},{field}}}"), message);
    chat(r#""max_tokens":"100""#, "max_tokens: must be a whole number between 0 and 1000000000, not a string");
    chat(r#""max_tokens":1.5"#, "max_tokens: must be a whole number between 0 and 1000000000, not \"1.5\"");
    chat(r#""temperature":"0.5""#, "temperature: must be a number between 0 and 2, not a string");
    chat(r#""temperature":3"#, "temperature: must be a number between 0 and 2, not \"3\"");
    chat(r#""n":0"#, "n: must be between 1 and 128");
    chat(r#""stream":"true""#, "stream: must be true or false, not a string");
    chat(r#""model":"other""#, "model: is given twice");
    chat(r#""Model":"other""#, "Model: must be written as model");
    chat(
        r#""ma\u017f_tokens":"other""#.replace("ma\\u017f", "ma\\u0078").as_str(),
        "max_tokens: must be a whole number between 0 and 1000000000, not a string",
    );
    chat(r#""response_format":{"type":"xml"}"#, "response_format.type: must be text, json_object or json_schema");
    chat(r#""tool_choice":"maybe""#, "tool_choice: must be auto, none, required or an object that names a tool");
    chat(r#""tools":[{"type":"function"}]"#, "tools[0].function: is missing");
    chat(
        r#""tools":[{"type":"function","function":{"name":"a\nb"}}]"#,
        "tools[0].function.name: must have 1 to 256 characters, none of them a control character",
    );
    let both =
        r#"{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"maxOutputTokens":5,"max_output_tokens":6}}"#;
    refused(Dialect::Gemini, both, "generationConfig.maxOutputTokens: is given twice");
    let missing = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    refused(Dialect::Messages, missing, "max_tokens: is missing");
}

#[test]
fn c_07_lists_and_fields_are_bounded_and_read_in_linear_time() {
    let extras: Vec<String> = (0..100).map(|index| format!("\"x{index}\":0")).collect();
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{}}}"#, extras.join(","));
    refused(Dialect::Chat, &body, "the body: has more than 64 unknown fields");
    let messages = r#"{"role":"user","content":"x"},"#.repeat(100_001);
    let body = format!(r#"{{"model":"m","messages":[{}]}}"#, messages.trim_end_matches(','));
    refused(Dialect::Chat, &body, "messages: has more than 100000 elements");
    let stops = "\"x\",".repeat(100_000);
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"stop":[{}]}}"#,
        stops.trim_end_matches(',')
    );
    refused(Dialect::Chat, &body, "stop: has more than 64 elements");
}

/// U-16: what is no answer is none, whatever the status was.
#[test]
fn u_16_a_good_status_is_not_an_answer() {
    for dialect in PROVIDERS {
        for body in
            ["", "{}", "null", "[]", "<html>", "data: {}", r#"{"error":{"message":"no money"}}"#, "{\"choices\":["]
        {
            assert!(read_answer(dialect, body.as_bytes(), &quirks(dialect)).is_err(), "{}: {body}", dialect.name());
        }
        for (case, body) in cases(dialect, "answer") {
            for cut in 0..body.trim_ascii_end().len() {
                assert!(read_answer(dialect, &body[..cut], &quirks(dialect)).is_err(), "{case} cut at {cut}");
            }
        }
    }
}

/// U-12: other line ends, comments, missing terminators and a byte order mark change nothing.
#[test]
fn u_12_streams_are_read_whatever_their_line_ends() {
    for dialect in SPOKEN {
        for (case, stream) in cases(dialect, "stream") {
            let whole = events(dialect, &[&stream]);
            let text = String::from_utf8(stream).unwrap().replace("\r\n", "\n");
            let forms = [
                text.replace('\n', "\r"),
                text.replace('\n', "\r\n"),
                format!("\u{feff}{text}"),
                format!(": comment\n\n{}", text.replace("\n\n", "\nid: 7\n: comment\nretry: 5\n\n\n")),
                text.trim_end().to_owned(),
            ];
            for form in forms {
                assert_eq!(events(dialect, &[form.as_bytes()]), whole, "{case} of {}: {form}", dialect.name());
            }
        }
    }
}

#[test]
fn u_14_u_17_broken_events_and_errors_are_told_and_end_nothing_well() {
    for dialect in SPOKEN {
        let seen = |data: &str| events(dialect, &[format!("data: {data}\n\n").as_bytes()]);
        for data in ["{", "x", "5", "[]", "{\"a\":\"\\ud800\"}", "<html>"] {
            assert_eq!(seen(data), ["Unreadable"], "{}: {data}", dialect.name());
        }
        let error = r#"{"error":{"message":"slow down","code":429}}"#;
        let failed = events(dialect, &[format!("data: {error}\n\ndata: {{}}\n\ndata: [DONE]\n\n").as_bytes()]);
        assert_eq!(failed, [format!("Failed {{ data: {error:?} }}")], "{}", dialect.name());
    }
    let typed = [
        (Dialect::Messages, r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#),
        (Dialect::Responses, r#"{"type":"error","sequence_number":2,"code":"insufficient_quota","message":"x"}"#),
        (Dialect::Responses, r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"x"}}}"#),
        (Dialect::Chat, r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error","error":{"code":502}}]}"#),
    ];
    for (dialect, data) in typed {
        let failed = events(dialect, &[format!("event: error\ndata: {data}\n\n").as_bytes()]);
        assert_eq!(failed, [format!("Failed {{ data: {data:?} }}")]);
    }
}

/// Servers that imitate chat break its rules in many ways; the answer is the same.
#[test]
fn chat_streams_of_imitators_are_read() {
    let stream = |deltas: &[&str]| {
        let chunk =
            |delta: &&str| format!("data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,{delta}}}]}}\n\n");
        let stream: String = deltas.iter().map(chunk).collect();
        events(Dialect::Chat, &[stream.as_bytes()])
    };
    let calls = |events: Vec<String>| -> Vec<String> {
        events.into_iter().filter(|event| event.contains("ToolCall") || event.contains("Arguments")).collect()
    };
    let expected = [
        r#"PartStart { choice: 0, part: 0, start: ToolCall { id: "a", name: "f", kind: Function } }"#,
        r#"Delta { choice: 0, part: 0, delta: Arguments("{}") }"#,
        r#"PartStart { choice: 0, part: 1, start: ToolCall { id: "b", name: "g", kind: Function } }"#,
        r#"Delta { choice: 0, part: 1, delta: Arguments("{}") }"#,
        "Stop { choice: 0, stop: Stop { reason: ToolCall, sequence: None } }",
    ];
    let finish = r#""delta":{},"finish_reason":"stop""#;
    // Whole calls at once, without index.
    let whole = r#""delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","function":{"name":"g","arguments":"{}"}}]}"#;
    assert_eq!(calls(stream(&[whole, finish])), expected);
    // The same index for every call, told apart by id.
    let one = r#""delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#;
    let two = r#""delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}]}"#;
    assert_eq!(calls(stream(&[one, two, finish])), expected);
    // Arguments as the object that they are, and an empty finish reason before the real one.
    let object =
        r#""delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":{}}}]},"finish_reason":"""#;
    assert_eq!(calls(stream(&[object, two, finish])), expected);
    // Id and name in every piece.
    let first = r#""delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}]}"#;
    let second = r#""delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"}"}}]}"#;
    let seen = calls(stream(&[first, second, finish]));
    assert_eq!(seen.iter().filter(|event| event.starts_with("PartStart")).count(), 1, "{seen:?}");
    // Content in parts, thinking among them; usage within the choice; no end.
    let parts = r#""delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"ok"}]}"#;
    let kimi = r#""delta":{},"finish_reason":"stop","usage":{"prompt_tokens":8,"completion_tokens":1}"#;
    let seen = stream(&[parts, kimi]);
    assert!(seen.iter().any(|event| event.contains("Reasoning(\"hm\")")), "{seen:?}");
    assert!(seen.iter().any(|event| event.contains("Text(\"ok\")")), "{seen:?}");
    assert!(seen.iter().any(|event| event.starts_with("Usage")), "{seen:?}");
    assert_eq!(seen.last().map(String::as_str), Some("End"));
}

/// What is written must be JSON, whatever was read.
fn translate_everywhere(from: Dialect, body: &[u8]) {
    let Ok(request) = read_request(from, body) else { return };
    for to in PROVIDERS {
        let quirks = quirks(to);
        if let Ok(written) = write_request(to, &request, &Target::new("upstream", &quirks)) {
            let sound = serde_json::from_slice::<serde_json::Value>(&written.body);
            assert!(sound.is_ok(), "{sound:?}: {}", String::from_utf8_lossy(&written.body));
        }
    }
}

fn observe(dialect: Dialect, stream: &[u8]) {
    let mut cutter = EventReader::new(1 << 20);
    cutter.push(Bytes::copy_from_slice(stream));
    let mut reader = StreamReader::new(dialect, &quirks(dialect));
    let mut ended = false;
    let mut sink = |event: Event<'_>| {
        assert!(!ended, "{event:?} after the end");
        ended = matches!(event, Event::End | Event::Failed { .. });
    };
    while let Some(event) = cutter.finish() {
        if let Some(data) = event.data() {
            reader.read(&data, &mut sink);
        }
    }
    reader.finish(&mut sink);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Good requests with some bytes changed, or a piece of one put into another, are answered, and what is written of
    /// them is JSON.
    #[test]
    fn c_10_broken_requests_are_answered(
        (from, to) in (0..CALLERS.len(), 0..CALLERS.len()),
        (case, other) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        (start, end, at) in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        noise in "[\\{\\}\\[\\]\",:a0\\\\ ]{0,3}",
    ) {
        let (ours, theirs) = (cases(CALLERS[from], "request"), cases(CALLERS[to], "request"));
        let (body, piece) = (&ours[case.index(ours.len())].1, &theirs[other.index(theirs.len())].1);
        let (start, end) = (start.index(piece.len()), end.index(piece.len()));
        let at = at.index(body.len());
        for dialect in CALLERS {
            translate_everywhere(dialect, &[&body[..at], noise.as_bytes(), &body[at..]].concat());
            translate_everywhere(dialect, &[&body[..at], noise.as_bytes(), &body[at + 1..]].concat());
            translate_everywhere(dialect, &[&body[..at], &piece[start.min(end)..start.max(end)], &body[at..]].concat());
        }
    }

    /// Streams with a change are answered, and nothing comes after an end.
    #[test]
    fn u_14_broken_streams_are_answered(
        from in 0..SPOKEN.len(),
        (case, at) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        noise in "[\\{\\}\\[\\]\",:a0\\\\ \n]{0,4}",
    ) {
        let ours = cases(SPOKEN[from], "stream");
        let stream = &ours[case.index(ours.len())].1;
        let at = at.index(stream.len());
        for dialect in SPOKEN {
            observe(dialect, &[&stream[..at], noise.as_bytes(), &stream[at..]].concat());
            observe(dialect, &[&stream[..at], noise.as_bytes(), &stream[at + 1..]].concat());
        }
    }
}
