//! Prices: how they are written down, and what a usage or a bound of usage costs.
//!
//! A [`PriceSheet`] is the written form, one and the same in the shipped book, the configuration file, the API
//! and the database. [`Price`] is a sheet made ready for arithmetic: every meter has a rate, because what a
//! sheet leaves out falls back to a broader meter (cached input to input, reasoning to output …).

mod sheet;

pub use sheet::{Lacks, PriceSheet, RateSheet, SheetError, Tier};

use crate::money::{MoneyError, Multiplier, Nanos, Rate};
use crate::usage::{Meter, Usage};

/// A price ready for arithmetic. Immutable: a new price is a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    standard: Table,
    /// Rates of other service tiers (`priority`, `flex`, `batch`), by the provider's name.
    service: Vec<(String, Table)>,
    /// The most prompt tokens that the model takes, if known.
    pub input_tokens_max: Option<u64>,
    /// The most answer tokens that the model gives, if known.
    pub output_tokens_max: Option<u64>,
    /// What the model is known not to do.
    pub lacks: Lacks,
    /// The meters that have a rate on any tier, a bit for each.
    rated: u32,
}

/// Rates of one service tier: the base, and what applies above a prompt size.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    base: Rates,
    /// Ascending by threshold.
    tiers: Vec<(u64, Rates)>,
}

type Rates = [Rate; Meter::COUNT];

/// An upper bound of what one request can consume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Prompt tokens, of whatever kind.
    pub input_tokens: u64,
    /// Answer tokens, of whatever kind, over all choices.
    pub output_tokens: u64,
    /// The prompt can hold audio.
    pub audio_in: bool,
    /// The prompt can hold images.
    pub images_in: bool,
    /// The answer can hold audio.
    pub audio_out: bool,
    /// Everything that is not counted in tokens.
    pub calls: Usage,
    /// The service tier that was asked for; `None` is the provider's default.
    pub service_tier: Option<String>,
}

impl Price {
    /// The exact price of `usage`, rounded once, up to the next nano-USD.
    ///
    /// `service_tier` is the tier that the provider says it used; a tier without rates of its own costs the
    /// standard price.
    pub fn charge(&self, usage: &Usage, service_tier: Option<&str>) -> Result<Nanos, MoneyError> {
        self.charge_at(usage, service_tier, Multiplier::ONE)
    }

    /// [`Price::charge`] for an account that pays `multiplier` times the list price. Rounded once all the same.
    pub fn charge_at(
        &self,
        usage: &Usage,
        service_tier: Option<&str>,
        multiplier: Multiplier,
    ) -> Result<Nanos, MoneyError> {
        let rates = self.table(service_tier).rates(usage.input_tokens());
        let sum = usage.counts().map(|(meter, count)| rates[meter as usize].micro_product(count)).sum();
        Nanos::from_micro_products_times(sum, multiplier)
    }

    /// The greatest price that any usage within `bound` can have.
    pub fn bound(&self, bound: &Bound) -> Result<Nanos, MoneyError> {
        self.bound_at(bound, Multiplier::ONE)
    }

    /// [`Price::bound`] for an account that pays `multiplier` times the list price.
    pub fn bound_at(&self, bound: &Bound, multiplier: Multiplier) -> Result<Nanos, MoneyError> {
        let mut most = 0;
        for table in self.tables_possible(bound.service_tier.as_deref()) {
            for rates in table.rates_possible(bound.input_tokens) {
                most = most.max(bound_product(rates, bound).ok_or(MoneyError::Overflow)?);
            }
        }
        Nanos::from_micro_products_times(most, multiplier)
    }

    /// The dearest answer token within `bound`: what one more token of the output cap can cost.
    pub fn dearest_output(&self, bound: &Bound) -> Rate {
        self.tables_possible(bound.service_tier.as_deref())
            .flat_map(|table| table.rates_possible(bound.input_tokens))
            .map(|rates| dearest(rates, output_meters(bound)))
            .max()
            .expect("the standard table always has base rates")
    }

