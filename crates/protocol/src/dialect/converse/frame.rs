//! Amazon's event stream (`application/vnd.amazon.eventstream`): frames of headers and a payload, with checksums.
//!
//! ```text
//! total length u32 | headers length u32 | CRC-32 of the first 8 | headers | payload | CRC-32 of all before
//! header: name length u8 | name | type u8 | value
//! ```

use crate::json::tree::Node;
use crate::json::write::Object;
use bytes::{Buf, Bytes, BytesMut};

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is, such as `contentBlockDelta`; of an exception its type.
    pub kind: String,
    /// The frame says that the stream failed.
    pub is_exception: bool,
    /// What it says of that beside its payload.
    pub said: Option<String>,
    /// What it holds: JSON, by all services that we read.
    pub payload: Bytes,
}

/// The bytes are no frames, or a frame is longer than the reader may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A frame is longer than the limit.
    #[error("a frame of the stream is longer than {frame_bytes_max} bytes")]
    TooLong {
        /// The limit that was exceeded.
        frame_bytes_max: usize,
    },
    /// Lengths contradict each other, or a checksum is wrong.
    #[error("the stream is not an event stream: its frames do not add up")]
    Corrupt,
}

/// Cuts chunks into frames. Feed it with [`push`](Self::push), take frames until there is none, repeat.
#[derive(Debug)]
pub struct FrameReader {
    frame_bytes_max: usize,
    buffer: BytesMut,
    failed: Option<Broken>,
}

const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

impl FrameReader {
    /// A reader that holds at most `frame_bytes_max` bytes of a frame.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, buffer: BytesMut::new(), failed: None }
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// The next complete frame, `None` when more bytes are needed. After an error the stream stays unreadable.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        if let Some(broken) = self.failed {
            return Err(broken);
        }
        let read = self.read();
        if let Err(broken) = read {
            self.failed = Some(broken);
            self.buffer = BytesMut::new();
        }
        read
    }

    /// What was pushed and not given back.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn read(&mut self) -> Result<Option<Frame>, Broken> {
        let Some(prelude) = self.buffer.get(..PRELUDE_BYTES) else { return Ok(None) };
        let number = |at: usize| u32::from_be_bytes(prelude[at..at + 4].try_into().expect("four bytes are four"));
        let (total, headers) = (number(0) as usize, number(4) as usize);
        if crc32fast::hash(&prelude[..8]) != number(8) || total < PRELUDE_BYTES + CHECKSUM_BYTES {
            return Err(Broken::Corrupt);
        }
        if total > self.frame_bytes_max {
            return Err(Broken::TooLong { frame_bytes_max: self.frame_bytes_max });
        }
        let payload_bytes = (total - PRELUDE_BYTES - CHECKSUM_BYTES).checked_sub(headers).ok_or(Broken::Corrupt)?;
        if self.buffer.len() < total {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(total).freeze();
        let mut checksum = frame.split_off(total - CHECKSUM_BYTES);
        if crc32fast::hash(&frame) != checksum.get_u32() {
            return Err(Broken::Corrupt);
        }
        frame.advance(PRELUDE_BYTES);
        let payload = frame.split_off(headers);
        debug_assert_eq!(payload.len(), payload_bytes, "lengths were checked");
        let mut read = Frame { payload, ..Frame::default() };
        while !frame.is_empty() {
            header(&mut frame, &mut read).ok_or(Broken::Corrupt)?;
        }
        Ok(Some(read))
    }
}

/// Takes one header. `None` where it does not add up.
fn header(bytes: &mut Bytes, frame: &mut Frame) -> Option<()> {
    let take = |bytes: &mut Bytes, length: usize| (bytes.len() >= length).then(|| bytes.split_to(length));
    let length = take(bytes, 1)?[0].into();
    let name = take(bytes, length)?;
    let kind = take(bytes, 1)?[0];
    let length = match kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        6 | 7 => take(bytes, 2)?.get_u16().into(),
        9 => 16,
        _ => return None,
    };
    let value = take(bytes, length)?;
    if kind != 7 {
        return Some(());
    }
    let value = std::str::from_utf8(&value).ok()?;
    match &name[..] {
        b":event-type" | b":exception-type" | b":error-code" => value.clone_into(&mut frame.kind),
        b":error-message" => frame.said = Some(value.to_owned()),
        b":message-type" => frame.is_exception = value != "event",
        _ => {}
    }
    Some(())
}

