//! What is read of requests, and what is refused.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

/// A chat body with more fields.
fn with(fields: &str) -> String {
    CHAT.replacen('{', &format!("{{{fields},"), 1)
}

#[track_caller]
fn read(endpoint: Endpoint, body: &str) -> Request<'_> {
    Request::read(endpoint, body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[track_caller]
fn refused(endpoint: Endpoint, body: &[u8], param: Option<&str>, message: &str) {
    let error = Request::read(endpoint, body).expect_err(&String::from_utf8_lossy(body));
    assert_eq!((error.param, error.message.as_str()), (param, message), "{}", String::from_utf8_lossy(body));
}

#[test]
fn a_plain_request_asks_for_little() {
    let request = read(Endpoint::Chat, CHAT);
    assert!(matches!(request.model, Cow::Borrowed("m")));
    assert_eq!((request.stream, request.include_usage, request.output_cap, request.choices), (false, false, None, 1));
    assert_eq!(request.input_tokens_bound, CHAT.len() as u64 + TEMPLATE_TOKENS_MAX);
    assert!(!(request.has_images || request.has_audio || request.has_files || request.audio_out || request.web_search));
    assert_eq!((request.demand.service_tier, request.demand.end_user, request.demand.cap_field), (None, None, None));
}

#[test]
fn what_decides_the_price_is_read() {
    let body = with(
        r#""stream":true,"stream_options":{"include_usage":true,"x":1},"max_tokens":10,"max_completion_tokens":20,"n":3,
            "service_tier":"flex","modalities":["text","audio"],"audio":{"voice":"v"},"web_search_options":{},"user":"ä \u00e9",
            "metadata":{"a":"b"},"tools":[{"type":"function"}],"seed":1e400,"logit_bias":{"5":-1}"#,
    );
    let request = read(Endpoint::Chat, &body);
    assert!(request.stream && request.include_usage && request.audio_out && request.web_search);
    assert_eq!((request.output_cap, request.cap_field), (Some(20), Some(CapField::MaxCompletionTokens)));
    assert_eq!((request.choices, request.service_tier.as_deref()), (3, Some("flex")));
    assert_eq!(request.end_user.as_deref(), Some("ä é"));
    assert_eq!(request.input_tokens_bound, body.len() as u64 + TEMPLATE_TOKENS_MAX + INSTRUCTION_TOKENS_MAX);
    let bound = request.bound(20);
    assert_eq!((bound.output_tokens, bound.audio_out, bound.service_tier.as_deref()), (60, true, Some("flex")));

    let nulls = with(
        r#""stream":null,"stream_options":null,"max_tokens":null,"n":null,"service_tier":null,"modalities":null,
            "audio":null,"web_search_options":null,"user":null,"tools":null,"enable_search":false"#,
    );
    let request = read(Endpoint::Chat, &nulls);
    assert!(!(request.stream || request.include_usage || request.audio_out || request.web_search));
    assert_eq!((request.output_cap, request.choices, request.demand.end_user), (None, 1, None));
    assert!(read(Endpoint::Chat, &with(r#""models":["a","b"]"#)).names_other_models);
    assert!(read(Endpoint::Chat, &with(r#""modalities":["image"]"#)).images_out);
}

#[test]
fn content_that_is_not_text_is_found() {
    let check = |message: &str, (images, audio, files): (bool, bool, bool)| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"system","content":"s"}},{message}]}}"#);
        let request = read(Endpoint::Chat, &body);
        assert_eq!((request.has_images, request.has_audio, request.has_files), (images, audio, files), "{body}");
    };
    let text = (false, false, false);
    let (images, audio, files) = ((true, false, false), (false, true, false), (false, false, true));
    check(r#"{"role":"user","content":[{"type":"text","text":"{\"type\":\"image_url\"}"}]}"#, text);
    check(r#"{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{}}]}"#, text);
    check(r#"{"role":"assistant","content":[{"type":"refusal","refusal":"no"}],"audio":null}"#, text);
    check(r#"{"role":"user","content":["plain"]}"#, text);
    check(r#"{"role":"user","content":7}"#, text);
    check(r#"{"content":[{"type":"text","text":""},{"type":"image_url","image_url":{"url":"data:"}}]}"#, images);
    check(r#"{"content":[{"image_url":{},"t\u0079pe":"image\u005furl"}]}"#, images);
    check(r#"{"content":{"type":"image_url"}}"#, images);
    check(r#"{"content":[{"type":"image_url"}],"content":"x"}"#, images);
    check(r#"{"Content":[{"Type":"image_url"}]}"#, images);
    check(r#"{"content":[{"type":"image_url","type":"text"}]}"#, images);
    check(r#"{"content":[{"type":"input_audio","input_audio":{}}]}"#, audio);
    check(r#"{"role":"assistant","audio":{"id":"audio_1"}}"#, audio);
    check(r#"{"content":[{"type":"file","file":{}}]}"#, files);
    check(r#"{"content":[{"type":"video_url"}]}"#, files);
    check(r#"{"content":[{"type":5}]}"#, files);
    check(r#"{"content":[{"image_url":{}}]}"#, files);
    let image = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#;
    let body = format!(
        r#"{{"model":"m","messages":[{{"content":[{{"type":"text","text":"a"}},{image},"b"]}},{{"content":{image}}}]}}"#
    );
    assert_eq!(read(Endpoint::Chat, &body).media, Media { parts: 2, bytes: 2 * image.len() as u64 });
}

#[test]
fn prompts_are_counted() {
    let check = |endpoint, fields: &str, choices: u64| {
        let body = format!(r#"{{"model":"m",{fields}}}"#);
        assert_eq!(read(endpoint, &body).choices, choices, "{body}");
    };
    let completions = Endpoint::Completions;
    check(completions, r#""max_tokens":5"#, 1);
    check(completions, r#""prompt":null"#, 1);
    check(completions, r#""prompt":"one","n":2,"best_of":5"#, 5);
    check(completions, r#""prompt":["a","b","c"],"n":2"#, 6);
    check(completions, r#""prompt":[1,2,3]"#, 1);
    check(completions, r#""prompt":[[1,2],[3]],"best_of":2"#, 4);
    check(Endpoint::Embeddings, r#""input":"a""#, 1);
    check(Endpoint::Embeddings, r#""input":["a","b"]"#, 2);
    check(Endpoint::Embeddings, r#""input":[{"image":"data:"}]"#, 1);
    let bad = |endpoint, param, fields: &str, message: &str| {
        refused(endpoint, format!(r#"{{"model":"m"{fields}}}"#).as_bytes(), Some(param), message);
    };
    let kinds = |name| format!("{name} must be a string, an array of strings, or arrays of token numbers");
    bad(completions, "prompt", r#","prompt":[]"#, "prompt must not be empty");
    bad(completions, "prompt", r#","prompt":["a",1]"#, &kinds("prompt"));
    bad(completions, "prompt", r#","prompt":[null]"#, &kinds("prompt"));
    bad(completions, "prompt", r#","prompt":{"a":1}"#, &kinds("prompt"));
    bad(completions, "prompt", r#","prompt":[{"a":1}]"#, &kinds("prompt"));
    bad(Endpoint::Embeddings, "input", "", "input is missing");
    bad(Endpoint::Embeddings, "input", r#","input":true"#, &kinds("input"));
    assert_eq!(read(Endpoint::Embeddings, r#"{"model":"m","input":"a"}"#).bound(100).output_tokens, 0);
}

#[test]
fn end_users_and_tags_are_read_wherever_callers_put_them() {
    let check = |fields: &str, end_user: Option<&str>, tags: &[&str]| {
        let body = with(fields);
        let request = read(Endpoint::Chat, &body);
        assert_eq!(
            (request.end_user.as_deref(), request.tags.iter().map(String::as_str).collect()),
            (end_user, tags.to_vec()),
            "{body}"
        );
    };
    check(r#""user":"ann""#, Some("ann"), &[]);
    check(r#""safety_identifier":"s","user":"ann""#, Some("ann"), &[]);
    check(r#""safety_identifier":"s","user":"""#, Some("s"), &[]);
    check(r#""user":null,"metadata":{"end_user":"e","user_id":"u"}"#, Some("u"), &[]);
    check(r#""user":"","metadata":{"end_user":"e","user_id":null}"#, Some("e"), &[]);
    check(r#""metadata":{"tags":" red, blue,,red ","x":[{}]}"#, None, &["red", "blue"]);
    check(r#""metadata":{"tags":["red","blue,green"]}"#, None, &["red", "blue", "green"]);
    check(r#""metadata":{"tags":null,"user_id":null}"#, None, &[]);
    check(r#""metadata":{"tags":"","Tags":5,"USER_ID":7}"#, None, &[]);
    check(r#""metadata":{"t\u0061gs":"a\u002cb"}"#, None, &["a", "b"]);
    for other in ["null", "[]", "5", "\"x\""] {
        check(&format!(r#""metadata":{other}"#), None, &[]);
    }
    check(&format!(r#""user":"{}""#, "é".repeat(128)), Some(&"é".repeat(128)), &[]);
    let mut tags = vec!["a".to_owned()];
    add_tags(&mut tags, "b, a").unwrap();
    assert_eq!(tags, ["a", "b"]);
}

#[test]
fn c_16_end_users_and_tags_are_short_and_printable() {
    let check = |fields: &str, param: &str, message: &str| {
        refused(Endpoint::Chat, with(fields).as_bytes(), Some(param), message);
    };
    let long = "é".repeat(129);
    check(&format!(r#""user":"{long}""#), "user", "user must have 1 to 128 characters");
    check(r#""user":"a\nb""#, "user", "user must not hold control characters");
    check(r#""user":{}"#, "user", "user must be a string, not {}");
    check(
        r#""user":"a","safety_identifier":"\u0000""#,
        "safety_identifier",
        "safety_identifier must not hold control characters",
    );
    let metadata = |entries: &str, message: &str| check(&format!(r#""metadata":{{{entries}}}"#), "metadata", message);
    metadata(r#""user_id":7"#, "metadata.user_id must be a string, not 7");
    metadata(&format!(r#""end_user":"{long}""#), "metadata.end_user must have 1 to 128 characters");
    metadata(r#""user_id":"a","user\u005fid":"b""#, "metadata.user_id is given twice");
    metadata(r#""tags":"a","tags":"a""#, "metadata.tags is given twice");
    metadata(r#""tags":{}"#, "metadata.tags must be a string, or an array of strings");
    metadata(r#""tags":["a",1]"#, "metadata.tags must be a string, or an array of strings");
    metadata(r#""tags":"a\tb""#, "a tag must not hold control characters");
    metadata(&format!(r#""tags":"{long}""#), "a tag must have 1 to 128 characters");
    metadata(r#""tags":"1,2,3,4,5,6,7,8,9""#, "a request has at most 8 tags");
}

#[test]
fn m_13_m_29_m_32_counts_are_plain_whole_numbers() {
    for field in ["max_tokens", "max_completion_tokens", "n", "best_of"] {
        let most = if field.starts_with("max") { 1_000_000_000 } else { 128 };
        for good in ["1", "128"] {
            read(Endpoint::Chat, &with(&format!(r#""{field}":{good}"#)));
        }
        let numbers = ["0", "-0", "-1", "-5", "1.0", "1.5", "1e3", "1e400", "1000000001", "9007199254740993"];
        let larger = ["9223372036854775808", "18446744073709551616", "\"5\"", "true", "[1]", "{}"];
        for bad in numbers.into_iter().chain(larger) {
            let message = format!("{field} must be a whole number between 1 and {most}, not {bad}");
            refused(Endpoint::Chat, with(&format!(r#""{field}":{bad}"#)).as_bytes(), Some(field), &message);
        }
    }
    refused(
        Endpoint::Chat,
        with(&format!(r#""n":"{}""#, "é".repeat(100))).as_bytes(),
        Some("n"),
        &format!("n must be a whole number between 1 and 128, not \"{}…", "é".repeat(39)),
    );
}

#[test]
fn c_10_m_35_a_field_that_matters_is_given_once_and_by_its_name() {
    for (field, name) in Field::ALL {
        let value = match field {
            Field::Messages => r#"[{"role":"user"}]"#,
            Field::Model => r#""m""#,
            _ => "null",
        };
        let body = with(&format!(r#""{name}":{value},"{name}":{value}"#));
        refused(Endpoint::Chat, body.as_bytes(), Some(name), &format!("{name} is given twice"));
        let escaped = format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]);
        let body = with(&format!(r#""{name}":{value},"{escaped}":{value}"#));
        refused(Endpoint::Chat, body.as_bytes(), Some(name), &format!("{name} is given twice"));
        let loud = name.to_uppercase();
        let body = with(&format!(r#""{loud}":{value}"#));
        refused(Endpoint::Chat, body.as_bytes(), Some(name), &format!("{loud} must be written as {name}"));
    }
    let kelvin = with("\"max_to\u{212a}ens\":1");
    refused(Endpoint::Chat, kelvin.as_bytes(), Some("max_tokens"), "max_to\u{212a}ens must be written as max_tokens");
    let long_s = with("\"me\u{17f}\u{17f}ages\":1");
    refused(Endpoint::Chat, long_s.as_bytes(), Some("messages"), "me\u{17f}\u{17f}ages must be written as messages");
    let twice = with(r#""stream_options":{"include_usage":true,"include_usage":false}"#);
    refused(Endpoint::Chat, twice.as_bytes(), Some("stream_options"), "stream_options.include_usage is given twice");
    let loud = with(r#""stream_options":{"Include_Usage":true}"#);
    refused(Endpoint::Chat, loud.as_bytes(), Some("stream_options"), "Include_Usage must be written as include_usage");
    // What we do not read is not ours to refuse.
    read(Endpoint::Chat, &with(r#""seed":1,"seed":2,"SEED":3"#));
}

#[test]
fn c_10_c_23_a_body_is_one_json_object() {
    let check = |body: &[u8], message: &str| refused(Endpoint::Chat, body, None, message);
    check(b"", "the body is empty; it must be a JSON object");
    check(b" \n", "the body is empty; it must be a JSON object");
    check(b"[]", "the body must be a JSON object");
    check(b"\"{}\"", "the body must be a JSON object");
    check(b"\xef\xbb\xbf{}", "the body must be a JSON object");
    check(b"{\"model\":\"\xff\"}", "the body is not valid UTF-8");
    check(b"{\"model\":\"\xc0\xaf\"}", "the body is not valid UTF-8");
    for (tail, what) in [
        ("x", "trailing characters"),
        ("{}", "trailing characters"),
        ("// x", "trailing characters"),
        ("\0", "trailing characters"),
    ] {
        let message = format!("the body is not valid JSON: {what} at line 1 column {}", CHAT.len() + 1);
        check(format!("{CHAT}{tail}").as_bytes(), &message);
    }
    for broken in [
        "{",
        r#"{"model":"m",}"#,
        r#"{/**/"model":"m"}"#,
        "{'model':1}",
        "{\"model\":\"a\nb\"}",
        r#"{"max_tokens":01}"#,
    ] {
        let error = Request::read(Endpoint::Chat, broken.as_bytes()).expect_err(broken);
        assert!(error.message.starts_with("the body is not valid JSON: "), "{error}");
    }
}

#[test]
fn fields_of_the_wrong_kind_are_refused() {
    let check = |body: &str, param: &str, message: &str| refused(Endpoint::Chat, body.as_bytes(), Some(param), message);
    check("{}", "messages", "messages is missing");
    check(r#"{"messages":[{}]}"#, "model", "model is missing");
    check(r#"{"model":null,"messages":[{}]}"#, "model", "model is missing");
    check(r#"{"model":5,"messages":[{}]}"#, "model", "model must be a string, not 5");
    check(r#"{"model":"","messages":[{}]}"#, "model", "model must have 1 to 256 characters");
    let long = format!(r#"{{"model":"{}","messages":[{{}}]}}"#, "é".repeat(257));
    check(&long, "model", "model must have 1 to 256 characters");
    read(Endpoint::Chat, &long.replacen('é', "", 1));
    // C-16
    check(r#"{"model":"a\r\nb","messages":[{}]}"#, "model", "model must not hold control characters");
    check(r#"{"model":"a\u0085","messages":[{}]}"#, "model", "model must not hold control characters");
    for messages in ["null", "5", "-5", "0.5", "true", "\"hi\"", r#"{"role":"user","content":[1]}"#] {
        check(&format!(r#"{{"model":"m","messages":{messages}}}"#), "messages", "messages must be an array of objects");
    }
    check(r#"{"model":"m","messages":[]}"#, "messages", "messages must not be empty");
    for message in ["null", "5", "-5", "0.5", "true", "\"hi\"", "[{}]"] {
        let body = format!(r#"{{"model":"m","messages":[{{}},{message},{message}]}}"#);
        check(&body, "messages", "messages[1] must be an object");
    }
    check(&with(r#""stream":"true""#), "stream", "stream must be true or false, not \"true\"");
    check(&with(r#""stream":1"#), "stream", "stream must be true or false, not 1");
    check(&with(r#""stream_options":[]"#), "stream_options", "stream_options must be an object, not []");
    check(
        &with(r#""stream_options":{"include_usage":1}"#),
        "stream_options",
        "stream_options.include_usage must be true or false",
    );
    check(&with(r#""service_tier":1"#), "service_tier", "service_tier must be a string, not 1");
    check(&with(r#""service_tier":"a\nb""#), "service_tier", "service_tier must not hold control characters");
    check(&with(r#""modalities":"audio""#), "modalities", "modalities must be an array of strings, not \"audio\"");
    check(&with(r#""modalities":[1]"#), "modalities", "modalities must be an array of strings, not [1]");
}

#[test]
fn c_07_c_08_size_and_nesting_exhaust_nothing() {
    let deep = |depth: usize| with(&format!(r#""x":{}{}"#, "[".repeat(depth), "]".repeat(depth)));
    read(Endpoint::Chat, &deep(127));
    for depth in [128, 10_000, 1_000_000] {
        refused(Endpoint::Chat, deep(depth).as_bytes(), None, "the body is nested deeper than 128 levels");
    }
    for opening in ["[", "{\"a\":", "{\"messages\":[{\"content\":[", "[{"] {
        assert!(Request::read(Endpoint::Chat, opening.repeat(100_000).as_bytes()).is_err());
    }
    let message = r#"{"role":"user","content":[{"type":"text","text":"x"}]}"#;
    read(Endpoint::Chat, &format!(r#"{{"model":"m","messages":[{}{message}]}}"#, format!("{message},").repeat(10_000)));
    let keys: String = (0..100_000).map(|number| format!(r#""k{number}":{number},"#)).collect();
    read(Endpoint::Chat, &with(keys.trim_end_matches(',')));
    for letter in ["a", " ", "😀", "\\n", "\\u0041", "\\ud83d\\ude00"] {
        read(Endpoint::Chat, &with(&format!(r#""note":"{}""#, letter.repeat(100_000))));
    }
}

#[test]
fn c_09_half_a_character_is_refused() {
    let body = CHAT.replace("hi", "\\ud83d");
    refused(Endpoint::Chat, body.as_bytes(), None, "the body has a \\u escape that is half a character");
    read(Endpoint::Chat, &CHAT.replace("hi", "\\ud83d\\ude00 \\\\ud83d"));
}

#[track_caller]
fn forwarded(body: &str, edits: Edits<'_>, expected: &str) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let request = Request::read(Endpoint::Chat, &body).unwrap();
    let found = request.forward(&body, &edits);
    assert_eq!(found, expected);
    assert_eq!(found.as_ptr() == body.as_ptr(), found == body, "copied exactly when changed");
}

#[test]
fn edits_touch_nothing_else() {
    let usage = Edits { include_usage: true, ..Edits::default() };
    let model = |model| Edits { model: Some(model), ..Edits::default() };
    let cap = |field, cap| Edits { output_cap: Some((field, cap)), ..Edits::default() };
    let messages = r#""messages":[ {"content":"é\u00e9"} ]"#;
    let body = |fields: &str| format!("\n{{ \"x\": 1.0e+2, {fields}{messages}}}\t");
    let plain = body(r#""model": "a","#);
    forwarded(&plain, Edits::default(), &plain);
    forwarded(&plain, model("a"), &plain);
    forwarded(&plain, usage, &plain);
    forwarded(&plain, model("b\"c"), &body(r#""model": "b\"c","#));
    let escaped = body(r#""model": "\u0061","#);
    forwarded(&escaped, model("a"), &escaped);
    forwarded(&escaped, model("b"), &body(r#""model": "b","#));

    let check = |before: &str, after: &str| forwarded(&body(before), usage, &body(after));
    check(
        r#""model":"a","stream":true,"stream_options":null,"#,
        r#""model":"a","stream":true,"stream_options":{"include_usage":true},"#,
    );
    check(
        r#""model":"a","stream":true,"stream_options": { } ,"#,
        r#""model":"a","stream":true,"stream_options": {"include_usage":true } ,"#,
    );
    check(
        r#""model":"a","stream":true,"stream_options":{"include_obfuscation":false},"#,
        r#""model":"a","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},"#,
    );
    for value in ["false", "null"] {
        check(
            &format!(r#""model":"a","stream":true,"stream_options":{{"x":[],"include_usage" : {value} }},"#),
            r#""model":"a","stream":true,"stream_options":{"x":[],"include_usage" : true },"#,
        );
    }
    let asked = r#""model":"a","stream":true,"stream_options":{"include_usage":true},"#;
    check(asked, asked);
    let absent = r#"{"stream":true,"model":"a","messages":[{}]}"#;
    forwarded(absent, usage, r#"{"stream_options":{"include_usage":true},"stream":true,"model":"a","messages":[{}]}"#);

    use CapField::{MaxCompletionTokens, MaxTokens};
    let check = |field, before: &str, after: &str| forwarded(&with(before), cap(field, 50), &with(after));
    check(MaxTokens, r#""max_tokens":100"#, r#""max_tokens":50"#);
    check(MaxTokens, r#""max_tokens":null"#, r#""max_tokens":50"#);
    check(MaxTokens, r#""max_tokens":50"#, r#""max_tokens":50"#);
    check(MaxTokens, r#""a":1"#, r#""max_tokens":50,"a":1"#);
    check(MaxTokens, r#""max_tokens":10"#, r#""max_tokens":10"#);
    check(MaxCompletionTokens, r#""max_tokens":100"#, r#""max_tokens":50"#);
    check(MaxCompletionTokens, r#""max_tokens":10"#, r#""max_tokens":10"#);
    check(
        MaxCompletionTokens,
        r#""max_tokens":null,"max_completion_tokens":null"#,
        r#""max_tokens":null,"max_completion_tokens":50"#,
    );
    check(MaxTokens, r#""max_completion_tokens":70,"max_tokens":60"#, r#""max_completion_tokens":50,"max_tokens":50"#);
    check(MaxTokens, r#""max_completion_tokens":70,"max_tokens":40"#, r#""max_completion_tokens":50,"max_tokens":40"#);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\]{1,6}", inner, 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A JSON number that is not always a cap.
fn cap_value() -> impl Strategy<Value = Option<Value>> {
    prop::option::of(prop_oneof![Just(Value::Null), (1_u64..100).prop_map(Value::from)])
}

proptest! {
    /// C-10, M-35: the edited body differs from the original by the edits and nothing else.
    #[test]
    fn c_10_m_35_what_is_forwarded_is_what_was_read_and_edited(
        (content, extra) in (any::<String>(), value()),
        (model, other_model) in ("\\PC{1,20}", prop::option::of("\\PC{1,20}")),
        (stream, include_usage) in any::<(bool, bool)>(),
        options in prop::option::of(prop::sample::select(vec!["null", "{}", "{\"a\":1}", "{\"a\":1,\"include_usage\":false}", "{\"include_usage\":true}"])),
        (older, newer) in (cap_value(), cap_value()),
        cap in prop::option::of((any::<bool>(), 1_u64..100)),
        pretty in any::<bool>(),
    ) {
        let mut original = json!({"model": model, "messages": [{"role": "user", "content": content}], "stream": stream, "extra": extra});
        for (name, value) in [("max_tokens", older), ("max_completion_tokens", newer)] {
            if let Some(value) = value {
                original[name] = value;
            }
        }
        if let Some(options) = options {
            original["stream_options"] = serde_json::from_str(options).unwrap();
        }
        let body = if pretty { serde_json::to_vec_pretty(&original) } else { serde_json::to_vec(&original) };
        let body = Bytes::from(body.unwrap());
        let request = Request::read(Endpoint::Chat, &body).unwrap();
        prop_assert_eq!(&request.model, &model);
        let output_cap = cap.map(|(newer, cap)| {
            (if newer { CapField::MaxCompletionTokens } else { CapField::MaxTokens }, cap)
        });
        let edited = request.forward(&body, &Edits { model: other_model.as_deref(), include_usage, output_cap });

        let mut expected = original.clone();
        if let Some(other_model) = &other_model {
            expected["model"] = json!(other_model);
        }
        if include_usage && stream {
            expected["stream_options"]["include_usage"] = json!(true);
        }
        if let Some((field, cap)) = output_cap {
            let both = [CapField::MaxTokens, CapField::MaxCompletionTokens].map(CapField::name);
            if both.iter().all(|name| expected[name].is_null()) {
                expected[field.name()] = json!(cap);
            }
            for name in both {
                if expected[name].as_u64().is_some_and(|given| given > cap) {
                    expected[name] = json!(cap);
                }
            }
        }
        prop_assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), expected);
        // What was edited reads as it was meant.
        let again = Request::read(Endpoint::Chat, &edited).unwrap();
        prop_assert_eq!(&again.model, other_model.as_ref().unwrap_or(&model));
        if let Some((_, cap)) = output_cap {
            prop_assert_eq!(again.output_cap, Some(request.output_cap.map_or(cap, |given| given.min(cap))));
        }
        prop_assert!(!include_usage || !stream || again.include_usage);
    }

    /// C-07, C-09: nothing panics, and what is accepted is what another parser reads.
    #[test]
    fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for endpoint in Endpoint::ALL {
            _ = Request::read(endpoint, &body);
        }
    }

    #[test]
    fn c_10_accepted_bodies_read_the_same_elsewhere(
        body in r#"\{("model"|"Model"|"n"|"messages"|"prompt"|"input"|"stream"|"x"|:|,|\{|\}|\[|\]|"a"|1|-1|null|true|[ ]){0,24}\}"#,
    ) {
        for endpoint in Endpoint::ALL {
            if let Ok(request) = Request::read(endpoint, body.as_bytes()) {
                let value: Value = serde_json::from_str(&body).unwrap();
                prop_assert_eq!(value["model"].as_str(), Some(&*request.model));
                prop_assert_eq!(value["stream"].as_bool().unwrap_or(false), request.stream);
            }
        }
    }

    #[test]
    fn c_10_a_broken_byte_never_changes_what_is_billed(at in 0..CHAT.len(), byte in any::<u8>()) {
        let mut body = with(r#""max_tokens":100"#).into_bytes();
        body[at] = byte;
        if let Ok(request) = Request::read(Endpoint::Chat, &body) {
            let value: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(value["model"].as_str(), Some(&*request.model));
            prop_assert_eq!(value["max_tokens"].as_u64(), request.output_cap);
        }
    }
}
