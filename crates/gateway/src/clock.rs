//! Where `now` comes from.

use domain::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, or one that a simulation moves.
#[derive(Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// Follows the runtime's (possibly paused) clock from a given instant; can be made to jump.
    Virtual {
        /// The wall time at [`Clock::Virtual::started`], in milliseconds; jumps change it.
        origin_ms: AtomicI64,
        /// The runtime's instant that `origin_ms` belongs to.
        started: tokio::time::Instant,
    },
}

impl Clock {
    /// A virtual clock that starts at `origin`.
    pub fn starting_at(origin: Timestamp) -> Self {
        Self::Virtual { origin_ms: AtomicI64::new(origin.0), started: tokio::time::Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Self::Virtual { origin_ms, started } => {
                let elapsed = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
                Timestamp(origin_ms.load(Ordering::Relaxed).saturating_add(elapsed))
            }
        }
    }

    /// Makes a virtual clock jump; the machine's is left alone.
    pub fn jump(&self, ms: i64) {
        if let Self::Virtual { origin_ms, .. } = self {
            origin_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }
}
