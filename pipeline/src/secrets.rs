//! The master key, what is sealed with it, keyed hashes, and random bits.
//!
//! Owns: the file of the key. Refuses: a key that others may read, and a sealed text of another key.
//! Invariant: what is sealed can be read with the same key only, and is noticed if it was changed.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Aead};
use hmac::{Hmac, Mac};
use schemas::id::base32;
use sha2::Sha256;

use crate::log::{create_folder, sync_folder};

const FILE: &str = "key";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Stands before a sealed text and says how it was sealed.
const FORM: &str = "s1:";
/// 10 bytes are the 16 characters of a keyed hash.
const HASH_BYTES: usize = 10;

pub struct Sealer {
    cipher: XChaCha20Poly1305,
    /// Ready to take a value, as the key is always the same.
    hash: Hmac<Sha256>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// The key in the folder's file `key`; it is made if there is none.
    pub fn open_or_create(dir: &Path) -> Result<Sealer> {
        Self::open_or_create_file(&dir.join(FILE))
    }

    pub fn open_or_create_file(path: &Path) -> Result<Sealer> {
        if let Some(sealer) = Self::open_file(path)? {
            return Ok(sealer);
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        create_folder(dir)?;
        create_key(dir, path).with_context(|| format!("cannot make the key file {}", path.display()))?;
        Self::open_file(path)?.with_context(|| format!("the key file {} is gone", path.display()))
    }

    /// The key in the folder's file `key`; `None` if there is none.
    pub fn open(dir: &Path) -> Result<Option<Sealer>> {
        Self::open_file(&dir.join(FILE))
    }

    /// `None` if there is no such file.
    pub fn open_file(path: &Path) -> Result<Option<Sealer>> {
        let about = || format!("the key file {}", path.display());
        let mode = match std::fs::metadata(path) {
            Ok(found) => found.mode() & 0o777,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(about),
        };
        if mode & 0o077 != 0 {
            bail!("the key file {} can be read by others (mode {mode:o}): chmod 600 it", path.display());
        }
        let text = std::fs::read_to_string(path).with_context(about)?;
        Self::from_text(text.trim()).with_context(about).map(Some)
    }

    /// A key given by configuration: 64 hex digits.
    pub fn from_text(key: &str) -> Result<Sealer> {
        let bytes = hex::decode(key).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
        let master = mac(&bytes.context("a key is 64 hex digits (32 bytes)")?)?;
        let derive = |purpose: &str| -> [u8; KEY_BYTES] {
            master.clone().chain_update(purpose.as_bytes()).finalize().into_bytes().into()
        };
        Ok(Sealer { cipher: XChaCha20Poly1305::new(&derive("seal").into()), hash: mac(&derive("hash"))? })
    }

    pub fn seal(&self, text: &str) -> String {
        let nonce = random::<NONCE_BYTES>();
        let mut sealed = nonce.to_vec();
        match self.cipher.encrypt(XNonce::from_slice(&nonce), text.as_bytes()) {
            Ok(cipher) => sealed.extend(cipher),
            // Only a text of over 256 GB cannot be sealed.
            Err(error) => panic!("a text of {} bytes cannot be sealed: {error}", text.len()),
        }
        format!("{FORM}{}", STANDARD_NO_PAD.encode(sealed))
    }

    pub fn unseal(&self, sealed: &str) -> Result<String> {
        let coded = sealed.strip_prefix(FORM).context("this is no sealed text")?;
        let bytes = STANDARD_NO_PAD.decode(coded).context("a sealed text is damaged")?;
        let (nonce, cipher) = bytes.split_at_checked(NONCE_BYTES).context("a sealed text is cut off")?;
        let text = self
            .cipher
            .decrypt(XNonce::from_slice(nonce), cipher)
            .map_err(|_| anyhow!("a sealed text cannot be opened: it is damaged, or was sealed with another key"))?;
        Ok(String::from_utf8(text)?)
    }

    /// `h:` and 16 characters, which tell equal values from others but not what they are. A purpose (a tenant, a
    /// parameter) keeps the same value apart in different places.
    pub fn keyed_hash(&self, purpose: &str, value: &[u8]) -> String {
        let mut hash = self.hash.clone();
        hash.update(&(purpose.len() as u64).to_be_bytes());
        hash.update(purpose.as_bytes());
        hash.update(value);
        let digest = hash.finalize().into_bytes();
        format!("h:{}", base32(&digest[..HASH_BYTES]))
    }
}

fn mac(key: &[u8; KEY_BYTES]) -> Result<Hmac<Sha256>> {
    <Hmac<Sha256> as Mac>::new_from_slice(key).map_err(|error| anyhow!("{error}"))
}

/// The key gets its name only when all of it is on disk, and never takes the place of another.
fn create_key(dir: &Path, path: &Path) -> Result<()> {
    let draft = dir.join(format!("{FILE}.{}", hex::encode(random::<8>())));
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", hex::encode(random::<KEY_BYTES>()))?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
        Ok(()) | Err(_) => sync_folder(dir),
    }
}

