//! A body of any source: an event, or kept with the reason why it is none; its facts fit their tables.

#![no_main]

#[path = "../../src/tests/hostile/through.rs"]
mod through;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
// `through` is a part of the library's tests, and finds these at the crate's root there too.
use tillstream::{base, facts, sources};

use self::base::Source;

const SOURCES: [Source; 5] = [Source::Stripe, Source::Klaviyo, Source::Storefront, Source::Twilio, Source::Aliyun];

fuzz_target!(|input: &[u8]| {
    let Some((source, body)) = input.split_first() else { return };
    let source = SOURCES[usize::from(*source) % SOURCES.len()];
    through::take_through(source, &Bytes::copy_from_slice(body));
});
