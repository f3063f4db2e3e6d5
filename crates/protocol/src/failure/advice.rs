//! What a failure means to people, and what they should do about it.

use super::cause::Cause;
use crate::provider::Provider;

impl Cause {
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
