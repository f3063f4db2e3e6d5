//! OpenAI's Realtime events, as far as they decide what a session may do and what it costs.
//!
//! Events are read and passed on as they came; only errors are written. A caller's event is read strictly, because what is
//! misread would be billed wrong, and events that nobody here knows are refused, because they may cost something. A
//! provider's is read leniently. Both forms of the interface are understood: the general one, which nests what belongs to
//! audio below `session.audio`, and the beta's flat one. (`RealtimeClientEvent…` and `RealtimeServerEvent…` of OpenAI's
//! reference.)

use crate::json::tree::{NoTree, Node, Value};
use crate::openai::{BadRequest, Reported};
use domain::usage::{COUNT_MAX, Meter, Usage};
use std::borrow::Cow;
use std::ops::Range;

/// The longest event that is taken: an append holds at most 15 MiB of audio.
pub const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest id of an event.
const ID_BYTES_MAX: usize = 512;

/// What a caller sends.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientEvent<'a> {
    /// What the caller calls it.
    pub id: Option<Cow<'a, str>>,
    /// What it asks for.
    pub asks: Asks<'a>,
    /// No tokenizer makes more tokens of what it adds as text.
    pub text_bytes: u64,
    /// Audio that it adds, decoded.
    pub audio_bytes: u64,
}

/// What an event of a caller asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asks<'a> {
    /// Other terms for the session.
    Update(Update<'a>),
    /// A response.
    Response {
        /// Its output cap, if it has one of its own.
        cap: Option<Cap>,
    },
    /// Nothing that changes terms.
    Nothing,
}

/// Terms that a session is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update<'a> {
    /// The model.
    pub model: Option<Cow<'a, str>>,
    /// Where in the event that stands, with its quotes.
    pub model_at: Option<Range<usize>>,
    /// The output cap of its responses.
    pub cap: Option<Cap>,
    /// How callers' audio is encoded.
    pub format: Option<AudioFormat>,
    /// The model that writes down what callers say.
    pub transcription: Option<Cow<'a, str>>,
}

/// The most answer tokens of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// As many as the model gives: `"inf"`, or nothing said.
    Model,
    /// So many.
    Tokens(u64),
}

/// How audio is encoded, as far as its length in tokens goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioFormat {
    /// 24,000 samples of 16 bits in a second.
    Pcm,
    /// 8,000 bytes in a second.
    G711,
}

impl AudioFormat {
    /// A name that is not known is taken for the densest, so that no count is too low.
    fn of(name: &str) -> Self {
        match name {
            "audio/pcm" | "pcm16" => Self::Pcm,
            _ => Self::G711,
        }
    }

    fn bytes_per_second(self) -> u64 {
        match self {
            Self::Pcm => 48_000,
            Self::G711 => 8_000,
        }
    }

    /// Tokens of so much audio of a caller: one for each 100 ms. (OpenAI's guide to the costs of Realtime.)
    pub fn input_tokens(self, bytes: u64) -> u64 {
        bytes.saturating_mul(10).div_ceil(self.bytes_per_second())
    }

    /// Tokens of so much audio of a model: one for each 50 ms.
    pub fn output_tokens(self, bytes: u64) -> u64 {
        bytes.saturating_mul(20).div_ceil(self.bytes_per_second())
    }
}

/// What a provider sends.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent<'a> {
    /// The session's terms as they are now.
    Session(SessionTerms),
    /// A response has begun.
    Begun {
        /// Which.
        response: Cow<'a, str>,
    },
    /// A piece of a response.
    Delta {
        /// Of which.
        response: Cow<'a, str>,
        /// Bytes of its text.
        text_bytes: u64,
        /// Bytes of its audio, decoded.
        audio_bytes: u64,
    },
    /// A response has ended, in whatever way.
    Done {
        /// Which.
        response: Cow<'a, str>,
        /// What it consumed.
        usage: Reported,
        /// It is a part of the conversation from now on.
        is_kept: bool,
    },
    /// What a caller said was written down.
    Transcribed {
        /// What that consumed.
        usage: Reported,
    },
    /// Something failed.
    Failed {
        /// The event of the caller that it is about.
        event: Option<Cow<'a, str>>,
    },
    /// Anything else.
    Other,
}

/// A session's terms, as its provider tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// Bytes of all of them: instructions and tools are read with every response.
    pub text_bytes: u64,
    /// The output cap of responses.
    pub cap: Cap,
    /// How callers' audio is encoded.
    pub input: AudioFormat,
    /// How the model's audio is encoded.
    pub output: AudioFormat,
}

