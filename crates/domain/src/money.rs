//! Money as a checked integer.
//!
//! [`Nanos`] is an amount: integer nano-USD. [`Rate`] is a price: nano-USD per million units, so that the
//! cheapest published token (fractions of a nano-USD) is still exact. Nothing here is a float, nothing wraps,
//! and the one place that rounds ([`Nanos::from_micro_products`]) says which way.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

/// Nano-USD in one USD.
pub const NANOS_PER_USD: i64 = 1_000_000_000;
/// Decimal places that an amount can carry.
const AMOUNT_PLACES: u32 = 9;
/// Units that a [`Rate`] prices.
const RATE_UNITS: i128 = 1_000_000;

/// An amount of money in nano-USD. About ±9.2 billion USD fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub i64);

/// A price in nano-USD per million units (tokens, images, requests …). Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(i64);

/// What an account pays of a list price: a factor in millionths, so that prices stay integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Multiplier(u32);

/// Text or arithmetic that does not make a representable amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The text is not a plain decimal number such as `12.50`.
    #[error("{0:?} is not a decimal amount such as \"12.50\"")]
    NotDecimal(String),
    /// More digits after the point than the unit can carry.
    #[error("{text:?} has more than {places} digits after the point")]
    TooPrecise {
        /// The offending text.
        text: String,
        /// The digits that fit.
        places: u32,
    },
    /// A price below zero.
    #[error("{0:?} is negative")]
    Negative(String),
    /// Larger than 64 bits of nano-USD.
    #[error("the amount is too large")]
    Overflow,
}

impl Nanos {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The greatest amount.
    pub const MAX: Self = Self(i64::MAX);

    /// The sum, or `None` beyond 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` beyond 64 bits.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The amount with its sign turned. Total, because no entry can hold `i64::MIN`.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(self.0.checked_neg().expect("amounts are built from checked sums and never reach i64::MIN"))
    }

    /// Rounds a sum of `count × rate` products **up** to the next nano-USD: the one rounding of a charge.
    /// Up, so that no amount of tiny requests is free.
    pub fn from_micro_products(sum: i128) -> Result<Self, MoneyError> {
        Self::from_micro_products_times(sum, Multiplier::ONE)
    }

    /// [`Nanos::from_micro_products`] of what an account with that multiplier pays: still one rounding, **up**.
    pub fn from_micro_products_times(sum: i128, multiplier: Multiplier) -> Result<Self, MoneyError> {
        let (sum, unit) = match multiplier {
            Multiplier::ONE => (sum, RATE_UNITS),
            Multiplier(millionths) => {
                let scaled = sum.checked_mul(i128::from(millionths)).ok_or(MoneyError::Overflow)?;
                (scaled, RATE_UNITS * i128::from(Multiplier::MILLION))
            }
        };
        let whole = sum.div_euclid(unit) + i128::from(sum.rem_euclid(unit) != 0);
        i64::try_from(whole).map(Self).map_err(|_| MoneyError::Overflow)
    }

    /// This amount in quota units of `units_per_usd` (by default 500,000 to the USD), rounded **down**:
    /// what is shown is never more than what is there.
    pub fn quota_units(self, units_per_usd: i64) -> i64 {
        let units = (i128::from(self.0) * i128::from(units_per_usd)).div_euclid(i128::from(NANOS_PER_USD));
        i64::try_from(units).unwrap_or(if self.0 < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Sum for Nanos {
    /// Panics beyond 64 bits: sums of legs of one entry cannot reach them.
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, |a, b| a.checked_add(b).expect("legs of one entry fit 64 bits"))
    }
}

/// Decimal USD without trailing zeros beyond cents: `5.00`, `0.00125`. Written without an allocation: every answer
/// carries one.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, magnitude) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let (whole, mut fraction) = (magnitude / NANOS_PER_USD as u64, magnitude % NANOS_PER_USD as u64);
        let mut digits = [b'0'; AMOUNT_PLACES as usize];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        let kept = digits.iter().rposition(|&digit| digit != b'0').map_or(2, |last| (last + 1).max(2));
        let digits = std::str::from_utf8(&digits[..kept]).expect("digits are ASCII");
        write!(f, "{sign}{whole}.{digits}")
    }
}

impl FromStr for Nanos {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let nanos = parse_decimal(text, AMOUNT_PLACES)?;
        match i64::try_from(nanos) {
            Ok(i64::MIN) | Err(_) => Err(MoneyError::Overflow),
            Ok(nanos) => Ok(Self(nanos)),
        }
    }
}

impl Multiplier {
    /// The list price.
    pub const ONE: Self = Self(Self::MILLION);
    const MILLION: u32 = 1_000_000;
    /// A thousand times the list price: more is taken for a mistake.
    const MAX: i128 = 1_000 * Self::MILLION as i128;

    /// The factor in millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// A factor from millionths; none above 1000.
    pub fn from_millionths(millionths: u32) -> Option<Self> {
        (i128::from(millionths) <= Self::MAX).then_some(Self(millionths))
    }
}

impl Default for Multiplier {
    fn default() -> Self {
        Self::ONE
    }
}

