//! Amounts and rates are read exactly or refused: never rounded, never wrapped.

#![no_main]

use domain::money::{MoneyError, NANOS_PER_USD};
use domain::{Nanos, Rate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(amount) = text.parse::<Nanos>() {
        let printed = amount.to_string();
        assert_eq!(printed.parse(), Ok(amount));
        assert_eq!(plain(&printed), plain(text), "another number than was written");
        let shown = i128::from(amount.quota_units(500_000)) * i128::from(NANOS_PER_USD) / 500_000;
        assert!(shown <= i128::from(amount.0), "more is shown than is there");
        assert_eq!(serde_json::from_value::<Nanos>(serde_json::json!(amount)).expect("it was just written"), amount);
    }
    if let Ok(rate) = Rate::per_million(text) {
        assert!(rate.nanos_per_million() >= 0);
        assert_eq!(plain(&rate.per_million_text()), plain(text));
        // A million units cost exactly the rate; fewer never cost nothing.
        let million = Nanos::from_micro_products(rate.micro_product(1_000_000));
        assert_eq!(million, Ok(Nanos(rate.nanos_per_million())));
        let one = Nanos::from_micro_products(rate.micro_product(1)).expect("one unit is less than a million");
        assert_eq!(one > Nanos::ZERO, rate > Rate::ZERO);
    }
    if let Ok(rate) = Rate::per_unit(text) {
        assert_eq!(plain(&rate.per_unit_text()), plain(text));
    }
    let factor_of = |rate: Rate| match rate.times(text) {
        Ok(scaled) => {
            // A factor has the places of an amount and may be larger than any: then there is nothing to compare.
            let Ok(exact) = text.parse::<Nanos>() else { return };
            assert!(exact >= Nanos::ZERO, "a negative factor was taken, and made a rate of {scaled:?}");
            // Up, and by less than one: rate × factor ≤ scaled < rate × factor + 1.
            let product = i128::from(rate.nanos_per_million()) * i128::from(exact.0);
            let scaled = i128::from(scaled.nanos_per_million()) * i128::from(NANOS_PER_USD);
            assert!(product <= scaled && scaled - product < i128::from(NANOS_PER_USD));
        }
        Err(MoneyError::Overflow | MoneyError::NotDecimal(_) | MoneyError::TooPrecise { .. }) => {}
        Err(MoneyError::Negative(_)) => assert!(text.starts_with('-')),
    };
    for rate in ["0.5", "0.000000001", "9000000000"] {
        factor_of(Rate::per_million(rate).expect("a decimal"));
    }
});

/// Sign, digits before and digits after the point, without zeros that say nothing: an exact comparison of two
/// decimals that shares no arithmetic with what is tested.
fn plain(text: &str) -> (bool, String, String) {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0').to_owned(), fraction.trim_end_matches('0').to_owned());
    let is_zero = whole.is_empty() && fraction.is_empty();
    (text.starts_with('-') && !is_zero, whole, fraction)
}
