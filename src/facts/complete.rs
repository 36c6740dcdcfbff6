//! What a row takes from the whole set of events rather than from the last: moments, totals, and the person behind.
//!
//! Each is a minimum, a maximum or a sum over distinct things, so that no order of events matters. Where no event told
//! of a moment that must have been (the object was fetched, long after), the earliest is taken that it can have been.

use super::{
    Row,
    observation::{Fact, Failure, Mark, Part, UNDATED, best_person},
    rows::{Charge, Invoice, PaymentIntent, Refund},
};
use crate::base::{Micros, PersonId};

/// What is known of an object beside its last sight.
pub(super) struct Known<'a> {
    /// The last sight's second.
    pub at: Micros,
    pub marks: &'a [(Mark, Micros)],
    pub parts: &'a [Part],
    pub ambiguous: bool,
}

impl Known<'_> {
    pub fn complete(&self, row: &mut Row) {
        match row {
            Row::PaymentIntent(row) => self.payment_intent(row),
            Row::PaymentAttempt(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.invoice_id = row.invoice_id.take().or_else(|| self.invoice());
                let challenged = row.three_ds_flow.as_deref() == Some("challenge");
                let automatic = self.mark(Mark::Automatic).is_some();
                let present = challenged || self.parts.iter().any(|part| matches!(part.fact, Fact::WithinSession));
                row.is_off_session = (present || automatic).then_some(!present);
                row.attempt_no = row.payment_intent_id.as_ref().map(|_| self.number());
                row.order_ambiguous = self.ambiguous;
            }
            Row::Charge(row) => self.charge(row),
            Row::Refund(row) => self.refund(row),
            Row::Customer(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.deleted_at = self.mark(Mark::Deleted);
                row.order_ambiguous = self.ambiguous;
            }
            Row::Checkout(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                let is = |status| row.status.as_deref() == Some(status);
                row.completed_at = self.mark(Mark::Completed).or(row.created_at.filter(|_| is("complete")));
                row.expired_at = self.mark(Mark::Expired).or(row.expires_at.filter(|_| is("expired")));
                row.async_result = self.async_result();
                row.order_ambiguous = self.ambiguous;
            }
            Row::ImportedOrder(row) => row.order_ambiguous = self.ambiguous,
            Row::Profile(row) => row.order_ambiguous = self.ambiguous,
            Row::Alert(row) => row.cleared_at = self.mark(Mark::Closed),
            Row::Message(row) => {
                row.queued_at = self.mark(Mark::Queued);
                row.claimed_at = self.mark(Mark::Claimed);
                row.sent_at = self.mark(Mark::Sent);
                row.settled_at = self.mark(Mark::Settled);
            }
            Row::Dispute(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.closed_at = self.mark(Mark::Closed);
                row.withdrawn_at = self.mark(Mark::Withdrawn);
                row.reinstated_at = self.mark(Mark::Reinstated);
                row.order_ambiguous = self.ambiguous;
            }
            Row::Invoice(row) => self.invoice_row(row),
            Row::InvoicePayment(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.paid_at = row.paid_at.or(self.mark(Mark::Succeeded));
                row.order_ambiguous = self.ambiguous;
            }
            Row::Subscription(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.ended_at = row.ended_at.or(self.mark(Mark::Closed));
                row.order_ambiguous = self.ambiguous;
            }
            Row::SubscriptionState(row) => row.order_ambiguous = self.ambiguous,
            Row::Payout(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.paid_at = self.mark(Mark::Succeeded).or(row.arrives_at.filter(|_| row.status == "paid"));
                row.failed_at = self.mark(Mark::Failed);
                row.canceled_at = self.mark(Mark::Canceled);
                row.order_ambiguous = self.ambiguous;
            }
            Row::BalanceTransaction(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.payout_id = row.payout_id.take().or_else(|| self.named_by(|fact| matches!(fact, Fact::PaidOut)));
                row.order_ambiguous = self.ambiguous;
            }
            Row::EarlyFraudWarning(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.order_ambiguous = self.ambiguous;
            }
            Row::Review(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.closed_at = self.mark(Mark::Closed);
                row.order_ambiguous = self.ambiguous;
            }
            Row::Coupon(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                // Another was made under its id since.
                let made = |at: &Micros| row.created_at.is_some_and(|made| made > *at);
                row.deleted_at = self.mark(Mark::Deleted).filter(|at| !made(at));
                row.order_ambiguous = self.ambiguous;
            }
            Row::Discount(row) => {
                row.created_at = row.created_at.or(self.mark(Mark::Seen));
                row.deleted_at = self.mark(Mark::Deleted);
                row.order_ambiguous = self.ambiguous;
            }
            // The rest is not folded from sights.
            _ => {}
        }
    }

    fn mark(&self, mark: Mark) -> Option<Micros> {
        self.marks.iter().find(|(m, _)| *m == mark).map(|(_, at)| *at)
    }

    /// The invoice that others say this payment is of.
    fn invoice(&self) -> Option<String> {
        self.named_by(|fact| matches!(fact, Fact::Invoiced))
    }

    /// What a part of this kind is named after: the earliest, where there are several.
    fn named_by(&self, is: impl Fn(&Fact) -> bool) -> Option<String> {
        let parts = self.parts.iter().filter(|part| is(&part.fact));
        parts.min_by_key(|part| (part.at, &part.id)).map(|part| part.id.clone())
    }

    /// Which of its intent's attempts this one is: the first, unless the intent tells that there are more.
    fn number(&self) -> i64 {
        let told = self.parts.iter().find_map(|part| match part.fact {
            Fact::Numbered(no) => Some(i64::from(no)),
            _ => None,
        });
        told.unwrap_or(1)
    }

    fn async_result(&self) -> Option<String> {
        let failed = self.mark(Mark::FailedLater).map(|_| "failed");
        self.mark(Mark::PaidLater).map(|_| "succeeded").or(failed).map(str::to_owned)
    }

    fn charge(&self, row: &mut Charge) {
        row.created_at = row.created_at.or(self.mark(Mark::Seen));
        row.captured_at = self.mark(Mark::Captured).or(row.created_at.filter(|_| row.captured));
        row.invoice_id = row.invoice_id.take().or_else(|| self.invoice());
        row.order_ambiguous = self.ambiguous;
        // Refunds came, or failed, since the charge was seen.
        let refunded = self.uncounted(row.amount_refunded).saturating_add(self.refunded());
        if refunded != row.amount_refunded {
            row.amount_refunded = refunded;
            row.refunded = refunded >= row.amount;
        }
        row.disputed |= self.parts.iter().any(|part| matches!(part.fact, Fact::Disputed));
        let settled = self.parts.iter().filter_map(|part| match &part.fact {
            Fact::Settlement(settlement) => Some((part, settlement)),
            _ => None,
        });
        let told = row.balance_transaction_id.clone();
        let own = settled.filter(|(part, _)| told.as_ref().is_none_or(|id| *id == part.id));
        if let Some((part, settled)) = own.min_by_key(|(part, _)| (part.at, &part.id)) {
            row.balance_transaction_id = Some(part.id.clone());
            row.fee = Some(settled.fee);
            row.net = Some(settled.net);
            row.settlement_currency = Some(settled.currency);
            row.exchange_rate = settled.exchange_rate;
        }
    }

    fn invoice_row(&self, row: &mut Invoice) {
        row.created_at = row.created_at.or(self.mark(Mark::Seen));
        row.finalized_at = row.finalized_at.or(self.mark(Mark::Finalized));
        row.paid_at = row.paid_at.or(self.mark(Mark::Succeeded)).filter(|_| row.status == "paid");
        row.first_failed_at = self.mark(Mark::Failed);
        row.recovered_at = row.paid_at.filter(|paid| row.first_failed_at.is_some_and(|failed| failed <= *paid));
        row.order_ambiguous = self.ambiguous;
    }

    fn payment_intent(&self, row: &mut PaymentIntent) {
        let attempts = Attempts::of(self.parts);
        row.created_at = row.created_at.or(self.mark(Mark::Seen));
        // What paid it is its last attempt.
        let latest_at = attempts.latest.map(|part| part.at).filter(|at| *at != UNDATED);
        let paid_at = || latest_at.or(row.created_at).filter(|_| row.status == "succeeded");
        row.succeeded_at = self.mark(Mark::Succeeded).or_else(paid_at);
        row.canceled_at = row.canceled_at.or(self.mark(Mark::Canceled));
        row.attempts = attempts.count;
        row.first_attempt_at = attempts.first.or(row.created_at.filter(|_| attempts.count > 0));
        row.latest_attempt_id = attempts.latest.map(|part| part.id.clone());
        if let Some((_, _, failure)) = attempts.failure {
            row.last_error_code.clone_from(&failure.code);
            row.last_decline_code.clone_from(&failure.decline_code);
        }
        row.person_id = row.person_id.take().or(attempts.person);
        row.country = row.country.take().or(attempts.country);
        row.invoice_id = row.invoice_id.take().or_else(|| self.invoice());
        row.session_id = attempts.session.map(|(_, id)| id.to_owned());
        row.order_ambiguous = self.ambiguous;
    }

    fn refund(&self, row: &mut Refund) {
        row.created_at = row.created_at.or(self.mark(Mark::Seen));
        row.succeeded_at = self.mark(Mark::Succeeded).or(row.created_at.filter(|_| row.status == "succeeded"));
        row.failed_at = self.mark(Mark::Failed);
        row.order_ambiguous = self.ambiguous;
        let total = row.amount;
        row.amount = self.uncounted(total);
        if row.amount == 0 && total > 0 {
            "superseded".clone_into(&mut row.status);
        }
    }

    /// A charge's total of refunds, less those that are rows of their own. What was refunded after the charge was seen, or
    /// had failed before, is not in that total; of one that failed in the same second it is taken to be, as a total that had
    /// fallen by it would be the smaller.
    fn uncounted(&self, total: i64) -> i64 {
        let known = self.refunds(|at, failed_at| at <= self.at && failed_at.is_none_or(|f| f >= self.at));
        i64::try_from(i128::from(total).saturating_sub(known).max(0)).unwrap_or(total)
    }

    /// What the refunds that are rows of their own come to.
    fn refunded(&self) -> i64 {
        i64::try_from(self.refunds(|_, failed_at| failed_at.is_none())).unwrap_or(i64::MAX)
    }

    fn refunds(&self, counts: impl Fn(Micros, Option<Micros>) -> bool) -> i128 {
        let amounts = self.parts.iter().map(|part| match part.fact {
            Fact::Refund { amount, failed_at } if counts(part.at, failed_at) => i128::from(amount),
            _ => 0,
        });
        amounts.sum()
    }
}

