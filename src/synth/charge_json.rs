//! Charges, and what follows them: refunds and disputes, as Stripe's webhooks send them.
//!
//! The order of keys is Stripe's, roughly: nothing may rely on it.

use super::{
    balance::Movement,
    people::{Card, Person},
    sale::{Charge, Dispute, Method, Refund, ThreeDs, Verdict},
    shape::{Shape, Slot},
    stripe_json::{Version, billing, metadata, shape, shipping},
};

shape!(CHARGE, "shapes/charge.json");
shape!(CHARGE_OLD, "shapes/charge_2022.json");
shape!(OUTCOME, "shapes/outcome.json");
shape!(CARD, "shapes/card.json");
shape!(THREE_DS, "shapes/three_d_secure.json");
shape!(PAYPAL, "shapes/paypal.json");
shape!(DEBIT, "shapes/sepa_debit.json");
shape!(REFUND, "shapes/refund.json");
shape!(DISPUTE, "shapes/dispute.json");

pub(super) fn charge(person: &Person, of: &Charge, out: &mut Vec<u8>, version: Version) {
    let shape: &Shape = if version == Version::Old { &CHARGE_OLD } else { &CHARGE };
    let failure = match of.verdict {
        Verdict::Declined(decline) => Some((decline.failure, decline.message)),
        Verdict::Blocked(_) | Verdict::Invalid => Some(("card_declined", "Your card was declined.")),
        Verdict::Authorised | Verdict::Pending => None,
    };
    let receipt = failure.is_none().then(|| format!("https://pay.stripe.com/receipts/payment/{}", of.id));
    let write_shipping = |out: &mut Vec<u8>| shipping(person, out);
    shape.fill(
        &[
            ("id", (&of.id).into()),
            ("amount", of.amount.into()),
            ("amount_captured", of.amount_captured().into()),
            ("amount_refunded", of.refunded.into()),
            ("balance_transaction", of.balance.as_ref().into()),
            ("billing_details", Slot::Write(&|out| billing(person, &of.email, out))),
            ("captured", of.captured.into()),
            ("created", of.created.into()),
            ("currency", of.currency.into()),
            ("customer", of.customer.as_ref().into()),
            ("description", of.description().into()),
            ("disputed", of.disputed.into()),
            ("failure_code", failure.map(|f| f.0).into()),
            ("failure_message", failure.map(|f| f.1).into()),
            ("invoice", of.invoice.as_ref().into()),
            ("livemode", of.live.into()),
            ("metadata", Slot::Write(&|out| metadata(&of.order, out))),
            ("outcome", Slot::Write(&|out| outcome(of, out))),
            ("paid", (of.verdict == Verdict::Authorised).into()),
            ("payment_intent", of.intent.as_ref().into()),
            ("payment_method", (&of.method_id).into()),
            ("payment_method_details", Slot::Write(&|out| method_details(person, of, out))),
            ("receipt_email", of.customer.is_none().then_some(&of.email).into()),
            ("receipt_url", receipt.as_ref().into()),
            ("refunded", (of.refunded > 0 && of.refunded == of.amount).into()),
            ("refunds", Slot::Write(&|out| refunds(of, &of.refunds, out))),
            ("refund_count", i64::try_from(of.refunds.len()).unwrap_or_default().into()),
            ("shipping", if of.invoice.is_some() { Slot::Null } else { Slot::Write(&write_shipping) }),
            ("status", of.status().into()),
        ],
        out,
    );
}

fn outcome(of: &Charge, out: &mut Vec<u8>) {
    let (kind, network, reason, message) = match of.verdict {
        Verdict::Authorised | Verdict::Pending => ("authorized", "approved_by_network", None, "Payment complete."),
        Verdict::Declined(decline) => ("issuer_declined", "declined_by_network", Some(decline.code), decline.message),
        Verdict::Blocked(reason) => {
            ("blocked", "not_sent_to_network", Some(reason), "Stripe blocked this payment as too risky.")
        }
        Verdict::Invalid => ("invalid", "not_sent_to_network", None, "The payment could not be sent to the network."),
    };
    let decline = of.decline();
    OUTCOME.fill(
        &[
            ("advice_code", decline.and_then(|d| d.advice).into()),
            ("network_decline_code", decline.map(|d| d.network).filter(|c| !c.is_empty()).into()),
            ("network_status", network.into()),
            ("reason", reason.into()),
            ("risk_level", of.risk_level().into()),
            ("risk_score", of.risk.into()),
            ("seller_message", message.into()),
            ("type", kind.into()),
        ],
        out,
    );
}

