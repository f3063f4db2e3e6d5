//! Which limits a request meets, and as which subject.
//!
//! A subject is known by 128 bits: the digest of its limit and those of the values that it has of the limit's dimensions, in
//! one by exclusive or. Each is keyed (SipHash) and tells what it is of, so nobody who does not know the key can find two
//! subjects that are one. What is the same for all requests is digested once, and a value once for all limits of a request.

use domain::rate::{Asking, Dimension, Limit};
use domain::{AccountId, KeyId};
use foldhash::HashMap;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hash;
use std::sync::Arc;

/// Says that a digest is of a limit; others begin with their dimension.
const OF_LIMIT: u8 = u8::MAX;

/// All limits of a moment, found by whom they are for.
#[derive(Debug, Default)]
pub struct LimitBook {
    /// Those that name neither an account nor a key.
    general: Vec<Entry>,
    of_account: HashMap<AccountId, Vec<Entry>>,
    of_key: HashMap<KeyId, Vec<Entry>>,
    hash_key: [u8; 16],
}

/// A limit, and what of it is the same for all requests.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) limit: Arc<Limit>,
    /// Accounts share it.
    pub(super) is_shared: bool,
    digest: u128,
}

/// The digests of a request's values, each made when the first limit asks for it.
pub(super) struct Digests<'a> {
    asking: &'a Asking<'a>,
    hash_key: &'a [u8; 16],
    known: [Option<u128>; Dimension::COUNT],
}

impl LimitBook {
    /// A book of these limits. `hash_key` tells subjects apart.
    pub fn new(limits: &[Arc<Limit>], hash_key: [u8; 16]) -> Self {
        let mut book = Self { hash_key, ..Self::default() };
        for limit in limits {
            let place = match (limit.scope.key, limit.scope.account) {
                (Some(key), _) => book.of_key.entry(key).or_default(),
                (None, Some(account)) => book.of_account.entry(account).or_default(),
                (None, None) => &mut book.general,
            };
            let digest = digest(&hash_key, |hasher| (OF_LIMIT, limit.id.0).hash(hasher));
            place.push(Entry { limit: limit.clone(), is_shared: limit.is_shared(), digest });
        }
        book
    }

    /// There are no limits.
    pub fn is_empty(&self) -> bool {
        self.general.is_empty() && self.of_account.is_empty() && self.of_key.is_empty()
    }

    /// The limits that a request meets.
    pub(super) fn met<'a>(&'a self, asking: &'a Asking<'_>) -> impl Iterator<Item = &'a Entry> {
        let of_account = self.of_account.get(&asking.payer).map_or(&[][..], Vec::as_slice);
        let of_key = self.of_key.get(&asking.key).map_or(&[][..], Vec::as_slice);
        self.general.iter().chain(of_account).chain(of_key).filter(|entry| entry.limit.scope.matches(asking))
    }

    /// What a request is, for [`Entry::subject`].
    pub(super) fn digests<'a>(&'a self, asking: &'a Asking<'a>) -> Digests<'a> {
        Digests { asking, hash_key: &self.hash_key, known: [None; Dimension::COUNT] }
    }
}

impl Entry {
    /// Whom the request counts for.
    pub(super) fn subject(&self, digests: &mut Digests<'_>) -> u128 {
        self.limit.each.iter().fold(self.digest, |subject, dimension| subject ^ digests.of(*dimension))
    }
}

impl Digests<'_> {
    fn of(&mut self, dimension: Dimension) -> u128 {
        let Self { asking, hash_key, known } = self;
        *known[dimension as usize].get_or_insert_with(|| digest(hash_key, |hasher| dimension.value(asking, hasher)))
    }
}

fn digest(hash_key: &[u8; 16], tell: impl FnOnce(&mut SipHasher13)) -> u128 {
    let mut hasher = SipHasher13::new_with_key(hash_key);
    tell(&mut hasher);
    hasher.finish128().as_u128()
}
