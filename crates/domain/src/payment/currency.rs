//! Currencies as payment providers count them: whole numbers of minor units, with 0, 2 or 3 decimals (M-36).

use crate::money::{MoneyError, Nanos};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Currencies without minor units.
const NO_DECIMALS: [&str; 15] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"];
/// Currencies with three decimals. Card networks carry only two of them: the last digit must be 0.
const THREE_DECIMALS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];
/// Currencies that lost their minor units but are still counted in hundredths: whole units only.
const WHOLE_UNITS_ONLY: [&str; 2] = ["isk", "ugx"];

/// An amount in the minor units of a currency (cents, yen, fils).
pub type Minor = i64;

/// A currency by its ISO 4217 code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// USD per one unit of a currency, in nano-USD: what one EUR is worth, not one cent. Always positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExchangeRate(i64);

/// A currency or rate that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CurrencyError {
    /// Not three letters.
    #[error("{0:?} is not a currency such as \"usd\"")]
    NotACurrency(String),
    /// Zero or less USD for a unit.
    #[error("a rate is the USD that one unit of the currency is worth, and more than zero")]
    NotPositive,
    /// An amount that cards in this currency cannot carry.
    #[error("an amount in {currency} is a multiple of {step} minor units")]
    NotInSteps {
        /// The currency.
        currency: Currency,
        /// What amounts are multiples of.
        step: Minor,
    },
    /// Not readable as a number, or beyond 64 bits.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl Currency {
    /// The unit of the ledger.
    pub const USD: Self = Self(*b"usd");

    /// The code in lower case, as Stripe writes it.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is three ASCII letters")
    }

    /// Decimal places of its amounts as providers count them.
    pub fn decimals(self) -> u32 {
        match self.code() {
            code if NO_DECIMALS.contains(&code) => 0,
            code if THREE_DECIMALS.contains(&code) => 3,
            _ => 2,
        }
    }

    /// What amounts must be multiples of.
    pub fn step(self) -> Minor {
        match self.code() {
            code if THREE_DECIMALS.contains(&code) => 10,
            code if WHOLE_UNITS_ONLY.contains(&code) => 100,
            _ => 1,
        }
    }

    /// Minor units of an amount written in whole units, such as `"12.50"`.
    pub fn parse_amount(self, text: &str) -> Result<Minor, CurrencyError> {
        let nanos: Nanos = text.parse()?;
        let unit = 1_000_000_000 / 10_i64.pow(self.decimals());
        let (minor, rest) = (nanos.0.div_euclid(unit), nanos.0.rem_euclid(unit));
        if rest != 0 {
            return Err(
                MoneyError::TooPrecise { text: text.chars().take(64).collect(), places: self.decimals() }.into()
            );
        }
        self.check_amount(minor)?;
        Ok(minor)
    }

    /// Refuses what a card cannot be charged.
    pub fn check_amount(self, minor: Minor) -> Result<(), CurrencyError> {
        let step = self.step();
        if minor % step == 0 { Ok(()) } else { Err(CurrencyError::NotInSteps { currency: self, step }) }
    }

    /// An amount in whole units: `12.50`, `500`, `1.230`.
    pub fn amount_text(self, minor: Minor) -> String {
        let places = self.decimals() as usize;
        let (sign, magnitude) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
        let unit = 10_u64.pow(self.decimals());
        match places {
            0 => format!("{sign}{magnitude}"),
            _ => format!("{sign}{}.{:0places$}", magnitude / unit, magnitude % unit),
        }
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;

    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        let lower = text.to_ascii_lowercase();
        match <[u8; 3]>::try_from(lower.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_lowercase) => Ok(Self(code)),
            _ => Err(CurrencyError::NotACurrency(text.chars().take(16).collect())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = CurrencyError;

    fn try_from(text: String) -> Result<Self, CurrencyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code().to_ascii_uppercase())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl ExchangeRate {
    /// One USD is one USD.
    pub const USD: Self = Self(crate::money::NANOS_PER_USD);

    /// A rate from nano-USD per unit.
    pub fn from_nanos(nanos_per_unit: i64) -> Result<Self, CurrencyError> {
        if nanos_per_unit > 0 { Ok(Self(nanos_per_unit)) } else { Err(CurrencyError::NotPositive) }
    }

    /// Nano-USD per unit.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// What an amount is worth, rounded **down** to the nano-USD: nobody is credited more than was paid.
    pub fn value(self, minor: Minor, currency: Currency) -> Result<Nanos, MoneyError> {
        let unit = 10_i128.pow(currency.decimals());
        let nanos = (i128::from(minor) * i128::from(self.0)).div_euclid(unit);
        i64::try_from(nanos).map(Nanos).map_err(|_| MoneyError::Overflow)
    }
}

/// A rate as written: USD per unit, such as `"1.08"`.
impl FromStr for ExchangeRate {
    type Err = CurrencyError;

    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        Self::from_nanos(text.parse::<Nanos>()?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_36_amounts_have_0_2_or_3_decimals() {
        let check = |code: &str, text: &str, minor: Minor, printed: &str| {
            let currency: Currency = code.parse().unwrap();
            assert_eq!(currency.parse_amount(text), Ok(minor), "{text} {code}");
            assert_eq!(currency.amount_text(minor), printed, "{text} {code}");
        };
        check("USD", "12.5", 1250, "12.50");
        check("jpy", "500", 500, "500");
        check("kwd", "1.23", 1230, "1.230");
        check("isk", "5", 500, "5.00");
        for (code, text) in [("usd", "0.001"), ("jpy", "0.5"), ("kwd", "1.234"), ("isk", "5.50"), ("usd", "1e3")] {
            assert!(code.parse::<Currency>().unwrap().parse_amount(text).is_err(), "{text} {code}");
        }
    }

    #[test]
    fn m_36_what_an_amount_is_worth_follows_from_rate_and_decimals_rounded_down() {
        let check = |code: &str, minor: Minor, rate: &str, worth: &str| {
            let (currency, rate): (Currency, ExchangeRate) = (code.parse().unwrap(), rate.parse().unwrap());
            assert_eq!(rate.value(minor, currency).unwrap(), worth.parse().unwrap(), "{minor} {code}");
        };
        check("usd", 1999, "1", "19.99");
        check("eur", 1000, "1.08", "10.80");
        check("jpy", 500, "0.0067", "3.35");
        check("kwd", 1230, "3.25", "3.9975");
        check("usd", 1, "0.000000001", "0");
        assert_eq!("1.08".parse::<ExchangeRate>().unwrap().nanos(), 1_080_000_000);
    }

    #[test]
    fn currencies_and_amounts_as_texts() {
        let euro: Currency = "Eur".parse().unwrap();
        assert_eq!((euro.to_string().as_str(), String::from(euro).as_str()), ("EUR", "eur"));
        let printed = [-1_250, -5, 0, 5].map(|minor| euro.amount_text(minor));
        assert_eq!(printed, ["-12.50", "-0.05", "0.00", "0.05"]);
    }

    #[test]
    fn what_is_no_currency_or_rate_is_refused() {
        for text in ["", "us", "usdt", "u$d", "ü1", "123"] {
            assert!(matches!(text.parse::<Currency>(), Err(CurrencyError::NotACurrency(_))), "{text}");
        }
        for text in ["0", "-1", "", "NaN", "1e9"] {
            assert!(text.parse::<ExchangeRate>().is_err(), "{text}");
        }
        assert_eq!(ExchangeRate::USD.value(i64::MAX, Currency::USD), Err(MoneyError::Overflow));
    }
}
