//! How much is left of an upstream's limits, as its answers told, less what was sent since.

use domain::Timestamp;
use smallvec::SmallVec;

/// Most limits that are kept of one upstream and model.
const LIMITS_MAX: usize = 12;
/// A limit without an end is believed for so long.
const BELIEVED_MS: i64 = 60_000;
/// From that length on, a limit is whole again all at once; shorter ones fill up bit by bit.
const STEP_MS: i64 = 3_600_000;
/// The whole, in millionths.
const WHOLE_PPM: u64 = 1_000_000;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Tokens of prompts and answers.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
    /// A part of an allowance that is told in no unit: a subscription's windows.
    Share,
}

/// A limit, as an answer told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it counts.
    pub unit: Unit,
    /// In what time, in milliseconds, where that is known. With the unit it tells limits apart.
    pub window_ms: Option<i64>,
    /// All that there is.
    pub amount: Option<u64>,
    /// What is used of it, in millionths; more than all is possible.
    pub used_ppm: u32,
    /// When it is whole again.
    pub resets_at: Option<Timestamp>,
}

/// What a request is expected to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Headroom {
    limits: SmallVec<[Known; 4]>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    limit: Limit,
    seen_at: Timestamp,
    /// What was sent since, and is not in what was told: in the limit's unit.
    sent: u64,
}

impl Headroom {
    /// Takes over what an answer told in place of what is known.
    pub fn tell(&mut self, limit: Limit, now: Timestamp) {
        let is_same = |known: &Known| known.limit.unit == limit.unit && known.limit.window_ms == limit.window_ms;
        let known = Known { limit, seen_at: now, sent: 0 };
        if let Some(place) = self.limits.iter_mut().find(|known| is_same(known)) {
            *place = known;
        } else if self.limits.len() < LIMITS_MAX {
            self.limits.push(known);
        }
    }

    /// A request was sent.
    pub fn send(&mut self, need: Need) {
        for known in &mut self.limits {
            known.sent = known.sent.saturating_add(need.of(known.limit.unit));
        }
    }

    /// The part of the tightest limit that would be used if that request were sent, in millionths: more than a million where
    /// it does not fit. 0 where nothing is known.
    pub fn used_ppm(&self, need: Need, now: Timestamp) -> u64 {
        self.limits.iter().map(|known| known.used_ppm(need, now)).max().unwrap_or(0)
    }

    /// When the request fits, by what is known; now, where it does.
    pub fn fits_at(&self, need: Need, now: Timestamp) -> Timestamp {
        let full = self.limits.iter().filter(|known| known.used_ppm(need, now) > WHOLE_PPM);
        full.map(|known| known.limit.resets_at.unwrap_or(known.seen_at.plus_ms(BELIEVED_MS)))
            .max()
            .unwrap_or(now)
            .max(now)
    }

    /// The limits, each with the part that is used now, in millionths.
    pub fn limits(&self, now: Timestamp) -> impl Iterator<Item = (Limit, u64)> + '_ {
        self.limits
            .iter()
            .filter(move |known| !known.is_over(now))
            .map(move |known| (known.limit, known.used_ppm(Need::default(), now)))
    }
}

impl Known {
    /// What was told of it counts no more.
    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.limit.resets_at.unwrap_or(self.seen_at.plus_ms(BELIEVED_MS))
    }

    fn used_ppm(&self, need: Need, now: Timestamp) -> u64 {
        let more = need.of(self.limit.unit);
        let told = if self.is_over(now) { 0 } else { self.told_ppm(now) };
        let sent = if self.is_over(now) { more } else { more.saturating_add(self.sent) };
        match self.limit.amount {
            Some(amount) if self.limit.unit != Unit::Share => {
                let sent = u128::from(sent) * u128::from(WHOLE_PPM) / u128::from(amount.max(1));
                told.saturating_add(u64::try_from(sent).unwrap_or(u64::MAX))
            }
            _ => told,
        }
    }

    /// What was told, less what has filled up since.
    fn told_ppm(&self, now: Timestamp) -> u64 {
        let used = u64::from(self.limit.used_ppm);
        let Some(resets_at) = self.limit.resets_at else { return used };
        let fills = self.limit.unit != Unit::Share && self.limit.window_ms.is_none_or(|window| window < STEP_MS);
        let whole = resets_at.0.saturating_sub(self.seen_at.0);
        if !fills || whole <= 0 || whole >= STEP_MS {
            return used;
        }
        let left = resets_at.0.saturating_sub(now.0).clamp(0, whole);
        let used = u128::from(used) * left.unsigned_abs() as u128 / whole.unsigned_abs() as u128;
        u64::try_from(used).unwrap_or(u64::MAX)
    }
}

