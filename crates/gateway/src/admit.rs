//! What a request may cost at most, what of that is held, and whether it can be.
//!
//! A request whose greatest price is a small part of the funds is held at that price, and nothing else changes. Where
//! funds are short, the greatest price of one request must not lock up what ten others really need. Then less is held:
//! what is reasonable. The rest of a stream's price is held as it flows ([`Terms::extends_to`]); any other answer is
//! capped to what its hold pays for, which the caller is told.
//!
//! What is reasonable keeps a promise: ten requests at once that really need a thirtieth of the funds each, a third in all,
//! are all served, whatever they could cost at most and whatever was learned of others. A whole answer that is alone may
//! take two fifths of the funds, beside any other one a part of [`AT_ONCE`]: two fifths and nine such parts leave a quarter for
//! what the bounds of the prompts are beyond their tokens. Only where answers are expected to need more than that, so that
//! ten of them are beyond the promise anyway, each is held at what is usual.
//!
//! A subscription's multiplier is for what the subscription pays by itself ([`PlanAlone`]): for a request of which it pays the
//! most that may come, or gives as much by itself as everything together would at the account's own multiplier. Such a
//! hold draws on nothing else, now and when it grows.

use crate::catalog::Route;
use crate::failure::{Case, Failure, QuotaScope};
use crate::growth::Growth;
use crate::learned::Learned;
use crate::tokens::{Tokenizers, has_own_vocabulary};
use bytes::Bytes;
use domain::budget::Values;
use domain::ledger::{Binding, Headroom, Hold, Limits, Metric, Parts, PlanAlone, Refusal};
use domain::price::{Bound, Price};
use domain::usage::COUNT_MAX;
use domain::{BudgetId, Meter, Multiplier, Nanos, Period, Timestamp, Usage};
use protocol::openai::{ChoiceStates, Demand};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::keys::{Caller, OnShortFunds};
use store::ledger::{HoldError, Ledger, OpenedHold};
use store::prices::Priced;

/// Output tokens that are assumed to be the most for a model whose maximum nobody knows, and asked for as a cap.
pub const UNKNOWN_OUTPUT_MAX: u64 = 16_384;
/// Funds are ample for a request that costs at most this part of them; where they are not, this part of what is left is
/// worth an answer.
const SHARES: u64 = 16;
/// This part of the funds, with what open requests hold of them, is worth an answer however little is left: see the
/// module's description.
const AT_ONCE: u64 = 25;
/// A cap below this helps nobody: refuse instead.
const CAPPED_OUTPUT_MIN: u64 = 16;
/// Output tokens that are expected of an answer of which nothing was learned.
pub const OUTPUT_EXPECTED: u64 = 128;
/// Prompt tokens assumed for parts that are no text, where the model's maximum is unknown.
const UNKNOWN_MEDIA_TOKENS: u64 = 200_000;
/// The longest body that is counted where its bytes would be too much to hold.
const COUNTED_BYTES_MAX: usize = 1024 * 1024;
/// How often a provider reads a prompt, and what its own tools added to it, in one answer, each time billed: Anthropic pauses
/// after ten uses of its tools. What a report has beyond that is not believed.
const READINGS_MAX: u64 = 10;
/// How often a hold is tried anew when others were quicker to take what was there.
const TRIES_MAX: usize = 4;

/// Models, by the beginning of their name, whose streams do not show all the tokens that they bill: they think unseen.
/// Others are learned from what they report.
const HIDING: [&str; 9] = ["o1", "o3", "o4", "gpt-5", "codex-", "gemini-2.5", "gemini-3", "grok-3-mini", "grok-4"];

/// An admitted request.
pub struct Admitted {
    /// The open hold.
    pub hold: OpenedHold,
    /// On what terms.
    pub terms: Terms,
}

/// What is held for a request, and what it may come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The consumption that is held for.
    pub bound: Bound,
    /// Its greatest price.
    pub amount: Nanos,
    /// What is paid of list prices.
    pub multiplier: Multiplier,
    /// Only the subscription may pay, because it is its multiplier.
    pub plan_alone: bool,
    /// So much is held because nothing else is open.
    pub only_open: bool,
    /// The output cap that the upstream is sent, in place of the caller's or because there is none.
    pub cap_to_set: Option<u64>,
    /// The most answer tokens over all choices, if the hold is to grow while the stream flows.
    pub extends_to: Option<u64>,
    /// Our own count of the request, if the prompt's part was held by it.
    pub prompt_counted: Option<u64>,
}

