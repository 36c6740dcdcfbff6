//! The sample shop as it runs: what is due next, who is there, and the two ways out, events and truth.
//!
//! Time is a queue of tasks. A task is due at its time, says what happens within the minute, and puts what follows into
//! the queue; none is started in the last minute before the end, so nothing happens after it. Whatever happens is told
//! through [`World::stripe`], [`World::shop`] or [`World::klaviyo`] and nowhere else.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use super::{
    Shop,
    balance::{Balance, Payout},
    browsing::Visit,
    crowd::{Member, Node, reached},
    delivery::Delivery,
    dice::Dice,
    klaviyo_json::{self, Happening, Message},
    people::Person,
    sale::{Charge, Dispute, Purchase, Subscription},
    storefront_json::{self, Body, Place},
    stripe_json::{Event, Object, Version},
    truth::Truth,
};
use crate::base::{
    Micros, Source,
    time::{DAY, MINUTE, SECOND},
};

pub(super) struct World {
    pub shop: Shop,
    pub start: Micros,
    pub dice: Dice,
    pub crowd: Vec<Member>,
    pub truth: Truth,
    pub orders: u64,
    pub delivery: Delivery,
    pub balance: Balance,
    tasks: BinaryHeap<Reverse<Due>>,
    planned: u64,
    swept: i64,
}

/// What is to happen.
pub(super) enum Task {
    Arrive(u32),
    Browse(Box<Visit>),
    Pay(Box<Purchase>),
    /// The buyer comes back from the bank's or PayPal's page.
    Authenticated(Box<Purchase>),
    Settle(Box<Purchase>),
    Capture(Box<Purchase>),
    GiveUp(Box<Purchase>),
    Book(Box<Charge>),
    Refund(Box<Charge>),
    RefundSettles(Box<Charge>),
    RefundFails(Box<Charge>),
    Dispute(Box<(Charge, Option<Dispute>)>),
    CloseReview(Box<Charge>),
    PayOut,
    PayoutEnds(Box<Payout>),
    Offer,
    Join(u32),
    Renew(Box<Subscription>),
    Collect(Box<Subscription>),
    Leave(Box<Subscription>),
    CloseAccount(u32),
    Campaign(u32),
    Remind(u32, String),
    Send(u32, Box<Message>),
    Open(u32, Box<Message>),
    Click(u32, Box<Message>),
    Attack(Box<Purchase>),
    Experiment(u32),
}

struct Due {
    at: i64,
    number: u64,
    task: Task,
}

/// What Stripe tells, beside the object.
pub(super) struct Say<'a> {
    pub at: i64,
    pub kind: &'static str,
    pub live: bool,
    pub person: u32,
    /// The identifiers that the event shows together.
    pub nodes: &'a [Node],
    pub reached: u8,
    /// Came of an API request of the shop or of the buyer's browser.
    pub requested: bool,
    pub previous: Option<&'a str>,
    /// The payout that this was listed as a part of.
    pub payout: Option<&'a str>,
}

impl World {
    pub fn new(shop: Shop) -> World {
        let start = shop.end.plus(-(i64::from(shop.days.max(1)) * DAY));
        let people = shop.people();
        let mut world = World {
            start,
            dice: Dice::new(shop.seed, 0),
            crowd: vec![Member::default(); people.end as usize],
            truth: Truth::default(),
            orders: 0,
            delivery: Delivery::new(shop.seed),
            balance: Balance::default(),
            tasks: BinaryHeap::new(),
            planned: 0,
            swept: start.0,
            shop,
        };
        for index in 0..world.shop.customers {
            let first = world.person(index).first_visit;
            world.plan(first.0, Task::Arrive(index));
        }
        world.plan(start.0, Task::Offer);
        world.plan_campaigns();
        world.plan_attack();
        world.plan_experiments();
        world.plan_payouts();
        world
    }

    pub fn person(&self, index: u32) -> Person {
        Person::of(self.shop.seed, index, self.start, self.shop.end)
    }

