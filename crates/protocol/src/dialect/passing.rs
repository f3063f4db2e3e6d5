//! Requests and streams that pass as they came, because caller and upstream speak the same dialect.
//!
//! Their bytes stay the caller's, fields included that this gateway does not know. What decides about them still is what
//! they say in chat; this module says what they may ask for beyond that, edits the few values that the upstream must read
//! differently, and ends a stream in the dialect's own way where the gateway has to.

use super::{Dialect, Reply, StreamReader, StreamWriter, gemini, messages, responses};
use crate::canonical::{BadRequest, Event, Part, PartKind, Reported, Request, Source, Stop, StopReason, Tool};
use crate::json::patch::{Patches, place};
use crate::json::tree::{Member, Node};
use bytes::Bytes;
use domain::{Meter, Usage};

/// How often a model is expected to search where the request does not say.
const SEARCHES_USUAL: u64 = 5;

/// The least budget of thinking that Anthropic takes.
const BUDGET_TOKENS_MIN: u64 = 1024;

/// What a request may consume beyond what is said in chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// How often it is expected to use the provider's own tools at most, by their meters.
    pub tools: Usage,
    /// The provider's own tools add to the prompt, which is read and billed again after each use of one.
    pub reads_more: bool,
    /// The answer can hold audio.
    pub audio_out: bool,
    /// The answer can hold images.
    pub images_out: bool,
}

/// What the request may consume beyond what is said in chat. Refuses what cannot be passed on: what refers to the provider's
/// own storage, which all callers of an upstream account would share (U-38), what is answered later than the request or by
/// another model, and what is billed in a way that no answer tells.
pub fn check(dialect: Dialect, request: &Request<'_>) -> Result<Beyond, BadRequest> {
    let mut beyond = Beyond::default();
    for extra in request.extra.iter().filter(|extra| extra.dialect == dialect && extra.json != "null") {
        let why = match (dialect, extra.name.as_ref()) {
            (Dialect::Responses, "background") if extra.json == "false" => continue,
            (Dialect::Messages, "speed") if extra.json == "\"standard\"" => continue,
            (Dialect::Messages, "inference_geo") if extra.json == "\"global\"" => continue,
            (Dialect::Gemini, "generationConfig.responseModalities") => {
                modalities(&extra.json, &mut beyond)?;
                continue;
            }
            (Dialect::Responses, "background") => "answers in the background are not served here; stream it instead",
            (Dialect::Responses, "conversation" | "prompt")
            | (Dialect::Messages, "container" | "user_profile_id")
            | (Dialect::Gemini, "cachedContent") => {
                "it refers to something that the provider keeps for its account, which callers here share; send the \
                 content itself"
            }
            (Dialect::Messages, "speed" | "inference_geo") => "it changes the price in a way that is not known here",
            // M-35.
            (_, "models" | "fallbacks") => "it would let another model serve than the one priced",
            _ => continue,
        };
        return refuse(format!("{}: {why}", extra.name));
    }
    for part in request.messages.iter().flat_map(|message| &message.parts) {
        if is_stored(part) {
            let what = "files that a provider keeps cannot be referred to here, because callers share its account";
            return refuse(format!("messages: {what}; send the content itself"));
        }
        if let PartKind::Other { json, .. } = &part.kind {
            nested_tools(dialect, json, &mut beyond)?;
        }
    }
    for tool in &request.tools {
        if let Tool::BuiltIn { name, json, .. } = tool {
            own_tool(dialect, name, json, &mut beyond)?;
        }
    }
    Ok(beyond)
}

fn refuse<T>(message: String) -> Result<T, BadRequest> {
    Err(BadRequest { message, param: None })
}

