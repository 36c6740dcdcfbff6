//! A file of past orders, of events, or of neither.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tillstream::{
    base::{Micros, Source},
    sources::{Options, from_reader, orders::OrdersMapping},
};

fuzz_target!(|input: &[u8]| {
    let Some((source, file)) = input.split_first() else { return };
    let source = [Source::Orders, Source::Stripe, Source::Klaviyo][usize::from(*source) % 3];
    let options = Options {
        received_at: Micros(1_790_000_000_000_000),
        threads: 1,
        zone: "Europe/Paris".parse().unwrap_or_default(),
        orders: OrdersMapping::default(),
    };
    let Ok(batches) = from_reader(source, "the input", Box::new(Cursor::new(file.to_vec())), &options) else { return };
    for batch in batches {
        let Ok(batch) = batch else { return };
        assert!(batch.envelopes.iter().all(|e| !e.event_id.is_empty()));
    }
});
