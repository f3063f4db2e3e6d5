//! Any request, in any caller's dialect, is answered, and what is written of it for any provider is JSON that names at
//! most a few dropped fields, fit for a header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::canonical::Dialect;
use protocol::dialect::{Quirks, Target, converse, embeddings, gemini, messages, read_request, responses, write_request};

fuzz_target!(|input: &[u8]| {
    for from in Dialect::ALL {
        let Ok(request) = read_request(from, input) else { continue };
        for quirks in Quirks::ALL {
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
