//! What looks like fraud: warnings of the card networks, and payments that a person looks at before they ship.
//!
//! No chance is used, so that the rest of the shop is as it would be without.

use super::{
    sale::Charge,
    stripe_json::shape,
    world::{Say, Task, World},
};
use crate::base::time::{HOUR, SECOND};

shape!(WARNING, "shapes/early_fraud_warning.json");
shape!(REVIEW, "shapes/review.json");

impl World {
    /// The network warns; and there is nothing to be done any more, for the charge is disputed.
    pub fn warn(&mut self, charge: &Charge, at: i64) {
        self.truth.warned(false, 1);
        self.tell_warning(charge, true, at, at, "radar.early_fraud_warning.created", None);
        let later = at + 3 * SECOND;
        let previous = Some(r#"{"actionable":true}"#);
        self.tell_warning(charge, false, at, later, "radar.early_fraud_warning.updated", previous);
    }

    fn tell_warning(
        &mut self,
        charge: &Charge,
        actionable: bool,
        created: i64,
        at: i64,
        kind: &'static str,
        previous: Option<&str>,
    ) {
        let id = charge.id.replacen("ch_", "issfr_", 1);
        let say = Say { previous, ..Say::new(at, kind, charge.live, charge.person, &[]).unasked() };
        self.stripe(&say, &|out, _| {
            WARNING.fill(
                &[
                    ("id", (&id).into()),
                    ("actionable", actionable.into()),
                    ("charge", (&charge.id).into()),
                    ("created", (created / SECOND).into()),
                    ("fraud_type", "made_with_stolen_card".into()),
                    ("payment_intent", charge.intent.as_ref().into()),
                ],
                out,
            );
        });
    }

    pub fn open_review(&mut self, charge: &Charge, at: i64) {
        self.truth.reviewed(charge.live, true, 1);
        self.tell_review(charge, true, at, "review.opened");
        self.plan(at + 6 * HOUR, Task::CloseReview(Box::new(charge.clone())));
    }

    pub fn close_review(&mut self, charge: &Charge, at: i64) {
        self.truth.reviewed(charge.live, true, -1);
        self.truth.reviewed(charge.live, false, 1);
        self.tell_review(charge, false, at, "review.closed");
    }

    fn tell_review(&mut self, charge: &Charge, open: bool, at: i64, kind: &'static str) {
        let (person, id) = (self.person(charge.person), format!("prv_{}", &charge.id[3..]));
        let say = Say::new(at, kind, charge.live, charge.person, &[]).unasked();
        self.stripe(&say, &|out, _| {
            REVIEW.fill(
                &[
                    ("id", (&id).into()),
                    ("charge", (&charge.id).into()),
                    ("closed_reason", (!open).then_some("approved").into()),
                    ("created", charge.created.into()),
                    ("ip", (&person.ip).into()),
                    ("country", person.country.code.into()),
                    ("livemode", charge.live.into()),
                    ("open", open.into()),
                    ("payment_intent", charge.intent.as_ref().into()),
                    ("reason", if open { "rule" } else { "approved" }.into()),
                ],
                out,
            );
        });
    }
}
