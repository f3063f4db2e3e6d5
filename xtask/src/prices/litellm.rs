//! LiteLLM's price file, read into our terms.
//!
//! One principle decides every doubt: a price that we do not know completely is not a price, and its model is
//! left out until an operator prices it. So a field with money in it that no table below names leaves its model
//! out, instead of being overlooked.

use super::decimal::Decimal;
use anyhow::{Context, Result};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A model with a price.
#[derive(Debug)]
pub struct Model {
    pub provider: String,
    pub model: String,
    pub mode: String,
    pub standard: Plan,
    pub service_tiers: BTreeMap<&'static str, Plan>,
    pub input_tokens_max: Option<u64>,
    pub output_tokens_max: Option<u64>,
    /// What it is said not to do.
    pub lacks: Vec<&'static str>,
}

/// Rates, and what they become above prompt sizes.
#[derive(Debug, Default)]
pub struct Plan {
    pub rates: Rates,
    pub tiers: Tiers,
}

pub type Rates = BTreeMap<Rate, Decimal>;
pub type Tiers = BTreeMap<u64, Rates>;

/// The rates of a price sheet, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rate {
    Input,
    CachedInput,
    CacheWrite5m,
    CacheWrite1h,
    InputAudio,
    InputImage,
    Output,
    Reasoning,
    OutputAudio,
    OutputImage,
    Image,
    Request,
    Second,
    Character,
    WebSearch,
    CodeExecution,
    FileSearch,
}

/// Why a model is not in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    NotAModel,
    NoMode,
    Malformed,
    NoMeter,
    NoRate,
    OnlyZeros,
    HalfPriced,
    Implausible,
    Duplicate,
}

/// What became of the source.
#[derive(Debug, Default)]
pub struct Conversion {
    /// Sorted by provider and model.
    pub models: Vec<Model>,
    pub left_out: Vec<(LeftOut, String)>,
    pub notes: Notes,
}

/// What in the book is not digit by digit what the source says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notes {
    pub dust_rounded: usize,
    pub places_rounded: usize,
    pub zeros_dropped: usize,
    pub service_tiers_completed: usize,
}

/// Entries of the file that are no models.
const NOT_MODELS: [&str; 2] = ["sample_spec", "fallback_generalizations"];

/// What the source calls a rate. Where several fields name one rate, the greatest counts.
const FIELDS: [(&str, Rate); 21] = [
    ("input_cost_per_token", Rate::Input),
    ("cache_read_input_token_cost", Rate::CachedInput),
    ("input_cost_per_token_cache_hit", Rate::CachedInput),
    ("cache_creation_input_token_cost", Rate::CacheWrite5m),
    ("cache_creation_input_token_cost_above_1hr", Rate::CacheWrite1h),
    ("input_cost_per_audio_token", Rate::InputAudio),
    ("input_cost_per_image_token", Rate::InputImage),
    ("output_cost_per_token", Rate::Output),
    ("output_cost_per_reasoning_token", Rate::Reasoning),
    ("output_cost_per_audio_token", Rate::OutputAudio),
    ("output_cost_per_image_token", Rate::OutputImage),
    ("output_cost_per_image", Rate::Image),
    ("input_cost_per_image", Rate::Image),
    ("input_cost_per_query", Rate::Request),
    ("input_cost_per_request", Rate::Request),
    ("input_cost_per_second", Rate::Second),
    ("output_cost_per_second", Rate::Second),
    ("input_cost_per_character", Rate::Character),
    ("output_cost_per_character", Rate::Character),
    ("code_interpreter_cost_per_session", Rate::CodeExecution),
    ("file_search_cost_per_1k_calls", Rate::FileSearch),
];

/// Endings that select a service tier, and what the providers call it.
const SERVICE_TIERS: [(&str, &str); 5] = [
    ("_priority", "priority"),
    ("_flex", "flex"),
    ("_batches", "batch"),
    ("_balanced", "balanced"),
    ("_ultrafast", "ultrafast"),
];

/// Money that the book leaves aside on purpose, without leaving out the model: any field that starts so.
const ASIDE: [&str; 10] = [
    // The same price in another unit.
    "input_dbu_cost_per_token",
    "output_dbu_cost_per_token",
    // A discount by time of day: we charge the price of the other hours.
    "off_peak_pricing",
    // Tokens that usage reports do not tell apart from the plain kind.
    "cache_creation_input_token_cost_above_12hr",
    "cache_creation_input_audio_token_cost",
    "cache_read_input_audio_token_cost",
    "cache_read_input_image_token_cost",
    "explicit_cache_read_input_token_cost",
    "input_cost_per_video_token",
    // A provider's tool that has no meter, billed only where a request names it.
    "google_maps_grounding_cost_per_query",
];