/// An event that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the session cannot be read")]
pub struct Unreadable;

/// Events of callers that change neither terms nor what is to be paid, beside what they add.
const PLAIN: [&str; 8] = [
    "conversation.item.create",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "input_audio_buffer.clear",
    "input_audio_buffer.commit",
    "output_audio_buffer.clear",
    "response.cancel",
];

/// Reads a caller's event.
pub fn read_client(text: &str) -> Result<ClientEvent<'_>, BadRequest> {
    let node = Node::read(text).map_err(|problem| match problem {
        NoTree::Broken { at } => refusal(format!("the event is not valid JSON from byte {at} on"), None),
        NoTree::TooDeep => refusal("the event is nested too deep", None),
        NoTree::LoneSurrogate => refusal("the event has a \\u escape that is half a character", None),
    })?;
    if let Some(name) = twice(&node) {
        return Err(refusal(format!("the field {} is given twice", name.escape_debug()), None));
    }
    let kind = node.text_of("type").ok_or_else(|| refusal("the field type is missing", Some("type")))?;
    let id = node.text_of("event_id").filter(|id| id.len() <= ID_BYTES_MAX);
    let mut event = ClientEvent { id, asks: Asks::Nothing, text_bytes: 0, audio_bytes: 0 };
    match kind.as_ref() {
        "input_audio_buffer.append" => {
            let audio = node.text_of("audio").ok_or_else(|| refusal("audio must be a string", Some("audio")))?;
            event.audio_bytes = decoded(&audio);
        }
        "session.update" => {
            let session = node.get("session").filter(|session| session.is_object());
            let session = session.ok_or_else(|| refusal("session must be an object", Some("session")))?;
            event.text_bytes = session.raw.len() as u64;
            event.asks = Asks::Update(read_update(session, text)?);
        }
        "response.create" => {
            let response = node.get("response");
            let cap = match response {
                Some(response) => {
                    check_kept(response, "response")?;
                    measure(response, &mut event);
                    read_cap(response)?
                }
                None => None,
            };
            event.asks = Asks::Response { cap };
        }
        kind if PLAIN.contains(&kind) => measure(&node, &mut event),
        kind => {
            let shown: String = kind.chars().take(64).collect();
            let message = format!("events of the type \"{}\" are not taken here", shown.escape_debug());
            return Err(refusal(message, Some("type")));
        }
    }
    Ok(event)
}

fn refusal(message: impl Into<String>, param: Option<&'static str>) -> BadRequest {
    BadRequest { message: message.into(), param }
}

/// A name that an object has twice: which one counts, readers disagree on.
fn twice<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    let members = node.members();
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_ref()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Some(pair[0]);
    }
    members.iter().map(|member| &member.node).chain(node.elements()).find_map(twice)
}

fn read_update<'a>(session: &Node<'a>, whole: &str) -> Result<Update<'a>, BadRequest> {
    let kind = session.text_of("type");
    if kind.as_deref().is_some_and(|kind| kind != "realtime") {
        return Err(refusal("only sessions of the type \"realtime\" are served", Some("session.type")));
    }
    check_kept(session, "session")?;
    let input = session.get("audio").and_then(|audio| audio.get("input"));
    let of_input = |name: &str| input.and_then(|input| input.get(name));
    let format = of_input("format").and_then(|format| format.text_of("type"));
    let format = format.or_else(|| session.text_of("input_audio_format"));
    let transcription = of_input("transcription").or_else(|| session.get("input_audio_transcription"));
    // Without a name the provider takes one of its own.
    let transcription = transcription.map(|transcription| transcription.text_of("model").unwrap_or_default());
    let (model, cap) = (session.text_of("model"), read_cap(session)?);
    let model_at = session.get("model").map(|model| {
        // A value's text is a piece of the whole.
        let start = model.raw.as_ptr() as usize - whole.as_ptr() as usize;
        start..start + model.raw.len()
    });
    if model.is_none() && model_at.is_some() {
        return Err(refusal("session.model must be a string", Some("session.model")));
    }
    Ok(Update { model, model_at, cap, format: format.as_deref().map(AudioFormat::of), transcription })
}