/// What can be held for a request now: the least of all that it draws on.
#[derive(Clone, Copy, Debug)]
pub struct Funds {
    /// In money.
    pub money: Nanos,
    /// In tokens, if anything counts them.
    pub tokens: Option<u64>,
    /// What leaves no more money than that, and no more tokens.
    pub by: (Binding, Binding),
    /// What open requests hold of the same.
    pub held: (Nanos, u64),
    /// No request of the account is open.
    pub is_quiet: bool,
    /// What is paid of list prices: the subscription's multiplier where that pays alone, else the account's own.
    pub multiplier: Multiplier,
    /// It is the subscription's, and another one than the account's own.
    pub plan_alone: bool,
}

/// What a decision about a request goes by.
pub struct Asking<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub request: &'a Demand<'a>,
    /// The same, as bytes.
    pub body: &'a Bytes,
    /// Who serves it.
    pub route: &'a Route,
    /// At what price.
    pub priced: &'a Priced,
    /// What answers usually need.
    pub learned: &'a Learned,
    /// For counting prompts.
    pub tokenizers: &'a Tokenizers,
    /// What limits it beside the funds.
    pub limits: &'a Limits,
    /// The most answer tokens of one choice that limits on single requests allow.
    pub output_limit: Option<u64>,
}

/// Holds what a request can cost, or what of it is reasonable.
pub async fn admit(
    ledger: &Ledger,
    asking: &Asking<'_>,
    request_id: &Arc<str>,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Admitted, Failure> {
    let mut prompt = asking.prompt();
    for attempt in 1.. {
        let (funds, terms) = asking.decide(ledger, &mut prompt, now).await?;
        let hold = asking.hold(&terms, request_id.clone(), lease_until);
        match ledger.hold(asking.caller.account.id, &hold, &terms.limits(asking.limits), now).await {
            Ok(hold) => return Ok(Admitted { hold, terms }),
            // It would have fitted a moment ago: look again at what there is.
            Err(HoldError::Refused(_)) if terms.fits(funds) && attempt < TRIES_MAX => {}
            Err(error) => return Err(asking.not_held(error)),
        }
    }
    unreachable!("the last attempt returns")
}

/// Whether terms could be held now. Changes nothing.
pub async fn verdict(ledger: &Ledger, asking: &Asking<'_>, terms: &Terms, now: Timestamp) -> Result<(), Failure> {
    let hold = asking.hold(terms, Arc::default(), now);
    let verdict = ledger.would_hold(asking.caller.account.id, &hold, &terms.limits(asking.limits), now).await;
    verdict.map_err(|error| asking.not_held(error))
}

/// The prompt's size as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Prompt {
    /// The model's tokenizer makes no more tokens of it.
    tokens_max: u64,
    /// Our own count of the whole request, if it was made.
    pub counted: Option<u64>,
}

