//! The table of providers: what each says of its usage, as recorded, and the page that lists them all.

use domain::usage::{Meter, Usage};
use protocol::canonical::{Dialect, Event, Reported};
use protocol::dialect::{StreamReader, read_answer};
use protocol::openai::{self, Endpoint, StreamObserver};
use protocol::provider::{Profile, TABLE};
use std::fmt::Write;
use std::path::Path;

/// A usage by its meters.
fn usage(counts: &[(Meter, u64)]) -> Reported {
    let mut usage = Usage::default();
    counts.iter().for_each(|(meter, count)| usage[*meter] = *count);
    Reported::Usage(usage)
}

/// An answer in chat: as it passes, and as it is translated.
#[track_caller]
fn whole(provider: &str, body: &str, expected: &[(Meter, u64)]) {
    let quirks = Profile::of(provider).expect("a provider").quirks;
    let expected = usage(expected);
    let read = openai::Answer::read_as(Endpoint::Chat, body.as_bytes(), quirks.reasoning_apart);
    let Ok(openai::Answer::Complete(completion)) = read else { panic!("{provider}: no answer: {body}") };
    assert_eq!(completion.usage, expected, "{provider}, as it passes: {body}");
    let answer = read_answer(Dialect::Chat, body.as_bytes(), &quirks).expect("an answer");
    assert_eq!(answer.usage, expected, "{provider}, translated: {body}");
}

/// The last events of a stream in chat, likewise.
#[track_caller]
fn streamed(provider: &str, events: &[&str], expected: &[(Meter, u64)]) {
    let quirks = Profile::of(provider).expect("a provider").quirks;
    let expected = usage(expected);
    let mut observer = StreamObserver::new(Endpoint::Chat).with_reasoning_apart(quirks.reasoning_apart);
    let mut reader = StreamReader::new(Dialect::Chat, &quirks);
    let mut last = Reported::Missing;
    for event in events {
        observer.observe(event.as_bytes(), &mut |_| {});
        reader.read(event.as_bytes(), &mut |event| {
            if let Event::Usage(usage) = event {
                last = usage;
            }
        });
    }
    assert_eq!(observer.usage(), expected, "{provider}, as it passes");
    assert_eq!(last, expected, "{provider}, translated");
}

fn chat(usage: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],{usage}}}"#
    )
}

const FINISHED: &str =
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}],"usage":null}"#;

