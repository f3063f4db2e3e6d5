//! From a request to its limits: what it is estimated to take, waiting for a place, and what a refusal says.

use super::{Cost, Entered, Limited, Told};
use crate::admit::Asking;
use crate::failure::{Case, Failure, QuotaScope};
use crate::lifecycle::{Call, Gateway, read, read_media};
use crate::paid::Paid;
use domain::rate::{self, Dimension, Metric, Window};
use domain::{Nanos, Usage};
use protocol::openai::{self, Demand};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use store::keys::Caller;
use tokio::time::{Instant, sleep_until};

/// Bytes of a request's text that are taken for a token, before anything is counted.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens that a part that is not text is taken for, however it is given: a large image has from 765 (OpenAI) to 1,600
/// (Anthropic).
const MEDIA_TOKENS: u64 = 1_000;
/// Whoever waits looks this often whether the gateway is being stopped.
const LOOK_UP_MAX: Duration = Duration::from_secs(1);

/// What limits ask of a request.
struct RateAsking<'a> {
    asking: &'a Asking<'a>,
    tags: Vec<&'a str>,
    address: IpAddr,
}

impl<'a> RateAsking<'a> {
    fn new(asking: &'a Asking<'a>, address: IpAddr) -> Self {
        let tags = asking.request.tags.iter().map(String::as_str).collect();
        Self { asking, tags, address }
    }

    fn view(&self) -> rate::Asking<'_> {
        let Asking { caller, request, route, .. } = self.asking;
        rate::Asking {
            payer: caller.payer,
            weight: caller.payer_weight,
            tier: caller.payer_tier,
            project: caller.key.project,
            key: caller.key.id,
            end_user: request.end_user.as_deref(),
            model: &route.model,
            tags: &self.tags,
            address: self.address,
        }
    }

    /// What the request will probably take: its prompt by the bytes of its text, its answer by what this key and model
    /// usually need.
    fn estimate(&self, output_limit: Option<u64>) -> Cost {
        let Asking { caller, request, body, priced, .. } = self.asking;
        let text = (body.len() as u64).saturating_sub(request.media.bytes);
        let input = text / BYTES_PER_TOKEN + 1 + request.media.parts.saturating_mul(MEDIA_TOKENS);
        // Where tokens count for nothing, they are none.
        let input = if request.media_is_bounded { input.min(request.input_tokens_bound) } else { input };
        let output =
            self.asking.output_expected().min(output_limit.unwrap_or(u64::MAX)).saturating_mul(request.choices);
        let usage = Usage::tokens(input, output).saturating_add(&request.calls);
        let tier = request.service_tier.as_deref();
        let money = priced.price.charge_at(&usage, tier, caller.account.price_multiplier()).unwrap_or(Nanos::MAX);
        Cost::of_usage(&usage, money, request.choices)
    }
}

impl Gateway {
    /// Takes a place within all limits of a request, and says how long an answer they allow. Where its key or its
    /// route lets requests wait, waits for the place.
    pub(crate) async fn enter(
        &self,
        asking: &Asking<'_>,
        address: IpAddr,
    ) -> Result<(Option<Entered>, Option<u64>), Failure> {
        if self.limiter.book().is_empty() {
            return Ok((None, None));
        }
        let rate_asking = RateAsking::new(asking, address);
        let asked = rate_asking.view();
        let output_limit = self.limiter.output_cap(&asked);
        let cost = rate_asking.estimate(output_limit);
        let entered = self.enter_or_wait(asking, &asked, &cost).await?;
        Ok((Some(entered), output_limit))
    }

    /// What [`Gateway::serve`] would be told by the limits now, and how they stand. Nothing is taken.
    pub(crate) async fn would_enter(
        &self,
        asking: &Asking<'_>,
        address: IpAddr,
    ) -> (Option<Failure>, Option<u64>, Arc<[Told]>) {
        if self.limiter.book().is_empty() {
            return (None, None, Arc::default());
        }
        let rate_asking = RateAsking::new(asking, address);
        let asked = rate_asking.view();
        let (output_limit, now) = (self.limiter.output_cap(&asked), self.clock.now());
        let cost = rate_asking.estimate(output_limit);
        let zone = &asking.caller.payer_zone;
        let told = self.limiter.standing(&asked, zone, now).await;
        match self.limiter.admit(&asked, zone, &cost, now).await {
            Ok(entered) => {
                entered.cancel(now);
                (None, output_limit, told)
            }
            Err(limited) => {
                let told = limited.told.clone();
                (Some(limited.into()), output_limit, told)
            }
        }
    }

