//! Any stream, and any answer in one piece, is observed without a panic, and what is counted for billing is never
//! more than what came.

#![no_main]

use bytes::Bytes;
use domain::usage::COUNT_MAX;
use libfuzzer_sys::fuzz_target;
use protocol::openai::{Answer, Endpoint, Reported, Seen, StreamObserver, produced_text};
use protocol::sse::EventReader;

fuzz_target!(|input: &[u8]| {
    for endpoint in Endpoint::ALL {
        let mut reader = EventReader::new(1 << 20);
        reader.push(Bytes::copy_from_slice(input));
        let mut observer = StreamObserver::new(endpoint);
        while let Some(event) = reader.finish() {
            if let Some(data) = event.data() {
                observe(&mut observer, &data);
            }
        }
        // Not only what survives the cutting into events.
        observe(&mut StreamObserver::new(endpoint), input);
        if let Ok(Answer::Complete(completion)) = Answer::read(endpoint, input) {
            check_usage(completion.usage);
        }
    }
    assert!(produced_text(input).len() <= input.len(), "more text than bytes");
});

fn observe(observer: &mut StreamObserver, data: &[u8]) {
    let mut produced_bytes = 0;
    let seen = observer.observe(data, &mut |text| produced_bytes += text.len());
    assert!(produced_bytes <= data.len(), "more text than bytes");
    assert!(produced_bytes == 0 || observer.produced_anything(), "text that counts as nothing");
    assert!(seen != Seen::Error || observer.error().is_some(), "an error that nobody can be told");
    assert!(seen != Seen::Done || observer.done_seen());
    check_usage(observer.usage());
}

fn check_usage(reported: Reported) {
    let Some(usage) = reported.usage() else { return };
    for (meter, count) in usage.counts() {
        assert!(count <= COUNT_MAX, "{meter:?}: {count}");
    }
}
