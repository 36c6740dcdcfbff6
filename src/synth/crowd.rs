//! What the shop's people have done so far: the part of a person that changes.
//!
//! Holds, for each person, which of their identifiers the shop has seen and which of those an event has shown
//! together. That is what "how many people are there" means: two identifiers are one person when a chain of events
//! links them, and a browser that nobody ever signed in on is a person of its own.

use std::collections::BTreeMap;

/// An identifier of a person, as the events show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Email,
    /// The address that a person moved to.
    NewEmail,
    Customer,
    User,
    Profile,
    Device(u8),
}

pub(super) const DEVICES: u8 = 3;
const NODES: usize = 5 + DEVICES as usize;

impl Node {
    fn all() -> impl Iterator<Item = Node> {
        [Node::Email, Node::NewEmail, Node::Customer, Node::User, Node::Profile]
            .into_iter()
            .chain((0..DEVICES).map(Node::Device))
    }

    /// As `core.identities` calls it.
    pub fn kind(self) -> &'static str {
        match self {
            Node::Email | Node::NewEmail => "email",
            Node::Customer => "customer",
            Node::User => "user",
            Node::Profile => "klaviyo",
            Node::Device(_) => "anonymous",
        }
    }

    fn place(self) -> u8 {
        match self {
            Node::Email => 0,
            Node::NewEmail => 1,
            Node::Customer => 2,
            Node::User => 3,
            Node::Profile => 4,
            Node::Device(number) => 5 + number % DEVICES,
        }
    }
}

/// How far along the way to paying an event stands; a set of them is a sum.
pub(super) mod reached {
    pub const SEEN: u8 = 1;
    pub const PAGE: u8 = 2;
    pub const PRODUCT: u8 = 4;
    pub const CART: u8 = 8;
    pub const CHECKOUT: u8 = 16;
    pub const ATTEMPT: u8 = 32;
    pub const PAID: u8 = 64;
    /// No step of the way: their phone was shown.
    pub const PHONE: u8 = 128;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Consent {
    #[default]
    Never,
    Subscribed,
    Unsubscribed,
}

/// What is in a cart. It outlives a visit by some days.
#[derive(Debug, Clone, Default)]
pub(super) struct Cart {
    pub id: String,
    /// Products by their place in the catalog, and how many of each.
    pub lines: BTreeMap<u8, u8>,
    pub touched: i64,
    pub reminded: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    groups: Groups,
    pub cart: Option<Box<Cart>>,
    /// When their customer at Stripe was made, in seconds since 1970.
    pub customer_since: Option<i64>,
    pub default_method: Option<String>,
    /// Devices on which they have said who they are, a bit each.
    pub known_devices: u8,
    /// When their profile at Klaviyo was made, in seconds since 1970.
    pub profile_since: Option<i64>,
    /// Second of the profile's last change: no two have the same.
    pub profile_changed: i64,
    pub email_consent: Consent,
    pub email_consent_at: i64,
    pub sms_consent: Consent,
    pub sms_consent_at: i64,
    pub moved_address: bool,
    /// Closed their account.
    pub gone: bool,
    /// Has, or had, beans every month.
    pub joined_club: bool,
    /// Which of their cards they pay with by now.
    pub card: u8,
}

impl Member {
    /// An event showed these identifiers together, so far along the way.
    pub fn seen(&mut self, nodes: &[Node], reached: u8) {
        self.groups.join(nodes, reached | reached::SEEN);
    }

    /// How far each distinct person among this member's identifiers came.
    pub fn people(&self) -> impl Iterator<Item = u8> + '_ {
        self.groups.reached()
    }

    /// Which of this member's distinct people an identifier is.
    pub fn home(&self, node: Node) -> usize {
        self.groups.root(node.place())
    }

    /// Every identifier that an event has shown.
    pub fn shown(&self) -> impl Iterator<Item = Node> + '_ {
        self.groups.shown()
    }

    /// The address in use.
    pub fn email_node(&self) -> Node {
        if self.moved_address { Node::NewEmail } else { Node::Email }
    }
}

/// A disjoint-set forest over so few identifiers that it fits in sixteen bytes.
#[derive(Debug, Clone)]
struct Groups {
    parent: [u8; NODES],
    reached: [u8; NODES],
}

impl Default for Groups {
    fn default() -> Groups {
        Groups { parent: std::array::from_fn(|i| i as u8), reached: [0; NODES] }
    }
}

impl Groups {
    fn root(&self, mut node: u8) -> usize {
        while self.parent[usize::from(node)] != node {
            node = self.parent[usize::from(node)];
        }
        usize::from(node)
    }

    fn join(&mut self, nodes: &[Node], reached: u8) {
        let Some(first) = nodes.first() else { return };
        let into = self.root(first.place());
        self.reached[into] |= reached;
        for node in &nodes[1..] {
            let from = self.root(node.place());
            self.parent[from] = into as u8;
            if from != into {
                self.reached[into] |= std::mem::take(&mut self.reached[from]);
            }
        }
    }

    fn shown(&self) -> impl Iterator<Item = Node> + '_ {
        Node::all().filter(|node| {
            let place = usize::from(node.place());
            usize::from(self.parent[place]) != place || self.reached[place] != 0
        })
    }

    fn reached(&self) -> impl Iterator<Item = u8> + '_ {
        (0..NODES).filter(|&i| usize::from(self.parent[i]) == i).map(|i| self.reached[i]).filter(|&r| r != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_shows_together_is_one_person() {
        let mut member = Member::default();
        member.seen(&[Node::Device(0)], reached::PAGE);
        member.seen(&[Node::Device(1)], reached::PRODUCT);
        assert_eq!(member.people().count(), 2);
        member.seen(&[Node::Device(0), Node::User, Node::Email], 0);
        assert_eq!(member.people().count(), 2);
        member.seen(&[Node::Email, Node::Device(1)], reached::CART);
        let people: Vec<u8> = member.people().collect();
        assert_eq!(people, [reached::SEEN | reached::PAGE | reached::PRODUCT | reached::CART]);
        let shown: Vec<Node> = member.shown().collect();
        assert_eq!(shown, [Node::Email, Node::User, Node::Device(0), Node::Device(1)]);
    }

    #[test]
    fn nobody_seen_is_nobody() {
        assert_eq!(Member::default().people().count(), 0);
    }
}