fn method_details(person: &Person, of: &Charge, out: &mut Vec<u8>) {
    match &of.method {
        Method::Card { card, wallet } => card_details(card, *wallet, of, out),
        Method::PayPal => PAYPAL.fill(
            &[
                ("country", person.country.code.into()),
                ("payer_email", (&of.email).into()),
                ("payer_id", of.method_id.get(4..17).into()),
                ("payer_name", (&person.name).into()),
                ("transaction_id", (of.verdict == Verdict::Authorised).then(|| &of.id[3..20]).into()),
            ],
            out,
        ),
        Method::Debit { last4 } => DEBIT.fill(
            &[
                ("country", person.country.code.into()),
                ("fingerprint", person.customer.get(4..).into()),
                ("last4", last4.into()),
                ("mandate", of.method_id.replace("pm_", "mandate_").as_str().into()),
            ],
            out,
        ),
    }
}

fn card_details(card: &Card, kind: Option<&'static str>, of: &Charge, out: &mut Vec<u8>) {
    let authorised = of.verdict == Verdict::Authorised;
    let asked = !matches!(of.verdict, Verdict::Blocked(_) | Verdict::Invalid);
    let cvc = match of.decline().map(|d| d.code) {
        Some("incorrect_cvc") => Some("fail"),
        _ if !asked || of.invoice.is_some() => None,
        _ => Some("pass"),
    };
    let postal = match of.decline().map(|d| d.code) {
        Some("incorrect_zip") => Some("fail"),
        _ => asked.then_some("pass"),
    };
    let write_three_ds = |out: &mut Vec<u8>| of.three_ds.iter().for_each(|t| three_ds(*t, of, out));
    CARD.fill(
        &[
            ("amount_authorized", authorised.then_some(of.amount).into()),
            ("authorization_code", authorised.then(|| &of.id[3..9]).into()),
            ("brand", card.brand.into()),
            ("postal_check", postal.into()),
            ("cvc_check", cvc.into()),
            ("country", card.country.into()),
            ("exp_month", card.month.into()),
            ("exp_year", card.year.into()),
            ("fingerprint", (&card.fingerprint).into()),
            ("funding", card.funding.into()),
            ("last4", (&card.last4).into()),
            ("network_token", kind.is_some().into()),
            ("network_transaction_id", asked.then(|| &of.id[5..20]).into()),
            ("overcapture", of.amount.into()),
            ("three_d_secure", if of.three_ds.is_some() { Slot::Write(&write_three_ds) } else { Slot::Null }),
            ("wallet", Slot::Write(&|out| wallet(kind, out))),
        ],
        out,
    );
}

fn three_ds(how: ThreeDs, of: &Charge, out: &mut Vec<u8>) {
    THREE_DS.fill(
        &[
            ("flow", how.flow.into()),
            ("indicator", how.indicator.into()),
            ("exemption", (how == ThreeDs::EXEMPTED).then_some("low_risk").into()),
            ("result", how.result.into()),
            ("reason", (how == ThreeDs::BROKEN).then_some("protocol_error").into()),
            ("transaction_id", of.id.get(3..).into()),
        ],
        out,
    );
}

