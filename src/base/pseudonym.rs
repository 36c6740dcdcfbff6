//! What stands in tables for an e-mail address, a phone or a name: a keyed hash.
//!
//! HMAC-SHA-256 under the directory's privacy key, cut to 96 bits. Equal input gives an equal hash, so hashes join;
//! without the key nobody can find the number behind a hash by trying all numbers.
//!
//! A value that was erased leaves a token, `erased:email:HASH`, in the payload that held it: it has the hash that the value
//! had, so that what is made of the payload again is what was made of it before.

use aws_lc_rs::hmac;

use super::{E164, PersonId};

/// Makes hashes and person ids. Cheap to clone.
#[derive(Clone)]
pub struct Pseudonymizer {
    key: hmac::Key,
}

impl Pseudonymizer {
    /// `key`: the directory's privacy key, 32 random bytes.
    pub fn new(key: &[u8]) -> Pseudonymizer {
        Pseudonymizer { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Of an address, trimmed and in lower case; 24 hexadecimal digits. `None` where it has no `@` between two parts.
    pub fn email(&self, address: &str) -> Option<String> {
        match erased("email", address) {
            Some(hash) => Some(hash.to_owned()),
            None => normal_email(address).map(|a| self.hash("email", &a)),
        }
    }

    pub fn phone(&self, phone: &E164) -> String {
        self.hash("phone", phone.as_str())
    }

    /// Of any other identifier, an IP address or a user's number, by its kind.
    pub fn hash(&self, kind: &str, value: &str) -> String {
        if let Some(hash) = erased(kind, value) {
            return hash.to_owned();
        }
        let mut context = hmac::Context::with_key(&self.key);
        context.update(kind.as_bytes());
        context.update(b"\0");
        context.update(value.as_bytes());
        hex::encode(&context.sign().as_ref()[..12])
    }

    /// The person that one identifier names as long as nothing links it to another. `value_hash` as made above.
    pub fn person(&self, kind: &str, value_hash: &str) -> PersonId {
        PersonId(format!("per_{}", self.hash(&format!("person:{kind}"), value_hash)))
    }
}

/// Whether a text, or a part of a page's path, is somebody's address, or was one that was erased.
pub fn is_address(text: &str) -> bool {
    let ends_in_letters = |host: &str| {
        let last = host.rsplit_once('.').map_or("", |(_, last)| last);
        last.len() > 1 && last.chars().all(char::is_alphabetic)
    };
    let is_one = |at: &str| text.split_once(at).is_some_and(|(name, host)| !name.is_empty() && ends_in_letters(host));
    is_one("@") || is_one("%40") || text.contains(CUT_OUT) || text.starts_with(TOKEN)
}

/// What stands for a text within a longer one.
pub const CUT_OUT: &str = "[erased]";
/// What stands for a value that has no hash.
pub const ERASED: &str = "erased";
/// What a token begins with.
pub const TOKEN: &str = "erased:";
/// Hexadecimal digits of a hash.
const HASH: usize = 24;

/// The token of a value that had these hashes, each by its kind.
pub fn token<'a>(hashes: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let hashes: Vec<String> = hashes.into_iter().map(|(kind, hash)| format!("{kind}:{hash}")).collect();
    format!("{TOKEN}{}", hashes.join(":"))
}

/// The hash of this kind that the erased value had for which `value` stands; `None` where it is no such token.
pub fn erased<'a>(kind: &str, value: &'a str) -> Option<&'a str> {
    let mut parts = value.strip_prefix(TOKEN)?.split(':');
    while let (Some(of), Some(hash)) = (parts.next(), parts.next()) {
        if of == kind && hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Some(hash);
        }
    }
    None
}

/// The address in the form in which it is compared: trimmed, in lower case.
pub fn normal_email(address: &str) -> Option<String> {
    let address = address.trim().to_lowercase();
    let (name, host) = address.split_once('@')?;
    (!name.is_empty() && !host.is_empty()).then_some(address)
}

/// Addresses, and domains as `@shop.example`, that are no one person's: a support desk's, a marketplace's. In lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedAddresses(pub Vec<String>);

impl SharedAddresses {
    /// Whether `address`, as [`normal_email`] gives it, is one of them.
    pub fn hold(&self, address: &str) -> bool {
        self.0.iter().any(|shared| match shared.strip_prefix('@') {
            Some(domain) => address.rsplit_once('@').is_some_and(|(_, host)| host == domain),
            None => address == shared,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_hash_under_one_key() {
        let names = Pseudonymizer::new(&[7; 32]);
        assert_eq!(names.email(" Ann@Example.com"), names.email("ann@example.com "));
        assert_ne!(names.email("ann@example.com"), Pseudonymizer::new(&[8; 32]).email("ann@example.com"));
        assert_eq!(names.email("ann"), None);
        assert_ne!(names.hash("email", "x"), names.hash("phone", "x"));
    }

    #[test]
    fn a_token_has_the_hashes_of_the_value_that_was_erased() {
        let names = Pseudonymizer::new(&[7; 32]);
        let (email, user) = (names.email("ann@example.com").unwrap(), names.hash("user", "ann@example.com"));
        let token = token([("email", email.as_str()), ("user", user.as_str())]);
        assert_eq!(names.email(&token), Some(email));
        assert_eq!(names.hash("user", &token), user);
        assert_eq!(erased("ip", &token), None);
        for none in ["erased", "erased:email", "erased:email:12", "email:0123456789abcdef01234567"] {
            assert_eq!(erased("email", none), None);
        }
    }
}
