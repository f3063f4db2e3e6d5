//! Cuts a byte stream into server-sent events without rebuilding it.
//!
//! An [`Event`] keeps its exact bytes, so that a relay forwards what came and only looks inside. Joined together
//! in order, the raw bytes of all events are the stream, whatever its chunks were.
//!
//! A reader that has nothing [`buffered`](EventReader::buffered) before a chunk is pushed and nothing after it was
//! drained has cut exactly that chunk: who drops no event of it can forward the chunk itself, in one piece.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use std::borrow::Cow;

const BOM: &[u8] = "\u{feff}".as_bytes();

/// One event, with the blank line that ends it. A blank line on its own is an event too, without data: providers
/// send them to keep a connection alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bytes as they came.
    pub raw: Bytes,
    /// Length of the byte order mark, which only the first event can have.
    lead: usize,
}

/// An event is longer than the reader may hold in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {event_bytes_max} bytes")]
pub struct EventTooLong {
    /// The limit that was exceeded.
    pub event_bytes_max: usize,
}

/// Cuts chunks into events. Feed it with [`push`](Self::push), take events until there is none, repeat.
#[derive(Debug)]
pub struct EventReader {
    event_bytes_max: usize,
    /// The start of an event whose end was not in the chunks so far. All of it has been scanned.
    carried: BytesMut,
    /// What of the newest chunk has not been scanned.
    chunk: Bytes,
    scan: Scan,
    at_start: bool,
    failed: bool,
}

/// Where the scan for the blank line stands between two chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    /// The current line has at least one byte.
    in_line: bool,
    /// The last byte was a CR, and an LF after it would belong to the same line end.
    after_cr: bool,
    /// The line that this CR ended was blank.
    blank: bool,
}

impl Event {
    /// The payload: the values of all `data` lines, joined by LF. `None` when the event has no such line.
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        let mut values = self.lines().filter_map(|line| value_of(line, b"data"));
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = Vec::with_capacity(self.raw.len());
        joined.extend_from_slice(first);
        for value in std::iter::once(second).chain(values) {
            joined.push(b'\n');
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }

    /// The event's type, if it names one.
    pub fn name(&self) -> Option<&[u8]> {
        self.field(b"event")
    }

    /// The value of the last line with that field name.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines().filter_map(|line| value_of(line, name)).last()
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.raw[self.lead..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // A CRLF gives a blank line too many, which holds no field.
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            Some(line)
        })
    }
}

/// The value of a line of the form `name:value`, `name: value` or `name`.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

impl EventReader {
    /// A reader that holds at most `event_bytes_max` bytes of an event that is not complete.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            carried: BytesMut::new(),
            chunk: Bytes::new(),
            scan: Scan::default(),
            at_start: true,
            failed: false,
        }
    }

    /// Adds the next bytes of the stream. Events of earlier chunks should have been taken; if not, they are copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed {
            return;
        }
        self.chunk = if self.chunk.is_empty() { chunk } else { [&self.chunk[..], &chunk[..]].concat().into() };
    }

    /// The next complete event, `None` when more bytes are needed. After an error the stream stays unreadable.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventTooLong> {
        if self.failed {
            return Err(EventTooLong { event_bytes_max: self.event_bytes_max });
        }
        let end = self.scan.end_of_event(&self.chunk);
        if self.carried.len() + end.unwrap_or(self.chunk.len()) > self.event_bytes_max {
            self.failed = true;
            self.carried = BytesMut::new();
            self.chunk = Bytes::new();
            return Err(EventTooLong { event_bytes_max: self.event_bytes_max });
        }
        let Some(end) = end else {
            self.carried.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return Ok(None);
        };
        let raw = if self.carried.is_empty() {
            self.chunk.split_to(end)
        } else {
            self.carried.extend_from_slice(&self.chunk.split_to(end));
            self.carried.split().freeze()
        };
        Ok(Some(self.event(raw)))
    }

    /// At the end of the stream: what is left, event by event. Many providers omit the last blank line, so an event
    /// without one counts, although browsers would drop it.
    pub fn finish(&mut self) -> Option<Event> {
        if let Some(event) = self.next_event().ok()? {
            return Some(event);
        }
        if self.carried.is_empty() {
            return None;
        }
        self.scan = Scan::default();
        let raw = self.carried.split().freeze();
        Some(self.event(raw))
    }

    /// How many bytes were pushed and not given back as events.
    pub fn buffered(&self) -> usize {
        self.carried.len() + self.chunk.len()
    }

    fn event(&mut self, raw: Bytes) -> Event {
        let first = std::mem::replace(&mut self.at_start, false);
        let lead = if first && raw.starts_with(BOM) { BOM.len() } else { 0 };
        Event { raw, lead }
    }
}

