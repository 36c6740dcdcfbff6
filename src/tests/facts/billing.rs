//! Invoices and subscriptions: what is due, what was paid, and what it brings a month.

use serde_json::{Value, json};

use super::{event, fold, loaded, rows, seconds};
use crate::{
    facts::{Row, Table, Want, rows},
    tests::facts::only,
};

fn all(events: &[Value]) -> Vec<Row> {
    rows(&fold(events)).into_values().collect()
}

fn invoice(id: &str, kind: &str, at: i64, status: &str, attempts: i64) -> Value {
    let paid = status == "paid";
    let object = json!({"id": "in_1", "object": "invoice", "amount_due": 1200, "amount_paid": if paid { 1200 } else { 0 },
        "amount_remaining": if paid { 0 } else { 1200 }, "attempt_count": attempts, "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically", "created": 1_700_000_000, "currency": "eur", "customer": "cus_1",
        "parent": {"subscription_details": {"subscription": "sub_1"}}, "status": status, "total": 1200,
        "total_excluding_tax": 1000, "total_taxes": [{"amount": 200, "tax_behavior": "exclusive"}],
        "status_transitions": {"finalized_at": if status == "draft" { Value::Null } else { json!(1_700_003_600) },
            "paid_at": if paid { json!(at) } else { Value::Null }}});
    event(id, kind, at, json!({"object": object}))
}

#[test]
fn an_invoice_that_failed_and_was_paid_is_recovered() {
    let events = [
        invoice("evt_1", "invoice.created", 1_700_000_000, "draft", 0),
        invoice("evt_2", "invoice.finalized", 1_700_003_600, "open", 0),
        invoice("evt_3", "invoice.payment_failed", 1_700_003_600, "open", 1),
        invoice("evt_4", "invoice.paid", 1_700_200_000, "paid", 2),
        invoice("evt_5", "invoice.payment_succeeded", 1_700_200_000, "paid", 2),
        // Long after, with nothing new: it stays paid.
        invoice("evt_6", "invoice.updated", 1_700_300_000, "open", 2),
    ];
    for turn in 0..events.len() {
        let mut turned = events.to_vec();
        turned.rotate_left(turn);
        let row = only!(all(&turned), Invoice);
        assert_eq!((row.status.as_str(), row.attempt_count, row.order_ambiguous), ("paid", Some(2), false));
        assert_eq!(
            (row.first_failed_at, row.finalized_at),
            (Some(seconds(1_700_003_600)), Some(seconds(1_700_003_600)))
        );
        assert_eq!((row.paid_at, row.recovered_at), (Some(seconds(1_700_200_000)), Some(seconds(1_700_200_000))));
        assert_eq!((row.amount_due, row.amount_paid, row.amount_remaining), (Some(1200), Some(1200), Some(0)));
        assert_eq!((row.total_excl_tax, row.total_tax), (Some(1000), Some(200)));
        assert_eq!(row.subscription_id.as_deref(), Some("sub_1"));
    }
    let never_failed = only!(all(&events[3..4]), Invoice);
    assert_eq!((never_failed.first_failed_at, never_failed.recovered_at), (None, None));
}

#[test]
fn what_is_to_come_is_no_invoice_and_what_was_deleted_is_none_any_more() {
    let mut upcoming = invoice("evt_1", "invoice.upcoming", 1_700_000_000, "draft", 0);
    upcoming["data"]["object"].as_object_mut().unwrap().remove("id");
    assert!(all(&[upcoming]).is_empty());
    let deleted = [
        invoice("evt_3", "invoice.deleted", 1_700_000_500, "draft", 0),
        invoice("evt_2", "invoice.updated", 1_700_000_600, "draft", 0),
    ];
    assert_eq!(only!(all(&deleted), Invoice).status, "deleted");
}

