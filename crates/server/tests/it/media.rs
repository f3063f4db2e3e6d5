//! The endpoints beside text: what they are charged, what is sent, and what goes wrong with them.

use crate::harness::{Gateway, Outcome, amount};
use crate::http::{Answer, Caller, Connection, Incoming, PATIENCE, eventually, within};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::mock::Script;
use std::io;

const BOUNDARY: &str = "----formdata-7MA4YWxkTrZu0gW";

/// Model, what the upstream calls it, and its price.
const MODELS: [(&str, &str, &str); 13] = [
    ("omni-moderation-latest", "omni-moderation-latest", "free = true"),
    ("priced-moderation", "priced-moderation", "input_per_million = \"1.00\""),
    ("rerank-v3.5", "rerank-v3.5", "per_request = \"0.002\""),
    ("jina-reranker", "jina-reranker", "input_per_million = \"0.05\""),
    ("dall-e-3", "dall-e-3", "per_image = \"0.04\""),
    // The price of one look of it; nobody asks for it by that name.
    ("hd/1024-x-1792/dall-e-3", "-", "per_image = \"0.12\""),
    (
        "gpt-image-1",
        "gpt-image-1",
        "input_per_million = \"5.00\"\ninput_image_per_million = \"10.00\"\noutput_image_per_million = \"40.00\"",
    ),
    ("tts-1", "tts-1", "per_character = \"0.000015\""),
    (
        "gpt-4o-mini-tts",
        "gpt-4o-mini-tts",
        "input_per_million = \"0.60\"\noutput_per_million = \"10.00\"\noutput_audio_per_million = \"12.00\"",
    ),
    ("whisper-1", "whisper-1", "per_second = \"0.0001\""),
    ("our-ear", "whisper-large", "per_second = \"0.0001\""),
    ("our-eye", "gpt-image-1-mini", "output_image_per_million = \"8.00\""),
    (
        "gpt-4o-transcribe",
        "gpt-4o-transcribe",
        "input_per_million = \"2.50\"\ninput_audio_per_million = \"6.00\"\noutput_per_million = \"10.00\"\nmax_output_tokens = 2000",
    ),
];

/// A gateway with the models above.
async fn gateway() -> Gateway {
    gateway_with("").await
}

async fn gateway_with(more: &str) -> Gateway {
    let mut sections = more.to_owned();
    for (model, upstream_model, price) in MODELS {
        sections.push_str(&format!(
            "[[routes]]\nmodel = \"{model}\"\nupstream_model = \"{upstream_model}\"\nupstreams = [\"mock\"]\n\
             [[prices]]\nmodel = \"{model}\"\n{price}\n"
        ));
    }
    Gateway::start_with(&sections).await
}

/// A request of any kind, up to the head of its answer.
async fn begin(caller: &Caller, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Incoming> {
    let Caller { address, key } = caller;
    let size = body.len();
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nte: trailers\r\n{more}\
         content-length: {size}\r\n\r\n"
    );
    let mut connection = Connection::open(caller.address).await?;
    connection.send(&[head.as_bytes(), body].concat()).await?;
    connection.incoming().await
}

async fn post(caller: &Caller, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let exchange = async { begin(caller, path, headers, body).await?.whole().await };
    within(PATIENCE, "an answer", exchange).await.expect("a whole answer")
}

async fn ask(caller: &Caller, path: &str, body: Value) -> Answer {
    post(caller, path, &[("content-type", "application/json")], body.to_string().as_bytes()).await
}

fn form_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

async fn send_form(caller: &Caller, path: &str, body: &[u8]) -> Answer {
    post(caller, path, &[("content-type", &form_type())], body).await
}

