//! What a JSON text must satisfy before it is read, and the tree and the writer that translations use.

pub(crate) mod patch;
pub(crate) mod tree;
pub(crate) mod write;

use memchr::{memchr, memchr_iter, memchr2};

/// The deepest nesting that a body may have. Skipping an ignored value costs `serde_json` no stack at any depth,
/// but the upstream that parses the same bytes may not be as careful.
pub(crate) const DEPTH_MAX: usize = 128;

/// Why a text is refused before it is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsound {
    /// Objects and arrays are nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// An escape stands for half of a character: the text is not Unicode, although its bytes are UTF-8.
    LoneSurrogate,
}

/// Checks nesting and escapes in one pass. Of a text that is not JSON it may say anything: the parser that follows
/// stops where this scan could have lost its way.
pub(crate) fn check(text: &str) -> Result<(), Unsound> {
    let bytes = text.as_bytes();
    // Most bodies have few brackets and no surrogates; counting is far cheaper than walking.
    let brackets = memchr_iter(b'{', bytes).count() + memchr_iter(b'[', bytes).count();
    if brackets <= DEPTH_MAX && !may_have_surrogates(bytes) {
        return Ok(());
    }
    walk(bytes)
}

/// Whether `\ud` or `\uD` occurs, be it an escape or not.
fn may_have_surrogates(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = memchr(b'\\', rest) {
        rest = &rest[at + 1..];
        if let [b'u', b'd' | b'D', ..] = rest {
            return true;
        }
    }
    false
}

fn walk(bytes: &[u8]) -> Result<(), Unsound> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Unsound::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(bytes, at)?,
            _ => {}
        }
    }
    Ok(())
}

/// The position after the quote that ends the string whose content starts at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> Result<usize, Unsound> {
    while let Some(length) = memchr2(b'"', b'\\', &bytes[at..]) {
        at += length;
        if bytes[at] == b'"' {
            return Ok(at + 1);
        }
        match unit(&bytes[at..]) {
            Some(0xd800..=0xdbff) => match bytes.get(at + 6..).and_then(unit) {
                Some(0xdc00..=0xdfff) => at += 12,
                _ => return Err(Unsound::LoneSurrogate),
            },
            Some(0xdc00..=0xdfff) => return Err(Unsound::LoneSurrogate),
            _ => at = (at + 2).min(bytes.len()),
        }
    }
    Ok(bytes.len())
}

/// The UTF-16 unit of the escape `\uXXXX` that the bytes start with.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_07_depth_is_counted_outside_strings_only() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX + 1)), Err(Unsound::TooDeep));
        assert_eq!(check(&nested(1_000_000)), Err(Unsound::TooDeep));
        assert_eq!(check(&"[".repeat(10_000)), Err(Unsound::TooDeep));
        assert_eq!(check(&format!("[{}1]", "[],{},".repeat(1000))), Ok(()));
        assert_eq!(check(&format!(r#"["{}\"{}"]"#, "[".repeat(1000), "{".repeat(1000))), Ok(()));
        assert_eq!(check(&format!(r#"["\\",{}]"#, nested(128))), Err(Unsound::TooDeep));
    }

    #[test]
    fn c_09_lone_surrogates_are_found() {
        let check = |text: &str, sound: bool| assert_eq!(check(text).is_ok(), sound, "{text}");
        check(r#""\ud83d\ude00""#, true);
        check(r#""\uD83D\uDE00""#, true);
        check(r#""\ud7ff\ue000""#, true);
        check(r#""\\ud800""#, true);
        check(r#""\\\\ud800""#, true);
        check(r#""\ud83d""#, false);
        check(r#""\\\ud83d""#, false);
        check(r#""\ude00\ud83d""#, false);
        check(r#""\ud83d\n\ude00""#, false);
        check(r#""\ud83d\ud83d\ude00""#, false);
        check(r#""\ud8"#, true);
        check(r#""\"#, true);
    }
}