/// Random bytes of the operating system.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the operating system gives no random bytes: {error}");
    }
    bytes
}

/// For the random part of an id.
pub fn random_bits() -> u64 {
    u64::from_be_bytes(random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn the_key_file_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        let sealed = Sealer::open_or_create(&folder).unwrap().seal("a token");
        let path = folder.join("key");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Sealer::open_or_create(&folder).unwrap().unseal(&sealed).unwrap(), "a token");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Sealer::open_or_create(&folder).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_key_that_is_already_there_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Sealer::open_or_create(dir.path()).unwrap();
        let key = std::fs::read(&path).unwrap();
        create_key(dir.path(), &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), key);
        std::fs::write(&path, "short").unwrap();
        assert!(format!("{:#}", Sealer::open_or_create(dir.path()).unwrap_err()).contains("64 hex digits"));
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_only() {
        let sealer = Sealer::from_text(KEY).unwrap();
        let other = Sealer::from_text(&KEY.replace("00", "ff")).unwrap();
        for text in ["", "a token", "größer"] {
            let sealed = sealer.seal(text);
            assert!(text.is_empty() || !sealed.contains(text));
            assert_ne!(sealed, sealer.seal(text));
            assert_eq!(sealer.unseal(&sealed).unwrap(), text);
            assert!(other.unseal(&sealed).unwrap_err().to_string().contains("another key"));
            let mut changed = sealed.clone();
            let last = changed.pop().unwrap();
            changed.push(if last == 'A' { 'Q' } else { 'A' });
            assert!(sealer.unseal(&changed).is_err());
        }
        for bad in ["", "a token", "s1:", "s1:AAAA", "s1:?"] {
            assert!(sealer.unseal(bad).is_err(), "{bad}");
        }
        assert!(Sealer::from_text("xy").is_err() && Sealer::from_text(&KEY[2..]).is_err());
    }

    #[test]
    fn keyed_hashes_are_stable_and_apart() {
        let sealer = Sealer::from_text(KEY).unwrap();
        let hash = sealer.keyed_hash("t/email", b"someone@example.com");
        assert_eq!(hash, sealer.keyed_hash("t/email", b"someone@example.com"));
        assert!(hash.len() == 18 && hash.starts_with("h:"), "{hash}");
        let other_key = Sealer::from_text(&KEY.replace("00", "ff")).unwrap();
        let others = [
            sealer.keyed_hash("t/email", b"else@example.com"),
            sealer.keyed_hash("t/mail", b"someone@example.com"),
            other_key.keyed_hash("t/email", b"someone@example.com"),
            sealer.keyed_hash("t/emails", b"omeone@example.com"),
        ];
        assert!(others.iter().all(|other| *other != hash));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<16>(), random::<16>());
    }
}