impl Scan {
    /// Where the event ends whose scan stopped just before `bytes`. Without an end, all of `bytes` is scanned.
    ///
    /// A blank line that ends in CR is complete only once the next byte is known: it may be the LF of a CRLF. That
    /// keeps events the same for every chunking, and delays no event that ends in LF.
    fn end_of_event(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.after_cr {
                let next = bytes.get(at)?;
                at += usize::from(*next == b'\n');
                self.after_cr = false;
                if self.blank {
                    return Some(at);
                }
            }
            let Some(length) = memchr2(b'\n', b'\r', &bytes[at..]) else {
                self.in_line |= at < bytes.len();
                return None;
            };
            let blank = length == 0 && !self.in_line;
            self.in_line = false;
            self.after_cr = bytes[at + length] == b'\r';
            self.blank = blank;
            at += length + 1;
            if blank && !self.after_cr {
                return Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a stream in the given chunks.
    fn events(chunks: &[&[u8]]) -> Vec<Event> {
        let mut reader = EventReader::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            reader.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = reader.next_event().unwrap() {
                events.push(event);
            }
        }
        while let Some(event) = reader.finish() {
            events.push(event);
        }
        assert_eq!(reader.buffered(), 0);
        events
    }

    /// The events by the letter of the standard, from the whole text at once: name and data of those with data.
    /// Unlike the standard, an event at the end needs no blank line.
    fn reference(stream: &[u8]) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let text: Vec<char> = stream.iter().copied().map(char::from).collect();
        let text: String = text.into_iter().collect();
        let text = text.strip_prefix("\u{ef}\u{bb}\u{bf}").unwrap_or(&text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let latin = |text: &str| text.chars().map(|letter| letter as u8).collect::<Vec<u8>>();
        let mut found = Vec::new();
        for block in text.split("\n\n") {
            let (mut name, mut data) = (None, Vec::new());
            for line in block.split('\n') {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => name = Some(latin(value)),
                    "data" => data.push(latin(value)),
                    _ => {}
                }
            }
            if !data.is_empty() {
                found.push((name, data.join(&b'\n')));
            }
        }
        found
    }

