//! Activation as a customer of the shop meets it: never told the same thing twice, never against their will, never when
//! it no longer holds; whatever dies, and whatever the provider answers.

mod answers;
mod dying;
mod hearing;
mod provider;
mod shop;

use std::sync::Arc;

use provider::{Provider, Says};
use shop::{Shop, at};

use crate::{
    activate::{Evaluated, Fate, Medium, State},
    base::{
        PersonId,
        time::{DAY, HOUR, MINUTE},
    },
};

/// A Tuesday noon in London.
const NOW: &str = "2026-06-16T11:00:00Z";
const PHONE: &str = "+447400123456";

fn queued(evaluated: &Evaluated) -> usize {
    assert!(evaluated.segments.iter().all(|s| s.error.is_none()), "{evaluated:?}");
    evaluated.queued()
}

#[tokio::test]
async fn an_abandoned_cart_is_reminded_of_once_and_only_when_it_is_due() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-10 * MINUTE));
    let run = shop.open(now).await;

    let early = run.evaluate(now).await;
    assert_eq!(queued(&early), 0, "ten minutes old is not abandoned");
    let due = run.activator.due(now).unwrap().unwrap();
    assert_eq!(due, now.plus(20 * MINUTE), "a timer looks again");

    assert_eq!(queued(&run.evaluate(due).await), 1);
    assert_eq!(queued(&run.evaluate(due.plus(MINUTE)).await), 0);
    for minute in 1..4 {
        run.dispatch(due.plus(minute * MINUTE)).await;
    }
    let sent = provider.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].to, PHONE);
    assert!(
        sent[0].body.starts_with("shop: you left 2 items in your cart.") && sent[0].body.contains("STOP"),
        "{}",
        sent[0].body
    );
    let message = run.only_message();
    assert_eq!((message.state, message.provider_id.is_some()), (State::Sent, true));
}

#[tokio::test]
async fn consent_withdrawn_between_queue_and_send_is_heeded() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 1);
    run.close();
    shop.withdraws(&ann, "sms", now.plus(30));
    let run = shop.open(now.plus(MINUTE)).await;
    run.dispatch(now.plus(MINUTE)).await;
    let message = run.only_message();
    assert_eq!(message.state, State::Skipped);
    assert_eq!(message.reason.as_deref(), Some("no consent to marketing by SMS: unsubscribed since 2026-06-16"));
    assert_eq!(provider.posts(), 0);
}

#[tokio::test]
async fn an_address_that_comes_within_an_hour_is_waited_for() {
    let now = at(NOW);
    for (later, wanted) in [(30 * MINUTE, 1), (2 * HOUR, 0)] {
        let provider = Provider::start().await;
        let mut shop = Shop::new(&provider);
        let ann = Shop::new(&provider).person("ann", PHONE);
        shop.agrees(&ann, "sms");
        shop.cart(&ann, "c1", now.plus(-HOUR));
        let run = shop.open(now).await;
        assert_eq!(queued(&run.evaluate(now).await), 0, "nobody knows how to reach her");
        run.close();
        assert_eq!(shop.person("ann", PHONE), ann);
        let run = shop.open(now).await;
        assert_eq!(queued(&run.evaluate(now.plus(later)).await), wanted, "{later}");
    }
}

#[tokio::test]
async fn a_yes_that_klaviyo_has_and_we_not_yet_is_waited_for_until_the_next_look() {
    let now = at(NOW);
    for agrees in [false, true] {
        let provider = Provider::start().await;
        let mut shop = Shop::new(&provider);
        let ann = shop.person("ann", PHONE);
        shop.cart(&ann, "c1", now.plus(-HOUR));
        let run = shop.open(now).await;
        run.activator.consent_was_seen(now.plus(-MINUTE)).unwrap();
        assert_eq!(queued(&run.evaluate(now).await), 1);
        run.dispatch(now).await;
        assert_eq!(run.only_message().state, State::Queued);
        run.close();
        if agrees {
            shop.agrees_by(&ann, "sms", "klaviyo");
        }
        let next = now.plus(2 * MINUTE);
        let run = shop.open(next).await;
        run.activator.consent_was_seen(now.plus(MINUTE)).unwrap();
        run.dispatch(next).await;
        let message = run.only_message();
        assert_eq!(message.state, if agrees { State::Sent } else { State::Skipped });
        let never = (!agrees).then_some("never agreed to marketing by SMS");
        assert_eq!(message.reason.as_deref(), never);
    }
}

