//! Reads the parts of a request strictly, and says where it found what it refuses.

use crate::canonical::{BadRequest, Dialect, Extra, Extras, Message, Part, PartKind, Role};
use crate::json::tree::{Member, NoTree, Node, Value};
use crate::openai::same_without_case;
use domain::usage::COUNT_MAX;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Messages, tools, parts: no list of a request has more. Long conversations have some hundreds.
const LIST_MAX: usize = 100_000;

/// A place within a body.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    parent: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Body,
    Field(&'p str),
    Index(usize),
}

/// Fields that a refusal can name to programs, and that no unknown field may be mistaken for.
const PARAMS: [&str; 34] = [
    "model",
    "messages",
    "input",
    "instructions",
    "contents",
    "system",
    "systemInstruction",
    "tools",
    "tool_choice",
    "toolConfig",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "generationConfig",
    "inferenceConfig",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "stop_sequences",
    "seed",
    "n",
    "stream",
    "stream_options",
    "response_format",
    "text",
    "reasoning",
    "reasoning_effort",
    "thinking",
    "metadata",
    "service_tier",
    "user",
    "prompt",
    "output_config",
];

impl<'p> At<'p> {
    pub(super) const BODY: At<'static> = At { parent: None, step: Step::Body };

    pub(super) fn field(&'p self, name: &'p str) -> At<'p> {
        At { parent: Some(self), step: Step::Field(name) }
    }

    pub(super) fn index(&'p self, index: usize) -> At<'p> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// The refusal of what is here.
    pub(super) fn refuse(&self, problem: impl fmt::Display) -> BadRequest {
        BadRequest { message: format!("{self}: {problem}"), param: self.param() }
    }

    fn param(&self) -> Option<&'static str> {
        match (self.parent, self.step) {
            (Some(At { step: Step::Body, .. }), Step::Field(name)) => PARAMS.into_iter().find(|known| *known == name),
            (Some(parent), _) => parent.param(),
            (None, _) => None,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.parent.filter(|parent| !matches!(parent.step, Step::Body));
        if let Some(parent) = inner {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Body => f.write_str("the body"),
            Step::Field(name) => {
                // A caller's name is shown, but not at any length.
                let name: String = name.chars().take(64).collect();
                let dot = if inner.is_some() { "." } else { "" };
                write!(f, "{dot}{}", name.escape_debug())
            }
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The data of an event with its tree, if it is an object in JSON.
pub(super) fn event(data: &[u8]) -> Option<(&str, Node<'_>)> {
    let text = std::str::from_utf8(data).ok()?;
    let node = Node::read(text).ok()?;
    node.is_object().then_some((text, node))
}

/// What may be a text in place of a list with one text in it. `what` the list is of, for the refusal.
pub(super) fn text_or<'a>(
    node: Node<'a>,
    at: &At<'_>,
    what: &str,
    one: impl Fn(Node<'a>, &At<'_>) -> Result<Part<'a>, BadRequest>,
) -> Result<Vec<Part<'a>>, BadRequest> {
    match node.value {
        Value::Text(text) => Ok(vec![Part::text(text)]),
        Value::Array(_) => {
            let elements = elements(node, at)?;
            elements.into_iter().enumerate().map(|(index, element)| one(element, &at.index(index))).collect()
        }
        _ => Err(at.refuse(format_args!("must be a string or an array of {what}, not {}", shown(&node)))),
    }
}

/// The tree of a request's body, which must be an object.
pub(super) fn body(bytes: &[u8]) -> Result<Node<'_>, BadRequest> {
    let refuse = |message: String| BadRequest { message, param: None };
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("the body is not valid UTF-8".to_owned()))?;
    let node = Node::read(text).map_err(|problem| {
        refuse(match problem {
            NoTree::Broken { .. } if text.trim_ascii().is_empty() => {
                "the body is empty; it must be a JSON object".to_owned()
            }
            NoTree::Broken { at } => format!("the body is not valid JSON from byte {at} on"),
            NoTree::TooDeep => format!("the body is nested deeper than {} levels", crate::json::DEPTH_MAX),
            NoTree::LoneSurrogate => "the body has a \\u escape that is half a character".to_owned(),
        })
    })?;
    if node.is_object() { Ok(node) } else { Err(refuse("the body must be a JSON object".to_owned())) }
}

