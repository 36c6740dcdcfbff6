//! Signatures that nobody signed: none is believed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tillstream::{
    base::Micros,
    config::Secret,
    sources::{KlaviyoVerifier, Signed, TwilioVerifier, Verifier},
};

fuzz_target!(|input: (&str, &str, &[u8], i64)| {
    let (one, other, body, now) = input;
    let secret = Secret::new("secret");
    assert!(Verifier::new(std::slice::from_ref(&secret), 300).verify(one, body, Micros(now)).is_err());
    assert!(KlaviyoVerifier::new(Some(&secret)).verify(one, other, body).is_err());
    let addresses = [other.to_owned()];
    assert!(TwilioVerifier::new(Some(&secret)).verify(one, &addresses, &Signed::Other(body)).is_err());
});