/// What a tool of the provider's own may consume.
fn own_tool(dialect: Dialect, name: &str, json: &str, beyond: &mut Beyond) -> Result<(), BadRequest> {
    let node = Node::read(json).ok();
    let is_own = |check: fn(&Node<'_>) -> bool| node.as_ref().is_some_and(check);
    match (dialect, kind_of(name)) {
        (Dialect::Messages, "web_search") => {
            beyond.tools[Meter::WebSearch] += uses(json, "max_uses");
            beyond.reads_more = true;
        }
        (Dialect::Responses, "web_search" | "web_search_preview") => {
            beyond.tools[Meter::WebSearch] += SEARCHES_USUAL;
            beyond.reads_more = true;
        }
        // What is found is not billed.
        (Dialect::Gemini, "googleSearch" | "googleSearchRetrieval") => {
            beyond.tools[Meter::WebSearch] += SEARCHES_USUAL;
        }
        (Dialect::Responses, "code_interpreter") if is_own(is_own_container) => {
            beyond.tools[Meter::CodeExecution] += 1;
            beyond.reads_more = true;
        }
        // They cost tokens alone, of what they read.
        (
            Dialect::Messages,
            "web_fetch" | "tool_search_tool_regex" | "tool_search_tool_bm25" | "tool_search_tool" | "mcp_toolset",
        )
        | (Dialect::Responses, "tool_search")
        | (Dialect::Gemini, "codeExecution" | "urlContext") => beyond.reads_more = true,
        (Dialect::Responses, "mcp") if is_own(|tool| tool.get("tunnel_id").is_none()) => beyond.reads_more = true,
        // The caller runs them.
        (Dialect::Messages, "bash" | "text_editor" | "computer" | "memory")
        | (
            Dialect::Responses,
            "computer_use_preview" | "computer" | "local_shell" | "apply_patch" | "function" | "custom",
        )
        | (Dialect::Gemini, "computerUse") => {}
        (Dialect::Responses, "shell") if is_own(is_local) => {}
        (Dialect::Responses, "namespace") => nested_tools(dialect, json, beyond)?,
        _ => {
            return refuse(format!(
                "tools: what {name:?} costs or refers to is not known here, so it is not served; leave it out"
            ));
        }
    }
    Ok(())
}

/// Tools of Responses also stand in items, and in other tools.
fn nested_tools(dialect: Dialect, json: &str, beyond: &mut Beyond) -> Result<(), BadRequest> {
    let node = Node::read(json).ok().filter(|_| dialect == Dialect::Responses);
    for tool in node.as_ref().and_then(|node| node.get("tools")).map(Node::elements).unwrap_or_default() {
        // What a server of tools has is listed without types.
        if let Some(name) = tool.text_of("type") {
            own_tool(dialect, &name, tool.raw, beyond)?;
        }
    }
    Ok(())
}

fn modalities(json: &str, beyond: &mut Beyond) -> Result<(), BadRequest> {
    let node = Node::read(json).ok();
    for kind in node.as_ref().map(Node::elements).unwrap_or_default() {
        match kind.text().map(AsRef::as_ref) {
            Some("TEXT" | "MODALITY_UNSPECIFIED") => {}
            Some("AUDIO") => beyond.audio_out = true,
            Some("IMAGE") => beyond.images_out = true,
            _ => return refuse("generationConfig.responseModalities: must be TEXT, IMAGE or AUDIO".to_owned()),
        }
    }
    Ok(())
}

/// A tool's type without the date at its end.
fn kind_of(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((kind, date)) if date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit()) => kind,
        _ => match name.len().checked_sub("_2025_08_26".len()).and_then(|at| name.split_at_checked(at)) {
            Some((kind, date)) if date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') => kind,
            _ => name,
        },
    }
}

fn uses(json: &str, field: &str) -> u64 {
    let node = Node::read(json).ok();
    node.and_then(|node| node.count_of(field)).unwrap_or(SEARCHES_USUAL).min(domain::usage::COUNT_MAX)
}

/// The container is made for the request, without the account's files, and of the size that the price is for.
fn is_own_container(tool: &Node<'_>) -> bool {
    let is_usual = |container: &Node<'_>| {
        let size = container.get("memory_limit").map(Node::text);
        size.is_none_or(|size| size.is_some_and(|size| size == "1g"))
    };
    tool.get("container")
        .is_none_or(|container| container.is_object() && container.get("file_ids").is_none() && is_usual(container))
}

