//! The written form of a price.

use super::{Price, Table};
use crate::money::{MoneyError, Rate};
use crate::usage::Meter;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

/// A price as people write it: USD as decimal strings, per million tokens or per single unit.
///
/// The text form is a flat object; see [`RATE_FIELDS`] for the rates it can hold. Beside them it takes
/// `model_rate` with `completion_multiplier`, `tiers`, `service_tiers`, `lacks`, `max_input_tokens`,
/// `max_output_tokens` and `free`. Any other field is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceSheet {
    /// Rates of the standard service tier.
    pub rates: RateSheet,
    /// Rates above a prompt size, ascending.
    pub tiers: Vec<Tier>,
    /// Other service tiers by the provider's name for them.
    pub service_tiers: Vec<(String, RateSheet, Vec<Tier>)>,
    /// The relay form of a price: 1 is 2 USD per million prompt tokens.
    pub model_rate: Option<String>,
    /// How much dearer an answer token is than a prompt token, with [`PriceSheet::model_rate`] only.
    pub completion_multiplier: Option<String>,
    /// The most prompt tokens that the model takes.
    pub max_input_tokens: Option<u64>,
    /// The most answer tokens that the model gives.
    pub max_output_tokens: Option<u64>,
    /// What the model is known not to do.
    pub lacks: Lacks,
    /// The model costs nothing, on purpose. Without it, a sheet without rates is an error.
    pub free: bool,
}

/// What a model is known not to do. Of what nothing is said it may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// It takes no images.
    pub vision: bool,
    /// It calls no tools.
    pub tools: bool,
}

const LACKS_WANTED: &str = "a list of \"vision\" and \"tools\"";

impl Lacks {
    fn names(self) -> impl Iterator<Item = &'static str> {
        [("vision", self.vision), ("tools", self.tools)].into_iter().filter(|(_, lacks)| *lacks).map(|(name, _)| name)
    }
}

/// Rates by meter, as far as the sheet names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateSheet([Option<Rate>; Meter::COUNT]);

/// Rates that hold for the whole request once its prompt is larger than a threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Prompt tokens that must be exceeded.
    pub above_input_tokens: u64,
    /// What applies then; what it leaves out is as below the threshold.
    pub rates: RateSheet,
}

/// Why a sheet is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    /// A field that sheets do not have.
    #[error("unknown field {0:?} in a price; docs/providers.md lists those that there are")]
    UnknownField(String),
    /// A field of the wrong type.
    #[error("field {field:?} must be {wanted}")]
    WrongType {
        /// The field.
        field: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A field that is no amount.
    #[error("field {field:?}: {error}")]
    Amount {
        /// The field.
        field: String,
        /// What is wrong with it.
        error: MoneyError,
    },
    /// Fields that exclude each other or miss each other.
    #[error("{0}")]
    Conflict(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    PerMillion,
    PerUnit,
}

/// The fields that hold rates: name, meter, and whether the amount is for a million units or for one.
const RATE_FIELDS: [(&str, Meter, Scale); Meter::COUNT] = [
    ("input_per_million", Meter::Input, Scale::PerMillion),
    ("cached_input_per_million", Meter::CachedInput, Scale::PerMillion),
    ("cache_write_5m_per_million", Meter::CacheWrite5m, Scale::PerMillion),
    ("cache_write_1h_per_million", Meter::CacheWrite1h, Scale::PerMillion),
    ("input_audio_per_million", Meter::InputAudio, Scale::PerMillion),
    ("input_image_per_million", Meter::InputImage, Scale::PerMillion),
    ("output_per_million", Meter::Output, Scale::PerMillion),
    ("reasoning_per_million", Meter::Reasoning, Scale::PerMillion),
    ("output_audio_per_million", Meter::OutputAudio, Scale::PerMillion),
    ("output_image_per_million", Meter::OutputImage, Scale::PerMillion),
    ("per_image", Meter::Image, Scale::PerUnit),
    ("per_request", Meter::Request, Scale::PerUnit),
    ("per_second", Meter::Second, Scale::PerUnit),
    ("per_character", Meter::Character, Scale::PerUnit),
    ("per_web_search", Meter::WebSearch, Scale::PerUnit),
    ("per_code_execution", Meter::CodeExecution, Scale::PerUnit),
    ("per_file_search", Meter::FileSearch, Scale::PerUnit),
];

/// USD per million prompt tokens that `model_rate = 1` stands for.
const MODEL_RATE_USD_PER_MILLION: &str = "2";

/// Where a meter without a rate of its own takes it from. Meters that are absent cost nothing by themselves.
fn fallback(meter: Meter) -> Option<Meter> {
    match meter {
        Meter::CachedInput | Meter::CacheWrite5m | Meter::InputAudio | Meter::InputImage => Some(Meter::Input),
        Meter::CacheWrite1h => Some(Meter::CacheWrite5m),
        Meter::Reasoning | Meter::OutputAudio | Meter::OutputImage => Some(Meter::Output),
        _ => None,
    }
}

/// How much dearer an answer token is for a model whose sheet has only a rate: 1.33 in the GPT-3.5 series,
/// 2.0 in the GPT-4 series, otherwise 1.0.
fn default_multiplier(model: &str) -> &'static str {
    let name = model.rsplit('/').next().unwrap_or(model);
    if name.starts_with("gpt-3.5") {
        "1.33"
    } else if name.starts_with("gpt-4") {
        "2.0"
    } else {
        "1.0"
    }
}

