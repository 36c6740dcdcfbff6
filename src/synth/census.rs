//! What is counted of people, once all is told: who they are, how far each came, and what they share.

use std::collections::BTreeMap;

use super::{
    crowd::{Consent, Member, reached},
    people::Person,
    truth::{Cell, Truth},
};

impl Truth {
    /// Counts the people among all identifiers seen, how far each came, and the phones that several have.
    pub fn count_people(&mut self, crowd: &[Member], live: impl Fn(u32) -> bool, person: impl Fn(u32) -> Person) {
        let steps = [
            (reached::PAGE, "1 page"),
            (reached::PRODUCT, "2 product"),
            (reached::CART, "3 cart"),
            (reached::CHECKOUT, "4 checkout"),
            (reached::ATTEMPT, "5 attempted"),
            (reached::PAID, "6 paid"),
        ];
        for (index, member) in (0u32..).zip(crowd) {
            for node in member.shown() {
                self.count("identities", &[live(index).into(), node.kind().into()], 1);
            }
            for person in member.people() {
                self.count("people", &[live(index).into()], 1);
                for (_, name) in steps.iter().filter(|(step, _)| live(index) && person & step != 0) {
                    self.count("reached", &[(*name).into()], 1);
                }
            }
            if member.profile_since.is_some() {
                let [email, sms] = [member.email_consent, member.sms_consent].map(|consent| match consent {
                    Consent::Never => "never_subscribed",
                    Consent::Subscribed => "subscribed",
                    Consent::Unsubscribed => "unsubscribed",
                });
                self.count("consents", &["email".into(), email.into()], 1);
                self.count("consents", &["sms".into(), sms.into()], 1);
                self.count("profiles", &[email.into(), sms.into()], 1);
            }
        }
        self.count_shared_phones(crowd, live, person);
        let sessions = self.visits.sessions(crowd);
        self.count("sessions", &[], sessions);
    }

    /// Phones that several have: two of one household, or somebody whom nothing links to themselves.
    fn count_shared_phones(&mut self, crowd: &[Member], live: impl Fn(u32) -> bool, person: impl Fn(u32) -> Person) {
        for index in 0..crowd.len() as u32 {
            let household = Person::household(index);
            if household.start != index {
                continue;
            }
            let members = crowd.get(index as usize..household.end.min(crowd.len() as u32) as usize).unwrap_or_default();
            let told: Vec<i64> =
                members.iter().map(|m| m.people().filter(|r| r & reached::PHONE != 0).count() as i64).collect();
            if told.iter().sum::<i64>() < 2 {
                continue;
            }
            let mut people: BTreeMap<(bool, String), i64> = BTreeMap::new();
            for (member, told) in household.zip(told) {
                if let Some(phone) = person(member).phone {
                    *people.entry((live(member), phone)).or_default() += told;
                }
            }
            for ((live, _), people) in people.into_iter().filter(|(_, people)| *people > 1) {
                self.count("shared_phones", &[live.into(), Cell::Int(people)], 1);
            }
        }
    }
}
