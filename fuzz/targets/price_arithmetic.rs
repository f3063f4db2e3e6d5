//! Any text is a price or an error; any usage has a charge or an error; and what was held covers what is charged.
//!
//! The input is the JSON of a price sheet, a line end, and bytes from which usage and bound are drawn.

#![no_main]

use domain::price::{Bound, Price, PriceSheet};
use domain::usage::COUNT_MAX;
use domain::{Meter, Nanos, Usage};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The most answer tokens that a request can ask for: the largest cap, for the most choices of as many prompts as fit
/// a body.
const OUTPUT_TOKENS_MAX: u64 = COUNT_MAX * 128 * 16_000_000;

fuzz_target!(|input: &[u8]| {
    let sheet_end = input.iter().rposition(|&byte| byte == b'\n').unwrap_or(input.len());
    let (sheet, draws) = (&input[..sheet_end], input.get(sheet_end + 1..).unwrap_or_default());
    let Ok(sheet) = serde_json::from_slice::<PriceSheet>(sheet) else { return };
    let written = serde_json::to_string(&sheet).expect("a sheet can be written");
    let read_back: PriceSheet = serde_json::from_str(&written).expect("a written sheet can be read");
    assert_eq!(read_back, sheet, "a sheet changed on its way through the database");

    for model in ["gpt-4", "gpt-3.5-turbo", "other"] {
        let Ok(price) = sheet.clone().with_default_multiplier(model).compile() else { continue };
        // Exhausted draws give zeros, so this ends.
        let tiers: Vec<&str> = sheet.service_tiers.iter().map(|(name, ..)| name.as_str()).collect();
        _ = charge_within_bound(&price, &tiers, &mut Unstructured::new(draws));
    }
});

fn charge_within_bound(price: &Price, tiers: &[&str], draws: &mut Unstructured<'_>) -> Result<()> {
    // Any usage that a provider's report can turn into.
    let mut counts = [0; Meter::COUNT];
    for count in &mut counts {
        *count = draws.int_in_range(0..=COUNT_MAX)?;
    }
    let usage = Usage::from_array(counts).expect("the counts are in range");
    let known = [None, Some("auto"), Some("default"), Some("unheard of")];
    let choices: Vec<Option<&str>> = known.into_iter().chain(tiers.iter().copied().map(Some)).collect();
    let asked = *draws.choose(&choices)?;
    if let Ok(charge) = price.charge(&usage, asked) {
        assert!(charge >= Nanos::ZERO, "a charge that gives money back");
        let mut more = usage;
        more[Meter::Output] = (more[Meter::Output] + 1).min(COUNT_MAX);
        if let Ok(dearer) = price.charge(&more, asked) {
            assert!(dearer >= charge, "more output costs less");
        }
    }

    // A usage within a bound.
    let mut calls = Usage::default();
    for meter in Meter::CALLS {
        calls[meter] = draws.int_in_range(0..=COUNT_MAX)?;
    }
    // Of several sizes: the greatest bounds have no price in 64 bits, except with tiny rates.
    let output_tokens_max = *draws.choose(&[100_000, COUNT_MAX, OUTPUT_TOKENS_MAX])?;
    let bound = Bound {
        input_tokens: draws.int_in_range(0..=COUNT_MAX)?,
        output_tokens: draws.int_in_range(0..=output_tokens_max)?,
        audio_in: draws.arbitrary()?,
        images_in: draws.arbitrary()?,
        audio_out: draws.arbitrary()?,
        calls,
        service_tier: asked.map(str::to_owned),
    };
    let mut within = Usage::default();
    let mut input_left = bound.input_tokens;
    for meter in Meter::INPUT_TOKENS {
        let possible = match meter {
            Meter::InputAudio => bound.audio_in,
            Meter::InputImage => bound.images_in,
            _ => true,
        };
        if possible {
            within[meter] = draws.int_in_range(0..=input_left)?;
            input_left -= within[meter];
        }
    }
    let mut output_left = bound.output_tokens;
    for meter in [Meter::Output, Meter::Reasoning, Meter::OutputAudio] {
        if meter != Meter::OutputAudio || bound.audio_out {
            within[meter] = draws.int_in_range(0..=output_left)?;
            output_left -= within[meter];
        }
    }
    for meter in Meter::CALLS {
        within[meter] = draws.int_in_range(0..=bound.calls[meter])?;
    }
    _ = price.dearest_output(&bound);
    let Ok(most) = price.bound(&bound) else { return Ok(()) };
    // A provider calls its standard tier by no name or `default`; who asks for another one may be served on any.
    let anywhere: &[&str] = if matches!(asked, None | Some("default")) { &[] } else { tiers };
    for served in [None, Some("default")].into_iter().chain(anywhere.iter().copied().map(Some)) {
        let charge = price.charge(&within, served).expect("a charge within a representable bound is representable");
        assert!(charge <= most, "a charge of {charge} on {served:?} for a hold of {most}: {within:?} in {bound:?}");
    }
    Ok(())
}
