//! Stripe's webhook signature: `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]` over `<t>.<raw body>`.
//!
//! What must hold: the bytes that were signed are the bytes that are decoded, and a body is accepted only if one of
//! the known secrets signed it, not long ago. Other schemes than `v1` (`v0` is Stripe's for test events) prove nothing
//! and are passed over.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};

use crate::{base::Micros, config::Secret};

/// SHA-256's length: what is longer or shorter is no `v1`.
const TAG: usize = 32;

/// Checks webhooks against the secrets of an account's endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<hmac::Key>,
    tolerance_seconds: u32,
}

/// Why a webhook is not believed. Says nothing of a secret, and may be told to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    #[error("no webhook secret is set: give the endpoint's whsec_… as [stripe] webhook_secrets")]
    NoSecret,
    #[error("the Stripe-Signature header has no time (t=…)")]
    NoTime,
    #[error("the Stripe-Signature header has no v1 signature")]
    NoSignature,
    #[error("no secret of ours made this signature: is it the right endpoint's, and the body untouched?")]
    Mismatch,
    #[error("it was signed {0} s ago, which is more than the tolerance: it is replayed, or our clock is wrong")]
    TooOld(i64),
    #[error("it was signed {0} s in the future, which is more than the tolerance: our clock is wrong")]
    InTheFuture(i64),
}

impl Verifier {
    /// `tolerance_seconds`: how far a signature's time may lie from ours, before or after.
    pub fn new(secrets: &[Secret], tolerance_seconds: u32) -> Verifier {
        let keys = secrets.iter().map(key).collect();
        Verifier { keys, tolerance_seconds }
    }

    /// Whether one of the secrets signed this body at a time near `now`. The time counts only once the signature holds.
    pub fn verify(&self, header: &str, body: &[u8], now: Micros) -> Result<(), BadSignature> {
        let header = Header::parse(header)?;
        if self.keys.is_empty() {
            return Err(BadSignature::NoSecret);
        }
        // One HMAC a secret, however many signatures a stranger lists.
        let signed = self.keys.iter().any(|key| {
            let tag = tag(key, header.time_text, body);
            header.tags.iter().any(|t| verify_slices_are_equal(tag.as_ref(), t).is_ok())
        });
        if !signed {
            return Err(BadSignature::Mismatch);
        }
        let age = now.seconds().saturating_sub(header.time);
        let tolerance = i64::from(self.tolerance_seconds);
        match age {
            age if age > tolerance => Err(BadSignature::TooOld(age)),
            age if age < -tolerance => Err(BadSignature::InTheFuture(-age)),
            _ => Ok(()),
        }
    }
}

/// The header that Stripe would send with `body`: for tests of a receiving endpoint.
pub fn sign(secret: &Secret, body: &[u8], at: Micros) -> String {
    let time = at.seconds().to_string();
    format!("t={time},v1={}", hex::encode(tag(&key(secret), &time, body)))
}

