//! Any stream and any answer, of any provider, is answered, the same for every chunking, and what is written of it in any
//! caller's dialect is UTF-8 whose events are JSON. Nothing comes after an end.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::canonical::{Dialect, Event};
use protocol::dialect::{Quirks, Reply, StreamReader, StreamWriter, gemini, read_answer, write_answer};
use protocol::sse::EventReader;

const REPLY: Reply<'static> =
    Reply { id: "gateway", model: Some("pub\"lic"), created_s: 1, include_usage: true, echo: "" };

const CALLERS: [Dialect; 5] =
    [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Responses, Dialect::Completions];

fuzz_target!(|input: &[u8]| {
    let quirks = Quirks::COMPATIBLE;
    for from in Dialect::ALL {
        if let Ok(answer) = read_answer(from, input, &quirks) {
            for to in CALLERS {
                is_json(&write_answer(to, &answer, &REPLY));
            }
        }
        if from == Dialect::Converse || from == Dialect::Completions {
            continue;
        }
        let whole = events(from, input, input.len().max(1));
        assert_eq!(events(from, input, 1), whole, "chunks change what is read");
        for to in CALLERS {
            let mut writer = StreamWriter::new(to, &REPLY);
            let mut out = Vec::new();
            read(from, input, input.len().max(1), &mut |event| writer.write(&event, &REPLY, &mut out));
            check(&out);
        }
    }
    let mut array = gemini::ArrayReader::new(1 << 16);
    array.push(input);
    while let Ok(Some(_)) = array.next_element() {}
});

fn events(from: Dialect, input: &[u8], chunk_bytes: usize) -> Vec<String> {
    let mut events: Vec<String> = Vec::new();
    read(from, input, chunk_bytes, &mut |event| {
        let ended = events.last().is_some_and(|event| event == "End" || event.starts_with("Failed"));
        assert!(!ended, "{event:?} after the end");
        events.push(format!("{event:?}"));
    });
    events
}

fn read(from: Dialect, input: &[u8], chunk_bytes: usize, sink: &mut impl FnMut(Event<'_>)) {
    let mut cutter = EventReader::new(1 << 20);
    let mut reader = StreamReader::new(from, &Quirks::COMPATIBLE);
    for chunk in input.chunks(chunk_bytes) {
        cutter.push(Bytes::copy_from_slice(chunk));
        while let Ok(Some(event)) = cutter.next_event() {
            if let Some(data) = event.data() {
                reader.read(&data, sink);
            }
        }
    }
    while let Some(event) = cutter.finish() {
        if let Some(data) = event.data() {
            reader.read(&data, sink);
        }
    }
    reader.finish(sink);
}

fn check(out: &[u8]) {
    let mut cutter = EventReader::new(usize::MAX);
    cutter.push(Bytes::copy_from_slice(out));
    while let Some(event) = cutter.finish() {
        match event.data() {
            Some(data) if &data[..] != b"[DONE]" => is_json(&data),
            _ => {}
        }
    }
}

fn is_json(body: &[u8]) {
    // A number that no float holds is kept as it was written.
    if let Err(error) = serde_json::from_slice::<serde_json::Value>(body) {
        assert!(error.to_string().contains("out of range"), "{error}: {}", String::from_utf8_lossy(body));
    }
}