/// The caller runs the commands, not a container of the provider's, which is billed by itself.
fn is_local(tool: &Node<'_>) -> bool {
    tool.get("environment").is_none_or(|environment| environment.text_of("type").as_deref() == Some("local"))
}

fn is_stored(part: &Part<'_>) -> bool {
    match &part.kind {
        PartKind::Image(media) | PartKind::Audio(media) | PartKind::File(media) => {
            matches!(media.source, Source::Stored { .. })
        }
        PartKind::ToolResult(result) => result.parts.iter().any(is_stored),
        // A document of blocks may hold stored images; an item may be another's.
        PartKind::Other { name, json, .. } => {
            matches!(name.as_ref(), "item_reference" | "container_upload")
                || Node::read(json).is_ok_and(|node| names_stored(&node))
        }
        _ => false,
    }
}

fn names_stored(node: &Node<'_>) -> bool {
    let is_file = |member: &Member<'_>| member.name == "file_id" && !member.node.is_null();
    node.members().iter().any(is_file)
        || node.text_of("type").as_deref() == Some("container_reference")
        || node.members().iter().map(|member| &member.node).chain(node.elements()).any(names_stored)
}

/// How many bytes of a request's body are those of images, sounds and files.
pub fn media_bytes(request: &Request<'_>) -> usize {
    fn bytes(part: &Part<'_>) -> usize {
        match &part.kind {
            PartKind::Image(media) | PartKind::Audio(media) | PartKind::File(media) => match &media.source {
                Source::Base64(data) => data.len(),
                _ => 0,
            },
            PartKind::ToolResult(result) => result.parts.iter().map(bytes).sum(),
            _ => 0,
        }
    }
    request.messages.iter().flat_map(|message| &message.parts).map(bytes).sum()
}

/// What of a request the upstream must read differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'e> {
    /// Another name for the model, where the dialect has it in the body.
    pub model: Option<&'e str>,
    /// The most answer tokens: a higher cap of the caller's is lowered to it, and where there is none it is added.
    pub output_tokens_max: Option<u64>,
}

/// A request's body with `edits` made: the same bytes, not a copy, where there are none. The body must be one that was
/// read before.
pub fn edited(dialect: Dialect, body: &Bytes, edits: &Edits<'_>) -> Bytes {
    if *edits == Edits::default() {
        return body.clone();
    }
    let text = std::str::from_utf8(body).unwrap_or_default();
    let Ok(node) = Node::read(text) else { return body.clone() };
    let mut patches = Patches::default();
    let mut set = |parent: &Node<'_>, field: &str, json: String| match member(parent, field) {
        Some(member) => patches.replace(place(text, member.raw), json),
        None => {
            let inside = place(text, parent.raw).start + 1;
            let comma = if parent.members().is_empty() { "" } else { "," };
            patches.replace(inside..inside, format!("\"{field}\":{json}{comma}"));
        }
    };
    // Gemini has it in the path, and perhaps in the body, too.
    let (prefix, is_there) = match dialect {
        Dialect::Gemini => ("models/", member(&node, "model").is_some()),
        _ => ("", true),
    };
    if let Some(model) = edits.model.filter(|_| is_there) {
        set(
            &node,
            "model",
            serde_json::to_string(&format!("{prefix}{model}")).expect("a string can be written as JSON"),
        );
    }
    if let Some(most) = edits.output_tokens_max {
        let (parent, field) = match dialect {
            Dialect::Gemini => (member(&node, "generationConfig"), "maxOutputTokens"),
            Dialect::Responses => (Some(&node), "max_output_tokens"),
            _ => (Some(&node), "max_tokens"),
        };
        match parent.filter(|parent| parent.is_object()) {
            None => set(&node, "generationConfig", format!("{{\"{field}\":{most}}}")),
            Some(parent) => {
                let asked = member(parent, field).and_then(Node::count);
                if asked.is_none_or(|asked| asked > most) {
                    set(parent, field, most.to_string());
                }
            }
        }
        if dialect == Dialect::Messages
            && let Some(thinking) = node.get("thinking")
            && thinking.count_of("budget_tokens").is_some_and(|budget| budget >= most)
        {
            // Thinking must leave room for an answer.
            if most > BUDGET_TOKENS_MIN {
                set(thinking, "budget_tokens", (most - 1).to_string());
            } else {
                set(&node, "thinking", r#"{"type":"disabled"}"#.to_owned());
            }
        }
    }
    patches.applied_to(body)
}

