//! Invoices, and the payments of them.
//!
//! Since 2025-03-31 an invoice names its subscription in `parent`, its taxes in `total_taxes` and its payments in objects
//! of their own; before, all of it stood on the invoice itself. Both give the same rows.

use super::{
    DecodeError, Event, Mark, Message, Part, Saw, Seen, Step, Table, shown,
    tax::{self, Lines, Tax, TaxRate},
};
use crate::{
    base::{Currency, Micros},
    facts::{
        identity::IdentifierKind,
        json::{Amount, Flag, List, Maybe, OnlyId, Reference, Text, Whole, object},
        observation::Fact,
        rows,
    },
};

object! {
    #[derive(Clone)]
    struct Invoice<'a> {
        id: Text<'a>,
        object: Text<'a>,
        amount_due: Amount,
        amount_paid: Amount,
        amount_remaining: Amount,
        attempt_count: Whole,
        attempted: Flag,
        /// `collection_method` before 2019-10-17.
        billing: Text<'a>,
        billing_reason: Text<'a>,
        charge: Reference<'a, OnlyId<'a>>,
        closed: Flag,
        collection_method: Text<'a>,
        created: Whole,
        currency: Text<'a>,
        customer: Reference<'a, OnlyId<'a>>,
        /// `created` before 2019-03-14.
        date: Whole,
        default_tax_rates: List<Maybe<TaxRate<'a>>>,
        due_date: Whole,
        finalized_at: Whole,
        forgiven: Flag,
        lines: Maybe<Lines<'a>>,
        next_payment_attempt: Whole,
        paid: Flag,
        parent: Maybe<Parent<'a>>,
        payment_intent: Reference<'a, OnlyId<'a>>,
        payments: List<Maybe<Payment<'a>>>,
        status: Text<'a>,
        status_transitions: Maybe<Transitions>,
        subscription: Reference<'a, OnlyId<'a>>,
        tax: Amount,
        total: Amount,
        total_excluding_tax: Amount,
        total_tax_amounts: List<Maybe<Tax<'a>>>,
        total_taxes: List<Maybe<Tax<'a>>>,
    }
}

object! {
    #[derive(Clone)]
    struct Parent<'a> {
        subscription_details: Maybe<ParentSubscription<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct ParentSubscription<'a> {
        subscription: Reference<'a, OnlyId<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct Transitions {
        finalized_at: Whole,
        paid_at: Whole,
    }
}

object! {
    /// An `invoice_payment`.
    #[derive(Clone)]
    struct Payment<'a> {
        object: Text<'a>,
        amount_paid: Amount,
        created: Whole,
        currency: Text<'a>,
        invoice: Reference<'a, OnlyId<'a>>,
        payment: Maybe<PaidBy<'a>>,
        status: Text<'a>,
        status_transitions: Maybe<Transitions>,
    }
}

