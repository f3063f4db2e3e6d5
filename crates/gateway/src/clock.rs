//! Where `now` comes from.

use domain::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, or one that a simulation moves.
///
/// It tells two times. [`Clock::now`] is what people call the time, and may be set back or forth under us. Leases are
/// measured by [`Clock::steady`], which began as that time and only ever runs: a clock that is corrected by a day must
/// not end the requests of that moment.
#[derive(Debug)]
pub enum Clock {
    /// The machine's, and where its steady time began.
    System {
        /// The wall time at the beginning.
        origin: Timestamp,
        /// The moment it belongs to.
        started: std::time::Instant,
    },
    /// Follows the runtime's (possibly paused) clock from a given instant; can be made to jump.
    Virtual {
        /// The wall time at the beginning.
        origin: Timestamp,
        /// The sum of all jumps, in milliseconds.
        jumped_ms: AtomicI64,
        /// The moment the beginning belongs to.
        started: tokio::time::Instant,
    },
    /// Stands still until it is made to jump: for what must happen at an instant, to the millisecond.
    Still(AtomicI64),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::System { origin: wall(), started: std::time::Instant::now() }
    }

    /// A virtual clock that starts at `origin`.
    pub fn starting_at(origin: Timestamp) -> Self {
        Self::Virtual { origin, jumped_ms: AtomicI64::new(0), started: tokio::time::Instant::now() }
    }

    /// A clock that stands at `origin`.
    pub fn standing_at(origin: Timestamp) -> Self {
        Self::Still(AtomicI64::new(origin.0))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System { .. } => wall(),
            Self::Still(now) => Timestamp(now.load(Ordering::Relaxed)),
            Self::Virtual { jumped_ms, .. } => self.steady().plus_ms(jumped_ms.load(Ordering::Relaxed)),
        }
    }

    /// The time as it would be if nobody had set the clock since the beginning.
    pub fn steady(&self) -> Timestamp {
        let (origin, elapsed) = match self {
            Self::System { origin, started } => (origin, started.elapsed()),
            Self::Virtual { origin, started, .. } => (origin, started.elapsed()),
            Self::Still(_) => return self.now(),
        };
        origin.plus_ms(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    /// Makes a virtual or standing clock jump; the machine's is left alone.
    pub fn jump(&self, ms: i64) {
        if let Self::Virtual { jumped_ms: time, .. } | Self::Still(time) = self {
            time.fetch_add(ms, Ordering::Relaxed);
        }
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
