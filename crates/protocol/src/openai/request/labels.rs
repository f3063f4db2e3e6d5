//! Who a request is for and what it is booked under: the caller's own end user, and tags.
//!
//! Both are names in budgets and reports, so they are short and printable, and each is given once: what is counted
//! must be what the caller meant.

use super::content::{each_element, each_entry};
use super::{BadRequest, Field, Fields, shown, string, text, unshowable};
use std::borrow::Cow;

/// The most characters of an end user's name, or of a tag.
const LABEL_CHARS_MAX: usize = 128;
/// The most tags of one request.
const TAGS_MAX: usize = 8;

/// The end user: `user`, else `safety_identifier`, else `user_id` or `end_user` in `metadata`. An empty text is none:
/// many programs send one where they have no name.
pub(super) fn end_user<'a>(fields: &Fields<'a>, metadata: &Metadata<'a>) -> Result<Option<Cow<'a, str>>, BadRequest> {
    let mut found = None;
    for field in [Field::User, Field::SafetyIdentifier] {
        if let Some(name) = text(fields, field)?.filter(|name| !name.is_empty()) {
            check(&name, field.name()).map_err(|message| BadRequest::of(field, message))?;
            found = found.or(Some(name));
        }
    }
    for (name, json) in [("metadata.user_id", metadata.user_id), ("metadata.end_user", metadata.end_user)] {
        let Some(json) = json else { continue };
        let refused = |message: String| BadRequest::of(Field::Metadata, message);
        let user = string(json).ok_or_else(|| refused(format!("{name} must be a string, not {}", shown(json))))?;
        if !user.is_empty() {
            check(&user, name).map_err(refused)?;
            found = found.or(Some(user));
        }
    }
    Ok(found)
}

/// Adds the tags of a text such as `red, blue`, the form of a header, to those that are there. Empty ones and
/// repetitions are passed over.
pub fn add_tags(tags: &mut Vec<String>, text: &str) -> Result<(), BadRequest> {
    for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
        if tags.iter().any(|known| known == tag) {
            continue;
        }
        check(tag, "a tag").map_err(|message| BadRequest::new(None, message))?;
        if tags.len() == TAGS_MAX {
            return Err(BadRequest::new(None, format!("a request has at most {TAGS_MAX} tags")));
        }
        tags.push(tag.to_owned());
    }
    Ok(())
}

pub(in crate::openai) fn check(label: &str, name: &str) -> Result<(), String> {
    unshowable(label, LABEL_CHARS_MAX).map_or(Ok(()), |why| Err(format!("{name} {why}")))
}

/// The entries of `metadata` that are read here, as JSON. All others are the caller's and the upstream's own, and so is
/// a `metadata` that is no object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Metadata<'a> {
    user_id: Option<&'a str>,
    end_user: Option<&'a str>,
    tags: Option<&'a str>,
}

impl<'a> Metadata<'a> {
    pub(super) fn read(fields: &Fields<'a>) -> Result<Self, BadRequest> {
        let mut metadata = Self::default();
        let Some(json) = fields.given(Field::Metadata).filter(|json| json.starts_with('{')) else {
            return Ok(metadata);
        };
        let mut problem = None;
        let read = each_entry(json, |key, value| {
            let place = match key {
                "user_id" => &mut metadata.user_id,
                "end_user" => &mut metadata.end_user,
                "tags" => &mut metadata.tags,
                _ => return,
            };
            if place.replace(value.get()).is_some() {
                problem = Some(format!("metadata.{key} is given twice"));
            }
        });
        if read.is_err() {
            problem = Some(format!("metadata must be an object, not {}", shown(json)));
        }
        if let Some(problem) = problem {
            return Err(BadRequest::of(Field::Metadata, problem));
        }
        for place in [&mut metadata.user_id, &mut metadata.end_user, &mut metadata.tags] {
            *place = place.filter(|json| *json != "null");
        }
        Ok(metadata)
    }

    /// The tags: one text with commas, or an array of texts.
    pub(super) fn tags(&self) -> Result<Vec<String>, BadRequest> {
        let mut tags = Vec::new();
        let Some(json) = self.tags else { return Ok(tags) };
        let wrong_kind = || BadRequest::new(None, "metadata.tags must be a string, or an array of strings");
        let mut problem = None;
        let mut add = |json: &str| {
            let added = string(json).ok_or_else(wrong_kind).and_then(|text| add_tags(&mut tags, &text));
            problem = problem.take().or(added.err());
        };
        if !json.starts_with('[') {
            add(json);
        } else if each_element(json, |element| add(element.get())).is_err() {
            problem = Some(wrong_kind());
        }
        match problem {
            Some(problem) => Err(BadRequest { param: Some(Field::Metadata.name()), ..problem }),
            None => Ok(tags),
        }
    }
}
