//! A request of many events: each is an event, or kept with the reason why it is none.

#![no_main]

#[path = "../../src/tests/hostile/through.rs"]
mod through;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
// `through` is a part of the library's tests, and finds these at the crate's root there too.
use tillstream::{base, facts, sources};

use self::{
    base::Source,
    sources::delivery::{Call, Collected, form, parameters, reports, webhook},
    through::{NOW, take_through},
};

fuzz_target!(|body: &[u8]| {
    let posted = Bytes::copy_from_slice(body);
    let of_klaviyo = webhook(&posted, "w", NOW).unwrap_or_default();
    let of_aliyun = reports(&posted, NOW).unwrap_or_default();
    let pages = [Call::Batch, Call::One("track")].map(|call| Collected::read(call, posted.clone()).envelopes(NOW));
    let pages = pages.into_iter().flat_map(Result::unwrap_or_default);
    for envelope in of_klaviyo.into_iter().chain(of_aliyun).chain(pages) {
        take_through(envelope.source, &envelope.payload);
    }
    take_through(Source::Twilio, &form(parameters(body)));
});
