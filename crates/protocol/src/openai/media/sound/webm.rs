//! WebM: elements in elements (EBML), of which one has the length, in ticks that another one gives.

use std::time::Duration;

const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
const DURATION: u32 = 0x4489;
/// Nanoseconds of a tick where nothing is said.
const SCALE_DEFAULT: u64 = 1_000_000;

/// The length, where it is written: what a browser records as it goes has none.
pub(super) fn length(file: &[u8]) -> Option<Duration> {
    let info = inside(inside(file, SEGMENT)?, INFO)?;
    let scale = inside(info, TIMESTAMP_SCALE)
        .map_or(SCALE_DEFAULT, |bytes| bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)));
    let bytes = inside(info, DURATION)?;
    let ticks = match bytes.len() {
        4 => f32::from_be_bytes(*bytes.first_chunk()?).into(),
        8 => f64::from_be_bytes(*bytes.first_chunk()?),
        _ => return None,
    };
    Duration::try_from_secs_f64(ticks * scale as f64 / 1e9).ok()
}

/// What is in the first element of that kind. Of one without a length: all that follows.
fn inside(elements: &[u8], kind: u32) -> Option<&[u8]> {
    let mut rest = elements;
    loop {
        let first = *rest.first()?;
        let id_bytes = first.leading_zeros() as usize + 1;
        let id = rest.get(..id_bytes).filter(|_| id_bytes <= 4)?;
        let id = id.iter().fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
        rest = &rest[id_bytes..];
        let size_bytes = rest.first()?.leading_zeros() as usize + 1;
        let digits = rest.get(..size_bytes).filter(|_| size_bytes <= 8)?;
        let size = digits.iter().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
        let ones = (1_u64 << (7 * size_bytes)) - 1;
        rest = &rest[size_bytes..];
        let size = size & ones;
        let size = if size == ones { rest.len() } else { usize::try_from(size).ok()?.min(rest.len()) };
        if id == kind {
            return rest.get(..size);
        }
        rest = &rest[size..];
    }
}