impl Need {
    fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => 1,
            Unit::Tokens => self.input_tokens.saturating_add(self.output_tokens),
            Unit::InputTokens => self.input_tokens,
            Unit::OutputTokens => self.output_tokens,
            Unit::Share => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(unit: Unit, amount: u64, used_ppm: u32, resets_s: i64) -> Limit {
        let resets_at = Some(Timestamp(resets_s * 1_000));
        Limit { unit, window_ms: Some(60_000), amount: Some(amount), used_ppm, resets_at }
    }

    const NEED: Need = Need { input_tokens: 600, output_tokens: 400 };

    #[test]
    fn what_was_sent_since_and_what_is_to_come_count_with_what_was_told() {
        let mut headroom = Headroom::default();
        assert_eq!(headroom.used_ppm(NEED, Timestamp(0)), 0, "nothing is known");
        headroom.tell(limit(Unit::Tokens, 10_000, 500_000, 60), Timestamp(0));
        headroom.tell(limit(Unit::Requests, 100, 100_000, 60), Timestamp(0));
        assert_eq!(headroom.used_ppm(NEED, Timestamp(0)), 600_000);
        headroom.send(NEED);
        headroom.send(NEED);
        assert_eq!(headroom.used_ppm(NEED, Timestamp(0)), 800_000);
        let large = Need { input_tokens: 9_000, ..NEED };
        assert_eq!(headroom.used_ppm(large, Timestamp(0)), 1_640_000, "it does not fit");
        assert_eq!(headroom.fits_at(large, Timestamp(0)), Timestamp(60_000));
        assert_eq!(headroom.fits_at(NEED, Timestamp(7)), Timestamp(7));
        // The next answer tells what was sent, too.
        headroom.tell(limit(Unit::Tokens, 10_000, 700_000, 60), Timestamp(0));
        assert_eq!(headroom.used_ppm(NEED, Timestamp(0)), 800_000);
    }

    #[test]
    fn short_limits_fill_up_and_windows_of_subscriptions_end() {
        let mut headroom = Headroom::default();
        headroom.tell(limit(Unit::Tokens, 10_000, 800_000, 60), Timestamp(0));
        assert_eq!(headroom.used_ppm(Need::default(), Timestamp(30_000)), 400_000);
        assert_eq!(headroom.used_ppm(Need::default(), Timestamp(60_000)), 0);
        let window = Limit {
            unit: Unit::Share,
            window_ms: Some(5 * STEP_MS),
            amount: None,
            used_ppm: 970_000,
            resets_at: Some(Timestamp(4 * STEP_MS)),
        };
        headroom.tell(window, Timestamp(0));
        assert_eq!(headroom.used_ppm(NEED, Timestamp(4 * STEP_MS - 1)), 970_000);
        assert_eq!(headroom.limits(Timestamp(4 * STEP_MS - 1)).collect::<Vec<_>>(), [(window, 970_000)]);
        assert_eq!(headroom.limits(Timestamp(4 * STEP_MS)).count(), 0);
    }

    #[test]
    fn a_limit_without_an_end_is_not_believed_for_long() {
        let mut headroom = Headroom::default();
        headroom.tell(Limit { resets_at: None, ..limit(Unit::Requests, 10, 1_000_000, 0) }, Timestamp(0));
        assert_eq!(headroom.used_ppm(NEED, Timestamp(BELIEVED_MS - 1)), 1_100_000);
        assert_eq!(headroom.fits_at(NEED, Timestamp(0)), Timestamp(BELIEVED_MS));
        assert_eq!(headroom.used_ppm(NEED, Timestamp(BELIEVED_MS)), 100_000);
    }

    #[test]
    fn nonsense_overflows_nothing() {
        let mut headroom = Headroom::default();
        let ends = [None, Some(Timestamp(i64::MIN)), Some(Timestamp(i64::MAX))];
        for (index, resets_at) in ends.into_iter().cycle().take(3 * LIMITS_MAX).enumerate() {
            let window_ms = Some(index as i64 - 5);
            headroom.tell(
                Limit { unit: Unit::Tokens, window_ms, amount: Some(0), used_ppm: u32::MAX, resets_at },
                Timestamp(-1),
            );
        }
        headroom.send(Need { input_tokens: u64::MAX, output_tokens: u64::MAX });
        for now in [i64::MIN, -1, 0, i64::MAX] {
            let now = Timestamp(now);
            let need = Need { input_tokens: u64::MAX, output_tokens: 1 };
            assert!(headroom.used_ppm(need, now) > 0);
            assert!(headroom.fits_at(need, now) >= now);
        }
    }
}