    /// The service tier whose rates apply to an answer: the one that the provider names. A request that named none
    /// cannot have asked for a dearer one than the standard, so it never pays for one.
    pub fn tier_charged<'t>(&self, usage: &Usage, named: Option<&'t str>, asked: Option<&str>) -> Option<&'t str> {
        let named = named?;
        if asked.is_some_and(|asked| !is_standard(asked)) || std::ptr::eq(self.table(Some(named)), &self.standard) {
            return Some(named);
        }
        let product = |tier| self.table(tier).product(usage);
        (product(Some(named)) <= product(None)).then_some(named)
    }

    /// On every tier, something that a request consumes by itself costs something: not every one calls tools, reasons
    /// or has a prompt cached.
    fn always_costs(&self) -> bool {
        const OCCASIONAL: [Meter; 7] = [
            Meter::CachedInput,
            Meter::CacheWrite5m,
            Meter::CacheWrite1h,
            Meter::Reasoning,
            Meter::WebSearch,
            Meter::CodeExecution,
            Meter::FileSearch,
        ];
        let costs = |rates: &Rates| {
            Meter::ALL.into_iter().any(|meter| !OCCASIONAL.contains(&meter) && rates[meter as usize] > Rate::ZERO)
        };
        let tables = self.service.iter().map(|(_, table)| table).chain([&self.standard]);
        tables.flat_map(|table| table.rates_possible(u64::MAX)).all(costs)
    }

    /// Units of that meter cost something, on whatever tier.
    pub fn prices(&self, meter: Meter) -> bool {
        self.rated >> meter as usize & 1 == 1
    }

    /// Nothing has a rate: the model costs nothing, on purpose.
    pub fn is_free(&self) -> bool {
        self.rated == 0
    }

    /// Notes which meters have a rate.
    fn noted(mut self) -> Self {
        let tables = || self.service.iter().map(|(_, table)| table).chain([&self.standard]);
        let has_rate = |meter: &Meter| {
            let mut rates = tables().flat_map(|table| table.rates_possible(u64::MAX));
            rates.any(|rates| rates[*meter as usize] > Rate::ZERO)
        };
        self.rated = Meter::ALL.into_iter().filter(has_rate).fold(0, |rated, meter| rated | 1 << meter as usize);
        self
    }

    fn table(&self, service_tier: Option<&str>) -> &Table {
        let named = service_tier.filter(|tier| !is_standard(tier));
        named
            .and_then(|tier| self.service.iter().find(|(name, _)| name == tier))
            .map_or(&self.standard, |(_, table)| table)
    }

    /// Whoever names a tier (also `auto`) may be served on any; whoever names none gets the standard one.
    fn tables_possible(&self, asked: Option<&str>) -> impl Iterator<Item = &Table> {
        let others = match asked {
            Some(tier) if !is_standard(tier) => self.service.as_slice(),
            _ => &[],
        };
        std::iter::once(&self.standard).chain(others.iter().map(|(_, table)| table))
    }
}

impl Table {
    fn product(&self, usage: &Usage) -> i128 {
        let rates = self.rates(usage.input_tokens());
        usage.counts().map(|(meter, count)| rates[meter as usize].micro_product(count)).sum()
    }

    /// The rates for a prompt of that size: those of the highest threshold that it exceeds.
    fn rates(&self, input_tokens: u64) -> &Rates {
        self.tiers.iter().rev().find(|(above, _)| input_tokens > *above).map_or(&self.base, |(_, rates)| rates)
    }

    /// The rates that a prompt of at most that size can meet.
    fn rates_possible(&self, input_tokens: u64) -> impl Iterator<Item = &Rates> {
        let reached = self.tiers.iter().filter(move |(above, _)| input_tokens > *above);
        std::iter::once(&self.base).chain(reached.map(|(_, rates)| rates))
    }
}

/// Providers' names for the tier that everybody gets who asks for none.
fn is_standard(tier: &str) -> bool {
    matches!(tier, "default" | "standard")
}

