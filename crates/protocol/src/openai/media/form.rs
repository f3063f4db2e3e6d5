//! Forms (`multipart/form-data`, RFC 7578), read where they stand: files are slices of the body.
//!
//! Readers of forms differ where a form is odd: in what follows a boundary, in quoting, in transfer encodings, in text
//! before the first part. Whatever could be read in two ways is refused, so that what is billed is what the upstream
//! reads, from the very same bytes.

use super::values::{Value, Values, known};
use super::{BadRequest, bad, broken};
use crate::openai::request::same_without_case;
use memchr::memmem;
use std::ops::Range;

/// The most parts of a form; images can be 16, and few fields are lists.
const PARTS_MAX: usize = 128;
/// Longest head of a part.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest boundary, by RFC 2046.
const BOUNDARY_BYTES_MAX: usize = 70;

/// The boundary that a content type names, if it is that of a form and names one that can be used.
pub fn boundary_of(content_type: &str) -> Result<&str, &'static str> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err("Only forms are taken here. Send content-type: multipart/form-data.");
    }
    let mut boundary = None;
    for parameter in parameters.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "boundary" if boundary.is_none() => boundary = Some(value.trim()),
            "charset" if value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") => {}
            _ => return Err("The content type of a form has one boundary and nothing else."),
        }
    }
    let boundary = boundary.ok_or("The content type of the form names no boundary.")?;
    let boundary = boundary.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(boundary);
    // The letters that RFC 2046 allows, without the space, which some readers cut off.
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX || !boundary.bytes().all(is_letter) {
        return Err("The boundary of the form has 1 to 70 letters, digits or -_.:=+/,?'().");
    }
    Ok(boundary)
}

/// Reads a form. Any bytes are answered.
pub(super) fn read<'a>(body: &'a [u8], boundary: &str) -> Result<Values<'a>, BadRequest> {
    let delimiter = format!("\n--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    let mut at = match body.strip_prefix(&delimiter.as_bytes()[1..]) {
        Some(_) => delimiter.len() - 1,
        None => return Err(broken("the form does not begin with its boundary, as the content type names it")),
    };
    let mut values = Values::default();
    for _ in 0..=PARTS_MAX {
        match &body[at..] {
            [b'-', b'-'] | [b'-', b'-', b'\r', b'\n'] => return Ok(values),
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] | [b'-'] => return Err(cut_off()),
            _ => return Err(broken("the form has something behind a boundary that does not belong there")),
        }
        let head_end = memmem::find(&body[at..], b"\r\n\r\n").filter(|end| *end <= HEAD_BYTES_MAX);
        let head_end = at + head_end.ok_or_else(cut_off)?;
        let start = head_end + 4;
        // From the last byte of the head on: some readers take its line end for the boundary's, others do not.
        let line = start - 1 + finder.find(&body[start - 1..]).ok_or_else(cut_off)?;
        if line <= start || body[line - 1] != b'\r' {
            return Err(broken("the boundary of the form stands in it without a line end (CR LF) of its own"));
        }
        let head = Head::read(&body[at..head_end])?;
        take(&mut values, &head, body, start..line - 1)?;
        at = line + delimiter.len();
    }
    Err(broken(format!("the form has more than {PARTS_MAX} parts")))
}

fn cut_off() -> BadRequest {
    broken("the form is cut off, or a part of it has no head: it does not end with its boundary and --")
}

fn take<'a>(values: &mut Values<'a>, head: &Head<'_>, body: &'a [u8], place: Range<usize>) -> Result<(), BadRequest> {
    if same_without_case("_charset_", head.name) {
        return Err(broken("a form is UTF-8; it must not name another charset"));
    }
    let Some(name) = known(head.name)? else { return Ok(()) };
    let bytes = &body[place.clone()];
    let value = if head.is_file {
        Value::File(bytes)
    } else {
        if !head.is_plain {
            return Err(bad(name, format!("{name} must be plain text in UTF-8")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad(name, format!("{name} is not valid UTF-8")))?;
        Value::Plain(text)
    };
    values.add(name, value, place)
}

/// What stands above a part.
struct Head<'a> {
    name: &'a str,
    is_file: bool,
    /// It is said to be text in UTF-8, or nothing is said.
    is_plain: bool,
}

impl<'a> Head<'a> {
    fn read(head: &'a [u8]) -> Result<Self, BadRequest> {
        let head = std::str::from_utf8(head).map_err(|_| broken("a part of the form has a head that is not UTF-8"))?;
        if head.replace("\r\n", "").contains(|letter: char| letter.is_control() && letter != '\t') {
            return Err(broken("a part of the form has a control character in its head"));
        }
        let mut disposition = None;
        let mut is_plain = true;
        let mut has_type = false;
        for line in head.split("\r\n") {
            let Some((name, value)) = line.split_once(':').filter(|(name, _)| !name.contains([' ', '\t'])) else {
                return Err(broken("a part of the form has a line in its head that is no header"));
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-disposition" if disposition.is_none() => disposition = Some(value),
                "content-type" if !has_type => {
                    has_type = true;
                    let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
                    let charset = parameters.trim().to_ascii_lowercase();
                    is_plain = kind.trim().eq_ignore_ascii_case("text/plain")
                        && matches!(charset.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"");
                }
                "content-disposition" | "content-type" => {
                    return Err(broken("a part of the form has a header twice"));
                }
                "content-transfer-encoding"
                    if !["binary", "7bit", "8bit"].iter().any(|plain| value.eq_ignore_ascii_case(plain)) =>
                {
                    return Err(broken("a part of the form is encoded; send it as it is"));
                }
                _ => {}
            }
        }
        let disposition = disposition.ok_or_else(|| broken("a part of the form has no content-disposition"))?;
        let (name, is_file) = named(disposition).ok_or_else(|| {
            broken("a part of the form has a content-disposition other than form-data; name=\"…\"; filename=\"…\"")
        })?;
        Ok(Self { name, is_file, is_plain })
    }
}

/// The name in a disposition, and whether there is a file's name beside it.
fn named(disposition: &str) -> Option<(&str, bool)> {
    let (kind, mut rest) = disposition.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut is_file) = (None, false);
    loop {
        let (parameter, after) = rest.trim_start().split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_end(quoted).map(|end| (&quoted[..end], &quoted[end + 1..]))?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim_end(), &after[end..])
            }
        };
        match parameter.trim_end().to_ascii_lowercase().as_str() {
            // A name with quoting in it is read differently by different readers.
            "name" if name.is_none() && !value.contains(['\\', '%', '"']) && !value.contains(char::is_control) => {
                name = Some(value);
            }
            "filename" | "filename*" => is_file = true,
            _ => return None,
        }
        match after.trim_start().strip_prefix(';') {
            Some(more) => rest = more,
            None if after.trim().is_empty() => return name.map(|name| (name, is_file)),
            None => return None,
        }
    }
}

/// Where a quoted text ends: at the first quote that no backslash stands before.
fn quoted_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|&at| bytes[at] == b'"' && (at == 0 || bytes[at - 1] != b'\\'))
}
