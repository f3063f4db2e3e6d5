//! States of limits in this process.
//!
//! They stand in shards, each behind a lock. A decision over several of them locks their shards in ascending order, so that
//! no two decisions wait for each other.

use domain::Timestamp;
use domain::rate::State;
use foldhash::{HashMap, HashSet};
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// Where the next look for changed states begins, so that no shard has to wait for another that changes all the time.
    next: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    states: HashMap<u128, Kept>,
    /// Of those that outlive the process: which have changed since they were last written down.
    changed: HashSet<u128>,
}

/// A state, and when it is equal to none if nothing more happens to it.
#[derive(Default)]
struct Kept {
    state: State,
    ends: Timestamp,
}

/// The shards of a decision.
pub(super) struct Locked<'a> {
    /// Which: a bit for each.
    which: u64,
    /// In ascending order.
    shards: Vec<MutexGuard<'a, Shard>>,
}

/// Each shard has its bit in [`Locked::which`].
const _: () = assert!(SHARDS == u64::BITS as usize);

impl Default for Memory {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), next: AtomicUsize::new(0) }
    }
}

impl Memory {
    /// Locks the shards of these subjects.
    pub(super) fn lock(&self, keys: impl IntoIterator<Item = u128>) -> Locked<'_> {
        let which = keys.into_iter().fold(0, |which, key| which | 1_u64 << shard_of(key));
        let mut shards = Vec::with_capacity(which.count_ones() as usize);
        let mut rest = which;
        while rest > 0 {
            shards.push(self.shards[rest.trailing_zeros() as usize].lock());
            rest &= rest - 1;
        }
        Locked { which, shards }
    }

    /// Forgets what has ended; of what outlives the process not before that was written down, or the next one would find it
    /// as it was before.
    pub(super) fn forget_ended(&self, at: Timestamp) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { states, changed } = &mut *shard;
            states.retain(|key, kept| kept.ends > at || changed.contains(key));
            if states.capacity() > 64 && states.len() < states.capacity() / 4 {
                states.shrink_to_fit();
            }
        }
    }

    /// Up to `max` states that have changed since they were last taken from here, with `read` of each and when it ends.
    pub(super) fn take_changed<T>(&self, max: usize, mut read: impl FnMut(u128, &State, Timestamp) -> T) -> Vec<T> {
        let (mut taken, first) = (Vec::new(), self.next.fetch_add(1, Ordering::Relaxed));
        for index in (0..SHARDS).map(|index| (first + index) % SHARDS) {
            let mut shard = self.shards[index].lock();
            let Shard { states, changed } = &mut *shard;
            changed.retain(|key| {
                if taken.len() >= max {
                    return true;
                }
                if let Some(kept) = states.get(key) {
                    taken.push(read(*key, &kept.state, kept.ends));
                }
                false
            });
        }
        taken
    }

    /// Takes them for changed once more.
    pub(super) fn mark_changed(&self, keys: impl Iterator<Item = u128>) {
        for key in keys {
            self.shards[shard_of(key)].lock().changed.insert(key);
        }
    }

    /// Puts a state there that was kept elsewhere.
    pub(super) fn put(&self, key: u128, state: State, ends: Timestamp) {
        let mut shard = self.shards[shard_of(key)].lock();
        if shard.states.len() < STATES_PER_SHARD_MAX {
            shard.states.insert(key, Kept { state, ends });
        }
    }

    /// States that are kept.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().states.len()).sum()
    }
}

impl Locked<'_> {
    /// What `read` finds in a subject's state.
    pub(super) fn look<T>(&self, key: u128, read: impl FnOnce(&State) -> T) -> T {
        let shard = &self.shards[self.place(key)].states;
        match shard.get(&key).or_else(|| shard.get(&CROWD).filter(|_| shard.len() >= STATES_PER_SHARD_MAX)) {
            Some(kept) => read(&kept.state),
            None => read(&State::default()),
        }
    }

    /// Changes a subject's state; `change` also tells when it ends if nothing more happens to it. `outlives`: the state is
    /// to be written down.
    pub(super) fn change<T>(
        &mut self,
        key: u128,
        outlives: bool,
        change: impl FnOnce(&mut State) -> (T, Timestamp),
    ) -> T {
        let place = self.place(key);
        let Shard { states, changed: marks } = &mut *self.shards[place];
        let key = if states.len() >= STATES_PER_SHARD_MAX && !states.contains_key(&key) { CROWD } else { key };
        let kept = states.entry(key).or_default();
        let (changed, ends) = change(&mut kept.state);
        kept.ends = ends;
        if outlives && key != CROWD {
            marks.insert(key);
        }
        changed
    }

    /// Changes a subject's state if there is one; `change` tells whether it did.
    pub(super) fn change_kept(&mut self, key: u128, outlives: bool, change: impl FnOnce(&mut State) -> bool) {
        let place = self.place(key);
        let Shard { states, changed: marks } = &mut *self.shards[place];
        if let Some(kept) = states.get_mut(&key)
            && change(&mut kept.state)
            && outlives
        {
            marks.insert(key);
        }
    }

    /// Where the shard of a subject is among those that are locked.
    fn place(&self, key: u128) -> usize {
        let bit = 1_u64 << shard_of(key);
        debug_assert!(self.which & bit > 0, "the decision locked it");
        (self.which & (bit - 1)).count_ones() as usize
    }
}

fn shard_of(key: u128) -> usize {
    (key >> 64) as usize % SHARDS
}
