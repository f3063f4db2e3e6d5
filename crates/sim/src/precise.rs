//! Sleeping to a tenth of a millisecond.
//!
//! The runtime's timer rounds up to whole milliseconds. A schedule of 200 requests per second is then in step
//! with the timer's ticks, and a proxy that costs 0.1 ms moves an answer by 0 or by 1 ms. Measurements of added
//! latency therefore wait here: one thread holds a heap of deadlines and sleeps on the kernel's fine clock.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Sleeps until `deadline`, late by the kernel's timer slack (about 0.05 ms) plus one wake-up.
pub async fn sleep_until(deadline: Instant) {
    if deadline <= Instant::now() {
        return;
    }
    let (wake, woken) = oneshot::channel();
    let timer = Timer::get();
    timer.pending.lock().unwrap_or_else(PoisonError::into_inner).push(Sleeper { deadline, wake });
    timer.changed.notify_one();
    // An error would mean that the timer thread is gone; sleeping too short is the better failure.
    let _ = woken.await;
}

/// Sleeps for `length`.
pub async fn sleep(length: Duration) {
    sleep_until(Instant::now() + length).await;
}

struct Timer {
    pending: Mutex<BinaryHeap<Sleeper>>,
    changed: Condvar,
}

struct Sleeper {
    deadline: Instant,
    wake: oneshot::Sender<()>,
}

impl Timer {
    fn get() -> &'static Self {
        static TIMER: OnceLock<&'static Timer> = OnceLock::new();
        TIMER.get_or_init(|| {
            let timer: &'static Self =
                Box::leak(Box::new(Self { pending: Mutex::new(BinaryHeap::new()), changed: Condvar::new() }));
            std::thread::Builder::new()
                .name("precise-timer".to_owned())
                .spawn(|| timer.run())
                .expect("one thread can be started");
            timer
        })
    }

    fn run(&self) -> ! {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            while pending.peek().is_some_and(|sleeper| sleeper.deadline <= now) {
                if let Some(sleeper) = pending.pop() {
                    // Nobody listens when the sleeping task was dropped.
                    let _ = sleeper.wake.send(());
                }
            }
            let next = pending.peek().map(|sleeper| sleeper.deadline - now);
            pending = match next {
                Some(wait) => self.changed.wait_timeout(pending, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The earliest deadline is the greatest: the heap gives it first.
impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.cmp(&self.deadline)
    }
}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.deadline == other.deadline
    }
}

impl Eq for Sleeper {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_in_the_order_of_their_deadlines_and_not_before() {
        let start = Instant::now();
        let order = std::sync::Arc::new(Mutex::new(Vec::new()));
        let sleepers: Vec<_> = [9, 3, 6]
            .into_iter()
            .map(|ms| {
                let order = order.clone();
                tokio::spawn(async move {
                    sleep_until(start + Duration::from_millis(ms)).await;
                    assert!(start.elapsed() >= Duration::from_millis(ms));
                    order.lock().unwrap().push(ms);
                })
            })
            .collect();
        for sleeper in sleepers {
            sleeper.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [3, 6, 9]);
    }
}
