//! How well and how quickly something answers, from its last requests.

use domain::Timestamp;

/// The weight of one more outcome: about the last hundred count.
const OUTCOME_WEIGHT: f32 = 0.02;
/// In that time a latency that nobody confirms is forgotten by two thirds.
const LATENCY_FADES_MS: f32 = 10_000.0;

/// Success and latency of recent requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// The share of requests that did well.
    success: f32,
    /// Milliseconds to the first byte: the last peak, fading. `None` before the first answer.
    latency_ms: Option<f32>,
    seen_at: Timestamp,
}

impl Default for Health {
    fn default() -> Self {
        Self { success: 1.0, latency_ms: None, seen_at: Timestamp(0) }
    }
}

impl Health {
    /// The share of recent requests that did well, 0 to 1.
    pub fn success(&self) -> f32 {
        self.success
    }

    /// Milliseconds to the first byte. A slow answer counts at once and fades, so that who has become slow is avoided before
    /// an average would show it.
    pub fn latency_ms(&self) -> Option<f32> {
        self.latency_ms
    }

    /// An answer began after so many milliseconds.
    pub fn answered(&mut self, latency_ms: u32, now: Timestamp) {
        self.success += (1.0 - self.success) * OUTCOME_WEIGHT;
        let sample = latency_ms as f32;
        self.latency_ms = Some(match self.latency_ms {
            Some(known) if known > sample => {
                let passed = now.0.saturating_sub(self.seen_at.0).max(0) as f32;
                sample + (known - sample) * (-passed / LATENCY_FADES_MS).exp()
            }
            _ => sample,
        });
        self.seen_at = now;
    }

    /// A request failed by its fault.
    pub fn failed(&mut self) {
        self.success -= self.success * OUTCOME_WEIGHT;
    }

    /// 0 to 1: success, less where others answer quicker. `fastest_ms` is the latency of the quickest of the pool.
    pub fn value(&self, fastest_ms: Option<f32>) -> f32 {
        match (self.latency_ms, fastest_ms) {
            (Some(own), Some(fastest)) if own > fastest => {
                self.success * (fastest.max(1.0) / own.max(1.0)).sqrt().clamp(0.25, 1.0)
            }
            _ => self.success,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_lower_it_and_answers_raise_it() {
        let mut health = Health::default();
        (0..40).for_each(|_| health.failed());
        assert!((0.4..0.5).contains(&health.success()), "{health:?}");
        (0..200).for_each(|_| health.answered(100, Timestamp(0)));
        assert!(health.success() > 0.98, "{health:?}");
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let mut health = Health::default();
        health.answered(100, Timestamp(0));
        health.answered(2_000, Timestamp(10));
        assert_eq!(health.latency_ms(), Some(2_000.0));
        health.answered(100, Timestamp(10_010));
        let latency = health.latency_ms().unwrap();
        assert!((750.0..850.0).contains(&latency), "{latency}");
    }

    #[test]
    fn who_is_slower_than_others_is_worth_less() {
        let mut slow = Health::default();
        slow.answered(400, Timestamp(0));
        assert_eq!(slow.value(Some(100.0)), 0.5);
        assert_eq!((slow.value(Some(400.0)), slow.value(None)), (1.0, 1.0));
        slow.answered(u32::MAX, Timestamp(0));
        assert_eq!(slow.value(Some(0.0)), 0.25);
    }
}
