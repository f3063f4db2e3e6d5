//! Small values at the edge: times, and the checks of texts that the store takes as they are.

use super::error::Problem;
use crate::error::ErrorProfile;
use domain::{Nanos, Timestamp, Zone};
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use utoipa::ToSchema;

/// Longest name of a model, in characters.
const MODEL_CHARS_MAX: usize = 256;
/// Longest note of a top-up, in characters.
const NOTE_CHARS_MAX: usize = 500;
/// What may have been put into one account in all: comfortably within 64 bits of nano-USD, whatever comes after.
const FUNDING_MAX: Nanos = Nanos(4_000_000_000_000_000_000);

/// Something that is named by its id (a JSON number) or by its name (a text). A text of digits that is nobody's name is
/// an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "it is named by its name or its id")]
pub enum NameOrId {
    /// Its id.
    Id(i64),
    /// Its name.
    Name(String),
}

impl NameOrId {
    /// Whatever is meant, by the first look that finds it.
    pub fn find<T>(&self, by_name: impl FnOnce(&str) -> Option<T>, by_id: impl FnOnce(i64) -> Option<T>) -> Option<T> {
        match self {
            Self::Id(id) => by_id(*id),
            Self::Name(name) => by_name(name).or_else(|| name.parse().ok().and_then(by_id)),
        }
    }
}

/// A time as the API writes it. The store's times all came from a clock or from this API, so they fit.
pub fn rfc3339(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::MAX)
}

/// A time as the store keeps it.
pub fn stored(at: jiff::Timestamp) -> Timestamp {
    Timestamp(at.as_millisecond())
}

/// Tells a field that is null (`Some(None)`) from one that is absent (`None`).
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A time zone by its name, as the IANA database writes it.
pub fn checked_time_zone(name: &str) -> Result<String, Problem> {
    let zone = name.parse::<Zone>().map_err(|_| {
        let message = "A time zone is named as in the IANA database, such as \"Europe/Berlin\" or \"UTC\".";
        Problem::bad_field("time_zone", message)
    })?;
    Ok(zone.name().to_owned())
}

/// The store's name of a profile.
pub fn profile_name(profile: ErrorProfile) -> String {
    match profile {
        ErrorProfile::Tollgate => "tollgate",
        ErrorProfile::OpenAi => "openai",
        ErrorProfile::Relay => "relay",
    }
    .to_owned()
}

/// A model's name that can be asked for.
pub fn checked_model(model: &str) -> Result<(), Problem> {
    let length = model.chars().count();
    if length == 0 || length > MODEL_CHARS_MAX || model.trim() != model || model.chars().any(char::is_control) {
        let message =
            format!("A model's name has 1 to {MODEL_CHARS_MAX} characters, no control characters and no outer spaces.");
        return Err(Problem::bad_field("model", message));
    }
    Ok(())
}

/// The models that a key may ask for.
pub fn checked_models(models: &[String]) -> Result<(), Problem> {
    if models.is_empty() {
        return Err(Problem::bad_field("models", "An empty list allows nothing. Send null to allow every model."));
    }
    models.iter().try_for_each(|model| checked_model(model))
}

/// The addresses that a key may come from.
pub fn checked_addresses(addresses: &[String]) -> Result<(), Problem> {
    if addresses.is_empty() {
        let message = "An empty list allows nothing. Send null to allow every address.";
        return Err(Problem::bad_field("addresses", message));
    }
    match addresses.iter().find(|block| !is_block(block)) {
        None => Ok(()),
        Some(block) => {
            let message = format!("{block:?} is no address and no block such as \"10.0.0.0/8\" or \"2001:db8::/32\".");
            Err(Problem::bad_field("addresses", message))
        }
    }
}

