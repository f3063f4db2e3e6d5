//! Which limits a request meets.

use domain::rate::{Asking, Limit};
use domain::{AccountId, KeyId};
use foldhash::HashMap;
use std::sync::Arc;

/// All limits of a moment, found by whom they are for.
#[derive(Debug, Default)]
pub struct LimitBook {
    /// Those that name neither an account nor a key.
    general: Vec<Arc<Limit>>,
    of_account: HashMap<AccountId, Vec<Arc<Limit>>>,
    of_key: HashMap<KeyId, Vec<Arc<Limit>>>,
}

impl LimitBook {
    /// A book of these limits.
    pub fn new(limits: &[Arc<Limit>]) -> Self {
        let mut book = Self::default();
        for limit in limits {
            let place = match (limit.scope.key, limit.scope.account) {
                (Some(key), _) => book.of_key.entry(key).or_default(),
                (None, Some(account)) => book.of_account.entry(account).or_default(),
                (None, None) => &mut book.general,
            };
            place.push(limit.clone());
        }
        book
    }

    /// There are no limits.
    pub fn is_empty(&self) -> bool {
        self.general.is_empty() && self.of_account.is_empty() && self.of_key.is_empty()
    }

    /// The limits that a request meets.
    pub fn met<'a>(&'a self, asking: &'a Asking<'_>) -> impl Iterator<Item = &'a Arc<Limit>> {
        let of_account = self.of_account.get(&asking.payer).into_iter().flatten();
        let of_key = self.of_key.get(&asking.key).into_iter().flatten();
        self.general.iter().chain(of_account).chain(of_key).filter(|limit| limit.scope.matches(asking))
    }
}
