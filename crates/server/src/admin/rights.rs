//! What one key is allowed beside another: whoever comes with a key neither changes that key nor makes or changes keys
//! that are allowed more than it is (S-06). People are bounded by their role alone.

use super::error::Problem;
use domain::ledger::Quota;
use domain::{ProjectId, Timestamp};
use gateway::authenticate::contains;
use std::net::IpAddr;
use store::keys::{Key, KeyChange, KeyStatus, NewKey};

/// What to do instead.
const INSTEAD: &str = "Sign in as a member of the account (POST /api/v1/session), or ask the gateway's operator.";

/// Everything in which one key can be allowed more than another, but for the role, which bounds whoever has it.
#[derive(Clone, Copy)]
struct Rights<'a> {
    quota: Quota,
    models: Option<&'a [String]>,
    addresses: Option<&'a [String]>,
    expires_at: Option<Timestamp>,
    project: Option<ProjectId>,
}

/// Whether a key has any limit of its own.
pub fn is_limited(key: &Key) -> bool {
    let Rights { quota, models, addresses, expires_at, project } = Rights::of(key);
    has_quota(quota) || models.is_some() || addresses.is_some() || expires_at.is_some() || project.is_some()
}

/// Whether whoever comes with `own` may make such a key.
pub fn check_new(own: &Key, new: &NewKey) -> Result<(), Problem> {
    let NewKey { quota, expires_at, project, .. } = *new;
    let (models, addresses) = (new.models.as_deref(), new.addresses.as_deref());
    check_within(own, Rights { quota, models, addresses, expires_at, project })?;
    check_gives_no_quota(own)
}

/// Whether whoever comes with `own` may change a key like that.
pub fn check_change(own: &Key, key: &Key, change: &KeyChange) -> Result<(), Problem> {
    check_is_another(own, key)?;
    let before = Rights::of(key);
    check_within(own, before)?;
    let money = change.quota_money.unwrap_or(key.quota.money);
    let tokens = change.quota_tokens.unwrap_or(key.quota.tokens);
    let after = Rights {
        quota: Quota { money, tokens },
        models: change.models.as_ref().map_or(before.models, Option::as_deref),
        addresses: change.addresses.as_ref().map_or(before.addresses, Option::as_deref),
        expires_at: change.expires_at.unwrap_or(before.expires_at),
        project: change.project.unwrap_or(before.project),
    };
    check_within(own, after)?;
    let is_raised = (own.quota.money.is_some() && money > key.quota.money)
        || (own.quota.tokens.is_some() && tokens > key.quota.tokens);
    let is_revived = change.status == Some(KeyStatus::Active) && key.status != KeyStatus::Active;
    if is_raised || is_revived { check_gives_no_quota(own) } else { Ok(()) }
}

/// Whether whoever comes with `own` may have a new secret of a key.
pub fn check_renewal(own: &Key, key: &Key) -> Result<(), Problem> {
    check_is_another(own, key)?;
    check_within(own, Rights::of(key))?;
    check_gives_no_quota(own)
}

/// Whether whoever comes with `own` may delete a key. To delete itself takes nothing from anybody.
pub fn check_removal(own: &Key, key: &Key) -> Result<(), Problem> {
    if own.id == key.id { Ok(()) } else { check_within(own, Rights::of(key)) }
}

fn check_is_another(own: &Key, key: &Key) -> Result<(), Problem> {
    if own.id != key.id {
        return Ok(());
    }
    Err(Problem::forbidden("key_limits", format!("A key changes everything but itself. {INSTEAD}")))
}

/// However small the quotas of several keys are, together they are more than one of them.
fn check_gives_no_quota(own: &Key) -> Result<(), Problem> {
    if !has_quota(own.quota) {
        return Ok(());
    }
    let message =
        format!("The key \"{}\" has a quota, and gives none to others: theirs would add to it. {INSTEAD}", own.name);
    Err(Problem::forbidden("key_limits", message))
}

fn check_within(own: &Key, wanted: Rights<'_>) -> Result<(), Problem> {
    let Some(excess) = wanted.excess_over(Rights::of(own)) else { return Ok(()) };
    let message = format!(
        "The key \"{}\" makes and changes only keys that are allowed no more than itself: {excess}. {INSTEAD}",
        own.name
    );
    Err(Problem::forbidden("key_limits", message))
}