/// The cap of a session or response. Of two that differ the larger one.
fn read_cap(node: &Node<'_>) -> Result<Option<Cap>, BadRequest> {
    let mut found: Option<Cap> = None;
    for (name, param) in
        [("max_output_tokens", "max_output_tokens"), ("max_response_output_tokens", "max_response_output_tokens")]
    {
        let Some(node) = node.get(name) else { continue };
        let cap = match (&node.value, node.count()) {
            (Value::Text(text), _) if text == "inf" => Cap::Model,
            (_, Some(tokens @ 1..)) => Cap::Tokens(tokens),
            _ => return Err(refusal(format!("{name} must be a whole number from 1 on, or \"inf\""), Some(param))),
        };
        found = Some(found.map_or(cap, |other| larger(other, cap)));
    }
    Ok(found)
}

/// The cap that lets more through.
pub fn larger(a: Cap, b: Cap) -> Cap {
    match (a, b) {
        (Cap::Tokens(a), Cap::Tokens(b)) => Cap::Tokens(a.max(b)),
        _ => Cap::Model,
    }
}

/// Servers of tools are asked by the provider, and what they answer is read by the model behind the gateway's back; stored
/// prompts are the operator's, and nobody here knows how long they are; so are voices that have an id (U-38).
fn check_kept(node: &Node<'_>, place: &str) -> Result<(), BadRequest> {
    let output = node.get("audio").and_then(|audio| audio.get("output")).unwrap_or(node);
    if [node, output].iter().any(|node| node.get("voice").is_some_and(Node::is_object)) {
        return Err(refusal(format!("{place}: voices are known by their names only"), Some("voice")));
    }
    if node.get("prompt").is_some() {
        return Err(refusal(format!("{place}.prompt is not served: send its instructions"), Some("prompt")));
    }
    let tools = node.get("tools").map(Node::elements).unwrap_or_default();
    match tools.iter().any(|tool| tool.text_of("type").is_none_or(|kind| kind != "function")) {
        true => Err(refusal(format!("{place}.tools may hold functions only"), Some("tools"))),
        false => Ok(()),
    }
}

/// Adds what an event holds, its audio as such.
fn measure(node: &Node<'_>, event: &mut ClientEvent<'_>) {
    let before = event.audio_bytes;
    let mut encoded = 0;
    add_audio(node, &mut event.audio_bytes, &mut encoded);
    event.text_bytes += node.raw.len() as u64 - if event.audio_bytes > before { encoded } else { 0 };
}

fn add_audio(node: &Node<'_>, audio_bytes: &mut u64, encoded: &mut u64) {
    if node.text_of("type").is_some_and(|kind| kind == "input_audio" || kind == "output_audio" || kind == "audio")
        && let Some(audio) = node.text_of("audio")
    {
        *audio_bytes += decoded(&audio);
        *encoded += audio.len() as u64;
    }
    for inner in node.members().iter().map(|member| &member.node).chain(node.elements()) {
        add_audio(inner, audio_bytes, encoded);
    }
}

/// The length of what base64 stands for, rounded up.
fn decoded(base64: &str) -> u64 {
    (base64.len() as u64).saturating_mul(3).div_ceil(4)
}

/// Reads a provider's event.
pub fn read_server(text: &str) -> Result<ServerEvent<'_>, Unreadable> {
    let node = Node::read(text).map_err(|_| Unreadable)?;
    let kind = node.text_of("type").ok_or(Unreadable)?;
    let response = || {
        let response = node.text_of("response_id").or_else(|| node.get("response")?.text_of("id"));
        response.ok_or(Unreadable)
    };
    let length = |name: &str| node.get(name).and_then(Node::text).map_or(0, |text| text.len() as u64);
    Ok(match kind.as_ref() {
        "session.created" | "session.updated" => {
            ServerEvent::Session(read_terms(node.get("session").ok_or(Unreadable)?))
        }
        "response.created" => ServerEvent::Begun { response: response()? },
        "response.output_text.delta"
        | "response.text.delta"
        | "response.output_audio_transcript.delta"
        | "response.audio_transcript.delta"
        | "response.function_call_arguments.delta" => {
            ServerEvent::Delta { response: response()?, text_bytes: length("delta"), audio_bytes: 0 }
        }
        "response.output_audio.delta" | "response.audio.delta" => {
            let audio_bytes = node.text_of("delta").map_or(0, |audio| decoded(&audio));
            ServerEvent::Delta { response: response()?, text_bytes: 0, audio_bytes }
        }
        "response.done" => {
            let inner = node.get("response").ok_or(Unreadable)?;
            let usage = inner.get("usage").map_or(Reported::Missing, read_usage);
            // The beta does not name the conversation.
            let names_it = inner.members().iter().any(|member| member.name == "conversation_id");
            let is_kept = !names_it || inner.get("conversation_id").is_some();
            ServerEvent::Done { response: response()?, usage, is_kept }
        }
        "conversation.item.input_audio_transcription.completed" => {
            ServerEvent::Transcribed { usage: node.get("usage").map_or(Reported::Missing, read_transcribed) }
        }
        "error" => ServerEvent::Failed { event: node.get("error").and_then(|error| error.text_of("event_id")) },
        _ => ServerEvent::Other,
    })
}