impl RateSheet {
    /// The rate that the sheet names for a meter.
    pub fn get(&self, meter: Meter) -> Option<Rate> {
        self.0[meter as usize]
    }

    /// Names a rate.
    pub fn set(&mut self, meter: Meter, rate: Rate) {
        self.0[meter as usize] = Some(rate);
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// These rates, completed by `below`, completed by the fallbacks.
    fn complete(&self, below: Option<&super::Rates>) -> super::Rates {
        let mut rates = [Rate::ZERO; Meter::COUNT];
        // The order of `Meter::ALL` puts every fallback before the meters that lean on it.
        for meter in Meter::ALL {
            let own = self.get(meter);
            let broader = || match fallback(meter) {
                Some(broad) if below.is_none() || self.get(broad).is_some() => rates[broad as usize],
                _ => below.map_or(Rate::ZERO, |rates| rates[meter as usize]),
            };
            rates[meter as usize] = own.unwrap_or_else(broader);
        }
        rates
    }
}

impl PriceSheet {
    /// Reads one from an object.
    pub fn from_map(map: &Map<String, Value>) -> Result<Self, SheetError> {
        let mut sheet = Self::default();
        for (field, value) in map {
            match field.as_str() {
                "model_rate" => sheet.model_rate = Some(amount_text(field, value)?),
                "completion_multiplier" => sheet.completion_multiplier = Some(amount_text(field, value)?),
                "max_input_tokens" => sheet.max_input_tokens = Some(count(field, value)?),
                "max_output_tokens" => sheet.max_output_tokens = Some(count(field, value)?),
                "lacks" => sheet.lacks = lacks(field, value)?,
                "free" => sheet.free = value.as_bool().ok_or_else(|| wrong(field, "true or false"))?,
                "tiers" => sheet.tiers = tiers(value)?,
                "service_tiers" => sheet.service_tiers = service_tiers(value)?,
                _ => rate_field(&mut sheet.rates, field, value)?,
            }
        }
        Ok(sheet)
    }

    /// Fills in the multiplier that a model's series has by default, where the sheet has only a rate.
    #[must_use]
    pub fn with_default_multiplier(mut self, model: &str) -> Self {
        if self.model_rate.is_some() && self.completion_multiplier.is_none() {
            self.completion_multiplier = Some(default_multiplier(model).to_owned());
        }
        self
    }

