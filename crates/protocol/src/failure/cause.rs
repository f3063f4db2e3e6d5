//! Why a provider refused or failed: a closed list, and what follows from each entry.

use crate::provider::Provider;

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Too many requests in a time.
    RateRequests,
    /// Too many tokens in a time.
    RateTokens,
    /// This one request is larger than all that the limit gives in its time.
    RateTooBigOnce,
    /// A limit by the day is used up.
    RateDaily,
    /// Too many requests at once.
    RateConcurrency,
    /// Use grew too fast.
    RateBurst,
    /// Too much money in a time.
    RateSpend,
    /// The account has no money.
    QuotaBalance,
    /// A monthly cap on spending is reached, although money may be there.
    QuotaCap,
    /// A window of a subscription is used up: five hours, a week, a month.
    QuotaWindow,
    /// The account's plan does not include it.
    QuotaPlan,
    /// The credential does not work.
    AuthInvalid,
    /// The account was closed, banned or locked.
    AuthAccountDisabled,
    /// The credential is a token that has expired.
    AuthExpired,
    /// The account may not do that.
    Permission,
    /// The provider does not have the model, or not for this account.
    ModelNotFound,
    /// Prompt and answer do not fit into the model's context.
    ContextExceeded,
    /// The body, or a file in it, is larger than the provider takes.
    PayloadTooLarge,
    /// A filter refused the prompt or the answer.
    ContentFiltered,
    /// The provider does not understand the request.
    RequestInvalid,
    /// Somebody else is changing the same thing.
    StateConflict,
    /// The request refers to something that only the account that made it can read.
    StateBound,
    /// The provider has no capacity now.
    Overloaded,
    /// The provider failed.
    Server,
    /// The provider did not answer in time.
    Timeout,
    /// There was no (whole) answer.
    Network,
    /// The request was given up by whoever made it.
    Cancelled,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Of whoever made the request. Nobody else is to suffer for it.
    Caller,
    /// Of the operator's account at the provider: its limits, money, credential, rights.
    Account,
    /// Of the provider.
    Provider,
    /// Of what lies between.
    Network,
    /// Of the gateway: the request went where it should not have gone.
    Gateway,
}

/// What a failure says something about, and so what is to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This request only. The next one may do well.
    Request,
    /// This model at this account.
    Model,
    /// Everything at this account, and at every credential of the same organisation.
    Account,
}

/// Whether something may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Helps {
    /// It will.
    Yes,
    /// It may.
    Maybe,
    /// It cannot.
    No,
}

