//! What the sample shop sells, and at which price in which currency.
//!
//! A price is a whole number of minor units that the currency can be charged in.

use crate::base::{Currency, Money};

pub(super) struct Product {
    pub id: &'static str,
    pub name: &'static str,
    pub category: &'static str,
    /// In US cents.
    cents: i64,
    /// How often it is looked at, beside the others.
    pub appeal: u32,
}

const fn product(id: &'static str, name: &'static str, category: &'static str, cents: i64, appeal: u32) -> Product {
    Product { id, name, category, cents, appeal }
}

pub(super) const PRODUCTS: &[Product] = &[
    product("espresso-250", "Espresso, 250 g", "beans", 1_290, 30),
    product("espresso-1000", "Espresso, 1 kg", "beans", 3_990, 22),
    product("filter-250", "Filter roast, 250 g", "beans", 1_390, 26),
    product("filter-1000", "Filter roast, 1 kg", "beans", 4_290, 14),
    product("decaf-250", "Decaf, 250 g", "beans", 1_390, 9),
    product("ethiopia-250", "Ethiopia Guji, 250 g", "beans", 1_690, 18),
    product("kenya-250", "Kenya Nyeri, 250 g", "beans", 1_790, 12),
    product("geisha-100", "Panama Geisha, 100 g", "beans", 4_900, 5),
    product("sampler-4", "Sampler, four roasts", "beans", 3_400, 16),
    product("sencha-100", "Sencha, 100 g", "tea", 1_450, 7),
    product("earl-grey-100", "Earl Grey, 100 g", "tea", 1_100, 6),
    product("v60-cup", "Dripper, ceramic", "brewing", 2_500, 11),
    product("filters-100", "Paper filters, 100", "brewing", 790, 17),
    product("press-800", "French press, 0.8 l", "brewing", 3_900, 8),
    product("moka-6", "Moka pot, 6 cups", "brewing", 4_500, 6),
    product("kettle", "Gooseneck kettle", "brewing", 8_900, 5),
    product("scale", "Brewing scale", "brewing", 5_900, 5),
    product("hand-grinder", "Hand grinder", "grinders", 11_900, 6),
    product("grinder", "Electric grinder", "grinders", 24_900, 3),
    product("machine", "Espresso machine", "machines", 69_900, 2),
    product("cup-2", "Cups, set of two", "cups", 2_200, 9),
    product("travel-mug", "Travel mug", "cups", 2_900, 8),
    product("tote", "Tote bag", "gifts", 1_500, 4),
    product("gift-card", "Gift card", "gifts", 5_000, 6),
];

/// What a subscription costs a month, in US cents, and its name.
pub(super) const PLANS: &[(&str, &str, i64)] = &[
    ("club-small", "Coffee club, 250 g", 1_490),
    ("club-medium", "Coffee club, 500 g", 2_690),
    ("club-large", "Coffee club, 1 kg", 4_490),
];

/// What members who came with it pay less, for ever: a coupon's id and per cent.
pub(super) const MEMBERS_COUPON: (&str, i64) = ("CLUB15", 15);

/// What is within the price where buyers are asked by their banks, which is where there is such a tax: its rate's id, and per cent.
pub(super) const TAX: (&str, i64) = ("txr_1CornerRoasteryVat20", 20);

/// Minor units of a currency for a US dollar, at the shop's own fixed rates, and the step that its prices keep.
fn rate(currency: &str) -> (f64, i64) {
    match currency {
        "gbp" => (79.0, 10),
        "eur" => (92.0, 10),
        "cad" => (137.0, 10),
        "aud" => (152.0, 10),
        "jpy" => (155.0, 10),
        "sek" => (1_060.0, 100),
        "brl" => (540.0, 10),
        // Three decimals, of which Stripe wants the last to be 0.
        "kwd" => (307.0, 50),
        _ => (100.0, 1),
    }
}

/// A price of so many US cents, in `currency`.
pub(super) fn price(cents: i64, currency: &str) -> i64 {
    let (per_dollar, step) = rate(currency);
    let minor = (cents as f64 * per_dollar / 100.0).round() as i64;
    (minor / step * step).max(step)
}

impl Product {
    pub fn price(&self, currency: &str) -> i64 {
        price(self.cents, currency)
    }
}

/// An amount as a storefront writes it: a JSON number in major units.
pub(super) fn major(minor: i64, currency: &str) -> String {
    Currency::parse(currency).map_or_else(|_| minor.to_string(), |currency| Money { minor, currency }.major())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_can_be_charged() {
        for product in PRODUCTS {
            assert_eq!(product.price("kwd") % 10, 0);
            assert!(product.price("jpy") >= 50 && product.price("usd") >= 50);
        }
        assert_eq!(price(1_290, "usd"), 1_290);
        assert_eq!(major(price(1_290, "kwd"), "kwd"), "3.950");
        assert_eq!(major(price(1_290, "jpy"), "jpy"), "2000");
    }
}