fn bound_product(rates: &Rates, bound: &Bound) -> Option<i128> {
    let input = dearest(rates, input_meters(bound)).micro_product(bound.input_tokens);
    let output = dearest(rates, output_meters(bound)).micro_product(bound.output_tokens);
    let calls: i128 = bound.calls.counts().map(|(meter, count)| rates[meter as usize].micro_product(count)).sum();
    input.checked_add(output)?.checked_add(calls)
}

fn input_meters(bound: &Bound) -> impl Iterator<Item = Meter> {
    let (audio, images) = (bound.audio_in, bound.images_in);
    Meter::INPUT_TOKENS.into_iter().filter(move |meter| match meter {
        Meter::InputAudio => audio,
        Meter::InputImage => images,
        _ => true,
    })
}

fn output_meters(bound: &Bound) -> impl Iterator<Item = Meter> {
    let audio = bound.audio_out;
    Meter::OUTPUT_TOKENS.into_iter().filter(move |meter| match meter {
        Meter::OutputAudio => audio,
        // Models that can answer with images do so without being asked to.
        _ => true,
    })
}

fn dearest(rates: &Rates, meters: impl Iterator<Item = Meter>) -> Rate {
    meters.map(|meter| rates[meter as usize]).max().unwrap_or(Rate::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn price(json: &str) -> Price {
        serde_json::from_str::<PriceSheet>(json).expect(json).compile().expect(json)
    }

    #[test]
    fn charges_are_sums_of_products() {
        let check = |sheet: &str, usage: &str, tier: Option<&str>, usd: &str| {
            let usage: Usage = serde_json::from_str(usage).unwrap();
            assert_eq!(price(sheet).charge(&usage, tier).unwrap().to_string(), usd, "{sheet} {usage:?}");
        };
        let plain = r#"{"input_per_million":"1.00","output_per_million":"2.00"}"#;
        check(plain, r#"{"input":1000,"output":500}"#, None, "0.002");
        check(plain, r#"{"input":1,"cached_input":1,"reasoning":1}"#, None, "0.000004");
        let cached = r#"{"input_per_million":"2.50","cached_input_per_million":"1.25","output_per_million":"10.00"}"#;
        check(cached, r#"{"input":1040,"cached_input":5000,"output":60,"reasoning":90}"#, None, "0.01035");
        let tiered = r#"{"input_per_million":"1.25","output_per_million":"10.00",
            "tiers":[{"above_input_tokens":200000,"input_per_million":"2.50","output_per_million":"15.00"}]}"#;
        check(tiered, r#"{"input":200000,"output":10}"#, None, "0.2501");
        check(tiered, r#"{"input":200001,"output":10}"#, None, "0.5001525");
        let service = r#"{"input_per_million":"1.00","output_per_million":"2.00",
            "service_tiers":{"priority":{"input_per_million":"2.00","output_per_million":"4.00"}}}"#;
        check(service, r#"{"input":1000,"output":500}"#, Some("priority"), "0.004");
        check(service, r#"{"input":1000,"output":500}"#, Some("default"), "0.002");
        let named = r#"{"input_per_million":"1","service_tiers":{"default":{"input_per_million":"50"}}}"#;
        check(named, r#"{"input":1000}"#, Some("default"), "0.001");
        let fees = r#"{"input_per_million":"0","output_per_million":"0","per_web_search":"0.01","per_image":"0.04","per_request":"0.005"}"#;
        check(fees, r#"{"web_search":2,"image":3,"request":1}"#, None, "0.145");
    }

    /// The vectors of one-api's formula: quota = (prompt + completion × multiplier) × rate, 500,000 to the USD.
    #[test]
    fn the_multiplier_form_is_the_same_price() {
        let check = |model: &str, rate: &str, multiplier: Option<&str>, prompt, completion, usd: &str| {
            let multiplier = multiplier.map_or(String::new(), |m| format!(r#","completion_multiplier":"{m}""#));
            let sheet: PriceSheet = serde_json::from_str(&format!(r#"{{"model_rate":"{rate}"{multiplier}}}"#)).unwrap();
            let price = sheet.with_default_multiplier(model).compile().unwrap();
            let charge = price.charge(&Usage::tokens(prompt, completion), None).unwrap();
            assert_eq!(charge.to_string(), usd, "{model}");
        };
        check("gpt-4", "15", None, 1000, 500, "0.06");
        check("gpt-4-0613", "15", Some("2"), 1000, 500, "0.06");
        check("gpt-3.5-turbo", "0.75", None, 1000, 500, "0.0024975");
        check("gpt-3.5-turbo", "0.25", Some("3"), 1000, 500, "0.00125");
        check("llama-3", "0.5", None, 1000, 500, "0.0015");
    }

    #[test]
    fn m_12_a_dearer_tier_that_was_not_asked_for_costs_the_standard_price() {
        let sheet = price(
            r#"{"input_per_million":"1","output_per_million":"2","service_tiers":{
                "priority":{"input_per_million":"2","output_per_million":"4"},
                "flex":{"input_per_million":"0.5","output_per_million":"1"}}}"#,
        );
        let check = |named: Option<&str>, asked: Option<&str>, charged: Option<&str>| {
            assert_eq!(sheet.tier_charged(&Usage::tokens(5, 5), named, asked), charged, "{named:?} {asked:?}");
        };
        for asked in [None, Some("default"), Some("standard")] {
            check(Some("priority"), asked, None);
            check(Some("flex"), asked, Some("flex"));
            check(Some("default"), asked, Some("default"));
            check(Some("unheard-of"), asked, Some("unheard-of"));
            check(None, asked, None);
        }
        for asked in ["auto", "priority", "flex"] {
            check(Some("priority"), Some(asked), Some("priority"));
            check(None, Some(asked), None);
        }
    }

    /// Each kind of token has a rate that tells it apart. Longer prompts and the tier `priority` are dearer.
    const MANY_RATES: &str = r#"{
        "input_per_million":"1","cached_input_per_million":"0.5","cache_write_1h_per_million":"2",
        "input_audio_per_million":"30","input_image_per_million":"20",
        "output_per_million":"4","reasoning_per_million":"5","output_audio_per_million":"60","per_web_search":"0.01",
        "tiers":[{"above_input_tokens":1000,"cache_write_1h_per_million":"3","reasoning_per_million":"7"}],
        "service_tiers":{"priority":{"cache_write_1h_per_million":"9","reasoning_per_million":"11"}}}"#;

    #[test]
    fn m_12_a_bound_is_the_dearest_that_the_request_can_be_and_no_dearer() {
        let price = price(MANY_RATES);
        let check = |bound: Bound, usd: &str| assert_eq!(price.bound(&bound).unwrap().to_string(), usd, "{bound:?}");
        let plain = Bound { input_tokens: 1_000, output_tokens: 100, ..Bound::default() };
        check(Bound::default(), "0.00");
        check(plain.clone(), "0.0025");
        check(Bound { audio_in: true, ..plain.clone() }, "0.0305");
        check(Bound { images_in: true, ..plain.clone() }, "0.0205");
        check(Bound { audio_out: true, ..plain.clone() }, "0.008");
        check(Bound { input_tokens: 1_001, ..plain.clone() }, "0.003703");
        let mut calls = Usage::default();
        calls[Meter::WebSearch] = 3;
        check(Bound { calls, ..plain.clone() }, "0.0325");
        for tier in ["default", "standard"] {
            check(Bound { service_tier: Some(tier.to_owned()), ..plain.clone() }, "0.0025");
        }
        for tier in ["priority", "auto", "flex"] {
            check(Bound { service_tier: Some(tier.to_owned()), ..plain.clone() }, "0.0101");
        }
    }

    #[test]
    fn the_dearest_answer_token_is_within_the_bound() {
        let price = price(MANY_RATES);
        let check = |bound: Bound, expected: &str| {
            assert_eq!(price.dearest_output(&bound).per_million_text(), expected, "{bound:?}");
        };
        check(Bound { input_tokens: 1_000, ..Bound::default() }, "5.00");
        check(Bound { input_tokens: 1_001, ..Bound::default() }, "7.00");
        check(Bound { service_tier: Some("auto".to_owned()), ..Bound::default() }, "11.00");
        check(Bound { audio_out: true, ..Bound::default() }, "60.00");
    }

    #[test]
    fn a_meter_is_priced_where_any_tier_prices_it() {
        let check = |sheet: &str, expected: bool| {
            assert_eq!(price(sheet).prices(Meter::WebSearch), expected, "{sheet}");
        };
        check(r#"{"input_per_million":"1"}"#, false);
        check(r#"{"input_per_million":"1","per_web_search":"0"}"#, false);
        check(r#"{"input_per_million":"1","per_web_search":"0.01"}"#, true);
        check(r#"{"input_per_million":"1","tiers":[{"above_input_tokens":9,"per_web_search":"0.01"}]}"#, true);
        check(r#"{"input_per_million":"1","service_tiers":{"flex":{"per_web_search":"0.01"}}}"#, true);
    }

    fn usage_within(bound: &Bound, draws: &[u64]) -> Usage {
        let mut usage = Usage::default();
        let mut left = bound.input_tokens;
        for (meter, draw) in input_meters(bound).zip(draws) {
            usage[meter] = if left == 0 { 0 } else { draw % (left + 1) };
            left -= usage[meter];
        }
        let mut left = bound.output_tokens;
        for (meter, draw) in output_meters(bound).zip(&draws[6..]) {
            usage[meter] = if left == 0 { 0 } else { draw % (left + 1) };
            left -= usage[meter];
        }
        for (meter, count) in bound.calls.counts() {
            usage[meter] = draws[10] % (count + 1);
        }
        usage
    }

    proptest! {
        /// M-12: whatever a request within its bound consumes, the hold covers it.
        #[test]
        fn m_12_the_bound_is_never_below_the_charge(
            rates in prop::collection::vec(0_u32..100_000, Meter::COUNT),
            tier in prop::collection::vec(0_u32..100_000, Meter::COUNT),
            (above, input, output) in (0_u64..2_000, 0_u64..4_000, 0_u64..4_000),
            (audio_in, images_in, audio_out) in any::<(bool, bool, bool)>(),
            asked in prop::option::of(prop::sample::select(vec!["priority", "auto", "default"])),
            draws in prop::collection::vec(any::<u64>(), 11),
        ) {
            let table = |draw: &[u32]| -> Rates {
                std::array::from_fn(|i| Rate::per_million(&draw[i].to_string()).unwrap())
            };
            let standard = Table { base: table(&rates), tiers: vec![(above, table(&tier))] };
            let priority = Table { base: table(&tier), tiers: vec![(above / 2, table(&rates))] };
            let price = Price {
                standard,
                service: vec![("priority".into(), priority)],
                input_tokens_max: None,
                output_tokens_max: None,
                lacks: Lacks::default(),
                rated: 0,
            };
            let mut calls = Usage::default();
            calls[Meter::WebSearch] = draws[9] % 5;
            let bound = Bound {
                input_tokens: input,
                output_tokens: output,
                audio_in, images_in, audio_out, calls,
                service_tier: asked.map(str::to_owned),
            };
            let usage = usage_within(&bound, &draws);
            for named in [None, Some("default"), Some("priority"), Some("other")] {
                let tier = price.tier_charged(&usage, named, asked);
                prop_assert!(price.charge(&usage, tier).unwrap() <= price.bound(&bound).unwrap());
            }
        }

        #[test]
        fn m_28_prices_never_wrap(counts in prop::array::uniform17(0_u64..=crate::usage::COUNT_MAX)) {
            let usage = Usage::from_array(counts).unwrap();
            let dear = price(r#"{"input_per_million":"9000000000","output_per_million":"9000000000"}"#);
            match dear.charge(&usage, None) {
                Ok(charge) => prop_assert!(charge >= Nanos::ZERO),
                Err(error) => prop_assert_eq!(error, MoneyError::Overflow),
            }
        }
    }
}
