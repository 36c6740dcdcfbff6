//! A sample shop: people who browse, buy, fail to pay, are written to and come back, told as Stripe, Klaviyo and the
//! shop's page would tell it, with the truth beside it.
//!
//! One seed gives one shop, byte for byte: chance comes from the seed, time from the shop, and nothing from a clock or from
//! the order of a hash map. The truth (`truth`) is counted from what the simulator does, never read off the events; this
//! room imports nothing but `base`, so that it shares no mistake with what reads the events. Memory is bounded by the
//! people and what is on its way to them, not by the output. All of it is synthetic: addresses are of example domains.
//!
//! `world` is the clock and the way out; `browsing`, `till`, `payment`, `aftermath`, `balance`, `suspicion`, `club`, `accounts`,
//! `messaging` and `intruders` are what happens; `*_json` are the shapes; `delivery` is the noise on the line.

mod account_json;
mod accounts;
mod aftermath;
mod balance;
mod browsing;
mod catalog;
mod census;
mod charge_json;
mod club;
mod countries;
mod crowd;
mod declines;
mod delivery;
mod dice;
mod files;
mod intruders;
mod klaviyo_json;
mod ledger;
mod letter;
mod messaging;
mod payment;
mod people;
mod questions;
mod sale;
mod shape;
mod storefront_json;
mod stripe_json;
mod suspicion;
#[cfg(test)]
mod tests;
mod till;
mod truth;
mod visits;
mod world;

use std::ops::Range;

pub use files::{WriteError, Written, write_files};
use world::World;

use crate::base::{Micros, Source};

/// When a sample shop's time ends unless told otherwise: 2026-06-30T00:00:00Z.
pub const DEFAULT_END: Micros = Micros(1_782_777_600_000_000);

/// Which shop to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shop {
    /// People who ever visit; some never say who they are.
    pub customers: u32,
    pub days: u32,
    pub seed: u64,
    /// Whose events to tell. Leaving one out changes nothing in the others.
    pub sources: Vec<Source>,
    /// Nothing happens from here on; events may arrive some hours later.
    pub end: Micros,
    /// For how many eighths of the days its Stripe account speaks the version of 2022, before it is upgraded.
    pub old_eighths: u32,
}

impl Default for Shop {
    fn default() -> Shop {
        Shop {
            customers: 2_000,
            days: 90,
            seed: 1,
            sources: vec![Source::Stripe, Source::Klaviyo, Source::Storefront],
            end: DEFAULT_END,
            old_eighths: 1,
        }
    }
}

impl Shop {
    /// Starts the shop. Nothing happens until lines are asked for.
    pub fn generate(self) -> Generated {
        Generated { world: World::new(self) }
    }

    fn has(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }

    /// Beyond the customers stand the developers, and the addresses that thieves made up.
    fn developers(&self) -> Range<u32> {
        self.customers..self.customers + 2 + self.customers / 2_000
    }

    fn attackers(&self) -> Range<u32> {
        let from = self.developers().end;
        from..from + 15 + self.customers / 50
    }

    fn people(&self) -> Range<u32> {
        0..self.attackers().end
    }
}

/// A shop at work: an iterator over lines in the order in which they arrive, each one JSON document of its source.
pub struct Generated {
    world: World,
}

impl Iterator for Generated {
    type Item = (Source, Vec<u8>);

    fn next(&mut self) -> Option<(Source, Vec<u8>)> {
        loop {
            let next_task = self.world.next_at();
            if let Some(line) = self.world.delivery.next(next_task.unwrap_or(i64::MAX)) {
                return Some(line);
            }
            next_task?;
            self.world.step();
        }
    }
}

impl Generated {
    /// The truth file's document, after the last line; lines not yet asked for are passed over.
    pub fn truth(mut self) -> serde_json::Value {
        for _ in self.by_ref() {}
        let World { shop, crowd, truth, start, .. } = &mut self.world;
        let developers = shop.developers();
        let person = |index| people::Person::of(shop.seed, index, *start, shop.end);
        truth.count_people(crowd, |index| !developers.contains(&index), person);
        truth.document(shop)
    }
}
