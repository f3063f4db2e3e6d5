//! The price book as text: one model per line, so that a change of a price is a change of one line.

use super::litellm::{Model, Plan, Rates, Tiers};
use serde_json::Value;
use std::fmt::Write;

/// Where the prices come from, and of which day they are.
const SOURCE: &str = "BerriAI/litellm 1.109.1, MIT";
const DATE: &str = "2026-11-12";

/// Writes models in the order given.
pub fn write(models: &[Model]) -> String {
    let lines: Vec<String> = models.iter().map(line).collect();
    let (source, date) = (quoted(SOURCE), quoted(DATE));
    format!("{{\n\"source\": {source},\n\"date\": {date},\n\"models\": [\n{}\n]\n}}\n", lines.join(",\n"))
}

/// The fields of `domain::price::PriceSheet`, in its order, behind the name.
fn line(model: &Model) -> String {
    let mut fields =
        vec![("provider", quoted(&model.provider)), ("model", quoted(&model.model)), ("mode", quoted(&model.mode))];
    fields.extend(plan(&model.standard));
    if !model.service_tiers.is_empty() {
        let tiers: Vec<_> = model.service_tiers.iter().map(|(name, rates)| (*name, object(&plan(rates)))).collect();
        fields.push(("service_tiers", object(&tiers)));
    }
    let limits = [("max_input_tokens", model.input_tokens_max), ("max_output_tokens", model.output_tokens_max)];
    fields.extend(limits.into_iter().filter_map(|(name, limit)| Some((name, limit?.to_string()))));
    if !model.lacks.is_empty() {
        let lacks: Vec<_> = model.lacks.iter().map(|ability| quoted(ability)).collect();
        fields.push(("lacks", format!("[{}]", lacks.join(","))));
    }
    object(&fields)
}

fn plan(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut fields = rates(&plan.rates);
    if !plan.tiers.is_empty() {
        fields.push(("tiers", tiers(&plan.tiers)));
    }
    fields
}

fn rates(rates: &Rates) -> Vec<(&'static str, String)> {
    rates.iter().map(|(rate, amount)| (rate.field(), quoted(&amount.to_string()))).collect()
}

fn tiers(tiers: &Tiers) -> String {
    let tiers: Vec<String> = tiers
        .iter()
        .map(|(above, tier)| {
            let mut fields = vec![("above_input_tokens", above.to_string())];
            fields.extend(rates(tier));
            object(&fields)
        })
        .collect();
    format!("[{}]", tiers.join(","))
}

fn object(fields: &[(&str, String)]) -> String {
    let mut text = String::from("{");
    for (index, (name, value)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}\"{name}\":{value}").expect("writing to a string does not fail");
    }
    text + "}"
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
