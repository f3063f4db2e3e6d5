//! Usage as chat answers have it.

use crate::canonical::Reported;
use crate::json::write::Object;
use domain::usage::{Meter, Usage};

/// Writes the field `usage`; the parts are within the wholes. Usage that nobody knows is left out.
pub(in super::super) fn write_usage(object: &mut Object<'_>, reported: &Reported) {
    let Some(usage) = reported.usage() else { return };
    let mut object = object.object("usage");
    object.number("prompt_tokens", usage.input_tokens());
    object.number("completion_tokens", usage.output_tokens());
    object.number("total_tokens", usage.total_tokens());
    {
        let mut details = object.object("prompt_tokens_details");
        details.number("cached_tokens", usage[Meter::CachedInput]);
        number_if(&mut details, "cache_write_tokens", usage[Meter::CacheWrite5m] + usage[Meter::CacheWrite1h]);
        number_if(&mut details, "cache_write_1h_tokens", usage[Meter::CacheWrite1h]);
        number_if(&mut details, "audio_tokens", usage[Meter::InputAudio]);
        number_if(&mut details, "image_tokens", usage[Meter::InputImage]);
    }
    {
        let mut details = object.object("completion_tokens_details");
        details.number("reasoning_tokens", usage[Meter::Reasoning]);
        number_if(&mut details, "audio_tokens", usage[Meter::OutputAudio]);
        number_if(&mut details, "image_tokens", usage[Meter::OutputImage]);
    }
    let tools = [
        ("web_search_requests", usage[Meter::WebSearch]),
        ("code_execution_requests", usage[Meter::CodeExecution]),
        ("file_search_requests", usage[Meter::FileSearch]),
    ];
    if tools.iter().any(|(_, count)| *count > 0) {
        // OpenRouter's field, with the provider's other tools beside.
        let mut object = object.object("server_tool_use");
        tools.into_iter().for_each(|(name, count)| number_if(&mut object, name, count));
    }
}

/// An event of chat that tells of the prompt's side of a usage, and of nothing else.
pub fn write_prompt_usage(usage: &Usage) -> Vec<u8> {
    let mut prompt = Usage::default();
    for meter in Meter::INPUT_TOKENS {
        prompt[meter] = usage[meter];
    }
    let mut out = b"data: ".to_vec();
    {
        let mut object = Object::open(&mut out);
        drop(object.array("choices"));
        write_usage(&mut object, &Reported::Usage(prompt));
    }
    out.extend_from_slice(b"\n\n");
    out
}

fn number_if(object: &mut Object<'_>, name: &str, count: u64) {
    if count > 0 {
        object.number(name, count);
    }
}
