//! `[payments]`: who takes money by card, in what, and how much.

use super::{Lines, secret};
use crate::payments::stripe::{BASE_URL, BadAccount, Stripe};
use crate::payments::{Payments, Terms, webhook};
use anyhow::{Context, bail};
use domain::payment::{Currency, ExchangeRate, Quote};
use gateway::upstream::{HttpClient, http_client};
use serde::Deserialize;
use store::payments::Rules;
use toml::Spanned;

/// `[payments]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PaymentsEntry {
    /// Stripe. Without this section, nobody can pay by card.
    pub stripe: Option<StripeEntry>,
}

/// `[payments.stripe]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripeEntry {
    /// The secret key (`sk_…`) or a restricted one (`rk_…`) that may write customers, checkout sessions and payment
    /// intents. Whether payments are live or tests follows from it.
    pub secret_key: Spanned<String>,
    /// The signing secret of the webhook endpoint (`whsec_…`). Without it no event is taken, so nothing is credited.
    pub webhook_secret: Option<Spanned<String>>,
    /// Stripe's address, unless it is Stripe's own.
    pub base_url: Option<Spanned<String>>,
    /// Where customers return who paid. `{CHECKOUT_SESSION_ID}` in it is replaced by Stripe.
    pub success_url: Spanned<String>,
    /// Where they return when they did not. Default: as `success_url`.
    pub cancel_url: Option<Spanned<String>>,
    /// The currency that is charged. Default `usd`.
    pub currency: Option<Spanned<String>>,
    /// The USD that one unit of the currency buys, such as `"1.08"`. Needed for every currency but USD. An order keeps
    /// the rate that it was quoted at.
    pub usd_per_unit: Option<Spanned<String>>,
    /// The least payment, in the currency. Default `"5"`.
    pub minimum: Option<Spanned<String>>,
    /// The greatest. Default `"1000"`.
    pub maximum: Option<Spanned<String>>,
    /// Suspend an account while a payment of its is disputed. Default true.
    #[serde(default = "yes")]
    pub suspend_on_dispute: bool,
}

fn yes() -> bool {
    true
}

impl PaymentsEntry {
    pub(super) fn check(&self, lines: &Lines<'_>) -> anyhow::Result<()> {
        self.build_at(http_client(), |value| format!("{}: ", lines.of(value.span()))).map(|_| ())
    }

    /// Payments as they are to be served; `None` if nobody can pay by card.
    pub fn build(&self, client: HttpClient) -> anyhow::Result<Option<Payments>> {
        self.build_at(client, |_| String::new())
    }

    fn build_at(
        &self,
        client: HttpClient,
        place: impl Fn(&Spanned<String>) -> String,
    ) -> anyhow::Result<Option<Payments>> {
        let Some(entry) = &self.stripe else { return Ok(None) };
        let at = |name: &str, value: &Spanned<String>| format!("{}payments.stripe.{name}", place(value));
        let text =
            |name: &str, value: &Spanned<String>| secret::expand(value.as_ref()).with_context(|| at(name, value));
        let key = text("secret_key", &entry.secret_key)?;
        let base = match &entry.base_url {
            Some(base) => text("base_url", base)?,
            None => BASE_URL.to_owned(),
        };
        let stripe = match Stripe::new(client, &base, &key) {
            Ok(stripe) => stripe,
            Err(error @ BadAccount::SecretKey) => bail!("{}: {error}", at("secret_key", &entry.secret_key)),
            Err(error @ BadAccount::BaseUrl) => {
                bail!("{}: {error}", at("base_url", entry.base_url.as_ref().unwrap_or(&entry.secret_key)))
            }
        };
        let webhook = match &entry.webhook_secret {
            None => None,
            Some(secret) => match webhook::Secret::new(&text("webhook_secret", secret)?) {
                Some(secret) => Some(secret),
                None => {
                    bail!("{}: a signing secret is \"whsec_…\", from the endpoint's page", at("webhook_secret", secret))
                }
            },
        };
        let url = |name: &str, value: &Spanned<String>| {
            let url = text(name, value)?;
            let is_web = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
            if is_web { Ok(url) } else { bail!("{}: not an address such as \"https://…\"", at(name, value)) }
        };
        let success_url = url("success_url", &entry.success_url)?;
        let cancel_url = match &entry.cancel_url {
            Some(cancel_url) => url("cancel_url", cancel_url)?,
            None => success_url.clone(),
        };
        let terms = entry.terms(at)?;
        let rules = Rules { suspend_on_dispute: entry.suspend_on_dispute };
        Ok(Some(Payments { stripe, webhook, success_url, cancel_url, terms, rules }))
    }
}

impl StripeEntry {
    fn terms(&self, at: impl Fn(&str, &Spanned<String>) -> String) -> anyhow::Result<Terms> {
        let currency = match &self.currency {
            None => Currency::USD,
            Some(code) => code.as_ref().parse::<Currency>().with_context(|| at("currency", code))?,
        };
        let rate = match &self.usd_per_unit {
            Some(rate) => rate.as_ref().parse::<ExchangeRate>().with_context(|| at("usd_per_unit", rate))?,
            None if currency == Currency::USD => ExchangeRate::USD,
            None => bail!("payments.stripe.usd_per_unit: needed, because {currency} is not USD"),
        };
        if currency == Currency::USD && rate != ExchangeRate::USD {
            bail!("payments.stripe.usd_per_unit: one USD is one USD");
        }
        let amount = |name: &str, value: &Option<Spanned<String>>, default: &str| match value {
            Some(value) => currency.parse_amount(value.as_ref()).with_context(|| at(name, value)),
            None => Ok(currency.parse_amount(default)?),
        };
        let (minimum, maximum) = (amount("minimum", &self.minimum, "5")?, amount("maximum", &self.maximum, "1000")?);
        if minimum > maximum {
            bail!("payments.stripe.maximum: less than the minimum");
        }
        for bound in [minimum, maximum] {
            Quote::new(bound, currency, rate).context("payments.stripe: a payment must be worth something")?;
        }
        Ok(Terms { currency, rate, minimum, maximum })
    }
}
