//! Usage as Google counts it: the cache within the prompt, thinking beside the candidates.

use super::get;
use crate::canonical::Reported;
use crate::json::tree::Node;
use crate::json::write::Object;
use domain::usage::{COUNT_MAX, Meter, Usage};

/// Reads a `usageMetadata`. Searches are told elsewhere.
pub(super) fn read_usage(node: &Node<'_>, searches: u64) -> Reported {
    if !node.is_object() {
        return Reported::Nonsense;
    }
    let mut nonsense = false;
    let mut count = |name: &str| match get(node, name) {
        None => None,
        Some(node) => match node.count().filter(|count| *count <= COUNT_MAX) {
            Some(count) => Some(count),
            None => {
                nonsense = true;
                None
            }
        },
    };
    let prompt = count("promptTokenCount");
    let cached = count("cachedContentTokenCount").unwrap_or(0);
    let tools = count("toolUsePromptTokenCount").unwrap_or(0);
    // The live interface has another name for it.
    let candidates = count("candidatesTokenCount").or(count("responseTokenCount"));
    let thoughts = count("thoughtsTokenCount").unwrap_or(0);
    let total = count("totalTokenCount");
    if nonsense {
        return Reported::Nonsense;
    }
    let Some(prompt) = prompt.or_else(|| total.filter(|_| candidates.is_none())) else {
        return if candidates.is_none() { Reported::Missing } else { Reported::Nonsense };
    };
    let rest = total.map(|total| total.saturating_sub(prompt + tools + thoughts));
    let output = candidates.filter(|count| *count > 0).or(rest).unwrap_or(0);
    let mut usage = Usage::default();
    let mut clamped = false;
    let mut take = |whole: &mut u64, part: u64| {
        let taken = part.min(*whole);
        clamped |= taken < part;
        *whole -= taken;
        taken
    };
    let mut input = prompt;
    usage[Meter::CachedInput] = take(&mut input, cached);
    let of = |list: &str, modality: &str| {
        let list = get(node, list).map(Node::elements).unwrap_or_default();
        let counts = list.iter().filter(|entry| entry.text_of("modality").as_deref() == Some(modality));
        counts.filter_map(|entry| get(entry, "tokenCount")?.count()).fold(0, u64::saturating_add).min(COUNT_MAX)
    };
    let fresh = |modality: &str| of("promptTokensDetails", modality).saturating_sub(of("cacheTokensDetails", modality));
    usage[Meter::InputAudio] = fresh("AUDIO").min(input);
    input -= usage[Meter::InputAudio];
    usage[Meter::InputImage] = fresh("IMAGE").min(input);
    input -= usage[Meter::InputImage];
    usage[Meter::Input] = (input + tools).min(COUNT_MAX);
    let mut answer = output;
    usage[Meter::OutputAudio] = of("candidatesTokensDetails", "AUDIO").min(answer);
    answer -= usage[Meter::OutputAudio];
    usage[Meter::OutputImage] = of("candidatesTokensDetails", "IMAGE").min(answer);
    usage[Meter::Output] = answer - usage[Meter::OutputImage];
    usage[Meter::Reasoning] = thoughts;
    usage[Meter::WebSearch] = searches;
    let fits = total.is_none_or(|total| total == prompt + tools + output + thoughts);
    if clamped || !fits { Reported::Clamped(usage) } else { Reported::Usage(usage) }
}

/// How many searches a candidate's grounding names.
pub(super) fn searches(candidate: &Node<'_>) -> u64 {
    let grounding = get(candidate, "groundingMetadata");
    grounding.and_then(|grounding| get(grounding, "webSearchQueries")).map_or(0, |list| list.elements().len() as u64)
}

/// Writes the field `usageMetadata`.
pub(super) fn write_usage(object: &mut Object<'_>, reported: &Reported) {
    let Some(usage) = reported.usage() else { return };
    let mut object = object.object("usageMetadata");
    let (cached, thoughts) = (usage[Meter::CachedInput], usage[Meter::Reasoning]);
    object.number("promptTokenCount", usage.input_tokens());
    if cached > 0 {
        object.number("cachedContentTokenCount", cached);
    }
    object.number("candidatesTokenCount", usage.output_tokens() - thoughts);
    if thoughts > 0 {
        object.number("thoughtsTokenCount", thoughts);
    }
    object.number("totalTokenCount", usage.total_tokens());
}