#[test]
fn an_invoice_of_the_years_without_a_status_has_one() {
    let of = |fields: Value| {
        let mut object = json!({"id": "in_1", "object": "invoice", "amount_due": 1000, "attempted": false, "closed": false,
            "forgiven": false, "paid": false, "currency": "usd", "customer": "cus_1", "date": 1_400_000_000,
            "subscription": "sub_1", "total": 1000, "tax": null});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        only!(all(&[event("evt_1", "invoice.updated", 1_400_000_100, json!({"object": object}))]), Invoice)
    };
    assert_eq!(of(json!({})).status, "draft");
    assert_eq!(of(json!({"attempted": true})).status, "open");
    assert_eq!(of(json!({"closed": true})).status, "void");
    assert_eq!(of(json!({"closed": true, "forgiven": true})).status, "uncollectible");
    let paid = of(json!({"closed": true, "paid": true}));
    assert_eq!((paid.status.as_str(), paid.amount_paid, paid.amount_remaining), ("paid", Some(1000), Some(0)));
    assert_eq!((paid.created_at, paid.subscription_id.as_deref()), (Some(seconds(1_400_000_000)), Some("sub_1")));
}

#[test]
fn taxes_are_told_by_line_or_of_the_whole_where_lines_are_missing() {
    let tax = |amount: i64, taxable: i64| {
        json!({"amount": amount, "taxable_amount": taxable, "tax_behavior": "exclusive",
            "taxability_reason": "standard_rated", "tax_rate_details": {"tax_rate": "txr_1"}})
    };
    let of = |more: bool| {
        let mut event = invoice("evt_1", "invoice.finalized", 1_700_003_600, "open", 0);
        let object = &mut event["data"]["object"];
        object["default_tax_rates"] = json!([{"id": "txr_1", "jurisdiction": "DE", "percentage": 19.5}]);
        object["lines"] = json!({"object": "list", "has_more": more,
            "data": [{"id": "il_1", "taxes": [tax(150, 750)]}, {"id": "il_2", "taxes": [tax(50, 250)]}]});
        object["total_taxes"] = json!([tax(200, 1000)]);
        let taxes = only!(all(&[event]), Invoice).taxes.unwrap();
        serde_json::from_str::<Value>(&taxes).unwrap()
    };
    let one = json!({"line": "il_1", "tax_rate_id": "txr_1", "jurisdiction": "DE", "rate": "19.5", "taxable_amount": 750,
        "tax": 150, "behavior": "exclusive", "taxability_reason": "standard_rated"});
    assert_eq!(of(false)[0], one);
    assert_eq!((of(false)[1]["line"].as_str(), of(false)[1]["tax"].as_i64()), (Some("il_2"), Some(50)));
    // The first lines of many would not add up.
    let whole = of(true);
    assert_eq!((whole.as_array().unwrap().len(), &whole[0]["line"], &whole[0]["tax"]), (1, &Value::Null, &json!(200)));
}

#[test]
fn an_invoices_payment_is_one_row_however_it_is_told() {
    // Told by the invoice, as before basil, and by an object of its own, as since: an account was upgraded meanwhile.
    let mut old = invoice("evt_1", "invoice.paid", 1_700_200_000, "paid", 1);
    old["data"]["object"]["payment_intent"] = json!("pi_1");
    old["data"]["object"]["charge"] = json!("ch_1");
    let new = event(
        "evt_2",
        "invoice_payment.paid",
        1_700_200_000,
        json!({"object": {"id": "inpay_1", "object": "invoice_payment", "amount_paid": 1200, "amount_requested": 1200,
            "created": 1_700_003_600, "currency": "eur", "invoice": "in_1", "status": "paid",
            "payment": {"type": "payment_intent", "payment_intent": "pi_1"},
            "status_transitions": {"paid_at": 1_700_200_000}}}),
    );
    let wanted = rows::InvoicePayment {
        invoice_payment_id: "in_1:pi_1".to_owned(),
        invoice_id: "in_1".to_owned(),
        payment_intent_id: Some("pi_1".to_owned()),
        charge_id: None,
        created_at: Some(seconds(1_700_003_600)),
        status: "paid".to_owned(),
        amount_paid: Some(1200),
        currency: crate::base::Currency::parse("eur").unwrap(),
        paid_at: Some(seconds(1_700_200_000)),
        order_ambiguous: false,
    };
    for events in [vec![old.clone()], vec![new.clone()], vec![old.clone(), new.clone()], vec![new, old]] {
        assert_eq!(only!(all(&events), InvoicePayment), wanted);
    }
}

