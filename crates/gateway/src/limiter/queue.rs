//! Waiting for a place.
//!
//! Who waits stands in one line, in the order of arrival. A class of higher priority stands as if it had come
//! [`AHEAD_MS`] earlier, one of lower as if so much later: so nobody starves, and among equals who came first is first.
//! Somebody in the line tries again when their limits should have room, but not before those further ahead who wait for
//! the same subject. The line is bounded in all and for each account, and who leaves it, for whatever reason, leaves no
//! trace.

use domain::AccountId;
use domain::rate::Priority;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// How much earlier a class seems to have come than the one below it.
const AHEAD_MS: i64 = 5_000;
/// The longest line.
const WAITING_MAX: usize = 10_000;
/// The most that one account may have in it (L-16).
const WAITING_OF_ACCOUNT_MAX: usize = 500;

/// The line.
#[derive(Default)]
pub struct Queue {
    line: Mutex<Line>,
    tickets: AtomicU64,
    /// How many are in it, for those who only want to know whether anybody is.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Line {
    waiting: BTreeMap<Place, Waiter>,
    of_account: foldhash::HashMap<AccountId, usize>,
}

/// When somebody seems to have come, and their ticket.
type Place = (i64, u64);

struct Waiter {
    account: AccountId,
    /// What they wait for.
    subjects: Arc<[u128]>,
    turn: Arc<Notify>,
}

/// A place in the line. Dropping it leaves the line.
pub struct Ticket<'a> {
    queue: &'a Queue,
    place: Place,
    turn: Arc<Notify>,
}

impl Queue {
    /// Stands in the line, unless it is full. `subjects`: what is waited for.
    pub fn stand(
        &self,
        account: AccountId,
        priority: Priority,
        subjects: Arc<[u128]>,
        arrived_ms: i64,
    ) -> Option<Ticket<'_>> {
        let seems = arrived_ms + AHEAD_MS * (priority as i64 - Priority::Normal as i64);
        let place = (seems, self.tickets.fetch_add(1, Ordering::Relaxed));
        let mut line = self.line.lock();
        let of_account = line.of_account.get(&account).copied().unwrap_or(0);
        if line.waiting.len() >= WAITING_MAX || of_account >= WAITING_OF_ACCOUNT_MAX {
            return None;
        }
        *line.of_account.entry(account).or_default() += 1;
        let turn = Arc::new(Notify::new());
        line.waiting.insert(place, Waiter { account, subjects, turn: turn.clone() });
        self.waiting.store(line.waiting.len(), Ordering::Release);
        Some(Ticket { queue: self, place, turn })
    }

    /// Whether somebody waits for one of these: then who comes now stands behind them.
    pub fn is_waited_for(&self, subjects: impl Fn(u128) -> bool) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
            && self.line.lock().waiting.values().any(|waiter| waiter.subjects.iter().any(|&subject| subjects(subject)))
    }

    /// There may be room in these: the first who wait for them look.
    pub fn poke(&self, subjects: impl Iterator<Item = u128>) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        let line = self.line.lock();
        for subject in subjects {
            if let Some(first) = line.waiting.values().find(|waiter| waiter.subjects.contains(&subject)) {
                first.turn.notify_one();
            }
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ticket<'_> {
    /// Nobody further ahead waits for the same.
    pub fn is_first(&self) -> bool {
        let line = self.queue.line.lock();
        let Some(me) = line.waiting.get(&self.place) else { return true };
        let ahead = line.waiting.range(..self.place);
        !ahead.into_iter().any(|(_, other)| other.subjects.iter().any(|subject| me.subjects.contains(subject)))
    }

    /// Waits until it may be one's turn.
    pub async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line.lock();
        let Some(left) = line.waiting.remove(&self.place) else { return };
        if let Some(count) = line.of_account.get_mut(&left.account) {
            *count -= 1;
            if *count == 0 {
                line.of_account.remove(&left.account);
            }
        }
        self.queue.waiting.store(line.waiting.len(), Ordering::Release);
        for subject in left.subjects.iter() {
            if let Some(next) = line.waiting.values().find(|waiter| waiter.subjects.contains(subject)) {
                next.turn.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(queue: &Queue, account: i64, priority: Priority, subject: u128, at: i64) -> Option<Ticket<'_>> {
        queue.stand(AccountId(account), priority, [subject].into(), at)
    }

    #[test]
    fn l_16_the_line_is_in_order_by_class_and_nobody_starves() {
        let queue = Queue::default();
        let low = stand(&queue, 1, Priority::Low, 7, 0).unwrap();
        let normal = stand(&queue, 1, Priority::Normal, 7, 10).unwrap();
        let high = stand(&queue, 1, Priority::High, 7, 20).unwrap();
        let other = stand(&queue, 1, Priority::Low, 8, 30).unwrap();
        assert!(high.is_first() && other.is_first() && !normal.is_first() && !low.is_first());
        // Who comes much later stands behind all of them, whatever the class.
        let late = stand(&queue, 2, Priority::High, 7, 20_000).unwrap();
        drop(high);
        assert!(normal.is_first());
        drop(normal);
        assert!(low.is_first() && !late.is_first());
        drop(low);
        assert!(late.is_first());
        drop((late, other));
        assert!(queue.is_empty() && queue.line.lock().of_account.is_empty());
    }

    #[test]
    fn l_16_one_account_cannot_fill_the_line() {
        let queue = Queue::default();
        let flood: Vec<_> = (0..WAITING_OF_ACCOUNT_MAX).map(|_| stand(&queue, 1, Priority::High, 7, 0)).collect();
        assert!(flood.iter().all(Option::is_some) && stand(&queue, 1, Priority::High, 7, 0).is_none());
        assert!(stand(&queue, 2, Priority::Low, 7, 0).is_some());
    }

    #[tokio::test]
    async fn l_21_who_leaves_gives_the_turn_to_the_next() {
        let queue = Queue::default();
        let first = stand(&queue, 1, Priority::Normal, 7, 0).unwrap();
        let second = stand(&queue, 1, Priority::Normal, 7, 1).unwrap();
        drop(first);
        second.turn().await;
        assert!(second.is_first());
        queue.poke([7].into_iter());
        second.turn().await;
        queue.poke([8].into_iter());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(5), second.turn()).await.is_err());
        assert!(queue.is_waited_for(|subject| subject == 7) && !queue.is_waited_for(|subject| subject == 8));
    }
}
