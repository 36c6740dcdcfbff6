//! Who is one person: identifiers that were seen together, and since when.
//!
//! A component is a function of the set of claims, never of their order: it keeps each identifier once and, of the
//! links between them, the spanning tree of the earliest (Kruskal over time). A union of claims has the tree of the
//! union of trees, so components can be joined in any order. Two identifiers became one person at the latest link of
//! the path between them, whenever we heard of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    StateError,
    rows::{Identity, PersonMerge},
    state,
};
use crate::base::{Micros, PersonId, Pseudonymizer};

/// The kinds of identifiers, the one that names a person best first. The order is part of stored states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentifierKind {
    Email,
    /// Stripe's customer.
    Customer,
    /// The shop's user.
    User,
    /// Klaviyo's profile.
    Klaviyo,
    /// The customer's number in imported orders.
    OrderRef,
    /// A browser.
    Anonymous,
}

impl IdentifierKind {
    pub const ALL: [IdentifierKind; 6] = [
        IdentifierKind::Email,
        IdentifierKind::Customer,
        IdentifierKind::User,
        IdentifierKind::Klaviyo,
        IdentifierKind::OrderRef,
        IdentifierKind::Anonymous,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            IdentifierKind::Email => "email",
            IdentifierKind::Customer => "customer",
            IdentifierKind::User => "user",
            IdentifierKind::Klaviyo => "klaviyo",
            IdentifierKind::OrderRef => "order_ref",
            IdentifierKind::Anonymous => "anonymous",
        }
    }
}

/// Something that names one person, as a hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identifier {
    pub kind: IdentifierKind,
    pub value_hash: String,
    /// The person it names as long as nothing links it to another.
    pub seed: PersonId,
}

impl Identifier {
    pub fn new(names: &Pseudonymizer, kind: IdentifierKind, value_hash: String) -> Identifier {
        let seed = names.person(kind.as_str(), &value_hash);
        Identifier { kind, value_hash, seed }
    }

    /// `kind:value_hash`, the key of its row and of an index.
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind.as_str(), self.value_hash)
    }
}

/// A phone, and what its number's plan tells of it (`base::phone::Plan`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Phone {
    pub hash: String,
    pub region: Option<String>,
    pub kind: String,
    pub carrier: Option<String>,
    /// A JSON list of IANA names.
    pub time_zones: Option<String>,
}

/// What a claim tells of the person beside who it is. The latest told holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    pub email_hash: Option<String>,
    pub phone: Option<Phone>,
    /// Why what was told as a phone is none: `base::phone::BadPhone::code`.
    pub phone_problem: Option<String>,
    pub country: Option<String>,
    pub locale: Option<String>,
    pub timezone: Option<String>,
    /// Of a payment that succeeded.
    pub currency: Option<String>,
}

/// One event's word that these identifiers are one person's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityClaim {
    pub at: Micros,
    pub livemode: bool,
    /// Sorted, each once; at least one.
    pub identifiers: Vec<Identifier>,
    pub attributes: Attributes,
    /// It says that they asked to be forgotten: nothing is told with these identifiers any more, before it or after.
    pub erases: bool,
}

/// What was told last, and when. Of what was told at one time the greatest.
type Last<T> = Option<(Micros, T)>;

/// An identifier and what was told of its person where it was named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    identifier: Identifier,
    first_seen: Micros,
    last_seen: Micros,
    email: Last<String>,
    phone: Last<Phone>,
    phone_problem: Last<String>,
    country: Last<String>,
    locale: Last<String>,
    timezone: Last<String>,
    currency: Last<String>,
    /// When its person asked to be forgotten, first.
    erased: Option<Micros>,
}

impl Node {
    fn of(claim: &IdentityClaim, identifier: &Identifier) -> Node {
        // To be forgotten is not to be seen.
        let mut node = Node::named(identifier.clone(), claim.at, Micros(i64::MIN));
        node.hear(claim);
        node
    }

    /// Of whom nothing is told.
    fn named(identifier: Identifier, first_seen: Micros, last_seen: Micros) -> Node {
        Node {
            identifier,
            first_seen,
            last_seen,
            email: None,
            phone: None,
            phone_problem: None,
            country: None,
            locale: None,
            timezone: None,
            currency: None,
            erased: None,
        }
    }

    /// Takes in a claim that names the identifier: as merging with the node that it alone makes, without making one.
    fn hear(&mut self, claim: &IdentityClaim) {
        self.first_seen = self.first_seen.min(claim.at);
        if claim.erases {
            self.erased = Some(self.erased.map_or(claim.at, |erased| erased.min(claim.at)));
        } else {
            self.last_seen = self.last_seen.max(claim.at);
        }
        let told = &claim.attributes;
        hear(&mut self.email, claim.at, &told.email_hash);
        hear(&mut self.phone, claim.at, &told.phone);
        hear(&mut self.phone_problem, claim.at, &told.phone_problem);
        hear(&mut self.country, claim.at, &told.country);
        hear(&mut self.locale, claim.at, &told.locale);
        hear(&mut self.timezone, claim.at, &told.timezone);
        hear(&mut self.currency, claim.at, &told.currency);
        if self.erased.is_some() {
            self.forget();
        }
    }