    pub fn plan(&mut self, at: i64, task: Task) {
        self.planned += 1;
        self.tasks.push(Reverse(Due { at, number: self.planned, task }));
    }

    /// A random wait, in microseconds.
    pub fn seconds(&mut self, low: f64, high: f64) -> i64 {
        (self.dice.between(low, high) * SECOND as f64) as i64
    }

    /// When the next task is due; `None` when nothing more happens.
    pub fn next_at(&self) -> Option<i64> {
        let at = self.tasks.peek()?.0.at;
        (at < self.shop.end.0 - MINUTE).then_some(at)
    }

    /// Lets the next task happen.
    pub fn step(&mut self) {
        let Some(Reverse(Due { at, task, .. })) = self.tasks.pop() else { return };
        if at - self.swept > DAY {
            self.truth.forget_what_is_settled(at);
            self.swept = at;
        }
        match task {
            Task::Arrive(person) => self.arrive(person, at),
            Task::Browse(visit) => self.browse(visit, at),
            Task::Pay(purchase) => self.pay(purchase, at),
            Task::Authenticated(purchase) => self.authenticated(purchase, at),
            Task::Settle(purchase) => self.settle(purchase, at),
            Task::Capture(purchase) => self.capture(purchase, at),
            Task::GiveUp(purchase) => self.give_up(purchase, at),
            Task::Book(charge) => self.book(charge, at),
            Task::Refund(charge) => self.refund(charge, at),
            Task::RefundSettles(charge) => self.refund_settles(charge, at),
            Task::RefundFails(charge) => self.refund_fails(charge, at),
            Task::Dispute(dispute) => self.dispute(*dispute, at),
            Task::CloseReview(charge) => self.close_review(&charge, at),
            Task::PayOut => self.pay_out(at),
            Task::PayoutEnds(payout) => self.payout_ends(payout, at),
            Task::Offer => self.offer(at),
            Task::Join(person) => self.join(person, at),
            Task::Renew(subscription) => self.renew(subscription, at),
            Task::Collect(subscription) => self.collect(subscription, at),
            Task::Leave(subscription) => self.leave(subscription, at),
            Task::CloseAccount(person) => self.close_account(person, at),
            Task::Campaign(number) => self.campaign(number, at),
            Task::Remind(person, cart) => self.remind(person, &cart, at),
            Task::Send(person, message) => self.send(person, message, at),
            Task::Open(person, message) => self.open(person, message, at),
            Task::Click(person, message) => self.click(person, message, at),
            Task::Attack(purchase) => self.attack(purchase, at),
            Task::Experiment(person) => self.experiment(person, at),
        }
    }

    pub fn version(&self, at: i64) -> Version {
        if self.is_within(self.shop.old_eighths, at) { Version::Old } else { Version::New }
    }

    /// Whether so many eighths of the shop's time have not passed yet.
    pub fn is_within(&self, eighths: u32, at: i64) -> bool {
        at < self.start.0 + (self.shop.end.0 - self.start.0) / 8 * i64::from(eighths)
    }

    pub fn stripe(&mut self, say: &Say, object: &Object) {
        if !self.shop.has(Source::Stripe) {
            return;
        }
        self.crowd[say.person as usize].seen(say.nodes, say.reached);
        let dice = self.delivery.dice(Source::Stripe);
        let event = Event {
            id: dice.made("evt_1", say.at / SECOND),
            version: self.version(say.at),
            created: say.at / SECOND,
            kind: say.kind,
            live: say.live,
            request: say.requested.then(|| (self.delivery.dice(Source::Stripe).id("req_", 14), String::new())),
            previous: say.previous,
            payout: say.payout,
        };
        let event = self.with_key(event);
        let posted = self.delivery.post(Source::Stripe, event.letter(object), say.at);
        self.truth.event(Source::Stripe, say.kind, posted);
    }

