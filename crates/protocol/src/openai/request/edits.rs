//! Changes to a request's bytes: a few values are replaced or added, everything else stays as it was written.

use super::content::each_entry;
use super::{BadRequest, Field, Fields, Request, boolean, same_without_case, shown};
use crate::json::patch::{Patches, place};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// What to change in a request before it is forwarded. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'e> {
    /// Another name for the model.
    pub model: Option<&'e str>,
    /// Makes the upstream send its usage in the stream. Without effect on a request that is not a stream, where
    /// the option is an error.
    pub include_usage: bool,
    /// The most answer tokens of a choice. Every cap that the caller gave is lowered to it if it is higher, so that it
    /// holds whichever of them the upstream obeys; none is raised, and none is added beside another, because some
    /// providers refuse both together. Where the caller gave none, the named field is added.
    pub output_cap: Option<(CapField, u64)>,
}

/// The two names of the output cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapField {
    /// The older name, the only one that most compatible servers know.
    MaxTokens,
    /// The newer name, the only one that reasoning models accept.
    MaxCompletionTokens,
}

impl CapField {
    /// The name in the request.
    pub fn name(self) -> &'static str {
        self.field().name()
    }

    fn field(self) -> Field {
        match self {
            Self::MaxTokens => Field::MaxTokens,
            Self::MaxCompletionTokens => Field::MaxCompletionTokens,
        }
    }
}

/// What the field `stream_options` says of usage.
#[derive(Clone, Copy)]
pub(super) struct StreamOptions<'a> {
    /// Usage is asked for.
    pub(super) asked: bool,
    /// The value of `include_usage` as JSON.
    value: Option<&'a str>,
}

pub(super) fn stream_options<'a>(fields: &Fields<'a>) -> Result<StreamOptions<'a>, BadRequest> {
    const NAME: &str = "include_usage";
    let field = Field::StreamOptions;
    let mut options = StreamOptions { asked: false, value: None };
    let Some(json) = fields.given(field) else { return Ok(options) };
    let mut problem = None;
    let read = each_entry(json, |key, value| {
        if same_without_case(NAME, key) {
            if key != NAME {
                problem = Some(format!("{} must be written as {NAME}", shown(key)));
            } else if options.value.replace(value.get()).is_some() {
                problem = Some(format!("stream_options.{NAME} is given twice"));
            }
        }
    });
    if read.is_err() {
        problem = Some(format!("stream_options must be an object, not {}", shown(json)));
    }
    if let Some(problem) = problem {
        return Err(BadRequest::of(field, problem));
    }
    options.asked = boolean(field, options.value)
        .map_err(|_| BadRequest::of(field, format!("stream_options.{NAME} must be true or false")))?;
    Ok(options)
}

impl Request<'_> {
    /// The body with `edits` made: the same bytes, not a copy, when there is nothing to change.
    ///
    /// # Panics
    ///
    /// When `body` has another length than what this request was read from: it must be the very same bytes.
    pub fn forward(&self, body: &Bytes, edits: &Edits<'_>) -> Bytes {
        assert_eq!(body.len(), self.body.len(), "a request is forwarded with the body that it was read from");
        let mut patches = Patches::default();
        if let Some(model) = edits.model.filter(|model| *model != self.model) {
            let quoted = serde_json::to_string(model).expect("a string can be written as JSON");
            self.set(Field::Model, quoted, &mut patches);
        }
        if edits.include_usage && self.stream && !self.include_usage {
            self.ask_for_usage(&mut patches);
        }
        if let Some((name, cap)) = edits.output_cap {
            self.cap_at(name, cap, &mut patches);
        }
        patches.applied_to(body)
    }

    fn cap_at(&self, name: CapField, cap: u64, patches: &mut Patches) {
        let given = [CapField::MaxTokens, CapField::MaxCompletionTokens]
            .map(|name| (name, self.fields.given(name.field()).and_then(|json| json.parse::<u64>().ok())));
        if given.iter().all(|(_, asked)| asked.is_none()) {
            self.set(name.field(), cap.to_string(), patches);
        }
        for (name, asked) in given {
            if asked.is_some_and(|asked| asked > cap) {
                self.set(name.field(), cap.to_string(), patches);
            }
        }
    }

    fn ask_for_usage(&self, patches: &mut Patches) {
        let Some(json) = self.fields.given(Field::StreamOptions) else {
            return self.set(Field::StreamOptions, r#"{"include_usage":true}"#, patches);
        };
        let options = stream_options(&self.fields).expect("the options were read before");
        match options.value {
            Some(value) => patches.replace(self.place(value), "true"),
            None => {
                let inside = self.place(json).start + 1;
                let is_empty = json[1..].trim_start().starts_with('}');
                let entry = if is_empty { r#""include_usage":true"# } else { r#""include_usage":true,"# };
                patches.replace(inside..inside, entry);
            }
        }
    }

    /// Replaces the field's value, or adds the field in front: the object is never empty, since it has a model.
    fn set(&self, field: Field, json: impl Into<Cow<'static, str>>, patches: &mut Patches) {
        let json = json.into();
        match self.fields.json(field) {
            Some(value) => patches.replace(self.place(value), json),
            None => {
                let inside = self.body.find('{').expect("the body is an object") + 1;
                patches.replace(inside..inside, format!("\"{}\":{json},", field.name()));
            }
        }
    }

    /// Where a piece of the body stands in it.
    fn place(&self, piece: &str) -> Range<usize> {
        place(self.body, piece)
    }
}
