//! Embeddings, between OpenAI's form and Gemini's.
//!
//! They are no conversation and have a small form of their own. Vectors stay the text that they came as, unless OpenAI's
//! caller asks for base64, as its Python library does unasked.

use super::NotAnAnswer;
use super::read::{self, At};
use super::write::{Reply, Target, Written, extras};
use crate::canonical::{BadRequest, Dialect, Dropped, Extras, Reported};
use crate::json::tree::{Member, Node, Value};
use crate::json::write::Object;
use domain::usage::{COUNT_MAX, Usage};
use std::borrow::Cow;

/// Texts to be embedded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'a> {
    /// The model, as the caller calls it. Empty where the dialect has it in the path.
    pub model: Cow<'a, str>,
    /// The texts.
    pub inputs: Vec<Cow<'a, str>>,
    /// How long vectors are to be.
    pub dimensions: Option<u64>,
    /// Vectors are wanted in base64.
    pub base64: bool,
    /// Several texts were asked for, so a list is the answer also where there is one (Gemini).
    pub is_batch: bool,
    /// The titles of texts (Gemini), which the model reads as well.
    pub titles: Vec<Cow<'a, str>>,
    /// Fields that the other dialect does not know.
    pub extra: Extras<'a>,
}

/// Vectors, in the order of the texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer<'a> {
    /// The model, in the provider's words.
    pub model: Cow<'a, str>,
    /// Each a JSON array of numbers.
    pub vectors: Vec<Cow<'a, str>>,
    /// What it consumed; older models of Gemini do not say.
    pub usage: Reported,
}

/// More texts than any provider takes at once.
const INPUTS_MAX: usize = 8192;

/// Reads a request in OpenAI's form. Tokens in place of text are refused: they mean something to one model only.
pub fn read_openai(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let mut request = Request { is_batch: true, ..Request::default() };
    for Member { name, node } in read::members(read::body(body)?, &At::BODY)? {
        let at = At::BODY.field(&name);
        match name.as_ref() {
            "model" => request.model = read::name(node, &at)?,
            "input" => match node.value {
                Value::Text(text) => request.inputs.push(text),
                _ => {
                    for (index, element) in read::elements(node, &at)?.into_iter().enumerate() {
                        request.inputs.push(read::text(element, &at.index(index))?);
                    }
                }
            },
            "dimensions" => request.dimensions = Some(read::count(&node, &at)?),
            "encoding_format" => {
                request.base64 = match read::text(node, &at)?.as_ref() {
                    "float" => false,
                    "base64" => true,
                    _ => return Err(at.refuse("must be float or base64")),
                }
            }
            _ => read::extra(&mut request.extra, Dialect::Chat, Member { name: name.clone(), node }, &At::BODY)?,
        }
    }
    if request.model.is_empty() {
        return Err(At::BODY.field("model").refuse("is missing"));
    }
    checked(request, "input")
}

/// Reads a request in Gemini's form: one content, or a batch of requests.
pub fn read_gemini(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let node = read::body(body)?;
    let mut request = Request::default();
    match node.get("requests") {
        Some(requests) => {
            request.is_batch = true;
            let at = At::BODY.field("requests");
            for (index, element) in read::elements(requests.clone(), &at)?.into_iter().enumerate() {
                one_of_gemini(element, &mut request, &at.index(index))?;
            }
        }
        None => one_of_gemini(node, &mut request, &At::BODY)?,
    }
    checked(request, "content")
}

fn one_of_gemini<'a>(node: Node<'a>, request: &mut Request<'a>, at: &At<'_>) -> Result<(), BadRequest> {
    for Member { name, node } in read::members(node, at)? {
        let at_field = at.field(&name);
        match name.as_ref() {
            "content" => {
                let parts = node.get("parts").ok_or_else(|| at_field.field("parts").refuse("is missing"))?;
                let parts = if parts.is_object() { std::slice::from_ref(parts) } else { parts.elements() };
                let texts: Option<Vec<_>> = parts.iter().map(|part| part.text_of("text")).collect();
                let texts = texts.filter(|texts| !texts.is_empty());
                let mut texts = texts.ok_or_else(|| at_field.field("parts").refuse("must be texts"))?;
                request.inputs.push(if texts.len() == 1 { texts.remove(0) } else { texts.join("\n").into() });
            }
            "outputDimensionality" | "output_dimensionality" => {
                let dimensions = read::count(&node, &at_field)?;
                if request.dimensions.replace(dimensions).is_some_and(|other| other != dimensions) {
                    return Err(at_field.refuse("must be the same for every text of a batch"));
                }
            }
            "title" => request.titles.push(read::text(node, &at_field)?),
            "model" => request.model = read::name(node, &at_field)?,
            _ if request.extra.iter().any(|extra| extra.name == name) => {}
            _ => read::extra(&mut request.extra, Dialect::Gemini, Member { name: name.clone(), node }, at)?,
        }
    }
    Ok(())
}

