//! Who is one person does not depend on the order in which we learn it, and neither does since when.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::{decoder_where, event, names, seconds, stripe_envelope};
use crate::{
    base::{PersonId, SharedAddresses},
    facts::identity::{Attributes, Component, Identifier, IdentifierKind, IdentityClaim},
    tests::cases,
};

fn identifier(kind: IdentifierKind, value: &str) -> Identifier {
    Identifier::new(&names(), kind, names().hash(kind.as_str(), value))
}

fn claim(at: i64, mut identifiers: Vec<Identifier>, country: Option<&str>) -> IdentityClaim {
    identifiers.sort();
    identifiers.dedup();
    let attributes = Attributes { country: country.map(str::to_owned), ..Attributes::default() };
    IdentityClaim { at: seconds(at), livemode: true, identifiers, attributes, erases: false }
}

/// What the loader does: for each claim, joins the components of its identifiers, unless it only confirms what is known.
fn learn<'a>(claims: impl IntoIterator<Item = &'a IdentityClaim>) -> Vec<Component> {
    learn_by(claims, Component::confirm)
}

fn learn_by<'a>(
    claims: impl IntoIterator<Item = &'a IdentityClaim>,
    confirms: fn(&mut Component, &IdentityClaim) -> bool,
) -> Vec<Component> {
    let mut all: Vec<Component> = Vec::new();
    for claim in claims {
        let touched = |c: &Component| c.identifiers().any(|i| claim.identifiers.contains(i));
        let (mut mine, rest): (Vec<_>, _) = all.into_iter().partition(touched);
        all = rest;
        let is_confirmed = mine.len() == 1 && confirms(&mut mine[0], claim);
        all.extend(if is_confirmed { mine } else { vec![Component::join(mine, claim)] });
    }
    all.sort_by(|a, b| a.canonical().cmp(&b.canonical()));
    all
}

/// Since when each two identifiers are one person, by trying every time: the slow truth.
fn connected_by(claims: &[IdentityClaim], a: &Identifier, b: &Identifier) -> Option<i64> {
    let mut times: Vec<i64> = claims.iter().map(|c| c.at.0).collect();
    times.sort_unstable();
    times.into_iter().find(|&t| {
        let mut reached = vec![a.clone()];
        let mut i = 0;
        while i < reached.len() {
            let here = reached[i].clone();
            for claim in claims.iter().filter(|c| c.at.0 <= t && c.identifiers.contains(&here)) {
                for other in &claim.identifiers {
                    if !reached.contains(other) {
                        reached.push(other.clone());
                    }
                }
            }
            i += 1;
        }
        reached.contains(b)
    })
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn people_are_functions_of_the_set_of_claims(
        links in prop::collection::vec((0i64..6, 0usize..9, 0usize..9, 0usize..9), 1..12),
        order in prop::collection::vec(any::<u32>(), 12),
    ) {
        let kinds = [IdentifierKind::Email, IdentifierKind::Customer, IdentifierKind::Anonymous];
        let pool: Vec<Identifier> = (0..9).map(|i| identifier(kinds[i % 3], &format!("v{i}"))).collect();
        let claims: Vec<IdentityClaim> = links
            .iter()
            .map(|&(at, a, b, c)| {
                let named = vec![pool[a].clone(), pool[b].clone(), pool[c].clone()];
                // Some of them ask to be forgotten.
                let erases = (a + b + c) % 7 == 0;
                let country = (!erases).then_some(["DE", "FR"][a % 2]);
                IdentityClaim { erases, ..claim(at, named, country) }
            })
            .collect();
        let straight = learn(&claims);
        let mut mixed: Vec<(u32, &IdentityClaim)> = claims.iter().enumerate().map(|(i, c)| (order[i], c)).collect();
        mixed.sort_by_key(|(key, _)| *key);
        let other = learn(mixed.iter().map(|(_, c)| *c).chain(&claims[..1]));
        prop_assert_eq!(&straight, &other);
        prop_assert_eq!(&straight, &learn_by(&claims, |_, _| false), "to confirm is to join");
        for (a, b) in straight.iter().zip(&other) {
            prop_assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap());
            prop_assert_eq!(&Component::from_bytes(&a.to_bytes().unwrap()).unwrap(), a);
        }
        for component in &straight {
            let best = component.identifiers().min().unwrap().clone();
            prop_assert_eq!(component.canonical(), Some(&best.seed));
            for row in component.identity_rows() {
                let of_it = |c: &&IdentityClaim| c.identifiers.iter().any(|i| i.id() == row.identity_id);
                let asked = claims.iter().filter(of_it).filter(|c| c.erases).map(|c| c.at).min();
                prop_assert_eq!(row.erased_at, asked);
                prop_assert_eq!(row.country.is_none(), asked.is_some(), "nothing is told of whom asked, before or after");
            }
            let by_seed: BTreeMap<PersonId, Identifier> =
                component.identifiers().map(|i| (i.seed.clone(), i.clone())).collect();
            let merges = component.merges();
            prop_assert_eq!(merges.len(), component.identifiers().len() - 1);
            for (old, new, merged_at) in merges {
                prop_assert_eq!(&new, &best.seed);
                prop_assert_eq!(Some(merged_at.0), connected_by(&claims, &by_seed[&old], &best));
            }
        }
    }
}