    /// Makes the sheet ready for arithmetic.
    pub fn compile(&self) -> Result<Price, SheetError> {
        let rates = self.base_rates()?;
        if self.free != (rates.is_empty() && self.tiers.is_empty() && self.service_tiers.is_empty()) {
            return Err(SheetError::Conflict(
                "a price needs at least one rate, or `free = true` and none: a model is never free by omission",
            ));
        }
        let standard = table(&rates, &self.tiers, None)?;
        let service = self
            .service_tiers
            .iter()
            .map(|(name, rates, tiers)| Ok((name.clone(), table(rates, tiers, Some(&standard.base))?)))
            .collect::<Result<_, SheetError>>()?;
        Ok(Price {
            standard,
            service,
            input_tokens_max: self.max_input_tokens,
            // A price that was set before 0 was refused says nothing.
            output_tokens_max: self.max_output_tokens.filter(|&most| most > 0),
            lacks: self.lacks,
        })
    }

    /// [`PriceSheet::compile`] for a price that is about to count: rates that come to nothing are refused as well, because
    /// whoever has nothing could ask for such a model without end (M-34). So is a maximum of no answer tokens, at which a request
    /// would be held at nothing.
    pub fn compile_to_count(&self) -> Result<Price, SheetError> {
        if self.max_output_tokens == Some(0) {
            return Err(SheetError::Conflict("`max_output_tokens` is more than 0; leave it out where it is not known"));
        }
        let price = self.compile()?;
        if self.free || price.always_costs() {
            return Ok(price);
        }
        Err(SheetError::Conflict(
            "its rates come to nothing, on some tier at least: a model that costs nothing has `free = true` and no rates",
        ))
    }

    /// The rates, with the relay form turned into rates per million.
    fn base_rates(&self) -> Result<RateSheet, SheetError> {
        let mut rates = self.rates.clone();
        let Some(model_rate) = &self.model_rate else {
            if self.completion_multiplier.is_some() {
                return Err(SheetError::Conflict("`completion_multiplier` needs a `model_rate`"));
            }
            return Ok(rates);
        };
        if rates.get(Meter::Input).is_some() || rates.get(Meter::Output).is_some() {
            return Err(SheetError::Conflict(
                "`model_rate` and `input_per_million` / `output_per_million` are two forms of one price: give one",
            ));
        }
        let named = |field: &str| {
            let field = field.to_owned();
            move |error| SheetError::Amount { field, error }
        };
        let unit = Rate::per_million(MODEL_RATE_USD_PER_MILLION).expect("the constant is a decimal");
        let input = unit.times(model_rate).map_err(named("model_rate"))?;
        let multiplier = self.completion_multiplier.as_deref().unwrap_or("1");
        let output = input.times(multiplier).map_err(named("completion_multiplier"))?;
        rates.set(Meter::Input, input);
        rates.set(Meter::Output, output);
        Ok(rates)
    }
}

fn table(rates: &RateSheet, tiers: &[Tier], below: Option<&super::Rates>) -> Result<Table, SheetError> {
    if !tiers.is_sorted_by(|a, b| a.above_input_tokens < b.above_input_tokens) {
        return Err(SheetError::Conflict("`tiers` must ascend by `above_input_tokens`"));
    }
    let base = rates.complete(below);
    let mut tables = Vec::with_capacity(tiers.len());
    for tier in tiers {
        let below = tables.last().map_or(&base, |(_, rates)| rates);
        let rates = tier.rates.complete(Some(below));
        tables.push((tier.above_input_tokens, rates));
    }
    Ok(Table { base, tiers: tables })
}

fn rate_field(rates: &mut RateSheet, field: &str, value: &Value) -> Result<(), SheetError> {
    let &(_, meter, scale) = RATE_FIELDS
        .iter()
        .find(|(name, ..)| *name == field)
        .ok_or_else(|| SheetError::UnknownField(field.to_owned()))?;
    let text = amount_text(field, value)?;
    let rate = match scale {
        Scale::PerMillion => Rate::per_million(&text),
        Scale::PerUnit => Rate::per_unit(&text),
    };
    rates.set(meter, rate.map_err(|error| SheetError::Amount { field: field.to_owned(), error })?);
    Ok(())
}

fn tiers(value: &Value) -> Result<Vec<Tier>, SheetError> {
    let list = value.as_array().ok_or_else(|| wrong("tiers", "a list"))?;
    list.iter()
        .map(|item| {
            let map = item.as_object().ok_or_else(|| wrong("tiers", "a list of objects"))?;
            let mut rates = RateSheet::default();
            let mut above = None;
            for (field, value) in map {
                match field.as_str() {
                    "above_input_tokens" => above = Some(count(field, value)?),
                    _ => rate_field(&mut rates, field, value)?,
                }
            }
            let above_input_tokens = above.ok_or_else(|| wrong("above_input_tokens", "given in every tier"))?;
            Ok(Tier { above_input_tokens, rates })
        })
        .collect()
}

fn service_tiers(value: &Value) -> Result<Vec<(String, RateSheet, Vec<Tier>)>, SheetError> {
    let map = value.as_object().ok_or_else(|| wrong("service_tiers", "an object of tiers by name"))?;
    map.iter()
        .map(|(name, value)| {
            let fields = value.as_object().ok_or_else(|| wrong(name, "an object of rates"))?;
            let mut rates = RateSheet::default();
            let mut own_tiers = Vec::new();
            for (field, value) in fields {
                match field.as_str() {
                    "tiers" => own_tiers = tiers(value)?,
                    _ => rate_field(&mut rates, field, value)?,
                }
            }
            Ok((name.clone(), rates, own_tiers))
        })
        .collect()
}

/// Amounts are strings; whole numbers are taken too, because nothing can be lost in them. Floats are not.
fn amount_text(field: &str, value: &Value) -> Result<String, SheetError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_u64() => Ok(number.to_string()),
        _ => Err(wrong(field, "a decimal in quotes, such as \"2.50\"")),
    }
}

