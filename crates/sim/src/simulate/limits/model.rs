//! What limits must say, by plain lists of what was admitted.
//!
//! Two amounts are kept of everything: the *least* that may count, were all that is given back given back at once and what
//! has expired forgotten, and the *most*, were nothing of it that cannot be told exactly. Where they agree, and that is
//! everywhere unless a clock was set back or a bucket was given something back, the answer is exact.

use domain::LimitId;
use domain::rate::{Asking, Dimension, Limit, Metric, Window};
use domain::{Calendar, Timestamp};
use gateway::limiter::{Cost, Limited};
use std::collections::{BTreeMap, BTreeSet};

/// A period that has begun stays if the clock goes back by no more than this.
pub(super) const STEP_BACK_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// What must become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Must {
    ComeIn,
    /// That limit has no room for it, whatever was given back.
    StayOut(String),
    Either,
}

/// All that was admitted, by limit and subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    subjects: BTreeMap<(LimitId, String), Subject>,
    /// Requests under way, with where they are counted.
    open: BTreeMap<u64, Vec<(LimitId, String, Metric, u64)>>,
    last: u64,
}

#[derive(Clone, Debug, Default)]
struct Subject {
    entries: Vec<Entry>,
    /// When the period or session of the entries began.
    began: i64,
    /// Of buckets: what is missing, in units times milliseconds, at least; as of when; and until when at most.
    missing_least: i128,
    as_of: i64,
    full_most: i128,
    /// What was given back of what a clock that went back had moved: it may be missing from something else instead, for so
    /// long.
    astray: Vec<(i64, u64)>,
    under_way: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    at: i64,
    least: u64,
    most: u64,
    /// A clock that went back has moved it.
    moved: bool,
}

/// The longest time for which anything counts.
pub(super) fn longest_ms(limit: &Limit) -> i64 {
    match limit.window {
        Window::Sliding { length_ms } | Window::Session { length_ms } => length_ms,
        Window::Smooth { length_ms, burst } => {
            let burst = burst.unwrap_or(limit.amount);
            length_ms.max((burst as i64 * length_ms + limit.amount as i64 - 1) / limit.amount.max(1) as i64)
        }
        Window::Calendar(Calendar::Hour) => HOUR_MS,
        Window::Calendar(_) => 24 * HOUR_MS,
        Window::Now | Window::Request => 0,
    }
}

/// Whether accounts share the limit that refused, which had room by itself.
pub(super) fn is_by_share(limited: &Limited) -> bool {
    limited.limit.is_shared() && limited.needed <= limited.standing.remaining
}

fn outlives(window: Window) -> bool {
    match window {
        Window::Sliding { length_ms } | Window::Smooth { length_ms, .. } | Window::Session { length_ms } => {
            length_ms > 60_000
        }
        Window::Calendar(_) => true,
        Window::Now | Window::Request => false,
    }
}

fn matches(limit: &Limit, asking: &Asking<'_>) -> bool {
    let scope = &limit.scope;
    scope.account.is_none_or(|account| account == asking.payer)
        && scope.key.is_none_or(|key| key == asking.key)
        && (scope.models.is_empty() || scope.models.iter().any(|model| **model == *asking.model))
}

fn subject(limit: &Limit, asking: &Asking<'_>) -> (LimitId, String) {
    let value = |dimension: &Dimension| match dimension {
        Dimension::Account => format!("account {}", asking.payer),
        Dimension::Key => format!("key {}", asking.key),
        _ => format!("model {}", asking.model),
    };
    (limit.id, limit.each.iter().map(value).collect::<Vec<_>>().join(", "))
}

fn amount(cost: &Cost, metric: Metric) -> u64 {
    match metric {
        Metric::Requests | Metric::InFlight => 1,
        Metric::InputTokens => cost.input_tokens,
        Metric::OutputTokens => cost.output_tokens,
        Metric::TotalTokens => cost.input_tokens + cost.output_tokens,
        Metric::Money => cost.money,
        Metric::Choices => cost.choices,
    }
}

impl Books {
    /// What must become of a request at `now`.
    pub(super) fn must(
        &self,
        limits: &[std::sync::Arc<Limit>],
        asking: &Asking<'_>,
        cost: &Cost,
        now: Timestamp,
    ) -> Must {
        let mut must = Must::ComeIn;
        for limit in limits.iter().filter(|limit| matches(limit, asking)) {
            let cost = amount(cost, limit.metric);
            let mut subject = self.subjects.get(&subject(limit, asking)).cloned().unwrap_or_default();
            subject.adopt(limit.window, limit.amount, now.0);
            let (unit, room) = match limit.window {
                Window::Smooth { length_ms, burst } => (length_ms as i128, burst.unwrap_or(limit.amount)),
                _ => (1, limit.amount),
            };
            let (least, most) = subject.used(limit.window, limit.amount, now.0);
            let (cost, room) = (i128::from(cost) * unit, i128::from(room) * unit);
            if limit.amount == 0 || least + cost > room {
                return Must::StayOut(format!("{}: {least} to {most} and {cost} of {room}", limit.name));
            }
            if most + cost > room {
                must = Must::Either;
            }
        }
        must
    }