/// What the frames of a stream hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Events of Converse, named by the frame.
    Converse,
    /// Events of the model's own dialect, as base64 in a member `bytes` (InvokeModel).
    Invoked,
}

impl Frame {
    /// Writes the frame as a server-sent event, so that a stream of frames can be read as every other stream. An event of
    /// Converse becomes `{"contentBlockDelta": {…}}`, as Amazon's own description has it; one of InvokeModel is the model's
    /// own; an exception is an error in the shape that Anthropic and most others have, with the exception as its type.
    pub fn write_event(&self, holds: Holds, out: &mut Vec<u8>) {
        match (self.is_exception, holds, self.kind.as_str()) {
            (true, ..) => {
                out.extend_from_slice(b"event: error\ndata: ");
                self.write_error(out);
            }
            (false, Holds::Converse, kind) => {
                out.extend_from_slice(b"data: {\"");
                // The name of an event is a word; whatever else comes is not to break out of its place.
                out.extend(kind.bytes().filter(u8::is_ascii_alphanumeric));
                out.extend_from_slice(b"\":");
                push_line(if self.payload.is_empty() { b"{}" } else { &self.payload }, out);
                out.push(b'}');
            }
            (false, Holds::Invoked, "chunk") => {
                let event = invoke_model_event(&self.payload);
                let event = event.as_deref().unwrap_or(&self.payload);
                let node = std::str::from_utf8(event).ok().and_then(|text| Node::read(text).ok());
                // Anthropic's libraries go by the name of an event.
                if let Some(name) = node.and_then(|node| node.text_of("type")) {
                    out.extend_from_slice(b"event: ");
                    push_line(name.as_bytes(), out);
                    out.push(b'\n');
                }
                out.extend_from_slice(b"data: ");
                push_line(event, out);
            }
            // Nothing else is known; a newer one is no part of the answer.
            (false, Holds::Invoked, _) => out.push(b':'),
        }
        out.extend_from_slice(b"\n\n");
    }

    fn write_error(&self, out: &mut Vec<u8>) {
        let payload = std::str::from_utf8(&self.payload).ok().and_then(|text| Node::read(text).ok());
        let mut object = Object::open(out);
        object.text("type", "error");
        let mut error = object.object("error");
        error.text("type", &self.kind);
        let said =
            payload.as_ref().and_then(|payload| payload.text_of("message").or_else(|| payload.text_of("Message")));
        error.text("message", said.as_deref().or(self.said.as_deref()).unwrap_or_default());
        for member in payload.iter().flat_map(Node::members) {
            if !matches!(&*member.name, "type" | "message" | "Message") {
                error.raw(&member.name, member.node.raw);
            }
        }
    }
}

/// A document may be written over several lines; an event's data may not.
fn push_line(json: &[u8], out: &mut Vec<u8>) {
    out.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
}