/// The member of that name, also where it is `null`; in Google's other spelling, too.
fn member<'n, 'a>(node: &'n Node<'a>, name: &str) -> Option<&'n Node<'a>> {
    let members = node.members().iter();
    let mut members = members.filter(|member| member.name == name || gemini::camel(&member.name) == name);
    members.next().map(|member| &member.node)
}

/// How far a stream has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Anything has.
    pub begun: bool,
    /// The block of a message that is open.
    pub open_block: Option<u64>,
    /// The number of a response's next event.
    pub next_sequence: u64,
}

impl Passed {
    /// How far a stream has passed of which this reader has read everything.
    pub fn of(reader: &StreamReader) -> Self {
        match reader {
            StreamReader::Messages(reader) => Self { begun: true, open_block: reader.open_block(), ..Self::default() },
            StreamReader::Responses(reader) => {
                Self { begun: true, next_sequence: reader.next_sequence(), ..Self::default() }
            }
            _ => Self { begun: true, ..Self::default() },
        }
    }

    /// What goes on writing such a stream, in order to end it.
    pub fn writer(self, dialect: Dialect, framing: gemini::Framing, reply: &Reply<'_>) -> StreamWriter {
        match dialect {
            Dialect::Messages => StreamWriter::Messages(messages::StreamWriter::resumed(reply, self)),
            Dialect::Gemini => StreamWriter::Gemini(gemini::StreamWriter::resumed(reply, framing, self.begun)),
            Dialect::Responses => {
                StreamWriter::Responses(Box::new(responses::StreamWriter::resumed(reply, self.next_sequence)))
            }
            _ => StreamWriter::new(dialect, reply),
        }
    }

