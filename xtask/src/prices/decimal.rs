//! Decimal amounts as the source writes them, without a float in between.

use std::cmp::Ordering;
use std::fmt;

/// Digits that a price is believed to have on purpose. What follows is dust of somebody's float arithmetic.
const SIGNIFICANT_DIGITS: u32 = 12;
/// More digits than any double prints; more would not fit the arithmetic here.
const DIGITS_MAX: usize = 30;
/// Powers of ten that a price may carry. Beyond it the source is broken.
const EXPONENT_MAX: i32 = 30;

/// `digits × 10^exponent`, never negative.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: u128,
    exponent: i32,
}

impl Decimal {
    /// Reads a JSON number. `None` for what is negative, no number, or out of any sensible range.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || all.len() > DIGITS_MAX || !all.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let exponent = exponent.parse::<i32>().ok().filter(|e| e.abs() <= EXPONENT_MAX)?;
        let places = i32::try_from(fraction.len()).ok()?;
        Some(Self { digits: all.parse().ok()?, exponent: exponent - places }.normal())
    }

    pub fn is_zero(self) -> bool {
        self.digits == 0
    }

    /// The value times `10^places`: the point moves, the digits stay.
    pub fn shifted(self, places: i32) -> Self {
        Self { exponent: self.exponent + places, ..self }
    }

    /// Rounded half up to the digits that count, and whether that changed anything.
    pub fn without_dust(self) -> (Self, bool) {
        let excess = (self.digits.checked_ilog10().map_or(0, |log| log + 1)).saturating_sub(SIGNIFICANT_DIGITS);
        let unit = 10_u128.pow(excess);
        let digits = (self.digits + unit / 2) / unit;
        (Self { digits, exponent: self.exponent + excess.cast_signed() }.normal(), excess > 0)
    }

    /// Rounded **up** to `places` digits after the point, and whether that changed anything.
    /// Up, so that what is charged is never below the list price.
    pub fn within(self, places: i32) -> (Self, bool) {
        let excess = -self.exponent - places;
        if excess <= 0 {
            return (self, false);
        }
        let digits = self.digits.div_ceil(10_u128.pow(excess.unsigned_abs().min(38)));
        (Self { digits, exponent: -places }.normal(), true)
    }

    /// The value as a whole number, if it is one.
    pub fn whole(self) -> Option<u64> {
        let factor = 10_u128.checked_pow(u32::try_from(self.exponent).ok()?)?;
        u64::try_from(self.digits.checked_mul(factor)?).ok()
    }

    /// The one form of a value: no trailing zeros in the digits.
    fn normal(mut self) -> Self {
        if self.digits == 0 {
            return Self { digits: 0, exponent: 0 };
        }
        while self.digits.is_multiple_of(10) {
            self.digits /= 10;
            self.exponent += 1;
        }
        self
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        // As text with the points aligned, because digits of very different exponents share no integer type.
        let padded = |value: &Self| {
            let text = value.to_string();
            let (whole, fraction) = text.split_once('.').expect("the text form has a point");
            (whole.len(), whole.to_owned(), fraction.to_owned())
        };
        padded(self).cmp(&padded(other))
    }
}

/// Plain digits with at least two after the point: `2.50`, `0.0000125`.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(places) = usize::try_from(-self.exponent) else {
            let zeros = usize::try_from(self.exponent).unwrap_or(0);
            return write!(f, "{}{}.00", self.digits, "0".repeat(zeros));
        };
        let digits = format!("{:0width$}", self.digits, width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        write!(f, "{whole}.{fraction:0<2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Decimal {
        Decimal::parse(text).expect(text)
    }

    #[test]
    fn numbers_keep_their_digits_whatever_their_notation() {
        for (text, printed) in [
            ("0", "0.00"),
            ("0.0", "0.00"),
            ("5", "5.00"),
            ("1200", "1200.00"),
            ("2.5e-06", "0.0000025"),
            ("1E+2", "100.00"),
            ("0.04", "0.04"),
            ("0.5", "0.50"),
            ("12.345", "12.345"),
            ("2.0751953125e-09", "0.0000000020751953125"),
        ] {
            assert_eq!(read(text).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in ["-1", "-0.5", "", ".", "\"1\"", "null", "true", "NaN", "1e", "1e400", "{}", "1.2.3", "+1"] {
            assert!(Decimal::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn per_token_becomes_per_million_by_moving_the_point() {
        for (text, printed) in [
            ("2.5e-06", "2.50"),
            ("1e-05", "10.00"),
            ("1.5e-07", "0.15"),
            ("3e-09", "0.003"),
            ("0.00045", "450.00"),
            ("1.2875e-07", "0.12875"),
        ] {
            assert_eq!(read(text).shifted(6).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn float_dust_is_rounded_half_up_to_twelve_digits() {
        for (text, printed, changed) in [
            ("1.2500000000000001e-06", "1.25", true),
            ("9.499999999999999e-07", "0.95", true),
            ("2.9999900000000002e-06", "2.99999", true),
            ("9.999999999999999e-06", "10.00", true),
            ("1.234567890125e-06", "1.23456789013", true),
            ("1.23456789012e-06", "1.23456789012", false),
            ("2.5e-06", "2.50", false),
        ] {
            let (value, was_changed) = read(text).without_dust();
            assert_eq!((value.shifted(6).to_string().as_str(), was_changed), (printed, changed), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_the_places_is_rounded_up() {
        for (text, places, printed, changed) in [
            ("0.114285714286", 9, "0.114285715", true),
            ("0.1142857140", 9, "0.114285714", false),
            ("0.0000000000001", 9, "0.000000001", true),
            ("12", 9, "12.00", false),
        ] {
            let (value, was_changed) = read(text).within(places);
            assert_eq!((value.to_string().as_str(), was_changed), (printed, changed), "{text}");
        }
    }

    #[test]
    fn values_compare_as_numbers_and_whole_ones_are_recognised() {
        assert!(read("2e-06") < read("0.00001"));
        assert!(read("10") > read("9.99"));
        assert!(read("0.5") > read("0.45"));
        assert_eq!(read("1.0"), read("1"));
        assert_eq!(read("256000.0").whole(), Some(256_000));
        assert_eq!(read("0").whole(), Some(0));
        assert_eq!(read("0.5").whole(), None);
    }
}