#[tokio::test]
async fn a_cart_paid_between_queue_and_send_is_not_reminded_of() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 1);
    run.close();
    shop.pays(&ann, "pi_1", now.plus(-30));
    let run = shop.open(now).await;
    run.dispatch(now.plus(MINUTE)).await;
    let message = run.only_message();
    assert_eq!(
        (message.state, message.reason.as_deref()),
        (State::Skipped, Some("no longer in segment cart_abandoned"))
    );
    assert_eq!(provider.posts(), 0);
}

#[tokio::test]
async fn a_merge_of_two_people_reminds_nobody_again() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let visitor = shop.person("visitor", PHONE);
    shop.agrees(&visitor, "sms");
    let now = at(NOW);
    shop.cart(&visitor, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    run.evaluate(now).await;
    run.dispatch(now).await;
    assert_eq!(provider.sent().len(), 1);
    run.close();

    // They sign in, and turn out to be ann, who has another phone and had the cart all along.
    let ann = shop.person("ann", "+447400123499");
    shop.agrees(&ann, "sms");
    shop.merge(&visitor, &ann, now.plus(MINUTE));
    let later = now.plus(8 * DAY);
    let soon = now.plus(2 * MINUTE);
    let run = shop.open(soon).await;
    let merged = run.evaluate(soon).await;
    let carts = merged.segments.iter().find(|s| s.segment == "cart_abandoned").unwrap();
    assert_eq!((carts.members, carts.entered, carts.exited), (1, 0, 0));
    run.dispatch(soon).await;
    assert_eq!(provider.sent().len(), 1);
    let members = run.activator.members("cart_abandoned").unwrap();
    assert_eq!((&members[0].person_id, members[0].entered_at), (&ann, now));
    // The cap counts what went to the person under the old name.
    run.close();
    shop.cart(&ann, "c2", soon.plus(DAY));
    let run = shop.open(soon.plus(DAY + HOUR)).await;
    assert_eq!(queued(&run.evaluate(soon.plus(DAY + HOUR)).await), 0);
    assert_eq!(run.message_about("c2").reason.as_deref(), Some("had 1 by SMS in the last 7 days, and the cap is 1"));
    assert!(later > soon);
}

#[tokio::test]
async fn no_text_goes_to_a_fixed_line() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", "+442079460958");
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    run.evaluate(now).await;
    run.dispatch(now).await;
    assert_eq!(provider.sent().len(), 0);
    let why = "the phone takes no texts: it is of the kind fixed line";
    assert_eq!(run.message_about("c1").reason.as_deref(), Some(why));
}

#[tokio::test]
async fn two_people_who_share_a_phone_get_one_text_in_the_caps_window() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let now = at(NOW);
    for (name, cart) in [("ann", "c1"), ("bob", "c2")] {
        let person = shop.person(name, PHONE);
        shop.agrees(&person, "sms");
        shop.cart(&person, cart, now.plus(-HOUR));
    }
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 1);
    run.dispatch(now).await;
    assert_eq!(provider.sent().len(), 1);
}

#[tokio::test]
async fn two_triggers_in_one_second_are_one_message_under_the_cap() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    shop.trigger("cart_sms_again", "sms");
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = Arc::new(shop.open(now).await);
    // And two who look and send at the same time.
    let both = [run.clone(), run.clone()].map(|run| {
        tokio::spawn(async move {
            run.evaluate(now).await;
            run.dispatch(now).await;
        })
    });
    for done in both {
        done.await.unwrap();
    }
    assert_eq!(provider.sent().len(), 1);
    let mut states: Vec<State> = run.stored_states().into_values().collect();
    states.sort();
    assert_eq!(states, [State::Sent, State::Skipped]);
}

#[tokio::test]
async fn texts_and_mails_of_one_moment_do_not_take_each_other_for_another_process() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    shop.trigger("cart_mail", "email");
    let now = at(NOW);
    for i in 0..12 {
        let (phone, channel) = (format!("+4474001234{i:02}"), if i % 2 == 0 { "sms" } else { "email" });
        let person = shop.person(&format!("p{i}"), &phone);
        shop.agrees(&person, channel);
        shop.cart(&person, &format!("c{i}"), now.plus(-HOUR));
    }
    let run = shop.open(now).await;
    run.evaluate(now).await;
    run.dispatch(now).await;
    assert_eq!((provider.sent().len(), provider.events().len()), (6, 6), "{:?}", run.stored_states());
}

