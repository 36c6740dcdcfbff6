//! What providers say of their own accord: receipts move messages on, and a STOP is heard before anything more is sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::{
    NOW, PHONE,
    provider::{Provider, Says},
    queued,
    shop::{Run, Shop, at},
};
use crate::{
    activate::{
        Medium, Message, State,
        channel::{Answer, Channel, Parcel, Sent},
    },
    base::{
        PersonId, Source,
        time::{DAY, HOUR, MINUTE, SECOND},
    },
    sources,
};

fn shop(provider: &Provider, people: &[(&str, &str)]) -> (Shop, Vec<PersonId>) {
    let mut shop = Shop::new(provider);
    let mut ids = Vec::new();
    for (name, phone) in people {
        let person = shop.person(name, phone);
        shop.agrees(&person, "sms");
        shop.cart(&person, &format!("cart_of_{name}"), at(NOW).plus(-HOUR));
        ids.push(person);
    }
    (shop, ids)
}

async fn receipt(run: &Run, message: &Message, status: &str, seconds: i64) {
    let sid = message.provider_id.as_deref().unwrap();
    let params = json!({"MessageSid": sid, "MessageStatus": status, "ErrorCode": "30003", "To": PHONE});
    run.twilio_says(params, at(NOW).plus(seconds * SECOND)).await;
}

async fn text(run: &Run, sid: &str, body: &str, seconds: i64) {
    text_from(run, PHONE, sid, body, seconds).await;
}

async fn text_from(run: &Run, phone: &str, sid: &str, body: &str, seconds: i64) {
    let params = json!({"MessageSid": sid, "From": phone, "Body": body, "SmsStatus": "received"});
    run.twilio_says(params, at(NOW).plus(seconds * SECOND)).await;
}

#[tokio::test]
async fn receipts_move_a_message_on_and_never_back() {
    let provider = Provider::start().await;
    let now = at(NOW);
    for (told, state) in [
        (["delivered", "sent", "queued", "undelivered"], State::Delivered),
        (["sent", "queued", "undelivered", "delivered"], State::Failed),
        (["queued", "read", "failed", "sent"], State::Delivered),
    ] {
        let (shop, _) = shop(&provider, &[("ann", PHONE)]);
        let run = shop.open(now).await;
        run.evaluate(now).await;
        run.dispatch(now).await;
        let message = run.only_message();
        assert_eq!(message.state, State::Sent);
        for (i, status) in told.into_iter().enumerate() {
            receipt(&run, &message, status, 10 + i as i64).await;
        }
        let stranger = Message { provider_id: Some("SM_of_another_program".to_owned()), ..message.clone() };
        receipt(&run, &stranger, "failed", 20).await;
        run.dispatch(now.plus(MINUTE)).await;
        let settled = run.only_message();
        assert_eq!((settled.state, settled.settled_at.is_some()), (state, true), "{told:?}");
        let why = (state == State::Failed).then_some("Twilio 30003: the phone could not be reached");
        assert_eq!(settled.reason.as_deref(), why);
        assert_eq!(run.logged_states(), run.stored_states());
    }
}

#[tokio::test]
async fn a_receipt_that_came_while_nobody_ran_is_heard_at_the_next_start_and_once() {
    let provider = Provider::start().await;
    let now = at(NOW);
    let (shop, _) = shop(&provider, &[("ann", PHONE)]);
    let run = shop.open(now).await;
    run.evaluate(now).await;
    run.dispatch(now).await;
    receipt(&run, &run.only_message(), "delivered", 10).await;
    run.close();
    shop.lose_the_store();
    let run = shop.open(now.plus(HOUR)).await;
    run.dispatch(now.plus(HOUR)).await;
    let settled = run.only_message();
    assert_eq!((settled.state, settled.settled_at), (State::Delivered, Some(now.plus(10 * SECOND))));
    run.close();
    let run = shop.open(now.plus(2 * HOUR)).await;
    run.dispatch(now.plus(2 * HOUR)).await;
    assert_eq!(run.only_message(), settled);
    assert_eq!(provider.sent().len(), 1);
}

#[tokio::test]
async fn a_stop_that_the_log_lost_and_the_tables_hold_is_heard() {
    let provider = Provider::start().await;
    let now = at(NOW);
    let (shop, _) = shop(&provider, &[("ann", PHONE)]);
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 1);
    text(&run, "SM1", "STOP", 1).await;
    run.load().await;
    run.close();
    shop.loses_the_log_from("\"STOP\"");
    let run = shop.open(now).await;
    assert!(run.log().read(run.log().start(), usize::MAX).unwrap().iter().all(|l| l.envelope.source != Source::Twilio));
    run.dispatch(now).await;
    assert_eq!(provider.posts(), 0);
    assert_eq!(run.only_message().state, State::Skipped);
}

#[tokio::test]
async fn what_was_trimmed_from_the_log_since_the_session_began_is_heard() {
    let provider = Provider::start().await;
    let now = at(NOW);
    let (shop, _) = shop(&provider, &[("ann", PHONE)]);
    let run = shop.open(now).await;
    run.evaluate(now).await;
    run.dispatch(now).await;
    let session = run.session(now);
    receipt(&run, &run.only_message(), "delivered", 10).await;
    run.load_and_trim().await;
    run.activator.dispatch(&session, now).await.unwrap();
    assert_eq!(run.only_message().state, State::Delivered);
}

/// A channel by which Ann texts STOP at the moment at which her message is claimed.
struct AnnStops {
    log: crate::log::EventLog,
    sent: AtomicUsize,
}

