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

    /// Phones that several have: two of one household, somebody whom nothing links to themselves, or, in a shop of hundreds of
    /// thousands, people of a country that has not so many numbers to make up.
    fn count_shared_phones(&mut self, crowd: &[Member], live: impl Fn(u32) -> bool, person: impl Fn(u32) -> Person) {
        let mut people: BTreeMap<(bool, String), i64> = BTreeMap::new();
        for (index, member) in (0u32..).zip(crowd) {
            let told = member.people().filter(|r| r & reached::PHONE != 0).count() as i64;
            // Who a person is takes longer to make up than to look at what was told of them.
            if let Some(phone) = (told > 0).then(|| person(index).phone).flatten() {
                *people.entry((live(index), phone)).or_default() += told;
            }
        }
        for ((live, _), people) in people.into_iter().filter(|(_, people)| *people > 1) {
            self.count("shared_phones", &[live.into(), Cell::Int(people)], 1);
        }
    }
}