fn checked<'a>(request: Request<'a>, field: &'static str) -> Result<Request<'a>, BadRequest> {
    let at = At::BODY;
    let at = at.field(field);
    match request.inputs.len() {
        0 => Err(at.refuse("is missing")),
        1..=INPUTS_MAX if request.inputs.iter().all(|input| !input.is_empty()) => Ok(request),
        1..=INPUTS_MAX => Err(at.refuse("must not be empty")),
        _ => Err(at.refuse(format_args!("has more than {INPUTS_MAX} elements"))),
    }
}

/// Writes a request in OpenAI's form. Vectors come as numbers, whatever the caller gets.
pub fn write_openai(request: &Request<'_>, target: &Target<'_>) -> Written {
    let (mut body, mut dropped) = (Vec::with_capacity(1024), Dropped::default());
    {
        let mut object = Object::open(&mut body);
        object.text("model", target.model);
        object.texts("input", &request.inputs);
        if let Some(dimensions) = request.dimensions {
            object.number("dimensions", dimensions);
        }
        object.text("encoding_format", "float");
        extras(&mut object, &request.extra, Dialect::Chat, &[], |name| target.quirks.refuses(name), &mut dropped);
        if !request.titles.is_empty() {
            dropped.note("title");
        }
    }
    Written { body, dropped }
}

/// Writes a request in Gemini's form, always for `batchEmbedContents`.
pub fn write_gemini(request: &Request<'_>, target: &Target<'_>) -> Written {
    let (mut body, mut dropped) = (Vec::with_capacity(1024), Dropped::default());
    {
        let mut object = Object::open(&mut body);
        let mut requests = object.array("requests");
        for input in &request.inputs {
            let mut object = requests.object();
            object.joined("model", &["models/", target.model]);
            object.object("content").array("parts").object().text("text", input);
            if let Some(dimensions) = request.dimensions {
                object.number("outputDimensionality", dimensions);
            }
            extras(&mut object, &request.extra, Dialect::Gemini, &[], |_| false, &mut dropped);
        }
    }
    Written { body, dropped }
}

/// A request in Gemini's form for that model, always for `batchEmbedContents`: what is asked of each text stays as it
/// came. `body` is one that [`read_gemini`] takes.
pub fn forward_gemini(body: &[u8], model: &str) -> Result<Vec<u8>, BadRequest> {
    let node = read::body(body)?;
    let mut out = Vec::with_capacity(body.len() + 128);
    {
        let mut object = Object::open(&mut out);
        let mut requests = object.array("requests");
        let texts = node.get("requests").map_or(std::slice::from_ref(&node), Node::elements);
        for text in texts {
            let mut object = requests.object();
            object.joined("model", &["models/", model]);
            for Member { name, node } in text.members().iter().filter(|member| member.name != "model") {
                object.raw(name, node.raw);
            }
        }
    }
    Ok(out)
}

/// Reads an answer in OpenAI's form.
pub fn read_openai_answer(body: &[u8]) -> Result<Answer<'_>, NotAnAnswer> {
    let node = tree(body)?;
    let data = node.get("data").ok_or(NotAnAnswer)?.elements();
    let mut vectors: Vec<(u64, Cow<'_, str>)> = data
        .iter()
        .enumerate()
        .map(|(place, entry)| {
            let vector = entry.get("embedding").filter(|vector| is_vector(vector)).ok_or(NotAnAnswer)?;
            Ok((entry.count_of("index").unwrap_or(place as u64), vector.raw.into()))
        })
        .collect::<Result<_, _>>()?;
    vectors.sort_by_key(|(index, _)| *index);
    Ok(Answer {
        model: node.text_of("model").unwrap_or_default(),
        vectors: vectors.into_iter().map(|(_, vector)| vector).collect(),
        usage: node.get("usage").map(|usage| Reported::read(usage.raw)).unwrap_or_default(),
    })
}

