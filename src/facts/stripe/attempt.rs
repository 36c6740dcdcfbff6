//! Payment attempts: from charges, and from what an intent tells of a failure for which there is no charge.
//!
//! An attempt's id is its charge's. A failed authentication has no charge: its id is the intent's with the request's,
//! which is new for each try; where there was no request, with the digest of what the event says, so that twins are
//! one.

use super::{
    DecodeError, Event, Mark, Message, Part, Saw, Seen, Step, Table,
    charge::{Charge, Payment},
    intent::Intent,
    parts::{Billing, Card},
    verdict::Evidence,
};
use crate::{
    base::Currency,
    facts::{
        json::{Maybe, OnlyId, Reference, Text, object},
        observation::{Fact, Failure, UNDATED},
        rows::PaymentAttempt,
    },
};

object! {
    /// `last_payment_error`.
    #[derive(Clone)]
    pub(super) struct PaymentError<'a> {
        kind: Text<'a> = "type",
        code: Text<'a>,
        decline_code: Text<'a>,
        charge: Reference<'a, OnlyId<'a>>,
        advice_code: Text<'a>,
        network_advice_code: Text<'a>,
        network_decline_code: Text<'a>,
        payment_method: Maybe<Method<'a>>,
        source: Maybe<Card<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct Method<'a> {
        kind: Text<'a> = "type",
        card: Maybe<Card<'a>>,
        billing_details: Maybe<Billing<'a>>,
    }
}

pub(super) fn of_charge(event: &Event, charge: &Charge, payment: &Payment, id: &str) -> PaymentAttempt {
    let details = charge.payment_method_details.get();
    let source = charge.source.get();
    let card = details.and_then(|d| d.card()).or(source.and_then(Card::card)).or(charge.card.get());
    let method = details.and_then(|d| d.kind.owned()).or_else(|| source.and_then(Card::method));
    let method = method.or_else(|| charge.card.get().map(|_| "card".to_owned()));
    let outcome = charge.outcome.get();
    let three_ds = card.and_then(Card::three_ds);
    let evidence = Evidence {
        status: Some(charge.status()),
        outcome_type: outcome.and_then(|o| o.kind.get()),
        outcome_reason: outcome.and_then(|o| o.reason.get()),
        failure_code: charge.failure_code.get(),
        network_status: outcome.and_then(|o| o.network_status.get()),
        advice_code: outcome.and_then(|o| o.advice_code.get()),
        network_advice_code: outcome.and_then(|o| o.network_advice_code.get()),
        three_ds_result: three_ds.and_then(|t| t.result()),
        payment_method_type: method.as_deref(),
        ..Evidence::default()
    };
    let ip = charge.metadata.get().and_then(|m| m.ip.get().or(m.ip_address.get()));
    let mut row = blank(id, payment.amount, payment.currency, evidence);
    row.payment_intent_id = charge.payment_intent.id_owned();
    row.charge_id = Some(id.to_owned());
    row.invoice_id = charge.invoice.id_owned();
    row.created_at = charge.created_at();
    row.network_decline_code = outcome.and_then(|o| o.network_decline_code.owned());
    row.risk_level = outcome.and_then(|o| o.risk_level.owned());
    row.risk_score = outcome.and_then(|o| o.risk_score.0);
    describe_card(&mut row, card);
    row.customer_id.clone_from(&payment.customer_id);
    row.person_id = payment.person.clone().map(|(_, person)| person);
    row.email_hash.clone_from(&payment.email_hash);
    row.phone_hash.clone_from(&payment.phone_hash);
    row.billing_country.clone_from(&payment.billing_country);
    row.ip_hash = event.ip_hash(ip);
    row
}

