//! What a request may cost at most, and whether that can be held.

use crate::catalog::Route;
use crate::failure::{Case, Failure};
use domain::ledger::{Headroom, Hold, Limits, Metric, Refusal};
use domain::price::Bound;
use domain::{Meter, Multiplier, Nanos, Timestamp, Usage};
use protocol::openai::{Endpoint, Request};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::keys::Caller;
use store::ledger::{HoldError, Ledger, OpenedHold};
use store::prices::Priced;

/// Output tokens that are assumed to be the most for a model whose maximum nobody knows, and asked for as a cap.
pub const UNKNOWN_OUTPUT_MAX: u64 = 16_384;
/// When funds do not cover a model's maximum and the caller set no cap, the cap that is asked for is at most this:
/// a request should not lock up everything that other requests could use.
const CAP_WHEN_SHORT_MAX: u64 = 4_096;
/// A cap below this helps nobody: refuse instead.
const CAP_WHEN_SHORT_MIN: u64 = 16;
/// Prompt tokens assumed for parts that are no text, where the model's maximum is unknown.
const UNKNOWN_MEDIA_TOKENS: u64 = 200_000;

/// An admitted request.
pub struct Admitted {
    /// The open hold.
    pub hold: OpenedHold,
    /// The output cap that the gateway sets because the caller set none.
    pub cap_to_set: Option<u64>,
}

/// Holds the most that a request can cost.
#[expect(clippy::too_many_arguments, reason = "the parts of one decision, each from another place")]
pub async fn admit(
    ledger: &Ledger,
    caller: &Caller,
    request: &Request<'_>,
    request_id: &Arc<str>,
    route: &Route,
    priced: &Priced,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Admitted, Failure> {
    let plan = Plan { request, priced, prompt_added: route.prompt_added.load(Ordering::Relaxed) };
    let (cap, cap_to_set) = plan.output_cap();
    let terms = |cap: u64| -> Result<Hold, Failure> {
        let bound = plan.bound(cap);
        let mut usage = bound.calls;
        usage[Meter::Input] = bound.input_tokens;
        usage[Meter::Output] = bound.output_tokens;
        let amount = priced.price.bound(&bound).map_err(|_| {
            let message = "The most that this request can cost is beyond any account. Lower max_tokens or n.";
            Failure::new(Case::BadRequest, message).param(request.cap_field.map(|field| field.name()))
        })?;
        Ok(Hold {
            key: caller.key.id,
            request: request_id.clone(),
            model: route.model.clone(),
            upstream: route.upstream.name.clone(),
            price: priced.id,
            multiplier: Multiplier::ONE,
            amount,
            bound: usage,
            lease_until,
            parts: Vec::new(),
            counted: Arc::default(),
        })
    };
    let (account, limits) = (caller.account.id, Limits::quota(caller.key.quota));
    let whole = terms(cap)?;
    let refusal = match ledger.hold(account, &whole, &limits, now).await {
        Ok(hold) => return Ok(Admitted { hold, cap_to_set }),
        Err(HoldError::Refused(refusal)) => refusal,
        Err(error) => return Err(not_held(error)),
    };
    // The caller left the length open and funds do not cover the greatest: ask for what they do cover.
    if request.output_cap.is_none()
        && let Some(smaller) = plan.affordable_cap(ledger, caller, &limits, now).await.filter(|smaller| *smaller < cap)
        && let Ok(hold) = ledger.hold(account, &terms(smaller)?, &limits, now).await
    {
        return Ok(Admitted { hold, cap_to_set: Some(smaller) });
    }
    Err(refused(refusal, caller))
}

struct Plan<'a> {
    request: &'a Request<'a>,
    priced: &'a Priced,
    prompt_added: u64,
}

impl Plan<'_> {
    /// The most answer tokens of one choice, and whether the upstream must be told.
    fn output_cap(&self) -> (u64, Option<u64>) {
        if self.request.endpoint == Endpoint::Embeddings {
            return (0, None);
        }
        match (self.request.output_cap, self.priced.price.output_tokens_max) {
            (Some(asked), Some(most)) => (asked.min(most), None),
            (Some(asked), None) => (asked, None),
            (None, Some(most)) => (most, None),
            (None, None) => (UNKNOWN_OUTPUT_MAX, Some(UNKNOWN_OUTPUT_MAX)),
        }
    }

    fn bound(&self, cap: u64) -> Bound {
        let mut bound = self.request.bound(cap);
        bound.input_tokens += self.prompt_added;
        let most = self.priced.price.input_tokens_max;
        let request = self.request;
        if request.has_images || request.has_audio || request.has_files {
            bound.input_tokens = bound.input_tokens.max(most.unwrap_or(UNKNOWN_MEDIA_TOKENS));
        }
        bound.calls = calls(self.priced, request.web_search);
        bound
    }

    /// The cap that funds allow, if it is worth asking for.
    async fn affordable_cap(&self, ledger: &Ledger, caller: &Caller, limits: &Limits, now: Timestamp) -> Option<u64> {
        if self.request.endpoint == Endpoint::Embeddings {
            return None;
        }
        let Headroom { money, tokens } = ledger.headroom(caller.account.id, caller.key.id, limits, now).await.ok()?;
        let without_output = self.bound(0);
        let left = money.0 - self.priced.price.bound(&without_output).ok()?.0;
        let rate = i128::from(self.priced.price.dearest_output(&without_output).nanos_per_million());
        // One nano-USD less, because the whole is rounded up once.
        let by_money = match rate {
            0 => i128::from(CAP_WHEN_SHORT_MAX),
            rate => i128::from(left - 1) * 1_000_000 / rate / i128::from(self.request.choices.max(1)),
        };
        let by_tokens = tokens.map_or(i128::MAX, |tokens| {
            i128::from(tokens.saturating_sub(without_output.input_tokens) / self.request.choices.max(1))
        });
        let cap = u64::try_from(by_money.min(by_tokens)).ok()?.min(CAP_WHEN_SHORT_MAX);
        (cap >= CAP_WHEN_SHORT_MIN).then_some(cap)
    }
}

