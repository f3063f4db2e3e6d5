//! Attempts to sign in: so many for one e-mail address, and so many from one network address, in a quarter of an hour.
//!
//! What is counted lives in memory and is bounded. Attempts that are turned away do not count, so whoever is kept out
//! by others' attempts is kept out for a while and not for good (S-14).

use domain::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

/// How long attempts count: 15 minutes.
const WINDOW_MS: i64 = 15 * 60 * 1000;
/// Attempts for one e-mail address in a window. One that succeeds gives the others back.
const FOR_EMAIL_MAX: u32 = 10;
/// Attempts from one network address in a window, for whomever.
const FROM_ADDRESS_MAX: u32 = 100;
/// Addresses of both kinds that are remembered.
const SUBJECTS_MAX: usize = 20_000;

/// Counts attempts to sign in.
#[derive(Default)]
pub struct Attempts {
    counts: Mutex<HashMap<Subject, Count>>,
    /// E-mail addresses are not kept, only a digest that nobody can aim at.
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Email(u64),
    From(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Count {
    attempts: u32,
    began: Timestamp,
}

impl Attempts {
    /// Counts an attempt before it is made, so that many at once are as many. Refused with the seconds to wait.
    pub fn begin(&self, email: &str, from: IpAddr, now: Timestamp) -> Result<(), u64> {
        let subjects = [(self.email(email), FOR_EMAIL_MAX), (network(from), FROM_ADDRESS_MAX)];
        let mut counts = self.counts.lock();
        for (subject, attempts_max) in subjects {
            if let Some(count) = counts.get(&subject)
                && !count.is_over(now)
                && count.attempts >= attempts_max
            {
                let left_ms = WINDOW_MS.saturating_sub(now.0.saturating_sub(count.began.0)).clamp(0, WINDOW_MS);
                return Err(left_ms.unsigned_abs().div_ceil(1000).max(1));
            }
        }
        for (subject, _) in subjects {
            if counts.len() >= SUBJECTS_MAX && !counts.contains_key(&subject) {
                make_room(&mut counts, now);
            }
            let count = counts.entry(subject).or_insert(Count { attempts: 0, began: now });
            if count.is_over(now) {
                *count = Count { attempts: 0, began: now };
            }
            count.attempts += 1;
        }
        Ok(())
    }

    /// The attempt was good: it does not count against the network address, and the e-mail address starts anew.
    pub fn succeeded(&self, email: &str, from: IpAddr) {
        let mut counts = self.counts.lock();
        counts.remove(&self.email(email));
        if let Some(count) = counts.get_mut(&network(from)) {
            count.attempts = count.attempts.saturating_sub(1);
        }
    }

    fn email(&self, email: &str) -> Subject {
        Subject::Email(self.hasher.hash_one(email.trim().to_ascii_lowercase()))
    }
}

impl Count {
    /// A clock that was set back ends the window too: nobody waits for the time to come again.
    fn is_over(&self, now: Timestamp) -> bool {
        !(self.began.0..self.began.0.saturating_add(WINDOW_MS)).contains(&now.0)
    }
}

/// IPv6 addresses are given out by networks of 64 bits: whoever has one address has them all.
fn network(from: IpAddr) -> Subject {
    Subject::From(match from.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    })
}

/// What is over is forgotten; if nothing is, then the half with the fewest attempts, so that a flood of new names
/// does not free those who were counted most.
fn make_room(counts: &mut HashMap<Subject, Count>, now: Timestamp) {
    counts.retain(|_, count| !count.is_over(now));
    if counts.len() >= SUBJECTS_MAX {
        let mut attempts: Vec<u32> = counts.values().map(|count| count.attempts).collect();
        attempts.sort_unstable();
        let middle = attempts[attempts.len() / 2];
        counts.retain(|_, count| count.attempts > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn s_14_an_address_is_tried_ten_times_and_later_again() {
        let attempts = Attempts::default();
        for number in 0..FOR_EMAIL_MAX {
            attempts.begin("Ann@example.com ", address(number), NOW).unwrap();
        }
        assert_eq!(attempts.begin("ann@example.com", address(99), NOW.plus_ms(1)), Err(900));
        assert_eq!(attempts.begin("bob@example.com", address(99), NOW), Ok(()));
        assert_eq!(attempts.begin("ann@example.com", address(99), NOW.plus_ms(WINDOW_MS - 1)), Err(1));
        assert_eq!(attempts.begin("ann@example.com", address(99), NOW.plus_ms(WINDOW_MS)), Ok(()));
    }

    #[test]
    fn s_14_one_network_tries_a_hundred_names() {
        let attempts = Attempts::default();
        for number in 0..FROM_ADDRESS_MAX {
            let from = format!("2001:db8::{number:x}").parse().unwrap();
            attempts.begin(&format!("user{number}@example.com"), from, NOW).unwrap();
        }
        assert!(attempts.begin("one@example.com", "2001:db8::ffff".parse().unwrap(), NOW).is_err());
        assert!(attempts.begin("one@example.com", "2001:db8:0:1::1".parse().unwrap(), NOW).is_ok());
    }

    #[test]
    fn success_is_not_held_against_anybody() {
        let attempts = Attempts::default();
        for _ in 0..10 * FROM_ADDRESS_MAX {
            attempts.begin("ann@example.com", address(1), NOW).unwrap();
            attempts.succeeded("ann@example.com", address(1));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_worst_stay() {
        let attempts = Attempts::default();
        for _ in 0..FOR_EMAIL_MAX {
            attempts.begin("ann@example.com", address(1), NOW).unwrap();
        }
        for number in 0..3 * SUBJECTS_MAX as u32 {
            attempts.begin(&format!("{number}@example.com"), address(1000 + number), NOW).unwrap();
        }
        assert!(attempts.counts.lock().len() <= SUBJECTS_MAX);
        assert!(attempts.begin("ann@example.com", address(2), NOW).is_err());
    }
}
