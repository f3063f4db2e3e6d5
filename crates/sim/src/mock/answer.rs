//! The bytes of answers in OpenAI's wire format. Pure: the same answer always gives the same bytes.

use super::script::UsageFault;

/// The one word of every answer; one token in the usual tokenizers.
pub(super) const WORD: &str = " word";

/// An answer of a chat or a completion, before it is written as JSON or as events.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) content: Content,
    /// Number of this answer; its ids are made of it.
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) choices: u64,
    /// Words per choice, and of what each call is given.
    pub(super) words: u64,
    /// Those words, if they are not the usual one.
    pub(super) text: Option<Vec<String>>,
    /// Calls per choice, where there are any.
    pub(super) calls: u64,
    /// Whether the cap on the output ended it.
    pub(super) capped: bool,
    pub(super) usage: Usage,
    pub(super) fault: Option<UsageFault>,
    /// `stream_options.include_usage`.
    pub(super) include_usage: bool,
}

/// The endpoint, and with it the shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Completion,
}

/// What the choices hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text,
    ToolCalls,
    Refusal,
}

/// Token counts over all choices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) cached: u64,
    pub(super) reasoning: u64,
}

/// The place of an event within a stream.
enum Event {
    Role { choice: u64 },
    Piece { choice: u64, piece: u64 },
    Finish { choice: u64 },
    Usage,
}

/// Appends formatted text; writing to memory cannot fail.
macro_rules! put {
    ($out:expr, $($format:tt)+) => {{
        use std::io::Write as _;
        write!($out, $($format)+).expect("writing to memory cannot fail")
    }};
}
pub(super) use put;

