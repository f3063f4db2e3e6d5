//! MPEG audio, frame by frame: a frame says how long it is, in bytes and in time.

use super::of_rate;
use std::time::Duration;

/// kbit/s by version (1; 2 and 2.5), layer (1, 2, 3) and index, ISO/IEC 11172-3 and 13818-3.
const RATES: [[[u32; 15]; 3]; 2] = [
    [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ],
    [
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ],
];
const HERTZ: [u32; 3] = [44_100, 48_000, 32_000];
/// Frames in a row that make it believable that there are any.
const FRAMES_MIN: u32 = 2;

struct Frame {
    bytes: usize,
    samples: u32,
    hertz: u32,
}

/// The sum over all frames. Between them there may be anything; only what looks like a frame counts.
pub(super) fn length(file: &[u8]) -> Option<Duration> {
    let mut at = tag_bytes(file);
    let (mut frames, mut samples, mut hertz) = (0_u32, 0_u64, 0);
    while at + 4 <= file.len() {
        match frame(&file[at..]) {
            Some(found) if frames == 0 || found.hertz == hertz => {
                frames += 1;
                samples += u64::from(found.samples);
                hertz = found.hertz;
                at += found.bytes;
            }
            // The beginning must be one, or this is another kind of file.
            _ if frames < FRAMES_MIN => return None,
            _ => at += 1 + memchr::memchr(0xff, &file[at + 1..]).unwrap_or(file.len()),
        }
    }
    (frames >= FRAMES_MIN).then_some(())?;
    of_rate(samples, hertz.into())
}

/// The bytes of an ID3v2 tag in front, whose size is written in seven bits of each byte.
fn tag_bytes(file: &[u8]) -> usize {
    match file {
        [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] => {
            let size = [a, b, c, d].iter().fold(0, |size, byte| size << 7 | usize::from(**byte & 0x7f));
            let footer = if flags & 0x10 == 0 { 0 } else { 10 };
            10 + size + footer
        }
        _ => 0,
    }
}

fn frame(bytes: &[u8]) -> Option<Frame> {
    let [0xff, second, third, _] = *bytes.first_chunk()? else { return None };
    if second & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    if version == 1 || layer == 0 {
        return None;
    }
    let (is_one, layer) = (version == 3, 3 - usize::from(layer));
    let rate = *RATES[usize::from(!is_one)][layer].get(usize::from(third >> 4))?;
    let hertz = *HERTZ.get(usize::from(third >> 2 & 3))?;
    // Versions 2 and 2.5 have a half and a quarter of the rates.
    let hertz = match version {
        3 => hertz,
        2 => hertz / 2,
        _ => hertz / 4,
    };
    let samples = match (layer, is_one) {
        (0, _) => 384,
        (2, false) => 576,
        _ => 1152,
    };
    let padding = u32::from(third >> 1 & 1) * if layer == 0 { 4 } else { 1 };
    let size = samples / 8 * rate * 1_000 / hertz + padding;
    (rate > 0).then_some(Frame { bytes: size as usize, samples, hertz })
}