    /// It was admitted.
    pub(super) fn take(
        &mut self,
        limits: &[std::sync::Arc<Limit>],
        asking: &Asking<'_>,
        cost: &Cost,
        now: Timestamp,
    ) -> u64 {
        self.last += 1;
        let mut places = Vec::new();
        for limit in limits.iter().filter(|limit| matches(limit, asking)) {
            let (key, cost) = (subject(limit, asking), amount(cost, limit.metric));
            places.push((key.0, key.1.clone(), limit.metric, cost));
            let subject = self.subjects.entry(key).or_default();
            subject.adopt(limit.window, limit.amount, now.0);
            subject.take(limit.window, limit.amount, self.last, cost, now.0);
        }
        self.open.insert(self.last, places);
        self.last
    }

    /// It was refused: nothing is taken, but what lies in the future is drawn in.
    pub(super) fn refused(&mut self, limits: &[std::sync::Arc<Limit>], asking: &Asking<'_>, now: Timestamp) {
        for limit in limits.iter().filter(|limit| matches(limit, asking)) {
            if let Some(subject) = self.subjects.get_mut(&subject(limit, asking)) {
                subject.adopt(limit.window, limit.amount, now.0);
            }
        }
    }

    /// It has ended, and that was used; or nothing at all, not even the request itself.
    pub(super) fn correct(
        &mut self,
        limits: &[std::sync::Arc<Limit>],
        number: u64,
        actual: &Cost,
        nothing: bool,
        now: Timestamp,
    ) {
        for (id, name, metric, reserved) in self.open.remove(&number).unwrap_or_default() {
            let limit = limits.iter().find(|limit| limit.id == id).expect("limits are changed and never deleted");
            let actual = if nothing || metric == Metric::InFlight { 0 } else { amount(actual, metric) };
            let Some(subject) = self.subjects.get_mut(&(id, name)) else { continue };
            if actual == reserved {
                continue;
            }
            subject.adopt(limit.window, limit.amount, now.0);
            match actual.checked_sub(reserved) {
                Some(beyond) => subject.take(limit.window, limit.amount, number, beyond, now.0),
                None => subject.give_back(limit.window, longest_ms(limit), number, reserved - actual, now.0),
            }
        }
    }

    /// Its caller is gone without a word: what it had reserved is used.
    pub(super) fn leave(&mut self, number: u64) {
        for (id, name, metric, _) in self.open.remove(&number).unwrap_or_default() {
            if metric == Metric::InFlight
                && let Some(subject) = self.subjects.get_mut(&(id, name))
            {
                subject.under_way.remove(&number);
            }
        }
    }

    /// How many requests count as under way.
    pub(super) fn in_flight(&self, limit: &Limit, asking: &Asking<'_>) -> u64 {
        self.subjects.get(&subject(limit, asking)).map_or(0, |subject| subject.under_way.len() as u64)
    }

    /// What has ended may be forgotten, and may then not be there again when the clock goes back.
    pub(super) fn tidy(&mut self, limits: &[std::sync::Arc<Limit>], now: Timestamp) {
        for ((id, _), subject) in &mut self.subjects {
            if let Some(limit) = limits.iter().find(|limit| limit.id == *id) {
                subject.forget(limit.window, limit.amount, now.0);
            }
        }
    }

    /// The process has ended; the next one begins with what was saved. No number comes twice.
    pub(super) fn ended(&mut self, saved: Self) {
        *self = Self { last: self.last.max(saved.last), ..saved };
    }

    /// What another process finds.
    pub(super) fn outliving(&self, limits: &[std::sync::Arc<Limit>]) -> Self {
        let outlives = |id: &LimitId| limits.iter().any(|limit| limit.id == *id && outlives(limit.window));
        let subjects = self.subjects.iter().filter(|((id, _), _)| outlives(id));
        let subjects = subjects.map(|(key, subject)| (key.clone(), subject.clone())).collect();
        Self { subjects, open: BTreeMap::new(), last: self.last }
    }
}

impl Subject {
    /// What counts, at least and at most. Of buckets in units times milliseconds.
    fn used(&self, window: Window, amount: u64, now: i64) -> (i128, i128) {
        let sums = |counts: &dyn Fn(&Entry) -> bool| {
            let counted = self.entries.iter().filter(|entry| counts(entry));
            counted
                .fold((0, 0), |(least, most), entry| (least + i128::from(entry.least), most + i128::from(entry.most)))
        };
        let (least, most) = match window {
            Window::Sliding { length_ms } => sums(&|entry| entry.at + length_ms > now),
            Window::Session { length_ms } => sums(&|_| self.began + length_ms > now),
            Window::Calendar(calendar) => sums(&|_| end(calendar, self.began) > now),
            Window::Smooth { .. } => return (self.missing(amount, now), self.missing_most(amount, now)),
            Window::Now => (self.under_way.len() as i128, self.under_way.len() as i128),
            Window::Request => (0, 0),
        };
        let astray: u64 = self.astray.iter().filter(|(until, _)| *until > now).map(|(_, amount)| amount).sum();
        ((least - i128::from(astray)).max(0), most)
    }