#[tokio::test]
async fn at_night_a_text_waits_for_the_morning_and_is_checked_again() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let night = at("2026-06-16T20:30:00Z");
    shop.cart(&ann, "c1", night.plus(-HOUR));
    let run = shop.open(night).await;
    assert_eq!(queued(&run.evaluate(night).await), 1);
    run.dispatch(night).await;
    assert_eq!(provider.posts(), 0);
    let morning = run.activator.due(night).unwrap().unwrap();
    assert_eq!(morning.to_string(), "2026-06-17T07:00:00Z", "eight o'clock in London");
    assert_eq!(run.only_message().reason.as_deref(), Some("quiet hours (GB)"));
    run.dispatch(morning).await;
    assert_eq!(provider.sent().len(), 1);
}

#[tokio::test]
async fn nothing_leaves_unless_sending_is_on_and_the_person_is_real() {
    let provider = Provider::start().await;
    let now = at(NOW);
    for (send, livemode) in [(false, true), (true, false)] {
        let mut shop = Shop::new(&provider);
        shop.send = send;
        shop.livemode = livemode;
        let ann = shop.person("ann", PHONE);
        shop.agrees(&ann, "sms");
        shop.cart(&ann, "c1", now.plus(-HOUR));
        let run = shop.open(now).await;
        assert_eq!(queued(&run.evaluate(now).await), 1);
        run.dispatch(now).await;
        let message = run.only_message();
        assert_eq!((message.state, message.provider.as_deref()), (State::Sent, Some("outbox")), "{send} {livemode}");
        assert!(message.text.unwrap().body.contains("2 items"));
    }
    assert_eq!(provider.posts(), 0);
}

#[tokio::test]
async fn an_email_is_an_event_with_our_key_and_may_be_posted_again() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    shop.trigger("cart_mail", "email");
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "email");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    run.evaluate(now).await;
    provider.say(Says::DiesAfterReading);
    run.dispatch(now).await;
    provider.say(Says::Yes);
    run.dispatch(run.next_due(now)).await;
    let mail = run.message_by("cart_mail");
    assert_eq!((mail.state, mail.medium), (State::Sent, Medium::Email));
    let events = provider.events();
    assert_eq!(events.len(), 1, "one event to Klaviyo, however often it was posted");
    let attributes = &events[0]["data"]["attributes"];
    assert_eq!(attributes["unique_id"], mail.key.as_str());
    assert_eq!(attributes["properties"]["subject"], "Your cart is still here");
    assert_eq!(attributes["metric"]["data"]["attributes"]["name"], "Tillstream cart_mail");
    assert_eq!(attributes["profile"]["data"]["attributes"]["email"], "ann@example.com");
}

#[tokio::test]
async fn a_preview_says_who_gets_what_and_who_not_and_shows_no_number() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let now = at(NOW);
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| {
        shop.person(name, &format!("+4474001234{}", name.len() * 10 + usize::from(name.as_bytes()[0] % 10)))
    });
    for (person, cart, age) in [(&ann, "c1", HOUR), (&bob, "c2", HOUR), (&eve, "c3", 10 * MINUTE)] {
        shop.cart(person, cart, now.plus(-age));
    }
    shop.agrees(&ann, "sms");
    shop.agrees(&eve, "sms");
    let run = shop.open(now).await;
    let session = run.session(now);
    let preview = run.activator.preview("cart_sms", &session, now).await.unwrap();
    let fate = |person: &PersonId| preview.iter().find(|p| p.person_id == *person).unwrap().fate.clone();
    assert_eq!(fate(&ann), Fate::Goes);
    assert_eq!(fate(&bob), Fate::Refused { why: "never agreed to marketing by SMS".to_owned() });
    assert_eq!(fate(&eve), Fate::NotYet { due_at: now.plus(20 * MINUTE) });
    let shown = serde_json::to_string(&preview).unwrap();
    assert!(!shown.contains("74001234"), "{shown}");
    assert!(run.activator.messages().next().is_none());
    let unknown = run.activator.preview("cart_smss", &session, now).await.unwrap_err().to_string();
    assert_eq!(unknown, "no trigger \"cart_smss\"; did you mean \"cart_sms\"?");
}

#[tokio::test]
async fn memberships_are_a_table_that_follows_the_store() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    run.evaluate(now).await;
    run.close();
    shop.pays(&ann, "pi_1", now.plus(MINUTE));
    let run = shop.open(now).await;
    let later = now.plus(HOUR);
    run.evaluate(later).await;
    let rows = run.memberships().await;
    assert_eq!(rows, [("cart_abandoned".to_owned(), ann.0.clone(), "c1".to_owned(), now, Some(later))]);
}