/// What an InvokeModel frame holds: base64 of an event of the model's own dialect, in the member `bytes`.
fn invoke_model_event(payload: &[u8]) -> Option<Vec<u8>> {
    let node = Node::read(std::str::from_utf8(payload).ok()?).ok()?;
    decode_base64(node.text_of("bytes")?.as_bytes())
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !crate::canonical::is_base64(text) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.iter().filter(|letter| **letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame by the letter of Amazon's description.
    pub(in super::super) fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in headers {
            head.push(name.len() as u8);
            head.extend_from_slice(name.as_bytes());
            head.push(7);
            head.extend_from_slice(&(value.len() as u16).to_be_bytes());
            head.extend_from_slice(value.as_bytes());
        }
        let total = PRELUDE_BYTES + head.len() + payload.len() + CHECKSUM_BYTES;
        let mut frame = (total as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(head.len() as u32).to_be_bytes());
        frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
        frame.extend_from_slice(&head);
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
        frame
    }

    fn stream() -> Vec<u8> {
        let event = |kind, payload| {
            frame(&[(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")], payload)
        };
        let exception = [(":exception-type", "throttlingException"), (":message-type", "exception")];
        [event("messageStart", b"{\"role\":\"assistant\"}"), event("messageStop", b""), frame(&exception, b"{}")]
            .concat()
    }

    fn frames(chunks: &[&[u8]]) -> Vec<Frame> {
        let mut reader = FrameReader::new(1 << 20);
        let mut frames = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(frame) = reader.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(reader.buffered(), 0);
        frames
    }

    #[test]
    fn u_11_frames_are_the_same_for_every_cut() {
        let stream = stream();
        let whole = frames(&[&stream]);
        let seen: Vec<_> =
            whole.iter().map(|frame| (frame.kind.as_str(), frame.is_exception, &frame.payload[..])).collect();
        assert_eq!(
            seen,
            [
                ("messageStart", false, &b"{\"role\":\"assistant\"}"[..]),
                ("messageStop", false, b""),
                ("throttlingException", true, b"{}")
            ]
        );
        for cut in 0..stream.len() {
            assert_eq!(frames(&[&stream[..cut], &stream[cut..]]), whole);
        }
        assert_eq!(frames(&stream.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn u_12_any_wrong_byte_is_found_and_memory_is_bounded() {
        let stream = frame(&[(":event-type", "messageStop")], b"{}");
        for at in 0..stream.len() {
            let mut wrong = stream.clone();
            wrong[at] ^= 1;
            let mut reader = FrameReader::new(1 << 20);
            reader.push(&wrong);
            assert_eq!(reader.next_frame(), Err(Broken::Corrupt), "byte {at}");
            reader.push(&stream);
            assert_eq!((reader.next_frame(), reader.buffered()), (Err(Broken::Corrupt), 0));
        }
        let mut reader = FrameReader::new(20);
        reader.push(&stream[..12]);
        assert_eq!(reader.next_frame(), Err(Broken::TooLong { frame_bytes_max: 20 }));
    }

    #[test]
    fn events_of_invoke_model_are_unwrapped() {
        assert_eq!(invoke_model_event(br#"{"bytes":"eyJhIjoiw6kifQ=="}"#).unwrap(), "{\"a\":\"é\"}".as_bytes());
        assert_eq!(invoke_model_event(br#"{"bytes":"%"}"#), None);
        assert_eq!(invoke_model_event(b"x"), None);
    }

    #[test]
    fn frames_become_events() {
        let written = |kind: &str, is_exception, payload: &'static [u8], holds| {
            let frame = Frame { kind: kind.to_owned(), is_exception, payload: payload.into(), said: None };
            let mut out = Vec::new();
            frame.write_event(holds, &mut out);
            String::from_utf8(out).unwrap()
        };
        let delta = b"{\"contentBlockIndex\":0,\n\"delta\":{\"text\":\"a\"}}";
        assert_eq!(
            written("contentBlockDelta", false, delta, Holds::Converse),
            "data: {\"contentBlockDelta\":{\"contentBlockIndex\":0, \"delta\":{\"text\":\"a\"}}}\n\n"
        );
        assert_eq!(written("messageStop", false, b"", Holds::Converse), "data: {\"messageStop\":{}}\n\n");
        let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
        assert_eq!(written("chunk", false, br#"{"bytes":"eyJ0eXBlIjogInBpbmcifQ==","p":"ab"}"#, Holds::Invoked), ping);
        assert_eq!(written("later", false, b"{}", Holds::Invoked), ":\n\n");
        let failed = br#"{"message":"odd","originalStatusCode":400,"type":"x"}"#;
        let expected = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"modelStreamErrorException\",\
                        \"message\":\"odd\",\"originalStatusCode\":400}}\n\n";
        for holds in [Holds::Converse, Holds::Invoked] {
            assert_eq!(written("modelStreamErrorException", true, failed, holds), expected);
        }
    }

    #[test]
    fn what_a_frame_of_an_error_says_stands_in_its_headers() {
        let mut reader = FrameReader::new(1000);
        let headers = [
            (":message-type", "error"),
            (":error-code", "InternalFailure"),
            (":error-message", "an \"internal\" error"),
        ];
        reader.push(&frame(&headers, b""));
        let mut out = Vec::new();
        reader.next_frame().unwrap().unwrap().write_event(Holds::Converse, &mut out);
        let expected = r#"{"type":"error","error":{"type":"InternalFailure","message":"an \"internal\" error"}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("event: error\ndata: {expected}\n\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = FrameReader::new(1000);
            reader.push(&bytes);
            while let Ok(Some(frame)) = reader.next_frame() {
                frame.write_event(Holds::Invoked, &mut Vec::new());
            }
        }
    }
}
