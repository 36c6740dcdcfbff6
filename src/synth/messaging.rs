//! Klaviyo's side of the shop: who may be written to, what is sent, and what comes of it.
//!
//! A message goes only to who is subscribed at that moment. Times are whole seconds, and no two changes of one profile
//! share one.

use super::{
    crowd::Consent,
    klaviyo_json::Message,
    people::Person,
    world::{Task, World},
};
use crate::base::time::{DAY, HOUR, MINUTE, SECOND};

const THEMES: [&str; 6] =
    ["Fresh roasts", "Brewing at home", "A new harvest", "Three for two", "Meet the farmer", "For the weekend"];

impl World {
    /// A campaign a week; every third one by SMS as well.
    pub fn plan_campaigns(&mut self) {
        // Fridays at 14:00 UTC; 1970 began on a Thursday.
        let week = 7 * DAY;
        let first = self.start.0.div_euclid(week) * week + DAY + 14 * HOUR;
        let mut number = 0;
        while first + i64::from(number) * week < self.shop.end.0 {
            let at = first + i64::from(number) * week;
            number += 1;
            if at > self.start.0 {
                self.plan(at, Task::Campaign(number));
            }
        }
    }

    pub fn campaign(&mut self, number: u32, at: i64) {
        let name = format!("Week {number}: {}", THEMES[number as usize % THEMES.len()]);
        let ids = [self.dice.ulid(), self.dice.ulid(), self.dice.ulid()];
        for index in 0..self.shop.customers {
            let member = &self.crowd[index as usize];
            if member.profile_since.is_none() {
                continue;
            }
            let (by_email, by_sms) = (member.email_consent, member.sms_consent);
            let half = index % 2;
            let mut message = Message {
                id: ids[half as usize].clone(),
                name: name.clone(),
                flow: None,
                variation: Some(if half == 0 { "A" } else { "B" }),
                sms: false,
            };
            if by_sms == Consent::Subscribed && number.is_multiple_of(3) {
                let sms = Message { id: ids[2].clone(), variation: None, sms: true, ..message.clone() };
                let wait = self.seconds(0.0, 3_600.0);
                self.plan(at + wait, Task::Send(index, Box::new(sms)));
            }
            if by_email == Consent::Subscribed {
                message.sms = false;
                let wait = self.seconds(0.0, 5_400.0);
                self.plan(at + wait, Task::Send(index, Box::new(message)));
            }
        }
    }

    /// Klaviyo hears of somebody for the first time.
    pub fn open_profile(&mut self, person: &Person, at: i64) {
        let member = &mut self.crowd[person.index as usize];
        if member.profile_since.is_some() {
            return;
        }
        let second = at / SECOND;
        if person.takes_email {
            (member.email_consent, member.email_consent_at) = (Consent::Subscribed, second);
        }
        if person.takes_sms && person.phone.is_some() {
            (member.sms_consent, member.sms_consent_at) = (Consent::Subscribed, second);
        }
        self.profile(person, at);
        if person.takes_email {
            let welcome = self.flow("Welcome", "WlcmFl");
            self.plan(at + 10 * MINUTE, Task::Send(person.index, Box::new(welcome)));
        }
    }

    fn flow(&mut self, name: &str, flow: &'static str) -> Message {
        Message { id: self.dice.ulid(), name: name.to_owned(), flow: Some(flow), variation: None, sms: false }
    }

    pub fn remind(&mut self, index: u32, cart: &str, at: i64) {
        let member = &self.crowd[index as usize];
        let still = member.cart.as_ref().is_some_and(|c| c.id == cart && at - c.touched >= 30 * MINUTE);
        if still && !member.gone && member.email_consent == Consent::Subscribed {
            let message = self.flow("You left something", "CartFl");
            self.send(index, Box::new(message), at);
        }
    }

    pub fn send(&mut self, index: u32, message: Box<Message>, at: i64) {
        let person = self.person(index);
        let member = &self.crowd[index as usize];
        let consent = if message.sms { member.sms_consent } else { member.email_consent };
        if consent != Consent::Subscribed || member.gone {
            return;
        }
        if message.sms {
            let arrives = self.dice.chance(0.96);
            let metric = if arrives { "Received SMS" } else { "Failed to Deliver SMS" };
            self.klaviyo(&person, metric, at + 4 * SECOND, &message);
            if arrives && self.dice.chance(0.02) {
                // They text STOP.
                self.klaviyo(&person, "Sent SMS", at + 39 * SECOND, &message);
                self.unsubscribe(&person, &message, at + 40 * SECOND);
            }
        } else if self.dice.chance(0.011) {
            self.klaviyo(&person, "Bounced Email", at, &message);
        } else {
            self.klaviyo(&person, "Received Email", at, &message);
            let opens = if message.flow.is_some() { 0.52 } else { 0.34 };
            if self.dice.chance(opens) {
                let wait = 60.0 + self.dice.wait(5.0 * 3_600.0);
                self.plan(at + (wait * SECOND as f64) as i64, Task::Open(index, message));
            }
        }
    }

    pub fn open(&mut self, index: u32, message: Box<Message>, at: i64) {
        let person = self.person(index);
        self.klaviyo(&person, "Opened Email", at, &message);
        match self.dice.unit() {
            u if u < 0.14 => {
                let wait = self.seconds(5.0, 90.0);
                self.plan(at + wait, Task::Click(index, message));
            }
            u if u < 0.155 && self.crowd[index as usize].email_consent == Consent::Subscribed => {
                self.unsubscribe(&person, &message, at + 20 * SECOND);
            }
            _ => {}
        }
    }

    /// Who clicks comes to the shop, even who had lapsed.
    pub fn click(&mut self, index: u32, message: Box<Message>, at: i64) {
        let person = self.person(index);
        self.klaviyo(&person, "Clicked Email", at, &message);
        if !self.crowd[index as usize].gone {
            self.begin_visit(person, at + 2 * SECOND);
        }
    }

    fn unsubscribe(&mut self, person: &Person, message: &Message, at: i64) {
        let metric = if message.sms { "Unsubscribed from SMS Marketing" } else { "Unsubscribed from Email Marketing" };
        self.klaviyo(person, metric, at, message);
        let member = &mut self.crowd[person.index as usize];
        let second = (at / SECOND).max(member.profile_changed + 1);
        if message.sms {
            (member.sms_consent, member.sms_consent_at) = (Consent::Unsubscribed, second);
        } else {
            (member.email_consent, member.email_consent_at) = (Consent::Unsubscribed, second);
        }
        self.profile(person, at);
        // Some think better of it.
        if !message.sms && self.dice.chance(0.08) {
            let member = &mut self.crowd[person.index as usize];
            let again = second + 15;
            (member.email_consent, member.email_consent_at) = (Consent::Subscribed, again);
            self.profile(person, again * SECOND);
        }
    }
}