fn has_quota(quota: Quota) -> bool {
    quota.money.is_some() || quota.tokens.is_some()
}

impl<'a> Rights<'a> {
    fn of(key: &'a Key) -> Self {
        let Key { quota, expires_at, project, .. } = *key;
        Self { quota, models: key.models.as_deref(), addresses: key.addresses.as_deref(), expires_at, project }
    }

    /// In what these go beyond `own`; the first such thing, as the rest of a sentence.
    fn excess_over(self, own: Self) -> Option<&'static str> {
        match () {
            () if is_more(self.quota.money, own.quota.money) => Some("its quota in money is less"),
            () if is_more(self.quota.tokens, own.quota.tokens) => Some("its quota in tokens is less"),
            () if !within(self.models, own.models, covers_model) => Some("it may use fewer models"),
            () if !within(self.addresses, own.addresses, covers_block) => Some("it may come from fewer addresses"),
            () if is_more(self.expires_at, own.expires_at) => Some("it expires earlier"),
            () if own.project.is_some() && self.project != own.project => Some("it is in one project"),
            () => None,
        }
    }
}

/// Whether one bound lets through more than the other; none lets through everything.
fn is_more<T: PartialOrd>(wanted: Option<T>, own: Option<T>) -> bool {
    match (wanted, own) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(wanted), Some(own)) => wanted > own,
    }
}

/// Whether everything of one list is covered by something of the other; none is everything.
fn within(wanted: Option<&[String]>, own: Option<&[String]>, covers: fn(&str, &str) -> bool) -> bool {
    match (wanted, own) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(wanted), Some(own)) => wanted.iter().all(|wanted| own.iter().any(|own| covers(own, wanted))),
    }
}

/// Whether every model of one pattern is one of the other. A trailing `*` stands for any ending.
fn covers_model(own: &str, wanted: &str) -> bool {
    match own.strip_suffix('*') {
        Some(prefix) => wanted.strip_suffix('*').unwrap_or(wanted).starts_with(prefix),
        None => own == wanted,
    }
}

/// Whether every address of one block is in the other.
fn covers_block(own: &str, wanted: &str) -> bool {
    let parts = |block: &str| -> Option<(IpAddr, u32)> {
        let (network, prefix) = block.split_once('/').unwrap_or((block, "128"));
        let network: IpAddr = network.parse().ok()?;
        Some((network, prefix.parse::<u32>().ok()?.min(if network.is_ipv4() { 32 } else { 128 })))
    };
    match (parts(own), parts(wanted)) {
        (Some((_, own_prefix)), Some((network, prefix))) => own_prefix <= prefix && contains(own, network),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_06_one_pattern_or_block_is_within_another() {
        let models = |own: &str, wanted: &str, expected: bool| {
            assert_eq!(covers_model(own, wanted), expected, "{own} {wanted}");
        };
        models("gpt-4o", "gpt-4o", true);
        models("gpt-4o", "gpt-4o-mini", false);
        models("gpt-4o", "gpt-4o*", false);
        models("gpt-*", "gpt-4o", true);
        models("gpt-*", "gpt-4*", true);
        models("gpt-4*", "gpt-*", false);
        models("*", "anything*", true);
        let blocks = |own: &str, wanted: &str, expected: bool| {
            assert_eq!(covers_block(own, wanted), expected, "{own} {wanted}");
        };
        blocks("10.0.0.0/8", "10.1.0.0/16", true);
        blocks("10.0.0.0/8", "10.1.2.3", true);
        blocks("10.1.0.0/16", "10.0.0.0/8", false);
        blocks("10.1.2.3", "10.1.2.3/32", true);
        blocks("10.1.2.3", "10.1.2.4", false);
        blocks("10.1.2.3", "0.0.0.0/0", false);
        blocks("2001:db8::/32", "2001:db8:1::/48", true);
        blocks("2001:db8::1", "2001:db8::/64", false);
        blocks("0.0.0.0/0", "::/0", false);
        blocks("::/0", "10.0.0.1", false);
    }
}