fn not_held(error: HoldError) -> Failure {
    match error {
        HoldError::TooManyOpen => {
            Failure::new(Case::TooManyOpen, "Too many requests are open on this gateway. Try again in a moment.")
                .retry_after(Duration::from_secs(1))
        }
        HoldError::Unavailable | HoldError::Refused(_) => store_unavailable("the ledger takes no hold"),
    }
}

/// Nothing that costs money is done while the journal cannot be written.
pub fn store_unavailable(detail: impl Into<String>) -> Failure {
    Failure::new(Case::StoreUnavailable, "The gateway cannot write its ledger now. Try again in a moment.")
        .retry_after(Duration::from_secs(2))
        .detail(detail)
}

/// What binds, how much, and what to do: the message of a 402.
fn refused(refusal: Refusal, caller: &Caller) -> Failure {
    let (key, account) = (&caller.key.name, &caller.account.name);
    let (scope, message) = match refusal {
        Refusal::Wallet { available, needed } if available == Nanos::ZERO => (
            "wallet",
            format!("The account \"{account}\" has no balance left; this request can cost up to ${needed}. Top it up."),
        ),
        Refusal::Wallet { available, needed } => (
            "wallet",
            format!(
                "The account \"{account}\" has ${available} left, and this request can cost up to ${needed}. Top it \
                 up, or lower max_tokens."
            ),
        ),
        Refusal::Debt { owed } => ("debt", format!("The account \"{account}\" owes ${owed}. Top it up to continue.")),
        Refusal::KeyMoney { quota, used, held, needed } => {
            let reserved = if held > Nanos::ZERO { format!(" and ${held} is reserved") } else { String::new() };
            (
                "key",
                format!(
                    "You have exceeded your quota: key \"{key}\" has used ${used} of ${quota}{reserved}; this request \
                     can cost up to ${needed}. The quota does not reset by itself: ask for a larger one."
                ),
            )
        }
        Refusal::KeyTokens { quota, used, held, needed } => {
            let reserved = if held > 0 { format!(" and {held} are reserved") } else { String::new() };
            (
                "key",
                format!(
                    "You have exceeded your quota: key \"{key}\" has used {used} of {quota} tokens{reserved}; this \
                     request can take up to {needed}. The quota does not reset by itself: ask for a larger one."
                ),
            )
        }
        Refusal::Budget { budget, used, held, needed } => {
            let amount = |count| amount(budget.metric, count);
            let name = &budget.name;
            (
                "budget",
                format!(
                    "The budget \"{name}\" has {} left of {} ({} used, {} reserved); this request can take up to {}.{}",
                    amount((budget.limit - used - held).max(0)),
                    amount(budget.limit),
                    amount(used),
                    amount(held),
                    amount(needed),
                    resets(budget.counted.period.end),
                ),
            )
        }
        Refusal::Allowance { window, metric, left, needed, resets_at } => {
            let of = window.map_or("this cycle".to_owned(), |window| format!("its {window}"));
            (
                "subscription",
                format!(
                    "The subscription of \"{account}\" has {} left of {of}; this request can take up to {}, and the \
                     fallback to the wallet is off.{}",
                    amount(metric, left),
                    amount(metric, needed),
                    resets(resets_at),
                ),
            )
        }
        Refusal::Unpaid { price, available } => (
            "subscription",
            format!(
                "The subscription of \"{account}\" is not paid: a cycle costs ${price}, and the wallet has \
                 ${available}. Top it up."
            ),
        ),
        Refusal::NotOpen | Refusal::Forbidden(_) => ("wallet", "The ledger refuses this request.".to_owned()),
    };
    Failure::new(Case::QuotaExceeded { scope }, message)
}

/// An amount in words.
fn amount(metric: Metric, count: i64) -> String {
    match metric {
        Metric::Money => format!("${}", Nanos(count)),
        Metric::Tokens => format!("{count} tokens"),
        Metric::Requests => format!("{count} requests"),
    }
}

/// When there is more, in words, if ever.
fn resets(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(at) if at < jiff::Timestamp::MAX => format!(" It resets at {at}."),
        _ => " It does not reset by itself: ask for a larger one.".to_owned(),
    }
}

/// What is billed beside tokens, as far as the model has a price for it.
pub fn calls(priced: &Priced, web_search: bool) -> Usage {
    let mut usage = Usage::default();
    usage[Meter::Request] = u64::from(priced.price.prices(Meter::Request));
    usage[Meter::WebSearch] = u64::from(web_search && priced.price.prices(Meter::WebSearch));
    usage
}