    fn with_key<'a>(&mut self, mut event: Event<'a>) -> Event<'a> {
        if let Some(request) = &mut event.request {
            request.1 = self.delivery.dice(Source::Stripe).uuid();
        }
        event
    }

    /// A message of the browser that `visit` is made with.
    pub fn shop(&mut self, visit: &Visit, at: i64, place: &Place, body: &Body, reached: u8) {
        let at = at - at % 1_000;
        self.truth.shop_event(body.kind(), (visit.person.index, visit.device), at);
        if !self.shop.has(Source::Storefront) {
            return;
        }
        let person = &visit.person;
        let member = &mut self.crowd[person.index as usize];
        let device = Node::Device(visit.device);
        match (body, visit.signed_in) {
            (Body::Identify(_), true) => member.seen(&[device, Node::User, member.email_node()], reached),
            (Body::Identify(_), false) => member.seen(&[device, member.email_node()], reached),
            (_, true) => member.seen(&[device, Node::User], reached),
            (_, false) => member.seen(&[device], reached),
        }
        let id = self.delivery.dice(Source::Storefront).hex("ajs-next-", 32);
        let message = storefront_json::Message {
            id,
            anonymous: &person.device(visit.device),
            user: person.user.as_deref().filter(|_| visit.signed_in),
            at,
            sent: at + 350_000,
            place,
            body,
        };
        let letter = storefront_json::message(person, &message);
        let posted = self.delivery.post(Source::Storefront, letter, at);
        self.truth.event(Source::Storefront, body.kind(), posted);
    }

    /// Something that happened to a message to a person.
    pub fn klaviyo(&mut self, person: &Person, metric: &'static str, at: i64, message: &Message) {
        self.truth.message(message.sms, metric);
        if !self.shop.has(Source::Klaviyo) {
            return;
        }
        let member = &mut self.crowd[person.index as usize];
        let email = person.email(member.moved_address);
        member.seen(&profile_nodes(person, member), reached::PHONE);
        let dice = self.delivery.dice(Source::Klaviyo);
        let (id, uuid) = (dice.id("", 11), dice.uuid());
        let happening = Happening { id, uuid, metric, at: at / SECOND, email: &email, message };
        let letter = klaviyo_json::event(person, &happening);
        let posted = self.delivery.post(Source::Klaviyo, letter, at);
        self.truth.event(Source::Klaviyo, metric, posted);
    }

    /// A profile as it is from now on.
    pub fn profile(&mut self, person: &Person, at: i64) {
        let member = &mut self.crowd[person.index as usize];
        let second = (at / SECOND).max(member.profile_changed + 1);
        member.profile_changed = second;
        let created = *member.profile_since.get_or_insert(second);
        if !self.shop.has(Source::Klaviyo) {
            return;
        }
        member.seen(&profile_nodes(person, member), reached::PHONE);
        let letter = klaviyo_json::profile(person, member, &person.email(member.moved_address), created);
        let posted = self.delivery.post(Source::Klaviyo, letter, second * SECOND);
        self.truth.event(Source::Klaviyo, "profile.updated", posted);
    }
}

/// What Klaviyo's documents show together. The shop tells it its own id of account holders.
fn profile_nodes(person: &Person, member: &Member) -> Vec<Node> {
    let mut nodes = vec![Node::Profile, member.email_node()];
    nodes.extend(person.user.is_some().then_some(Node::User));
    nodes
}

/// `Say` with what most events share.
impl<'a> Say<'a> {
    pub fn new(at: i64, kind: &'static str, live: bool, person: u32, nodes: &'a [Node]) -> Say<'a> {
        Say { at, kind, live, person, nodes, reached: 0, requested: true, previous: None, payout: None }
    }

    pub fn unasked(self) -> Say<'a> {
        Say { requested: false, ..self }
    }

    pub fn reached(self, reached: u8) -> Say<'a> {
        Say { reached, ..self }
    }

    pub fn before(self, previous: &'a str) -> Say<'a> {
        Say { previous: Some(previous), ..self }
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}
