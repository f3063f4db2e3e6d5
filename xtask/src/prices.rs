//! `cargo xtask prices`: converts LiteLLM's price file into the price book that ships with the gateway.

mod book;
mod decimal;
mod litellm;

use crate::workspace;
use anyhow::{Context, Result, bail};
use litellm::Conversion;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Where the source is on machines that have it, from the root of the workspace.
const SOURCE: &str = "../shared/data/litellm_model_prices.json";
/// What is written.
const BOOK: &str = "crates/store/price_book.json";

/// Writes the book, or with `--check` only compares it with what the source gives.
pub fn run(args: &[String]) -> Result<()> {
    let mut source = None;
    let mut check = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--check" => check = true,
            "--source" => source = Some(PathBuf::from(args.next().context("--source needs a path")?)),
            other => bail!("unknown argument {other:?}: `cargo xtask prices [--source PATH] [--check]`"),
        }
    }
    let source = source.unwrap_or_else(|| workspace::root().join(SOURCE));
    if check && !source.exists() {
        println!("price book not compared: {} is not on this machine", source.display());
        return Ok(());
    }
    let json = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let conversion = litellm::convert(&json)?;
    let text = book::write(&conversion.models);
    let path = workspace::root().join(BOOK);
    if check {
        if fs::read_to_string(&path).unwrap_or_default() != text {
            bail!("{BOOK} is not what {} gives: run `cargo xtask prices` and commit the result", source.display());
        }
        println!("price book up to date: {} models", conversion.models.len());
        return Ok(());
    }
    fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    summarise(&conversion);
    println!("{:>5}  KiB written to {BOOK}", text.len().div_ceil(1024));
    Ok(())
}

fn summarise(conversion: &Conversion) {
    let models = &conversion.models;
    let mut reasons: BTreeMap<_, usize> = BTreeMap::new();
    for (reason, _) in &conversion.left_out {
        *reasons.entry(reason).or_default() += 1;
    }
    println!("{:>5}  entries in the source", models.len() + conversion.left_out.len());
    println!("{:>5}  models in the book", models.len());
    for (reason, count) in reasons {
        println!("{count:>5}  left out: {}", reason.explanation());
    }
    let notes = &conversion.notes;
    println!("{:>5}  amounts rounded to 12 significant digits (dust of floats)", notes.dust_rounded);
    println!("{:>5}  amounts rounded up to the places that a price carries", notes.places_rounded);
    println!("{:>5}  service tiers given the standard's prices for large prompts", notes.service_tiers_completed);
    println!("{:>5}  zeros dropped: no price, so the broader rate holds", notes.zeros_dropped);
}

#[cfg(test)]
mod tests {
    use super::litellm::{LeftOut, Notes};
    use super::*;

    /// Converts one entry named `name` and returns its line, or why there is none.
    fn convert(name: &str, fields: &str) -> Result<String, LeftOut> {
        let conversion = litellm::convert(&format!("{{{name:?}: {{{fields}}}}}")).expect("the test is JSON");
        match conversion.left_out.first() {
            Some((reason, _)) => Err(*reason),
            None => Ok(book::write(&conversion.models).lines().nth(4).expect("one model").to_owned()),
        }
    }

