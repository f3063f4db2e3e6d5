//! OpenAI's legacy completions, which callers speak and providers of chat answer: a prompt is a user's message, and the
//! text of the answer its continuation.

use super::chat::options_in::stop;
use super::chat::{finish_reason, write_usage};
use super::read::{self, At};
use super::write::Reply;
use crate::canonical::{Answer, BadRequest, Delta, Dialect, Event, Message, Part, Reported, Request, Role, StopReason};
use crate::json::tree::{Member, Value};
use crate::json::write::Object;

/// What this dialect's cap is where the caller gives none.
const OUTPUT_TOKENS_USUAL: u64 = 16;

/// Reads a body. Any bytes are answered. One prompt is one conversation, so several are refused, as are tokens in place
/// of text, which mean something to one model only.
pub fn read_request(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let mut request = Request { output_tokens_max: Some(OUTPUT_TOKENS_USUAL), ..Request::default() };
    let refuse_given = |at: &At<'_>| Err(at.refuse("has no counterpart in this model's provider"));
    for Member { name, node } in read::members(read::body(body)?, &At::BODY)? {
        let at = At::BODY.field(&name);
        let sampling = &mut request.sampling;
        match name.as_ref() {
            "model" => request.model = read::name(node, &at)?,
            "prompt" => {
                let text = match node.value {
                    Value::Text(text) => text,
                    Value::Array(mut prompts) if prompts.len() == 1 => match prompts.remove(0).value {
                        Value::Text(text) => text,
                        _ => return Err(at.refuse("must be text for this model's provider")),
                    },
                    _ => return Err(at.refuse("must be one text for this model's provider; send one request for each")),
                };
                request.messages = vec![Message::new(Role::User, vec![Part::text(text)])];
            }
            "suffix" => return refuse_given(&at),
            "echo" if read::flag(&node, &at)? => return refuse_given(&at),
            "echo" => {}
            "max_tokens" => request.output_tokens_max = Some(read::count(&node, &at)?),
            "temperature" => sampling.temperature = Some(read::number(&node, &at, 0, 2)?),
            "top_p" => sampling.top_p = Some(read::number(&node, &at, 0, 1)?),
            "n" => sampling.choices = Some(read::count(&node, &at)?.clamp(1, 128)),
            "stop" => sampling.stop = stop(node, &at)?,
            "seed" => sampling.seed = Some(read::integer(&node, &at)?),
            "presence_penalty" => sampling.presence_penalty = Some(read::number(&node, &at, -2, 2)?),
            "frequency_penalty" => sampling.frequency_penalty = Some(read::number(&node, &at, -2, 2)?),
            "logit_bias" => sampling.logit_bias = Some(read::json_object(&node, &at)?),
            "user" => request.user = Some(read::text(node, &at)?),
            "stream" => request.stream = read::flag(&node, &at)?,
            "stream_options" => {
                let asked = node.get("include_usage");
                request.include_usage = asked.is_some_and(|asked| matches!(asked.value, Value::Bool(true)));
            }
            // Among them `logprobs`, whose form only this dialect has.
            _ => read::extra(&mut request.extra, Dialect::Completions, Member { name: name.clone(), node }, &At::BODY)?,
        }
    }
    if request.model.is_empty() {
        return Err(At::BODY.field("model").refuse("is missing"));
    }
    if request.messages.is_empty() {
        return Err(At::BODY.field("prompt").refuse("is missing"));
    }
    Ok(request)
}

fn finish_word(reason: StopReason) -> &'static str {
    match finish_reason(reason) {
        "tool_calls" => "stop",
        word => word,
    }
}

/// Writes an answer.
pub fn write_answer(answer: &Answer<'_>, reply: &Reply<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    {
        let mut object = Object::open(&mut body);
        object.text("id", reply.id_of(&answer.id));
        object.text("object", "text_completion");
        object.number("created", answer.created_s.unwrap_or(reply.created_s));
        object.text("model", reply.model_of(&answer.model));
        let mut choices = object.array("choices");
        for (index, choice) in answer.choices.iter().enumerate() {
            let mut object = choices.object();
            let texts: Vec<&str> = choice.parts.iter().filter_map(Part::as_text).collect();
            object.joined("text", &texts);
            object.number("index", index as u64);
            object.raw("logprobs", "null");
            object.text_or_null("finish_reason", choice.stop.as_ref().map(|stop| finish_word(stop.reason)));
        }
        drop(choices);
        write_usage(&mut object, &answer.usage);
    }
    body
}

/// From canonical events to those of a completion's stream.
#[derive(Clone, Debug)]
pub struct StreamWriter {
    id: String,
    model: String,
    created_s: u64,
    include_usage: bool,
    usage: Reported,
}

impl StreamWriter {
    /// A writer of a stream for that caller.
    pub fn new(reply: &Reply<'_>) -> Self {
        Self {
            id: reply.id.to_owned(),
            model: reply.model.unwrap_or_default().to_owned(),
            created_s: reply.created_s,
            include_usage: reply.include_usage,
            usage: Reported::Missing,
        }
    }

    /// Writes what that event is in this dialect, which may be nothing: it has text alone.
    pub fn write(&mut self, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created_s } => {
                self.id = reply.id_of(id).to_owned();
                self.model = reply.model_of(model).to_owned();
                self.created_s = created_s.unwrap_or(self.created_s);
            }
            Event::Delta { choice, delta: Delta::Text(text), .. } => self.choice(*choice, text, None, out),
            Event::Stop { choice, stop } => self.choice(*choice, "", Some(finish_word(stop.reason)), out),
            Event::Usage(usage) => self.usage = *usage,
            Event::Ping => out.extend_from_slice(b": ping\n\n"),
            Event::End => {
                if self.include_usage && self.usage.usage().is_some() {
                    self.event(out, |object| {
                        drop(object.array("choices"));
                        write_usage(object, &self.usage);
                    });
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            _ => {}
        }
    }

    fn choice(&self, choice: u32, text: &str, finish: Option<&str>, out: &mut Vec<u8>) {
        self.event(out, |object| {
            let mut choices = object.array("choices");
            let mut object = choices.object();
            object.text("text", text);
            object.number("index", choice.into());
            object.raw("logprobs", "null");
            object.text_or_null("finish_reason", finish);
        });
    }

    fn event(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(b"data: ");
        {
            let mut object = Object::open(out);
            object.text("id", &self.id);
            object.text("object", "text_completion");
            object.number("created", self.created_s);
            object.text("model", &self.model);
            write(&mut object);
        }
        out.extend_from_slice(b"\n\n");
    }
}
