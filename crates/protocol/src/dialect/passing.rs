//! Requests and streams that pass as they came, because caller and upstream speak the same dialect.
//!
//! Their bytes stay the caller's, fields included that this gateway does not know. What decides about them still is what
//! they say in chat; this module says what they may ask for beyond that, edits the few values that the upstream must read
//! differently, and ends a stream in the dialect's own way where the gateway has to.

use super::{Dialect, Reply, StreamReader, StreamWriter, gemini, messages};
use crate::canonical::{BadRequest, Event, Part, PartKind, Reported, Request, Source, Stop, StopReason, Tool};
use crate::json::patch::{Patches, place};
use crate::json::tree::Node;
use bytes::Bytes;
use domain::{Meter, Usage};

/// How often a model is expected to search where the request does not say.
const SEARCHES_USUAL: u64 = 5;

/// The least budget of thinking that Anthropic takes.
const BUDGET_TOKENS_MIN: u64 = 1024;

/// How often the request is expected to use the provider's own tools at most, by their meters. Refuses what cannot be passed on: what refers to the provider's own
/// storage, which all callers of an upstream account would share (U-38), what is answered later than the request, and what
/// is billed in a way that no answer tells.
pub fn check(dialect: Dialect, request: &Request<'_>) -> Result<Usage, BadRequest> {
    let refuse = |message: String| Err(BadRequest { message, param: None });
    for extra in request.extra.iter().filter(|extra| extra.dialect == dialect && extra.json != "null") {
        let why = match (dialect, extra.name.as_ref()) {
            (Dialect::Responses, "background") if extra.json == "false" => continue,
            (Dialect::Messages, "speed") if extra.json == "\"standard\"" => continue,
            (Dialect::Messages, "inference_geo") if extra.json == "\"global\"" => continue,
            (Dialect::Responses, "background") => "answers in the background are not served here; stream it instead",
            (Dialect::Responses, "conversation" | "prompt")
            | (Dialect::Messages, "container")
            | (Dialect::Gemini, "cachedContent") => {
                "it refers to something that the provider keeps for its account, which callers here share; send the \
                 content itself"
            }
            (Dialect::Messages, "speed" | "inference_geo") => "it changes the price in a way that is not known here",
            _ => continue,
        };
        return refuse(format!("{}: {why}", extra.name));
    }
    for part in request.messages.iter().flat_map(|message| &message.parts) {
        if is_stored(part) {
            let what = "files that a provider keeps cannot be referred to here, because callers share its account";
            return refuse(format!("messages: {what}; send the content itself"));
        }
    }
    let mut tools = Usage::default();
    for tool in &request.tools {
        let Tool::BuiltIn { name, json, .. } = tool else { continue };
        match (dialect, kind_of(name)) {
            (Dialect::Messages, "web_search") => tools[Meter::WebSearch] += uses(json, "max_uses"),
            (Dialect::Responses, "web_search" | "web_search_preview")
            | (Dialect::Gemini, "googleSearch" | "googleSearchRetrieval") => tools[Meter::WebSearch] += SEARCHES_USUAL,
            (Dialect::Responses, "code_interpreter") if is_own_container(json) => tools[Meter::CodeExecution] += 1,
            // They cost tokens alone.
            (
                Dialect::Messages,
                "bash"
                | "text_editor"
                | "computer"
                | "memory"
                | "web_fetch"
                | "tool_search_tool_regex"
                | "tool_search_tool_bm25"
                | "tool_search_tool"
                | "mcp_toolset"
                | "advisor",
            )
            | (
                Dialect::Responses,
                "computer_use_preview"
                | "computer"
                | "mcp"
                | "local_shell"
                | "shell"
                | "apply_patch"
                | "custom"
                | "namespace"
                | "tool_search",
            )
            | (Dialect::Gemini, "codeExecution" | "urlContext" | "computerUse") => {}
            _ => {
                return refuse(format!(
                    "tools: what {name:?} costs or refers to is not known here, so it is not served; leave it out"
                ));
            }
        }
    }
    Ok(tools)
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

/// The container is made for the request, and without the account's files.
fn is_own_container(json: &str) -> bool {
    let node = Node::read(json).ok();
    let container = node.as_ref().and_then(|node| node.get("container"));
    container.is_none_or(|container| container.is_object() && container.get("file_ids").is_none())
}

fn is_stored(part: &Part<'_>) -> bool {
    match &part.kind {
        PartKind::Image(media) | PartKind::Audio(media) | PartKind::File(media) => {
            matches!(media.source, Source::Stored { .. })
        }
        PartKind::ToolResult(result) => result.parts.iter().any(is_stored),
        // A document of blocks may hold stored images; an item may be another's.
        PartKind::Other { name, json, .. } => {
            name == "item_reference" || name == "container_upload" || json.contains("\"file_id\"")
        }
        _ => false,
    }
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
    if let Some(model) = edits.model.filter(|_| dialect != Dialect::Gemini) {
        set(&node, "model", serde_json::to_string(model).expect("a string can be written as JSON"));
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
}

impl Passed {
    /// How far a stream has passed of which this reader has read everything.
    pub fn of(reader: &StreamReader) -> Self {
        match reader {
            StreamReader::Messages(reader) => Self { begun: true, open_block: reader.open_block() },
            _ => Self { begun: true, open_block: None },
        }
    }

    /// What goes on writing such a stream, in order to end it.
    pub fn writer(self, dialect: Dialect, framing: gemini::Framing, reply: &Reply<'_>) -> StreamWriter {
        match dialect {
            Dialect::Messages => StreamWriter::Messages(messages::StreamWriter::resumed(reply, self)),
            Dialect::Gemini => StreamWriter::Gemini(gemini::StreamWriter::resumed(reply, framing, self.begun)),
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
