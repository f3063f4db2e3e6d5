//! What particular targets demand: the rules that trip translators.

use protocol::canonical::Dialect;
use protocol::dialect::{Quirks, Target, read_request, write_request};
use serde_json::Value;

/// A request as it is written for a target, and what it dropped.
fn written(from: Dialect, body: &str, to: Dialect, quirks: &Quirks) -> (Value, String) {
    let request = read_request(from, body.as_bytes()).unwrap_or_else(|refusal| panic!("{refusal}: {body}"));
    let written = write_request(to, &request, &Target::new("upstream", quirks)).unwrap();
    (serde_json::from_slice(&written.body).unwrap(), written.dropped.to_string())
}

fn chat(fields: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}]{fields}}}"#)
}

#[track_caller]
fn has(to: Dialect, quirks: &Quirks, fields: &str, pointer: &str, expected: Value, dropped: &str) {
    let (body, told) = written(Dialect::Chat, &chat(fields), to, quirks);
    assert_eq!(body.pointer(pointer).cloned().unwrap_or(Value::Null), expected, "{fields}: {body}");
    assert_eq!(told, dropped, "{fields}: {body}");
}

#[test]
fn thinking_in_the_words_of_each_provider() {
    let quirks = |name: &str| Quirks::of(name).unwrap();
    let high = r#","reasoning_effort":"high","max_tokens":50000"#;
    let check = |name: &str, to: Dialect, fields: &str, pointer: &str, expected: Value, dropped: &str| {
        has(to, &quirks(name), fields, pointer, expected, dropped);
    };
    check("openai", Dialect::Chat, high, "/reasoning_effort", "high".into(), "");
    check("deepseek", Dialect::Chat, high, "/thinking/type", "enabled".into(), "");
    check("zhipu", Dialect::Chat, r#","reasoning_effort":"none""#, "/thinking/type", "disabled".into(), "");
    check("qwen", Dialect::Chat, high, "/thinking_budget", 24_576.into(), "");
    check("qwen", Dialect::Chat, r#","enable_thinking":false"#, "/enable_thinking", false.into(), "");
    check("openrouter", Dialect::Chat, high, "/reasoning/effort", "high".into(), "");
    check("mistral", Dialect::Chat, r#","reasoning_effort":"low""#, "/reasoning_effort", "high".into(), "");
    check("mistral", Dialect::Chat, r#","reasoning_effort":"none""#, "/reasoning_effort", "none".into(), "");
    check("anthropic", Dialect::Messages, high, "/thinking/budget_tokens", 24_576.into(), "");
    check("gemini", Dialect::Gemini, high, "/generationConfig/thinkingConfig/thinkingBudget", 24_576.into(), "");
    check("openai", Dialect::Responses, high, "/reasoning/effort", "high".into(), "");
    let newest = Quirks { adaptive_thinking: true, sampling_refused: true, ..quirks("anthropic") };
    has(Dialect::Messages, &newest, high, "/output_config/effort", "high".into(), "");
    has(Dialect::Messages, &newest, high, "/thinking/type", "adaptive".into(), "");
    has(Dialect::Messages, &newest, r#","temperature":0.5"#, "/temperature", Value::Null, "temperature");
    let newest = Quirks { adaptive_thinking: true, ..quirks("gemini") };
    has(Dialect::Gemini, &newest, high, "/generationConfig/thinkingConfig/thinkingLevel", "HIGH".into(), "");
}

#[test]
fn anthropic_thinks_only_where_it_may() {
    let quirks = Quirks::of("anthropic").unwrap();
    let thinks = |fields: &str, budget: Value, dropped: &str| {
        has(Dialect::Messages, &quirks, fields, "/thinking/budget_tokens", budget, dropped);
    };
    thinks(r#","reasoning_effort":"high","max_tokens":2000"#, 1600.into(), "");
    thinks(r#","reasoning":{"max_tokens":4000},"max_tokens":2000"#, 1999.into(), "");
    thinks(r#","reasoning_effort":"high","max_tokens":1000"#, Value::Null, "thinking");
    thinks(
        r#","reasoning_effort":"low","max_tokens":9000,"temperature":0.2,"top_k":5"#,
        1800.into(),
        "temperature, top_k",
    );
    let tool = r#","tools":[{"type":"function","function":{"name":"f"}}],"max_tokens":9000,"reasoning_effort":"low""#;
    thinks(tool, 1800.into(), "");
    thinks(&format!(r#"{tool},"tool_choice":"required""#), Value::Null, "thinking");
    // A turn that called tools without sealed thinking goes on without it.
    let body = r#"{"model":"m","max_tokens":9000,"reasoning_effort":"low","messages":[{"role":"user","content":"x"},
        {"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c","content":"y"}]}"#;
    let (written, dropped) = written(Dialect::Chat, body, Dialect::Messages, &quirks);
    assert_eq!((written.get("thinking"), dropped.as_str()), (None, "thinking"));
    // The tool is declared, because it was called.
    assert_eq!(written.pointer("/tools/0/name").unwrap(), "f");
    assert_eq!(written.pointer("/tool_choice/type").unwrap(), "none");
}

#[test]
fn fields_are_called_and_left_out_as_each_provider_demands() {
    let check = |name: &str, fields: &str, pointer: &str, expected: Value, dropped: &str| {
        has(Dialect::Chat, &Quirks::of(name).unwrap(), fields, pointer, expected, dropped);
    };
    check("openai", r#","max_tokens":5"#, "/max_completion_tokens", 5.into(), "");
    check("vllm", r#","max_completion_tokens":5"#, "/max_tokens", 5.into(), "");
    check("mistral", r#","seed":7"#, "/random_seed", 7.into(), "");
    check("mistral", r#","stream":true"#, "/stream_options", Value::Null, "");
    check("openai", r#","stream":true"#, "/stream_options/include_usage", true.into(), "");
    check("groq", r#","n":2,"logit_bias":{"1":2}"#, "/n", Value::Null, "logit_bias, n");
    check("openai", r#","top_k":5"#, "/top_k", Value::Null, "top_k");
    check("vllm", r#","top_k":5"#, "/top_k", 5.into(), "");
    check("openai", r#","made_up":{"a": 0.10}"#, "/made_up/a", 0.10.into(), "");
    let tool = r#","tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required""#;
    check("mistral", tool, "/tool_choice", "required".into(), "");
    check(
        "mistral",
        r#","logprobs":true,"made_up":1,"safe_prompt":true,"user":"u""#,
        "/made_up",
        Value::Null,
        "logprobs, user, made_up",
    );
    check("ollama", tool, "/tool_choice", Value::Null, "tool_choice");
    let body = r#"{"model":"m","messages":[{"role":"developer","content":"be"},{"role":"user","content":"x"},
        {"role":"assistant","tool_calls":[{"id":"call_long_id","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"call_long_id","content":"y"}]}"#;
    let (written, _) = written(Dialect::Chat, body, Dialect::Chat, &Quirks::of("mistral").unwrap());
    assert_eq!(written.pointer("/messages/0/role").unwrap(), "system");
    let id = written.pointer("/messages/2/tool_calls/0/id").unwrap().as_str().unwrap();
    assert!(id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    assert_eq!(written.pointer("/messages/3/tool_call_id").unwrap(), id);
}

#[test]
fn what_would_change_the_answer_is_refused() {
    let refused = |body: &str, to: Dialect, message: &str| {
        let request = read_request(Dialect::Chat, body.as_bytes()).unwrap();
        let quirks = Quirks::of("anthropic").unwrap();
        let refusal = write_request(to, &request, &Target::new("upstream", &quirks)).unwrap_err();
        assert_eq!(refusal.message, message, "{body}");
    };
    let one = "n: this model's provider gives one answer to a request; ask several times";
    for to in [Dialect::Messages, Dialect::Responses, Dialect::Converse] {
        refused(&chat(r#","n":2"#), to, one);
    }
    let part = |part: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#);
    let audio = part(r#"{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}"#);
    refused(&audio, Dialect::Messages, "messages: this model's provider takes no audio");
    refused(&audio, Dialect::Converse, "messages: this model's provider takes no audio");
    let video = part(r#"{"type":"video_url","video_url":{"url":"https://example.com"}}"#);
    refused(
        &video,
        Dialect::Messages,
        "messages: a part of type \"video_url\" cannot be sent to this model's provider",
    );
    let stored = part(r#"{"type":"file","file":{"file_id":"file-1"}}"#);
    refused(&stored, Dialect::Gemini, "messages: a file stored with another provider cannot be sent to this one");
    let answer_first = r#"{"model":"m","messages":[{"role":"assistant","content":"x"},{"role":"user","content":"y"}]}"#;
    refused(answer_first, Dialect::Messages, "messages: the first must be the user's for this model's provider");
}

/// M-35: what two readers could take for different caps is one, and the target's cap wins over the caller's.
#[test]
fn m_35_one_cap_is_sent() {
    let request = chat(r#","max_tokens":5,"max_completion_tokens":9"#);
    let request = read_request(Dialect::Chat, request.as_bytes()).unwrap();
    assert_eq!(request.output_tokens_max, Some(9));
    let quirks = Quirks::OPENAI;
    let target = Target { output_tokens_max: Some(7), ..Target::new("upstream", &quirks) };
    for (to, pointer) in [
        (Dialect::Chat, "/max_completion_tokens"),
        (Dialect::Messages, "/max_tokens"),
        (Dialect::Gemini, "/generationConfig/maxOutputTokens"),
        (Dialect::Responses, "/max_output_tokens"),
        (Dialect::Converse, "/inferenceConfig/maxTokens"),
    ] {
        let written = write_request(to, &request, &target).unwrap();
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        assert_eq!(body.pointer(pointer).unwrap(), 7, "{}: {body}", to.name());
        assert!(!String::from_utf8(written.body).unwrap().contains(":9"), "{}", to.name());
    }
}

/// Thinking that one vendor sealed comes back sealed through every dialect that a caller may speak.
#[test]
fn seals_survive_a_foreign_dialect() {
    use crate::fixtures::{REPLY, quirks};
    use protocol::dialect::{read_answer, write_answer};
    let answer = br#"{"id":"msg_1","model":"c","content":[{"type":"thinking","thinking":"Hm.","signature":"EqoB+/=="},
        {"type":"tool_use","id":"t1","name":"f","input":{}}],"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let answer = read_answer(Dialect::Messages, answer, &quirks(Dialect::Messages)).unwrap();
    for (caller, pointer, wrap) in [
        (
            Dialect::Chat,
            "/choices/0/message",
            r#"{"model":"m","messages":[{"role":"user","content":"x"},@,{"role":"tool","tool_call_id":"t1","content":"y"}]}"#,
        ),
        (
            Dialect::Messages,
            "/content",
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":@},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"y"}]}]}"#,
        ),
        (
            Dialect::Gemini,
            "/candidates/0/content",
            r#"{"contents":[{"role":"user","parts":[{"text":"x"}]},@,{"role":"user","parts":[{"functionResponse":{"id":"t1","name":"f","response":{}}}]}]}"#,
        ),
        (
            Dialect::Responses,
            "/output",
            r#"{"model":"m","input":[{"role":"user","content":"x"},@,{"type":"function_call_output","call_id":"t1","output":"y"}]}"#,
        ),
    ] {
        let told: Value = serde_json::from_slice(&write_answer(caller, &answer, &REPLY)).unwrap();
        let said = told.pointer(pointer).unwrap().to_string();
        let said = if caller == Dialect::Responses { &said[1..said.len() - 1] } else { &said };
        let (body, dropped) =
            written(caller, &wrap.replace('@', said), Dialect::Messages, &Quirks::of("anthropic").unwrap());
        assert_eq!(dropped, "", "{}: {body}", caller.name());
        let thought = body.pointer("/messages/1/content/0").unwrap();
        assert_eq!(
            (&thought["thinking"], &thought["signature"]),
            (&"Hm.".into(), &"EqoB+/==".into()),
            "{}",
            caller.name()
        );
    }
}
