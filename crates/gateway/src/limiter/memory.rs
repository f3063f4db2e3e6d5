//! States of limits in this process.
//!
//! They stand in shards, each behind a lock. A decision over several of them locks their shards in ascending order, so that
//! no two decisions wait for each other.

use domain::Timestamp;
use domain::rate::State;
use foldhash::HashMap;
use parking_lot::{Mutex, MutexGuard};

/// Locks that states are spread over.
const SHARDS: usize = 64;
/// States of one shard. With more, those beyond share one state: a flood of new subjects neither fills the memory nor
/// gains anything (L-13).
const STATES_PER_SHARD_MAX: usize = 2_000_000 / SHARDS;
/// The subject of all that have no state of their own in a full shard.
const CROWD: u128 = 0;

/// See the module's description.
pub(super) struct Memory {
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<u128, Kept>;

/// A state, and when it is equal to none if nothing more happens to it.
#[derive(Default)]
struct Kept {
    state: State,
    ends: Timestamp,
}

/// The shards of a decision.
pub(super) struct Locked<'a> {
    shards: Vec<(usize, MutexGuard<'a, Shard>)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Memory {
    /// Locks the shards of these subjects.
    pub(super) fn lock(&self, keys: impl IntoIterator<Item = u128>) -> Locked<'_> {
        let mut wanted: Vec<usize> = keys.into_iter().map(shard_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Locked { shards: wanted.into_iter().map(|index| (index, self.shards[index].lock())).collect() }
    }

    /// Forgets what has ended.
    pub(super) fn forget_ended(&self, at: Timestamp) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, kept| kept.ends > at);
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }

    /// States that are kept.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Locked<'_> {
    /// What `read` finds in a subject's state.
    pub(super) fn look<T>(&self, key: u128, read: impl FnOnce(&State) -> T) -> T {
        let shard = self.shard(key);
        match shard.get(&key).or_else(|| shard.get(&CROWD).filter(|_| shard.len() >= STATES_PER_SHARD_MAX)) {
            Some(kept) => read(&kept.state),
            None => read(&State::default()),
        }
    }

    /// Changes a subject's state; `change` also tells when it ends if nothing more happens to it.
    pub(super) fn change<T>(&mut self, key: u128, change: impl FnOnce(&mut State) -> (T, Timestamp)) -> T {
        let place = self.shards.binary_search_by_key(&shard_of(key), |(index, _)| *index);
        let shard = &mut self.shards[place.expect("the decision locked it")].1;
        let key = if shard.len() >= STATES_PER_SHARD_MAX && !shard.contains_key(&key) { CROWD } else { key };
        let kept = shard.entry(key).or_default();
        let (changed, ends) = change(&mut kept.state);
        kept.ends = ends;
        changed
    }

    /// Changes a subject's state if there is one.
    pub(super) fn change_kept(&mut self, key: u128, change: impl FnOnce(&mut State)) {
        let place = self.shards.binary_search_by_key(&shard_of(key), |(index, _)| *index);
        let shard = &mut self.shards[place.expect("the decision locked it")].1;
        if let Some(kept) = shard.get_mut(&key) {
            change(&mut kept.state);
        }
    }

    fn shard(&self, key: u128) -> &Shard {
        let place = self.shards.binary_search_by_key(&shard_of(key), |(index, _)| *index);
        &self.shards[place.expect("the decision locked it")].1
    }
}

fn shard_of(key: u128) -> usize {
    (key >> 64) as usize % SHARDS
}