impl Asking<'_> {
    /// What to hold, and what there is of which that was decided.
    pub async fn decide(
        &self,
        ledger: &Ledger,
        prompt: &mut Prompt,
        now: Timestamp,
    ) -> Result<(Funds, Terms), Failure> {
        let Caller { account, key, .. } = self.caller;
        let headroom = ledger.headroom(account.id, key.id, self.limits, now).await;
        let headroom = headroom.map_err(|error| store_unavailable(error.to_string()))?;
        let (funds, terms) = self.within(headroom, prompt).await?;
        let subscription_counts = funds.tokens.is_some() && matches!(funds.by.1, Binding::Funds | Binding::Allowance);
        if !subscription_counts || terms.are_ample(funds) {
            return Ok((funds, terms));
        }
        // Its tokens are nearly used up; what else there is may pay for more.
        let beside = ledger.headroom_beside_tokens(account.id, key.id, self.limits, now);
        let (funds_beside, beside) = self.within(beside, prompt).await?;
        let is_better = beside.worth(funds_beside) > terms.worth(funds);
        Ok(if is_better { (funds_beside, beside) } else { (funds, terms) })
    }

    /// What to hold within what there is, and at which multiplier.
    async fn within(&self, headroom: Headroom, prompt: &mut Prompt) -> Result<(Funds, Terms), Failure> {
        let Headroom { money, money_by, money_held, tokens, tokens_by, tokens_held, is_quiet, plan } = headroom;
        let own = self.caller.account.price_multiplier();
        let (by, held) = ((money_by, tokens_by), (money_held, tokens_held));
        let funds = Funds { money, tokens, by, held, is_quiet, multiplier: own, plan_alone: false };
        let Some(plan) = plan else { return Ok((funds, self.terms(funds, prompt).await?)) };
        let at_plan_s = Funds { multiplier: plan.multiplier, plan_alone: plan.multiplier != own, ..funds };
        let terms = self.terms(at_plan_s, prompt).await?;
        if plan.is_all || self.is_paid_by(&plan, &terms) {
            return Ok((at_plan_s, terms));
        }
        let least = |tokens: u64| plan.tokens.map_or(tokens, |of_plan| of_plan.min(tokens));
        let alone = Funds { money: money.min(plan.money), tokens: tokens.map(least).or(plan.tokens), ..at_plan_s };
        let (of_plan, of_all) = (self.terms(alone, prompt).await?, self.terms(funds, prompt).await?);
        let is_enough = of_plan.worth(alone) >= of_all.worth(funds);
        Ok(if is_enough { (alone, of_plan) } else { (funds, of_all) })
    }

    /// The subscription pays all that the request may come to.
    fn is_paid_by(&self, plan: &PlanAlone, terms: &Terms) -> bool {
        let most = Bound { output_tokens: terms.output_max(), ..terms.bound.clone() };
        let tokens = most.input_tokens.saturating_add(most.output_tokens);
        plan.tokens.is_none_or(|left| tokens <= left)
            && self.price(&most, plan.multiplier).is_some_and(|amount| amount <= plan.money)
    }

    /// The terms, in the ledger's form.
    fn hold(&self, terms: &Terms, request: Arc<str>, lease_until: Timestamp) -> Hold {
        Hold {
            key: self.caller.key.id,
            request,
            model: self.route.model.clone(),
            upstream: self.route.upstream.name.clone(),
            price: self.priced.id,
            multiplier: terms.multiplier,
            amount: terms.amount,
            bound: terms.usage(),
            lease_until,
            parts: Parts::new(),
            counted: Arc::default(),
        }
    }

    /// The prompt's bound by its bytes.
    pub fn prompt(&self) -> Prompt {
        Prompt { tokens_max: self.request.input_tokens_bound, counted: None }
    }

    /// What to hold where `funds` are there.
    pub async fn terms(&self, funds: Funds, prompt: &mut Prompt) -> Result<Terms, Failure> {
        if self.request.reads_more && !funds.is_quiet {
            // What the provider's tools read is billed again and again. One such request may come to more than its hold;
            // beside others each is held for all that is believed of it, so that together they owe no more than one can.
            return self.most(funds, Prompt { tokens_max: read_at_most(self.request, &self.priced.price), ..*prompt });
        }
        let whole = self.most(funds, *prompt)?;
        if whole.are_ample(funds) {
            return Ok(whole);
        }
        self.count(prompt).await;
        let whole = self.most(funds, *prompt)?;
        let refuses = self.caller.key.on_short_funds == OnShortFunds::Refuse;
        if whole.are_ample(funds) || refuses || self.request.answer_tokens.is_some() {
            return Ok(whole);
        }
        self.reasonable(funds, *prompt, whole)
    }

    /// The most that the request can consume.
    pub fn most(&self, funds: Funds, prompt: Prompt) -> Result<Terms, Failure> {
        let (most, cap_to_set) = self.output_max();
        self.held_for(most, prompt, funds, cap_to_set)
    }

    /// Counts the prompt, because its bytes are a bad measure. The whole body is counted, its syntax in place of the
    /// provider's framing.
    ///
    /// By the model's own vocabulary that is believed, unless the model was seen to report more. By another one it is
    /// believed only once it was seen how far the two are apart, and then with a margin.
    pub async fn count(&self, prompt: &mut Prompt) {
        let Asking { request, body, route, learned, tokenizers, .. } = self;
        if prompt.counted.is_some() || body.len() > COUNTED_BYTES_MAX || has_media(request) {
            return;
        }
        // What is held for fewer tokens than it has bytes is not held by its text.
        let Some(beside_text) = request.input_tokens_bound.checked_sub(body.len() as u64) else { return };
        let text = String::from_utf8_lossy(body).into_owned();
        let counted = tokenizers.count(&route.upstream_model, text).await;
        prompt.counted = Some(counted);
        let seen = learned.prompt_thousandths(&route.model).map(|seen| seen.max(1_000));
        let thousandths = match (has_own_vocabulary(&route.upstream_model), seen) {
            (true, seen) => seen.unwrap_or(1_000),
            (false, Some(seen)) => seen.saturating_mul(5) / 4,
            (false, None) => return,
        };
        let tokens = counted.saturating_mul(thousandths).div_ceil(1_000).saturating_add(beside_text);
        prompt.tokens_max = prompt.tokens_max.min(tokens);
    }

    /// The answer tokens that one choice is expected to have.
    pub fn output_expected(&self) -> u64 {
        let (most, _) = self.output_max();
        if self.request.answer_tokens.is_some() {
            return most;
        }
        let learned = self.learned.expected(self.caller.key.id, &self.route.model);
        learned.unwrap_or(OUTPUT_EXPECTED).min(most)
    }

    /// The most answer tokens of one choice, and whether the upstream must be told.
    fn output_max(&self) -> (u64, Option<u64>) {
        if let Some(whole) = self.request.answer_tokens {
            return (whole / self.request.choices, None);
        }
        let (most, cap_to_set) = match (self.request.output_cap, self.priced.price.output_tokens_max) {
            // The price book may be wrong about a model: what is held must be the most that can come.
            (Some(asked), Some(most)) if asked > most => (most, Some(most)),
            (Some(asked), _) => (asked, None),
            (None, Some(most)) => (most, None),
            (None, None) => (UNKNOWN_OUTPUT_MAX, Some(UNKNOWN_OUTPUT_MAX)),
        };
        match self.output_limit {
            Some(limit) if limit < most => (limit, Some(limit)),
            _ => (most, cap_to_set),
        }
    }

    /// What is held where funds are short.
    fn reasonable(&self, funds: Funds, prompt: Prompt, whole: Terms) -> Result<Terms, Failure> {
        let (most, _) = self.output_max();
        let payable = self.output_payable(funds, prompt, most);
        let least = CAPPED_OUTPUT_MIN.min(most);
        if payable < least {
            // Nothing worth asking for: what the ledger then says names what is missing.
            return self.held_for(least, prompt, funds, Some(least));
        }
        let (key, model) = (self.caller.key.id, &self.route.model);
        let grows = self.shows_all_tokens();
        let only_open = funds.is_quiet && !grows;
        let share = self.output_payable(self.share_of(funds, prompt, only_open), prompt, most);
        let expected = self.learned.expected(key, model).unwrap_or(0);
        let usual = self.learned.usual(key, model).filter(|_| expected > share).unwrap_or(0);
        let held = usual.max(share).max(CAPPED_OUTPUT_MIN).min(payable);
        if held == most {
            return Ok(Terms { only_open, ..whole });
        }
        if !grows {
            return Ok(Terms { only_open, ..self.held_for(held, prompt, funds, Some(held))? });
        }
        let is_capped = payable == most && self.is_capped(&whole);
        let cap_to_set = if is_capped { whole.cap_to_set } else { Some(payable) };
        let terms = self.held_for(held, prompt, funds, cap_to_set)?;
        Ok(Terms { extends_to: (held < payable).then(|| payable * self.request.choices), ..terms })
    }

    /// The upstream is told the most that it may answer, by the caller or by us. Where it is not, only the price book says
    /// what that is, which may be wrong.
    pub fn is_capped(&self, terms: &Terms) -> bool {
        let Demand { answer_tokens, output_cap, .. } = self.request;
        answer_tokens.is_some() || output_cap.is_some() || terms.cap_to_set.is_some()
    }

    /// The part of the funds that one answer may take, beside its prompt.
    fn share_of(&self, funds: Funds, prompt: Prompt, only_open: bool) -> Funds {
        let bound = self.bound(0, prompt);
        let share_of = |left: u64, held: u64| match only_open {
            true => left / 5 * 2,
            false => (left / SHARES).max(left.saturating_add(held) / AT_ONCE),
        };
        let share = Nanos(share_of(funds.money.0.unsigned_abs(), funds.held.0.0.unsigned_abs()).cast_signed());
        let money = self.price(&bound, funds.multiplier).and_then(|of_prompt| of_prompt.checked_add(share));
        let tokens = funds.tokens.map(|left| (bound.input_tokens + share_of(left, funds.held.1)).min(left));
        Funds { money: money.unwrap_or(share).min(funds.money), tokens, ..funds }
    }

    /// The most answer tokens of one choice, up to `most`, that funds pay for together with everything else.
    fn output_payable(&self, funds: Funds, prompt: Prompt, most: u64) -> u64 {
        greatest(most, |output| {
            let bound = self.bound(output, prompt);
            let tokens = bound.input_tokens + bound.output_tokens;
            funds.tokens.is_none_or(|left| tokens <= left)
                && self.price(&bound, funds.multiplier).is_some_and(|amount| amount <= funds.money)
        })
    }

    /// Of funds that leave different amounts of money and of tokens, what binds this request first.
    pub fn binding(&self, funds: Funds, prompt: Prompt) -> Binding {
        let (money_by, tokens_by) = funds.by;
        let Some(_) = funds.tokens else { return money_by };
        let by_money = self.output_payable(Funds { tokens: None, ..funds }, prompt, COUNT_MAX);
        let by_tokens = self.output_payable(Funds { money: Nanos::MAX, ..funds }, prompt, COUNT_MAX);
        if by_tokens < by_money { tokens_by } else { money_by }
    }

    /// Whether a stream shows everything that it bills, so that its hold can grow with it.
    fn shows_all_tokens(&self) -> bool {
        let Asking { request, route, learned, .. } = self;
        let name = route.upstream_model.rsplit('/').next().unwrap_or_default();
        request.stream
            && request.choices <= ChoiceStates::KEPT
            && !(request.audio_out || request.images_out || request.reasons)
            && !HIDING.iter().any(|prefix| name.starts_with(prefix))
            && !learned.is_hiding(&route.model)
    }

    fn held_for(&self, output: u64, prompt: Prompt, funds: Funds, cap_to_set: Option<u64>) -> Result<Terms, Failure> {
        let Funds { multiplier, plan_alone, .. } = funds;
        let bound = self.bound(output, prompt);
        let amount = self.price(&bound, multiplier).ok_or_else(|| {
            let message = "The most that this request can cost is beyond any account. Lower max_tokens or n.";
            Failure::new(Case::BadRequest, message).param(self.request.cap_field.map(|field| field.name()))
        })?;
        Ok(Terms {
            bound,
            amount,
            multiplier,
            plan_alone,
            only_open: false,
            cap_to_set,
            extends_to: None,
            prompt_counted: prompt.counted,
        })
    }

    fn price(&self, bound: &Bound, multiplier: Multiplier) -> Option<Nanos> {
        self.priced.price.bound_at(bound, multiplier).ok()
    }

    fn bound(&self, output: u64, prompt: Prompt) -> Bound {
        let mut bound = self.request.bound(output);
        bound.input_tokens = prompt.tokens_max + self.route.prompt_added.load(Ordering::Relaxed);
        if (has_media(self.request) && !self.request.media_is_bounded) || self.request.reads_more {
            let most = self.priced.price.input_tokens_max;
            bound.input_tokens = bound.input_tokens.max(most.unwrap_or(UNKNOWN_MEDIA_TOKENS));
        }
        bound.calls = bound.calls.saturating_add(&calls(self.priced, self.request.web_search));
        for (meter, count) in self.request.tools.counts() {
            bound.calls[meter] = bound.calls[meter].max(count);
        }
        bound
    }
}