/// What an intent's event tells of its attempts beyond the charges it carries.
pub(super) fn of_intent(
    event: &mut Event,
    message: &Message<Intent>,
    amount: i64,
    currency: Currency,
) -> Result<(), DecodeError> {
    let intent = &message.object;
    let intent_id = event.required("data.object.id", intent.id.get())?;
    if event.kind() == "payment_intent.payment_failed" {
        if let Some(error) = intent.last_payment_error.get() {
            failed(event, message, error, amount, currency)?;
        }
        return Ok(());
    }
    let Some(charge) = intent.latest_charge.id() else { return Ok(()) };
    // Of any other event the last error may be an older attempt's, and the latest charge too, unless it was paid by it.
    let fact = Fact::Attempt { whole: false, failure: None, country: None, person: None };
    // An answer of the API comes any time after.
    let at = if event.is_fetched() { UNDATED } else { event.at() };
    event.add_part(Table::PaymentIntents, intent_id, Part { id: charge.to_owned(), at, fact });
    if matches!(intent.status.get(), Some("succeeded" | "requires_capture")) {
        let evidence = Evidence { status: Some("succeeded"), ..Evidence::default() };
        let mut row = blank(charge, amount, currency, evidence);
        row.payment_intent_id = Some(intent_id.to_owned());
        row.charge_id = Some(charge.to_owned());
        row.payment_method_type = intent.only_method();
        describe_payer(event, &mut row, intent, None);
        hint(event, row);
    }
    Ok(())
}

fn failed(
    event: &mut Event,
    message: &Message<Intent>,
    error: &PaymentError,
    amount: i64,
    currency: Currency,
) -> Result<(), DecodeError> {
    let intent = &message.object;
    let intent_id = event.required("data.object.id", intent.id.get())?;
    let method = error.payment_method.get();
    let card = method.and_then(|m| m.card.get()).or(error.source.get().and_then(Card::card));
    let method_type = method.and_then(|m| m.kind.owned()).or_else(|| error.source.get().and_then(Card::method));
    let evidence = Evidence {
        status: Some("failed"),
        failure_code: error.code.get(),
        decline_code: error.decline_code.get(),
        error_type: error.kind.get(),
        advice_code: error.advice_code.get(),
        network_advice_code: error.network_advice_code.get(),
        payment_method_type: method_type.as_deref(),
        ..Evidence::default()
    };
    let charge = error.charge(intent, evidence.verdict().outcome);
    let id = match (charge, message.request.id()) {
        (Some(charge), _) => charge.to_owned(),
        (None, Some(request)) => format!("{intent_id}:{request}"),
        (None, None) => format!("{intent_id}:{}", event.envelope.digest),
    };
    let mut row = blank(&id, amount, currency, evidence);
    row.payment_intent_id = Some(intent_id.to_owned());
    row.charge_id = charge.map(str::to_owned);
    row.invoice_id = intent.invoice.id_owned();
    row.network_decline_code = error.network_decline_code.owned();
    describe_card(&mut row, card);
    if row.outcome == "auth_failed" && row.three_ds_result.is_none() {
        row.three_ds_result = Some("failed".to_owned());
    }
    let billing = method.and_then(|m| m.billing_details.get());
    let person = describe_payer(event, &mut row, intent, billing);
    let country = row.billing_country.clone().or(row.card_country.clone());
    let fact = Fact::Attempt { whole: false, failure: failure(&row), country, person };
    event.add_part(Table::PaymentIntents, intent_id, Part { id, at: event.at(), fact });
    hint(event, row);
    Ok(())
}

impl PaymentError<'_> {
    /// The failed charge. A soft decline names none though it is the intent's latest; a failed authentication made
    /// none, and the latest is an older attempt's.
    fn charge<'b>(&'b self, intent: &'b Intent, outcome: &str) -> Option<&'b str> {
        let latest = || intent.latest_charge.id().filter(|_| self.kind.is("card_error") && outcome != "auth_failed");
        self.charge.id().or_else(latest)
    }
}