    fn merge(&mut self, other: Node) {
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        later(&mut self.email, other.email);
        later(&mut self.phone, other.phone);
        later(&mut self.phone_problem, other.phone_problem);
        later(&mut self.country, other.country);
        later(&mut self.locale, other.locale);
        later(&mut self.timezone, other.timezone);
        later(&mut self.currency, other.currency);
        self.erased = self.erased.into_iter().chain(other.erased).min();
        if self.erased.is_some() {
            self.forget();
        }
    }

    /// Nothing that was told stays, and so no order of events makes another node.
    fn forget(&mut self) {
        let Node { identifier, first_seen, last_seen, erased, .. } = self;
        *self = Node { erased: *erased, ..Node::named(identifier.clone(), *first_seen, *last_seen) };
    }

    /// When and why the phone that was told last is none; `None` where a valid one was told since, or with it.
    fn phone_problem(&self) -> Last<String> {
        let mended = |at: &Micros| self.phone.as_ref().is_some_and(|(valid, _)| valid >= at);
        self.phone_problem.clone().filter(|(at, _)| !mended(at))
    }
}

fn later<T: Ord>(mine: &mut Last<T>, theirs: Last<T>) {
    *mine = mine.take().max(theirs);
}

/// [`later`] of what is told at `at`, which most often is what is known.
fn hear<T: Ord + Clone>(mine: &mut Last<T>, at: Micros, told: &Option<T>) {
    let Some(told) = told else { return };
    match mine {
        Some((since, known)) if known == told => *since = at.max(*since),
        Some((since, known)) if (at, told) < (*since, known) => {}
        _ => *mine = Some((at, told.clone())),
    }
}

fn time<T>(told: &Last<T>) -> Option<Micros> {
    told.as_ref().map(|(at, _)| *at)
}

fn value<T: Clone>(told: &Last<T>) -> Option<T> {
    told.as_ref().map(|(_, value)| value.clone())
}

/// That two identifiers were named together, first at this time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Link {
    at: Micros,
    a: Identifier,
    b: Identifier,
}

/// All identifiers of one person, in one world (live or test).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Component {
    /// By identifier.
    nodes: Vec<Node>,
    /// A spanning tree, by time.
    links: Vec<Link>,
}

impl Component {
    /// The components that the claim's identifiers belong to, and the claim, as one.
    pub fn join(components: Vec<Component>, claim: &IdentityClaim) -> Component {
        let mut nodes: BTreeMap<Identifier, Node> = BTreeMap::new();
        let mut links: Vec<Link> = star(claim);
        for component in components {
            links.extend(component.links);
            for node in component.nodes {
                match nodes.get_mut(&node.identifier) {
                    Some(known) => known.merge(node),
                    None => drop(nodes.insert(node.identifier.clone(), node)),
                }
            }
        }
        for identifier in &claim.identifiers {
            match nodes.get_mut(identifier) {
                Some(known) => known.hear(claim),
                None => drop(nodes.insert(identifier.clone(), Node::of(claim, identifier))),
            }
        }
        let nodes: Vec<Node> = nodes.into_values().collect();
        let links = earliest_tree(&nodes, links);
        Component { nodes, links }
    }

    /// Takes in a claim that links nothing anew, as most do: it names only identifiers of this component, each linked to its
    /// best before, or later than all that links them. It changes when they were seen and what is told of them, and no link.
    /// False, and nothing is changed, where it is not such a claim.
    pub fn confirm(&mut self, claim: &IdentityClaim) -> bool {
        let places: Option<Vec<usize>> = claim.identifiers.iter().map(|i| self.find(i)).collect();
        let Some(places) = places.filter(|_| self.links_all_of(claim)) else { return false };
        for place in places {
            self.nodes[place].hear(claim);
        }
        true
    }

    /// Whether the claim's links would not be among the earliest.
    fn links_all_of(&self, claim: &IdentityClaim) -> bool {
        let Some((best, rest)) = claim.identifiers.split_first() else { return true };
        let is_known =
            |other: &Identifier| self.links.iter().any(|l| l.at <= claim.at && l.a == *best && l.b == *other);
        self.links.last().is_none_or(|newest| claim.at > newest.at) || rest.iter().all(is_known)
    }

    /// Whether each of the identifiers was last told with this phone.
    pub fn is_reached_by(&self, phone: &Phone, identifiers: &[Identifier]) -> bool {
        let has = |i| self.find(i).and_then(|place| self.nodes[place].phone.as_ref()).is_some_and(|(_, p)| p == phone);
        identifiers.iter().all(has)
    }

