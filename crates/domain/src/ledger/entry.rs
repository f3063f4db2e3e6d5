//! What the journal is made of.

use crate::ids::{AccountId, KeyId, PriceId, Seq};
use crate::money::Nanos;
use crate::time::Timestamp;
use crate::usage::Usage;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One balanced, immutable fact about one account.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the journal.
    pub seq: Seq,
    /// When it was decided. Never earlier than the entry before it.
    pub at: Timestamp,
    /// Whose money moved.
    pub account: AccountId,
    /// What moved.
    pub legs: Legs,
    /// Why.
    pub kind: Kind,
}

/// The movements of one entry over the five pots of an account. They sum to zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legs {
    /// The wallet: what can be held.
    pub available: Nanos,
    /// Reserved for requests under way.
    pub held: Nanos,
    /// Paid for what was consumed.
    pub spent: Nanos,
    /// Owed: what was consumed beyond all funds. Zero or below; paid back by the next top-up.
    pub debt: Nanos,
    /// Where money comes from: zero or below.
    pub funding: Nanos,
}

impl Legs {
    /// Zero for a balanced entry.
    pub fn sum(&self) -> Nanos {
        [self.available, self.held, self.spent, self.debt, self.funding].into_iter().sum()
    }
}

/// Why money moved.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// An operator put money in (or, below zero, took it out), with a note.
    TopUp {
        /// Who and why, for people.
        note: Arc<str>,
    },
    /// A request was admitted.
    Hold(Hold),
    /// A held request was priced by what it consumed.
    Settle(Charge),
    /// A held request consumed nothing.
    Void(Release),
    /// The sweeper gave up on a hold whose lease had lapsed: charged by its last mark, which may be nothing.
    Expire(Charge),
    /// Usage that arrived after its hold had expired.
    LateCharge(Charge),
}

/// The terms on which a request was admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// The key that asked.
    pub key: KeyId,
    /// The request's id, as told to the caller.
    pub request: Arc<str>,
    /// The model that will serve it.
    pub model: Arc<str>,
    /// The upstream that will serve it.
    pub upstream: Arc<str>,
    /// The price version, pinned here.
    pub price: PriceId,
    /// The most that it can cost.
    pub amount: Nanos,
    /// The usage behind that amount: prompt tokens as [`Usage`] input, the output cap as output.
    pub bound: Usage,
    /// When the sweeper may act.
    pub lease_until: Timestamp,
}

/// What a request consumed and cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// The hold that it resolves.
    pub hold: Seq,
    /// The key that asked.
    pub key: KeyId,
    /// The model that served it.
    pub model: Arc<str>,
    /// The price version that was pinned by the hold.
    pub price: PriceId,
    /// What was consumed.
    pub usage: Usage,
    /// The service tier that the provider named, which decides the rates.
    pub service_tier: Option<Arc<str>>,
    /// Price of that usage at the hold's price version.
    pub cost: Nanos,
    /// How the request ended.
    pub ending: Ending,
    /// The usage is the gateway's own count, because the upstream sent none.
    pub estimated: bool,
}

/// The end of a hold that cost nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The hold that it resolves.
    pub hold: Seq,
    /// The key that asked.
    pub key: KeyId,
    /// Why nothing was consumed.
    pub ending: Ending,
}

/// How a request ended: recorded on every charge and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The whole answer was relayed.
    Complete,
    /// The caller went away.
    ClientLeft,
    /// The upstream closed the stream before its end.
    UpstreamCut,
    /// The upstream fell silent for longer than the idle limit.
    UpstreamStalled,
    /// The upstream reported an error inside the stream, or answered with one.
    UpstreamError,
    /// The upstream sent something that cannot be read.
    UpstreamMalformed,
    /// The upstream could not be reached.
    UpstreamUnreachable,
    /// The request took longer than any request may.
    TimedOut,
    /// The gateway was stopped.
    Stopped,
    /// The gateway failed: a defect of ours, at our expense.
    GatewayFault,
    /// The process died; resolved at the next start from the last progress mark.
    Crashed,
    /// The process died before anything shows that the upstream answered.
    CrashedUnknown,
    /// The lease lapsed without an end.
    LeaseLapsed,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 13] = [
        Self::Complete,
        Self::ClientLeft,
        Self::UpstreamCut,
        Self::UpstreamStalled,
        Self::UpstreamError,
        Self::UpstreamMalformed,
        Self::UpstreamUnreachable,
        Self::TimedOut,
        Self::Stopped,
        Self::GatewayFault,
        Self::Crashed,
        Self::CrashedUnknown,
        Self::LeaseLapsed,
    ];

    /// The name in the journal, the metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientLeft => "client_left",
            Self::UpstreamCut => "upstream_cut",
            Self::UpstreamStalled => "upstream_stalled",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
            Self::GatewayFault => "gateway_fault",
            Self::Crashed => "crashed",
            Self::CrashedUnknown => "crashed_unknown",
            Self::LeaseLapsed => "lease_lapsed",
        }
    }

    /// The ending of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.name() == name)
    }
}

/// What is to become of an open hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// Charge what was consumed.
    Settle {
        /// What was consumed.
        usage: Usage,
        /// The service tier that the provider named.
        service_tier: Option<Arc<str>>,
        /// Price of the usage at the hold's price version.
        cost: Nanos,
        /// How the request ended.
        ending: Ending,
        /// The usage is the gateway's own count.
        estimated: bool,
    },
    /// Give everything back.
    Void {
        /// How the request ended.
        ending: Ending,
    },
}

/// What a key may use up in its life. Nothing set is no limit beyond the account's wallet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Money.
    pub money: Option<Nanos>,
    /// Tokens, prompt and answer together.
    pub tokens: Option<u64>,
}
