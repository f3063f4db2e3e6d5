//! What translating costs, in microseconds: a chat request of 4 kB with its answer, and a piece of a stream.
//!
//! `cargo run -p protocol --example translation_cost --profile perf`

use protocol::canonical::Dialect;
use protocol::dialect::{
    Quirks, Reply, StreamReader, StreamWriter, Target, read_answer, read_request, write_answer, write_request,
};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 20_000;
const REPLY: Reply<'static> =
    Reply { id: "gateway-1", model: Some("public"), created_s: 1_700_000_000, include_usage: true, echo: "" };

fn main() {
    let said = "The quick brown fox jumps over the lazy dog, and says \\\"so what?\\\"\\n".repeat(20);
    let tool = r#"{"type":"function","function":{"name":"weather","description":"Weather of a city.","parameters":{"type":"object","properties":{"city":{"type":"string","description":"Its name."},"days":{"type":"integer"}},"required":["city"]}}}"#;
    let request = format!(
        r#"{{"model":"m","messages":[{{"role":"system","content":"{said}"}},{{"role":"user","content":"Hi."}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"call_1","type":"function","function":{{"name":"weather","arguments":"{{\"city\":\"Paris\"}}"}}}}]}},{{"role":"tool","tool_call_id":"call_1","content":"{said}"}},{{"role":"user","content":"And now?"}}],"tools":[{tool},{tool}],"max_tokens":500,"temperature":0.5}}"#
    );
    let answer = format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"c","content":[{{"type":"text","text":"{said}"}},{{"type":"tool_use","id":"toolu_1","name":"weather","input":{{"city":"Rome"}}}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{{"input_tokens":900,"cache_read_input_tokens":0,"output_tokens":350}}}}"#
    );
    let quirks = Quirks::of("anthropic").expect("the table has it");
    println!("request of {} bytes, answer of {} bytes", request.len(), answer.len());
    for to in [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Responses, Dialect::Converse] {
        let cost = measured(|| {
            let read = read_request(Dialect::Chat, black_box(request.as_bytes())).expect("it is sound");
            black_box(write_request(to, &read, &Target::new("upstream", &quirks)).expect("it has counterparts"));
        });
        println!("request chat to {:<10} {cost:7.2} us", to.name());
    }
    for to in [Dialect::Chat, Dialect::Gemini, Dialect::Responses] {
        let cost = measured(|| {
            let read = read_answer(Dialect::Messages, black_box(answer.as_bytes()), &quirks).expect("it is sound");
            black_box(write_answer(to, &read, &REPLY));
        });
        println!("answer messages to {:<10} {cost:7.2} us", to.name());
    }
    let pieces = [
        (
            Dialect::Chat,
            r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" fox"},"finish_reason":null}],"usage":null}"#,
        ),
        (
            Dialect::Messages,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" fox jumps"}}"#,
        ),
        (
            Dialect::Gemini,
            r#"{"candidates":[{"content":{"parts":[{"text":" fox jumps over"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":7,"totalTokenCount":16},"modelVersion":"g","responseId":"r1"}"#,
        ),
        (
            Dialect::Responses,
            r#"{"type":"response.output_text.delta","sequence_number":11,"item_id":"msg_1","output_index":0,"content_index":0,"delta":" fox","logprobs":[],"obfuscation":"a8f"}"#,
        ),
    ];
    let begin = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    for (from, piece) in pieces {
        for to in [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Responses] {
            let mut reader = StreamReader::new(from, &quirks);
            let mut writer = StreamWriter::new(to, &REPLY);
            let mut out = Vec::with_capacity(4096);
            if from == Dialect::Messages {
                reader.read(begin.as_bytes(), &mut |event| writer.write(&event, &REPLY, &mut out));
            }
            let cost = measured(|| {
                out.clear();
                reader.read(black_box(piece.as_bytes()), &mut |event| writer.write(&event, &REPLY, &mut out));
                black_box(&out);
            });
            println!("piece {} to {:<10} {cost:7.2} us", from.name(), to.name());
        }
    }
}

/// Microseconds of one round: the best of five measurements, because other work only ever adds.
fn measured(mut work: impl FnMut()) -> f64 {
    let run = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
    };
    (0..5).map(|_| run(&mut work)).fold(f64::INFINITY, f64::min)
}