pub(super) fn wallet(kind: Option<&'static str>, out: &mut Vec<u8>) {
    let Some(kind) = kind else { return Slot::Null.write(out) };
    out.extend_from_slice(format!(r#"{{"{kind}":{{}},"dynamic_last4":null,"type":"{kind}"}}"#).as_bytes());
}

/// Refunds of a charge, the newest first.
pub(super) fn refunds(of: &Charge, these: &[Refund], out: &mut Vec<u8>) {
    for (n, one) in these.iter().rev().enumerate() {
        out.extend_from_slice(if n == 0 { b"" } else { b"," });
        refund(of, one, out);
    }
}

pub(super) fn refund(of: &Charge, one: &Refund, out: &mut Vec<u8>) {
    let failure =
        one.failure.map(|f| format!(r#""failure_balance_transaction":"{}f","failure_reason":"{f}","#, one.balance));
    let destination = match (&of.method, one.settled) {
        (Method::Card { .. }, true) => {
            r#"{"card":{"reference":"123456789012","reference_status":"available","reference_type":"acquirer_reference_number","type":"refund"},"type":"card"}"#
        }
        (Method::Card { .. }, false) => {
            r#"{"card":{"reference_status":"pending","reference_type":"acquirer_reference_number","type":"refund"},"type":"card"}"#
        }
        (Method::PayPal, _) => r#"{"paypal":{"reference":null,"reference_status":null},"type":"paypal"}"#,
        (Method::Debit { .. }, _) => r#"{"sepa_bank_transfer":{},"type":"sepa_bank_transfer"}"#,
    };
    REFUND.fill(
        &[
            ("id", (&one.id).into()),
            ("amount", one.amount.into()),
            ("balance_transaction", (&one.balance).into()),
            ("charge", (&of.id).into()),
            ("created", one.created.into()),
            ("currency", of.currency.into()),
            ("customer", of.customer.as_ref().into()),
            ("destination", Slot::Json(destination)),
            ("failure", Slot::Json(failure.as_deref().unwrap_or_default())),
            ("payment_intent", of.intent.as_ref().into()),
            ("payment_method", (&of.method_id).into()),
            ("reason", one.reason.into()),
            ("status", one.status.into()),
        ],
        out,
    );
}

/// What a dispute takes, with its fee.
pub(super) fn withdrawal(of: &Charge, one: &Dispute) -> Movement {
    let Charge { amount, currency, live, .. } = *of;
    let (id, source, created) = (one.balance.clone(), one.id.clone(), one.created);
    let (kind, category) = ("adjustment", "dispute");
    let taken =
        Movement { id, kind, category, source, amount: -amount, fee: 1500, currency, rate: None, live, created };
    taken.converted(created)
}

/// What comes back of one that is won. The fee stays.
pub(super) fn reinstatement(of: &Charge, one: &Dispute) -> Option<Movement> {
    let (id, taken) = (one.reinstated.clone()?, withdrawal(of, one));
    Some(Movement { id, category: "dispute_reversal", amount: -taken.amount, fee: 0, ..taken })
}

pub(super) fn dispute(person: &Person, of: &Charge, one: &Dispute, out: &mut Vec<u8>) {
    let mut movements = Vec::new();
    if one.withdrawn {
        withdrawal(of, one).write(&mut movements);
    }
    if let Some(back) = reinstatement(of, one) {
        movements.push(b',');
        back.write(&mut movements);
    }
    let movements = String::from_utf8(movements).unwrap_or_default();
    let brand = if let Method::Card { card, .. } = &of.method { card.brand } else { "visa" };
    DISPUTE.fill(
        &[
            ("id", (&one.id).into()),
            ("amount", of.amount.into()),
            ("balance_transactions", Slot::Json(&movements)),
            ("charge", (&of.id).into()),
            ("created", one.created.into()),
            ("currency", of.currency.into()),
            ("customer_email_address", (&of.email).into()),
            ("customer_name", (&person.name).into()),
            ("customer_purchase_ip", (&person.ip).into()),
            ("due_by", (one.created + 7 * 86_400).into()),
            ("has_evidence", one.answered.into()),
            ("submissions", i64::from(one.answered).into()),
            ("refundable", one.status.starts_with("warning").into()),
            ("livemode", of.live.into()),
            ("payment_intent", of.intent.as_ref().into()),
            ("brand", brand.into()),
            ("case_type", if one.status.starts_with("warning") { "inquiry" } else { "chargeback" }.into()),
            ("network_reason_code", if one.reason == "fraudulent" { "10.4" } else { "13.1" }.into()),
            ("reason", one.reason.into()),
            ("status", one.status.into()),
        ],
        out,
    );
}
