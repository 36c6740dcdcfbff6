//! The fold beside the rules that others use, on lives in which most steps share a second with another, some deliveries
//! come again and some an hour late.

use rand::{
    Rng, SeedableRng,
    seq::{IndexedRandom, SliceRandom},
};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{fold, fold::told_at, intents, rows};
use crate::facts::Row;

/// In seconds.
const DAY: f64 = 86_400.0;

/// Objects, half of them payment intents and half subscriptions, unless `TILLSTREAM_OBJECTS` asks for more.
const OBJECTS: usize = 4_000;

/// One object's events as they happened, and the status in which it ended.
struct Life {
    /// With the moment of each, in seconds and parts of them, which the event itself does not tell.
    events: Vec<(f64, Value)>,
    status: String,
}

/// By its name: whether the event that arrives replaces the one that is held, by the seconds of the two.
type Rule = (&'static str, fn(i64, i64) -> bool);

/// What a rule made of all lives of one kind.
#[derive(Default)]
struct Score {
    wrong: usize,
    /// Wrong ones that the rule does not know to be in doubt.
    unflagged: usize,
    flagged: usize,
}

impl Score {
    fn count(&mut self, is_right: bool, is_flagged: bool) {
        self.wrong += usize::from(!is_right);
        self.unflagged += usize::from(!is_right && !is_flagged);
        self.flagged += usize::from(is_flagged);
    }
}

fn exponential(rng: &mut ChaCha8Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

/// The moments of the first step and of those after it: 60% follow within some tenths of a second, the others within a minute
/// or so, and those that wait for a bank within days.
fn moments(rng: &mut ChaCha8Rng, waits: impl IntoIterator<Item = bool>) -> Vec<f64> {
    let first = intents::START as f64 + rng.random::<f64>();
    let mut clock = first;
    let mut moment = |waits| {
        clock += match waits {
            true => DAY + exponential(rng, DAY),
            false if rng.random_bool(0.6) => exponential(rng, 0.3),
            false => exponential(rng, 20.0),
        };
        clock
    };
    std::iter::once(first).chain(waits.into_iter().map(&mut moment)).collect()
}

fn intent(rng: &mut ChaCha8Rng) -> Life {
    // In the numbers of `intents::life_of`: asked to authenticate, processing, declined, authorised, paid, cancelled.
    const STEPS: [(u8, u32); 6] = [(0, 20), (2, 5), (3, 16), (4, 6), (5, 49), (7, 4)];
    let what: Vec<u8> = (0..6).map(|_| STEPS.choose_weighted(rng, |s| s.1).unwrap().0).collect();
    let moments = moments(rng, what.iter().map(|_| false));
    let life = intents::life_of(moments[0], what.into_iter().zip(moments[1..].iter().copied()));
    Life { events: life.moments.into_iter().zip(life.events).collect(), status: life.status.to_owned() }
}

fn subscription(rng: &mut ChaCha8Rng) -> Life {
    const UPDATED: &str = "customer.subscription.updated";
    let items = |quantity: u64| {
        json!({"data": [{"id": "si_1", "quantity": quantity, "price": {"id": "price_1", "currency": "usd",
            "unit_amount": 1000, "recurring": {"interval": "month"}}}]})
    };
    let object = json!({"id": "sub_1", "object": "subscription", "created": intents::START, "customer": "cus_1",
        "status": "incomplete", "cancel_at_period_end": false, "items": items(1), "discounts": [], "ended_at": null});
    let mut status = "incomplete";
    let mut steps: Vec<(&str, Value)> = Vec::new();
    for n in 0..5u64 {
        let (kind, change) = match (status, rng.random_range(0..100)) {
            ("incomplete", 0..85) => (UPDATED, json!({"status": "active"})),
            ("incomplete", _) => (UPDATED, json!({"status": "incomplete_expired"})),
            ("active", 0..40) => (UPDATED, json!({"items": items(n + 2)})),
            ("active", 40..60) => (UPDATED, json!({"discounts": [format!("di_{n}")]})),
            ("active", 60..80) | ("past_due", 50..100) => {
                let other = if status == "active" { "past_due" } else { "active" };
                (UPDATED, json!({"status": other}))
            }
            ("active" | "past_due", _) => {
                ("customer.subscription.deleted", json!({"status": "canceled", "ended_at": intents::START}))
            }
            _ => break,
        };
        status = match change["status"].as_str() {
            Some("active") => "active",
            Some("past_due") => "past_due",
            Some("canceled") => "canceled",
            Some("incomplete_expired") => "incomplete_expired",
            _ => status,
        };
        steps.push((kind, change));
    }
    let is_of_bank = |change: &Value| matches!(change["status"].as_str(), Some("active" | "past_due"));
    let moments = moments(rng, steps.iter().enumerate().map(|(n, (_, change))| n > 0 && is_of_bank(change)));
    let seconds: Vec<i64> = moments[1..].iter().map(|moment| *moment as i64).collect();
    let (events, _) = told_at("customer.subscription.created", object, &steps, &seconds);
    Life { events: moments.into_iter().zip(events).collect(), status: status.to_owned() }
}

/// The events as they arrive: each a second or so after it happened, 5% an hour later, and 3% once more.
fn delivered<'a>(rng: &mut ChaCha8Rng, events: &'a [(f64, Value)]) -> Vec<&'a Value> {
    let mut arrivals: Vec<(f64, &Value)> = Vec::new();
    for (moment, event) in events {
        let late = if rng.random_bool(0.05) { 3600.0 } else { 0.0 };
        let arrival = moment + late + exponential(rng, 1.0);
        arrivals.push((arrival, event));
        if rng.random_bool(0.03) {
            arrivals.push((arrival + exponential(rng, 60.0), event));
        }
    }
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    arrivals.into_iter().map(|(_, event)| event).collect()
}

