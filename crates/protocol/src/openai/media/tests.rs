//! Requests and answers by hand, from OpenAI's, Cohere's and Jina's descriptions.

use super::*;
use crate::openai::Reported;
use domain::{Meter, Usage};
use proptest::prelude::*;

fn read(endpoint: Endpoint, body: &str) -> Request<'_> {
    Request::read(endpoint, None, body.as_bytes()).expect(body)
}

#[test]
fn every_endpoint_is_found_at_its_path() {
    for endpoint in Endpoint::ALL {
        assert_eq!(Endpoint::at(endpoint.path()), Some(endpoint));
    }
    assert_eq!(Endpoint::at("/v2/rerank"), Some(Endpoint::Rerank));
    assert_eq!(Endpoint::at("/v2/moderations"), None);
}

#[test]
fn a_request_is_sent_as_it_came_but_for_its_model() {
    let check = |endpoint, body: &'static str, model: &str, sent: &str| {
        let body = Bytes::from_static(body.as_bytes());
        let request = Request::read(endpoint, None, &body).unwrap();
        assert_eq!(request.forward(&body, model), sent.as_bytes());
    };
    let image = r#"{ "prompt":"a" ,"model" : "d\u0061","n":2}"#;
    check(Endpoint::Images, image, "da", image);
    check(Endpoint::Images, image, "e\"f", r#"{ "prompt":"a" ,"model" : "e\"f","n":2}"#);
    let default = "omni-moderation-latest";
    check(Endpoint::Moderations, r#" {"input":"a"}"#, default, r#" {"model":"omni-moderation-latest","input":"a"}"#);
    check(
        Endpoint::Moderations,
        r#"{"input":"a","model":null}"#,
        default,
        r#"{"input":"a","model":"omni-moderation-latest"}"#,
    );
    let body = Bytes::from_static(image.as_bytes());
    let request = Request::read(Endpoint::Images, None, &body).unwrap();
    assert_eq!(request.forward(&body, "da").as_ptr(), body.as_ptr(), "not a copy");
}

#[test]
fn m_12_a_request_is_bounded_by_what_it_can_take() {
    let calls = |request: &Request<'_>, meter: Meter| request.demand.calls[meter];
    let image = read(Endpoint::Images, r#"{"model":"m","prompt":"abc","n":3}"#);
    assert_eq!((calls(&image, Meter::Image), image.demand.choices), (3, 3));
    assert_eq!(image.demand.answer_tokens, Some(3 * 16_384));
    let priced = image.clone().priced(true, Some(100));
    assert_eq!((priced.demand.answer_tokens, priced.demand.input_tokens_bound), (Some(300), 3 + 128));
    let by_piece = image.priced(false, None);
    assert_eq!((by_piece.demand.answer_tokens, by_piece.demand.input_tokens_bound), (Some(0), 0));
    let speech = read(Endpoint::Speech, r#"{"model":"m","input":"\u00e4\ud83d\ude00b","voice":"v"}"#);
    assert_eq!(calls(&speech, Meter::Character), 3);
    let long = "x".repeat(4_000);
    let body = format!(r#"{{"model":"m","query":"qq","documents":["{long}",{{"text":"b"}}]}}"#);
    let rerank = read(Endpoint::Rerank, &body);
    assert_eq!(calls(&rerank, Meter::Request), 1);
    assert!(rerank.demand.input_tokens_bound > 4_000 + 2 * 2);
    let many = format!(r#"{{"model":"m","query":"q","documents":[{}"b"]}}"#, format!("\"{long}\",").repeat(20));
    assert_eq!(calls(&read(Endpoint::Rerank, &many), Meter::Request), 3, "each of the long ones is eleven");
}

#[test]
fn end_users_come_from_the_body() {
    let user = |body: &str| read(Endpoint::Images, body).demand.end_user.map(Cow::into_owned);
    assert_eq!(user(r#"{"model":"m","prompt":"a","user":"ann"}"#).as_deref(), Some("ann"));
    assert_eq!(user(r#"{"model":"m","prompt":"a","user":""}"#), None);
    let long = format!(r#"{{"model":"m","prompt":"a","user":"{}"}}"#, "x".repeat(129));
    assert!(Request::read(Endpoint::Images, None, long.as_bytes()).is_err());
}

#[test]
fn u_27_bytes_that_are_no_request_are_answered() {
    let check = |body: &[u8], part: &str| {
        let refusal = Request::read(Endpoint::Images, None, body).unwrap_err();
        assert!(refusal.message.contains(part), "{refusal}");
    };
    check(b"", "empty");
    check(b" \n", "empty");
    check(b"[]", "must be a JSON object");
    check(b"{\"model\":\"m\xff\"}", "UTF-8");
    check(b"{\"model\":\"m\"", "not valid JSON");
    check(br#"{"model":"\ud800"}"#, "half a character");
    check("[".repeat(9_999).as_bytes(), "too deep");
    check(br#"{"model":"m","MODEL":"n"}"#, "must be written as model");
    check(b"{\"model\":\"m\",\"\xc5\xbfize\":\"n\"}", "must be written as size");
    check(br#"{"model":"m","prompt":"a","prompt":"b"}"#, "given twice");
}

#[test]
fn boundaries_are_named_once_and_plainly() {
    for (content_type, expected) in [
        ("multipart/form-data; boundary=abc", Some("abc")),
        ("Multipart/Form-Data;boundary=\"a=b\"", Some("a=b")),
        ("multipart/form-data; charset=utf-8; boundary=abc", Some("abc")),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=a; boundary=a", None),
        ("multipart/form-data; boundary=\"a;b\"", None),
        ("multipart/form-data; boundary=\"a b\"", None),
        ("multipart/form-data; boundary*=utf-8''a", None),
        ("multipart/form-data", None),
        ("multipart/mixed; boundary=abc", None),
        ("", None),
    ] {
        assert_eq!(boundary_of(content_type).ok(), expected, "{content_type}");
    }
    assert!(boundary_of(&format!("multipart/form-data; boundary={}", "a".repeat(71))).is_err());
}

#[test]
fn a_form_is_read_where_it_stands() {
    let body = b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper\r\n\
        --b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n\r\n\
        --b\r\nContent-Disposition: form-data; name=\"unknown\"\r\nX-More: 1\r\n\r\n-b2 \xff\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"quoted\\\".wav\"\r\n\r\n\0\r\n-\n\r\n--b--\r\n";
    let request = Request::read(Endpoint::Transcriptions, Some("b"), body).unwrap();
    assert_eq!(request.demand.model, "whisper");
    assert_eq!((request.demand.media.parts, request.demand.media.bytes), (1, 5));
    assert!(matches!(request.demand.model, Cow::Borrowed(_)));
    let body = Bytes::from_static(body);
    let sent = request.forward(&body, "other");
    let at = memchr::memmem::find(&body, b"whisper").unwrap();
    assert_eq!(sent, [&body[..at], b"other", &body[at + 7..]].concat());
}

#[test]
fn u_24_usage_of_media_reaches_the_normal_form() {
    let check = |endpoint, answer: &str, expected: &str| {
        let Ok(Outcome::Complete(facts)) = Facts::read(endpoint, Format::Json, answer.as_bytes()) else {
            panic!("{answer}")
        };
        let tokens = facts.tokens.usage().map(|usage| serde_json::to_string(usage).unwrap());
        let found =
            format!("{:?} {:?} {:?} {:?}", tokens.unwrap_or_default(), facts.images, facts.seconds, facts.units);
        assert_eq!(found.replace('\\', ""), expected, "{answer}");
    };
    // OpenAI's own examples.
    check(
        Endpoint::Images,
        r#"{"created":1713833628,"data":[{"b64_json":"..."}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,
            "input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#,
        r#""{"input":10,"input_image":40,"output_image":50}" Some(1) None None"#,
    );
    check(
        Endpoint::Images,
        r#"{"data":[],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"output_tokens_details":{"text_tokens":20,
            "image_tokens":30}}}"#,
        r#""{"input":50,"output":20,"output_image":30}" Some(0) None None"#,
    );
    check(
        Endpoint::Transcriptions,
        r#"{"text":"Imagine","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,"audio_tokens":10},
            "output_tokens":45,"total_tokens":59}}"#,
        r#""{"input":4,"input_audio":10,"output":45}" None None None"#,
    );
    check(
        Endpoint::Transcriptions,
        r#"{"text":"a","usage":{"type":"duration","seconds":9}}"#,
        r#""" None Some(9) None"#,
    );
    check(
        Endpoint::Transcriptions,
        r#"{"text":"a","duration":8.470000267028809,"usage":null}"#,
        r#""" None Some(9) None"#,
    );
    check(Endpoint::Transcriptions, r#"{"text":"a","duration":"8.0"}"#, r#""" None None None"#);
    check(Endpoint::Translations, r#"{"text":"a","duration":-1}"#, r#""" None None None"#);
    // Mistral
    check(
        Endpoint::Transcriptions,
        r#"{"text":"a","usage":{"prompt_audio_seconds":3,"prompt_tokens":4,"completion_tokens":5,"total_tokens":9}}"#,
        r#""{"input_audio":4,"output":5}" None Some(3) None"#,
    );
    // Cohere, and those that bill tokens
    check(
        Endpoint::Rerank,
        r#"{"id":"0","results":[{"index":3,"relevance_score":0.99}],"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1}}}"#,
        r#""" None None Some(1)"#,
    );
    check(
        Endpoint::Rerank,
        r#"{"results":[],"meta":{"billed_units":{"input_tokens":12.0},"tokens":{"input_tokens":15}}}"#,
        r#""{"input":12}" None None None"#,
    );
    // Jina
    check(Endpoint::Rerank, r#"{"results":[],"usage":{"total_tokens":815}}"#, r#""{"input":815}" None None None"#);
}

#[test]
fn u_27_what_is_no_answer_is_told_from_one() {
    let json = |endpoint, body: &str| Facts::read(endpoint, Format::Json, body.as_bytes());
    for body in ["", "<html></html>", "[]", "{}", r#"{"data":"#, r#"{"data":{}}"#, r#"{"results":[]}"#, "null"] {
        assert_eq!(json(Endpoint::Images, body), Err(Unusable), "{body}");
    }
    for body in
        [r#"{"error":{"message":"m"}}"#, r#"{"error":{"message":"m"},"data":[]}"#, r#"[{"error":{"message":"m"}}]"#]
    {
        assert!(matches!(json(Endpoint::Images, body), Ok(Outcome::Failed(_))), "{body}");
    }
    let text = |body: &str| Facts::read(Endpoint::Translations, Format::Text, body.as_bytes());
    assert!(matches!(text("a < b"), Ok(Outcome::Complete(_))));
    assert!(matches!(text("{curly}"), Ok(Outcome::Complete(_))));
    assert!(matches!(text(r#"{"error":{"message":"m"}}"#), Ok(Outcome::Failed(_))));
    assert_eq!(text(" <!doctype HTML><p>busy"), Err(Unusable));
    assert_eq!(Facts::read(Endpoint::Translations, Format::Text, b"\xff"), Err(Unusable));
    for (subtitles, seconds) in [
        ("1\n00:00:00,000 --> 00:00:04,000\nHi\n\n2\n00:00:04,000 --> 01:02:03,500\nHo\n", 3_724),
        ("WEBVTT\n\n00:01.000 --> 00:04.000 align:start\nHi\n", 4),
        ("words --> x", 0),
    ] {
        let Ok(Outcome::Complete(facts)) = text(subtitles) else { panic!("{subtitles}") };
        assert_eq!(facts.heard_seconds, seconds, "{subtitles}");
    }
}

#[test]
fn u_26_of_a_stream_the_last_usage_counts_and_of_images_each() {
    let observed = |endpoint, events: &[&str]| {
        let mut observer = Observer::new(endpoint);
        let seen = events.iter().map(|event| observer.observe(event.as_bytes())).collect::<Vec<_>>();
        (observer, seen)
    };
    let (observer, seen) = observed(
        Endpoint::Transcriptions,
        &[
            r#"{"type":"transcript.text.delta","delta":"abc"}"#,
            r#"{"type":"transcript.text.done","text":"abc","usage":{"input_tokens":3,"output_tokens":1,"total_tokens":4}}"#,
            "[DONE]",
        ],
    );
    assert_eq!(seen, [Seen::Piece, Seen::Done, Seen::Piece]);
    assert_eq!((observer.is_done(), observer.facts().text_bytes), (true, 3));
    let image = r#"{"type":"image_edit.completed","usage":{"input_tokens":3,"output_tokens":5,"total_tokens":8}}"#;
    let (observer, _) = observed(Endpoint::ImageEdits, &[r#"{"type":"image_edit.partial_image"}"#, image, image]);
    let mut twice = Usage::tokens(6, 0);
    twice[Meter::OutputImage] = 10;
    assert_eq!((observer.facts().images, observer.facts().tokens), (Some(2), Reported::Usage(twice)));
    let (observer, seen) = observed(
        Endpoint::Speech,
        &[r#"{"type":"speech.audio.delta","audio":"AA"}"#, "{", r#"{"error":{"message":"m"}}"#],
    );
    assert_eq!(seen, [Seen::Piece, Seen::Unreadable, Seen::Failed]);
    assert!(!observer.is_done() && observer.error().is_some());
}

#[test]
fn m_30_what_is_reported_is_charged_as_far_as_it_is_possible() {
    let request = read(Endpoint::Images, r#"{"model":"m","prompt":"abc","n":2}"#);
    let charged = |facts: &Facts| request.work.consumed(Endpoint::Images, facts, false);
    let images = |count| Facts { images: Some(count), ..Facts::default() };
    for (came, charged_for) in [(0, 0), (1, 1), (2, 2), (9, 2)] {
        let (usage, estimated) = charged(&images(came));
        assert_eq!((usage[Meter::Image], estimated), (charged_for, false), "{came}");
    }
}

proptest! {
    #[test]
    fn u_27_any_form_is_answered(body in prop::collection::vec(
        prop::sample::select(vec!["--b", "\r\n", "--", "content-disposition: form-data; name=\"model\"", "; filename=\"x\"", "\n", "m", ":", "\"", "content-type: text/plain"]),
        0..24,
    )) {
        let body = body.concat();
        if let Ok(request) = Request::read(Endpoint::Transcriptions, Some("b"), body.as_bytes()) {
            prop_assert!(!request.demand.model.is_empty());
        }
    }

    #[test]
    fn u_27_any_answer_is_read(body in ".{0,80}", is_text: bool) {
        let format = if is_text { Format::Text } else { Format::Json };
        _ = Facts::read(Endpoint::Transcriptions, format, body.as_bytes());
        _ = Observer::new(Endpoint::Speech).observe(body.as_bytes());
    }

    /// M-12: what a request is charged by the gateway's own count is never more than what is held for it.
    #[test]
    fn m_12_our_own_count_is_within_the_bound(
        text in "[a-zäß😀 ]{1,200}",
        n in 1_u64..=10,
        documents in 1_usize..300,
        file in prop::collection::vec(any::<u8>(), 1..4_000),
        heard in 0_u64..1_000_000,
        by_tokens: bool,
    ) {
        let facts = Facts { heard_seconds: heard, ..Facts::default() };
        let json = [
            (Endpoint::Moderations, format!(r#"{{"model":"m","input":"{text}"}}"#)),
            (Endpoint::Images, format!(r#"{{"model":"m","prompt":"{text}","n":{n}}}"#)),
            (Endpoint::Speech, format!(r#"{{"model":"m","input":"{text}","voice":"v"}}"#)),
            (Endpoint::Rerank, format!(r#"{{"model":"m","query":"{text}","documents":["{text}"{}]}}"#, r#","d""#.repeat(documents))),
        ];
        let head = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
        let form = [head.as_bytes(), &file, b"\r\n--b--\r\n"].concat();
        let requests = json.iter().map(|(endpoint, body)| (*endpoint, None, body.as_bytes()));
        for (endpoint, boundary, body) in requests.chain([(Endpoint::Transcriptions, Some("b"), &form[..])]) {
            let request = Request::read(endpoint, boundary, body).unwrap().priced(by_tokens, None);
            let (usage, _) = request.work.consumed(endpoint, &facts, by_tokens);
            prop_assert!(usage.input_tokens() <= request.demand.input_tokens_bound);
            prop_assert!(usage.output_tokens() <= request.demand.answer_tokens.unwrap());
            for meter in Meter::CALLS {
                prop_assert!(usage[meter] <= request.demand.calls[meter], "{endpoint:?} {meter:?}");
            }
        }
    }
}