/// What the intent keeps of a failed attempt.
pub(super) fn failure(row: &PaymentAttempt) -> Option<Failure> {
    let failed = !matches!(row.outcome.as_str(), "authorised" | "pending");
    failed.then(|| Failure { code: row.failure_code.clone(), decline_code: row.decline_code.clone() })
}

fn hint(event: &mut Event, row: PaymentAttempt) {
    let (id, table) = (row.attempt_id.clone(), Table::PaymentAttempts);
    let step = Step { settled: 1, phase: 1, ..Step::default() };
    let marks = vec![(Mark::Seen, event.at())];
    let seen = Seen::hint(event, &id);
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row: row.into() });
}

fn describe_payer(
    event: &mut Event,
    row: &mut PaymentAttempt,
    intent: &Intent,
    billing: Option<&Billing>,
) -> Option<(u8, crate::base::PersonId)> {
    let mut someone = event.someone();
    row.billing_country = someone.lives_in(billing.and_then(Billing::country));
    row.email_hash = someone.email(billing.and_then(|b| b.email.get()).or(intent.receipt_email.get()));
    row.phone_hash = someone.phone(billing.and_then(|b| b.phone.get()), row.billing_country.as_deref());
    intent.name_payer(&mut someone);
    someone.named(billing.and_then(|b| b.name.get()));
    row.customer_id = intent.customer.id_owned();
    row.person_id = someone.person();
    let person = someone.ranked();
    event.keep(someone);
    person
}

fn describe_card(row: &mut PaymentAttempt, card: Option<&Card>) {
    let Some(card) = card else { return };
    row.wallet = card.wallet();
    row.card_brand = card.brand();
    row.card_country = card.country.owned();
    row.card_fingerprint = card.fingerprint.owned();
    row.card_funding = card.funding.owned();
    row.card_bin = card.iin.owned();
    row.card_last4 = card.last4.owned();
    row.cvc_check = card.cvc_check();
    row.postal_code_check = card.postal_code_check();
    row.address_check = card.address_check();
    if let Some(three_ds) = card.three_ds() {
        row.three_ds_result = three_ds.result().map(str::to_owned);
        row.three_ds_reason = three_ds.result_reason.owned();
        row.three_ds_flow = three_ds.authentication_flow.owned();
        row.three_ds_eci = three_ds.electronic_commerce_indicator.owned();
        row.three_ds_exemption = three_ds.exemption_indicator.owned();
    }
}

fn blank(id: &str, amount: i64, currency: Currency, evidence: Evidence) -> PaymentAttempt {
    let verdict = evidence.verdict();
    let owned = |text: Option<&str>| text.map(str::to_owned);
    PaymentAttempt {
        attempt_id: id.to_owned(),
        payment_intent_id: None,
        charge_id: None,
        invoice_id: None,
        attempt_no: None,
        created_at: None,
        amount,
        currency,
        outcome: verdict.outcome.to_owned(),
        failure_code: owned(evidence.failure_code),
        decline_code: verdict.decline_code,
        category: verdict.category,
        retry_advice: verdict.retry_advice,
        is_technical: verdict.is_technical,
        network_status: owned(evidence.network_status),
        advice_code: owned(evidence.advice_code),
        network_advice_code: owned(evidence.network_advice_code),
        network_decline_code: None,
        risk_level: None,
        risk_score: None,
        payment_method_type: owned(evidence.payment_method_type),
        wallet: None,
        card_brand: None,
        card_country: None,
        card_fingerprint: None,
        card_funding: None,
        card_bin: None,
        card_last4: None,
        cvc_check: None,
        postal_code_check: None,
        address_check: None,
        three_ds_result: None,
        three_ds_reason: None,
        three_ds_flow: None,
        three_ds_eci: None,
        three_ds_exemption: None,
        is_off_session: None,
        customer_id: None,
        person_id: None,
        email_hash: None,
        phone_hash: None,
        ip_hash: None,
        billing_country: None,
        order_ambiguous: false,
    }
}