/// The status of the event that `replaces` says is the newest, by the seconds of the one that is held and the one that
/// arrives.
fn last<'a>(arrived: &[&'a Value], replaces: fn(i64, i64) -> bool) -> &'a str {
    let created = |event: &Value| event["created"].as_i64().unwrap();
    let newest =
        arrived.iter().copied().reduce(|held, next| if replaces(created(held), created(next)) { next } else { held });
    newest.unwrap()["data"]["object"]["status"].as_str().unwrap()
}

/// What the fold says, and whether it is in doubt.
fn folded(arrived: &[&Value]) -> (String, bool) {
    let found = rows(&fold(arrived.iter().copied())).into_values().find_map(|row| match row {
        Row::PaymentIntent(row) => Some((row.status, row.order_ambiguous)),
        Row::Subscription(row) => Some((row.status, row.order_ambiguous)),
        _ => None,
    });
    found.unwrap()
}

/// A line a rule of the table in docs/benchmarks.md, for `objects` lives that `live` makes; the fold's own is the last.
fn compare(what: &str, objects: usize, live: fn(&mut ChaCha8Rng) -> Life) -> Score {
    let rules: [Rule; 3] = [
        ("last arrival", |_, _| true),
        ("created <", |held, next| held < next),
        ("created <=", |held, next| held <= next),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut scores: [Score; 3] = Default::default();
    let (mut fold, mut tied) = (Score::default(), 0);
    for _ in 0..objects {
        let life = live(&mut rng);
        let mut arrived = delivered(&mut rng, &life.events);
        for ((_, replaces), score) in rules.iter().zip(&mut scores) {
            score.count(last(&arrived, *replaces) == life.status, false);
        }
        let (status, in_doubt) = folded(&arrived);
        fold.count(status == life.status, in_doubt);
        arrived.shuffle(&mut rng);
        assert_eq!(folded(&arrived), (status, in_doubt), "{:#?}", life.events);
        tied += usize::from(life.events.windows(2).any(|two| two[0].1["created"] == two[1].1["created"]));
    }
    let percent = |n: usize| 100.0 * n as f64 / objects as f64;
    println!("{objects} {what}, {:.1}% with a tie", percent(tied));
    let shown = |rule: &str, Score { wrong, unflagged, flagged }: &Score| {
        println!("| {rule} | {:.2}% | {:.2}% | {:.2}% |", percent(*wrong), percent(*unflagged), percent(*flagged));
    };
    rules.iter().zip(&scores).for_each(|((rule, _), score)| shown(rule, score));
    shown("the fold", &fold);
    assert!(scores.iter().all(|score| score.wrong > fold.wrong), "a simple rule does as well");
    fold
}

#[test]
fn the_fold_is_right_or_says_that_it_may_not_be() {
    let objects = std::env::var("TILLSTREAM_OBJECTS").map_or(OBJECTS, |n| n.parse().unwrap()) / 2;
    for (what, live) in [("payment intents", intent as fn(&mut ChaCha8Rng) -> Life), ("subscriptions", subscription)] {
        let score = compare(what, objects, live);
        assert_eq!(score.unflagged, 0, "{what}");
        assert!(score.flagged * 200 <= objects, "{what}: {} of {objects} are flagged", score.flagged);
    }
}