    fn missing(&self, amount: u64, now: i64) -> i128 {
        (self.missing_least - i128::from(amount) * i128::from((now - self.as_of).max(0))).max(0)
    }

    fn missing_most(&self, amount: u64, now: i64) -> i128 {
        (self.full_most - i128::from(amount) * i128::from(now)).max(0)
    }

    /// What lies in the future is as if it were of now.
    fn adopt(&mut self, window: Window, amount: u64, now: i64) {
        self.forget(window, amount, now);
        match window {
            Window::Sliding { .. } => {
                for entry in self.entries.iter_mut().filter(|entry| entry.at > now) {
                    (entry.at, entry.moved) = (now, true);
                }
            }
            Window::Session { .. } if self.began > now => {
                self.began = now;
                self.entries.iter_mut().for_each(|entry| entry.moved = true);
            }
            Window::Calendar(calendar) if self.began > now + STEP_BACK_MS => {
                self.began = start(calendar, now);
                self.entries.iter_mut().for_each(|entry| entry.moved = true);
            }
            Window::Smooth { .. } => {
                self.cap(window, amount, now);
            }
            _ => {}
        }
    }

    /// A bucket is full again within its reach.
    fn cap(&mut self, window: Window, amount: u64, now: i64) {
        let Window::Smooth { length_ms, burst } = window else { return };
        let fills_ms = (i128::from(burst.unwrap_or(amount)) * i128::from(length_ms)).div_ceil_by(i128::from(amount));
        let reach = i128::from(amount) * fills_ms.max(i128::from(length_ms));
        self.missing_least = self.missing_least.min(reach);
        self.full_most = self.full_most.min(i128::from(amount) * i128::from(now) + reach);
    }

    /// What has ended counts no more, even if the clock goes back; or it may, for not everything is forgotten at once.
    fn forget(&mut self, window: Window, amount: u64, now: i64) {
        if let Window::Smooth { .. } = window {
            (self.missing_least, self.as_of) = (self.missing(amount, now), now);
        }
        let (began, length_ms) = (
            self.began,
            match window {
                Window::Sliding { length_ms } | Window::Session { length_ms } => length_ms,
                _ => 0,
            },
        );
        for entry in &mut self.entries {
            let ended = match window {
                Window::Sliding { .. } => entry.at + length_ms <= now,
                Window::Session { .. } => began + length_ms <= now,
                Window::Calendar(calendar) => end(calendar, began) <= now,
                _ => false,
            };
            if ended {
                entry.least = 0;
            }
        }
        self.astray.retain(|(until, _)| *until > now);
    }

    fn take(&mut self, window: Window, amount: u64, number: u64, cost: u64, now: i64) {
        let is_over = match window {
            Window::Session { length_ms } => self.entries.is_empty() || self.began + length_ms <= now,
            Window::Calendar(calendar) => self.entries.is_empty() || end(calendar, self.began) <= now,
            _ => false,
        };
        if is_over {
            self.entries.clear();
            self.began = if let Window::Calendar(calendar) = window { start(calendar, now) } else { now };
        }
        match window {
            Window::Smooth { length_ms, .. } => {
                let units = i128::from(cost) * i128::from(length_ms);
                self.missing_least = self.missing(amount, now) + units;
                self.full_most = self.full_most.max(i128::from(amount) * i128::from(now)) + units;
                self.as_of = now;
                self.cap(window, amount, now);
            }
            Window::Now => {
                self.under_way.insert(number);
            }
            Window::Request => {}
            _ => self.entries.push(Entry { number, at: now, least: cost, most: cost, moved: false }),
        }
    }

    fn give_back(&mut self, window: Window, longest_ms: i64, number: u64, surplus: u64, now: i64) {
        if let Window::Smooth { length_ms, .. } = window {
            self.missing_least = (self.missing_least - i128::from(surplus) * i128::from(length_ms)).max(0);
            return;
        }
        self.under_way.remove(&number);
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == number) else { return };
        if entry.moved {
            self.astray.push((now + longest_ms, surplus));
            return;
        }
        entry.least = entry.least.saturating_sub(surplus);
        entry.most = entry.most.saturating_sub(surplus);
        if entry.most == 0 {
            self.entries.retain(|entry| entry.most > 0);
        }
    }
}

/// Division that rounds up, of what is not negative.
trait DivCeilBy {
    fn div_ceil_by(self, by: Self) -> Self;
}

impl DivCeilBy for i128 {
    fn div_ceil_by(self, by: Self) -> Self {
        (self + by - 1) / by
    }
}

/// Hours and days of UTC are of one length each.
fn length_ms(calendar: Calendar) -> i64 {
    if calendar == Calendar::Hour { HOUR_MS } else { 24 * HOUR_MS }
}

fn start(calendar: Calendar, at: i64) -> i64 {
    at - at.rem_euclid(length_ms(calendar))
}

fn end(calendar: Calendar, start: i64) -> i64 {
    start + length_ms(calendar)
}
