//! How fast a limit can be taken from, steadily: so that what is left and what becomes free never run out within a window.

use super::{Rule, State, Used};
use crate::calendar::Zone;
use crate::rate::Window;
use crate::rate::share::{TICK_MS, UNIT};
use crate::time::Timestamp;

impl Rule {
    /// What can be taken in each tick of [`Sharing`](crate::rate::Sharing) from `at` on, in its units.
    pub fn steady(&self, state: &State, zone: &Zone, at: Timestamp) -> u128 {
        let left = self.standing(state, zone, at).remaining;
        let until = |end: Timestamp| end.0.saturating_sub(at.0);
        self.adopting(&state.0, zone, at, |used| match (used, self.window) {
            (Used::Sliding(log), Window::Sliding { length_ms }) => {
                let before_each =
                    log.frees(length_ms, at).map(|(free_at, freed)| per_tick(left + freed, until(free_at)));
                before_each.fold(per_tick(self.amount, length_ms), u128::min)
            }
            // Nothing becomes free before the end.
            (Used::Calendar(count), _) => per_tick(left, until(count.end())),
            (Used::Session(count), Window::Session { length_ms }) => per_tick(left, until(count.end(length_ms))),
            (_, Window::Sliding { length_ms } | Window::Smooth { length_ms, .. } | Window::Session { length_ms }) => {
                per_tick(self.amount, length_ms)
            }
            (_, Window::Calendar(calendar)) => per_tick(left, until(calendar.period(zone, at).end)),
            (_, Window::Now | Window::Request) => u128::from(self.amount) * UNIT,
        })
    }
}

fn per_tick(amount: u64, length_ms: i64) -> u128 {
    u128::from(amount) * UNIT * u128::from(TICK_MS.unsigned_abs()) / u128::from(length_ms.max(1).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_pace_never_runs_out_and_uses_all() {
        let rule = Rule { amount: 600, window: Window::Sliding { length_ms: 60_000 } };
        let (zone, mut state) = (Zone::UTC, State::default());
        assert_eq!(rule.steady(&state, &zone, Timestamp(0)), UNIT, "600 a minute are one in each tenth of a second");
        rule.take(&mut state, 300, &zone, Timestamp(0));
        // What is left has to last until the first half is free again.
        assert_eq!(rule.steady(&state, &zone, Timestamp(0)), UNIT / 2);
        assert_eq!(rule.steady(&state, &zone, Timestamp(30_000)), UNIT);
        rule.take(&mut state, 300, &zone, Timestamp(30_000));
        assert_eq!(rule.steady(&state, &zone, Timestamp(30_000)), 0);
        assert_eq!(rule.steady(&state, &zone, Timestamp(60_000)), UNIT);
        let day = Rule { amount: 864_000, window: Window::Calendar(crate::Calendar::Day) };
        assert_eq!(day.steady(&State::default(), &zone, Timestamp(0)), UNIT);
    }
}
