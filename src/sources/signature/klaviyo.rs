//! Klaviyo's webhook signature: hexadecimal HMAC-SHA-256 over the raw body, then the text of `Klaviyo-Timestamp`.
//!
//! How old a timestamp may be is not checked: Klaviyo does not say how it writes one, nor whether a second attempt has a
//! new one, and an event that is sent again is found to be a duplicate.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};

use crate::config::Secret;

/// Checks webhooks against the account's secret.
#[derive(Clone)]
pub struct KlaviyoVerifier {
    key: Option<hmac::Key>,
}

/// Why a webhook is not believed. May be told to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KlaviyoFault {
    #[error("no webhook secret is set: give the webhook's as [klaviyo] webhook_secret")]
    NoSecret,
    #[error("the Klaviyo-Signature header is no SHA-256 in hexadecimal digits")]
    NoSignature,
    #[error("the Klaviyo-Timestamp header is missing")]
    NoTime,
    #[error("our secret did not make this signature: is it the right webhook's, and the body untouched?")]
    Mismatch,
}

impl KlaviyoVerifier {
    pub fn new(secret: Option<&Secret>) -> KlaviyoVerifier {
        let key = |s: &Secret| hmac::Key::new(hmac::HMAC_SHA256, s.expose().as_bytes());
        KlaviyoVerifier { key: secret.map(key) }
    }

    pub fn verify(&self, signature: &str, timestamp: &str, body: &[u8]) -> Result<(), KlaviyoFault> {
        let key = self.key.as_ref().ok_or(KlaviyoFault::NoSecret)?;
        let mut given = [0u8; 32];
        hex::decode_to_slice(signature.trim(), &mut given).map_err(|_| KlaviyoFault::NoSignature)?;
        if timestamp.is_empty() {
            return Err(KlaviyoFault::NoTime);
        }
        let mut context = hmac::Context::with_key(key);
        context.update(body);
        context.update(timestamp.as_bytes());
        verify_slices_are_equal(context.sign().as_ref(), &given).map_err(|_| KlaviyoFault::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computed with Python's hmac module.
    const BODY: &[u8] = br#"{"data":[],"meta":{"klaviyo_webhook_id":"01HX"}}"#;
    const TIME: &str = "2026-08-01T09:30:00+00:00";
    const SIGNED: &str = "6eff6041b3a572c9f1b8ab22635cd1d7bb999287b4e8544953bf621dba10022b";

    fn verifier(secret: &str) -> KlaviyoVerifier {
        KlaviyoVerifier::new(Some(&Secret::new(secret)))
    }

    #[test]
    fn body_then_time_is_what_was_signed() {
        let ours = verifier("a-secret-of-the-tests");
        assert_eq!(ours.verify(SIGNED, TIME, BODY), Ok(()));
        assert_eq!(ours.verify(&SIGNED.to_uppercase(), TIME, BODY), Ok(()));
        assert_eq!(ours.verify(SIGNED, "2026-08-01T09:30:01+00:00", BODY), Err(KlaviyoFault::Mismatch));
        assert_eq!(ours.verify(SIGNED, TIME, &[BODY, b" "].concat()), Err(KlaviyoFault::Mismatch));
        assert_eq!(verifier("another").verify(SIGNED, TIME, BODY), Err(KlaviyoFault::Mismatch));
        assert_eq!(ours.verify(&SIGNED[2..], TIME, BODY), Err(KlaviyoFault::NoSignature));
        assert_eq!(ours.verify(SIGNED, "", BODY), Err(KlaviyoFault::NoTime));
        assert_eq!(KlaviyoVerifier::new(None).verify(SIGNED, TIME, BODY), Err(KlaviyoFault::NoSecret));
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_parser(signature in "[0-9a-f]{0,80}|\\PC{0,80}", time in "\\PC{0,40}", body: Vec<u8>) {
            prop_assert!(verifier("secret").verify(&signature, &time, &body).is_err());
        }
    }
}