/// A special purpose, cheaper than the standard tier that stands beside it.
const ASIDE_ENDING: &str = "_decisions";

/// What the source calls an ability, and what we do. Only a plain no counts: that nothing is said of many abilities says
/// nothing.
const ABILITIES: [(&str, &str); 2] = [("supports_vision", "vision"), ("supports_function_calling", "tools")];

/// Modes whose requests consume a prompt and produce tokens: without both prices, half of it would be free.
const TOKEN_MODES: [&str; 4] = ["chat", "completion", "responses", "realtime"];

/// USD per million tokens beyond which a price is a mistake of unit: the dearest real one is 600.
const PER_MILLION_MAX: &str = "1000";

/// Providers that are one provider to us: the source's name or its beginning, and ours.
const PROVIDERS: [(&str, &str); 4] = [
    ("vertex_ai-*", "vertex_ai"),
    ("text-completion-openai", "openai"),
    ("text-completion-codestral", "codestral"),
    ("azure_text", "azure"),
];

/// Digits after the point that a price can carry, as in `domain::money`.
const PLACES_PER_MILLION: i32 = 9;
const PLACES_PER_UNIT: i32 = 15;

/// An entry of the file, its values still text: reading numbers as floats would lose what they say.
type Fields = BTreeMap<String, Box<RawValue>>;

/// Converts the whole file.
pub fn convert(json: &str) -> Result<Conversion> {
    let entries: BTreeMap<String, Fields> = serde_json::from_str(json).context("the source is no object of models")?;
    let mut conversion = Conversion::default();
    let mut models: BTreeMap<(String, String), Model> = BTreeMap::new();
    for (name, fields) in &entries {
        let mut notes = Notes::default();
        let left_out = match model(name, fields, &mut notes) {
            Err(reason) => reason,
            Ok(model) => match models.entry((model.provider.clone(), model.model.clone())) {
                Entry::Vacant(place) => {
                    place.insert(model);
                    conversion.notes.add(&notes);
                    continue;
                }
                Entry::Occupied(_) => LeftOut::Duplicate,
            },
        };
        conversion.left_out.push((left_out, name.clone()));
    }
    conversion.models = models.into_values().collect();
    Ok(conversion)
}

fn model(name: &str, fields: &Fields, notes: &mut Notes) -> Result<Model, LeftOut> {
    if NOT_MODELS.contains(&name) {
        return Err(LeftOut::NotAModel);
    }
    let text = |field: &str| serde_json::from_str::<String>(fields.get(field)?.get()).ok();
    let count = |field: &str| Decimal::parse(fields.get(field)?.get())?.whole().filter(|&count| count > 0);
    let provider = provider(&text("litellm_provider").ok_or(LeftOut::Malformed)?);
    let mode = text("mode").ok_or(LeftOut::NoMode)?;

    let mut sheet = Sheet::new(notes);
    sheet.read(fields, None)?;
    let Sheet { mut standard, mut service_tiers, saw_zero, .. } = sheet;
    price_once(&mut standard, &mut service_tiers);
    for plan in service_tiers.values_mut() {
        notes.service_tiers_completed += usize::from(complete_tiers(plan, &standard));
    }

    if standard.rates.is_empty() {
        return Err(if saw_zero { LeftOut::OnlyZeros } else { LeftOut::NoRate });
    }
    let has = |rate: Rate| standard.rates.contains_key(&rate);
    if TOKEN_MODES.contains(&mode.as_str()) && !(has(Rate::Input) && has(Rate::Output)) {
        return Err(LeftOut::HalfPriced);
    }
    let most = Decimal::parse(PER_MILLION_MAX).expect("the constant is a decimal");
    if standard.rates.iter().any(|(rate, amount)| rate.is_per_million() && *amount > most) {
        return Err(LeftOut::Implausible);
    }
    Ok(Model {
        model: name.strip_prefix(&format!("{provider}/")).unwrap_or(name).to_owned(),
        provider,
        mode,
        standard,
        service_tiers,
        input_tokens_max: count("max_input_tokens"),
        output_tokens_max: count("max_output_tokens"),
        lacks: ABILITIES
            .into_iter()
            .filter(|(field, _)| fields.get(*field).is_some_and(|value| value.get() == "false"))
            .map(|(_, ability)| ability)
            .collect(),
    })
}

