//! Encryption of what is kept and must not be readable in a stolen database: answers to prompts, and secrets that
//! an answer shows once.

use crate::secrets::Secrets;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;

/// Seals and opens. Holds a root key that is derived from the data directory's pepper.
pub struct Sealing {
    root: hmac::Key,
}

impl Sealing {
    /// Sealing for one purpose; what is sealed for one cannot be opened for another.
    pub fn new(secrets: &Secrets, purpose: &str) -> Self {
        Self { root: hmac::Key::new(hmac::HMAC_SHA256, &secrets.derived(purpose)) }
    }

    /// Encrypts `plain` so that it opens only with the same `context`. Each context has a key of its own, so that no
    /// number of records wears one out.
    pub fn seal(&self, context: &[&[u8]], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len() + NONCE_LEN);
        sealed.extend_from_slice(plain);
        let nonce = self.key(context).seal_in_place_append_tag(Aad::empty(), &mut sealed);
        let nonce = nonce.expect("sealing fails only beyond 64 GiB");
        sealed.extend_from_slice(nonce.as_ref());
        sealed
    }

    /// What was sealed; `None` if it is damaged, or from another data directory or context.
    pub fn open(&self, context: &[&[u8]], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let nonce_at = sealed.len().checked_sub(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed[nonce_at..]).ok()?;
        sealed.truncate(nonce_at);
        let plain_bytes = self.key(context).open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.len();
        sealed.truncate(plain_bytes);
        Some(sealed)
    }

    fn key(&self, context: &[&[u8]]) -> RandomizedNonceKey {
        let key = keyed_digest(&self.root, context);
        RandomizedNonceKey::new(&AES_256_GCM, &key).expect("an HMAC-SHA-256 tag is as long as a key of AES-256")
    }
}

/// A keyed digest of several parts. Each is preceded by its length, so that no two lists of parts look alike.
pub(crate) fn keyed_digest(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_directory_purpose_and_context_open_what_was_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(directory.path()).unwrap();
        let sealing = Sealing::new(&secrets, "a");
        for plain in [&b""[..], b"the answer", &[7; 100_000]] {
            let sealed = sealing.seal(&[b"row", b"1"], plain);
            assert_eq!(sealing.open(&[b"row", b"1"], sealed.clone()).as_deref(), Some(plain));
            assert!(plain.is_empty() || !sealed.windows(plain.len()).any(|window| window == plain));
            assert_ne!(sealing.seal(&[b"row", b"1"], plain), sealed);

            assert_eq!(sealing.open(&[b"row1", b""], sealed.clone()), None);
            assert_eq!(Sealing::new(&secrets, "b").open(&[b"row", b"1"], sealed.clone()), None);
            let elsewhere = tempfile::tempdir().unwrap();
            let other = Sealing::new(&Secrets::open(elsewhere.path()).unwrap(), "a");
            assert_eq!(other.open(&[b"row", b"1"], sealed.clone()), None);
            for at in [0, sealed.len() - 1] {
                let mut damaged = sealed.clone();
                damaged[at] ^= 1;
                assert_eq!(sealing.open(&[b"row", b"1"], damaged), None);
            }
            assert_eq!(sealing.open(&[b"row", b"1"], sealed[..5].to_vec()), None);
        }
    }
}