    fn named_data(events: &[Event]) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let with_data = events.iter().filter_map(|event| Some((event.name(), event.data()?)));
        with_data.map(|(name, data)| (name.map(<[u8]>::to_vec), data.into_owned())).collect()
    }

    #[test]
    fn u_12_every_form_of_event_is_read() {
        let check = |stream: &str, expected: &[(&str, Option<&str>)]| {
            let events = events(&[stream.as_bytes()]);
            let found: Vec<_> = events
                .iter()
                .map(|event| {
                    let data = event.data().map(|data| String::from_utf8(data.into_owned()).unwrap());
                    (String::from_utf8(event.raw.to_vec()).unwrap(), data)
                })
                .collect();
            let found: Vec<_> = found.iter().map(|(raw, data)| (raw.as_str(), data.as_deref())).collect();
            assert_eq!(found, expected, "{stream:?}");
        };
        check("", &[]);
        check("data: a\n\ndata:b\n\n", &[("data: a\n\n", Some("a")), ("data:b\n\n", Some("b"))]);
        check("data: a\r\n\r\ndata:b\r\r", &[("data: a\r\n\r\n", Some("a")), ("data:b\r\r", Some("b"))]);
        check("data: a\r\n\ndata: b\n\r\n", &[("data: a\r\n\n", Some("a")), ("data: b\n\r\n", Some("b"))]);
        check("data: a\ndata:  b\ndata\n\n", &[("data: a\ndata:  b\ndata\n\n", Some("a\n b\n"))]);
        check(": ping\n\n\ndata: a\n\n", &[(": ping\n\n", None), ("\n", None), ("data: a\n\n", Some("a"))]);
        check("\u{feff}data: a\n\n", &[("\u{feff}data: a\n\n", Some("a"))]);
        check("data: a\n\n\u{feff}data: b\n\n", &[("data: a\n\n", Some("a")), ("\u{feff}data: b\n\n", None)]);
        check("id: 1\0\nevent: e\nretry: 5\ndata: a\n\n", &[("id: 1\0\nevent: e\nretry: 5\ndata: a\n\n", Some("a"))]);
        check("data: [DONE]", &[("data: [DONE]", Some("[DONE]"))]);
        check("data: a\n\ndata: b\n", &[("data: a\n\n", Some("a")), ("data: b\n", Some("b"))]);
        check("data:\n\ndatax: a\n\n", &[("data:\n\n", Some("")), ("datax: a\n\n", None)]);
        check("{\"error\":1}", &[("{\"error\":1}", None)]);
        let named = &events(&[b"event: one\nevent:two\ndata: a\nerror: {}\n\n"])[0];
        assert_eq!((named.name(), named.field(b"error")), (Some(&b"two"[..]), Some(&b"{}"[..])));
        assert_eq!(events(&[b"data: a\n\n"])[0].name(), None);
    }

    #[test]
    fn an_event_within_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\ndata: c");
        let mut reader = EventReader::new(100);
        reader.push(chunk.clone());
        for start in [0, 9] {
            let event = reader.next_event().unwrap().unwrap();
            assert_eq!(event.raw.as_ptr(), chunk[start..].as_ptr());
            assert!(matches!(event.data(), Some(Cow::Borrowed(_))));
        }
        assert_eq!(reader.next_event(), Ok(None));
        assert_eq!(reader.buffered(), 7);
    }

    #[test]
    fn an_event_that_ends_in_lf_does_not_wait() {
        for stream in ["data: a\n\n", "data: a\r\n\r\n", "data: a\r\r\n", "data: a\n\r\n"] {
            let mut reader = EventReader::new(100);
            for byte in stream.bytes() {
                assert_eq!(reader.next_event(), Ok(None));
                reader.push(Bytes::copy_from_slice(&[byte]));
            }
            assert_eq!(reader.next_event().unwrap().map(|event| event.raw), Some(stream.into()));
        }
    }

    #[test]
    fn u_12_memory_is_bounded() {
        let check = |chunks: &[&[u8]], events: usize, fails: bool| {
            let mut reader = EventReader::new(10);
            let (mut count, mut failed) = (0, false);
            for chunk in chunks {
                reader.push(Bytes::copy_from_slice(chunk));
                loop {
                    match reader.next_event() {
                        Ok(Some(_)) => count += 1,
                        Ok(None) => break,
                        Err(error) => {
                            assert_eq!(error, EventTooLong { event_bytes_max: 10 });
                            failed = true;
                            break;
                        }
                    }
                }
                assert!(reader.buffered() <= 10);
            }
            assert_eq!((count, failed), (events, fails), "{chunks:?}");
            assert!(!failed || reader.finish().is_none());
        };
        check(&[b"data: ab\n\ndata: ab\n\n"], 2, false);
        check(&[b"data: abc\n\n"], 0, true);
        check(&[b"a\n\ndata: abcdefgh"], 1, true);
        check(&[b"data: ", b"abc", b"def"], 0, true);
        check(&[b"data: ab", b"\n\n", b"data: ab", b"\n\n"], 2, false);
        check(&[b"data: abcdefg", b"\n\n"], 0, true);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "data",
            "event",
            ":",
            " ",
            "\n",
            "\r",
            "\r\n",
            "\n\n",
            "\r\n\r\n",
            "x",
            "\u{feff}",
            "data: {\"a\":1}",
            "é",
            "\0",
        ]);
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        /// U-11: chunks change nothing, and nothing is lost.
        #[test]
        fn u_11_every_chunking_gives_the_same_events(stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let bounds: Vec<usize> = [0].into_iter().chain(cuts).chain([stream.len()]).collect();
            let chunks: Vec<&[u8]> = bounds.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            let whole = events(&[&stream]);
            prop_assert_eq!(&events(&chunks), &whole);
            prop_assert_eq!(&events(&stream.chunks(1).collect::<Vec<_>>()), &whole);
            let joined: Vec<u8> = whole.iter().flat_map(|event| event.raw.to_vec()).collect();
            prop_assert_eq!(joined, stream);
        }

        #[test]
        fn u_13_events_are_those_of_the_standard(stream in stream()) {
            prop_assert_eq!(named_data(&events(&[&stream])), reference(&stream));
        }

        #[test]
        fn any_bytes_are_answered(stream in prop::collection::vec(any::<u8>(), 0..300)) {
            let events = events(&[&stream]);
            let joined: Vec<u8> = events.iter().flat_map(|event| event.raw.to_vec()).collect();
            prop_assert_eq!(joined, stream);
        }
    }
}
