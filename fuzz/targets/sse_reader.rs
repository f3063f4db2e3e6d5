//! Whatever its chunks, a stream is cut into the same events; joined they are the stream; memory stays bounded.
//!
//! The first input byte sets the bound, the second the size of the chunks, the rest is the stream.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::sse::{Event, EventReader, EventTooLong};

fuzz_target!(|input: &[u8]| {
    let [bound, step, stream @ ..] = input else { return };
    let event_bytes_max = 1 + usize::from(*bound) * 4;
    let (whole, ending) = events(stream.chunks(stream.len().max(1)), event_bytes_max);
    let joined: Vec<u8> = whole.iter().flat_map(|event| event.raw.to_vec()).collect();
    match ending {
        Ok(()) => assert_eq!(joined, stream, "bytes were lost or invented"),
        Err(_) => assert!(stream.starts_with(&joined), "what came before the error is not what was sent"),
    }
    for event in &whole {
        assert!(!event.raw.is_empty() && event.raw.len() <= event_bytes_max);
        // Views into the event; none may reach beyond it.
        let data = event.data().map_or(0, |data| data.len());
        let name = event.name().map_or(0, <[u8]>::len);
        assert!(data.max(name) <= event.raw.len());
    }
    for size in [1, 1 + usize::from(*step)] {
        let (cut, cut_ending) = events(stream.chunks(size), event_bytes_max);
        assert_eq!((&cut, cut_ending), (&whole, ending), "chunks of {size} gave other events");
    }
});

/// Reads a stream chunk by chunk, up to its end or the first event that is too long.
fn events<'s>(
    chunks: impl Iterator<Item = &'s [u8]>,
    event_bytes_max: usize,
) -> (Vec<Event>, Result<(), EventTooLong>) {
    let mut reader = EventReader::new(event_bytes_max);
    let mut events = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!((reader.buffered(), reader.finish()), (0, None), "a failed reader keeps something");
                    return (events, Err(error));
                }
            }
        }
        assert!(reader.buffered() <= event_bytes_max, "more is held than the bound");
    }
    while let Some(event) = reader.finish() {
        events.push(event);
    }
    assert_eq!(reader.buffered(), 0, "something was left at the end");
    (events, Ok(()))
}