/// A decimal such as `0.9`.
impl fmt::Display for Multiplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(i128::from(self.0), 6))
    }
}

impl FromStr for Multiplier {
    type Err = MoneyError;

    /// M-34: no sign, no exponent, at most six places, at most 1000.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match parse_decimal(text, 6)? {
            below if below < 0 => Err(MoneyError::Negative(text.to_owned())),
            above if above > Self::MAX => Err(MoneyError::Overflow),
            millionths => Ok(Self(u32::try_from(millionths).map_err(|_| MoneyError::Overflow)?)),
        }
    }
}

impl Serialize for Multiplier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Multiplier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Rate {
    /// Free.
    pub const ZERO: Self = Self(0);

    /// A rate from USD per million units, such as `"2.50"`.
    pub fn per_million(text: &str) -> Result<Self, MoneyError> {
        Self::checked(text, parse_decimal(text, AMOUNT_PLACES)?)
    }

    /// A rate from USD per single unit, such as `"0.04"` for an image.
    pub fn per_unit(text: &str) -> Result<Self, MoneyError> {
        // 15 places after the point of a USD are exactly one nano-USD per million units.
        Self::checked(text, parse_decimal(text, AMOUNT_PLACES + 6)?)
    }

    fn checked(text: &str, nanos_per_million: i128) -> Result<Self, MoneyError> {
        if nanos_per_million < 0 {
            return Err(MoneyError::Negative(text.to_owned()));
        }
        i64::try_from(nanos_per_million).map(Self).map_err(|_| MoneyError::Overflow)
    }

    /// Nano-USD per million units.
    pub fn nanos_per_million(self) -> i64 {
        self.0
    }

    /// USD per million units as a decimal.
    pub fn per_million_text(self) -> String {
        decimal(i128::from(self.0), AMOUNT_PLACES)
    }

    /// USD per single unit as a decimal.
    pub fn per_unit_text(self) -> String {
        decimal(i128::from(self.0), AMOUNT_PLACES + 6)
    }

    /// This rate times a decimal factor such as `"1.33"`, rounded **up** to the next nano-USD per million.
    pub fn times(self, factor: &str) -> Result<Self, MoneyError> {
        let parsed = parse_decimal(factor, AMOUNT_PLACES)?;
        if parsed < 0 {
            return Err(MoneyError::Negative(factor.to_owned()));
        }
        let scaled = parsed.checked_mul(i128::from(self.0)).ok_or(MoneyError::Overflow)?;
        let unit = i128::from(NANOS_PER_USD);
        Self::checked(factor, scaled.div_euclid(unit) + i128::from(scaled.rem_euclid(unit) != 0))
    }

    /// `count` units at this rate, in millionths of a nano-USD: to be summed before the one rounding.
    pub fn micro_product(self, count: u64) -> i128 {
        i128::from(count) * i128::from(self.0)
    }
}

/// Money travels as a decimal string, because JSON readers round large numbers.
impl Serialize for Nanos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Parses `[-]digits[.digits]` into an integer with `places` decimal places. No exponent, no sign but `-`.
fn parse_decimal(text: &str, places: u32) -> Result<i128, MoneyError> {
    let not_decimal = || MoneyError::NotDecimal(text.chars().take(64).collect());
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) {
        return Err(not_decimal());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > places as usize {
        return Err(MoneyError::TooPrecise { text: text.chars().take(64).collect(), places });
    }
    let mut value: i128 = 0;
    let padding = std::iter::repeat_n(b'0', places as usize - fraction.len());
    for digit in whole.bytes().chain(fraction.bytes()).chain(padding) {
        value =
            value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit - b'0'))).ok_or(MoneyError::Overflow)?;
    }
    Ok(if negative { -value } else { value })
}

