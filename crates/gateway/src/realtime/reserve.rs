//! The money of a session: a hold for the most that its next response can cost.

use crate::admit::{Admitted, UNKNOWN_OUTPUT_MAX, admit};
use crate::catalog::Route;
use crate::failure::{Case, Failure};
use crate::lifecycle::Gateway;
use crate::limiter::Entered;
use crate::limits::{limits, tag};
use crate::settle::Held;
use bytes::Bytes;
use domain::Usage;
use domain::ledger::{Ending, Limits};
use protocol::openai::{Endpoint, Request};
use protocol::realtime::Cap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::keys::{Caller, OnShortFunds};
use store::prices::Priced;

/// Prompt tokens of which a provider tells nothing: its own instructions before they are told, the framing of items.
const UNSEEN_TOKENS: u64 = 1_024;
/// Room for the instructions that a provider gives a session by itself, which it tells with its first event.
const INSTRUCTIONS_TOKENS: u64 = 4_096;
/// Room for what will be said next: some minutes of a voice.
const HEADROOM_TOKENS: u64 = 2_048;
/// Tokens that limits take a part that is not text for.
const TOKENS_PER_PART: u64 = 1_000;
/// Beyond the longest session, how long a hold outlives it before the sweeper may act.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// What a response can consume at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Prompt tokens of whatever kind.
    pub(super) input: u64,
    /// Its output cap.
    pub(super) cap: Cap,
}

impl Need {
    /// Of a session of which nothing was seen yet.
    pub(super) fn at_first() -> Self {
        Self { input: INSTRUCTIONS_TOKENS, cap: Cap::Model }
    }
}

/// Holds money for one session, at the price that its model had when it began.
pub(super) struct Reserve {
    gateway: Arc<Gateway>,
    caller: Caller,
    route: Route,
    priced: Priced,
    address: IpAddr,
    tags: Option<Box<str>>,
    /// The request that opened the session.
    request_id: Arc<str>,
    /// Holds so far: each has a name of its own.
    holds: u32,
}

/// A hold for a response that has not begun.
pub(super) struct Ready {
    held: Box<Held>,
    /// What it covers.
    input: u64,
    output: u64,
}

impl Ready {
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// It pays for what is needed.
    pub(super) fn covers(&self, input: u64, output: u64) -> bool {
        input <= self.input && output <= self.output
    }

    /// For a response that will not come.
    pub(super) fn release(self, ending: Ending) {
        self.held.void(ending);
    }

    /// For a response that has begun.
    pub(super) fn into_held(self) -> Box<Held> {
        self.held
    }
}

impl Reserve {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        caller: &Caller,
        route: Route,
        priced: Priced,
        address: IpAddr,
        tags: Option<Box<str>>,
        request_id: Arc<str>,
    ) -> Self {
        let caller = held_whole(caller);
        Self { gateway, caller, route, priced, address, tags, request_id, holds: 0 }
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// The caller as they are now.
    pub(super) fn renew(&mut self, caller: &Caller) {
        self.caller = held_whole(caller);
    }

    /// The most answer tokens that a cap lets through.
    pub(super) fn output_max(&self, cap: Cap) -> u64 {
        let most = self.priced.price.output_tokens_max.unwrap_or(UNKNOWN_OUTPUT_MAX);
        match cap {
            Cap::Tokens(tokens) => tokens.min(most),
            Cap::Model => most,
        }
    }

    /// The prompt that a response can be charged for: no more than the model takes.
    pub(super) fn input_max(&self, input: u64) -> u64 {
        let input = input.saturating_add(UNSEEN_TOKENS);
        self.priced.price.input_tokens_max.map_or(input, |most| input.min(most))
    }

    /// Holds what a response can cost, in place of a hold that covers less. With some room for what will be said, so that
    /// not every piece of audio needs a hold of its own.
    pub(super) async fn hold(&mut self, need: Need, instead: Option<Ready>) -> Result<Ready, Failure> {
        if let Some(instead) = instead {
            // First, because it may be what the larger one needs.
            instead.release(Ending::Complete);
        }
        match self.hold_for(need.input.saturating_add((need.input / 4).max(HEADROOM_TOKENS)), need.cap).await {
            Err(Failure { case: Case::QuotaExceeded { .. } | Case::ExceedsLimit { .. }, .. }) => {
                self.hold_for(need.input, need.cap).await
            }
            held => held,
        }
    }

    async fn hold_for(&mut self, input: u64, cap: Cap) -> Result<Ready, Failure> {
        let (input, output) = (self.input_max(input), self.output_max(cap));
        self.holds += 1;
        let request_id: Arc<str> = format!("{}-{}", self.request_id, self.holds).into();
        let body = request_body(&self.route.model, output);
        let request = self.request(&body, input)?;
        let gateway = &self.gateway;
        let now = gateway.clock.now();
        let limits = limits(&self.caller, &request, now);
        let nothing = Bytes::new();
        let asking = gateway.asking(&self.caller, &request, &nothing, &self.route, &self.priced, &limits);
        let lease = super::SESSION_MAX + LEASE_MARGIN;
        let lease_until = gateway.clock.steady().plus_ms(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
        let Admitted { hold, .. } = admit(&gateway.ledger, &asking, &request_id, now, lease_until).await?;
        let (ledger, clock, counters) = (gateway.ledger.clone(), gateway.clock.clone(), gateway.counters.clone());
        let held = Held::new(ledger, clock, counters, Endpoint::Chat.into(), self.priced.clone(), None, hold);
        Ok(Ready { held, input, output })
    }

    /// A place within the limits on rates for a response, which counts as a request.
    pub(super) async fn enter(&self, input: u64, cap: Cap) -> Result<Option<Entered>, Failure> {
        let body = request_body(&self.route.model, self.output_max(cap));
        let request = self.request(&body, input)?;
        let (no_limits, nothing) = (Limits::default(), Bytes::new());
        let asking = self.gateway.asking(&self.caller, &request, &nothing, &self.route, &self.priced, &no_limits);
        Ok(self.gateway.enter(&asking, self.address).await?.0)
    }

    /// What is decided about, in the form in which every request is: a chat of so many tokens of any kind.
    fn request<'a>(&self, body: &'a [u8], input: u64) -> Result<Request<'a>, Failure> {
        let mut request = Request::read(Endpoint::Chat, body)
            .map_err(|bad| Failure::new(Case::BadRequest, bad.message).param(bad.param))?;
        request.input_tokens_bound = input;
        (request.has_audio, request.has_images, request.audio_out) = (true, true, true);
        request.media_is_bounded = true;
        request.media.parts = input / TOKENS_PER_PART;
        if let Some(tags) = &self.tags {
            tag(&mut request, tags)?;
        }
        Ok(request)
    }

    /// Takes note of what a response needed.
    pub(super) fn learn(&self, usage: &Usage) {
        self.gateway.learned.answered(self.caller.key.id, &self.route.model, usage.output_tokens());
    }
}

/// Nobody can cap what a voice brings about, so what is not there in whole is refused.
fn held_whole(caller: &Caller) -> Caller {
    let mut caller = caller.clone();
    caller.key.on_short_funds = OnShortFunds::Refuse;
    caller
}

/// A chat with that cap.
pub(super) fn request_body(model: &str, cap: u64) -> Vec<u8> {
    let said = [serde_json::json!({"role": "user", "content": ""})];
    serde_json::json!({"model": model, "messages": said, "max_completion_tokens": cap.max(1)}).to_string().into()
}