object! {
    #[derive(Clone)]
    struct PaidBy<'a> {
        charge: Reference<'a, OnlyId<'a>>,
        payment_intent: Reference<'a, OnlyId<'a>>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Invoice> = Message::of(event)?;
    let invoice = &message.object;
    // One that is yet to come has no id, and is nothing that happened.
    let to_come = invoice.id.get().is_none() && event.kind() == "invoice.upcoming";
    if to_come || invoice.object.get().is_some_and(|o| o != "invoice") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", invoice.id.owned())?;
    let row = invoice.row(event, &id)?;
    invoice.pays(event, &row)?;
    for payment in invoice.payments.iter().filter_map(Maybe::get) {
        record(event, payment, Some(&id), Seen::carried)?;
    }
    let (marks, step) = (invoice.marks(event, &row.status), invoice.step(event, &row));
    let (table, seen, row) = (Table::Invoices, Seen::own(state, prior), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

pub(super) fn decode_payment(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Payment> = Message::of(event)?;
    let payment = &message.object;
    if payment.object.get().is_some_and(|o| o != "invoice_payment") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    record(event, payment, None, |_, _| Seen::own(state, prior))?;
    Ok(true)
}

impl Invoice<'_> {
    /// By other fields where a version has no status.
    fn status(&self, event: &Event) -> &str {
        match self.status.get() {
            _ if event.kind() == "invoice.deleted" => "deleted",
            Some(status) => status,
            None if self.paid.is_true() => "paid",
            None if self.forgiven.is_true() => "uncollectible",
            None if self.closed.is_true() => "void",
            None if self.attempted.is_true() => "open",
            None => "draft",
        }
    }

    fn transitions(&self) -> Transitions {
        self.status_transitions.get().cloned().unwrap_or_default()
    }

    fn marks(&self, event: &Event, status: &str) -> Vec<(Mark, Micros)> {
        let finalized = !matches!(status, "draft" | "deleted");
        let marks = [
            (finalized, Mark::Finalized),
            (status == "paid", Mark::Succeeded),
            (event.kind() == "invoice.payment_failed", Mark::Failed),
            (self.created.0.or(self.date.0).is_none(), Mark::Seen),
        ];
        shown(event, marks.into_iter().filter(|(holds, _)| *holds).map(|(_, mark)| mark))
    }

    fn step(&self, event: &Event, row: &rows::Invoice) -> Step {
        let settled = u8::from(matches!(row.status.as_str(), "paid" | "void" | "deleted"));
        let (phase, rank) = match event.kind() {
            "invoice.created" => (0, 0),
            "invoice.finalized" => (1, 2),
            "invoice.payment_failed" => (1, 3),
            "invoice.payment_succeeded" => (1, 4),
            "invoice.paid" | "invoice.voided" | "invoice.deleted" => (1, 5),
            _ => (1, 1),
        };
        let finalized = i64::from(row.status != "draft");
        Step {
            settled,
            phase,
            rank,
            progress: [Some(finalized), row.attempt_count, row.amount_paid],
            ..Step::default()
        }
    }

    /// What paid it, where the invoice itself says so.
    fn pays(&self, event: &mut Event, row: &rows::Invoice) -> Result<(), DecodeError> {
        let by = PaidBy { charge: self.charge.clone(), payment_intent: self.payment_intent.clone() };
        by.belongs_to(event, &row.invoice_id, row.created_at);
        let Some(id) = by.id(&row.invoice_id).filter(|_| row.status == "paid") else { return Ok(()) };
        let payment = rows::InvoicePayment {
            invoice_payment_id: id.clone(),
            invoice_id: row.invoice_id.clone(),
            charge_id: by.charge.id_owned().filter(|_| by.payment_intent.id().is_none()),
            payment_intent_id: by.payment_intent.id_owned(),
            created_at: row.finalized_at.or(row.created_at),
            status: "paid".to_owned(),
            amount_paid: row.amount_paid,
            currency: row.currency,
            paid_at: row.paid_at,
            order_ambiguous: false,
        };
        let (table, step) = (Table::InvoicePayments, Step { settled: 1, phase: 1, ..Step::default() });
        let marks = shown(event, [Mark::Succeeded].into_iter());
        let seen = Seen::hint(event, &id);
        event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row: payment.into() });
        Ok(())
    }

    fn row(&self, event: &mut Event, id: &str) -> Result<rows::Invoice, DecodeError> {
        let currency = event.currency("data.object.currency", self.currency.get())?;
        let currency = event.required("data.object.currency", currency)?;
        let status = self.status(event).to_owned();
        let due = event.signed_amount("data.object.amount_due", &self.amount_due)?;
        // Versions before 2018 do not say how much of it was paid.
        let paid = event.amount("data.object.amount_paid", &self.amount_paid)?;
        let paid = paid.or(due.map(|due| if status == "paid" { due } else { 0 }));
        let remaining = event.signed_amount("data.object.amount_remaining", &self.amount_remaining)?;
        let total = event.signed_amount("data.object.total", &self.total)?;
        let taxes = self.total_taxes.get().or(self.total_tax_amounts.get());
        let total_tax = match taxes {
            Some(taxes) => Some(tax::total(event, taxes)?),
            None => event.signed_amount("data.object.tax", &self.tax)?,
        };
        let untaxed = event.signed_amount("data.object.total_excluding_tax", &self.total_excluding_tax)?;
        let transitions = self.transitions();
        let parent = self.parent.get().and_then(|p| p.subscription_details.get());
        let mut someone = event.someone();
        someone.known_as(IdentifierKind::Customer, self.customer.id());
        let person_id = someone.person();
        event.keep(someone);
        Ok(rows::Invoice {
            invoice_id: id.to_owned(),
            created_at: self.created.seconds().or(self.date.seconds()),
            billing_reason: self.billing_reason.owned(),
            collection_method: self.collection_method.owned().or(self.billing.owned()),
            subscription_id: parent.and_then(|p| p.subscription.id_owned()).or(self.subscription.id_owned()),
            customer_id: self.customer.id_owned(),
            person_id,
            currency,
            total,
            total_excl_tax: match (untaxed, total, total_tax) {
                (None, Some(total), Some(tax)) => Some(event.sum("data.object.total", [total, tax.saturating_neg()])?),
                (untaxed, ..) => untaxed,
            },
            total_tax,
            amount_due: due,
            amount_paid: paid,
            amount_remaining: match (remaining, due, paid) {
                (None, Some(due), Some(paid)) => {
                    Some(event.sum("data.object.amount_due", [due, paid.saturating_neg()])?)
                }
                (remaining, ..) => remaining,
            },
            attempt_count: self.attempt_count.0,
            next_payment_attempt: self.next_payment_attempt.seconds(),
            due_at: self.due_date.seconds(),
            finalized_at: transitions.finalized_at.seconds().or(self.finalized_at.seconds()),
            paid_at: transitions.paid_at.seconds(),
            first_failed_at: None,
            recovered_at: None,
            taxes: tax::text(event, self.lines.get(), taxes.unwrap_or_default(), &self.default_tax_rates)?,
            status,
            order_ambiguous: false,
        })
    }
}