#[test]
fn a_payments_invoice_is_known_whichever_of_the_three_comes_first() {
    let intent = event(
        "evt_1",
        "payment_intent.succeeded",
        1_700_200_000,
        json!({"object": {"id": "pi_1", "object": "payment_intent", "amount": 1200, "currency": "eur",
            "status": "succeeded", "created": 1_700_003_600, "latest_charge": "ch_1"}}),
    );
    let charge = event(
        "evt_2",
        "charge.succeeded",
        1_700_200_000,
        json!({"object": {"id": "ch_1", "object": "charge", "amount": 1200, "currency": "eur", "captured": true,
            "status": "succeeded", "created": 1_700_200_000, "payment_intent": "pi_1"}}),
    );
    let payment = event(
        "evt_3",
        "invoice_payment.paid",
        1_700_200_001,
        json!({"object": {"id": "inpay_1", "object": "invoice_payment", "amount_paid": 1200, "created": 1_700_003_600,
            "currency": "eur", "invoice": "in_1", "status": "paid", "payment": {"payment_intent": "pi_1"}}}),
    );
    let events = [intent, charge, payment];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let found: Vec<Row> = loaded(order.map(|i| &events[i])).into_values().collect();
        assert_eq!(only!(found, PaymentIntent).invoice_id.as_deref(), Some("in_1"), "{order:?}");
        assert_eq!(only!(found, Charge).invoice_id.as_deref(), Some("in_1"), "{order:?}");
        assert_eq!(only!(found, PaymentAttempt).invoice_id.as_deref(), Some("in_1"), "{order:?}");
    }
}

fn subscription(id: &str, kind: &str, at: i64, status: &str, fields: Value) -> Value {
    let mut object = json!({"id": "sub_1", "object": "subscription", "created": 1_700_000_000, "currency": "usd",
        "customer": "cus_1", "status": status, "cancel_at_period_end": false, "discounts": [],
        "items": {"data": [{"id": "si_1", "quantity": 1, "current_period_start": 1_700_000_000,
            "current_period_end": 1_702_592_000, "price": {"id": "price_1", "product": "prod_1", "currency": "usd",
                "unit_amount": 1000, "recurring": {"interval": "month", "interval_count": 1}}}]}});
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    event(id, &format!("customer.subscription.{kind}"), at, json!({"object": object}))
}

fn priced(amount: i64, interval: &str, count: i64, quantity: i64) -> Value {
    json!({"data": [{"id": "si_1", "quantity": quantity, "price": {"id": "price_1", "currency": "usd",
        "unit_amount": amount, "recurring": {"interval": interval, "interval_count": count}}}]})
}

fn brings(status: &str, fields: Value) -> i64 {
    mrr(status, fields).unwrap()
}

fn mrr(status: &str, fields: Value) -> Option<i64> {
    only!(all(&[subscription("evt_1", "updated", 1_700_000_500, status, fields)]), Subscription).mrr_micros
}

#[test]
fn revenue_is_a_months_share_of_every_interval() {
    for (items, wanted) in [
        (priced(1000, "month", 1, 1), 10_000_000),
        (priced(1000, "month", 3, 1), 3_333_333),
        (priced(1000, "year", 1, 2), 1_666_667),
        (priced(1200, "week", 1, 1), 52_000_000),
        (priced(1200, "week", 2, 1), 26_000_000),
        (priced(12, "day", 1, 1), 3_650_000),
        (priced(1000, "fortnight", 1, 1), 0),
    ] {
        assert_eq!(brings("active", json!({"items": items})), wanted, "{items}");
    }
    // Yen have no minor unit, and prices may be finer than one.
    let fine = json!({"data": [{"price": {"currency": "jpy", "unit_amount": null, "unit_amount_decimal": "0.25",
        "recurring": {"interval": "month"}}, "quantity": 3}]});
    assert_eq!(brings("active", json!({"items": fine, "currency": "jpy"})), 750_000);
    let metered = json!({"data": [{"price": {"unit_amount": 1000, "currency": "usd",
        "recurring": {"interval": "month", "usage_type": "metered"}}}]});
    assert_eq!(brings("active", json!({"items": metered})), 0);
    // Priced by the ten, begun or whole.
    for (round, wanted) in [("up", 30_000_000), ("down", 20_000_000)] {
        let tens = json!({"divide_by": 10, "round": round});
        let items = json!({"data": [{"id": "si_1", "quantity": 25, "price": {"id": "price_1", "currency": "usd",
            "unit_amount": 1000, "recurring": {"interval": "month"}, "transform_quantity": tens}}]});
        assert_eq!(brings("active", json!({"items": items})), wanted, "{round}");
    }
    // A plan alone is what there was before there were items.
    let plan = json!({"items": null, "quantity": 3, "plan": {"id": "plan_1", "amount": 500, "currency": "usd", "interval": "month"}});
    assert_eq!(brings("active", plan), 15_000_000);
}