fn provider(source: &str) -> String {
    let known = PROVIDERS.iter().find(|(pattern, _)| match pattern.strip_suffix('*') {
        Some(beginning) => source.starts_with(beginning),
        None => source == *pattern,
    });
    known.map_or(source, |(_, ours)| ours).to_owned()
}

/// Some models name a rate by tokens and beside it what that comes to by image, second or character.
/// A request must not pay both: the tokens are what is billed.
fn price_once(standard: &mut Plan, service_tiers: &mut BTreeMap<&'static str, Plan>) {
    let has = |rate: Rate| standard.rates.contains_key(&rate);
    let by_token = has(Rate::Input) || has(Rate::Output);
    let image_by_token = has(Rate::OutputImage);
    let keep = |rate: Rate| match rate {
        Rate::Second | Rate::Character => !by_token,
        Rate::Image => !image_by_token,
        _ => true,
    };
    for plan in std::iter::once(standard).chain(service_tiers.values_mut()) {
        plan.rates.retain(|&rate, _| keep(rate));
        for rates in plan.tiers.values_mut() {
            rates.retain(|&rate, _| keep(rate));
        }
        plan.tiers.retain(|_, rates| !rates.is_empty());
    }
    service_tiers.retain(|_, plan| !plan.rates.is_empty() || !plan.tiers.is_empty());
}

/// A service tier that says nothing of large prompts, where the standard price rises with them, costs the dearer
/// of both there: its own small-prompt price might be below what the provider takes.
fn complete_tiers(plan: &mut Plan, standard: &Plan) -> bool {
    if !plan.tiers.is_empty() || standard.tiers.is_empty() {
        return false;
    }
    let dearer =
        |(rate, amount): (&Rate, &Decimal)| (*rate, plan.rates.get(rate).map_or(*amount, |own| *own.max(amount)));
    plan.tiers = standard.tiers.iter().map(|(above, rates)| (*above, rates.iter().map(dearer).collect())).collect();
    true
}

/// A price while it is read.
struct Sheet<'a> {
    standard: Plan,
    service_tiers: BTreeMap<&'static str, Plan>,
    saw_zero: bool,
    notes: &'a mut Notes,
}

/// What a field of the source says about money.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    NoMoney,
    Aside,
    Rate { rate: Rate, above: Option<u64>, service_tier: Option<&'static str> },
    WebSearches,
    Ranges,
    NoMeter,
}

fn meaning(field: &str) -> Meaning {
    if !["cost", "pric"].iter().any(|money| field.contains(money)) {
        return Meaning::NoMoney;
    }
    if ASIDE.iter().any(|aside| field.starts_with(aside)) || field.ends_with(ASIDE_ENDING) {
        return Meaning::Aside;
    }
    match field {
        "search_context_cost_per_query" => return Meaning::WebSearches,
        "tiered_pricing" => return Meaning::Ranges,
        _ => {}
    }
    let (field, service_tier) = SERVICE_TIERS
        .iter()
        .find_map(|(ending, name)| Some((field.strip_suffix(ending)?, Some(*name))))
        .unwrap_or((field, None));
    let (field, above) = above_tokens(field).map_or((field, None), |(field, above)| (field, Some(above)));
    match FIELDS.iter().find(|(name, _)| *name == field) {
        Some(&(_, rate)) => Meaning::Rate { rate, above, service_tier },
        None => Meaning::NoMeter,
    }
}

/// Splits `…_above_200k_tokens` into the field and 200,000.
fn above_tokens(field: &str) -> Option<(&str, u64)> {
    let (field, thousands) = field.strip_suffix("k_tokens")?.rsplit_once("_above_")?;
    Some((field, thousands.parse::<u64>().ok()? * 1000))
}

impl<'a> Sheet<'a> {
    fn new(notes: &'a mut Notes) -> Self {
        Self { standard: Plan::default(), service_tiers: BTreeMap::new(), saw_zero: false, notes }
    }

    /// Reads the money in `fields`, all of which holds above the prompt size `range` where one is given.
    fn read(&mut self, fields: &Fields, range: Option<u64>) -> Result<(), LeftOut> {
        for (field, value) in fields {
            match meaning(field) {
                Meaning::NoMoney | Meaning::Aside => {}
                Meaning::Rate { rate, above, service_tier } => {
                    let amount = Decimal::parse(value.get()).ok_or(LeftOut::Malformed)?;
                    self.add(rate, above.or(range), service_tier, amount);
                }
                Meaning::WebSearches => {
                    let by_size: Fields = serde_json::from_str(value.get()).map_err(|_| LeftOut::Malformed)?;
                    for amount in by_size.values() {
                        let amount = Decimal::parse(amount.get()).ok_or(LeftOut::Malformed)?;
                        self.add(Rate::WebSearch, None, None, amount);
                    }
                }
                Meaning::Ranges => self.read_ranges(value)?,
                Meaning::NoMeter if Decimal::parse(value.get()).is_some_and(Decimal::is_zero) => {}
                Meaning::NoMeter => return Err(LeftOut::NoMeter),
            }
        }
        Ok(())
    }