#[async_trait::async_trait]
impl Channel for AnnStops {
    fn name(&self) -> &'static str {
        let stop = json!({"MessageSid": "SM1", "From": PHONE, "Body": "STOP", "SmsStatus": "received"});
        let stop = sources::decode(Source::Twilio, &stop.to_string().into(), at(NOW)).unwrap();
        let log = self.log.clone();
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::spawn(move || runtime().block_on(log.append(vec![stop])).unwrap()).join().unwrap();
        "twilio"
    }

    async fn send(&self, _: &Parcel<'_>) -> Sent {
        self.sent.fetch_add(1, Ordering::Relaxed);
        Sent::Accepted { provider_id: None }
    }

    async fn ask(&self, _: &Parcel<'_>, _: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Answer {
        Answer::Nothing
    }
}

#[tokio::test]
async fn a_stop_that_was_acknowledged_before_the_claim_is_heeded() {
    let provider = Provider::start().await;
    let now = at(NOW);
    let (shop, _) = shop(&provider, &[("ann", PHONE), ("bob", "+447400123457")]);
    let mut run = shop.open(now).await;
    let channel = Arc::new(AnnStops { log: run.log().clone(), sent: AtomicUsize::new(0) });
    run.activator = run.activator.with_channel(Medium::Sms, channel.clone());
    assert_eq!(queued(&run.evaluate(now).await), 2);
    run.dispatch(now).await;
    run.dispatch(now.plus(MINUTE)).await;
    let states = ["cart_of_ann", "cart_of_bob"].map(|cart| run.message_about(cart).state);
    assert_eq!((states, channel.sent.load(Ordering::Relaxed)), ([State::Skipped, State::Sent], 1));
    assert_eq!(run.logged_states(), run.stored_states());
}

#[tokio::test]
async fn who_texted_stop_before_it_is_sent_gets_nothing() {
    let provider = Provider::start().await;
    let now = at(NOW);
    let (shop, _) = shop(&provider, &[("ann", PHONE), ("bob", "+447400123457")]);
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 2);
    text(&run, "SM1", "Stop!", 1).await;
    run.dispatch(now.plus(MINUTE)).await;
    let sent: Vec<String> = provider.sent().into_iter().map(|t| t.to).collect();
    assert_eq!(sent, ["+447400123457"]);
    let refused = run.message_about("cart_of_ann");
    assert_eq!(refused.state, State::Skipped);
    assert_eq!(refused.reason.as_deref(), Some("suppressed for SMS since 2026-06-16: STOP by text message"));
}

#[tokio::test]
async fn a_stop_while_others_are_being_sent_to_is_heard_before_the_next_are() {
    let provider = Provider::start().await;
    let now = at(NOW);
    let people: Vec<(String, String)> = (0..5).map(|i| (format!("p{i}"), format!("+44740012345{i}"))).collect();
    let people: Vec<(&str, &str)> = people.iter().map(|(name, phone)| (name.as_str(), phone.as_str())).collect();
    let (shop, _) = shop(&provider, &people);
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 5);
    // Four requests are made at once; none of them is answered before everybody has had enough.
    provider.say(Says::Hangs);
    let everybody_stops = async {
        while provider.posts() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for (name, phone) in &people {
            text_from(&run, phone, name, "STOP", 1).await;
        }
    };
    tokio::join!(run.dispatch(now), everybody_stops);
    assert_eq!(provider.sent().len(), 4);
    let count = |state| run.stored_states().into_values().filter(|s| *s == state).count();
    // Who does not answer gets nothing more for now.
    assert_eq!((count(State::Unknown), count(State::Queued)), (4, 1));
    provider.say(Says::Yes);
    run.dispatch(now.plus(MINUTE)).await;
    assert_eq!((provider.sent().len(), count(State::Skipped)), (4, 1));
}

/// What is sent about a new cart a week later, in a new process.
async fn a_week_later(shop: &mut Shop, ann: &PersonId) -> State {
    let later = at(NOW).plus(8 * DAY);
    shop.cart(ann, "another", later.plus(-HOUR));
    let run = shop.open(later).await;
    run.evaluate(later).await;
    run.dispatch(later).await;
    run.message_about("another").state
}

#[tokio::test]
async fn start_lifts_what_stop_said_in_whatever_order_they_are_told() {
    for (words, state) in [
        (vec![("STOP", 1)], State::Skipped),
        (vec![("STOP", 1), ("START", 2)], State::Sent),
        (vec![("START", 2), ("STOP", 1)], State::Sent),
        (vec![("STOP", 3), ("START", 2), ("STOP", 1)], State::Skipped),
        (vec![("STOP", 2), ("START", 2)], State::Skipped),
    ] {
        let provider = Provider::start().await;
        let (mut shop, people) = shop(&provider, &[("ann", PHONE)]);
        let run = shop.open(at(NOW)).await;
        for (i, (body, seconds)) in words.iter().enumerate() {
            text(&run, &format!("SM{i}"), body, *seconds).await;
        }
        run.dispatch(at(NOW)).await;
        run.close();
        assert_eq!(a_week_later(&mut shop, &people[0]).await, state, "{words:?}");
    }
}

#[tokio::test]
async fn start_lifts_a_stop_that_only_the_provider_knew() {
    let provider = Provider::start().await;
    let (mut shop, people) = shop(&provider, &[("ann", PHONE)]);
    let run = shop.open(at(NOW)).await;
    run.evaluate(at(NOW)).await;
    provider.say(Says::OptedOut);
    run.dispatch(at(NOW)).await;
    assert_eq!(run.only_message().state, State::Failed);
    provider.say(Says::Yes);
    text(&run, "SM1", "start", HOUR / SECOND).await;
    run.dispatch(at(NOW).plus(2 * HOUR)).await;
    run.close();
    assert_eq!(a_week_later(&mut shop, &people[0]).await, State::Sent);
}
