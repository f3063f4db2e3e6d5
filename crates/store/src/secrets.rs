//! The secrets that callers, operators and members present, and their digests.
//!
//! A secret is a prefix, 32 random bytes in base62 and a checksum, so that scanners recognise a leaked one and
//! a mistyped one is refused without a look-up. Only a digest keyed with the data directory's own pepper is
//! stored: a stolen database opens nothing.

use crate::database::StoreError;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of 32 bytes in base62.
const BODY_CHARS: usize = 43;
/// Characters of a CRC-32 in base62.
const CHECK_CHARS: usize = 6;

/// What a secret opens. The prefix is part of the secret and of its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A caller's key. Relays cut what follows a second `-` as a routing hint, so there is none.
    Key,
    /// An operator's key.
    Operator,
    /// A user who is signed in.
    Session,
    /// An invitation to an account.
    Invitation,
    /// Leave to set a user's password, once.
    Password,
}

impl SecretKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Key => "sk-tg",
            Self::Operator => "op-tg",
            Self::Session => "se-tg",
            Self::Invitation => "in-tg",
            Self::Password => "pw-tg",
        }
    }
}

/// A keyed digest: what is stored in place of a secret.
pub type Digest = [u8; 32];

/// Makes and recognises secrets. Holds the pepper.
pub struct Secrets {
    pepper: hmac::Key,
    random: SystemRandom,
}

impl Secrets {
    /// Opens the pepper of a data directory, creating it at first.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("pepper");
        let failed = |action| {
            let path = path.clone();
            move |source| StoreError::File { action, path, source }
        };
        let random = SystemRandom::new();
        let pepper = match std::fs::read(&path) {
            Ok(pepper) => pepper,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pepper = random_bytes(&random);
                let mut file = std::fs::OpenOptions::new()
                    .create_new(true)
                    .write(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(failed("create"))?;
                file.write_all(&pepper).and_then(|()| file.sync_all()).map_err(failed("write"))?;
                pepper.to_vec()
            }
            Err(error) => return Err(failed("read")(error)),
        };
        if pepper.len() != 32 {
            return Err(StoreError::Damaged(format!(
                "{} must hold 32 bytes, not {}: restore it, without it no key is recognised",
                path.display(),
                pepper.len()
            )));
        }
        Ok(Self { pepper: hmac::Key::new(hmac::HMAC_SHA256, &pepper), random })
    }

    /// A new secret. Shown once, stored never.
    pub fn generate(&self, kind: SecretKind) -> String {
        let body = base62(&random_bytes(&self.random));
        let check = checksum(kind, &body);
        format!("{}{body}{check}", kind.prefix())
    }

    /// A new secret with its digest.
    pub fn issue(&self, kind: SecretKind) -> (String, Digest) {
        let secret = self.generate(kind);
        let digest = self.digest(kind, &secret).expect("a generated secret has the form of one");
        (secret, digest)
    }

    /// The digest of something that has the form of a secret; `None` for everything else.
    pub fn digest(&self, kind: SecretKind, presented: &str) -> Option<Digest> {
        let rest = presented.strip_prefix(kind.prefix())?;
        if rest.len() != BODY_CHARS + CHECK_CHARS || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let (body, check) = rest.split_at(BODY_CHARS);
        if checksum(kind, body) != check {
            return None;
        }
        let tag = hmac::sign(&self.pepper, presented.as_bytes());
        Some(tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes"))
    }
}

/// What may be shown of a secret to tell it from others.
pub fn hint(secret: &str) -> String {
    format!("{}…{}", &secret[..7], &secret[secret.len() - 4..])
}

fn random_bytes(random: &SystemRandom) -> [u8; 32] {
    let mut bytes = [0; 32];
    random.fill(&mut bytes).expect("the system's random source never fails once the system is up");
    bytes
}

/// 256 bits as a number in base 62, most significant digit first.
fn base62(bytes: &[u8; 32]) -> String {
    let mut number = *bytes;
    let mut digits = [0_u8; BODY_CHARS];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = BASE62[remainder as usize];
    }
    String::from_utf8(digits.to_vec()).expect("base62 is ASCII")
}

fn checksum(kind: SecretKind, body: &str) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(kind.prefix().as_bytes());
    hasher.update(body.as_bytes());
    let mut value = hasher.finalize();
    let mut digits = [0_u8; CHECK_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(value % 62) as usize];
        value /= 62;
    }
    String::from_utf8(digits.to_vec()).expect("base62 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_07_only_well_formed_secrets_have_a_digest() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(directory.path()).unwrap();
        let key = secrets.generate(SecretKind::Key);
        assert!(secrets.digest(SecretKind::Key, &key).is_some());
        assert_eq!(secrets.digest(SecretKind::Operator, &key), None);
        let flipped = if key.ends_with('0') { '1' } else { '0' };
        let mistyped = format!("{}{flipped}", &key[..key.len() - 1]);
        let long = format!("{key}{key}");
        for text in ["", " ", "sk-", "sk-tg", "null", "Bearer", &mistyped, &long, &key[1..], "sk-tgé"] {
            assert_eq!(secrets.digest(SecretKind::Key, text), None, "{text}");
        }
    }

    #[test]
    fn secrets_differ_and_survive_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(directory.path()).unwrap();
        let (one, other) = (secrets.generate(SecretKind::Key), secrets.generate(SecretKind::Key));
        assert_ne!(one, other);
        assert_eq!(one.len(), 5 + BODY_CHARS + CHECK_CHARS);
        let again = Secrets::open(directory.path()).unwrap();
        assert_eq!(secrets.digest(SecretKind::Key, &one), again.digest(SecretKind::Key, &one));
        assert!(!hint(&one).contains(&one[8..20]));
    }

    #[test]
    fn s_11_another_pepper_gives_another_digest() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (Secrets::open(here.path()).unwrap(), Secrets::open(there.path()).unwrap());
        let key = here.generate(SecretKind::Key);
        assert_ne!(here.digest(SecretKind::Key, &key), there.digest(SecretKind::Key, &key));
    }
}