    fn find(&self, identifier: &Identifier) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.identifier.cmp(identifier)).ok()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Component, StateError> {
        state::from_bytes(bytes)
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        state::to_bytes(self)
    }

    /// The best first.
    pub fn identifiers(&self) -> impl ExactSizeIterator<Item = &Identifier> {
        self.nodes.iter().map(|n| &n.identifier)
    }

    /// The phones that were told last with each identifier, by their hashes, and the identifier.
    pub fn phones(&self) -> impl Iterator<Item = (&str, &Identifier)> {
        self.nodes.iter().filter_map(|node| Some((node.phone.as_ref()?.1.hash.as_str(), &node.identifier)))
    }

    /// The person: the seed of the best identifier. `None` of a component of nothing.
    pub fn canonical(&self) -> Option<&PersonId> {
        self.nodes.first().map(|n| &n.identifier.seed)
    }

    /// Every other seed, the canonical one, and when the two became one person.
    pub fn merges(&self) -> Vec<(PersonId, PersonId, Micros)> {
        let Some(canonical) = self.canonical() else { return Vec::new() };
        let since = self.joined_at();
        let others = self.nodes.iter().zip(since).skip(1);
        others.map(|(node, at)| (node.identifier.seed.clone(), canonical.clone(), at)).collect()
    }

    pub fn identity_rows(&self) -> Vec<Identity> {
        self.nodes.iter().map(|node| identity_row(node, node.identifier.id())).collect()
    }

    /// Those of the identifiers of these names.
    pub fn identity_rows_of(&self, names: &BTreeSet<String>) -> Vec<Identity> {
        let named = self.nodes.iter().map(|node| (node, node.identifier.id())).filter(|(_, id)| names.contains(id));
        named.map(|(node, id)| identity_row(node, id)).collect()
    }

    pub fn merge_rows(&self) -> Vec<PersonMerge> {
        self.merges().into_iter().map(|(old, new, merged_at)| PersonMerge { old, new, merged_at }).collect()
    }

    /// When each node was first connected to the first: the latest link on the tree's path between them.
    fn joined_at(&self) -> Vec<Micros> {
        let mut at = vec![Micros(i64::MIN); self.nodes.len()];
        let ends: Vec<(usize, usize, Micros)> =
            self.links.iter().map(|l| (place(&self.nodes, &l.a), place(&self.nodes, &l.b), l.at)).collect();
        let mut reached = vec![false; self.nodes.len()];
        let mut next = vec![0];
        while let Some(from) = next.pop() {
            if reached.get(from).is_none_or(|r| *r) {
                continue;
            }
            reached[from] = true;
            for &(a, b, link) in &ends {
                let to = if a == from {
                    b
                } else if b == from {
                    a
                } else {
                    continue;
                };
                if reached.get(to).is_some_and(|r| !r) {
                    at[to] = at[from].max(link);
                    next.push(to);
                }
            }
        }
        at
    }
}

/// The claim's links: each identifier to the best one.
fn star(claim: &IdentityClaim) -> Vec<Link> {
    let Some((best, rest)) = claim.identifiers.split_first() else { return Vec::new() };
    rest.iter().map(|other| Link { at: claim.at, a: best.clone(), b: other.clone() }).collect()
}

fn place(nodes: &[Node], identifier: &Identifier) -> usize {
    nodes.partition_point(|n| n.identifier < *identifier)
}

/// Kruskal: of the links by time, those that connect what the earlier did not.
fn earliest_tree(nodes: &[Node], mut links: Vec<Link>) -> Vec<Link> {
    links.sort_unstable();
    let mut sets = Sets((0..nodes.len()).collect());
    links.retain(|link| sets.join(place(nodes, &link.a), place(nodes, &link.b)));
    links
}

/// Disjoint sets of places.
struct Sets(Vec<usize>);

impl Sets {
    fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    /// Whether they were two sets until now.
    fn join(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
        a != b
    }
}

fn identity_row(node: &Node, identity_id: String) -> Identity {
    let (phone, problem) = (value(&node.phone), node.phone_problem());
    Identity {
        identity_id,
        kind: node.identifier.kind.as_str().to_owned(),
        value_hash: node.identifier.value_hash.clone(),
        person_id: node.identifier.seed.clone(),
        email_hash: value(&node.email),
        phone_e164_hash: phone.as_ref().map(|p| p.hash.clone()),
        phone_type: phone.as_ref().map(|p| p.kind.clone()),
        phone_region: phone.as_ref().and_then(|p| p.region.clone()),
        phone_carrier: phone.as_ref().and_then(|p| p.carrier.clone()),
        phone_time_zones: phone.and_then(|p| p.time_zones),
        phone_told_at: time(&node.phone),
        phone_problem: value(&problem),
        phone_problem_at: time(&problem),
        country: value(&node.country),
        locale: value(&node.locale),
        timezone: value(&node.timezone),
        currency: value(&node.currency),
        first_seen_at: node.first_seen,
        last_seen_at: node.last_seen.max(node.first_seen),
        erased_at: node.erased,
    }
}
