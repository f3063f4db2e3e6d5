//! Any bytes are answered. What is accepted is forwarded as valid JSON that a second reader understands the same
//! way: same model, same cap, and every field that was not to be edited word for word.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::openai::{CapField, Edits, Endpoint, Request, prompt_text};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

const UPSTREAM_MODEL: &str = "vendor/\"model\"\u{2028}\\";
const CAP: u64 = 77;

fuzz_target!(|input: &[u8]| {
    let body = Bytes::copy_from_slice(input);
    for endpoint in Endpoint::ALL {
        let (text, _) = prompt_text(endpoint, &body);
        // Counted by its words, a text must not become more than was sent.
        assert!(text.len() <= body.len(), "{endpoint:?}: the prompt is longer than the body");
        if let Ok(request) = Request::read(endpoint, &body) {
            check(&request, &body);
        }
    }
});

fn check(request: &Request<'_>, body: &Bytes) {
    assert_eq!(request.forward(body, &Edits::default()), body, "nothing was to change");
    assert!((1..=256).contains(&request.model.chars().count()));
    assert!(request.choices >= 1);
    let bound = request.bound(request.output_cap.unwrap_or(u64::MAX));
    assert!(bound.input_tokens >= body.len() as u64);

    let before = fields(body);
    let all = Edits {
        model: Some(UPSTREAM_MODEL),
        include_usage: true,
        output_cap: Some((request.cap_field.unwrap_or(CapField::MaxCompletionTokens), CAP)),
    };
    for edits in [
        Edits { include_usage: true, ..Edits::default() },
        Edits { output_cap: Some((CapField::MaxTokens, CAP)), ..Edits::default() },
        Edits { output_cap: Some((CapField::MaxCompletionTokens, CAP)), ..Edits::default() },
        all,
    ] {
        let forwarded = request.forward(body, &edits);
        let again = Request::read(request.endpoint, &forwarded).expect("what is forwarded can be read again");
        assert_eq!(again.model, edits.model.unwrap_or(&request.model));
        assert_eq!(again.stream, request.stream);
        assert_eq!(again.include_usage, request.include_usage || (edits.include_usage && request.stream));
        match edits.output_cap {
            // The cap holds whichever of the two fields the upstream obeys.
            Some((_, cap)) => assert_eq!(again.output_cap, Some(cap)),
            None => assert_eq!(again.output_cap, request.output_cap),
        }
        assert_eq!(again.choices, request.choices);
        let after = fields(&forwarded);
        for (name, value) in &before {
            let edited = matches!(&**name, "model" | "stream_options" | "max_tokens" | "max_completion_tokens");
            assert!(
                edited || after.get(name).is_some_and(|kept| kept.get() == value.get()),
                "{name:?} did not survive"
            );
        }
    }
}

/// The fields of a body as they are written, read by a parser that knows nothing of ours.
fn fields(body: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(body).expect("what is accepted or forwarded is a JSON object")
}