impl PaidBy<'_> {
    /// Of the payment of an invoice: the pair, which every version names.
    fn id(&self, invoice: &str) -> Option<String> {
        Some(format!("{invoice}:{}", self.payment_intent.id().or(self.charge.id())?))
    }

    /// Tells the payment which invoice it is of: since 2025-03-31 it does not know by itself.
    fn belongs_to(&self, event: &mut Event, invoice: &str, at: Option<Micros>) {
        let at = at.unwrap_or(event.at());
        let part = || Part { id: invoice.to_owned(), at, fact: Fact::Invoiced };
        if let Some(intent) = self.payment_intent.id() {
            event.add_part(Table::PaymentIntents, intent, part());
        }
        if let Some(charge) = self.charge.id() {
            event.add_part(Table::Charges, charge, part());
            event.add_part(Table::PaymentAttempts, charge, part());
        }
    }
}

fn record(
    event: &mut Event,
    payment: &Payment,
    invoice: Option<&str>,
    seen: impl Fn(&Event, &str) -> Seen,
) -> Result<(), DecodeError> {
    let invoice_id = event.required("data.object.invoice", payment.invoice.id().or(invoice))?;
    let currency: Option<Currency> = event.currency("data.object.currency", payment.currency.get())?;
    let by = payment.payment.get().cloned().unwrap_or_default();
    let id = event.required("data.object.payment", by.id(invoice_id))?;
    let created_at = payment.created.seconds();
    by.belongs_to(event, invoice_id, created_at);
    let status = payment.status.get().unwrap_or("unknown");
    let paid_at = payment.status_transitions.get().and_then(|t| t.paid_at.seconds());
    let row = rows::InvoicePayment {
        invoice_payment_id: id.clone(),
        invoice_id: invoice_id.to_owned(),
        payment_intent_id: by.payment_intent.id_owned(),
        charge_id: by.charge.id_owned(),
        created_at,
        status: status.to_owned(),
        amount_paid: event.amount("data.object.amount_paid", &payment.amount_paid)?,
        currency: event.required("data.object.currency", currency)?,
        paid_at,
        order_ambiguous: false,
    };
    let step = Step { settled: u8::from(matches!(status, "paid" | "canceled")), phase: 1, ..Step::default() };
    let mut marks = shown(event, (status == "paid").then_some(Mark::Succeeded).into_iter());
    marks.extend(event.unborn(&payment.created));
    let (table, seen) = (Table::InvoicePayments, seen(event, &id));
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row: row.into() });
    Ok(())
}
