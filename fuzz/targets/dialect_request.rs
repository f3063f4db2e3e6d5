//! Any request, in any caller's dialect, is answered, and what is written of it for any provider is JSON that names at
//! most a few dropped fields, fit for a header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::canonical::Dialect;
use bytes::Bytes;
use protocol::dialect::{
    Quirks, Target, converse, embeddings, gemini, messages, passing, read_request, responses, write_request,
};
use protocol::provider::TABLE;

fuzz_target!(|input: &[u8]| {
    for from in Dialect::ALL {
        let Ok(request) = read_request(from, input) else { continue };
        _ = passing::check(from, &request);
        passes(from, input);
        for profile in TABLE {
            let quirks = profile.quirks;
            let target = Target { output_tokens_max: Some(100), ..Target::new("up\"stream", &quirks) };
            for to in Dialect::ALL {
                let Ok(written) = write_request(to, &request, &target) else { continue };
                is_json(&written.body);
                let header = written.dropped.to_string();
                assert!(header.is_ascii() && !header.contains(['\r', '\n']) && header.len() < 2048, "{header:?}");
            }
        }
        let quirks = Quirks::COMPATIBLE;
        let target = Target::new("upstream", &quirks);
        for written in [messages::write_count_request(&request, &target), gemini::write_count_request(&request, &target)] {
            if let Ok(written) = written {
                is_json(&written.body);
            }
        }
    }
    _ = messages::read_count_request(input);
    _ = gemini::read_count_request(input);
    is_json(format!("{{{}}}", responses::echo(input)).as_bytes());
    let target = Target::new("upstream", &Quirks::COMPATIBLE);
    for request in [embeddings::read_openai(input), embeddings::read_gemini(input)].into_iter().flatten() {
        is_json(&embeddings::write_openai(&request, &target).body);
        is_json(&embeddings::write_gemini(&request, &target).body);
    }
    let mut frames = converse::frame::FrameReader::new(1 << 16);
    frames.push(input);
    while let Ok(Some(frame)) = frames.next_frame() {
        for holds in [converse::frame::Holds::Converse, converse::frame::Holds::Invoked] {
            frame.write_event(holds, &mut Vec::new());
        }
    }
});

fn is_json(body: &[u8]) {
    // A number that no float holds is kept as it was written.
    if let Err(error) = serde_json::from_slice::<serde_json::Value>(body) {
        assert!(error.to_string().contains("out of range"), "{error}: {}", String::from_utf8_lossy(body));
    }
}

/// A body that passes is the same but for its model and cap, and can still be read.
fn passes(dialect: Dialect, input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    assert_eq!(passing::edited(dialect, &body, &passing::Edits::default()), body);
    let edits = passing::Edits { model: Some("up\"stream"), output_tokens_max: Some(2) };
    let edited = passing::edited(dialect, &body, &edits);
    is_json(&edited);
    let read = read_request(dialect, &edited).expect("what was edited can be read");
    assert!(matches!(dialect, Dialect::Chat | Dialect::Completions | Dialect::Converse) || read.output_tokens_max == Some(read.output_tokens_max.unwrap_or(2).min(2)));
}