    /// Ends the stream in the words of its dialect as its provider would have ended it at the cap; `open`: the choices
    /// that were not complete. For Responses, whose end repeats the whole answer, there is no such way.
    pub fn end_by_length(
        self,
        dialect: Dialect,
        framing: gemini::Framing,
        open: impl Iterator<Item = u32>,
        usage: &Usage,
        reply: &Reply<'_>,
    ) -> Vec<u8> {
        let mut writer = self.writer(dialect, framing, reply);
        let mut out = Vec::new();
        for choice in open {
            let stop = Stop { reason: StopReason::Length, sequence: None };
            writer.write(&Event::Stop { choice, stop }, reply, &mut out);
        }
        writer.write(&Event::Usage(Reported::Usage(*usage)), reply, &mut out);
        writer.write(&Event::End, reply, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::read_request;

    fn checked(dialect: Dialect, body: &str) -> Result<Beyond, String> {
        let request = read_request(dialect, body.as_bytes()).unwrap();
        check(dialect, &request).map_err(|bad| bad.message)
    }

    fn message(fields: &str) -> String {
        format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}],{fields}}}"#)
    }

    #[test]
    fn tools_that_cost_more_than_tokens_are_counted_and_unknown_ones_refused() {
        let searches = |body: &str, dialect| checked(dialect, body).unwrap().tools[Meter::WebSearch];
        let tool = |tool: &str| message(&format!(r#""tools":[{tool}]"#));
        assert_eq!(
            searches(&tool(r#"{"type":"web_search_20250305","name":"web_search","max_uses":3}"#), Dialect::Messages),
            3
        );
        assert_eq!(
            searches(&tool(r#"{"type":"web_search_20260209","name":"web_search"}"#), Dialect::Messages),
            SEARCHES_USUAL
        );
        assert_eq!(searches(&tool(r#"{"type":"bash_20250124","name":"bash"}"#), Dialect::Messages), 0);
        let code = checked(Dialect::Messages, &tool(r#"{"type":"code_execution_20250825","name":"code_execution"}"#));
        assert!(code.unwrap_err().contains("code_execution"), "no answer tells what it costs");
        let responses = |tools: &str| format!(r#"{{"model":"m","input":"hi","tools":[{tools}]}}"#);
        let usage = checked(
            Dialect::Responses,
            &responses(
                r#"{"type":"web_search_preview_2025_03_11"},{"type":"code_interpreter","container":{"type":"auto"}}"#,
            ),
        );
        let usage = usage.unwrap().tools;
        assert_eq!((usage[Meter::WebSearch], usage[Meter::CodeExecution]), (SEARCHES_USUAL, 1));
        for tool in [
            r#"{"type":"file_search","vector_store_ids":["vs_1"]}"#,
            r#"{"type":"code_interpreter","container":"cntr_1"}"#,
            r#"{"type":"code_interpreter","container":{"type":"auto","file_ids":["file-1"]}}"#,
            r#"{"type":"image_generation"}"#,
        ] {
            assert!(checked(Dialect::Responses, &responses(tool)).is_err(), "{tool}");
        }
        for tool in [
            r#"{"type":"code_interpreter","container":{"type":"auto","memory_limit":"64g"}}"#,
            r#"{"type":"shell","environment":{"type":"container_auto"}}"#,
            r#"{"type":"mcp","server_label":"a","tunnel_id":"tunnel_1"}"#,
            r#"{"type":"namespace","name":"a","tools":[{"type":"image_generation"}]}"#,
        ] {
            assert!(checked(Dialect::Responses, &responses(tool)).is_err(), "{tool}");
        }
        let local = r#"{"type":"shell","environment":{"type":"local"}},{"type":"namespace","name":"a","tools":[{"type":"function","name":"f"}]}"#;
        assert_eq!(checked(Dialect::Responses, &responses(local)), Ok(Beyond::default()));
        // Tools may also stand among what is said.
        for kind in ["additional_tools", "tool_search_output"] {
            let input = |tool: &str| format!(r#"{{"model":"m","input":[{{"type":"{kind}","tools":[{tool}]}}]}}"#);
            assert!(checked(Dialect::Responses, &input(r#"{"type":"file_search"}"#)).is_err(), "{kind}");
            assert_eq!(searches(&input(r#"{"type":"web_search"}"#), Dialect::Responses), SEARCHES_USUAL, "{kind}");
        }
        let advisor = r#"{"type":"advisor_20260301","name":"advisor","model":"dearer"}"#;
        assert!(checked(Dialect::Messages, &tool(advisor)).is_err(), "another model at another price");
        let gemini = |tool: &str| format!(r#"{{"contents":[{{"parts":[{{"text":"hi"}}]}}],"tools":[{tool}]}}"#);
        assert_eq!(searches(&gemini(r#"{"google_search":{}},{"codeExecution":{}}"#), Dialect::Gemini), SEARCHES_USUAL);
        assert!(checked(Dialect::Gemini, &gemini(r#"{"fileSearch":{}}"#)).is_err());
    }

    #[test]
    fn m_12_what_tools_of_the_provider_read_and_what_is_no_text_is_bounded_for() {
        let reads = |dialect, body: &str| checked(dialect, body).unwrap().reads_more;
        assert!(reads(Dialect::Messages, &message(r#""tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]"#)));
        assert!(!reads(Dialect::Messages, &message(r#""tools":[{"type":"bash_20250124","name":"bash"}]"#)));
        let gemini = |fields: &str| format!(r#"{{"contents":[{{"parts":[{{"text":"hi"}}]}}],{fields}}}"#);
        assert!(reads(Dialect::Gemini, &gemini(r#""tools":[{"url_context":{}}]"#)));
        let beyond = |modalities: &str| {
            checked(Dialect::Gemini, &gemini(&format!(r#""generation_config":{{"response_modalities":{modalities}}}"#)))
        };
        let (audio, image) = (beyond(r#"["AUDIO"]"#).unwrap(), beyond(r#"["TEXT","IMAGE"]"#).unwrap());
        assert_eq!((audio.audio_out, audio.images_out, image.audio_out, image.images_out), (true, false, false, true));
        assert!(beyond("[2]").is_err(), "Google takes the numbers of its words as well");
    }

    #[test]
    fn m_35_no_other_model_answers_than_the_one_priced() {
        for field in [r#""models":["dearer"]"#, r#""fallbacks":[{"model":"dearer"}]"#] {
            assert!(checked(Dialect::Messages, &message(field)).is_err(), "{field}");
        }
        let body = r#"{"model":"models/m","contents":[]}"#;
        let edits = Edits { model: Some("n"), output_tokens_max: None };
        let sent = edited(Dialect::Gemini, &Bytes::from_static(body.as_bytes()), &edits);
        assert_eq!(&sent[..], br#"{"model":"models/n","contents":[]}"#);
    }

    #[test]
    fn u_38_what_the_provider_keeps_for_its_account_is_not_referred_to() {
        for body in [
            message(r#""container":"container_1""#),
            message(r#""speed":"fast""#),
            message(r#""inference_geo":"us""#),
            message(r#""user_profile_id":"uprof_1""#),
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"file","file_\u0069d":"f"}}]}}]}]}"#.to_owned(),
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]}"#.to_owned(),
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"container_upload","file_id":"f"}]}]}"#.to_owned(),
        ] {
            assert!(checked(Dialect::Messages, &body).is_err(), "{body}");
        }
        assert_eq!(
            checked(Dialect::Messages, &message(r#""container":null,"speed":"standard","mcp_servers":[]"#)),
            Ok(Beyond::default())
        );
        for fields in [
            r#""conversation":"conv_1""#,
            r#""prompt":{"id":"pmpt_1"}"#,
            r#""background":true"#,
            r#""input":[{"type":"item_reference","id":"msg_1"}]"#,
            r#""input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]"#,
        ] {
            let input = if fields.contains("input") { "" } else { r#","input":"hi""# };
            let body = format!(r#"{{"model":"m",{fields}{input}}}"#);
            assert!(checked(Dialect::Responses, &body).is_err(), "{body}");
        }
        for fields in [r#""cachedContent":"cachedContents/1""#, r#""cached_content":"cachedContents/1""#] {
            let body = format!(r#"{{"contents":[{{"parts":[{{"text":"hi"}}]}}],{fields}}}"#);
            assert!(checked(Dialect::Gemini, &body).is_err(), "{body}");
        }
        let item =
            r#"{"type":"shell_call","call_id":"c","environment":{"type":"container_reference","container_id":"c"}}"#;
        let body = format!(r#"{{"model":"m","input":[{{"role":"user","content":"hi"}},{item}]}}"#);
        assert!(checked(Dialect::Responses, &body).is_err(), "{body}");
        let both = r#"{"type":"input_image","image_url":"https://a/b.png","file_id":"file-1"}"#;
        let body = format!(r#"{{"model":"m","input":[{{"role":"user","content":[{both}]}}]}}"#);
        assert!(read_request(Dialect::Responses, body.as_bytes()).is_err(), "{body}");
        for uri in [
            "https://generativelanguage.googleapis.com/v1beta/files/x",
            "https://GenerativeLanguage.googleapis.com/v1beta/files/x",
            "GS://b/x",
        ] {
            let body = format!(r#"{{"contents":[{{"parts":[{{"fileData":{{"fileUri":"{uri}"}}}}]}}]}}"#);
            assert!(checked(Dialect::Gemini, &body).is_err(), "{uri}");
        }
    }

    #[track_caller]
    fn edits(dialect: Dialect, body: &'static str, output_tokens_max: u64, expected: &str) {
        let edits = Edits { model: Some("n"), output_tokens_max: Some(output_tokens_max) };
        let body = edited(dialect, &Bytes::from_static(body.as_bytes()), &edits);
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
    }

    #[test]
    fn a_model_and_a_cap_are_changed_and_nothing_else() {
        edits(
            Dialect::Messages,
            r#"{ "x":[ 1.0 ],"model":"m", "max_tokens":90 }"#,
            50,
            r#"{ "x":[ 1.0 ],"model":"n", "max_tokens":50 }"#,
        );
        edits(Dialect::Messages, r#"{"model":"m","max_tokens":9}"#, 50, r#"{"model":"n","max_tokens":9}"#);
        edits(
            Dialect::Messages,
            r#"{"model":"m","max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":4000}}"#,
            2000,
            r#"{"model":"n","max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":1999}}"#,
        );
        edits(
            Dialect::Messages,
            r#"{"model":"m","max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":4000}}"#,
            500,
            r#"{"model":"n","max_tokens":500,"thinking":{"type":"disabled"}}"#,
        );
        edits(Dialect::Responses, r#"{"model":"m"}"#, 50, r#"{"max_output_tokens":50,"model":"n"}"#);
        edits(
            Dialect::Responses,
            r#"{"model":"m","max_output_tokens":null}"#,
            50,
            r#"{"model":"n","max_output_tokens":50}"#,
        );
        edits(
            Dialect::Gemini,
            r#"{"contents":[]}"#,
            50,
            r#"{"generationConfig":{"maxOutputTokens":50},"contents":[]}"#,
        );
        edits(
            Dialect::Gemini,
            r#"{"generation_config":{"max_output_tokens":90}}"#,
            50,
            r#"{"generation_config":{"max_output_tokens":50}}"#,
        );
        edits(Dialect::Gemini, r#"{"generationConfig":{}}"#, 50, r#"{"generationConfig":{"maxOutputTokens":50}}"#);
    }

    #[test]
    fn an_end_by_length_goes_on_where_the_stream_stands() {
        let reply = Reply { id: "r1", model: Some("m"), created_s: 0, include_usage: true, echo: "" };
        let usage = Usage::tokens(9, 4);
        let mut reader = StreamReader::new(Dialect::Messages, &crate::dialect::Quirks::COMPATIBLE);
        for event in [
            r#"{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":9,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":3,"content_block":{"type":"text","text":""}}"#,
        ] {
            reader.read(event.as_bytes(), &mut |_| {});
        }
        let passed = Passed::of(&reader);
        let end = passed.end_by_length(Dialect::Messages, gemini::Framing::Events, [0].into_iter(), &usage, &reply);
        let end = String::from_utf8(end).unwrap();
        let names: Vec<_> = end.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        assert_eq!(names, ["content_block_stop", "message_delta", "message_stop"], "{end}");
        assert!(end.contains(r#""index":3"#) && end.contains(r#""stop_reason":"max_tokens""#), "{end}");
        let mut reader = StreamReader::new(Dialect::Responses, &crate::dialect::Quirks::COMPATIBLE);
        reader.read(br#"{"type":"response.output_text.delta","sequence_number":6,"delta":"a"}"#, &mut |_| {});
        let error =
            crate::dialect::ErrorText { status: 502, kind: "api_error", code: None, message: "no", param: None };
        let mut out = Vec::new();
        let framing = gemini::Framing::Events;
        Passed::of(&reader).writer(Dialect::Responses, framing, &reply).write_error(&error, &mut out);
        let out = String::from_utf8(out).unwrap();
        let numbers: Vec<_> = out.split("\"sequence_number\":").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(numbers, ["7", "8"], "{out}");
        let passed = Passed { begun: true, ..Passed::default() };
        let end = passed.end_by_length(Dialect::Gemini, gemini::Framing::Array, [0].into_iter(), &usage, &reply);
        let end = String::from_utf8(end).unwrap();
        assert!(end.starts_with(",\r\n{") && end.ends_with('}') | end.ends_with(']'), "{end}");
        assert!(end.contains(r#""finishReason":"MAX_TOKENS""#) && end.contains(r#""candidatesTokenCount":4"#), "{end}");
    }
}