/// The members of an object. `null` means absent; a name that occurs twice is refused, because readers disagree on
/// which one counts.
pub(super) fn members<'a>(node: Node<'a>, at: &At<'_>) -> Result<impl Iterator<Item = Member<'a>>, BadRequest> {
    let Value::Object(members) = node.value else {
        return Err(at.refuse(format_args!("must be an object, not {}", shown(&node))));
    };
    if let Some(name) = twice(&members) {
        return Err(at.field(name).refuse("is given twice"));
    }
    Ok(members.into_iter().filter(|member| !member.node.is_null()))
}

fn twice<'m>(members: &'m [Member<'_>]) -> Option<&'m str> {
    const FEW: usize = 24;
    if members.len() <= FEW {
        let repeated = |index: usize| members[..index].iter().any(|other| other.name == members[index].name);
        return (1..members.len()).find(|&index| repeated(index)).map(|index| members[index].name.as_ref());
    }
    let mut seen = HashSet::with_capacity(members.len());
    members.iter().map(|member| member.name.as_ref()).find(|name| !seen.insert(*name))
}

/// The elements of an array.
pub(super) fn elements<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Node<'a>>, BadRequest> {
    match node.value {
        Value::Array(elements) if elements.len() <= LIST_MAX => Ok(elements),
        Value::Array(_) => Err(at.refuse(format_args!("has more than {LIST_MAX} elements"))),
        _ => Err(at.refuse(format_args!("must be an array, not {}", shown(&node)))),
    }
}

/// A text.
pub(super) fn text<'a>(node: Node<'a>, at: &At<'_>) -> Result<Cow<'a, str>, BadRequest> {
    match node.value {
        Value::Text(text) => Ok(text),
        _ => Err(at.refuse(format_args!("must be a string, not {}", shown(&node)))),
    }
}

/// A text that names something: not empty, not long, no control characters.
pub(super) fn name<'a>(node: Node<'a>, at: &At<'_>) -> Result<Cow<'a, str>, BadRequest> {
    const CHARS_MAX: usize = 256;
    let name = text(node, at)?;
    if name.is_empty() || name.chars().count() > CHARS_MAX || name.chars().any(char::is_control) {
        return Err(at.refuse(format_args!("must have 1 to {CHARS_MAX} characters, none of them a control character")));
    }
    Ok(name)
}

/// `true` or `false`.
pub(super) fn flag(node: &Node<'_>, at: &At<'_>) -> Result<bool, BadRequest> {
    match node.value {
        Value::Bool(flag) => Ok(flag),
        _ => Err(at.refuse(format_args!("must be true or false, not {}", shown(node)))),
    }
}

/// A whole number that is not negative. Only digits will do: other spellings are read differently by different parsers.
pub(super) fn count(node: &Node<'_>, at: &At<'_>) -> Result<u64, BadRequest> {
    let most = COUNT_MAX;
    node.count()
        .filter(|count| *count <= most)
        .ok_or_else(|| at.refuse(format_args!("must be a whole number between 0 and {most}, not {}", shown(node))))
}

/// A number within a range, as it was written.
pub(super) fn number<'a>(node: &Node<'a>, at: &At<'_>, least: i32, most: i32) -> Result<Cow<'a, str>, BadRequest> {
    let fits = |number: f64| (f64::from(least)..=f64::from(most)).contains(&number);
    match node.value {
        Value::Number if node.raw.parse().is_ok_and(fits) && node.raw.len() <= 32 => Ok(node.raw.into()),
        _ => Err(at.refuse(format_args!("must be a number between {least} and {most}, not {}", shown(node)))),
    }
}

/// A whole number of 64 bits, as it was written.
pub(super) fn integer<'a>(node: &Node<'a>, at: &At<'_>) -> Result<Cow<'a, str>, BadRequest> {
    match node.value {
        Value::Number if node.raw.parse::<i64>().is_ok() => Ok(node.raw.into()),
        _ => Err(at.refuse(format_args!("must be a whole number, not {}", shown(node)))),
    }
}

/// A JSON object, as it was written.
pub(super) fn json_object<'a>(node: &Node<'a>, at: &At<'_>) -> Result<Cow<'a, str>, BadRequest> {
    if node.is_object() {
        Ok(node.raw.into())
    } else {
        Err(at.refuse(format_args!("must be an object, not {}", shown(node))))
    }
}