/// Reads an answer in Gemini's form, of one content or a batch.
pub fn read_gemini_answer(body: &[u8]) -> Result<Answer<'_>, NotAnAnswer> {
    let node = tree(body)?;
    let one = node.get("embedding").map(std::slice::from_ref);
    let entries = node.get("embeddings").map(Node::elements).or(one).ok_or(NotAnAnswer)?;
    let vector = |entry: &Node<'_>| -> Result<String, NotAnAnswer> {
        let values = entry.get("values").filter(|vector| is_vector(vector)).ok_or(NotAnAnswer)?;
        Ok(values.raw.to_owned())
    };
    let vectors = entries.iter().map(|entry| vector(entry).map(Cow::Owned)).collect::<Result<_, _>>()?;
    let tokens = node.get("usageMetadata").and_then(|usage| usage.count_of("promptTokenCount"));
    let usage = tokens.map_or(Reported::Missing, |tokens| Reported::Usage(Usage::tokens(tokens.min(COUNT_MAX), 0)));
    Ok(Answer { vectors, usage, ..Answer::default() })
}

fn tree(body: &[u8]) -> Result<Node<'_>, NotAnAnswer> {
    Node::read(std::str::from_utf8(body).map_err(|_| NotAnAnswer)?).map_err(|_| NotAnAnswer)
}

fn is_vector(node: &Node<'_>) -> bool {
    let numbers = |elements: &[Node<'_>]| elements.iter().all(|number| matches!(number.value, Value::Number));
    matches!(&node.value, Value::Array(elements) if !elements.is_empty() && numbers(elements))
}

/// Writes an answer in OpenAI's form, with its vectors in base64 where the request asked for that.
pub fn write_openai_answer(answer: &Answer<'_>, base64: bool, reply: &Reply<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    {
        let mut object = Object::open(&mut body);
        object.text("object", "list");
        let mut data = object.array("data");
        for (index, vector) in answer.vectors.iter().enumerate() {
            let mut entry = data.object();
            entry.text("object", "embedding");
            entry.number("index", index as u64);
            match base64 {
                true => entry.text("embedding", &packed(vector)),
                false => entry.raw("embedding", vector),
            }
        }
        drop(data);
        object.text("model", reply.model_of(&answer.model));
        let tokens = answer.usage.usage().map_or(0, Usage::input_tokens);
        let mut usage = object.object("usage");
        usage.number("prompt_tokens", tokens);
        usage.number("total_tokens", tokens);
    }
    body
}

/// Writes an answer in Gemini's form, as a list where a batch was asked for.
pub fn write_gemini_answer(answer: &Answer<'_>, is_batch: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    {
        let mut object = Object::open(&mut body);
        if is_batch {
            let mut list = object.array("embeddings");
            for vector in &answer.vectors {
                list.object().raw("values", vector);
            }
        } else {
            let vector = answer.vectors.first().map_or("[]", AsRef::as_ref);
            object.object("embedding").raw("values", vector);
        }
        if let Some(usage) = answer.usage.usage() {
            object.object("usageMetadata").number("promptTokenCount", usage.input_tokens());
        }
    }
    body
}

