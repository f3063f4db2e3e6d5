//! A dry run: the decision about a request without the request. Nothing is held, nothing is sent.

use crate::abilities;
use crate::admit::{self, Asking, Terms};
use crate::catalog::Route;
use crate::failure::{Case, Failure, QuotaScope};
use crate::lifecycle::{Call, Gateway, choose, read, read_media};
use crate::limiter::Told;
use crate::limits::limits;
use crate::media::{by_look, priced_by};
use crate::paid::Paid;
use bytes::Bytes;
use domain::ledger::{Binding, Limits};
use domain::{Nanos, Usage};
use protocol::openai::media::Facts;
use protocol::openai::{Demand, Request};
use std::sync::Arc;
use store::keys::Caller;
use store::prices::Priced;

/// What the gateway would do with a request, and what that could cost.
#[derive(Debug)]
pub struct Quote {
    /// Why it would be refused; `None` when it would be admitted.
    pub refusal: Option<Failure>,
    /// The model that would serve.
    pub model: Arc<str>,
    /// The upstream that would serve. Not for every caller's eyes.
    pub upstream: Arc<str>,
    /// What would be held at first.
    pub held: Nanos,
    /// The consumption that would be held for.
    pub held_usage: Usage,
    /// The hold would grow while the stream flows.
    pub extends: bool,
    /// What the request will probably cost, by what this key and model usually produce.
    pub expected: Nanos,
    /// The consumption behind the expected price.
    pub expected_usage: Usage,
    /// The most that the request could cost if funds were without end.
    pub greatest: Nanos,
    /// The consumption behind the greatest price.
    pub greatest_usage: Usage,
    /// The output cap that the gateway would set.
    pub output_cap: Option<u64>,
    /// What could be held now.
    pub funds: admit::Funds,
    /// How the limits on rates stand that the request meets.
    pub limits: Arc<[Told]>,
    /// What would leave the least of money to the request, whether that is enough or not.
    pub binds: QuotaScope,
}

impl Gateway {
    /// Decides about a request as [`Gateway::serve`] would, and does nothing else. What would be refused for want of
    /// funds is a quote, too; what cannot be decided at all is a failure.
    pub async fn quote(&self, caller: &Caller, call: &Call) -> Result<Quote, Failure> {
        let early = |failure| Failure { limits: self.limits_of_call(caller, call), ..failure };
        let catalog = self.catalog();
        match call.endpoint {
            Paid::Text(endpoint) => {
                let request = read(call, endpoint).map_err(early)?;
                let (route, priced) = choose(&catalog, &request, call.endpoint, caller).map_err(early)?;
                if let Some(most) = abilities::doubtful(&request, &priced.price) {
                    let sent = (request.endpoint, &call.body);
                    abilities::fits(&request, sent, route, most, &self.tokenizers).await.map_err(early)?;
                }
                let expected = Expected::Text(&request);
                self.quoted(caller, call, &request, (route, priced), expected).await
            }
            Paid::Media(endpoint) => {
                let request = read_media(call, endpoint).map_err(early)?;
                let (route, priced) = choose(&catalog, &request.demand, call.endpoint, caller).map_err(early)?;
                let priced = by_look(route, priced, &request);
                let (request, by_tokens) = priced_by(request, &priced.price);
                let (usage, _) = request.work.consumed(endpoint, &Facts::default(), by_tokens);
                self.quoted(caller, call, &request.demand, (route, priced), Expected::Media(usage)).await
            }
        }
    }

    async fn quoted(
        &self,
        caller: &Caller,
        call: &Call,
        request: &Demand<'_>,
        (route, priced): (&Route, &Priced),
        expected: Expected<'_>,
    ) -> Result<Quote, Failure> {
        let (body, now) = (&call.body, self.clock.now());
        let limits = limits(caller, request, now);
        let asking = self.asking(caller, request, body, route, priced, &limits);
        let (limited, output_limit, told) = self.would_enter(&asking, call.address).await;
        let asking = Asking { output_limit, ..asking };
        let mut prompt = asking.prompt();
        let (funds, terms) = asking.decide(&self.ledger, &mut prompt, now).await?;
        let refusal = match limited {
            Some(limited) => Some(limited),
            None => admit::verdict(&self.ledger, &asking, &terms, now).await.err(),
        };
        // The same measure of the prompt as that of the hold, so that it is never less.
        let whole = asking.most(funds, prompt)?;
        asking.count(&mut prompt).await;
        let expected_usage = match expected {
            Expected::Text(request) => self.expected_usage(&asking, request, &terms, body).await,
            Expected::Media(usage) => usage,
        };
        let tier = request.service_tier.as_deref();
        let expected = priced.price.charge_at(&expected_usage, tier, funds.multiplier).map_err(|_| {
            Failure::new(Case::BadRequest, "What this request can cost is beyond any account. Lower max_tokens or n.")
        })?;
        Ok(Quote {
            refusal,
            model: route.model.clone(),
            upstream: route.upstream.name.clone(),
            held: terms.amount,
            held_usage: terms.usage(),
            extends: terms.extends_to.is_some(),
            expected: expected.min(whole.amount),
            expected_usage,
            greatest: whole.amount,
            greatest_usage: whole.usage(),
            output_cap: terms.cap_to_set,
            funds,
            limits: told,
            binds: scope(asking.binding(funds, prompt), &limits),
        })
    }

    async fn expected_usage(&self, asking: &Asking<'_>, request: &Request<'_>, terms: &Terms, body: &Bytes) -> Usage {
        let input = self.count_prompt(request.endpoint, &asking.route.upstream_model, body).await;
        let output = asking.output_expected() * request.choices;
        let mut usage = Usage::tokens(input.min(terms.bound.input_tokens), output);
        for (meter, count) in terms.bound.calls.counts() {
            usage[meter] = count;
        }
        usage
    }
}

/// How it is known what a request will probably take.
enum Expected<'a> {
    /// By its prompt and what answers usually need.
    Text(&'a Request<'a>),
    /// It says so itself.
    Media(Usage),
}

fn scope(binding: Binding, limits: &Limits) -> QuotaScope {
    match binding {
        Binding::Funds => QuotaScope::Wallet,
        Binding::Allowance => QuotaScope::Subscription,
        Binding::KeyQuota => QuotaScope::Key,
        Binding::Budget(index) => QuotaScope::budget(&limits.budgets[index]),
    }
}