    /// Prices by prompt size, each with `range: [from, to]`. Ranges of anything else have no place in a sheet.
    fn read_ranges(&mut self, value: &RawValue) -> Result<(), LeftOut> {
        let ranges: Vec<Fields> = serde_json::from_str(value.get()).map_err(|_| LeftOut::Malformed)?;
        for mut fields in ranges {
            let range = fields.remove("range").ok_or(LeftOut::NoMeter)?;
            let bounds: Vec<Box<RawValue>> = serde_json::from_str(range.get()).map_err(|_| LeftOut::Malformed)?;
            let from = bounds.first().and_then(|from| Decimal::parse(from.get())?.whole());
            let from = from.ok_or(LeftOut::Malformed)?;
            self.read(&fields, (from > 0).then_some(from))?;
        }
        Ok(())
    }

    /// Adds a rate. A zero is no price: what it would make free is priced as the broader rate it belongs to,
    /// because the source also writes zeros where it does not know.
    fn add(&mut self, rate: Rate, above: Option<u64>, service_tier: Option<&'static str>, amount: Decimal) {
        if amount.is_zero() {
            self.saw_zero = true;
            self.notes.zeros_dropped += 1;
            return;
        }
        let (amount, dusty) = amount.without_dust();
        let (amount, rounded) = rate.written(amount);
        self.notes.dust_rounded += usize::from(dusty);
        self.notes.places_rounded += usize::from(rounded);
        let plan = match service_tier {
            Some(name) => self.service_tiers.entry(name).or_default(),
            None => &mut self.standard,
        };
        let rates = match above {
            Some(above) => plan.tiers.entry(above).or_default(),
            None => &mut plan.rates,
        };
        rates.entry(rate).and_modify(|greatest| *greatest = amount.max(*greatest)).or_insert(amount);
    }
}

impl Notes {
    fn add(&mut self, more: &Self) {
        self.dust_rounded += more.dust_rounded;
        self.places_rounded += more.places_rounded;
        self.zeros_dropped += more.zeros_dropped;
        self.service_tiers_completed += more.service_tiers_completed;
    }
}

impl Rate {
    /// The field of a price sheet.
    pub fn field(self) -> &'static str {
        match self {
            Self::Input => "input_per_million",
            Self::CachedInput => "cached_input_per_million",
            Self::CacheWrite5m => "cache_write_5m_per_million",
            Self::CacheWrite1h => "cache_write_1h_per_million",
            Self::InputAudio => "input_audio_per_million",
            Self::InputImage => "input_image_per_million",
            Self::Output => "output_per_million",
            Self::Reasoning => "reasoning_per_million",
            Self::OutputAudio => "output_audio_per_million",
            Self::OutputImage => "output_image_per_million",
            Self::Image => "per_image",
            Self::Request => "per_request",
            Self::Second => "per_second",
            Self::Character => "per_character",
            Self::WebSearch => "per_web_search",
            Self::CodeExecution => "per_code_execution",
            Self::FileSearch => "per_file_search",
        }
    }

    fn is_per_million(self) -> bool {
        self.field().ends_with("_per_million")
    }

    /// The source's amount in the unit of the sheet, and whether it had to be rounded to fit.
    fn written(self, amount: Decimal) -> (Decimal, bool) {
        match self {
            Self::FileSearch => amount.shifted(-3).within(PLACES_PER_UNIT),
            _ if self.is_per_million() => amount.shifted(6).within(PLACES_PER_MILLION),
            _ => amount.within(PLACES_PER_UNIT),
        }
    }
}

impl LeftOut {
    pub fn explanation(self) -> &'static str {
        match self {
            Self::NotAModel => "no model (notes of the source)",
            Self::NoMode => "no mode: size classes, not models",
            Self::Malformed => "an amount is negative or no number",
            Self::NoMeter => "billed by something that has no meter (pixels, pages, resolution, citations ...)",
            Self::NoRate => "no price at all",
            Self::OnlyZeros => "only zeros: free, or not known to the source; an operator decides",
            Self::HalfPriced => "consumes and produces tokens, but only one side or neither has a price",
            Self::Implausible => "a token price that can only be a mistake of unit",
            Self::Duplicate => "the same provider and model again",
        }
    }
}
