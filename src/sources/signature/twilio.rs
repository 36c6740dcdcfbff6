//! Twilio's request signature: base64 of HMAC-SHA-1 over the whole URL, then each parameter of the form by name and value.
//!
//! Parameters are taken in order of their names, of one name its distinct values in order; which parameters come changes
//! without notice, so all that arrive are signed. A body that is no form has none: its SHA-256 stands in the query
//! (`bodySHA256`), and so under the signature. Twilio signs the URL with or without its port, whichever it was given, so
//! both are tried (twilio.com/docs/usage/security).

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest, hmac};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::config::Secret;

/// SHA-1's length.
const TAG: usize = 20;

/// Checks requests against the account's token.
#[derive(Clone)]
pub struct TwilioVerifier {
    key: Option<hmac::Key>,
}

/// Why a request is not believed. May be told to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TwilioFault {
    #[error("no token is set: give the account's as [twilio] auth_token")]
    NoToken,
    #[error("the X-Twilio-Signature header is no SHA-1 in base64")]
    NoSignature,
    #[error("the body is no form, and the address has no bodySHA256 that stands for it")]
    NoBodyHash,
    #[error("the body is not the one whose SHA-256 is in the address")]
    OtherBody,
    #[error(
        "our token did not make this signature: is it the right account's, and [server] public_url the address that \
         Twilio calls?"
    )]
    Mismatch,
}

/// A body, as far as its signature knows it.
pub enum Signed<'a> {
    /// The parameters of a form, in any order.
    Form(&'a [(String, String)]),
    Other(&'a [u8]),
}

impl TwilioVerifier {
    pub fn new(token: Option<&Secret>) -> TwilioVerifier {
        let key = |t: &Secret| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, t.expose().as_bytes());
        TwilioVerifier { key: token.map(key) }
    }

    /// `urls`: the addresses that Twilio may have called, with their query.
    pub fn verify(&self, header: &str, urls: &[String], body: &Signed) -> Result<(), TwilioFault> {
        let key = self.key.as_ref().ok_or(TwilioFault::NoToken)?;
        let given = STANDARD.decode(header.trim()).map_err(|_| TwilioFault::NoSignature)?;
        let given: [u8; TAG] = given.try_into().map_err(|_| TwilioFault::NoSignature)?;
        let params = match body {
            Signed::Form(params) => flatten(params),
            Signed::Other(_) => String::new(),
        };
        let signer = urls.iter().find(|url| {
            let spellings = std::iter::once((*url).clone()).chain(other_spelling(url));
            spellings.into_iter().any(|url| verify_slices_are_equal(tag(key, &url, &params).as_ref(), &given).is_ok())
        });
        let url = signer.ok_or(TwilioFault::Mismatch)?;
        match body {
            Signed::Form(_) => Ok(()),
            Signed::Other(body) => hashed(url, body),
        }
    }
}

fn tag(key: &hmac::Key, url: &str, params: &str) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(url.as_bytes());
    context.update(params.as_bytes());
    context.sign()
}

fn flatten(params: &[(String, String)]) -> String {
    let mut params: Vec<_> = params.iter().collect();
    params.sort_unstable();
    params.dedup();
    params.into_iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect()
}

/// The URL without its port where it has one, with its scheme's where it has none.
fn other_spelling(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // The colons in an IPv6 address are within brackets.
    let host_end = authority.rfind(']').unwrap_or_default();
    match authority[host_end..].rfind(':') {
        Some(colon) => Some(format!("{scheme}://{}{path}", &authority[..host_end + colon])),
        None => {
            let port = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
            Some(format!("{scheme}://{authority}:{port}{path}"))
        }
    }
}

/// Whether the hash in the URL, which the signature vouches for, is the body's.
fn hashed(url: &str, body: &[u8]) -> Result<(), TwilioFault> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let stated = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "bodySHA256");
    let (_, stated) = stated.ok_or(TwilioFault::NoBodyHash)?;
    let hash = hex::encode(digest::digest(&digest::SHA256, body));
    verify_slices_are_equal(hash.as_bytes(), stated.to_lowercase().as_bytes()).map_err(|_| TwilioFault::OtherBody)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verifier(token: &str) -> TwilioVerifier {
        TwilioVerifier::new(Some(&Secret::new(token)))
    }

    fn sign(token: &str, url: &str, params: &[(String, String)]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
        STANDARD.encode(tag(&key, url, &flatten(params)))
    }

    #[test]
    fn the_port_may_be_written_or_not() {
        for (signed, asked) in [
            ("https://shop.test/a?b=1", "https://shop.test:443/a?b=1"),
            ("https://shop.test:443/a", "https://shop.test/a"),
            ("http://shop.test:80/a", "http://shop.test/a"),
            ("http://shop.test/a", "http://shop.test:8700/a"),
            ("https://[::1]/a", "https://[::1]:443/a"),
            ("https://[::1]:443/a", "https://[::1]/a"),
        ] {
            let form: Vec<(String, String)> = vec![("To".into(), "+447400123456".into())];
            let header = sign("t", signed, &form);
            assert_eq!(verifier("t").verify(&header, &[asked.to_owned()], &Signed::Form(&form)), Ok(()), "{asked}");
        }
    }

    #[test]
    fn a_body_that_is_no_form_is_known_by_its_hash() {
        let hash = hex::encode(digest::digest(&digest::SHA256, b"{}"));
        let url = format!("https://shop.test/a?bodySHA256={hash}");
        let header = sign("t", &url, &[]);
        let check = |url: &str, header: &str, body: &[u8]| {
            verifier("t").verify(header, &[url.to_owned()], &Signed::Other(body))
        };
        assert_eq!(check(&url, &header, b"{}"), Ok(()));
        assert_eq!(check(&url, &header, b"{ }"), Err(TwilioFault::OtherBody));
        let bare = "https://shop.test/a";
        assert_eq!(check(bare, &sign("t", bare, &[]), b"{}"), Err(TwilioFault::NoBodyHash));
        assert_eq!(check(bare, "bm90IHNoYTE=", b"{}"), Err(TwilioFault::NoSignature));
        let none = TwilioVerifier::new(None).verify(&header, &[url], &Signed::Other(b"{}"));
        assert_eq!(none, Err(TwilioFault::NoToken));
    }

    proptest! {
        #[test]
        fn no_header_and_no_url_breaks_the_parser(header in "[A-Za-z0-9+/=]{0,40}|\\PC{0,60}", url in "(https?://)?[\\[\\]:/?#a-z0-9.]{0,40}|\\PC{0,60}") {
            let urls = [url];
            prop_assert!(verifier("t").verify(&header, &urls, &Signed::Other(b"x")).is_err());
            prop_assert!(verifier("t").verify(&header, &urls, &Signed::Form(&[])).is_err());
        }

        #[test]
        fn the_order_and_repetition_of_parameters_do_not_matter(mut params: Vec<(String, String)>, seed: usize) {
            let url = "https://shop.test/".to_owned();
            let header = sign("t", &url, &params);
            if !params.is_empty() {
                let turn = seed % params.len();
                params.push(params[turn].clone());
                params.rotate_left(turn);
            }
            prop_assert_eq!(verifier("t").verify(&header, &[url], &Signed::Form(&params)), Ok(()));
        }
    }
}
