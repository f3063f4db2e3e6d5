//! Every id has its own type: mixing a key id with an account id does not compile.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// An account: who pays.
    AccountId
}
id! {
    /// A key: what a caller presents. Never the secret itself.
    KeyId
}
id! {
    /// One version of one model's price. A charge names the version that priced it.
    PriceId
}
id! {
    /// A budget: a cap on what a scope may use up in a period.
    BudgetId
}
id! {
    /// A limit on the rate of requests, tokens or money.
    LimitId
}
id! {
    /// A plan that accounts can subscribe to.
    PlanId
}
id! {
    /// A group of keys in an account.
    ProjectId
}
id! {
    /// A person who signs in.
    UserId
}
id! {
    /// The place of an entry in the journal, counted from 1. A hold is named by the entry that opened it.
    Seq
}
id! {
    /// A tier of accounts. Greater ids are higher tiers.
    TierId
}
