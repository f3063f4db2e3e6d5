//! MP4 and its kin (M4A): boxes in boxes, of which one has the length.

use super::of_rate;
use std::time::Duration;

/// The length in the header of the movie (`moov`, `mvhd`).
pub(super) fn length(file: &[u8]) -> Option<Duration> {
    let header = inside(inside(file, b"moov")?, b"mvhd")?;
    let number = |at: usize| header.get(at..at + 4).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
    match header.first()? {
        0 => of_rate(number(16)?.into(), number(12)?.into()),
        1 => of_rate(u64::from(number(24)?) << 32 | u64::from(number(28)?), number(20)?.into()),
        _ => None,
    }
}

/// What is in the first box of that kind.
fn inside<'a>(boxes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    let mut at = 0_usize;
    loop {
        let head: [u8; 8] = *boxes.get(at..)?.first_chunk()?;
        let (head_bytes, size) = match u32::from_be_bytes(*head.first_chunk()?) {
            0 => (8, boxes.len() - at),
            1 => (16, usize::try_from(u64::from_be_bytes(*boxes.get(at + 8..)?.first_chunk()?)).ok()?),
            size => (8, size as usize),
        };
        let end = at.checked_add(size).filter(|_| size >= head_bytes)?;
        if head[4..] == *kind {
            return boxes.get(at + head_bytes..end.min(boxes.len()));
        }
        at = end;
    }
}