/// Prints an integer with `places` decimal places, at least two of them.
fn decimal(value: i128, places: u32) -> String {
    let unit = 10_i128.pow(places);
    let sign = if value < 0 { "-" } else { "" };
    let (whole, fraction) = (value.abs() / unit, value.abs() % unit);
    let fraction = format!("{fraction:0width$}", width = places as usize);
    let kept = fraction.trim_end_matches('0').len().max(2);
    format!("{sign}{whole}.{}", &fraction[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_read_and_print() {
        let check = |text: &str, nanos: i64, printed: &str| {
            let amount: Nanos = text.parse().expect(text);
            assert_eq!((amount.0, amount.to_string().as_str()), (nanos, printed));
        };
        check("5", 5_000_000_000, "5.00");
        check("5.00", 5_000_000_000, "5.00");
        check("0.00125", 1_250_000, "0.00125");
        check("0", 0, "0.00");
        check("-0", 0, "0.00");
        check("-0.000000001", -1, "-0.000000001");
        check("0.5000000000000", 500_000_000, "0.50");
        check("9223372036.854775807", i64::MAX, "9223372036.854775807");
    }

    #[test]
    fn m_32_numbers_that_are_no_plain_decimal_are_refused() {
        for text in ["", ".", "1.", ".5", "1e3", "1e400", "+1", "--1", "NaN", "inf", "1,5", " 1", "0x10", "١"] {
            assert!(matches!(text.parse::<Nanos>(), Err(MoneyError::NotDecimal(_))), "{text:?}");
        }
        assert!(matches!("0.0000000001".parse::<Nanos>(), Err(MoneyError::TooPrecise { .. })));
    }

    #[test]
    fn m_28_amounts_beyond_64_bits_are_refused_and_never_wrap() {
        for text in ["9223372036.854775808", "-9223372036.854775808", "99999999999999999999999999999999999999999999"] {
            assert_eq!(text.parse::<Nanos>(), Err(MoneyError::Overflow), "{text}");
        }
        let most = Rate(i64::MAX).micro_product(u64::MAX);
        assert_eq!(Nanos::from_micro_products(most), Err(MoneyError::Overflow));
    }

    #[test]
    fn rates_read_both_forms() {
        assert_eq!(Rate::per_million("2.50").unwrap().nanos_per_million(), 2_500_000_000);
        assert_eq!(Rate::per_unit("0.04").unwrap().nanos_per_million(), 40_000_000_000_000);
        assert_eq!(Rate::per_unit("0.04").unwrap().per_unit_text(), "0.04");
        assert_eq!(Rate::per_million("0.5").unwrap().times("1.33").unwrap().per_million_text(), "0.665");
        assert!(matches!(Rate::per_million("-1"), Err(MoneyError::Negative(_))));
        for rate in ["0", "0.000000001", "1"] {
            assert!(matches!(Rate::per_million(rate).unwrap().times("-0.4"), Err(MoneyError::Negative(_))), "{rate}");
        }
    }

    #[test]
    fn a_rate_times_a_factor_is_rounded_up() {
        for (rate, factor, expected) in [(1, "0.5", 1), (2, "0.5", 1), (3, "0.5", 2), (7, "0", 0), (0, "9", 0)] {
            assert_eq!(Rate(rate).times(factor), Ok(Rate(expected)), "{rate} × {factor}");
        }
        assert_eq!([Rate::ZERO.per_million_text(), Rate::ZERO.per_unit_text()], ["0.00", "0.00"]);
    }

    #[test]
    fn m_31_the_rounding_is_up_and_less_than_one_nano() {
        for (sum, nanos) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(Nanos::from_micro_products(sum).unwrap(), Nanos(nanos));
        }
    }

    #[test]
    fn m_34_multipliers_are_plain_small_decimals() {
        for (text, millionths) in [("1", 1_000_000), ("0.9", 900_000), ("1000", 1_000_000_000), ("0", 0)] {
            assert_eq!(text.parse::<Multiplier>().unwrap().millionths(), millionths);
        }
        for text in ["-1", "NaN", "inf", "1e308", "", "1000.000001", "0.0000001", "99999999999999999999999999999999"] {
            assert!(text.parse::<Multiplier>().is_err(), "{text:?}");
        }
        assert_eq!("0.90".parse::<Multiplier>().unwrap().to_string(), "0.90");
        assert_eq!("-1".parse::<Multiplier>(), Err(MoneyError::Negative("-1".to_owned())));
        for (millionths, taken) in [(0, true), (900_000, true), (1_000_000_000, true), (1_000_000_001, false)] {
            let expected = taken.then_some(Multiplier(millionths));
            assert_eq!(Multiplier::from_millionths(millionths), expected, "{millionths}");
        }
    }

    #[test]
    fn m_31_a_multiplied_price_is_rounded_once_and_up() {
        let times = |sum, factor: &str| Nanos::from_micro_products_times(sum, factor.parse().unwrap()).unwrap().0;
        assert_eq!(times(1_000_000, "0.5"), 1);
        assert_eq!(times(1_500_000, "1.1"), 2, "1.65 is one rounding, not 2 × 1.1");
        assert_eq!(times(10_000_000, "0.25"), 3);
        assert_eq!(times(10_000_000, "0"), 0);
        let most = Nanos::from_micro_products_times(i128::MAX / 2, "1000".parse().unwrap());
        assert_eq!(most, Err(MoneyError::Overflow));
    }

    #[test]
    fn quota_units_never_show_more_than_is_there() {
        assert_eq!(Nanos(NANOS_PER_USD).quota_units(500_000), 500_000);
        assert_eq!(Nanos(1_999).quota_units(500_000), 0);
        assert_eq!(Nanos(-1).quota_units(500_000), -1);
        assert_eq!([Nanos(i64::MAX), Nanos(-i64::MAX)].map(|all| all.quota_units(i64::MAX)), [i64::MAX, i64::MIN]);
    }

    #[test]
    fn sums_are_of_everything() {
        assert_eq!([Nanos(1), Nanos(-3), Nanos(7)].into_iter().sum::<Nanos>(), Nanos(5));
    }

    proptest! {
        #[test]
        fn printing_and_reading_agree(nanos in -i64::MAX..i64::MAX) {
            prop_assert_eq!(Nanos(nanos).to_string().parse::<Nanos>().unwrap(), Nanos(nanos));
        }

        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = text.parse::<Nanos>();
            let _ = Rate::per_unit(&text);
        }
    }
}
