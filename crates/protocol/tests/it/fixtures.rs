//! The files below `tests/fixtures`: `<dialect>/<request | answer | stream>/<case>`.

use bytes::Bytes;
use protocol::canonical::{Dialect, Event};
use protocol::dialect::{Quirks, Reply, StreamReader, StreamWriter};
use protocol::sse::EventReader;
use std::fs;
use std::path::Path;

/// The dialects of callers and of providers.
pub const SPOKEN: [Dialect; 4] = [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Responses];

/// Those of providers.
pub const PROVIDERS: [Dialect; 5] =
    [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Responses, Dialect::Converse];

/// Those of callers.
pub const CALLERS: [Dialect; 5] =
    [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Responses, Dialect::Completions];

/// A caller in tests.
pub const REPLY: Reply<'static> =
    Reply { id: "gateway-1", model: Some("public"), created_s: 1_700_000_001, include_usage: true, echo: "" };

/// The quirks of the provider whose own dialect that is.
pub fn quirks(dialect: Dialect) -> Quirks {
    let name = match dialect {
        Dialect::Chat | Dialect::Completions | Dialect::Responses => "openai",
        Dialect::Messages => "anthropic",
        Dialect::Gemini => "gemini",
        Dialect::Converse => "bedrock",
    };
    Quirks::of(name).expect("the table has it")
}

/// All cases of a dialect: name and content.
pub fn cases(dialect: Dialect, kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(dialect.name()).join(kind);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has no cases", folder.display());
    cases
}

/// Reads a stream in those chunks and shows its events.
pub fn events(dialect: Dialect, chunks: &[&[u8]]) -> Vec<String> {
    let mut events = Vec::new();
    read(dialect, chunks, &mut |event| events.push(format!("{event:?}")));
    events
}

/// Translates a stream that comes in those chunks.
pub fn translated(from: Dialect, to: Dialect, chunks: &[&[u8]]) -> String {
    let mut writer = StreamWriter::new(to, &REPLY);
    let mut out = Vec::new();
    read(from, chunks, &mut |event| writer.write(&event, &REPLY, &mut out));
    String::from_utf8(out).expect("a stream is UTF-8")
}

fn read(dialect: Dialect, chunks: &[&[u8]], sink: &mut impl FnMut(Event<'_>)) {
    let mut cutter = EventReader::new(1 << 20);
    let mut reader = StreamReader::new(dialect, &quirks(dialect));
    for chunk in chunks {
        cutter.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = cutter.next_event().unwrap() {
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