    async fn enter_or_wait(
        &self,
        asking: &Asking<'_>,
        asked: &rate::Asking<'_>,
        cost: &Cost,
    ) -> Result<Entered, Failure> {
        let zone = &asking.caller.payer_zone;
        let limited = match self.limiter.admit(asked, zone, cost, self.clock.now()).await {
            Ok(entered) => return Ok(entered),
            Err(limited) => limited,
        };
        let seconds = asking.caller.key.wait_seconds.or(asking.route.wait_seconds);
        let (Some(seconds), Some(least)) = (seconds, limited.wait) else {
            return Err(limited.into());
        };
        let patience = Duration::from_secs(seconds.into());
        // A place among those in flight may become free at any moment; everything else is known beforehand.
        if least > patience && limited.limit.window != Window::Now {
            return Err(limited.into());
        }
        Box::pin(self.wait(asking, asked, cost, limited, patience)).await
    }

    /// Stands in the line until there is a place or patience is at its end.
    async fn wait(
        &self,
        asking: &Asking<'_>,
        asked: &rate::Asking<'_>,
        cost: &Cost,
        mut limited: Limited,
        patience: Duration,
    ) -> Result<Entered, Failure> {
        let deadline = Instant::now() + patience;
        let (queue, subjects) = (self.limiter.queue(), self.limiter.subjects(asked));
        let arrived_ms = self.clock.steady().0;
        let Some(ticket) = queue.stand(asked.payer, asking.caller.key.priority, subjects, arrived_ms) else {
            return Err(limited.into());
        };
        loop {
            let now = Instant::now();
            let room_at = if ticket.is_first() { now + limited.wait.unwrap_or(patience) } else { deadline };
            tokio::select! {
                () = ticket.turn() => {}
                () = sleep_until(room_at.min(deadline).min(now + LOOK_UP_MAX)) => {}
            }
            if ticket.is_first() {
                match self.limiter.admit(asked, &asking.caller.payer_zone, cost, self.clock.now()).await {
                    Ok(entered) => return Ok(entered),
                    Err(later) => limited = later,
                }
            }
            if Instant::now() >= deadline || self.is_draining() || limited.wait.is_none() {
                return Err(limited.into());
            }
        }
    }

    /// How the limits of a caller stand, by the states of this process alone: for answers that only tell it beside
    /// something else.
    pub fn limits_of(&self, caller: &Caller, about: &About<'_>) -> Arc<[Told]> {
        if self.limiter.book().is_empty() {
            return Arc::default();
        }
        about.known(self.limiter.look(&about.asking(caller), &caller.payer_zone, self.clock.now()))
    }

    /// How the limits of a caller stand, wherever their states are: for answers that are there to tell it.
    pub async fn standing(&self, caller: &Caller, about: &About<'_>) -> Arc<[Told]> {
        if self.limiter.book().is_empty() {
            return Arc::default();
        }
        let now = self.clock.now();
        about.known(self.limiter.standing(&about.asking(caller), &caller.payer_zone, now).await)
    }

    /// [`Gateway::limits_of`] for a call that is not decided on by them, as far as it can be read.
    pub fn limits_of_call(&self, caller: &Caller, call: &Call) -> Arc<[Told]> {
        if self.limiter.book().is_empty() {
            return Arc::default();
        }
        let address = Some(call.address);
        let told = |demand: &Demand<'_>| {
            let tags: Vec<&str> = demand.tags.iter().map(String::as_str).collect();
            let (model, end_user) = (Some(&*demand.model), demand.end_user.as_deref());
            self.limits_of(caller, &About { model, end_user, tags: &tags, address })
        };
        let read = match call.endpoint {
            Paid::Text(endpoint) => read(call, endpoint).map(|request| told(&request)),
            Paid::Media(endpoint) => read_media(call, endpoint).map(|request| told(&request.demand)),
        };
        match read {
            Ok(told) => told,
            Err(_) => {
                let model = openai::model_named(&call.body);
                self.limits_of(caller, &About { model: model.as_deref(), address, ..About::default() })
            }
        }
    }
}