/// The most prompt tokens that are believed of a request whose prompt the provider's own tools lengthen.
pub(crate) fn read_at_most(request: &Demand<'_>, price: &Price) -> u64 {
    let window = price.input_tokens_max.unwrap_or(UNKNOWN_MEDIA_TOKENS);
    window.max(request.input_tokens_bound).saturating_mul(READINGS_MAX)
}

pub(crate) fn has_media(request: &Demand<'_>) -> bool {
    request.has_images || request.has_audio || request.has_files
}

/// The greatest number up to `most` that fits, where whatever is less than one that fits does so as well; 0 if none does.
pub(crate) fn greatest(most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut fitting, mut beyond) = (0, most.saturating_add(1));
    while beyond - fitting > 1 {
        let middle = fitting + (beyond - fitting) / 2;
        if fits(middle) {
            fitting = middle;
        } else {
            beyond = middle;
        }
    }
    fitting
}

impl Terms {
    /// The most answer tokens that may come, over all choices.
    fn output_max(&self) -> u64 {
        self.extends_to.unwrap_or(self.bound.output_tokens)
    }

    /// How the hold grows, if it does.
    pub fn growth(&self, limits: &Limits) -> Option<Growth> {
        let output_max = self.extends_to?;
        Some(Growth { bound: self.bound.clone(), output_max, limits: self.limits(limits).into_owned() })
    }

