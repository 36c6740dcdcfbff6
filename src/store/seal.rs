//! A text under a key, bound to a name: AES-256-GCM with a random nonce.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

/// What a sealed text begins with. Another cipher would be another number.
const FORMAT: u8 = 1;

/// `None` where the system gives no random bytes.
pub(super) fn seal(key: &RandomizedNonceKey, name: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let mut text = plain.to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut text).ok()?;
    let mut sealed = Vec::with_capacity(1 + NONCE_LEN + text.len());
    sealed.push(FORMAT);
    sealed.extend_from_slice(nonce.as_ref());
    sealed.extend_from_slice(&text);
    Some(sealed)
}

/// `None` of what was sealed under another key or name, or is damaged.
pub(super) fn open(key: &RandomizedNonceKey, name: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, text) = sealed.strip_prefix(&[FORMAT])?.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = text.to_vec();
    key.open_in_place(nonce, Aad::from(name), &mut text).ok().map(|plain| plain.to_vec())
}

pub(super) fn new_key(bytes: &[u8]) -> Option<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()
}
