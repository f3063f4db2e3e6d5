//! What budgets and limits have in common on the command line: amounts, metrics, and which requests they are for.

use super::output::usd;
use crate::admin::{Amount, Unit};
use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, IntoDeserializer};

/// Which of an account's requests something is for.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// Only requests of keys of this project, by id.
    #[arg(long, value_name = "ID")]
    pub project: Option<i64>,
    /// Only requests of this key, by id.
    #[arg(long, value_name = "ID")]
    pub key: Option<i64>,
    /// Only requests for this end user.
    #[arg(long, value_name = "NAME")]
    pub end_user: Option<String>,
    /// Only requests with this tag.
    #[arg(long)]
    pub tag: Option<String>,
}

/// An amount of that unit, as the flag has it.
pub fn amount(flag: &str, text: &str, unit: impl Into<Unit>) -> anyhow::Result<Amount> {
    match unit.into() {
        Unit::Money => text
            .parse()
            .map(Amount::Money)
            .map_err(|error| anyhow!("{flag} {text:?}: {error}; money has an amount in USD, such as 5 or 0.25")),
        Unit::Count => text
            .parse()
            .map(Amount::Count)
            .map_err(|_| anyhow!("{flag} {text:?}: what is counted has a whole number from 0 on, such as 1000")),
    }
}

/// An amount in words.
pub fn shown(amount: &Amount) -> String {
    match amount {
        Amount::Money(money) => usd(money),
        Amount::Count(count) => count.to_string(),
    }
}

/// Something that the API has a name for, by that name with dashes.
pub fn by_name<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    let name = name.replace('-', "_");
    let found: Result<T, Error> = T::deserialize(IntoDeserializer::<Error>::into_deserializer(name));
    found.map_err(|error| error.to_string().replace('_', "-"))
}

/// The API's name of something, as words.
pub fn words(named: &impl Serialize) -> String {
    let name = serde_json::to_value(named).ok();
    name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().replace('_', " ")
}

/// Which requests something is for: those that match what is named, each of some by itself.
pub fn listed(whole: &str, named: &[(&str, Option<String>)], each: &[impl Serialize]) -> String {
    let named = named.iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    let parts: Vec<String> = named.chain(each.iter().map(|each| format!("each {}", words(each)))).collect();
    if parts.is_empty() { whole.to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::rate::{Dimension, Metric};

    #[test]
    fn an_amount_that_is_none_is_told_with_what_is_wanted() {
        assert_eq!(amount("--limit", "0.25", Unit::Money).unwrap(), Amount::Money("0.25".parse().unwrap()));
        assert_eq!(amount("--limit", "1000", Unit::Count).unwrap(), Amount::Count(1000));
        for (text, unit, wanted) in [
            ("1.5", Unit::Count, "a whole number"),
            ("-1", Unit::Count, "a whole number"),
            ("much", Unit::Money, "an amount in USD"),
        ] {
            let told = amount("--limit", text, unit).unwrap_err().to_string();
            assert!(told.starts_with("--limit ") && told.contains(wanted) && told.contains(text), "{told}");
        }
    }

    #[test]
    fn names_have_dashes_and_words_have_spaces() {
        assert_eq!(by_name("in-flight"), Ok(Metric::InFlight));
        assert_eq!(words(&Metric::InFlight), "in flight");
        let refused = by_name::<Dimension>("tag").unwrap_err();
        assert!(refused.contains("`end-user`"), "{refused}");
        let named = [("key", Some("7".to_owned())), ("tag", None)];
        assert_eq!(listed("all", &named, &[Dimension::EndUser]), "key 7, each end user");
        assert_eq!(listed("all", &[], &[] as &[Dimension]), "all");
    }
}