    /// The limits of a request on these terms.
    fn limits<'l>(&self, limits: &'l Limits) -> Cow<'l, Limits> {
        let Self { plan_alone, only_open, .. } = *self;
        match (plan_alone, only_open) == (limits.plan_alone, limits.only_open) {
            true => Cow::Borrowed(limits),
            false => Cow::Owned(Limits { plan_alone, only_open, ..limits.clone() }),
        }
    }

    /// The consumption that is held for, in the ledger's form.
    pub fn usage(&self) -> Usage {
        let mut usage = self.bound.calls;
        usage[Meter::Input] = self.bound.input_tokens;
        usage[Meter::Output] = self.bound.output_tokens;
        usage
    }

    /// Holding this leaves enough for others.
    fn are_ample(&self, funds: Funds) -> bool {
        let tokens = self.usage().total_tokens();
        self.amount.0 <= funds.money.0 / SHARES as i64 && funds.tokens.is_none_or(|left| tokens <= left / SHARES)
    }

    /// What is better of two: what can be held at all, then what has room for more of an answer.
    fn worth(&self, funds: Funds) -> (bool, u64) {
        (self.fits(funds), self.output_max())
    }

    /// It can be held where these funds are there.
    pub fn fits(&self, funds: Funds) -> bool {
        self.amount <= funds.money && funds.tokens.is_none_or(|left| self.usage().total_tokens() <= left)
    }
}