#[test]
fn what_nothing_says_the_price_of_brings_nobody_knows_what() {
    let tiers = |decimal: Value| {
        json!({"data": [{"id": "si_1", "quantity": 2, "price": {"id": "price_1", "currency": "usd", "billing_scheme": "tiered",
            "unit_amount": null, "unit_amount_decimal": decimal, "recurring": {"interval": "month"}}}]})
    };
    let mut more = priced(1000, "month", 1, 1);
    more["has_more"] = json!(true);
    for items in [tiers(Value::Null), tiers(json!("abc")), more] {
        assert_eq!(mrr("active", json!({"items": items.clone()})), None, "{items}");
        assert_eq!(mrr("trialing", json!({"items": items})), Some(0));
    }
    assert_eq!(mrr("active", json!({"items": tiers(json!("150"))})), Some(3_000_000));
}

#[test]
fn only_what_is_running_brings_revenue() {
    for (status, wanted) in [
        ("active", 10_000_000),
        ("past_due", 10_000_000),
        ("trialing", 0),
        ("incomplete", 0),
        ("unpaid", 0),
        ("paused", 0),
        ("canceled", 0),
    ] {
        assert_eq!(brings(status, json!({})), wanted, "{status}");
    }
}

#[test]
fn discounts_that_last_lower_it_and_no_others() {
    let off = |coupon: Value, end: Value| json!({"discounts": [{"id": "di_1", "coupon": coupon, "end": end}]});
    let quarter = json!({"id": "C25", "percent_off": 25, "duration": "forever"});
    assert_eq!(brings("active", off(quarter.clone(), Value::Null)), 7_500_000);
    assert_eq!(
        brings("active", off(json!({"percent_off": 12.5, "duration": "repeating"}), json!(1_800_000_000))),
        8_750_000
    );
    assert_eq!(brings("active", off(quarter.clone(), json!(1_700_000_400))), 10_000_000);
    assert_eq!(brings("active", off(json!({"percent_off": 25, "duration": "once"}), Value::Null)), 10_000_000);
    assert_eq!(brings("active", off(json!({"amount_off": 300, "duration": "forever"}), Value::Null)), 7_000_000);
    assert_eq!(brings("active", off(json!({"amount_off": 5000, "duration": "forever"}), Value::Null)), 0);
    // In the shapes of before and after: the one of old, and the source of new.
    assert_eq!(brings("active", json!({"discount": {"id": "di_1", "coupon": quarter}})), 7_500_000);
    let source = json!({"discounts": [{"id": "di_1", "source": {"type": "coupon", "coupon": quarter}}]});
    assert_eq!(brings("active", source), 7_500_000);
}

fn wants(event: &Value) -> Vec<Want> {
    super::decoder().decode(&super::stripe_envelope(event)).unwrap().wanted
}

