//! Cuts a JSON array that comes in chunks into its elements: a stream without `alt=sse`.

use bytes::{Buf, Bytes, BytesMut};

/// Cuts chunks into elements. Feed it with [`push`](Self::push), take elements until there is none, repeat.
#[derive(Debug)]
pub struct ArrayReader {
    element_bytes_max: usize,
    buffer: BytesMut,
    /// How much of the buffer was looked at.
    scanned: usize,
    depth: usize,
    in_string: bool,
    after_backslash: bool,
    failed: bool,
}

/// An element of the array is longer than the reader may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an element of the stream is longer than {element_bytes_max} bytes")]
pub struct ElementTooLong {
    /// The limit that was exceeded.
    pub element_bytes_max: usize,
}

impl ArrayReader {
    /// A reader that holds at most `element_bytes_max` bytes of an element.
    pub fn new(element_bytes_max: usize) -> Self {
        Self {
            element_bytes_max,
            buffer: BytesMut::new(),
            scanned: 0,
            depth: 0,
            in_string: false,
            after_backslash: false,
            failed: false,
        }
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        if !self.failed {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// The next complete element, which is an object; `None` when more bytes are needed. Whether it is JSON is for
    /// whoever reads it. After an error the stream stays unreadable.
    pub fn next_element(&mut self) -> Result<Option<Bytes>, ElementTooLong> {
        if self.failed {
            return Err(self.too_long());
        }
        // What is between elements: brackets of the array, commas, space.
        if self.depth == 0 {
            let start = self.buffer.iter().position(|byte| *byte == b'{').unwrap_or(self.buffer.len());
            self.buffer.advance(start);
        }
        while let Some(&byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            if self.scanned > self.element_bytes_max {
                self.failed = true;
                self.buffer = BytesMut::new();
                return Err(self.too_long());
            }
            if self.in_string {
                match byte {
                    _ if self.after_backslash => self.after_backslash = false,
                    b'\\' => self.after_backslash = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let element = self.buffer.split_to(std::mem::take(&mut self.scanned)).freeze();
                        return Ok(Some(element));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// What was pushed and not given back.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn too_long(&self) -> ElementTooLong {
        ElementTooLong { element_bytes_max: self.element_bytes_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elements(chunks: &[&[u8]]) -> Vec<Bytes> {
        let mut reader = ArrayReader::new(1 << 20);
        let mut elements = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(element) = reader.next_element().unwrap() {
                elements.push(element);
            }
        }
        elements
    }

    #[test]
    fn u_11_elements_are_the_same_for_every_cut() {
        let stream = br#"[{"a":"}]\"{"},
 {"b":[{},[1]]}
,{"c":"\\"}]"#;
        let whole = elements(&[stream]);
        assert_eq!(whole, [&br#"{"a":"}]\"{"}"#[..], br#"{"b":[{},[1]]}"#, br#"{"c":"\\"}"#]);
        for cut in 0..stream.len() {
            assert_eq!(elements(&[&stream[..cut], &stream[cut..]]), whole);
        }
        assert_eq!(elements(&stream.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn u_12_memory_is_bounded() {
        let mut reader = ArrayReader::new(10);
        reader.push(b"[     {\"a\":1},{\"abcdefghij\":");
        assert_eq!(reader.next_element().unwrap().unwrap(), &b"{\"a\":1}"[..]);
        assert_eq!(reader.next_element(), Err(ElementTooLong { element_bytes_max: 10 }));
        reader.push(b"{}");
        assert_eq!((reader.buffered(), reader.next_element().is_err()), (0, true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(stream in prop::collection::vec(any::<u8>(), 0..200)) {
            elements(&[&stream]);
        }
    }
}