/// Nothing that costs money is done while the journal cannot be written.
pub fn store_unavailable(detail: impl Into<String>) -> Failure {
    Failure::new(Case::StoreUnavailable, "The gateway cannot write its ledger now. Try again in a moment.")
        .retry_after(Duration::from_secs(2))
        .detail(detail)
}

impl Asking<'_> {
    fn not_held(&self, error: HoldError) -> Failure {
        match error {
            HoldError::Refused(refusal) => self.refused(refusal),
            HoldError::TooManyOpen => {
                Failure::new(Case::TooManyOpen, "Too many requests are open on this gateway. Try again in a moment.")
                    .retry_after(Duration::from_secs(1))
            }
            HoldError::Unavailable => store_unavailable("the ledger takes no hold"),
        }
    }

    /// What binds, how much, when there is more, and what to do.
    ///
    /// What is refused is the smallest form of the request that is of any use. If even that is more than all that a
    /// limit has in a period, no period will ever bring it: that is a fault of the request, not of what is left.
    fn refused(&self, refusal: Refusal) -> Failure {
        let never_fits = match &refusal {
            // A higher tier has more: that is for the account to pay.
            Refusal::Budget { budget, .. } if budget.counted.budget == BudgetId::TIER => false,
            Refusal::Budget { budget, needed, .. } => {
                budget.counted.period != Period::ALL_TIME && *needed > budget.limit
            }
            Refusal::Allowance { limit, needed, .. } => needed > limit,
            _ => false,
        };
        let (scope, message) = self.explained(refusal);
        if never_fits {
            let message = format!("{message} No period has enough for it: make the request smaller.");
            let failure = Failure::new(Case::ExceedsLimit { scope }, message);
            return failure.param(self.request.cap_field.map(|field| field.name()));
        }
        Failure::new(Case::QuotaExceeded { scope }, message)
    }

    fn explained(&self, refusal: Refusal) -> (QuotaScope, String) {
        let (key, account) = (&self.caller.key.name, &self.caller.account.name);
        match refusal {
            Refusal::Wallet { available, needed } if available == Nanos::ZERO => {
                let left = format!("The account \"{account}\" has no balance left");
                (QuotaScope::Wallet, format!("{left}; this request can cost up to ${needed}. Top it up."))
            }
            Refusal::Wallet { available, needed } => {
                let left = format!("The account \"{account}\" has ${available} left");
                let message =
                    format!("{left}, and this request can cost up to ${needed}. Top it up, or lower max_tokens.");
                (QuotaScope::Wallet, message)
            }
            Refusal::Debt { owed } => {
                (QuotaScope::Debt, format!("The account \"{account}\" owes ${owed}. Top it up to continue."))
            }
            Refusal::KeyMoney { quota, used, held, needed } => {
                let reserved = if held > Nanos::ZERO { format!(" and ${held} is reserved") } else { String::new() };
                let message = format!(
                    "You have exceeded your quota: key \"{key}\" has used ${used} of ${quota}{reserved}; this request can \
                     cost up to ${needed}. The quota does not reset by itself: ask for a larger one."
                );
                (QuotaScope::Key, message)
            }
            Refusal::KeyTokens { quota, used, held, needed } => {
                let reserved = if held > 0 { format!(" and {held} are reserved") } else { String::new() };
                let message = format!(
                    "You have exceeded your quota: key \"{key}\" has used {used} of {quota} tokens{reserved}; this \
                     request can take up to {needed}. The quota does not reset by itself: ask for a larger one."
                );
                (QuotaScope::Key, message)
            }
            Refusal::Budget { budget, used, held, needed } => {
                let amount = |count| amount(budget.metric, count);
                let scope = QuotaScope::budget(&budget);
                let what = match &scope {
                    QuotaScope::Tier(tier) => format!("The account \"{account}\" has, by its tier \"{tier}\","),
                    _ => match Values::of_subject(&budget.counted.subject).filter(|of| *of != Values::default()) {
                        Some(values) => format!("The budget \"{}\" has for {values}", budget.name),
                        None => format!("The budget \"{}\" has", budget.name),
                    },
                };
                let each = if matches!(scope, QuotaScope::Tier(_)) { " a month" } else { "" };
                let message = format!(
                    "{what} {} left of {}{each} ({} used, {} reserved); this request can take up to {}. {}",
                    amount(budget.limit.saturating_sub(used).saturating_sub(held).max(0)),
                    amount(budget.limit),
                    amount(used),
                    amount(held),
                    amount(needed),
                    resets(budget.counted.period.end),
                );
                (scope, message)
            }
            Refusal::Allowance { window, metric, limit, left, needed, resets_at } => {
                let of = window.map_or("in its cycle".to_owned(), |window| format!("in its window \"{window}\""));
                let message = format!(
                    "The subscription of \"{account}\" has {} left of {} {of}; this request can take up to {}, and the \
                     fallback to the wallet is off. {}",
                    amount(metric, left),
                    amount(metric, limit),
                    amount(metric, needed),
                    resets(resets_at),
                );
                (QuotaScope::Subscription, message)
            }
            Refusal::Unpaid { price, available } => {
                let message = format!(
                    "The subscription of \"{account}\" is not paid: a cycle costs ${price}, and the wallet has \
                     ${available}. Top it up."
                );
                (QuotaScope::Subscription, message)
            }
            Refusal::NotOpen | Refusal::Forbidden(_) => {
                (QuotaScope::Wallet, "The ledger refuses this request.".to_owned())
            }
        }
    }
}

/// An amount in words.
fn amount(metric: Metric, count: i64) -> String {
    match metric {
        Metric::Money => format!("${}", Nanos(count)),
        Metric::Tokens => format!("{count} {}", if count == 1 { "token" } else { "tokens" }),
        Metric::Requests => format!("{count} {}", if count == 1 { "request" } else { "requests" }),
    }
}

/// When there is more, in words, if ever.
fn resets(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(at) if at < jiff::Timestamp::MAX => format!("It resets at {at}."),
        _ => "It does not reset by itself: ask for a larger one.".to_owned(),
    }
}

/// What is billed beside tokens of every such request, as far as the model has a price for it.
pub fn calls(priced: &Priced, web_search: bool) -> Usage {
    let mut usage = Usage::default();
    usage[Meter::Request] = u64::from(priced.price.prices(Meter::Request));
    usage[Meter::WebSearch] = u64::from(web_search && priced.price.prices(Meter::WebSearch));
    usage
}

#[cfg(test)]
mod tests;