fn read_terms(session: &Node<'_>) -> SessionTerms {
    let format = |side: &str, flat: &str| {
        let of_side = session.get("audio").and_then(|audio| audio.get(side)?.get("format")?.text_of("type"));
        of_side.or_else(|| session.text_of(flat)).map_or(AudioFormat::G711, |name| AudioFormat::of(&name))
    };
    SessionTerms {
        text_bytes: session.raw.len() as u64,
        cap: read_cap(session).ok().flatten().unwrap_or(Cap::Model),
        input: format("input", "input_audio_format"),
        output: format("output", "output_audio_format"),
    }
}

/// The usage of a response. Parts are inside the wholes, and cached tokens inside their kind; a cached token costs what
/// cached text does.
fn read_usage(usage: &Node<'_>) -> Reported {
    let (Some(input), Some(output)) = (usage.count_of("input_tokens"), usage.count_of("output_tokens")) else {
        return Reported::Nonsense;
    };
    if input > COUNT_MAX || output > COUNT_MAX {
        return Reported::Nonsense;
    }
    let of = |node: Option<&Node<'_>>, name: &str| node.and_then(|node| node.count_of(name)).unwrap_or(0);
    let (of_input, of_output) = (usage.get("input_token_details"), usage.get("output_token_details"));
    let of_cached = of_input.and_then(|details| details.get("cached_tokens_details"));
    let cached = of(of_input, "cached_tokens").min(input);
    let fresh = |name: &str| of(of_input, name).saturating_sub(of(of_cached, name));
    let mut left = input - cached;
    let mut told = Usage::NOTHING;
    told[Meter::CachedInput] = cached;
    for (meter, name) in [(Meter::InputAudio, "audio_tokens"), (Meter::InputImage, "image_tokens")] {
        told[meter] = fresh(name).min(left);
        left -= told[meter];
    }
    told[Meter::Input] = left;
    told[Meter::OutputAudio] = of(of_output, "audio_tokens").min(output);
    told[Meter::Output] = output - told[Meter::OutputAudio];
    Reported::Usage(told)
}

/// The usage of a transcription: by tokens, or by seconds, which are billed as whole ones.
fn read_transcribed(usage: &Node<'_>) -> Reported {
    if let Some(seconds) = usage.get("seconds") {
        let whole: u64 = match seconds.raw.split_once('.') {
            Some((whole, rest)) => {
                let rest = u64::from(rest.bytes().any(|digit| digit != b'0'));
                whole.parse::<u64>().map_or(u64::MAX, |whole| whole.saturating_add(rest))
            }
            None => seconds.count().unwrap_or(u64::MAX),
        };
        if whole > COUNT_MAX {
            return Reported::Nonsense;
        }
        let mut told = Usage::NOTHING;
        told[Meter::Second] = whole;
        return Reported::Usage(told);
    }
    read_usage(usage)
}

