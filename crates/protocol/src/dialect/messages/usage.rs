//! Usage as Anthropic counts it: the prompt without what a cache gave or took.

use crate::canonical::Reported;
use crate::json::tree::{Node, Value};
use crate::json::write::Object;
use domain::usage::{COUNT_MAX, Meter, Usage};

/// What is known so far. A stream tells it in two events, of which the later one wins key by key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
    web_searches: Option<u64>,
    /// What earlier passes of the same request took, which the fields above leave out.
    compaction: Option<(u64, u64)>,
    nonsense: bool,
}

impl Counts {
    /// Takes over what a `usage` says.
    pub(super) fn read(&mut self, usage: &Node<'_>) {
        let mut take = |place: &mut Option<u64>, node: Option<&Node<'_>>| match node.map(|node| (node, node.count())) {
            Some((_, Some(count))) if count <= COUNT_MAX => *place = Some(count),
            Some(_) => self.nonsense = true,
            None => {}
        };
        take(&mut self.input, usage.get("input_tokens"));
        take(&mut self.cache_read, usage.get("cache_read_input_tokens"));
        take(&mut self.cache_write, usage.get("cache_creation_input_tokens"));
        take(&mut self.output, usage.get("output_tokens"));
        if let Some(split) = usage.get("cache_creation") {
            take(&mut self.cache_write_5m, split.get("ephemeral_5m_input_tokens"));
            take(&mut self.cache_write_1h, split.get("ephemeral_1h_input_tokens"));
        }
        if let Some(details) = usage.get("output_tokens_details") {
            take(&mut self.thinking, details.get("thinking_tokens"));
        }
        if let Some(tools) = usage.get("server_tool_use") {
            take(&mut self.web_searches, tools.get("web_search_requests"));
        }
        let passes = usage.get("iterations").map(Node::elements).unwrap_or_default();
        let compactions = passes.iter().filter(|pass| pass.text_of("type").as_deref() == Some("compaction"));
        let sum = compactions.fold(None, |sum: Option<(u64, u64)>, pass| {
            let (input, output) = sum.unwrap_or_default();
            let count = |name| pass.count_of(name).unwrap_or(0).min(COUNT_MAX);
            Some((input.saturating_add(count("input_tokens")), output.saturating_add(count("output_tokens"))))
        });
        self.compaction = sum.or(self.compaction);
        self.nonsense |= !matches!(usage.value, Value::Object(_));
    }

    /// In the ledger's form.
    pub(super) fn reported(&self) -> Reported {
        if self.nonsense {
            return Reported::Nonsense;
        }
        let known = [self.input, self.cache_read, self.cache_write, self.output];
        if known.iter().all(Option::is_none) {
            return Reported::Missing;
        }
        let count = |count: Option<u64>| count.unwrap_or(0);
        let (more_input, more_output) = self.compaction.unwrap_or_default();
        let mut usage = Usage::default();
        usage[Meter::Input] = (count(self.input) + more_input).min(COUNT_MAX);
        usage[Meter::CachedInput] = count(self.cache_read);
        // Where the split is absent or does not add up, what is missing of the sum lives five minutes.
        let (five, hour) = (count(self.cache_write_5m), count(self.cache_write_1h));
        usage[Meter::CacheWrite1h] = hour;
        usage[Meter::CacheWrite5m] = five.max(count(self.cache_write).saturating_sub(hour));
        let output = (count(self.output) + more_output).min(COUNT_MAX);
        let thinking = count(self.thinking).min(output);
        usage[Meter::Reasoning] = thinking;
        usage[Meter::Output] = output - thinking;
        usage[Meter::WebSearch] = count(self.web_searches);
        let fits =
            count(self.thinking) <= output && (self.cache_write.is_none() || five + hour <= count(self.cache_write));
        if fits { Reported::Usage(usage) } else { Reported::Clamped(usage) }
    }
}

/// Writes the members of a `usage`, or of an event's part of one. What nobody knows is zero: the dialect has no other
/// word for it.
pub(super) fn write_counts(object: &mut Object<'_>, usage: &Usage) {
    let cached = usage[Meter::CachedInput];
    let (five, hour) = (usage[Meter::CacheWrite5m], usage[Meter::CacheWrite1h]);
    object.number("input_tokens", usage.input_tokens() - cached - five - hour);
    object.number("cache_creation_input_tokens", five + hour);
    object.number("cache_read_input_tokens", cached);
    object.number("output_tokens", usage.output_tokens());
    if usage[Meter::Reasoning] > 0 {
        object.object("output_tokens_details").number("thinking_tokens", usage[Meter::Reasoning]);
    }
    match usage[Meter::WebSearch] {
        0 => object.raw("server_tool_use", "null"),
        searches => {
            let mut tools = object.object("server_tool_use");
            tools.number("web_search_requests", searches);
            tools.number("web_fetch_requests", 0);
        }
    }
}

/// Writes the whole `usage` of an answer.
pub(super) fn write_usage(object: &mut Object<'_>, usage: &Usage, tier: Option<&str>) {
    let mut object = object.object("usage");
    write_counts(&mut object, usage);
    {
        let mut split = object.object("cache_creation");
        split.number("ephemeral_5m_input_tokens", usage[Meter::CacheWrite5m]);
        split.number("ephemeral_1h_input_tokens", usage[Meter::CacheWrite1h]);
    }
    let tier = tier.map(|tier| if tier == "default" { "standard" } else { tier });
    object.text_or_null("service_tier", tier.filter(|tier| matches!(*tier, "standard" | "priority" | "batch")));
    object.raw("inference_geo", "null");
}