/// The attempts of one intent, and who made them.
#[derive(Default)]
struct Attempts<'a> {
    count: i64,
    first: Option<Micros>,
    latest: Option<&'a Part>,
    failure: Option<(Micros, &'a str, &'a Failure)>,
    session: Option<(Micros, &'a str)>,
    person: Option<PersonId>,
    country: Option<String>,
}

impl<'a> Attempts<'a> {
    fn of(parts: &'a [Part]) -> Attempts<'a> {
        let mut all = Attempts::default();
        let mut persons: Option<(u8, PersonId)> = None;
        let mut country: Option<(Micros, &str, &String)> = None;
        for part in parts {
            let place = (part.at, part.id.as_str());
            let (its_country, its_person) = match &part.fact {
                Fact::Attempt { failure, country, person, .. } => {
                    all.count += 1;
                    all.first = all.first.into_iter().chain((part.at != UNDATED).then_some(part.at)).min();
                    all.latest = all.latest.into_iter().chain([part]).max_by_key(|part| part.place());
                    let failed = failure.as_ref().map(|f| (part.at, part.id.as_str(), f));
                    all.failure = all.failure.take().max(failed);
                    (country, person)
                }
                Fact::Payer { country, person } => {
                    all.session = all.session.max(Some(place));
                    (country, person)
                }
                _ => continue,
            };
            persons = best_person(persons, its_person.clone());
            country = country.max(its_country.as_ref().map(|c| (part.at, part.id.as_str(), c)));
        }
        all.person = persons.map(|(_, person)| person);
        all.country = country.map(|(_, _, country)| country.clone());
        all
    }
}

/// Fills what the leading record leaves open from an earlier one. Only messages have such records.
pub(super) fn fill(row: &mut Row, earlier: &Row) {
    let (Row::Message(row), Row::Message(earlier)) = (row, earlier) else { return };
    let text = |mine: &mut Option<String>, theirs: &Option<String>| {
        if mine.is_none() {
            mine.clone_from(theirs);
        }
    };
    if row.person_id.is_none() {
        row.person_id.clone_from(&earlier.person_id);
    }
    text(&mut row.trigger, &earlier.trigger);
    text(&mut row.channel, &earlier.channel);
    text(&mut row.provider, &earlier.provider);
    text(&mut row.provider_id, &earlier.provider_id);
    text(&mut row.template, &earlier.template);
    text(&mut row.destination_hash, &earlier.destination_hash);
}