/// An error that is told within a session. `about`: the event of the caller that it is about.
pub fn error_event(
    id: &str,
    kind: &str,
    code: &str,
    message: &str,
    param: Option<&str>,
    about: Option<&str>,
) -> String {
    let error = serde_json::json!({"type": kind, "code": code, "message": message, "param": param, "event_id": about});
    serde_json::json!({"type": "error", "event_id": id, "error": error}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(text: &str) -> Result<Asks<'_>, String> {
        read_client(text).map(|event| event.asks).map_err(|bad| bad.message)
    }

    #[test]
    fn what_a_caller_asks_for_is_read_in_both_forms() {
        assert_eq!(asks(r#"{"type":"response.create"}"#), Ok(Asks::Response { cap: None }));
        let capped = r#"{"type":"response.create","response":{"max_output_tokens":20,"conversation":"none"}}"#;
        assert_eq!(asks(capped), Ok(Asks::Response { cap: Some(Cap::Tokens(20)) }));
        let general = r#"{"type":"session.update","session":{"type":"realtime","model":"m","max_output_tokens":"inf",
            "audio":{"input":{"format":{"type":"audio/pcmu"},"transcription":{"model":"w"}}}}}"#;
        let beta = r#"{"type":"session.update","session":{"model":"m","max_response_output_tokens":"inf",
            "input_audio_format":"g711_ulaw","input_audio_transcription":{"model":"w"}}}"#;
        let at = |text: &str| text.find("\"m\"").map(|start| start..start + 3);
        let expected = |text: &str| Update {
            model: Some("m".into()),
            model_at: at(text),
            cap: Some(Cap::Model),
            format: Some(AudioFormat::G711),
            transcription: Some("w".into()),
        };
        assert_eq!(asks(general), Ok(Asks::Update(expected(general))));
        assert_eq!(asks(beta), Ok(Asks::Update(expected(beta))));
        let off = r#"{"type":"session.update","session":{"audio":{"input":{"transcription":null}}}}"#;
        assert_eq!(asks(off), Ok(Asks::Update(Update::default())));
    }

    #[test]
    fn what_an_event_adds_is_measured() {
        let append = r#"{"type":"input_audio_buffer.append","audio":"AAAAAAAA"}"#;
        let event = read_client(append).unwrap();
        assert_eq!((event.audio_bytes, event.text_bytes), (6, 0));
        let item = r#"{"type":"conversation.item.create","event_id":"e","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"},{"type":"input_audio","audio":"AAAAAAAA"}]}}"#;
        let event = read_client(item).unwrap();
        assert_eq!((event.audio_bytes, event.text_bytes), (6, item.len() as u64 - 8));
        assert_eq!(event.id.as_deref(), Some("e"));
    }

    #[test]
    fn what_cannot_be_priced_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"type":"session.update"}"#,
            r#"{"type":"transcription_session.update","session":{}}"#,
            r#"{"type":"session.update","session":{"type":"transcription"}}"#,
            r#"{"type":"session.update","session":{"model":"a","model":"b"}}"#,
            r#"{"type":"session.update","session":{"tools":[{"type":"mcp","server_url":"https://x"}]}}"#,
            r#"{"type":"response.create","response":{"tools":[{"type":"mcp"}]}}"#,
            r#"{"type":"response.create","response":{"prompt":{"id":"p"}}}"#,
            r#"{"type":"response.create","response":{"max_output_tokens":-1}}"#,
            r#"{"type":"response.create","response":{"max_output_tokens":1.5}}"#,
            r#"{"type":"response.sing"}"#,
            r#"{"type":"input_audio_buffer.append"}"#,
        ] {
            assert!(read_client(text).is_err(), "{text}");
        }
    }

    /// The example of `response.done` in OpenAI's reference.
    const DONE: &str = r#"{"type":"response.done","event_id":"event_CCXHxcMy86rrKhBLDdqCh","response":{"object":"realtime.response",
        "id":"resp_CCXHw0UJld10EzIUXQCNh","status":"completed","status_details":null,"output":[],"conversation_id":"conv_1",
        "output_modalities":["audio"],"max_output_tokens":"inf","usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,
        "input_token_details":{"text_tokens":119,"audio_tokens":13,"image_tokens":0,"cached_tokens":64,
        "cached_tokens_details":{"text_tokens":64,"audio_tokens":0,"image_tokens":0}},
        "output_token_details":{"text_tokens":30,"audio_tokens":91}},"metadata":null}}"#;

    #[test]
    fn what_a_response_consumed_is_counted_once() {
        let Ok(ServerEvent::Done { response, usage, is_kept }) = read_server(DONE) else { panic!("a response's end") };
        assert_eq!((response.as_ref(), is_kept), ("resp_CCXHw0UJld10EzIUXQCNh", true));
        let usage = *usage.usage().unwrap();
        assert_eq!((usage.input_tokens(), usage.output_tokens()), (132, 121));
        assert_eq!((usage[Meter::Input], usage[Meter::CachedInput], usage[Meter::InputAudio]), (55, 64, 13));
        assert_eq!((usage[Meter::Output], usage[Meter::OutputAudio]), (30, 91));
        let cached = DONE.replace(r#""cached_tokens":64"#, r#""cached_tokens":70"#);
        let cached =
            cached.replace(r#"{"text_tokens":64,"audio_tokens":0,"#, r#"{"text_tokens":60,"audio_tokens":10,"#);
        let Ok(ServerEvent::Done { usage, .. }) = read_server(&cached) else { panic!("a response's end") };
        let usage = *usage.usage().unwrap();
        assert_eq!((usage[Meter::Input], usage[Meter::CachedInput], usage[Meter::InputAudio]), (59, 70, 3));
        let apart = DONE.replace(r#""conversation_id":"conv_1""#, r#""conversation_id":null"#);
        assert!(matches!(read_server(&apart), Ok(ServerEvent::Done { is_kept: false, .. })));
        let failed = r#"{"type":"response.done","response":{"id":"r","status":"failed","usage":null}}"#;
        assert!(matches!(read_server(failed), Ok(ServerEvent::Done { usage: Reported::Missing, .. })));
    }

    #[test]
    fn a_provider_s_events_are_understood_in_both_forms() {
        for (kind, text, audio) in [
            ("response.output_text.delta", 8, 0),
            ("response.text.delta", 8, 0),
            ("response.output_audio.delta", 0, 6),
            ("response.audio.delta", 0, 6),
            ("response.function_call_arguments.delta", 8, 0),
        ] {
            let event = format!(r#"{{"type":"{kind}","response_id":"r","delta":"AAAAAAAA"}}"#);
            let expected = ServerEvent::Delta { response: "r".into(), text_bytes: text, audio_bytes: audio };
            assert_eq!(read_server(&event), Ok(expected), "{kind}");
        }
        let session = r#"{"type":"realtime","max_output_tokens":77,"audio":{"input":{"format":{"type":"audio/pcm","rate":24000}},"output":{"format":{"type":"audio/pcmu"}}}}"#;
        let event = format!(r#"{{"type":"session.created","event_id":"e","session":{session}}}"#);
        let terms = SessionTerms {
            text_bytes: session.len() as u64,
            cap: Cap::Tokens(77),
            input: AudioFormat::Pcm,
            output: AudioFormat::G711,
        };
        assert_eq!(read_server(&event), Ok(ServerEvent::Session(terms)));
        let error = r#"{"type":"error","event_id":"e","error":{"type":"invalid_request_error","message":"m","event_id":"mine"}}"#;
        assert_eq!(read_server(error), Ok(ServerEvent::Failed { event: Some("mine".into()) }));
        assert_eq!(read_server(r#"{"type":"rate_limits.updated"}"#), Ok(ServerEvent::Other));
        for text in ["", "{}", r#"{"type":"response.done"}"#] {
            assert_eq!(read_server(text), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn a_transcription_is_billed_by_tokens_or_by_whole_seconds() {
        let event = |usage: &str| {
            let text = format!(
                r#"{{"type":"conversation.item.input_audio_transcription.completed","item_id":"i","transcript":"Hey","usage":{usage}}}"#
            );
            match read_server(&text).unwrap() {
                ServerEvent::Transcribed { usage } => usage,
                other => panic!("{other:?}"),
            }
        };
        // The example of OpenAI's reference.
        let tokens = event(
            r#"{"type":"tokens","total_tokens":22,"input_tokens":13,"input_token_details":{"text_tokens":0,"audio_tokens":13},"output_tokens":9}"#,
        );
        let tokens = *tokens.usage().unwrap();
        assert_eq!((tokens[Meter::InputAudio], tokens[Meter::Input], tokens[Meter::Output]), (13, 0, 9));
        for (seconds, whole) in [("3", 3), ("2.0", 2), ("2.2", 3)] {
            let usage = event(&format!(r#"{{"type":"duration","seconds":{seconds}}}"#));
            assert_eq!(usage.usage().unwrap()[Meter::Second], whole);
        }
        assert_eq!(event(r#"{"type":"duration","seconds":-2}"#), Reported::Nonsense);
    }

    #[test]
    fn audio_is_counted_by_its_length() {
        // A second has ten tokens when a caller says it, and twenty when the model does.
        assert_eq!((AudioFormat::Pcm.input_tokens(48_000), AudioFormat::Pcm.output_tokens(48_000)), (10, 20));
        assert_eq!((AudioFormat::G711.input_tokens(8_000), AudioFormat::G711.input_tokens(1)), (10, 1));
    }
}