/// A field that is kept for its own dialect. At the top of a body it may not look like one that we read.
pub(super) fn extra<'a>(
    extras: &mut Extras<'a>,
    dialect: Dialect,
    member: Member<'a>,
    at: &At<'_>,
) -> Result<(), BadRequest> {
    const EXTRAS_MAX: usize = 64;
    if let Step::Body = at.step
        && let Some(known) = PARAMS.into_iter().find(|known| same_without_case(known, &member.name))
        && known != member.name
    {
        return Err(at.field(&member.name).refuse(format_args!("must be written as {known}")));
    }
    if extras.len() == EXTRAS_MAX {
        return Err(at.refuse(format_args!("has more than {EXTRAS_MAX} unknown fields")));
    }
    extras.push(Extra { dialect, name: member.name, json: member.node.raw.into() });
    Ok(())
}

/// What all dialects demand of a conversation: something is said, and every result answers a call.
pub(super) fn check_conversation(messages: &[Message<'_>], at: &At<'_>) -> Result<(), BadRequest> {
    if !messages.iter().any(|message| !message.role.is_system()) {
        return Err(at.refuse("has no message of a user"));
    }
    let mut calls = HashSet::new();
    for message in messages {
        for part in &message.parts {
            match &part.kind {
                PartKind::ToolCall(call) if message.role == Role::Assistant => _ = calls.insert(call.id.as_ref()),
                PartKind::ToolResult(result) if !calls.contains(result.call_id.as_ref()) => {
                    return Err(at.refuse(format_args!(
                        "a tool result answers the call {}, which no message before it makes",
                        clip(&result.call_id)
                    )));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A value in an error message: its beginning, on one line.
pub(super) fn shown(node: &Node<'_>) -> String {
    match &node.value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        // A caller's words are not repeated, they may be a prompt.
        Value::Text(_) => "a string".to_owned(),
        _ => clip(node.raw),
    }
}

/// The beginning of a text, quoted.
pub(super) fn clip(text: &str) -> String {
    let beginning: String = text.chars().take(64).collect();
    format!("{beginning:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named() {
        let messages = At::BODY.field("messages");
        let (third, content) = (messages.index(3), "content");
        let content = third.field(content);
        let refusal = content.refuse("must be a string");
        assert_eq!(refusal.message, "messages[3].content: must be a string");
        assert_eq!(refusal.param, Some("messages"));
        assert_eq!(At::BODY.refuse("no").param, None);
    }

    #[test]
    fn c_10_names_occur_once() {
        let check = |text: &str, problem: Option<&str>| {
            let found = members(Node::read(text).unwrap(), &At::BODY).err().map(|refusal| refusal.message);
            assert_eq!(found.as_deref(), problem, "{text}");
        };
        check("{}", None);
        check(r#"{"a":1,"b":2}"#, None);
        check(r#"{"a":1,"b":2,"\u0061":1}"#, Some("a: is given twice"));
        check("[]", Some("the body: must be an object, not an array"));
        let many: Vec<String> = (0..100).map(|index| format!("\"f{index}\":0")).collect();
        check(&format!("{{{}}}", many.join(",")), None);
        check(&format!("{{{},\"f7\":1}}", many.join(",")), Some("f7: is given twice"));
    }

    #[test]
    fn u_24_numbers_are_numbers() {
        let node = |text: &'static str| Node::read(text).unwrap();
        for good in ["0", "1", "1000000000"] {
            assert!(count(&node(good), &At::BODY).is_ok(), "{good}");
        }
        for bad in ["-1", "1.0", "1e3", "\"5\"", "1000000001", "true", "[]", "18446744073709551616"] {
            assert!(count(&node(bad), &At::BODY).is_err(), "{bad}");
        }
        assert_eq!(number(&node("0.70"), &At::BODY, 0, 2).unwrap(), "0.70");
        for bad in ["-0.1", "2.1", "\"1\"", "1e400", "null"] {
            assert!(number(&node(bad), &At::BODY, 0, 2).is_err(), "{bad}");
        }
        assert!(integer(&node("-7"), &At::BODY).is_ok() && integer(&node("1e3"), &At::BODY).is_err());
    }
}