/// The numbers as little-endian 32-bit floats, in base64.
fn packed(vector: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let numbers: Vec<f32> = serde_json::from_str(vector).unwrap_or_default();
    let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for triple in bytes.chunks(3) {
        let bits = triple.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - triple.len()));
        for place in 0..4 {
            if place <= triple.len() {
                text.push(char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Quirks;

    const REPLY: Reply<'static> = Reply { id: "", model: Some("public"), created_s: 0, include_usage: true, echo: "" };

    fn written(written: Written) -> (String, String) {
        (String::from_utf8(written.body).unwrap(), written.dropped.to_string())
    }

    #[test]
    fn openai_to_gemini_and_back() {
        let body = br#"{"model":"e","input":["a","b \"c\""],"dimensions":8,"encoding_format":"base64","user":"u"}"#;
        let request = read_openai(body).unwrap();
        let (body, dropped) = written(write_gemini(&request, &Target::new("g", &Quirks::COMPATIBLE)));
        assert_eq!(dropped, "user");
        assert_eq!(
            body,
            r#"{"requests":[{"model":"models/g","content":{"parts":[{"text":"a"}]},"outputDimensionality":8},{"model":"models/g","content":{"parts":[{"text":"b \"c\""}]},"outputDimensionality":8}]}"#
        );
        let answer = read_gemini_answer(br#"{"embeddings":[{"values":[1.0,-0.5]},{"values":[0.10,2e-3]}]}"#).unwrap();
        let body = String::from_utf8(write_openai_answer(&answer, request.base64, &REPLY)).unwrap();
        assert_eq!(
            body,
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAL8="},{"object":"embedding","index":1,"embedding":"zczMPW8SAzs="}],"model":"public","usage":{"prompt_tokens":0,"total_tokens":0}}"#
        );
    }

    #[test]
    fn gemini_to_openai_and_back() {
        let body = br#"{"content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_QUERY","outputDimensionality":8}"#;
        let request = read_gemini(body).unwrap();
        let (body, dropped) = written(write_openai(&request, &Target::new("e", &Quirks::OPENAI)));
        assert_eq!(dropped, "taskType");
        assert_eq!(body, r#"{"model":"e","input":["a"],"dimensions":8,"encoding_format":"float"}"#);
        let answer = br#"{"data":[{"index":1,"embedding":[2]},{"index":0,"embedding":[0.10,-2e-3]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        let answer = read_openai_answer(answer).unwrap();
        assert_eq!(answer.usage.usage().unwrap().input_tokens(), 8);
        assert_eq!(
            write_gemini_answer(&answer, request.is_batch),
            br#"{"embedding":{"values":[0.10,-2e-3]},"usageMetadata":{"promptTokenCount":8}}"#
        );
        let batch = read_gemini(br#"{"requests":[{"model":"models/g","content":{"parts":{"text":"a"}}}]}"#).unwrap();
        let answer = Answer { usage: Reported::Missing, ..answer };
        assert_eq!(
            write_gemini_answer(&answer, batch.is_batch),
            br#"{"embeddings":[{"values":[0.10,-2e-3]},{"values":[2]}]}"#
        );
    }

    #[test]
    fn gemini_to_gemini_keeps_what_is_asked_of_each_text() {
        let body = br#"{"requests":[{"model":"models/public","content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_DOCUMENT","title":"t 1"},
            {"content":{"parts":[{"text":"b"}]},"taskType":"RETRIEVAL_QUERY"}]}"#;
        let titles: Vec<_> = read_gemini(body).unwrap().titles;
        assert_eq!(titles, ["t 1"]);
        assert_eq!(
            String::from_utf8(forward_gemini(body, "g").unwrap()).unwrap(),
            r#"{"requests":[{"model":"models/g","content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_DOCUMENT","title":"t 1"},{"model":"models/g","content":{"parts":[{"text":"b"}]},"taskType":"RETRIEVAL_QUERY"}]}"#
        );
        let one = br#"{"content":{"parts":[{"text":"a"}]},"outputDimensionality":8}"#;
        assert_eq!(
            String::from_utf8(forward_gemini(one, "g").unwrap()).unwrap(),
            r#"{"requests":[{"model":"models/g","content":{"parts":[{"text":"a"}]},"outputDimensionality":8}]}"#
        );
        let answer = br#"{"embeddings":[{"values":[1]}],"usageMetadata":{"promptTokenCount":5}}"#;
        assert_eq!(read_gemini_answer(answer).unwrap().usage, Reported::Usage(Usage::tokens(5, 0)));
    }

    #[test]
    fn what_cannot_be_embedded_is_refused() {
        for body in [
            "{}",
            r#"{"model":"e"}"#,
            r#"{"model":"e","input":[]}"#,
            r#"{"model":"e","input":""}"#,
            r#"{"model":"e","input":[1,2]}"#,
            r#"{"model":"e","input":"a","dimensions":"8"}"#,
        ] {
            assert!(read_openai(body.as_bytes()).is_err(), "{body}");
        }
        for body in [
            "{}",
            r#"{"content":{}}"#,
            r#"{"content":{"parts":[{"inlineData":{}}]}}"#,
            r#"{"requests":[]}"#,
            r#"{"requests":[{"content":{"parts":[{"text":"a"}]},"outputDimensionality":8},{"content":{"parts":[{"text":"a"}]},"outputDimensionality":9}]}"#,
        ] {
            assert!(read_gemini(body.as_bytes()).is_err(), "{body}");
        }
        for body in
            ["", "[]", r#"{"data":[{"embedding":"AAAA"}]}"#, r#"{"data":[{"embedding":[]}]}"#, r#"{"error":{}}"#]
        {
            assert_eq!(read_openai_answer(body.as_bytes()), Err(NotAnAnswer), "{body}");
        }
    }
}