fn key(secret: &Secret) -> hmac::Key {
    // The whole text is the key, whsec_ included.
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

fn tag(key: &hmac::Key, time: &str, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(time.as_bytes());
    context.update(b".");
    context.update(body);
    context.sign()
}

struct Header<'a> {
    time: i64,
    /// As written: that is what was signed.
    time_text: &'a str,
    tags: Vec<[u8; TAG]>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Result<Header<'a>, BadSignature> {
        let mut time = None;
        let mut tags = Vec::new();
        for (name, value) in text.split(',').filter_map(|part| part.trim().split_once('=')) {
            match name.trim() {
                "t" => time = Some(value.trim()),
                "v1" => {
                    let mut tag = [0; TAG];
                    if hex::decode_to_slice(value.trim(), &mut tag).is_ok() {
                        tags.push(tag);
                    }
                }
                _ => {}
            }
        }
        let time_text = time.ok_or(BadSignature::NoTime)?;
        let time = time_text.parse().map_err(|_| BadSignature::NoTime)?;
        if tags.is_empty() { Err(BadSignature::NoSignature) } else { Ok(Header { time, time_text, tags }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computed with Python's hmac module.
    const BODY: &[u8] = br#"{"id":"evt_1","object":"event","type":"charge.succeeded","created":1760000000}"#;
    const ONE: &str = "5e199b3dd2902f6019d72bc5cfe86fa1339ca7dfead8cc9fc39c2319f8e3e366";
    const TWO: &str = "99915b68908b9a154416b6f91b94ef376e2403681bd26813cd2ef92d73232f9a";
    const EMPTY: &str = "72569ca8f2a2f9cacf91d21ebd3e1a8214eac59282d583cb08e29cb3da4a17d6";
    const SIGNED: i64 = 1_760_000_000;

    fn check(secrets: &[&str], header: &str, body: &[u8], now: i64) -> Result<(), BadSignature> {
        let secrets: Vec<_> = secrets.iter().map(|s| Secret::new(*s)).collect();
        Verifier::new(&secrets, 300).verify(header, body, Micros::from_seconds(now).unwrap())
    }

    #[test]
    fn each_secret_and_each_signature_counts() {
        let wrong = "0".repeat(64);
        for header in [
            format!("t={SIGNED},v1={ONE}"),
            format!("t={SIGNED},v1={wrong},v1={ONE}"),
            format!(" t = {SIGNED} , v0={wrong}, v1 = {ONE},scheme,=,v2=x"),
            format!("v1={ONE},t={SIGNED}"),
            format!("t={SIGNED},v1={}", ONE.to_uppercase()),
            format!("t={SIGNED},v1={TWO}"),
        ] {
            assert_eq!(check(&["whsec_test_one", "whsec_test_two"], &header, BODY, SIGNED), Ok(()), "{header}");
        }
        assert_eq!(check(&["whsec_test_one"], &format!("t={SIGNED},v1={EMPTY}"), b"", SIGNED), Ok(()));
    }

    #[test]
    fn what_no_secret_signed_is_refused() {
        let good = format!("t={SIGNED},v1={ONE}");
        let check = |secrets: &[&str], header: &str, body: &[u8]| check(secrets, header, body, SIGNED);
        assert_eq!(check(&["whsec_test_two"], &good, BODY), Err(BadSignature::Mismatch));
        assert_eq!(check(&["whsec_test_one"], &good, &[BODY, b" "].concat()), Err(BadSignature::Mismatch));
        let other_time = format!("t={},v1={ONE}", SIGNED + 1);
        assert_eq!(check(&["whsec_test_one"], &other_time, BODY), Err(BadSignature::Mismatch));
        assert_eq!(check(&["whsec_test_one"], &format!("t={SIGNED},v0={ONE}"), BODY), Err(BadSignature::NoSignature));
        assert_eq!(
            check(&["whsec_test_one"], &format!("t={SIGNED},v1={}", &ONE[2..]), BODY),
            Err(BadSignature::NoSignature)
        );
        assert_eq!(check(&["whsec_test_one"], &format!("v1={ONE}"), BODY), Err(BadSignature::NoTime));
        assert_eq!(check(&["whsec_test_one"], &format!("t=now,v1={ONE}"), BODY), Err(BadSignature::NoTime));
        assert_eq!(check(&["whsec_test_one"], "", BODY), Err(BadSignature::NoTime));
        assert_eq!(check(&[], &good, BODY), Err(BadSignature::NoSecret));
    }

    #[test]
    fn the_tolerance_holds_both_ways() {
        let header = format!("t={SIGNED},v1={ONE}");
        let at = |now| check(&["whsec_test_one"], &header, BODY, now);
        assert_eq!(at(SIGNED + 300), Ok(()));
        assert_eq!(at(SIGNED + 301), Err(BadSignature::TooOld(301)));
        assert_eq!(at(SIGNED - 300), Ok(()));
        assert_eq!(at(SIGNED - 301), Err(BadSignature::InTheFuture(301)));
        // A stranger learns nothing about our clock.
        assert_eq!(check(&["whsec_test_two"], &header, BODY, SIGNED + 301), Err(BadSignature::Mismatch));
    }

    #[test]
    fn what_we_sign_is_what_stripe_signs() {
        let secret = Secret::new("whsec_test_one");
        let at = Micros::from_seconds(SIGNED).unwrap();
        assert_eq!(sign(&secret, BODY, at), format!("t={SIGNED},v1={ONE}"));
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_parser(header in "[tv01=, a-f9-]{0,200}|\\PC{0,100}", now in any::<i64>()) {
            let verifier = Verifier::new(&[Secret::new("whsec")], 300);
            let verified = verifier.verify(&header, b"body", Micros(now));
            prop_assert!(verified.is_err());
        }

        #[test]
        fn a_signature_holds_for_its_body_alone(body: Vec<u8>, other: Vec<u8>, seconds in 0i64..4_000_000_000) {
            let secret = Secret::new("whsec");
            let at = Micros::from_seconds(seconds).unwrap();
            let verifier = Verifier::new(std::slice::from_ref(&secret), 300);
            let header = sign(&secret, &body, at);
            prop_assert_eq!(verifier.verify(&header, &body, at), Ok(()));
            prop_assert_eq!(verifier.verify(&header, &other, at).is_ok(), body == other);
        }
    }
}
