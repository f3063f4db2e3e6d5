//! The secrets that callers, operators and members present, redemption codes, and their digests.
//!
//! A secret is a prefix, 32 random bytes in base62 and a checksum, so that scanners recognise a leaked one and
//! a mistyped one is refused without a look-up. Only a digest keyed with the data directory's own pepper is
//! stored: a stolen database opens nothing.

use crate::database::{Database, StoreError};
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
    /// What secrets of that kind begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Key => "sk-tg",
            Self::Operator => "op-tg",
            Self::Session => "se-tg",
            Self::Invitation => "in-tg",
            Self::Password => "pw-tg",
        }
    }
}

/// What redemption codes begin with.
const CODE_PREFIX: &str = "TG";
/// Digits of codes: Crockford's base 32, without letters that look like others.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Random digits of a code, five bits each.
const CODE_RANDOM_DIGITS: usize = 22;
/// Digits that check the others.
const CODE_CHECK_DIGITS: usize = 3;
/// Digits between two dashes.
const CODE_GROUP: usize = 5;

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

    /// Whether the database's keys were made with this pepper. With another, none of them would be recognised.
    pub async fn assert_same(&self, database: &Database) -> Result<(), StoreError> {
        let mine = self.derived("fingerprint").iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let noted = mine.clone();
        let known = database.write(move |transaction| {
            transaction.execute(
                "insert into settings (name, value) values ('pepper', ?1) on conflict (name) do nothing",
                [&noted],
            )?;
            let value = transaction.query_row("select value from settings where name = 'pepper'", [], |row| row.get(0));
            Ok(value?)
        });
        let known: String = known.await?;
        if known == mine {
            return Ok(());
        }
        Err(StoreError::Refused(format!(
            "{} is not the pepper that this database's keys were made with: copy the file from the data directory of the \
             gateway that made them",
            database.directory().join("pepper").display()
        )))
    }

    /// 32 bytes for one purpose, the same at every start. No secret that is presented has the form of a purpose.
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.pepper, format!("derived/{purpose}").as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
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

    /// A new redemption code, such as `TG-7K3MQ-X0A9V-2RBCD-E5FGH-JNPST`: 110 random bits and a checksum, for people to
    /// type. Shown once, stored never.
    pub fn generate_code(&self) -> String {
        let random = random_bytes(&self.random);
        let digits = random[..CODE_RANDOM_DIGITS].iter().map(|byte| CROCKFORD[usize::from(byte % 32)]);
        let body: String = digits.map(char::from).collect();
        let digits = format!("{body}{}", code_checksum(&body));
        let groups = digits.as_bytes().chunks(CODE_GROUP).map(|group| String::from_utf8_lossy(group).into_owned());
        format!("{CODE_PREFIX}-{}", groups.collect::<Vec<_>>().join("-"))
    }

    /// The digest of something that has the form of a code; `None` for everything else. Small letters, spaces and dashes
    /// do not matter, and neither does O for 0, or I and L for 1.
    pub fn code_digest(&self, presented: &str) -> Option<Digest> {
        let plain = presented.chars().filter(|letter| !letter.is_whitespace() && *letter != '-');
        // One letter more than a code has is enough to see that it is none.
        let letters: String = plain.take(CODE_PREFIX.len() + CODE_RANDOM_DIGITS + CODE_CHECK_DIGITS + 1).collect();
        let digits = letters.to_ascii_uppercase();
        let digits = digits.strip_prefix(CODE_PREFIX)?.replace('O', "0").replace(['I', 'L'], "1");
        let is_code = digits.len() == CODE_RANDOM_DIGITS + CODE_CHECK_DIGITS
            && digits.bytes().all(|digit| CROCKFORD.contains(&digit));
        let (body, check) = is_code.then(|| digits.split_at(CODE_RANDOM_DIGITS))?;
        if code_checksum(body) != check {
            return None;
        }
        let tag = hmac::sign(&self.pepper, format!("{CODE_PREFIX}-{body}").as_bytes());
        Some(tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes"))
    }
}

/// What may be shown of a code to tell it from others: its last group.
pub fn code_hint(code: &str) -> String {
    format!("{CODE_PREFIX}-…{}", &code[code.len() - CODE_GROUP..])
}

fn code_checksum(body: &str) -> String {
    let mut value = crc32fast::hash(body.as_bytes());
    let mut digits = [0_u8; CODE_CHECK_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = CROCKFORD[(value % 32) as usize];
        value /= 32;
    }
    String::from_utf8(digits.to_vec()).expect("base 32 is ASCII")
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
    fn codes_are_for_people_to_type() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(directory.path()).unwrap();
        let code = secrets.generate_code();
        assert_eq!((code.len(), code.matches('-').count()), (32, 5), "{code}");
        let digest = secrets.code_digest(&code).unwrap();
        let typed = code.to_lowercase().replace('-', " ").replace('1', "l").replace('0', "o");
        assert_eq!(secrets.code_digest(&typed), Some(digest), "{typed}");
        assert_ne!(secrets.code_digest(&secrets.generate_code()), Some(digest));
        let flipped = if code.as_bytes()[3] == b'7' { "8" } else { "7" };
        let mistyped = format!("TG-{flipped}{}", &code[4..]);
        for text in
            ["", "TG", "TG-", "tg-é", &mistyped, &code[..31], &format!("{code}0"), &code[3..], &"U".repeat(9_999)]
        {
            assert_eq!(secrets.code_digest(text), None, "{text}");
        }
        assert!(code_hint(&code).len() < 12 && code.ends_with(&code_hint(&code)[6..]));
    }

    #[test]
    fn s_11_another_pepper_gives_another_digest() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (Secrets::open(here.path()).unwrap(), Secrets::open(there.path()).unwrap());
        let key = here.generate(SecretKind::Key);
        assert_ne!(here.digest(SecretKind::Key, &key), there.digest(SecretKind::Key, &key));
    }
}
