//! Usage as Responses have it: as chat's, in other words.

use crate::canonical::Reported;
use crate::json::tree::Node;
use crate::json::write::Object;
use domain::usage::{COUNT_MAX, Meter, Usage};

/// Reads the `usage` of a response, and counts the tools that the provider ran.
pub(super) fn read_usage(response: &Node<'_>) -> Reported {
    let Some(node) = response.get("usage") else { return Reported::Missing };
    let count = |node: Option<&Node<'_>>| match node {
        None => Some(0),
        Some(node) => node.count().filter(|count| *count <= COUNT_MAX),
    };
    let part = |outer: &str, inner: &str| count(node.get(outer).and_then(|details| details.get(inner)));
    let read = || {
        let input = node.get("input_tokens")?.count().filter(|count| *count <= COUNT_MAX)?;
        let output = count(node.get("output_tokens"))?;
        let cached = part("input_tokens_details", "cached_tokens")?;
        let written = part("input_tokens_details", "cache_write_tokens")?;
        let reasoning = part("output_tokens_details", "reasoning_tokens")?;
        Some((input, output, cached, written, reasoning))
    };
    let Some((input, output, cached, written, reasoning)) = read() else { return Reported::Nonsense };
    let mut usage = Usage::default();
    usage[Meter::CachedInput] = cached.min(input);
    usage[Meter::CacheWrite5m] = written.min(input - usage[Meter::CachedInput]);
    usage[Meter::Input] = input - usage[Meter::CachedInput] - usage[Meter::CacheWrite5m];
    usage[Meter::Reasoning] = reasoning.min(output);
    usage[Meter::Output] = output - usage[Meter::Reasoning];
    for item in response.get("output").map(Node::elements).unwrap_or_default() {
        match item.text_of("type").as_deref() {
            Some("web_search_call") => usage[Meter::WebSearch] += 1,
            Some("code_interpreter_call") => usage[Meter::CodeExecution] += 1,
            Some("file_search_call") => usage[Meter::FileSearch] += 1,
            _ => {}
        }
    }
    let total = count(node.get("total_tokens")).unwrap_or(0);
    let fits = cached + written <= input && reasoning <= output && (total == 0 || total == input + output);
    if fits { Reported::Usage(usage) } else { Reported::Clamped(usage) }
}

/// Writes the field `usage`, `null` where nobody knows it.
pub(super) fn write_usage(object: &mut Object<'_>, reported: &Reported) {
    let Some(usage) = reported.usage() else { return object.raw("usage", "null") };
    let mut object = object.object("usage");
    object.number("input_tokens", usage.input_tokens());
    {
        let mut details = object.object("input_tokens_details");
        details.number("cached_tokens", usage[Meter::CachedInput]);
        details.number("cache_write_tokens", usage[Meter::CacheWrite5m] + usage[Meter::CacheWrite1h]);
    }
    object.number("output_tokens", usage.output_tokens());
    object.object("output_tokens_details").number("reasoning_tokens", usage[Meter::Reasoning]);
    object.number("total_tokens", usage.total_tokens());
}