impl Answer {
    /// The whole answer as one JSON object.
    pub(super) fn json(&self, out: &mut Vec<u8>) {
        self.open(out, if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" });
        for choice in 0..self.choices {
            let finish = self.finish_reason();
            let comma = if choice == 0 { "" } else { "," };
            match (self.kind, self.content) {
                (Kind::Completion, _) => {
                    put!(out, r#"{comma}{{"text":""#);
                    self.words(out);
                    put!(out, r#"","index":{choice},"logprobs":null,"finish_reason":"{finish}"}}"#);
                    continue;
                }
                (Kind::Chat, Content::Text) => {
                    put!(out, r#"{comma}{{"index":{choice},"message":{{"role":"assistant","content":""#);
                    self.words(out);
                    put!(out, r#"","refusal":null,"annotations":[]}}"#);
                }
                (Kind::Chat, Content::Refusal) => {
                    put!(out, r#"{comma}{{"index":{choice},"message":{{"role":"assistant","content":null,"refusal":""#);
                    self.words(out);
                    put!(out, r#"","annotations":[]}}"#);
                }
                (Kind::Chat, Content::ToolCalls) => {
                    put!(
                        out,
                        r#"{comma}{{"index":{choice},"message":{{"role":"assistant","content":null,"tool_calls":["#
                    );
                    for call in 0..self.calls {
                        put!(
                            out,
                            r#"{}{{"id":"{}","type":"function","function":{{"name":"mock_tool","arguments":""#,
                            if call == 0 { "" } else { "," },
                            self.call_id(choice, call)
                        );
                        for piece in 1..=self.words {
                            self.argument_piece(piece, out);
                        }
                        put!(out, r#""}}}}"#);
                    }
                    put!(out, r#"],"refusal":null,"annotations":[]}}"#);
                }
            }
            put!(out, r#","logprobs":null,"finish_reason":"{finish}"}}"#);
        }
        put!(out, "]");
        if self.fault != Some(UsageFault::Missing) {
            put!(out, r#","usage":"#);
            self.usage.put(self.kind, self.fault, out);
        }
        put!(out, "}}");
    }

    /// Events with data in the stream, `[DONE]` not counted.
    pub(super) fn events(&self) -> u64 {
        self.roles() + self.choices * (self.pieces() + 1) + self.usage_events()
    }

    /// Whether that event carries generated content.
    pub(super) fn has_content(&self, index: u64) -> bool {
        matches!(self.event_at(index), Event::Piece { .. })
    }

    /// Appends the JSON of the event with that index.
    pub(super) fn event(&self, index: u64, out: &mut Vec<u8>) {
        self.open(out, if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" });
        let event = self.event_at(index);
        match (self.kind, &event) {
            (_, Event::Usage) => {}
            (Kind::Completion, Event::Finish { choice }) => {
                put!(
                    out,
                    r#"{{"text":"","index":{choice},"logprobs":null,"finish_reason":"{}"}}"#,
                    self.finish_reason()
                );
            }
            (Kind::Completion, Event::Piece { choice, .. } | Event::Role { choice }) => {
                let piece = if let Event::Piece { piece, .. } = &event { *piece } else { 0 };
                put!(out, r#"{{"text":""#);
                self.word(piece, out);
                put!(out, r#"","index":{choice},"logprobs":null,"finish_reason":null}}"#);
            }
            (Kind::Chat, Event::Role { choice }) => {
                let content = if self.content == Content::Text { r#""""# } else { "null" };
                put!(
                    out,
                    r#"{{"index":{choice},"delta":{{"role":"assistant","content":{content},"refusal":null}},"logprobs":null,"finish_reason":null}}"#
                );
            }
            (Kind::Chat, Event::Piece { choice, piece }) => {
                put!(out, r#"{{"index":{choice},"delta":{{"#);
                match self.content {
                    Content::Text | Content::Refusal => {
                        let field = if self.content == Content::Text { "content" } else { "refusal" };
                        put!(out, r#""{field}":""#);
                        self.word(*piece, out);
                        put!(out, "\"");
                    }
                    Content::ToolCalls => {
                        let (call, piece) = (piece / (self.words + 1), piece % (self.words + 1));
                        match piece {
                            0 => put!(
                                out,
                                r#""tool_calls":[{{"index":{call},"id":"{}","type":"function","function":{{"name":"mock_tool","arguments":""}}}}]"#,
                                self.call_id(*choice, call)
                            ),
                            piece => {
                                put!(out, r#""tool_calls":[{{"index":{call},"function":{{"arguments":""#);
                                self.argument_piece(piece, out);
                                put!(out, r#""}}}}]"#);
                            }
                        }
                    }
                }
                put!(out, r#"}},"logprobs":null,"finish_reason":null}}"#);
            }
            (Kind::Chat, Event::Finish { choice }) => {
                put!(
                    out,
                    r#"{{"index":{choice},"delta":{{}},"logprobs":null,"finish_reason":"{}"}}"#,
                    self.finish_reason()
                );
            }
        }
        put!(out, "]");
        self.event_usage(&event, index, out);
        put!(out, "}}");
    }

    fn event_usage(&self, event: &Event, index: u64, out: &mut Vec<u8>) {
        let usage = match (event, self.fault) {
            (Event::Usage, _) => Some(self.usage),
            (_, Some(UsageFault::Every)) => {
                let pieces = (index + 1).saturating_sub(self.roles()).min(self.choices * self.pieces());
                // The hidden part is done before the first word; the last event states the truth.
                let running = (self.usage.reasoning + pieces).min(self.usage.completion);
                let last = index + 1 == self.events();
                Some(Usage { completion: if last { self.usage.completion } else { running }, ..self.usage })
            }
            (Event::Finish { choice }, Some(UsageFault::WithFinish)) if choice + 1 == self.choices => Some(self.usage),
            _ => None,
        };
        match usage {
            Some(usage) => {
                put!(out, r#","usage":"#);
                usage.put(self.kind, self.fault, out);
            }
            None if self.usage_asked() && self.fault != Some(UsageFault::Missing) => put!(out, r#","usage":null"#),
            None => {}
        }
    }

    fn event_at(&self, index: u64) -> Event {
        if index < self.roles() {
            return Event::Role { choice: index };
        }
        let index = index - self.roles();
        let pieces = self.pieces() * self.choices;
        if index < pieces {
            return Event::Piece { choice: index % self.choices, piece: index / self.choices };
        }
        let index = index - pieces;
        if index < self.choices { Event::Finish { choice: index } } else { Event::Usage }
    }

    /// Only chats begin with the role.
    fn roles(&self) -> u64 {
        if self.kind == Kind::Chat { self.choices } else { 0 }
    }

    /// Events with content per choice; a tool call is first announced by name.
    fn pieces(&self) -> u64 {
        match (self.kind, self.content) {
            (Kind::Chat, Content::ToolCalls) => self.calls * (self.words + 1),
            _ => self.words,
        }
    }

    fn usage_asked(&self) -> bool {
        self.include_usage || self.fault == Some(UsageFault::Always)
    }

    fn usage_events(&self) -> u64 {
        match self.fault {
            _ if !self.usage_asked() => 0,
            Some(UsageFault::Missing | UsageFault::Every | UsageFault::WithFinish) => 0,
            Some(UsageFault::Twice) => 2,
            _ => 1,
        }
    }

    fn open(&self, out: &mut Vec<u8>, object: &str) {
        let (id, number) = (if self.kind == Kind::Chat { "chatcmpl" } else { "cmpl" }, self.number);
        put!(out, r#"{{"id":"{id}-mock{number}","object":"{object}","created":{},"model":"#, self.created);
        put_text(&self.model, out);
        let tier = if self.kind == Kind::Chat { r#""service_tier":"default","# } else { "" };
        put!(out, r#",{tier}"system_fingerprint":"fp_mock","choices":["#);
    }

    fn words(&self, out: &mut Vec<u8>) {
        (0..self.words).for_each(|place| self.word(place, out));
    }

    /// One word, escaped to stand inside a JSON string.
    fn word(&self, place: u64, out: &mut Vec<u8>) {
        match &self.text {
            None => out.extend_from_slice(WORD.as_bytes()),
            Some(text) => {
                let start = out.len();
                let word = usize::try_from(place).ok().and_then(|place| text.get(place));
                put_text(word.map_or("", String::as_str), out);
                out.remove(start);
                out.pop();
            }
        }
    }

    fn call_id(&self, choice: u64, call: u64) -> String {
        match call {
            0 => format!("call_mock{}_{choice}", self.number),
            call => format!("call_mock{}_{choice}_{call}", self.number),
        }
    }

    /// Part of `{"text":" word …"}`, escaped to stand inside a JSON string.
    fn argument_piece(&self, piece: u64, out: &mut Vec<u8>) {
        if piece == 1 {
            out.extend_from_slice(br#"{\"text\":\""#);
        }
        out.extend_from_slice(WORD.as_bytes());
        if piece == self.words {
            out.extend_from_slice(br#"\"}"#);
        }
    }

    fn finish_reason(&self) -> &'static str {
        match self.content {
            Content::ToolCalls if self.kind == Kind::Chat => "tool_calls",
            _ if self.capped => "length",
            _ => "stop",
        }
    }
}

impl Usage {
    fn put(self, kind: Kind, fault: Option<UsageFault>, out: &mut Vec<u8>) {
        if fault == Some(UsageFault::Null) {
            return put!(out, "null");
        }
        let count = |count: u64| Count { count, fault };
        put!(
            out,
            r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}"#,
            count(self.prompt),
            count(self.completion),
            count(self.prompt + self.completion)
        );
        if kind == Kind::Chat || self.cached > 0 || self.reasoning > 0 {
            put!(
                out,
                r#","prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
                count(self.cached),
                count(self.reasoning)
            );
        }
        put!(out, "}}");
    }
}

/// A token count as a fault distorts it.
struct Count {
    count: u64,
    fault: Option<UsageFault>,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.count;
        match self.fault {
            Some(UsageFault::Zero) => write!(f, "0"),
            Some(UsageFault::Negative) => write!(f, "-{}", count.max(1)),
            Some(UsageFault::String) => write!(f, "\"{count}\""),
            Some(UsageFault::Float) => write!(f, "{count}.5"),
            Some(UsageFault::Huge) => write!(f, "1e30"),
            _ => write!(f, "{count}"),
        }
    }
}

/// The answer to an embeddings request: `items` vectors that differ from each other.
pub(super) fn embeddings(
    model: &str,
    items: u64,
    dimensions: u64,
    base64: bool,
    prompt_tokens: u64,
    fault: Option<UsageFault>,
    out: &mut Vec<u8>,
) {
    put!(out, r#"{{"object":"list","data":["#);
    for item in 0..items {
        let comma = if item == 0 { "" } else { "," };
        put!(out, r#"{comma}{{"object":"embedding","index":{item},"embedding":"#);
        #[allow(clippy::cast_precision_loss)] // Small numbers; any vector would do.
        let values = (0..dimensions).map(|place| ((item * 31 + place * 7) % 1000) as f32 / 1000.0);
        if base64 {
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            put!(out, "\"");
            put_base64(&bytes, out);
            put!(out, "\"}}");
        } else {
            for (place, value) in values.enumerate() {
                put!(out, "{}{value}", if place == 0 { "[" } else { "," });
            }
            put!(out, "]}}");
        }
    }
    put!(out, r#"],"model":"#);
    put_text(model, out);
    match fault {
        Some(UsageFault::Missing) => {}
        Some(UsageFault::Null) => put!(out, r#","usage":null"#),
        _ => {
            let count = Count { count: prompt_tokens, fault };
            put!(out, r#","usage":{{"prompt_tokens":{count},"total_tokens":{count}}}"#);
        }
    }
    put!(out, "}}");
}

/// One entry of the list of models.
pub(super) fn model(id: &str, out: &mut Vec<u8>) {
    put!(out, r#"{{"id":"#);
    put_text(id, out);
    put!(out, r#","object":"model","created":1700000000,"owned_by":"mock"}}"#);
}

/// An error in OpenAI's shape. An empty code is null.
pub(super) fn error(message: &str, kind: &str, code: &str, out: &mut Vec<u8>) {
    put!(out, r#"{{"error":{{"message":"#);
    put_text(message, out);
    put!(out, r#","type":"{kind}","param":null,"code":"#);
    match code {
        "" => put!(out, "null"),
        code => put!(out, "\"{code}\""),
    }
    put!(out, "}}}}");
}

/// What OpenAI says with a status: message, type, code.
pub(super) fn usual_error(status: u16) -> (&'static str, &'static str, &'static str) {
    match status {
        401 => ("Incorrect API key provided: mock.", "invalid_request_error", "invalid_api_key"),
        402 => ("Insufficient balance.", "insufficient_balance_error", "insufficient_balance"),
        403 => {
            ("You have insufficient permissions for this operation.", "permission_error", "insufficient_permissions")
        }
        404 => {
            ("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found")
        }
        408 => ("The request timed out.", "timeout", "timeout"),
        413 => ("The request body is too large.", "invalid_request_error", "payload_too_large"),
        429 => (
            "Rate limit reached for mock-model in organization org-mock on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
            "requests",
            "rate_limit_exceeded",
        ),
        503 => (
            "The engine is currently overloaded, please try again later.",
            "service_unavailable_error",
            "server_is_overloaded",
        ),
        529 => ("Overloaded.", "overloaded_error", ""),
        500.. => ("The server had an error while processing your request.", "server_error", ""),
        _ => ("The request is invalid.", "invalid_request_error", ""),
    }
}

/// A JSON string, quotes included.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is always JSON");
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            out.push(if place <= group.len() { DIGITS[bits >> (18 - 6 * place) & 63] } else { b'=' });
        }
    }
}

/// A gzip file of `mebibytes` MiB of zeros, about 1/158 of that in size. Its checksum is wrong on purpose:
/// whoever reads far enough to notice has already inflated everything.
pub(super) fn gzip_bomb(mebibytes: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let mut bits = Bits { out, pending: 0, count: 0 };
    // One final block with fixed codes: a zero byte, then matches of 258 bytes at distance 1.
    bits.push(0b011, 3);
    bits.push(0b0000_1100, 8); // literal 0 is code 00110000, most significant bit first
    let matches = u64::from(mebibytes) * 1024 * 1024 / 258;
    for _ in 0..matches {
        bits.push(0b1010_0011, 8); // length 258 is code 11000101, most significant bit first
        bits.push(0, 5); // distance 1
    }
    bits.push(0, 7); // end of block
    bits.push(0, 7); // fill the last byte
    out.extend_from_slice(&[0; 4]);
    let size = u32::try_from(matches * 258 + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&size.to_le_bytes());
}

/// Writes bits from the least significant end, as DEFLATE does.
struct Bits<'o> {
    out: &'o mut Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits<'_> {
    fn push(&mut self, bits: u32, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push((self.pending & 0xff) as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn answer() -> Answer {
        Answer {
            kind: Kind::Chat,
            content: Content::Text,
            number: 7,
            created: 1,
            model: "m\"x".to_owned(),
            choices: 1,
            words: 2,
            text: None,
            calls: 1,
            capped: false,
            usage: Usage { prompt: 9, completion: 3, cached: 4, reasoning: 1 },
            fault: None,
            include_usage: false,
        }
    }

    fn whole(answer: &Answer) -> Value {
        let mut out = Vec::new();
        answer.json(&mut out);
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    }

    fn events(answer: &Answer) -> Vec<Value> {
        let event = |index| {
            let mut out = Vec::new();
            answer.event(index, &mut out);
            serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
        };
        (0..answer.events()).map(event).collect()
    }

    #[test]
    fn a_chat_answer_has_openais_shape() {
        assert_eq!(
            whole(&answer()),
            json!({"id":"chatcmpl-mock7","object":"chat.completion","created":1,"model":"m\"x","service_tier":"default",
                "system_fingerprint":"fp_mock",
                "choices":[{"index":0,"message":{"role":"assistant","content":" word word","refusal":null,"annotations":[]},
                    "logprobs":null,"finish_reason":"stop"}],
                "usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,
                    "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
                    "completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":0,
                        "accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}})
        );
    }

    #[test]
    fn a_stream_is_role_words_finish_and_usage_only_if_asked() {
        let plain = events(&answer());
        assert_eq!(plain.len(), 4);
        assert_eq!(plain[0]["choices"][0]["delta"], json!({"role":"assistant","content":"","refusal":null}));
        assert_eq!(plain[1]["choices"][0]["delta"], json!({"content":" word"}));
        assert_eq!(plain[3]["choices"][0], json!({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}));
        assert!(plain.iter().all(|event| event.get("usage").is_none()));

        let asked = events(&Answer { include_usage: true, ..answer() });
        assert_eq!(asked.len(), 5);
        assert!(asked[..4].iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
        assert_eq!(asked[4]["choices"], json!([]));
        assert_eq!(asked[4]["usage"]["total_tokens"], 12);
    }

    #[test]
    fn choices_are_interleaved_and_all_finish() {
        let events = events(&Answer { choices: 3, ..answer() });
        let order: Vec<_> = events.iter().map(|event| event["choices"][0]["index"].as_u64().unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
        assert_eq!(events.iter().filter(|event| event["choices"][0]["finish_reason"] == "stop").count(), 3);
    }

    #[test]
    fn tool_call_pieces_join_to_valid_arguments() {
        let answer = Answer { content: Content::ToolCalls, ..answer() };
        let mut arguments = String::new();
        let events = events(&answer);
        for event in &events {
            let function = &event["choices"][0]["delta"]["tool_calls"][0]["function"];
            arguments.push_str(function["arguments"].as_str().unwrap_or_default());
        }
        assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"text":" word word"}));
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
        let call = whole(&answer)["choices"][0]["message"]["tool_calls"][0].clone();
        assert_eq!(call["function"]["arguments"].as_str().unwrap(), arguments);
    }

    #[test]
    fn completions_have_their_own_shape() {
        let answer = Answer { kind: Kind::Completion, ..answer() };
        assert_eq!(whole(&answer)["choices"][0]["text"], " word word");
        let events = events(&answer);
        assert_eq!(events.len(), 3);
        assert_eq!(events[0]["object"], "text_completion");
        assert_eq!(events[2]["choices"][0]["finish_reason"], "stop");
    }

    #[test]
    fn usage_faults_are_valid_json_of_the_wrong_kind() {
        let usage = |fault| whole(&Answer { fault: Some(fault), ..answer() })["usage"].clone();
        assert_eq!(usage(UsageFault::Missing), Value::Null);
        assert_eq!(usage(UsageFault::Null), Value::Null);
        assert_eq!(usage(UsageFault::Zero)["total_tokens"], 0);
        assert_eq!(usage(UsageFault::Negative)["prompt_tokens"], -9);
        assert_eq!(usage(UsageFault::String)["prompt_tokens"], "9");
        assert_eq!(usage(UsageFault::Float)["prompt_tokens"], 9.5);
        assert_eq!(usage(UsageFault::Huge)["prompt_tokens"], 1e30);
        assert!(whole(&Answer { fault: Some(UsageFault::Missing), ..answer() }).get("usage").is_none());
    }

    #[test]
    fn stream_usage_can_come_always_twice_with_the_finish_or_in_every_event() {
        let streamed = |fault| events(&Answer { fault: Some(fault), include_usage: true, ..answer() });
        assert_eq!(events(&Answer { fault: Some(UsageFault::Always), ..answer() }).len(), 5);
        assert_eq!(streamed(UsageFault::Twice).len(), 6);
        assert_eq!(streamed(UsageFault::Missing).len(), 4);
        assert_eq!(streamed(UsageFault::WithFinish)[3]["usage"]["completion_tokens"], 3);
        let running: Vec<_> = streamed(UsageFault::Every)
            .iter()
            .map(|event| event["usage"]["completion_tokens"].as_u64().unwrap())
            .collect();
        assert_eq!(running, [1, 2, 3, 3]);
    }

    #[test]
    fn embeddings_come_as_numbers_or_base64() {
        let mut out = Vec::new();
        embeddings("e", 2, 3, false, 5, None, &mut out);
        let plain: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(plain["data"][1]["embedding"].as_array().unwrap().len(), 3);
        assert_eq!(plain["usage"], json!({"prompt_tokens":5,"total_tokens":5}));
        out.clear();
        embeddings("e", 1, 2, true, 5, None, &mut out);
        let packed: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(packed["data"][0]["embedding"], "AAAAAEJg5Ts=");
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            let mut out = Vec::new();
            put_base64(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn the_bomb_is_small() {
        let mut out = Vec::new();
        gzip_bomb(16, &mut out);
        assert!(out.len() < 16 * 1024 * 1024 / 150);
    }
}