#[test]
fn u_26_usage_of_every_provider_that_speaks_chat() {
    use Meter::{CacheWrite5m, CachedInput, Input, Output, Reasoning};
    let check = |provider: &str, counts: &str, expected: &[(Meter, u64)]| {
        whole(provider, &chat(&format!("\"usage\":{{{counts}}}")), expected);
        let last = format!(r#"{{"id":"c","choices":[],"usage":{{{counts}}}}}"#);
        streamed(provider, &[FINISHED, &last], expected);
    };
    check(
        "openai",
        r#""prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,"prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":256,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}"#,
        &[(Input, 86), (CachedInput, 1920), (Output, 44), (Reasoning, 256)],
    );
    check(
        "azure",
        r#""completion_tokens":7,"prompt_tokens":21,"total_tokens":28,"completion_tokens_details":{"reasoning_tokens":0},"prompt_tokens_details":{"cached_tokens":0}"#,
        &[(Input, 21), (Output, 7)],
    );
    check(
        "deepseek",
        r#""prompt_tokens":6040,"completion_tokens":150,"total_tokens":6190,"prompt_tokens_details":{"cached_tokens":5000},"completion_tokens_details":{"reasoning_tokens":90},"prompt_cache_hit_tokens":5000,"prompt_cache_miss_tokens":1040"#,
        &[(Input, 1040), (CachedInput, 5000), (Output, 60), (Reasoning, 90)],
    );
    check(
        "qwen",
        r#""prompt_tokens":24,"completion_tokens":1355,"total_tokens":1379,"completion_tokens_details":{"reasoning_tokens":1084,"text_tokens":271},"prompt_tokens_details":{"text_tokens":24,"cached_tokens":0}"#,
        &[(Input, 24), (Output, 271), (Reasoning, 1084)],
    );
    check(
        "dashscope",
        r#""prompt_tokens":3019,"completion_tokens":104,"total_tokens":3123,"prompt_tokens_details":{"cached_tokens":2048,"cache_creation_input_tokens":512,"cache_type":"ephemeral"}"#,
        &[(Input, 459), (CachedInput, 2048), (CacheWrite5m, 512), (Output, 104)],
    );
    check(
        "qianfan",
        r#""prompt_tokens":12,"completion_tokens":40,"total_tokens":52,"prompt_tokens_details":{"search_tokens":0,"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":30}"#,
        &[(Input, 8), (CachedInput, 4), (Output, 10), (Reasoning, 30)],
    );
    check(
        "kimi",
        r#""prompt_tokens":6040,"completion_tokens":150,"total_tokens":6190,"cached_tokens":5000"#,
        &[(Input, 1040), (CachedInput, 5000), (Output, 150)],
    );
    check(
        "glm",
        r#""prompt_tokens":13,"completion_tokens":239,"total_tokens":252,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":200}"#,
        &[(Input, 9), (CachedInput, 4), (Output, 39), (Reasoning, 200)],
    );
    check(
        "mistral",
        r#""prompt_tokens":60,"total_tokens":85,"completion_tokens":25,"prompt_audio_seconds":null,"num_cached_tokens":16,"prompt_token_details":{"cached_tokens":16}"#,
        &[(Input, 44), (CachedInput, 16), (Output, 25)],
    );
    check(
        "groq",
        r#""queue_time":0.06,"prompt_tokens":17,"prompt_time":0.004,"completion_tokens":1107,"completion_time":2.2,"total_tokens":1124,"total_time":2.3,"completion_tokens_details":{"reasoning_tokens":807}"#,
        &[(Input, 17), (Output, 300), (Reasoning, 807)],
    );
    // Reasoning beside the completion, and inside, as xAI's total says.
    check(
        "xai",
        r#""prompt_tokens":12,"completion_tokens":1,"total_tokens":303,"prompt_tokens_details":{"text_tokens":12,"audio_tokens":0,"image_tokens":0,"cached_tokens":11},"completion_tokens_details":{"reasoning_tokens":290,"audio_tokens":0},"num_sources_used":0,"cost_in_usd_ticks":1511500"#,
        &[(Input, 1), (CachedInput, 11), (Output, 1), (Reasoning, 290)],
    );
    // What a gateway in front of xAI passes on is read by the total alone.
    check(
        "generic",
        r#""prompt_tokens":12,"completion_tokens":1,"total_tokens":303,"completion_tokens_details":{"reasoning_tokens":290}"#,
        &[(Input, 12), (Output, 1), (Reasoning, 290)],
    );
    check(
        "openrouter",
        r#""prompt_tokens":194,"completion_tokens":90,"total_tokens":284,"cost":0.00095,"is_byok":false,"cost_details":{"upstream_inference_cost":null},"prompt_tokens_details":{"cached_tokens":100,"cache_write_tokens":40,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":60}"#,
        &[(Input, 54), (CachedInput, 100), (CacheWrite5m, 40), (Output, 30), (Reasoning, 60)],
    );
    // The rest of the total is what Gemini thought.
    check(
        "gemini",
        r#""prompt_tokens":10,"completion_tokens":25,"total_tokens":535"#,
        &[(Input, 10), (Output, 25), (Reasoning, 500)],
    );
    check("ollama", r#""prompt_tokens":26,"completion_tokens":298,"total_tokens":324"#, &[(Input, 26), (Output, 298)]);
    check(
        "vllm",
        r#""prompt_tokens":8,"total_tokens":24,"completion_tokens":16,"prompt_tokens_details":{"cached_tokens":4}"#,
        &[(Input, 4), (CachedInput, 4), (Output, 16)],
    );
    check(
        "vllm",
        r#""prompt_tokens":8,"total_tokens":24,"completion_tokens":16,"prompt_tokens_details":null"#,
        &[(Input, 8), (Output, 16)],
    );
    check(
        "llamacpp",
        r#""completion_tokens":16,"prompt_tokens":49,"total_tokens":65,"prompt_tokens_details":{"cached_tokens":39}},"timings":{"cache_n":39,"prompt_n":10,"prompt_ms":30.9,"predicted_n":16"#,
        &[(Input, 10), (CachedInput, 39), (Output, 16)],
    );
}

#[test]
fn u_26_usage_that_stands_elsewhere_or_in_every_event() {
    use Meter::{CachedInput, Input, Output, Reasoning};
    // Groq: in two places, with the same numbers.
    let counts = r#"{"queue_time":0.1,"prompt_tokens":17,"completion_tokens":20,"total_tokens":37}"#;
    let groq = format!(
        r#"{{"id":"c","choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],"x_groq":{{"id":"req_1","usage":{counts}}}}}"#
    );
    streamed("groq", &[&groq], &[(Input, 17), (Output, 20)]);
    let both = format!(r#"{{"id":"c","choices":[],"usage":{counts},"x_groq":{{"id":"req_1","usage":{counts}}}}}"#);
    streamed("groq", &[&groq, &both], &[(Input, 17), (Output, 20)]);
    // Kimi: in the choice.
    let kimi = r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":19,"completion_tokens":21,"total_tokens":40,"cached_tokens":10}}]}"#;
    streamed("moonshot", &[kimi], &[(Input, 9), (CachedInput, 10), (Output, 21)]);
    // xAI: in every event, each with all before it.
    let xai = |completion: u64, reasoning: u64| {
        let total = 12 + completion + reasoning;
        format!(
            r#"{{"id":"c","choices":[{{"index":0,"delta":{{"content":"x"}}}}],"usage":{{"prompt_tokens":12,"completion_tokens":{completion},"total_tokens":{total},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}}}}}"#
        )
    };
    streamed("xai", &[&xai(0, 100), &xai(1, 290)], &[(Input, 12), (Output, 1), (Reasoning, 290)]);
    // Mistral: with the end of the answer.
    let mistral = r#"{"id":"c","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":15,"total_tokens":23,"completion_tokens":8}}"#;
    streamed("mistral", &[mistral], &[(Input, 15), (Output, 8)]);
    // Azure: its first event has no choices, and no usage either.
    let first = r#"{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}]}"#;
    let last = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}"#;
    streamed("azure", &[first, FINISHED, last], &[(Input, 9), (Output, 4)]);
    // vLLM with continuous_usage_stats.
    let vllm = |completion: u64| {
        format!(
            r#"{{"id":"c","choices":[{{"index":0,"delta":{{"content":"x"}}}}],"usage":{{"prompt_tokens":8,"total_tokens":{},"completion_tokens":{completion}}}}}"#,
            8 + completion
        )
    };
    streamed("vllm", &[&vllm(1), &vllm(2), &vllm(3)], &[(Input, 8), (Output, 3)]);
}

/// The page is written anew with `UPDATE_PROVIDERS=1`.
#[test]
fn the_page_of_providers_lists_the_table() {
    const BEGIN: &str = "<!-- table of providers -->\n";
    const END: &str = "<!-- end of the table -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = page.split_once(BEGIN).expect("the table has a beginning");
    let (_, after) = rest.split_once(END).expect("the table has an end");
    let expected = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("UPDATE_PROVIDERS").is_some() {
        std::fs::write(&path, &expected).expect("the page can be written");
    }
    assert!(
        page == expected || std::env::var_os("UPDATE_PROVIDERS").is_some(),
        "UPDATE_PROVIDERS=1 writes docs/providers.md anew"
    );
}

fn table() -> String {
    let mut table = "\n| `provider` | address | dialects | credential | variable |\n|---|---|---|---|---|\n".to_owned();
    for row in TABLE {
        let names: Vec<_> = row.names().map(|name| format!("`{name}`")).collect();
        let url = row.base_url.map_or("to be given".to_owned(), |url| format!("`{url}`"));
        let spoken = |dialect: Dialect| match row.base_url_of(dialect) {
            Some(other) if row.base_url != Some(other) => format!("{} at `{other}`", dialect.name()),
            _ => dialect.name().to_owned(),
        };
        let dialects: Vec<_> = row.dialects().map(spoken).collect();
        let variable = row.variable.map_or(String::new(), |variable| format!("`{variable}`"));
        writeln!(
            table,
            "| {} | {url} | {} | {} | {variable} |",
            names.join(", "),
            dialects.join(", "),
            row.auth.title()
        )
        .expect("a text takes what is written");
    }
    table.push('\n');
    table
}