fn field(name: &str, value: &str) -> Vec<u8> {
    format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.bin\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    [head.as_bytes(), bytes, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

/// So many seconds of silence: 8,000 bytes a second.
fn wav(seconds: u32) -> Vec<u8> {
    let size = 8_000 * seconds;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend_from_slice(&(36 + size).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data");
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.resize(44 + size as usize, 0x80);
    bytes
}

/// A request, what of it must be charged, by which usage, and whether the gateway had to count itself.
struct Case {
    path: &'static str,
    body: Vec<u8>,
    is_form: bool,
    cost: &'static str,
    usage: Value,
    estimated: bool,
}

fn json_case(path: &'static str, body: Value, cost: &'static str, usage: Value, estimated: bool) -> Case {
    Case { path, body: body.to_string().into_bytes(), is_form: false, cost, usage, estimated }
}

fn form_case(path: &'static str, parts: &[Vec<u8>], cost: &'static str, usage: Value, estimated: bool) -> Case {
    Case { path, body: form(parts), is_form: true, cost, usage, estimated }
}

async fn check(gateway: &Gateway, case: Case) -> Answer {
    let Case { path, body, is_form, cost, usage, estimated } = case;
    let shown = String::from_utf8_lossy(&body).into_owned();
    let kind = if is_form { form_type() } else { "application/json".to_owned() };
    let answer = post(&gateway.caller, path, &[("content-type", &kind)], &body).await;
    assert_eq!(answer.status, 200, "{path} {shown}: {}", answer.text());
    let cost: Nanos = cost.parse().expect("an amount");
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::Complete), "{path} {shown}");
    assert_eq!((&fate.usage, fate.cost, fate.estimated), (&usage, cost, estimated), "{path} {shown}");
    assert!(fate.held >= fate.cost, "{path} {shown}: {fate:?}");
    assert_eq!(answer.cost(), Some(cost), "{path} {shown}");
    answer
}

const MODERATIONS: &str = "/v1/moderations";
const RERANK: &str = "/v1/rerank";
const IMAGES: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";
const SPEECH: &str = "/v1/audio/speech";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";

#[tokio::test]
async fn m_01_moderations_and_reranking_cost_what_is_reported() {
    let mut gateway = gateway().await;
    let silent = json!({"usage": "missing"});
    let documents = |count: usize| vec![json!("a document"); count];
    // Nothing is said of tokens: four bytes are taken for one. A request that names no model is of OpenAI's default.
    let free =
        json!({"input": ["hello there", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]});
    check(&gateway, json_case(MODERATIONS, free, "0.00", json!({"input": 3, "input_image": 1000}), true)).await;
    let asked = gateway.mock.stats().recent.pop().expect("a request");
    assert!(asked.body.starts_with(r#"{"model":"omni-moderation-latest","input":"#), "{}", asked.body);
    let priced = json!({"model": "priced-moderation", "input": "12345678"});
    check(&gateway, json_case(MODERATIONS, priced, "0.000003", json!({"input": 3}), true)).await;

    let of = |model: &str, count, script: &Value| json!({"model": model, "query": "q", "documents": documents(count), "top_n": 2, "mock": script});
    let nothing = json!({});
    let units = |count| json!({"request": count});
    let case = json_case(RERANK, of("rerank-v3.5", 3, &nothing), "0.002", units(1), false);
    let answer = check(&gateway, case).await;
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 2);
    check(&gateway, json_case("/v2/rerank", of("rerank-v3.5", 101, &nothing), "0.004", units(2), false)).await;
    check(&gateway, json_case(RERANK, of("rerank-v3.5", 200, &silent), "0.004", units(2), true)).await;
    // More units than the documents can be are not believed (U-25).
    let absurd = json!({"prompt_tokens": 900});
    check(&gateway, json_case(RERANK, of("rerank-v3.5", 100, &absurd), "0.002", units(1), true)).await;
    let tokens = json!({"input": 150, "request": 1});
    check(&gateway, json_case(RERANK, of("jina-reranker", 3, &nothing), "0.0000075", tokens, false)).await;
    gateway.quiet().await;
}

#[tokio::test]
async fn m_01_images_cost_by_piece_or_by_token() {
    let mut gateway = gateway().await;
    let pieces = json!({"model": "dall-e-3", "prompt": "a cat", "n": 3, "size": "1024x1024"});
    check(&gateway, json_case(IMAGES, pieces, "0.12", json!({"image": 3}), false)).await;
    for (size, quality, cost) in [
        ("1024x1792", "hd", "0.12"),
        ("1024x1792", "standard", "0.04"),
        ("1024x1024", "hd", "0.04"),
        ("auto", "auto", "0.04"),
    ] {
        let look = json!({"model": "dall-e-3", "prompt": "a cat", "size": size, "quality": quality});
        check(&gateway, json_case(IMAGES, look, cost, json!({"image": 1}), false)).await;
    }
    let script = json!({"prompt_tokens": 40, "completion_tokens": 272});
    let tokens = json!({"model": "gpt-image-1", "prompt": "a cat", "n": 2, "quality": "low", "mock": script});
    let usage = json!({"input": 40, "output_image": 544, "image": 2});
    check(&gateway, json_case(IMAGES, tokens.clone(), "0.02196", usage, false)).await;
    // Nothing is reported: what is known of the size and the quality is charged.
    let mut silent = tokens.clone();
    silent["mock"] = json!({"usage": "missing"});
    let usage = json!({"input": 2, "output_image": 544, "image": 2});
    check(&gateway, json_case(IMAGES, silent, "0.02177", usage, true)).await;
    let mut stream = tokens;
    (stream["n"], stream["stream"], stream["partial_images"]) = (json!(1), json!(true), json!(2));
    let usage = json!({"input": 40, "output_image": 272, "image": 1});
    let answer = check(&gateway, json_case(IMAGES, stream, "0.01108", usage, false)).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(answer.text().contains("event: image_generation.completed"), "{}", answer.text());

    let script = field("mock", r#"{"prompt_tokens":100,"completion_tokens":272}"#);
    let images = [file("image[]", b"PNG 1"), file("image[]", b"PNG 2"), field("prompt", "both")];
    let parts = [&images[..], &[field("model", "gpt-image-1"), script.clone()]].concat();
    let usage = json!({"input": 50, "input_image": 50, "output_image": 272, "image": 1});
    check(&gateway, form_case(EDITS, &parts, "0.01163", usage, false)).await;
    // Another name for the model is all that changes of the bytes.
    let parts = [&[field("model", "our-eye")], &images[..], &[script]].concat();
    let usage = json!({"input": 50, "input_image": 50, "output_image": 272, "image": 1});
    check(&gateway, form_case(EDITS, &parts, "0.002176", usage, false)).await;
    let asked = gateway.mock.stats().recent.pop().expect("a request");
    let sent = String::from_utf8(form(&parts)).unwrap().replace("our-eye", "gpt-image-1-mini");
    assert_eq!(asked.body, sent);
    assert_eq!(asked.headers["content-type"], format!("multipart/form-data; boundary=\"{BOUNDARY}\""));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_01_speech_costs_by_letter_or_by_token() {
    let mut gateway = gateway().await;
    let of = |model: &str, input: &str, more: Value| {
        let mut body = json!({"model": model, "input": input, "voice": "alloy"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // Letters, not bytes.
    let body = of("tts-1", "Grüße!", json!({"mock": {"words": 300_000}, "response_format": "mp3"}));
    let answer = check(&gateway, json_case(SPEECH, body, "0.00009", json!({"character": 6}), false)).await;
    assert_eq!((answer.header("content-type"), answer.body.len()), (Some("audio/mpeg"), 300_000));
    assert!(answer.body.starts_with(b"ID3") && answer.header("x-tollgate-cost").is_none());
    let script = json!({"stream_format": "sse", "mock": {"prompt_tokens": 10, "completion_tokens": 100}});
    let usage = json!({"input": 10, "output_audio": 100, "character": 100});
    let answer =
        check(&gateway, json_case(SPEECH, of("gpt-4o-mini-tts", &"x".repeat(100), script), "0.001206", usage, false))
            .await;
    assert!(answer.text().ends_with(": x-tollgate-cost: 0.001206\n\n"), "{}", answer.text());
    // Sound says nothing of tokens.
    let usage = json!({"input": 26, "output_audio": 134, "character": 100});
    let body = of("gpt-4o-mini-tts", &"x".repeat(100), json!({}));
    check(&gateway, json_case(SPEECH, body, "0.0016236", usage, true)).await;
    gateway.quiet().await;
}

#[tokio::test]
async fn m_01_transcriptions_cost_by_second_or_by_token() {
    let mut gateway = gateway().await;
    let of = |model: &str, more: &[(&str, &str)]| {
        let more = more.iter().map(|(name, value)| field(name, value));
        Vec::from_iter([file("file", &wav(3)), field("model", model)].into_iter().chain(more))
    };
    let seconds = |count: u64| json!({"second": count});
    let silent = ("mock", r#"{"prompt_tokens":4,"usage":"missing"}"#);
    for path in [TRANSCRIPTIONS, TRANSLATIONS] {
        check(
            &gateway,
            form_case(path, &of("whisper-1", &[("mock", r#"{"prompt_tokens":4}"#)]), "0.0004", seconds(4), false),
        )
        .await;
        let verbose = of("whisper-1", &[("response_format", "verbose_json"), silent]);
        check(&gateway, form_case(path, &verbose, "0.0004", seconds(4), false)).await;
        // Nothing is said: what the file's header says, or the subtitles if they go further.
        check(&gateway, form_case(path, &of("our-ear", &[silent]), "0.0003", seconds(3), true)).await;
        let text = of("whisper-1", &[("response_format", "text"), silent]);
        let answer = check(&gateway, form_case(path, &text, "0.0003", seconds(3), true)).await;
        assert_eq!(
            (answer.text().as_str(), answer.header("content-type")),
            ("word word word word\n", Some("text/plain; charset=utf-8"))
        );
        for format in ["srt", "vtt"] {
            let subtitles = of("whisper-1", &[("response_format", format), ("mock", r#"{"prompt_tokens":4}"#)]);
            check(&gateway, form_case(path, &subtitles, "0.0004", seconds(4), true)).await;
        }
    }
    let script = ("mock", r#"{"prompt_tokens":30,"completion_tokens":8}"#);
    let usage = json!({"input_audio": 30, "output": 8, "second": 3});
    check(&gateway, form_case(TRANSCRIPTIONS, &of("gpt-4o-transcribe", &[script]), "0.00026", usage.clone(), false))
        .await;
    let stream = of("gpt-4o-transcribe", &[script, ("stream", "true")]);
    let answer = check(&gateway, form_case(TRANSCRIPTIONS, &stream, "0.00026", usage, false)).await;
    assert!(answer.text().contains("event: transcript.text.done"), "{}", answer.text());
    let stream = of("gpt-4o-transcribe", &[silent, ("stream", "true")]);
    let usage = json!({"input_audio": 30, "output": 5, "second": 3});
    check(&gateway, form_case(TRANSCRIPTIONS, &stream, "0.00023", usage, true)).await;
    // A model that cannot stream answers whole.
    let stream = of("whisper-1", &[("mock", r#"{"prompt_tokens":4}"#), ("stream", "true")]);
    let answer = check(&gateway, form_case(TRANSCRIPTIONS, &stream, "0.0004", seconds(4), false)).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    gateway.quiet().await;
}

#[tokio::test]
async fn c_05_what_cannot_be_understood_is_refused_before_anything_is_held() {
    let mut gateway = gateway().await;
    let caller = &gateway.caller;
    for (path, body, param) in [
        (MODERATIONS, json!({"model": "omni-moderation-latest"}), "input"),
        (MODERATIONS, json!({"input": []}), "input"),
        (MODERATIONS, json!({"input": [7]}), "input"),
        (MODERATIONS, json!({"input": [{"type": "text"}]}), "input"),
        (
            MODERATIONS,
            json!({"input": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,A A="}}]}),
            "input",
        ),
        (MODERATIONS, json!({"input": "x", "model": 7}), "model"),
        (MODERATIONS, json!({"input": "x", "Model": "omni-moderation-latest"}), "model"),
        (MODERATIONS, json!({"input": "x", "models": ["omni-moderation-latest"]}), "models"),
        (RERANK, json!({"model": "rerank-v3.5", "documents": ["a"]}), "query"),
        (RERANK, json!({"model": "rerank-v3.5", "query": "q", "documents": []}), "documents"),
        (RERANK, json!({"model": "rerank-v3.5", "query": "q", "documents": ["a", 7]}), "documents"),
        (RERANK, json!({"query": "q", "documents": ["a"]}), "model"),
        (IMAGES, json!({"model": "dall-e-3"}), "prompt"),
        (IMAGES, json!({"model": "dall-e-3", "prompt": ["a"]}), "prompt"),
        (IMAGES, json!({"model": "dall-e-3", "prompt": "a", "n": 0}), "n"),
        (IMAGES, json!({"model": "dall-e-3", "prompt": "a", "n": 1000}), "n"),
        (IMAGES, json!({"model": "dall-e-3", "prompt": "a", "n": "2"}), "n"),
        (IMAGES, json!({"model": "dall-e-3", "prompt": "a", "n": 2.0}), "n"),
        (IMAGES, json!({"model": "dall-e-3", "prompt": "a", "stream": "yes"}), "stream"),
        (IMAGES, json!({"model": "no-such-model", "prompt": "a"}), "model"),
        (SPEECH, json!({"model": "tts-1", "input": "", "voice": "alloy"}), "input"),
        (SPEECH, json!({"model": "tts-1", "input": {"ssml": "x"}, "voice": "alloy"}), "input"),
        (SPEECH, json!({"model": "tts-1", "input": "x", "voice": "alloy", "stream_format": "ogg"}), "stream_format"),
    ] {
        let answer = ask(caller, path, body.clone()).await;
        let (status, kind, _) = answer.error();
        assert!(status == 400 || status == 404, "{path} {body}: {}", answer.text());
        assert_eq!(
            (kind.as_str(), answer.json()["error"]["param"].as_str()),
            ("invalid_request_error", Some(param)),
            "{body}"
        );
    }
    let duplicate = br#"{"model":"dall-e-3","prompt":"a","n":1,"n":9}"#;
    assert_eq!(post(caller, IMAGES, &[], duplicate).await.error().0, 400);

    let (model, sound) = (field("model", "whisper-1"), file("file", &wav(1)));
    let plain = |text: &str| text.as_bytes().to_vec();
    let end = format!("--{BOUNDARY}--\r\n");
    for (what, body) in [
        ("no file", form(&[model.clone()])),
        ("an empty file", form(&[model.clone(), file("file", b"")])),
        ("a file that is text", form(&[model.clone(), field("file", "a")])),
        ("no model", form(&[sound.clone()])),
        ("two models", form(&[model.clone(), sound.clone(), field("model", "our-ear")])),
        ("a look-alike", form(&[field("Model", "whisper-1"), sound.clone()])),
        ("a list of models", form(&[field("model[]", "whisper-1"), sound.clone()])),
        ("a model that is a file", form(&[file("model", b"whisper-1"), sound.clone()])),
        ("another charset", form(&[field("_charset_", "utf-16"), model.clone(), sound.clone()])),
        ("an unknown format", form(&[model.clone(), sound.clone(), field("response_format", "docx")])),
        ("a truth that is none", form(&[model.clone(), sound.clone(), field("stream", "1")])),
        ("nothing", Vec::new()),
        ("another boundary", form(&[model.clone(), sound.clone()])[2..].to_vec()),
        ("JSON", plain(r#"{"model":"whisper-1"}"#)),
        ("no end", [model.clone(), sound.clone()].concat()),
        ("half a part", form(&[model.clone(), sound.clone()])[..200].to_vec()),
        ("something behind its end", [form(&[model.clone(), sound.clone()]), plain("model=x")].concat()),
        (
            "bare line ends",
            [plain(&String::from_utf8(model.clone()).unwrap().replace("\r\n", "\n")), sound.clone(), plain(&end)]
                .concat(),
        ),
        ("a boundary within", form(&[field("prompt", &format!("\n--{BOUNDARY}--")), model.clone(), sound.clone()])),
        (
            "an encoded part",
            form(&[
                plain(&String::from_utf8(model.clone()).unwrap().replacen(
                    "\r\n\r\n",
                    "\r\ncontent-transfer-encoding: base64\r\n\r\n",
                    1,
                )),
                sound.clone(),
            ]),
        ),
        (
            "no name",
            form(&[
                plain(&format!("--{BOUNDARY}\r\ncontent-disposition: form-data\r\n\r\nx\r\n")),
                model.clone(),
                sound.clone(),
            ]),
        ),
        (
            "two names",
            form(&[
                plain(&format!(
                    "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"a\"; name=\"model\"\r\n\r\nx\r\n"
                )),
                model.clone(),
                sound.clone(),
            ]),
        ),
    ] {
        let answer = send_form(caller, TRANSCRIPTIONS, &body).await;
        assert_eq!(answer.error().0, 400, "{what}: {}", answer.text());
    }
    let body = form(&[model, sound]);
    for (path, kind) in [
        (TRANSCRIPTIONS, "application/json"),
        (TRANSCRIPTIONS, "multipart/form-data"),
        (TRANSCRIPTIONS, "multipart/form-data; boundary=a; boundary=b"),
        (TRANSCRIPTIONS, "multipart/form-data; boundary=\"a b\""),
        (TRANSCRIPTIONS, "multipart/mixed; boundary=a"),
        (EDITS, "application/json"),
        (SPEECH, &form_type()),
        ("/v1/chat/completions", &form_type()),
    ] {
        assert_eq!(post(caller, path, &[("content-type", kind)], &body).await.error().0, 415, "{path} {kind}");
    }
    assert_eq!(post(caller, TRANSCRIPTIONS, &[], &body).await.error().0, 415);
    assert_eq!(gateway.mock.stats().requests, 0);
    let verified = gateway.quiet().await;
    assert_eq!(verified["holds"].as_u64().unwrap_or(0), 0, "{verified}");
}

#[tokio::test]
async fn u_03_what_an_upstream_fails_at_costs_nothing() {
    let mut gateway = gateway().await;
    let caller = gateway.caller.clone();
    let page = json!({"raw_body": "<!DOCTYPE html><html>busy</html>", "content_type": "text/html"});
    let refused = |status: u16| json!({"status": status});
    for (script, statuses, ending) in [
        (refused(400), [400; 4], Ending::UpstreamError),
        (refused(429), [503; 4], Ending::UpstreamError),
        (refused(500), [502; 4], Ending::UpstreamError),
        (page, [502; 4], Ending::UpstreamMalformed),
        (json!({"raw_body": "", "content_type": "application/json"}), [502; 4], Ending::UpstreamMalformed),
        (
            json!({"raw_body": "{\"object\":\"list\"}", "content_type": "application/json"}),
            [502; 4],
            Ending::UpstreamMalformed,
        ),
        (json!({"cut_after": 0}), [502; 4], Ending::UpstreamCut),
        (json!({"headers": {"content-encoding": "br"}}), [502; 4], Ending::UpstreamMalformed),
    ] {
        let text = script.to_string();
        let bodies: [(&str, Vec<u8>, String); 4] = [
            (
                IMAGES,
                json!({"model": "dall-e-3", "prompt": "a", "mock": script}).to_string().into(),
                "application/json".into(),
            ),
            (
                SPEECH,
                json!({"model": "tts-1", "input": "a", "voice": "v", "mock": script}).to_string().into(),
                "application/json".into(),
            ),
            (
                TRANSCRIPTIONS,
                form(&[field("model", "whisper-1"), file("file", &wav(1)), field("mock", &text)]),
                form_type(),
            ),
            (
                TRANSCRIPTIONS,
                form(&[
                    field("model", "gpt-4o-transcribe"),
                    file("file", &wav(1)),
                    field("stream", "true"),
                    field("mock", &text),
                ]),
                form_type(),
            ),
        ];
        for ((path, body, kind), status) in bodies.into_iter().zip(statuses) {
            let answer = post(&caller, path, &[("content-type", &kind)], &body).await;
            // A limit of the upstream's is told as such.
            let told = if text.contains("429") { [429, 503].contains(&answer.status) } else { answer.status == status };
            assert!(told, "{path} {text}: {} {}", answer.status, answer.text());
            assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
            let fate = gateway.fate(&answer.request_id()).await;
            assert_eq!((fate.outcome, fate.cost), (Outcome::Voided, Nanos::ZERO), "{path} {text}");
            assert!(fate.ending == ending || text.contains("raw_body"), "{path} {text}: {:?}", fate.ending);
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_13_an_answer_that_is_cut_looks_cut_and_costs_nothing() {
    let mut gateway = gateway().await;
    for how in ["fin", "rst"] {
        let script = json!({"cut_after": 1, "how": how, "words": 100_000});
        let body = json!({"model": "tts-1", "input": "abc", "voice": "v", "mock": script}).to_string();
        let begun = begin(&gateway.caller, SPEECH, &[("content-type", "application/json")], body.as_bytes());
        let mut incoming = within(PATIENCE, "a head", begun).await.expect("a head");
        assert_eq!(incoming.status, 200);
        let mut size = 0;
        let broken = loop {
            match within(PATIENCE, "a piece", incoming.piece()).await {
                Ok(Some(piece)) => size += piece.len(),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(broken && size <= 50_000, "{size}");
        let fate = gateway.fate(&incoming.request_id()).await;
        assert_eq!((fate.outcome, fate.ending), (Outcome::Voided, Ending::UpstreamCut));
    }
    let parts = [
        field("model", "gpt-4o-transcribe"),
        file("file", &wav(1)),
        field("stream", "true"),
        field("mock", r#"{"cut_after":1,"words":50}"#),
    ];
    let answer = send_form(&gateway.caller, TRANSCRIPTIONS, &form(&parts)).await;
    assert!(answer.status == 200 && answer.text().contains(r#""code":"upstream_cut""#), "{}", answer.text());
    assert_eq!(answer.cost(), Some(Nanos::ZERO));
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Voided, Ending::UpstreamCut));
    gateway.quiet().await;
}

#[tokio::test]
async fn d_05_who_leaves_speech_pays_for_all_of_it() {
    let mut gateway = gateway().await;
    let script = json!({"stall_after": 1, "words": 200_000});
    let body = json!({"model": "tts-1", "input": "abcdef", "voice": "v", "mock": script}).to_string();
    let begun = begin(&gateway.caller, SPEECH, &[("content-type", "application/json")], body.as_bytes());
    let mut incoming = within(PATIENCE, "a head", begun).await.expect("a head");
    within(PATIENCE, "a piece", incoming.piece()).await.expect("a piece").expect("a piece");
    let id = incoming.request_id();
    drop(incoming);
    let fate = gateway.fate(&id).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::ClientLeft));
    assert_eq!((fate.cost, fate.usage), ("0.00009".parse().unwrap(), json!({"character": 6})));
    assert!(gateway.mock.idle(PATIENCE).await, "the upstream is stopped");
    gateway.quiet().await;
}

#[tokio::test]
async fn d_04_who_leaves_a_whole_answer_pays_for_it() {
    let mut gateway = gateway().await;
    let key = gateway.key(json!({"name": "leaver"})).await;
    let draw = json!({"model": "dall-e-3", "prompt": "a", "n": 2, "mock": {"first_byte_ms": 200}}).to_string();
    let mut connection = Connection::open(key.caller.address).await.expect("a connection");
    connection.send(&key.caller.post_bytes(IMAGES, draw.as_bytes())).await.expect("a request can be sent");
    eventually(PATIENCE, "the upstream is asked", async || (gateway.mock.stats().requests > 0).then_some(())).await;
    drop(connection);
    let fate = eventually(PATIENCE, "the end of the request", async || {
        gateway.journal().fates_of_key(key.id).into_iter().next().flatten()
    });
    let fate = fate.await;
    assert_eq!((fate.outcome, fate.ending, fate.cost), (Outcome::Settled, Ending::Complete, "0.08".parse().unwrap()));
    gateway.quiet().await;
}

#[tokio::test]
async fn d_06_by_setting_what_was_left_is_read_to_its_end() {
    let mut gateway = gateway_with("[streams]\non_client_left = \"drain\"\n").await;
    let script = json!({"prompt_tokens": 10, "completion_tokens": 100, "split": 64, "words": 2_000_000});
    let body = json!({"model": "tts-1", "input": "abc", "voice": "v", "mock": script}).to_string();
    let begun = begin(&gateway.caller, SPEECH, &[("content-type", "application/json")], body.as_bytes());
    let mut incoming = within(PATIENCE, "a head", begun).await.expect("a head");
    within(PATIENCE, "a piece", incoming.piece()).await.expect("a piece").expect("a piece");
    let id = incoming.request_id();
    drop(incoming);
    let fate = gateway.fate(&id).await;
    assert_eq!((fate.outcome, fate.cost), (Outcome::Settled, "0.000045".parse().unwrap()));
    assert!(gateway.mock.idle(PATIENCE).await);
    assert_eq!(gateway.mock.stats().by_model["tts-1"].finished, 1, "the upstream was not stopped");
    gateway.quiet().await;
}

#[tokio::test]
async fn m_23_an_idempotency_key_buys_one_answer() {
    let mut gateway = gateway().await;
    let json_type = "application/json".to_owned();
    let speech = json!({"model": "tts-1", "input": "abc", "voice": "v"}).to_string().into_bytes();
    let heard = form(&[field("model", "whisper-1"), file("file", &wav(2))]);
    for (key, path, kind, body) in [("a", SPEECH, json_type, speech), ("b", TRANSCRIPTIONS, form_type(), heard)] {
        let headers = [("content-type", kind.as_str()), ("idempotency-key", key)];
        let first = post(&gateway.caller, path, &headers, &body).await;
        assert_eq!(first.status, 200, "{}", first.text());
        let requests = gateway.mock.stats().requests;
        let again = post(&gateway.caller, path, &headers, &body).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!((&again.body, again.header("content-type")), (&first.body, first.header("content-type")));
        assert_eq!(gateway.mock.stats().requests, requests);
        let other = post(&gateway.caller, path, &headers, &[&body[..], b" "].concat()).await;
        assert_eq!(other.status, 422, "{}", other.text());
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_12_quotas_limits_and_lists_of_models_hold_here_as_well() {
    let limits = "[[limits]]\nname = \"rpm\"\nmetric = \"requests\"\namount = 2\nwindow = \"minute\"\nscope = { models = [\"dall-e-3\"] }\n";
    let mut gateway = gateway_with(limits).await;
    let draw = |n: u64| json!({"model": "dall-e-3", "prompt": "a", "n": n});
    let poor = gateway.key(json!({"name": "poor", "quota": "0.10"})).await;
    let answer = ask(&poor.caller, IMAGES, draw(3)).await;
    assert_eq!((answer.error().0, answer.header("x-tollgate-quota-scope")), (402, Some("key")), "{}", answer.text());
    assert_eq!(ask(&poor.caller, IMAGES, draw(2)).await.status, 200);
    let shown = gateway.key_shown(poor.id).await;
    assert_eq!(amount(&shown["used"]), "0.08".parse().unwrap(), "{shown}");
    // One place of the two is taken, and a refusal for want of funds took none.
    assert_eq!(ask(&gateway.caller, IMAGES, draw(1)).await.status, 200);
    let limited = ask(&gateway.caller, IMAGES, draw(1)).await;
    assert_eq!(limited.status, 429, "{limited:?}");
    let narrow = gateway.key(json!({"name": "narrow", "models": ["whisper-1"]})).await;
    assert_eq!(ask(&narrow.caller, SPEECH, json!({"model": "tts-1", "input": "a", "voice": "v"})).await.error().0, 403);

    // A dry run says the same and sends nothing.
    let requests = gateway.mock.stats().requests;
    let heard = form(&[field("model", "whisper-1"), file("file", &wav(10))]);
    let dry = [("content-type", form_type()), ("x-tollgate-dry-run", "true".to_owned())];
    let dry: Vec<(&str, &str)> = dry.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let quote = post(&gateway.caller, TRANSCRIPTIONS, &dry, &heard).await.json();
    assert_eq!((&quote["object"], &quote["admitted"]), (&json!("quote"), &json!(true)), "{quote}");
    let quoted = ask(&gateway.caller, "/api/v1/quote", json!({"endpoint": "images", "request": draw(4)})).await;
    assert!(quoted.json()["admitted"] == false && quoted.text().contains("0.16"), "{}", quoted.text());
    assert_eq!(gateway.mock.stats().requests, requests);
    gateway.quiet().await;
}

#[tokio::test]
async fn a_provider_without_the_endpoint_is_not_asked() {
    let more = "[[upstreams]]\nname = \"claude\"\nprovider = \"anthropic\"\nbase_url = \"http://127.0.0.1:9\"\n\
                [[routes]]\nmodel = \"claude\"\nupstreams = [\"claude\"]\n[[prices]]\nmodel = \"claude\"\nper_image = \"1\"\n";
    let mut gateway = gateway_with(more).await;
    let answer = ask(&gateway.caller, IMAGES, json!({"model": "claude", "prompt": "a"})).await;
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(answer.status == 400 && message.contains("has no such endpoint"), "{message}");
    gateway.quiet().await;
}

#[tokio::test]
async fn c_21_a_large_file_passes_and_a_larger_one_is_refused() {
    let mut gateway = gateway_with("[bounds]\nbody_bytes = 25000000\n").await;
    let parts =
        |size: usize| form(&[field("model", "gpt-image-1"), field("prompt", "a"), file("image", &vec![7; size])]);
    let answer = send_form(&gateway.caller, EDITS, &parts(20 * 1024 * 1024)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(gateway.mock.stats().recent.pop().map(|asked| asked.body_bytes), Some(parts(20 * 1024 * 1024).len()));
    let body = parts(26_000_000);
    let mut connection = Connection::open(gateway.caller.address).await.expect("a connection");
    let head = format!(
        "POST {EDITS} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        gateway.caller.key,
        form_type(),
        body.len()
    );
    connection.send(head.as_bytes()).await.expect("a head can be sent");
    let refused = within(PATIENCE, "a refusal", async { connection.incoming().await?.whole().await }).await;
    assert_eq!(refused.expect("an answer").error().0, 413);
    gateway.quiet().await;
}

#[tokio::test]
async fn one_script_serves_every_endpoint_of_the_upstream() {
    let mut gateway = gateway().await;
    gateway.mock.play(Script { status: Some(503), ..Script::default() });
    let answer = ask(&gateway.caller, MODERATIONS, json!({"input": "a"})).await;
    assert!([502, 503].contains(&answer.status), "{}", answer.text());
    gateway.quiet().await;
}
