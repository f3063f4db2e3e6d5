//! Why a provider refused or failed: a closed list, and what follows from each entry. What people are told of it is in
//! [`super::advice`].

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