fn count(field: &str, value: &Value) -> Result<u64, SheetError> {
    value
        .as_u64()
        .filter(|&count| count <= crate::usage::COUNT_MAX)
        .ok_or_else(|| wrong(field, "a whole number of tokens"))
}

fn lacks(field: &str, value: &Value) -> Result<Lacks, SheetError> {
    let names = value.as_array().ok_or_else(|| wrong(field, LACKS_WANTED))?;
    names.iter().try_fold(Lacks::default(), |mut lacks, name| {
        match name.as_str() {
            Some("vision") => lacks.vision = true,
            Some("tools") => lacks.tools = true,
            _ => return Err(wrong(field, LACKS_WANTED)),
        }
        Ok(lacks)
    })
}

fn wrong(field: &str, wanted: &'static str) -> SheetError {
    SheetError::WrongType { field: field.to_owned(), wanted }
}

impl Serialize for PriceSheet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map::new();
        write_rates(&mut map, &self.rates);
        let mut optional = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        optional("model_rate", self.model_rate.clone().map(Value::from));
        optional("completion_multiplier", self.completion_multiplier.clone().map(Value::from));
        optional("max_input_tokens", self.max_input_tokens.map(Value::from));
        optional("max_output_tokens", self.max_output_tokens.map(Value::from));
        let lacks: Vec<_> = self.lacks.names().collect();
        optional("lacks", (!lacks.is_empty()).then(|| Value::from(lacks)));
        optional("free", self.free.then_some(Value::from(true)));
        optional("tiers", (!self.tiers.is_empty()).then(|| write_tiers(&self.tiers)));
        if !self.service_tiers.is_empty() {
            let by_name = self.service_tiers.iter().map(|(name, rates, tiers)| {
                let mut fields = Map::new();
                write_rates(&mut fields, rates);
                if !tiers.is_empty() {
                    fields.insert("tiers".to_owned(), write_tiers(tiers));
                }
                (name.clone(), Value::Object(fields))
            });
            map.insert("service_tiers".to_owned(), Value::Object(by_name.collect()));
        }
        map.serialize(serializer)
    }
}

