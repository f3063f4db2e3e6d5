//! Passwords: made into digests that cost their finder time and memory, a few at once.
//!
//! A look at a password takes as long for somebody who is not there as for somebody who is (S-13, S-52).

use crate::database::StoreError;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;

/// Shortest and longest password, in characters.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;
/// Digests made at once. Each takes [`MEMORY_KIB`] and a core for some tens of milliseconds.
const AT_ONCE: usize = 2;
/// Requests that wait for their turn; further ones are turned away (S-14).
const WAITING_MAX: usize = 32;
/// OWASP's parameters for Argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Makes and checks digests of passwords.
pub struct Passwords {
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// Too many passwords are being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at once")]
pub struct Busy;

/// A password that may be set.
pub fn check(password: &str) -> Result<(), StoreError> {
    let (shortest, longest) = (PASSWORD_CHARS.start(), PASSWORD_CHARS.end());
    if PASSWORD_CHARS.contains(&password.chars().count()) {
        return Ok(());
    }
    Err(StoreError::Refused(format!("a password has {shortest} to {longest} characters")))
}

impl Default for Passwords {
    fn default() -> Self {
        Self { waiting: Arc::new(Semaphore::new(WAITING_MAX)), working: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Passwords {
    /// The digest of a password, with its salt and its parameters.
    pub async fn digest(&self, password: String) -> Result<String, Busy> {
        self.work(move || digest(&password)).await
    }

    /// Whether that is the password with that digest. Without a digest it is not, after the same work.
    pub async fn matches(&self, password: String, digest: Option<String>) -> Result<bool, Busy> {
        self.work(move || {
            let known = digest.as_deref().and_then(|digest| PasswordHash::new(digest).ok());
            let stands_in = PasswordHash::new(&NOBODYS).expect("a digest that was just made can be read");
            let is_known = known.is_some();
            let is_right = argon2().verify_password(password.as_bytes(), &known.unwrap_or(stands_in)).is_ok();
            is_known & is_right & PASSWORD_CHARS.contains(&password.chars().count())
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| Busy)?;
        let turn = self.working.clone().acquire_owned().await.map_err(|_| Busy)?;
        // The permits go along: work goes on when whoever asked stops waiting.
        let done = tokio::task::spawn_blocking(move || {
            let _permits = (waiting, turn);
            work()
        });
        done.await.map_err(|_| Busy)
    }
}

/// The digest that is looked at when there is none: of a password that nobody knows.
static NOBODYS: LazyLock<String> = LazyLock::new(|| {
    let unknown: String = random::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
    digest(&unknown)
});

fn digest(password: &str) -> String {
    let salted: PasswordHash = argon2()
        .hash_password_with_salt(password.as_bytes(), &random::<16>())
        .expect("the salt and the parameters are of a good size");
    salted.to_string()
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are in range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system's random source never fails once the system is up");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn s_11_a_password_is_kept_as_argon2id() {
        let passwords = Passwords::default();
        let digest = passwords.digest("correct horse".to_owned()).await.unwrap();
        assert!(digest.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{digest}");
        assert_ne!(digest, passwords.digest("correct horse".to_owned()).await.unwrap());
        let matches = async |password: &str, digest: Option<&String>| {
            passwords.matches(password.to_owned(), digest.cloned()).await.unwrap()
        };
        assert!(matches("correct horse", Some(&digest)).await);
        assert!(!matches("correct horsf", Some(&digest)).await);
        assert!(!matches("", Some(&digest)).await);
        assert!(!matches("correct horse", None).await);
        assert!(!matches("correct horse", Some(&"damaged".to_owned())).await);
    }

    #[tokio::test]
    async fn s_14_only_so_many_are_looked_at() {
        let passwords = Passwords::default();
        let all = passwords.waiting.clone().acquire_many_owned(WAITING_MAX as u32).await.unwrap();
        assert_eq!(passwords.matches("correct horse".to_owned(), None).await, Err(Busy));
        drop(all);
        assert_eq!(passwords.matches("correct horse".to_owned(), None).await, Ok(false));
    }

    #[test]
    fn lengths_are_bounded() {
        for (password, good) in [("1234567", false), ("12345678", true), ("пароль12", true)] {
            assert_eq!(check(password).is_ok(), good, "{password}");
        }
        assert!(check(&"x".repeat(256)).is_ok() && check(&"x".repeat(257)).is_err());
    }
}