/// The most sensible next step for the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same upstream, once it has recovered; another one at once, if there is one.
    SameLater,
    /// Another upstream. The same one will refuse again, or for long.
    Elsewhere,
    /// Nothing: it would fail anywhere, or must not be repeated.
    Never,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 27] = [
        Self::RateRequests,
        Self::RateTokens,
        Self::RateTooBigOnce,
        Self::RateDaily,
        Self::RateConcurrency,
        Self::RateBurst,
        Self::RateSpend,
        Self::QuotaBalance,
        Self::QuotaCap,
        Self::QuotaWindow,
        Self::QuotaPlan,
        Self::AuthInvalid,
        Self::AuthAccountDisabled,
        Self::AuthExpired,
        Self::Permission,
        Self::ModelNotFound,
        Self::ContextExceeded,
        Self::PayloadTooLarge,
        Self::ContentFiltered,
        Self::RequestInvalid,
        Self::StateConflict,
        Self::StateBound,
        Self::Overloaded,
        Self::Server,
        Self::Timeout,
        Self::Network,
        Self::Cancelled,
    ];

    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateRequests => "rate.requests",
            Self::RateTokens => "rate.tokens",
            Self::RateTooBigOnce => "rate.too_big_once",
            Self::RateDaily => "rate.daily",
            Self::RateConcurrency => "rate.concurrency",
            Self::RateBurst => "rate.burst",
            Self::RateSpend => "rate.spend",
            Self::QuotaBalance => "quota.balance",
            Self::QuotaCap => "quota.cap",
            Self::QuotaWindow => "quota.window",
            Self::QuotaPlan => "quota.plan",
            Self::AuthInvalid => "auth.invalid",
            Self::AuthAccountDisabled => "auth.account_disabled",
            Self::AuthExpired => "auth.expired",
            Self::Permission => "permission",
            Self::ModelNotFound => "model.not_found",
            Self::ContextExceeded => "context.exceeded",
            Self::PayloadTooLarge => "payload.too_large",
            Self::ContentFiltered => "content.filtered",
            Self::RequestInvalid => "request.invalid",
            Self::StateConflict => "state.conflict",
            Self::StateBound => "state.bound",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::RateRequests
            | Self::RateTokens
            | Self::RateTooBigOnce
            | Self::RateDaily
            | Self::RateConcurrency
            | Self::RateBurst
            | Self::RateSpend
            | Self::QuotaBalance
            | Self::QuotaCap
            | Self::QuotaWindow
            | Self::QuotaPlan
            | Self::AuthInvalid
            | Self::AuthAccountDisabled
            | Self::AuthExpired
            | Self::Permission
            | Self::ModelNotFound => Fault::Account,
            Self::ContextExceeded
            | Self::PayloadTooLarge
            | Self::ContentFiltered
            | Self::RequestInvalid
            | Self::StateConflict
            | Self::Cancelled => Fault::Caller,
            Self::StateBound => Fault::Gateway,
            Self::Overloaded | Self::Server | Self::Timeout => Fault::Provider,
            Self::Network => Fault::Network,
        }
    }

    /// What it says something about.
    pub fn scope(self) -> Scope {
        match self {
            Self::RateConcurrency
            | Self::RateBurst
            | Self::RateSpend
            | Self::QuotaBalance
            | Self::QuotaCap
            | Self::QuotaWindow
            | Self::AuthInvalid
            | Self::AuthAccountDisabled
            | Self::AuthExpired
            | Self::Network => Scope::Account,
            Self::RateRequests
            | Self::RateTokens
            | Self::RateDaily
            | Self::QuotaPlan
            | Self::Permission
            | Self::ModelNotFound
            | Self::Overloaded
            | Self::Server
            | Self::Timeout => Scope::Model,
            Self::RateTooBigOnce
            | Self::ContextExceeded
            | Self::PayloadTooLarge
            | Self::ContentFiltered
            | Self::RequestInvalid
            | Self::StateConflict
            | Self::StateBound
            | Self::Cancelled => Scope::Request,
        }
    }

    /// Whether waiting helps at the same upstream.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::RateRequests
                | Self::RateTokens
                | Self::RateDaily
                | Self::RateConcurrency
                | Self::RateBurst
                | Self::RateSpend
                | Self::QuotaCap
                | Self::QuotaWindow
                | Self::StateConflict
                | Self::Overloaded
                | Self::Server
                | Self::Timeout
                | Self::Network
        )
    }

    /// What to do with the same request.
    pub fn retry(self) -> Retry {
        match self {
            Self::RateRequests
            | Self::RateTokens
            | Self::RateConcurrency
            | Self::RateBurst
            | Self::RateSpend
            | Self::StateConflict
            | Self::Overloaded
            | Self::Server
            | Self::Timeout
            | Self::Network => Retry::SameLater,
            Self::RateTooBigOnce
            | Self::RateDaily
            | Self::QuotaBalance
            | Self::QuotaCap
            | Self::QuotaWindow
            | Self::QuotaPlan
            | Self::AuthInvalid
            | Self::AuthAccountDisabled
            | Self::AuthExpired
            | Self::Permission
            | Self::ModelNotFound => Retry::Elsewhere,
            Self::ContextExceeded
            | Self::PayloadTooLarge
            | Self::ContentFiltered
            | Self::RequestInvalid
            | Self::StateBound
            | Self::Cancelled => Retry::Never,
        }
    }

    /// Whether the same model of an account of another organisation helps.
    pub fn other_account_helps(self) -> Helps {
        match self {
            Self::ContextExceeded
            | Self::PayloadTooLarge
            | Self::RequestInvalid
            | Self::StateConflict
            | Self::StateBound
            | Self::Cancelled => Helps::No,
            // Where it is larger, where it has the model, where the fleet is not short as a whole.
            Self::RateTooBigOnce | Self::ModelNotFound | Self::ContentFiltered | Self::Overloaded => Helps::Maybe,
            _ => Helps::Yes,
        }
    }

    /// Whether another model helps.
    pub fn other_model_helps(self) -> Helps {
        match self {
            Self::ContextExceeded | Self::Overloaded | Self::Server | Self::Timeout | Self::ModelNotFound => Helps::Yes,
            Self::RateRequests
            | Self::RateTokens
            | Self::RateTooBigOnce
            | Self::RateDaily
            | Self::RateConcurrency
            | Self::RateBurst
            | Self::QuotaWindow
            | Self::QuotaPlan
            | Self::Permission
            | Self::PayloadTooLarge
            | Self::ContentFiltered
            | Self::RequestInvalid => Helps::Maybe,
            Self::RateSpend
            | Self::QuotaBalance
            | Self::QuotaCap
            | Self::AuthInvalid
            | Self::AuthAccountDisabled
            | Self::AuthExpired
            | Self::StateConflict
            | Self::StateBound
            | Self::Network
            | Self::Cancelled => Helps::No,
        }
    }

    /// What happened, for a person.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::RateRequests => "too many requests in a short time",
            Self::RateTokens => "too many tokens in a short time",
            Self::RateTooBigOnce => "the request alone is larger than the account's limit per minute",
            Self::RateDaily => "a daily limit of the account is used up",
            Self::RateConcurrency => "too many requests at the same time",
            Self::RateBurst => "the account's use grew too fast",
            Self::RateSpend => "the account spent too much within a short time",
            Self::QuotaBalance => "the account has no credit left, or billing is not set up",
            Self::QuotaCap => "the account's spending limit is reached",
            Self::QuotaWindow => "a usage window of the subscription is used up",
            Self::QuotaPlan => "the account's plan does not include this",
            Self::AuthInvalid => "the credential is not accepted",
            Self::AuthAccountDisabled => "the account is disabled",
            Self::AuthExpired => "the access token has expired",
            Self::Permission => "the account may not do this",
            Self::ModelNotFound => "the model does not exist there, or not for this account",
            Self::ContextExceeded => "prompt and answer do not fit into the model's context",
            Self::PayloadTooLarge => "the request, or a file in it, is too large",
            Self::ContentFiltered => "a content filter refused the prompt or the answer",
            Self::RequestInvalid => "the request is not valid there",
            Self::StateConflict => "something else is changing the same resource",
            Self::StateBound => "the request refers to something that belongs to another account",
            Self::Overloaded => "the provider has no capacity at the moment",
            Self::Server => "the provider failed",
            Self::Timeout => "the provider did not answer in time",
            Self::Network => "there was no complete answer",
            Self::Cancelled => "the request was cancelled",
        }
    }

    /// What a person should do about it.
    pub fn remedy(self, provider: Provider) -> String {
        let at = provider.title();
        match self {
            Self::RateRequests | Self::RateTokens if provider.is_local() => {
                "Send fewer requests at a time, or give the server more capacity.".to_owned()
            }
            Self::RateRequests => format!(
                "Nothing now: it recovers by itself. If it is frequent, spread requests over more accounts of \
                 other organisations, or ask {at} for a higher limit on requests."
            ),
            Self::RateTokens => format!(
                "Nothing now: it recovers by itself. If it is frequent, lower max_tokens (limits count what is \
                 asked for, not what is used), add an account of another organisation, or ask {at} for a higher \
                 limit on tokens."
            ),
            Self::RateTooBigOnce => format!(
                "Make the request smaller, or its max_tokens; waiting does not help. For requests of this size \
                 raise the limit at {at}, or use an account with a larger one."
            ),
            Self::RateDaily => {
                format!("Wait for the reset, use another account or model, or ask {at} for a higher daily limit.")
            }
            Self::RateConcurrency => "Allow fewer requests in flight to this upstream, or add an account.".to_owned(),
            Self::RateBurst => "Let use grow more slowly; keep a steady rate for a quarter of an hour.".to_owned(),
            Self::RateSpend => format!("Wait for the rolling window, or move the account to a higher tier at {at}."),
            Self::QuotaBalance => {
                format!(
                    "Add credit to the account at {at}, or set up billing there. It does not recover by \
                     waiting."
                )
            }
            Self::QuotaCap => {
                format!(
                    "Raise the spending limit of the organisation or project at {at}, or wait for the next \
                     billing month."
                )
            }
            Self::QuotaWindow => "Wait for the reset of the subscription's window, or use another account.".to_owned(),
            Self::QuotaPlan => {
                format!(
                    "Change the account's plan at {at}, or take this model off this account. It does not \
                     recover by waiting."
                )
            }
            Self::AuthInvalid => {
                format!(
                    "Check the credential of this upstream, and that it is one of {at} and of the right \
                     region; make a new key if it was revoked."
                )
            }
            Self::AuthAccountDisabled => {
                format!("Contact the support of {at}: the account is disabled. Do not retry with it.")
            }
            Self::AuthExpired => "Renew the access token, and check the clock of this machine.".to_owned(),
            Self::Permission => {
                format!(
                    "Have an administrator of the account at {at} allow it: model access, region, address, \
                     verification or a service that is switched off."
                )
            }
            Self::ModelNotFound => {
                format!(
                    "Check the model's name and its deployment at {at}, and that the account has access to \
                     it; correct the route."
                )
            }
            Self::ContextExceeded => {
                "Shorten the prompt, lower max_tokens, or use a model with a larger context.".to_owned()
            }
            Self::PayloadTooLarge => {
                "Send less: smaller images, fewer files, or references in place of inline data.".to_owned()
            }
            Self::ContentFiltered => "Change the prompt. Repeating it can endanger the account.".to_owned(),
            Self::RequestInvalid => "Correct the request as the provider's message says.".to_owned(),
            Self::StateConflict => "Try again in a moment.".to_owned(),
            Self::StateBound => {
                "Send the conversation to the account that it began with, or leave out earlier reasoning and \
                 references to previous answers."
                    .to_owned()
            }
            Self::Overloaded if provider.is_local() => {
                "Wait until the server has loaded its model or has a place free; give it more capacity if it is \
                 frequent."
                    .to_owned()
            }
            Self::Overloaded => {
                format!(
                    "Nothing: {at} is short of capacity. Another model, region or provider helps; another \
                     key does not."
                )
            }
            Self::Server => format!("Nothing, unless it lasts: then see the status page of {at}."),
            Self::Timeout => {
                "Nothing, unless it lasts. Long answers should be streamed. It may have been billed all the \
                 same."
                    .to_owned()
            }
            Self::Network => {
                "If it lasts, check the upstream's address, its certificate, the name service, and the way out \
                 of this network."
                    .to_owned()
            }
            Self::Cancelled => "Nothing: whoever asked has left.".to_owned(),
        }
    }
}

impl Fault {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "client",
            Self::Account => "upstream_account",
            Self::Provider => "provider",
            Self::Network => "network",
            Self::Gateway => "gateway",
        }
    }
}

impl Scope {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Model => "model",
            Self::Account => "account",
        }
    }
}

impl Helps {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Maybe => "maybe",
            Self::No => "no",
        }
    }
}

impl Retry {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::SameLater => "same_upstream_later",
            Self::Elsewhere => "another_upstream",
            Self::Never => "never",
        }
    }
}