fn write_rates(map: &mut Map<String, Value>, rates: &RateSheet) {
    for (field, meter, scale) in RATE_FIELDS {
        if let Some(rate) = rates.get(meter) {
            let text = match scale {
                Scale::PerMillion => rate.per_million_text(),
                Scale::PerUnit => rate.per_unit_text(),
            };
            map.insert(field.to_owned(), Value::from(text));
        }
    }
}

fn write_tiers(tiers: &[Tier]) -> Value {
    let write = |tier: &Tier| {
        let mut map = Map::new();
        map.insert("above_input_tokens".to_owned(), Value::from(tier.above_input_tokens));
        write_rates(&mut map, &tier.rates);
        Value::Object(map)
    };
    tiers.iter().map(write).collect()
}

impl<'de> Deserialize<'de> for PriceSheet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Map::deserialize(deserializer)?;
        Self::from_map(&map).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_34_a_stored_maximum_of_no_answer_says_nothing() {
        for (stored, most) in [("", None), (r#","max_output_tokens":0"#, None), (r#","max_output_tokens":1"#, Some(1))]
        {
            let sheet: PriceSheet = serde_json::from_str(&format!(r#"{{"input_per_million":"1"{stored}}}"#)).unwrap();
            assert_eq!(sheet.compile().unwrap().output_tokens_max, most, "{stored}");
        }
    }

    #[test]
    fn sheets_read_back_as_written() {
        let json = r#"{"input_per_million":"1.25","output_per_million":"10.00","per_web_search":"0.01",
            "max_input_tokens":1000000,"max_output_tokens":128000,"tiers":[{"above_input_tokens":200000,"input_per_million":"2.50"}],
            "service_tiers":{"flex":{"input_per_million":"0.625","tiers":[{"above_input_tokens":1,"input_per_million":"3"}]}}}"#;
        let sheet: PriceSheet = serde_json::from_str(json).unwrap();
        let written = serde_json::to_string(&sheet).unwrap();
        assert_eq!(serde_json::from_str::<PriceSheet>(&written).unwrap(), sheet);
    }

    #[test]
    fn m_34_a_sheet_that_prices_nothing_or_nonsense_is_refused() {
        let check = |json: &str, part: &str| {
            let error = match serde_json::from_str::<PriceSheet>(json) {
                Ok(sheet) => sheet.compile_to_count().expect_err(json).to_string(),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(part), "{json}: {error}");
        };
        check("{}", "never free by omission");
        check(r#"{"free":true,"input_per_million":"1"}"#, "never free by omission");
        check(r#"{"input_per_million":1.5}"#, "decimal in quotes");
        check(r#"{"input_per_million":"-1"}"#, "negative");
        check(r#"{"input_per_million":"NaN"}"#, "not a decimal");
        check(r#"{"input_per_million":"1e308"}"#, "not a decimal");
        check(r#"{"input_per_million":""}"#, "not a decimal");
        check(r#"{"inputs_per_million":"1"}"#, "unknown field");
        check(r#"{"completion_multiplier":"2"}"#, "needs a `model_rate`");
        check(r#"{"model_rate":"1","input_per_million":"1"}"#, "two forms of one price");
        check(r#"{"input_per_million":"1","max_output_tokens":0}"#, "more than 0");
        check(r#"{"input_per_million":"1","tiers":[{"above_input_tokens":2},{"above_input_tokens":1}]}"#, "ascend");
        check(r#"{"input_per_million":"1","tiers":[{"above_input_tokens":2},{"above_input_tokens":2}]}"#, "ascend");
    }

    #[test]
    fn m_34_rates_of_zero_do_not_make_a_model_free() {
        let check = |json: &str, expected: bool| {
            let sheet: PriceSheet = serde_json::from_str(json).unwrap();
            let made = sheet.compile_to_count();
            assert_eq!(made.is_ok(), expected, "{json}: {made:?}");
            assert!(sheet.compile().is_ok(), "past charges can be priced again: {json}");
        };
        check(r#"{"free":true}"#, true);
        check(r#"{"input_per_million":"0","output_per_million":"0"}"#, false);
        check(r#"{"model_rate":"0"}"#, false);
        check(r#"{"model_rate":"0.000","completion_multiplier":"2"}"#, false);
        check(r#"{"input_per_million":"0","per_web_search":"0.01"}"#, false);
        check(r#"{"per_web_search":"0.01"}"#, false);
        check(r#"{"input_per_million":"0","cached_input_per_million":"1","reasoning_per_million":"1"}"#, false);
        check(r#"{"input_per_million":"0","output_per_million":"1"}"#, true);
        check(r#"{"model_rate":"1","completion_multiplier":"0"}"#, true);
        check(r#"{"per_image":"0.04"}"#, true);
        check(r#"{"per_request":"0.000000001"}"#, true);
        check(r#"{"input_per_million":"1","tiers":[{"above_input_tokens":5,"input_per_million":"0"}]}"#, false);
        check(r#"{"input_per_million":"1","service_tiers":{"flex":{"input_per_million":"0"}}}"#, false);
        check(
            r#"{"input_per_million":"1","service_tiers":{"flex":{"tiers":[{"above_input_tokens":5,"input_per_million":"0"}]}}}"#,
            false,
        );
        check(r#"{"input_per_million":"1","service_tiers":{"flex":{"output_per_million":"0"}}}"#, true);
    }

    #[test]
    fn what_a_sheet_leaves_out_costs_as_the_broader_meter() {
        use Meter::*;
        let check = |json: &str, meters: &[Meter], usd: &str| {
            let rates = serde_json::from_str::<PriceSheet>(json).unwrap().compile().unwrap().standard.base;
            for meter in meters {
                assert_eq!(rates[*meter as usize].per_million_text(), usd, "{meter:?} of {json}");
            }
        };
        // Whole numbers need no quotes.
        let two = r#"{"input_per_million":3,"output_per_million":"4"}"#;
        check(two, &[Input, CachedInput, CacheWrite5m, CacheWrite1h, InputAudio, InputImage], "3.00");
        check(two, &[Output, Reasoning, OutputAudio, OutputImage], "4.00");
        check(two, &Meter::CALLS, "0.00");
        let written = r#"{"input_per_million":"3","cache_write_5m_per_million":"5"}"#;
        check(written, &[CacheWrite5m, CacheWrite1h], "5.00");
        check(written, &[CachedInput, InputAudio], "3.00");
        let ascending = r#"{"input_per_million":"3",
            "tiers":[{"above_input_tokens":1,"input_per_million":"4"},{"above_input_tokens":2,"input_per_million":"5"}]}"#;
        check(ascending, &[Input], "3.00");
    }

    #[test]
    fn what_a_tier_leaves_out_stays_as_below_it() {
        let sheet: PriceSheet = serde_json::from_str(
            r#"{"input_per_million":"1","cached_input_per_million":"0.1","output_per_million":"4",
                "tiers":[{"above_input_tokens":10,"output_per_million":"8"}]}"#,
        )
        .unwrap();
        let rates = sheet.compile().unwrap().standard.tiers[0].1;
        let text = |meter: Meter| rates[meter as usize].per_million_text();
        assert_eq!([text(Meter::Input), text(Meter::CachedInput), text(Meter::Output)], ["1.00", "0.10", "8.00"]);
        assert_eq!(text(Meter::Reasoning), "8.00");
    }
}
