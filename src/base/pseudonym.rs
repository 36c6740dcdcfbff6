//! What stands in tables for an e-mail address, a phone or a name: a keyed hash.
//!
//! HMAC-SHA-256 under the directory's privacy key, cut to 96 bits. Equal input gives an equal hash, so hashes join;
//! without the key nobody can find the number behind a hash by trying all numbers.

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
        normal_email(address).map(|a| self.hash("email", &a))
    }

    pub fn phone(&self, phone: &E164) -> String {
        self.hash("phone", phone.as_str())
    }

    /// Of any other identifier, an IP address or a postal code, by its kind.
    pub fn hash(&self, kind: &str, value: &str) -> String {
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
}