#[test]
fn a_claim_that_comes_late_sets_the_merge_where_it_belongs() {
    let (email, customer, browser) = (
        identifier(IdentifierKind::Email, "ann@example.com"),
        identifier(IdentifierKind::Customer, "cus_1"),
        identifier(IdentifierKind::Anonymous, "a1"),
    );
    let late = claim(50, vec![email.clone(), browser.clone()], Some("FR"));
    let first = claim(10, vec![browser.clone(), customer.clone()], Some("DE"));
    let earlier = claim(20, vec![customer.clone(), email.clone()], None);
    let one = learn([&late, &first]);
    let at = |c: &Component, i: &Identifier| c.merges().into_iter().find(|(old, ..)| old == &i.seed).map(|(.., at)| at);
    assert_eq!((at(&one[0], &customer), at(&one[0], &browser)), (Some(seconds(50)), Some(seconds(50))));
    let all = learn([&late, &first, &earlier]);
    assert_eq!((at(&all[0], &customer), at(&all[0], &browser)), (Some(seconds(20)), Some(seconds(20))));
    let rows = all[0].identity_rows();
    assert_eq!(rows.len(), 3);
    let ann = rows.iter().find(|r| r.kind == "email").unwrap();
    assert_eq!((ann.person_id.clone(), ann.country.as_deref()), (email.seed.clone(), Some("FR")));
    assert_eq!((ann.first_seen_at, ann.last_seen_at), (seconds(20), seconds(50)));
    assert_eq!(ann.identity_id, format!("email:{}", email.value_hash));
}

#[test]
fn an_address_that_many_share_makes_nobody_one_person() {
    let (open, shared) = (SharedAddresses::default(), SharedAddresses(vec!["@shop.example".to_owned()]));
    let bought = |shared: &SharedAddresses, customer: &str, email: &str| {
        let object = json!({"id": format!("ch_{customer}"), "object": "charge", "amount": 1000, "currency": "eur",
            "created": 50, "customer": customer, "paid": true, "status": "succeeded", "captured": true,
            "billing_details": {"email": email, "address": {"country": "FR"}}});
        let paid = event("evt_1", "charge.succeeded", 50, json!({"object": object}));
        decoder_where(shared.clone()).decode(&stripe_envelope(&paid)).unwrap().claims.remove(0)
    };
    let persons = |shared: &SharedAddresses, email: &str| {
        learn(&[bought(shared, "cus_1", email), bought(shared, "cus_2", email)]).len()
    };
    assert_eq!(persons(&open, "Desk@shop.example"), 1);
    assert_eq!(persons(&shared, "Desk@shop.example"), 2);
    assert_eq!(persons(&shared, "ann@example.com"), 1);
    let desk = bought(&shared, "cus_1", "desk@shop.example");
    assert_eq!(desk.attributes.email_hash, None, "nobody is written to there");
    assert_eq!((desk.attributes.currency.as_deref(), desk.attributes.country.as_deref()), (Some("eur"), Some("FR")));
}
