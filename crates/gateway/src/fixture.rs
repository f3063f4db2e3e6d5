//! A caller of whom nothing in particular is said, for this crate's tests.

use domain::ledger::Quota;
use domain::rate::{Priority, Weight};
use domain::{AccountId, KeyId, TierId, Timestamp, Zone};
use std::sync::Arc;
use store::accounts::{Account, AccountStatus, AccountTier};
use store::keys::{Caller, Key, KeyStatus, OnShortFunds};

/// Key 1 of account 1, which pays for itself.
pub fn caller() -> Caller {
    let created_at = Timestamp(0);
    let key = Key {
        id: KeyId(1),
        account: AccountId(1),
        name: "key".into(),
        hint: String::new(),
        status: KeyStatus::Active,
        expires_at: None,
        quota: Quota::default(),
        models: None,
        addresses: None,
        error_profile: None,
        on_short_funds: OnShortFunds::Cap,
        project: None,
        role: None,
        made_by: None,
        created_at,
        wait_seconds: None,
        priority: Priority::Normal,
    };
    let account = Account {
        id: AccountId(1),
        name: "account".into(),
        status: AccountStatus::Active,
        error_profile: None,
        shows_upstream: false,
        time_zone: "UTC".into(),
        tier: AccountTier::default(),
        multiplier: None,
        weight: None,
        linked_to: None,
        created_at,
    };
    Caller {
        key,
        account,
        secret_valid_until: None,
        budgets: Arc::default(),
        zone: Zone::UTC,
        payer: AccountId(1),
        payer_weight: Weight::ONE,
        payer_tier: TierId(0),
        payer_zone: Zone::UTC,
    }
}