/// For what requests it is asked how limits stand. What is not known leaves out the limits that go by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// Requests to this model.
    pub model: Option<&'a str>,
    /// Requests for this end user.
    pub end_user: Option<&'a str>,
    /// Requests with these tags.
    pub tags: &'a [&'a str],
    /// Requests from there.
    pub address: Option<IpAddr>,
}

impl About<'_> {
    fn asking(&self, caller: &Caller) -> rate::Asking<'_> {
        rate::Asking {
            payer: caller.payer,
            weight: caller.payer_weight,
            tier: caller.payer_tier,
            project: caller.key.project,
            key: caller.key.id,
            end_user: self.end_user,
            model: self.model.unwrap_or_default(),
            tags: self.tags,
            address: self.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        }
    }

    fn known(&self, told: Arc<[Told]>) -> Arc<[Told]> {
        let is_known = |Told { limit, .. }: &Told| {
            let of_model = !limit.scope.models.is_empty() || limit.each.contains(&Dimension::Model);
            (self.model.is_some() || !of_model) && (self.address.is_some() || !limit.each.contains(&Dimension::Address))
        };
        if told.iter().all(is_known) { told } else { told.iter().filter(|told| is_known(told)).cloned().collect() }
    }
}

impl From<Limited> for Failure {
    fn from(limited: Limited) -> Self {
        let Limited { limit, needed, standing, wait, told } = limited;
        let (name, unit) = (&limit.name, unit(limit.metric));
        let shown = |amount: u64| match limit.metric {
            Metric::Money => format!("${}", Nanos(i64::try_from(amount).unwrap_or(i64::MAX))),
            _ => amount.to_string(),
        };
        let (amount, left, needed) = (shown(standing.limit), shown(standing.remaining), shown(needed));
        let time = match limit.window {
            Window::Now => "at once".to_owned(),
            Window::Request => "in one request".to_owned(),
            window => format!("per {window}"),
        };
        let failure = match wait {
            Some(wait) => {
                let seconds = wait.as_millis().div_ceil(100) as f64 / 10.0;
                let message = format!(
                    "Rate limit reached: the limit \"{name}\" is {amount} {unit} {time}, {left} are left and this request \
                     needs {needed}. Try again in {seconds} s."
                );
                Self::new(Case::RateLimited { limit: name.clone() }, message).retry_after(wait)
            }
            None => {
                let message = if limit.amount == 0 {
                    format!("The limit \"{name}\" is 0 {unit} {time}: it lets no request through.")
                } else {
                    format!(
                        "This request needs about {needed} {unit}, and the limit \"{name}\" is {amount} {time}: it can \
                         never fit. {}",
                        smaller(limit.metric)
                    )
                };
                Self::new(Case::ExceedsLimit { scope: QuotaScope::Limit(name.clone()) }, message)
            }
        };
        Self { limits: told, ..failure }
    }
}

/// What helps against a request that is too large.
fn smaller(metric: Metric) -> &'static str {
    match metric {
        Metric::InputTokens => "Make the prompt shorter.",
        Metric::OutputTokens => "Ask for a shorter answer: set or lower max_completion_tokens.",
        Metric::TotalTokens | Metric::Money => {
            "Make the prompt shorter, or ask for a shorter answer: set or lower max_completion_tokens."
        }
        Metric::Choices => "Ask for fewer choices: lower n.",
        Metric::Requests | Metric::InFlight => "It needs a larger limit.",
    }
}

fn unit(metric: Metric) -> &'static str {
    match metric {
        Metric::Requests => "requests",
        Metric::InputTokens => "prompt tokens",
        Metric::OutputTokens => "answer tokens",
        Metric::TotalTokens => "tokens",
        Metric::Money => "USD",
        Metric::InFlight => "requests under way",
        Metric::Choices => "choices",
    }
}
