//! How long a piece of sound is, as far as its container says: nothing is decoded.
//!
//! WAV and MP3 are measured by what is there, since their length is a matter of bytes; of the other containers the
//! length is read where it is written. Any bytes are answered, and what is not understood is `None`.

mod mp3;
mod mp4;
mod webm;

use std::time::Duration;

/// The longest length that is believed of a header.
const LENGTH_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The length of a file of WAV, MP3, FLAC, Ogg, MP4 (M4A) or WebM.
pub(super) fn length(file: &[u8]) -> Option<Duration> {
    let length = match file {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => wav(file),
        [b'f', b'L', b'a', b'C', ..] => flac(file),
        [b'O', b'g', b'g', b'S', ..] => ogg(file),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => mp4::length(file),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => webm::length(file),
        _ => mp3::length(file),
    };
    length.filter(|length| !length.is_zero() && *length <= LENGTH_MAX)
}

/// `count` units of which there are `rate` in a second.
fn of_rate(count: u64, rate: u64) -> Option<Duration> {
    let nanos = u128::from(count) * 1_000_000_000 / u128::from(Some(rate).filter(|rate| *rate > 0)?);
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// RIFF: the bytes behind the header `data`, whatever length it claims, by the bytes of a second. Of several formats, which
/// readers choose from differently, the one counts by which it is longest.
fn wav(file: &[u8]) -> Option<Duration> {
    let (mut at, mut least) = (12, None::<u64>);
    loop {
        let [a, b, c, d, size @ ..]: [u8; 8] = file.get(at..at + 8)?.try_into().ok()?;
        let size = u32::from_le_bytes(size) as usize;
        at += 8;
        match &[a, b, c, d] {
            b"fmt " => {
                let found = pcm_bytes_per_second(file.get(at..at.checked_add(size)?)?)?;
                least = Some(least.map_or(found, |least| least.min(found)));
            }
            b"data" => return of_rate((file.len() - at) as u64, least?),
            _ => {}
        }
        // Chunks stand at even places.
        at = at.checked_add(size)?.checked_add(size % 2)?;
    }
}

/// Of sound that is not compressed; of any other the header does not tell it. The size of a frame has to be that of its
/// samples: some readers go by the one, some by the other.
fn pcm_bytes_per_second(format: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u16::from_le_bytes(*format.get(at..)?.first_chunk()?));
    let rate = u32::from_le_bytes(*format.get(4..)?.first_chunk()?);
    // The extensible format has the same codes further on.
    let code = match word(0)? {
        0xfffe => word(24)?,
        code => code,
    };
    let (channels, frame, bits) = (u64::from(word(2)?), u64::from(word(12)?), u64::from(word(14)?));
    // Whole numbers, fractions, and the telephone's two ways of 8 bits.
    let is_plain = matches!(code, 1 | 3 | 6 | 7) && channels * bits.div_ceil(8) == frame;
    is_plain.then(|| u64::from(rate) * frame)
}

/// The first block of metadata: 20 bits of samples a second, and after 8 more bits 36 of samples in all.
fn flac(file: &[u8]) -> Option<Duration> {
    let [kind, _, _, _] = *file.get(4..8)?.first_chunk()?;
    if kind & 0x7f != 0 {
        return None;
    }
    let packed = u64::from_be_bytes(*file.get(18..26)?.first_chunk()?);
    of_rate(packed & 0xf_ffff_ffff, packed >> 44)
}

/// The position at the end of the last page, which for Opus counts in 48 kHz and for Vorbis in the rate of its header.
fn ogg(file: &[u8]) -> Option<Duration> {
    let last = memchr::memmem::rfind(file, b"OggS")?;
    let position = u64::from_le_bytes(*file.get(last + 6..)?.first_chunk()?);
    let first = file.get(..file.len().min(512))?;
    if let Some(head) = memchr::memmem::find(first, b"OpusHead") {
        let skipped = u16::from_le_bytes(*first.get(head + 10..)?.first_chunk()?);
        return of_rate(position.saturating_sub(u64::from(skipped)), 48_000);
    }
    let head = memchr::memmem::find(first, b"\x01vorbis")?;
    of_rate(position, u32::from_le_bytes(*first.get(head + 12..)?.first_chunk()?).into())
}

#[cfg(test)]
mod tests;