/// An address or a CIDR block. IPv4 written as IPv6 is refused: its prefix length would mean something else.
pub fn is_block(block: &str) -> bool {
    let (network, prefix) = match block.split_once('/') {
        Some((network, prefix)) if prefix.bytes().all(|b| b.is_ascii_digit()) => (network, prefix.parse::<u8>().ok()),
        Some(_) => return false,
        None => (block, Some(0)),
    };
    match (network.parse::<IpAddr>(), prefix) {
        (Ok(IpAddr::V4(_)), Some(prefix)) => prefix <= 32,
        (Ok(IpAddr::V6(network)), Some(prefix)) => prefix <= 128 && network.to_ipv4_mapped().is_none(),
        _ => false,
    }
}

/// Why something is done, for the ledger. Who did it stands beside it.
pub fn checked_note(note: Option<&str>) -> Result<Arc<str>, Problem> {
    let note = note.unwrap_or_default().trim();
    if note.chars().count() > NOTE_CHARS_MAX || note.chars().any(char::is_control) {
        let message = format!("A note has at most {NOTE_CHARS_MAX} characters and no control characters.");
        return Err(Problem::bad_field("note", message));
    }
    Ok(note.into())
}

/// [`checked_note`] of what nobody understands later without one.
pub fn required_note(note: Option<&str>, of: &str) -> Result<Arc<str>, Problem> {
    match checked_note(note)? {
        note if note.is_empty() => Err(Problem::bad_field("note", format!("{of} needs a note: say why."))),
        note => Ok(note),
    }
}

/// Whether `amount` may be put into an account into which `funded` were put before.
pub fn checked_funding(funded: Nanos, amount: Nanos) -> Result<(), Problem> {
    match funded.checked_add(amount) {
        Some(sum) if sum <= FUNDING_MAX => Ok(()),
        _ => Err(Problem::bad_field("amount", format!("At most ${FUNDING_MAX} can be put into one account in all."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_blocks() {
        for block in ["10.0.0.0/8", "192.0.2.1", "0.0.0.0/0", "2001:db8::/32", "::1", "10.1.2.3/32", "::/0"] {
            assert!(is_block(block), "{block}");
        }
        for block in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "example.com",
            "::ffff:10.0.0.0/104",
            " 10.0.0.1",
            "10.0.0.0/-1",
            "010.0.0.1",
        ] {
            assert!(!is_block(block), "{block}");
        }
    }

    #[test]
    fn s_36_names_of_models_are_bounded_and_printable() {
        for model in ["gpt-4o", "meta/llama-3*", "模型"] {
            assert!(checked_model(model).is_ok(), "{model}");
        }
        for model in ["", " ", "a\nb", " a", "a\u{1b}[0m", &"m".repeat(257)] {
            assert!(checked_model(model).is_err(), "{model}");
        }
    }

    #[test]
    fn time_zones_have_names() {
        assert_eq!(checked_time_zone("Europe/Berlin").unwrap(), "Europe/Berlin");
        assert_eq!(checked_time_zone("utc").unwrap(), "UTC");
        for name in ["", "Mars/Olympus", "../../etc/passwd", "+02:00", "Europe/Berlin\0", "local"] {
            assert!(checked_time_zone(name).is_err(), "{name}");
        }
    }

    #[test]
    fn times_survive_the_trip() {
        let at: jiff::Timestamp = "2026-11-22T03:04:05.678+02:00".parse().unwrap();
        assert_eq!(rfc3339(stored(at)).to_string(), "2026-11-22T01:04:05.678Z");
        assert_eq!(rfc3339(Timestamp(i64::MAX)), jiff::Timestamp::MAX);
    }

    #[test]
    fn m_28_an_account_never_holds_more_than_64_bits() {
        let usd = |text: &str| text.parse::<Nanos>().unwrap();
        assert!(checked_funding(usd("0"), usd("4000000000")).is_ok());
        assert!(checked_funding(usd("4000000000"), usd("0.000000001")).is_err());
        assert!(checked_funding(usd("4000000000"), Nanos::MAX).is_err());
        assert!(checked_funding(usd("4000000000"), usd("-5")).is_ok());
    }
}
