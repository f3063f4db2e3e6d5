//! Containers by hand, from their descriptions.

use super::*;
use proptest::prelude::*;

fn seconds(file: &[u8]) -> Option<f64> {
    length(file).map(|length| (length.as_secs_f64() * 1_000.0).round() / 1_000.0)
}

/// Two channels of 16 bits at 16 kHz, with a chunk of another kind before the sound.
fn wav(bytes: usize, claimed: u32) -> Vec<u8> {
    let mut file =
        b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x02\0\x80\x3e\0\0\0\xfa\0\0\x04\0\x10\0data".to_vec();
    file.extend_from_slice(&claimed.to_le_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn a_wav_is_as_long_as_its_bytes_whatever_it_claims() {
    for claimed in [0, 7, 96_000, u32::MAX] {
        assert_eq!(seconds(&wav(96_000, claimed)), Some(1.5), "{claimed}");
    }
    assert_eq!(seconds(&wav(0, 0)), None);
    assert_eq!(seconds(&wav(96_000, 0)[..40]), None);
}

/// U-25: what its caller wrote into a header to be billed for less.
#[test]
fn u_25_a_wav_is_not_made_shorter_by_its_header() {
    let format = |code: u16, channels: u16, rate: u32, frame: u16, bits: u16| {
        let [code, channels, frame, bits] = [code, channels, frame, bits].map(u16::to_le_bytes);
        let rest = [&code[..], &channels, &rate.to_le_bytes(), &[0; 4], &frame, &bits].concat();
        [&b"fmt \x10\0\0\0"[..], &rest].concat()
    };
    let file =
        |formats: &[Vec<u8>]| [&b"RIFF\0\0\0\0WAVE"[..], &formats.concat(), b"data\0\0\0\0", &[0; 80_000]].concat();
    let plain = format(1, 1, 8_000, 1, 8);
    assert_eq!(seconds(&file(std::slice::from_ref(&plain))), Some(10.0));
    let dense = format(1, 8, 192_000, 32, 32);
    assert_eq!(seconds(&file(&[dense.clone(), plain.clone()])), Some(10.0), "some readers take the second format");
    assert_eq!(seconds(&file(&[plain, dense])), Some(10.0), "some take the first");
    assert_eq!(seconds(&file(&[format(1, 1, 8_000, 65_535, 8)])), None, "a sample has no 65,535 bytes");
    assert_eq!(seconds(&file(&[format(0x55, 1, 44_100, 1, 0)])), None, "MP3 in a WAV is compressed");
}

#[test]
fn an_mp3_is_the_sum_of_its_frames() {
    // MPEG 1, layer III, 128 kbit/s, 44.1 kHz: 417 bytes of 1,152 samples.
    let frame = [&[0xff, 0xfb, 0x90, 0x00][..], &[0; 413]].concat();
    let hundred = frame.repeat(100);
    assert_eq!(seconds(&hundred), Some(2.612));
    let tagged = [b"ID3\x04\0\0\0\0\x01\x05".as_slice(), &[0xff; 133], &hundred].concat();
    assert_eq!(seconds(&tagged), Some(2.612));
    // MPEG 2, layer III, 64 kbit/s, 22.05 kHz: 208 bytes of 576 samples.
    let frame = [&[0xff, 0xf3, 0x80, 0x00][..], &[0; 204]].concat();
    assert_eq!(seconds(&frame.repeat(100)), Some(2.612));
    assert_eq!(seconds(&hundred[..417]), None, "one frame proves nothing");
    assert_eq!(seconds(&[b"text ".as_slice(), &hundred].concat()), None);
}

#[test]
fn flac_and_ogg_and_webm_and_mp4_say_it_in_their_heads() {
    let mut flac = b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
    flac.extend_from_slice(&(44_100_u64 << 44 | 1 << 41 | 15 << 36 | 88_200).to_be_bytes());
    flac.resize(60, 0);
    assert_eq!(seconds(&flac), Some(2.0));

    let page = |position: u64, body: &[u8]| {
        [b"OggS\0\x02".as_slice(), &position.to_le_bytes(), &[0; 12], &[1, body.len() as u8], body].concat()
    };
    let opus = [page(0, b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"), page(48_312, b"x")].concat();
    assert_eq!(seconds(&opus), Some(1.0));
    let vorbis = [page(0, b"\x01vorbis\0\0\0\0\x01\x40\x1f\0\0"), page(20_000, b"x")].concat();
    assert_eq!(seconds(&vorbis), Some(2.5));

    let element = |id: &[u8], body: &[u8]| [id, &[0x80 | body.len() as u8], body].concat();
    let info = [
        element(&[0x2a, 0xd7, 0xb1], &1_000_000_u32.to_be_bytes()),
        element(&[0x44, 0x89], &2_750.0_f64.to_be_bytes()),
    ]
    .concat();
    let head = element(&[0x1a, 0x45, 0xdf, 0xa3], &[]);
    let segment = [
        &[0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &element(&[0x15, 0x49, 0xa9, 0x66], &info),
    ]
    .concat();
    assert_eq!(seconds(&[head.clone(), segment].concat()), Some(2.75));
    let unknown = element(&[0x18, 0x53, 0x80, 0x67], &element(&[0x15, 0x49, 0xa9, 0x66], &[]));
    assert_eq!(seconds(&[head, unknown].concat()), None, "a browser's recording has no length");

    let boxed = |kind: &[u8; 4], body: &[u8]| [&(8 + body.len() as u32).to_be_bytes(), kind.as_slice(), body].concat();
    let header = [&[0; 12][..], &600_u32.to_be_bytes(), &2_100_u32.to_be_bytes(), &[0; 80]].concat();
    let movie = boxed(b"moov", &boxed(b"mvhd", &header));
    assert_eq!(seconds(&[boxed(b"ftyp", b"M4A \0\0\0\0"), boxed(b"mdat", &[0; 99]), movie].concat()), Some(3.5));
    let header = [&[1, 0, 0, 0][..], &[0; 16], &1_000_u32.to_be_bytes(), &1_500_u64.to_be_bytes(), &[0; 80]].concat();
    let movie = boxed(b"moov", &boxed(b"mvhd", &header));
    assert_eq!(seconds(&[boxed(b"ftyp", b"isom\0\0\0\0"), movie].concat()), Some(1.5));
}

proptest! {
    #[test]
    fn u_27_any_file_is_answered(
        begin in prop::sample::select(vec![
            b"RIFF\0\0\0\0WAVEfmt ".as_slice(), b"fLaC\0\0\0\0", b"OggS", b"\0\0\0\x08ftyp\0\0\0\x01moov", b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67",
            b"\xff\xfb\x90\x00", b"ID3\x04\0\x10\x7f\x7f\x7f\x7f", b"OggS\0\0\0\0\0\0\0\0\0\0OpusHead",
        ]),
        rest in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xff), any::<u8>()], 0..300),
    ) {
        _ = length(&[begin, &rest].concat());
    }
}