#[test]
fn what_a_discount_that_is_only_named_takes_off_is_wanted() {
    let items = json!({"data": [{"id": "si_1", "discounts": ["di_2"], "price": {"id": "price_1", "currency": "usd",
        "unit_amount": 1000, "recurring": {"interval": "month"}}}]});
    let named = |status| {
        let fields = json!({"discounts": ["di_1"], "items": items});
        subscription("evt_1", "updated", 1_700_000_500, status, fields)
    };
    let row = only!(all(&[named("active")]), Subscription);
    assert_eq!(row.mrr_micros, None);
    assert!(row.discounts.unwrap().contains("di_1") && row.items.contains("di_2"));
    let open = wants(&named("active"));
    let ids: Vec<_> = open.iter().map(|want| (want.key.table, want.key.id.as_str(), want.asked_for())).collect();
    let within = Some(("subscription", "sub_1"));
    assert_eq!(ids, [(Table::Discounts, "di_2", within), (Table::Discounts, "di_1", within)]);
    assert!(wants(&named("canceled")).is_empty(), "it brings nothing, whatever is taken off");
    assert_eq!(brings("canceled", json!({"discounts": ["di_1"]})), 0);

    let told = |coupon: Value| {
        event(
            "evt_2",
            "customer.discount.created",
            1_700_000_400,
            json!({"object": {"id": "di_1", "object": "discount",
            "customer": "cus_1", "subscription": "sub_1", "start": 1_700_000_400, "end": null, "source": {"coupon": coupon}}}),
        )
    };
    let folded = fold(&[told(json!("HALF"))]);
    assert!(folded.values().all(|state| state.meets(&open[1])), "the discount is known");
    let coupon = wants(&told(json!("HALF")));
    assert_eq!(coupon[0].asked_for(), Some(("coupon", "HALF")));
    let coupon_of = |events: &[Value]| only!(all(events), Coupon);
    let whole =
        json!({"id": "HALF", "object": "coupon", "percent_off": 50.0, "duration": "forever", "created": 1_600_000_000});
    assert!(wants(&told(whole.clone())).is_empty());
    let made = event("evt_3", "coupon.created", 1_600_000_000, json!({"object": whole}));
    assert_eq!(coupon_of(&[told(whole.clone())]), coupon_of(&[made]));
    assert_eq!(coupon_of(&[told(whole)]).percent_off, Some(50.0));
}

#[test]
fn a_discount_that_was_taken_away_says_when() {
    let told = |id, kind: &str, at| {
        event(
            id,
            &format!("customer.discount.{kind}"),
            at,
            json!({"object": {"id": "di_1", "object": "discount",
            "coupon": {"id": "HALF", "percent_off": 50}, "customer": "cus_1", "start": 1_700_000_000, "end": at}}),
        )
    };
    let events = [
        told("evt_1", "created", 1_700_000_000),
        told("evt_2", "deleted", 1_700_009_000),
        told("evt_3", "updated", 1_700_009_500),
    ];
    for turn in 0..events.len() {
        let mut turned = events.to_vec();
        turned.rotate_left(turn);
        let row = only!(all(&turned), Discount);
        assert_eq!((row.deleted_at, row.ends_at), (Some(seconds(1_700_009_000)), Some(seconds(1_700_009_000))));
        assert_eq!((row.created_at, row.coupon_id.as_deref()), (Some(seconds(1_700_000_000)), Some("HALF")));
    }
}

#[test]
fn more_than_can_be_counted_is_refused() {
    let wrong = subscription("evt_1", "updated", 1, "active", json!({"items": priced(i64::MAX, "day", 1, i64::MAX)}));
    let error = super::decoder().decode(&super::stripe_envelope(&wrong)).unwrap_err().to_string();
    assert!(error.contains("more a month than can be counted"), "{error}");
}

#[test]
fn a_subscription_that_is_over_stays_over_and_each_second_has_a_state() {
    let events = [
        subscription("evt_1", "created", 1_700_000_000, "incomplete", json!({})),
        subscription("evt_2", "updated", 1_700_000_000, "active", json!({})),
        subscription("evt_3", "deleted", 1_705_000_000, "canceled", json!({"ended_at": 1_705_000_000})),
        subscription("evt_4", "updated", 1_705_000_900, "active", json!({})),
    ];
    for turn in 0..events.len() {
        let mut turned = events.to_vec();
        turned.rotate_left(turn);
        let found = all(&turned);
        let row = only!(found, Subscription);
        assert_eq!((row.status.as_str(), row.mrr_micros, row.order_ambiguous), ("canceled", Some(0), false));
        assert_eq!(row.ended_at, Some(seconds(1_705_000_000)));
        let states: Vec<_> = found
            .iter()
            .filter_map(|row| match row {
                Row::SubscriptionState(state) => Some((state.at, state.status.as_str(), state.mrr_micros?)),
                _ => None,
            })
            .collect();
        let wanted = [
            (seconds(1_700_000_000), "active", 10_000_000),
            (seconds(1_705_000_000), "canceled", 0),
            (seconds(1_705_000_900), "active", 10_000_000),
        ];
        assert_eq!(states, wanted);
    }
}