#[tokio::test]
async fn consent_in_klaviyo_must_have_been_looked_at_lately() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees_by(&ann, "sms", "klaviyo");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 1);
    run.dispatch(now).await;
    assert_eq!(provider.posts(), 0);
    assert!(run.only_message().reason.unwrap().starts_with("consent in Klaviyo was last looked at"));
    run.activator.consent_was_seen(now).unwrap();
    run.dispatch(run.next_due(now)).await;
    assert_eq!(provider.sent().len(), 1);
}

#[tokio::test]
async fn every_hour_is_once_in_each_hour_of_membership() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    shop.only_trigger("hourly", "every = \"1h\"");
    let ann = shop.person("ann", PHONE);
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    let mut sent = Vec::new();
    // At the entry, within the hour, at its end, and after hours that nobody was there.
    for minutes in [0, 30, 60, 61, 330, 331] {
        let time = now.plus(minutes * MINUTE);
        run.evaluate(time).await;
        run.dispatch(time).await;
        sent.push(provider.sent().len());
    }
    assert_eq!(sent, [1, 1, 2, 2, 3, 3]);
    assert_eq!(run.next_due(now.plus(331 * MINUTE)), now.plus(6 * HOUR));
}

#[tokio::test]
async fn a_text_on_leaving_goes_to_who_left_and_stayed_away() {
    for comes_back in [false, true] {
        let provider = Provider::start().await;
        let mut shop = Shop::new(&provider);
        shop.only_trigger("gone", "on = \"exit\"");
        let ann = shop.person("ann", PHONE);
        let now = at(NOW);
        shop.cart(&ann, "c1", now.plus(-HOUR));
        let run = shop.open(now).await;
        run.evaluate(now).await;
        run.dispatch(now).await;
        assert_eq!(provider.posts(), 0);
        run.close();

        // The cart is touched, so it is not abandoned for the next half hour; then perhaps it is again.
        shop.cart(&ann, "c1", now.plus(10 * MINUTE));
        let run = shop.open(now).await;
        assert_eq!(queued(&run.evaluate(now.plus(11 * MINUTE)).await), 1);
        run.dispatch(now.plus(if comes_back { 41 } else { 12 } * MINUTE)).await;
        let message = run.only_message();
        match comes_back {
            false => assert_eq!((message.state, provider.sent().len()), (State::Sent, 1)),
            true => assert_eq!(message.reason.as_deref(), Some("in segment cart_abandoned again")),
        }
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_holds_up_no_other() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    shop.file("sql/broken.sql", "SELECT person_id FROM core.people WHERE emial_hash IS NULL");
    let broken = "name = \"broken\"\ndescription = \"x\"\n[[segment]]\nname = \"broken\"\nsql = \"broken.sql\"\n";
    shop.file("pipelines/a_broken.toml", broken);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    let found = run.evaluate(now).await;
    let error = found.segments.iter().find_map(|s| s.error.clone()).unwrap();
    assert!(error.contains("broken.sql") && error.contains("did you mean \"email_hash\""), "{error}");
    assert_eq!(found.queued(), 1);
    run.dispatch(now).await;
    assert_eq!(provider.sent().len(), 1);
}

#[tokio::test]
async fn check_finds_a_templates_wrong_column_with_its_place() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    shop.file("templates/cart_reminder.sms.j2", "Hello!\nYou left {{ itmes }} items.");
    shop.trigger("cart_mail", "email");
    let run = shop.open(at(NOW)).await;
    let session = run.session(at(NOW));
    let problems = crate::activate::check(&run.project, &shop.templates(), &session).await;
    let told: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    for words in [
        "cart_reminder.sms.j2:2: the segment yields no column \"itmes\"; did you mean \"items\"?",
        "cart_reminder.sms.j2:2: marketing by SMS must say how to opt out",
    ] {
        assert!(told.iter().any(|t| t.contains(words)), "{words:?} is not said in {told:?}");
    }
}

#[tokio::test]
async fn as_of_another_time_nothing_leaves() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let (now, past) = (at(NOW), at(NOW).plus(-DAY));
    shop.cart(&ann, "c1", past.plus(-HOUR));
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(past).await), 1);
    let done = run.activator.dispatch(&run.session(past), past).await.unwrap();
    assert!(done.messages.is_empty() && done.faults[0].starts_with("nothing leaves as of 2026-06-15"), "{done:?}");
    assert_eq!((provider.posts(), run.only_message().state), (0, State::Queued));
}