    #[test]
    fn fields_of_the_source_become_fields_of_a_sheet() {
        let check = |mode: &str, fields: &str, expected: &str| {
            let line = convert("p/m", &format!(r#""litellm_provider":"p","mode":"{mode}",{fields}"#)).expect(fields);
            let line = line.strip_prefix(&format!(r#"{{"provider":"p","model":"m","mode":"{mode}","#)).unwrap();
            assert_eq!(line.strip_suffix('}').unwrap(), expected);
        };
        let in_out = r#""input_cost_per_token":2.5e-06,"output_cost_per_token":1e-05"#;
        let in_out_sheet = r#""input_per_million":"2.50","output_per_million":"10.00""#;
        let chat = |more: &str, after: &str| {
            check("chat", &format!("{in_out},{more}"), &format!("{in_out_sheet},{after}"));
        };
        check("chat", in_out, in_out_sheet);
        chat(r#""supports_vision":true,"source":"x","max_input_tokens":9"#, r#""max_input_tokens":9"#);
        chat(r#""supports_vision":false,"supports_function_calling":false"#, r#""lacks":["vision","tools"]"#);
        chat(r#""max_output_tokens":0,"max_input_tokens":128000"#, r#""max_input_tokens":128000"#);
        chat(r#""search_context_cost_per_query":{"low":0.01,"high":0.05,"medium":0.03}"#, r#""per_web_search":"0.05""#);
        chat(r#""code_interpreter_cost_per_session":0.03"#, r#""per_code_execution":"0.03""#);
        chat(r#""file_search_cost_per_1k_calls":2.5"#, r#""per_file_search":"0.0025""#);
        chat(r#""input_cost_per_request":0.005"#, r#""per_request":"0.005""#);
        chat(r#""output_cost_per_reasoning_token":1.2e-05"#, r#""reasoning_per_million":"12.00""#);
        chat(
            r#""off_peak_pricing":{"input_cost_per_token":1e-9},"input_dbu_cost_per_token":1,"max_input_tokens":9"#,
            r#""max_input_tokens":9"#,
        );
        chat(
            r#""input_cost_per_token_above_200k_tokens":5e-06,"output_cost_per_token_above_128k_tokens":2e-05"#,
            r#""tiers":[{"above_input_tokens":128000,"output_per_million":"20.00"},{"above_input_tokens":200000,"input_per_million":"5.00"}]"#,
        );
        chat(
            r#""input_cost_per_token_above_200k_tokens":5e-06,"output_cost_per_token_above_200k_tokens":2e-05,
               "input_cost_per_token_priority":8e-06"#,
            r#""tiers":[{"above_input_tokens":200000,"input_per_million":"5.00","output_per_million":"20.00"}],"service_tiers":{"priority":{"input_per_million":"8.00","tiers":[{"above_input_tokens":200000,"input_per_million":"8.00","output_per_million":"20.00"}]}}"#,
        );
        chat(
            r#""input_cost_per_token_priority":5e-06,"input_cost_per_token_batches":1e-06,"output_cost_per_token_flex":1e-06,
               "input_cost_per_token_above_272k_tokens_priority":1e-05"#,
            r#""service_tiers":{"batch":{"input_per_million":"1.00"},"flex":{"output_per_million":"1.00"},"priority":{"input_per_million":"5.00","tiers":[{"above_input_tokens":272000,"input_per_million":"10.00"}]}}"#,
        );
        check(
            "chat",
            r#""input_cost_per_token":1e-06,"output_cost_per_token":5e-06,"cache_creation_input_token_cost":1.25e-06,
               "cache_creation_input_token_cost_above_1hr":2e-06,"cache_read_input_token_cost":1e-07,
               "cache_creation_input_token_cost_above_1hr_above_200k_tokens":4e-06"#,
            r#""input_per_million":"1.00","cached_input_per_million":"0.10","cache_write_5m_per_million":"1.25","cache_write_1h_per_million":"2.00","output_per_million":"5.00","tiers":[{"above_input_tokens":200000,"cache_write_1h_per_million":"4.00"}]"#,
        );
        check(
            "chat",
            r#""tiered_pricing":[{"input_cost_per_token":5e-08,"output_cost_per_token":4e-07,"range":[0,256000.0]},
               {"input_cost_per_token":2.5e-07,"output_cost_per_token":2e-06,"range":[256000.0,1000000.0]}]"#,
            r#""input_per_million":"0.05","output_per_million":"0.40","tiers":[{"above_input_tokens":256000,"input_per_million":"0.25","output_per_million":"2.00"}]"#,
        );
        check(
            "audio_transcription",
            r#""input_cost_per_second":0.0001,"output_cost_per_second":0.0001"#,
            r#""per_second":"0.0001""#,
        );
        check(
            "audio_transcription",
            r#""input_cost_per_token":6e-06,"output_cost_per_second":0.0001"#,
            r#""input_per_million":"6.00""#,
        );
        check("audio_speech", r#""input_cost_per_character":1.5e-05"#, r#""per_character":"0.000015""#);
        check("rerank", r#""input_cost_per_query":0.001"#, r#""per_request":"0.001""#);
        check("image_generation", r#""input_cost_per_image":0.04"#, r#""per_image":"0.04""#);
        check(
            "image_generation",
            r#""output_cost_per_image":0.06,"output_cost_per_pixel":0.0"#,
            r#""per_image":"0.06""#,
        );
        check(
            "image_generation",
            r#""input_cost_per_token":5e-06,"output_cost_per_image":0.039,"output_cost_per_image_token":3e-05"#,
            r#""input_per_million":"5.00","output_image_per_million":"30.00""#,
        );
        check(
            "embedding",
            r#""input_cost_per_token":2e-08,"output_cost_per_token":0.0"#,
            r#""input_per_million":"0.02""#,
        );
    }

    #[test]
    fn a_price_that_is_not_known_completely_leaves_the_model_out() {
        let check = |fields: &str, reason: LeftOut| {
            let fields = format!(r#""litellm_provider":"p","mode":"chat",{fields}"#);
            assert_eq!(convert("m", &fields).expect_err(&fields), reason, "{fields}");
        };
        let in_out = r#""input_cost_per_token":1e-06,"output_cost_per_token":1e-06"#;
        check(r#""rpm":1"#, LeftOut::NoRate);
        check(r#""input_cost_per_token":0,"output_cost_per_token":0.0"#, LeftOut::OnlyZeros);
        check(r#""input_cost_per_token":1e-06"#, LeftOut::HalfPriced);
        check(r#""input_cost_per_token":1e-06,"output_cost_per_token":0"#, LeftOut::HalfPriced);
        check(r#""code_interpreter_cost_per_session":0.03"#, LeftOut::HalfPriced);
        check(r#""input_cost_per_token":0.0032,"output_cost_per_token":0.00971"#, LeftOut::Implausible);
        check(r#""input_cost_per_token":-1e-06,"output_cost_per_token":1e-06"#, LeftOut::Malformed);
        check(r#""input_cost_per_token":"1e-06","output_cost_per_token":1e-06"#, LeftOut::Malformed);
        check(&format!(r#"{in_out},"citation_cost_per_token":2e-06"#), LeftOut::NoMeter);
        check(&format!(r#"{in_out},"cost_per_new_thing":1"#), LeftOut::NoMeter);
        check(r#""tiered_pricing":[{"input_cost_per_query":0.005,"max_results_range":[0,25]}]"#, LeftOut::NoMeter);
        assert_eq!(convert("m", r#""litellm_provider":"p""#), Err(LeftOut::NoMode));
        assert_eq!(convert("sample_spec", in_out), Err(LeftOut::NotAModel));
    }

    #[test]
    fn names_lose_the_provider_and_nothing_else() {
        let check = |name: &str, provider: &str, expected: (&str, &str)| {
            let fields = format!(r#""litellm_provider":"{provider}","mode":"embedding","input_cost_per_token":1e-6"#);
            let line = convert(name, &fields).expect(name);
            let (provider, model) = expected;
            let start = format!(r#"{{"provider":"{provider}","model":"{model}","mode":"embedding","#);
            assert!(line.starts_with(&start), "{line}");
        };
        check("gpt-4o", "openai", ("openai", "gpt-4o"));
        check("azure/eu/gpt-4o", "azure", ("azure", "eu/gpt-4o"));
        check("bedrock/us-east-1/a.b:0", "bedrock", ("bedrock", "us-east-1/a.b:0"));
        check("azure/x", "azure_ai", ("azure_ai", "azure/x"));
        check("vertex_ai/claude", "vertex_ai-anthropic_models", ("vertex_ai", "claude"));
        check("gemini-2", "vertex_ai-language-models", ("vertex_ai", "gemini-2"));
        check("davinci-002", "text-completion-openai", ("openai", "davinci-002"));
    }

    #[test]
    fn the_first_of_two_equal_names_stays_and_amounts_that_changed_are_counted() {
        let json = r#"{
            "m": {"litellm_provider":"p","mode":"chat","input_cost_per_token":1.2500000000000001e-06,"output_cost_per_token":1.142857142857143e-07,"cache_read_input_token_cost":0},
            "p/m": {"litellm_provider":"p","mode":"chat","input_cost_per_token":2e-06,"output_cost_per_token":2e-06,"cache_read_input_token_cost":0}
        }"#;
        let conversion = litellm::convert(json).unwrap();
        assert_eq!(conversion.left_out, [(LeftOut::Duplicate, "p/m".to_owned())]);
        assert_eq!(
            conversion.notes,
            Notes { dust_rounded: 2, places_rounded: 1, zeros_dropped: 1, ..Notes::default() }
        );
        let text = book::write(&conversion.models);
        assert!(text.contains(r#""input_per_million":"1.25","output_per_million":"0.114285715""#), "{text}");
    }
}
