//! Whatever the provider answers, or does not, a message goes once.

use super::{
    NOW, PHONE,
    provider::{Provider, Says},
    queued,
    shop::{Shop, at},
};
use crate::{
    activate::State,
    base::time::{DAY, HOUR, MINUTE},
};

#[tokio::test]
async fn an_answer_that_never_came_is_asked_for_and_the_text_is_not_sent_again() {
    for says in [Says::DiesAfterReading, Says::FailsAfterTaking, Says::Hangs] {
        let provider = Provider::start().await;
        let mut shop = Shop::new(&provider);
        let ann = shop.person("ann", PHONE);
        shop.agrees(&ann, "sms");
        let now = at(NOW);
        shop.cart(&ann, "c1", now.plus(-HOUR));
        let run = shop.open(now).await;
        run.evaluate(now).await;
        provider.say(says);
        let done = run.dispatch(now).await;
        assert_eq!((done.count(State::Unknown), done.faults.len()), (1, 1), "{says:?} {done:?}");

        provider.say(Says::Yes);
        let next = run.activator.due(now).unwrap().unwrap();
        assert!(next > now && next <= now.plus(MINUTE), "{next}");
        let settled = run.dispatch(next).await;
        assert_eq!(settled.count(State::Sent), 1, "{says:?} {settled:?}");
        assert_eq!(run.only_message().provider_id, Some(provider.sent()[0].sid.clone()));
        run.dispatch(next.plus(HOUR)).await;
        assert_eq!(provider.sent().len(), 1, "{says:?}");
    }
}

#[tokio::test]
async fn what_the_provider_never_took_fails_in_the_end_and_is_not_sent_again() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    run.evaluate(now).await;
    provider.say(Says::FailsWithoutTaking);
    run.dispatch(now).await;
    provider.say(Says::Yes);
    let mut asked = 0;
    let mut time = now;
    while run.only_message().state == State::Unknown {
        time = run.next_due(time).max(time.plus(1));
        run.dispatch(time).await;
        asked += 1;
        assert!(asked < 40, "the questions get rarer");
    }
    let message = run.only_message();
    assert_eq!(message.state, State::Failed);
    assert_eq!(message.reason.as_deref(), Some("never reached twilio, which has no record of it"));
    assert!(time.0 - now.0 > 11 * HOUR, "not before the provider's own queue is past");
    assert_eq!(provider.sent().len(), 0);
}

#[tokio::test]
async fn a_rate_limit_puts_messages_back_and_they_go_later() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    for i in 0..9 {
        let person = shop.person(&format!("p{i}"), &format!("+44740012345{i}"));
        shop.agrees(&person, "sms");
        shop.cart(&person, &format!("c{i}"), at(NOW).plus(-HOUR));
    }
    let now = at(NOW);
    let run = shop.open(now).await;
    assert_eq!(queued(&run.evaluate(now).await), 9);
    provider.say(Says::TooMany { retry_after: 600 });
    let limited = run.dispatch(now).await;
    assert_eq!(provider.sent().len(), 0);
    assert!(limited.count(State::Queued) <= 4, "after the first group no more is tried: {limited:?}");
    provider.say(Says::Yes);
    run.dispatch(now.plus(MINUTE)).await;
    assert_eq!(provider.sent().len(), 0, "the provider's wait is kept");
    assert_eq!(run.next_due(now), now.plus(10 * MINUTE));
    run.dispatch(now.plus(10 * MINUTE)).await;
    assert_eq!(provider.sent().len(), 9);
    assert!(run.stored_states().values().all(|state| *state == State::Sent));
    let posts = provider.posts();
    run.close();
    // A claim that a rate limit ended is no claim, for a store made from the log too.
    shop.lose_the_store();
    let run = shop.open(now.plus(HOUR)).await;
    run.dispatch(now.plus(HOUR)).await;
    assert!(run.stored_states().values().all(|state| *state == State::Sent));
    assert_eq!(provider.posts(), posts);
}

#[tokio::test]
async fn stop_at_the_provider_is_stop_here() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    shop.agrees(&ann, "sms");
    let now = at(NOW);
    shop.cart(&ann, "c1", now.plus(-HOUR));
    let run = shop.open(now).await;
    run.evaluate(now).await;
    provider.say(Says::OptedOut);
    let refused = run.dispatch(now).await;
    assert_eq!(refused.messages[0].reason.as_deref(), Some("Twilio 21610: the recipient opted out (STOP)"));
    provider.say(Says::Yes);
    run.close();

    let later = now.plus(8 * DAY);
    shop.cart(&ann, "c2", later.plus(-HOUR));
    let run = shop.open(later).await;
    assert_eq!(queued(&run.evaluate(later).await), 0);
    let skipped = run.message_about("c2");
    assert!(skipped.reason.unwrap().starts_with("suppressed for SMS since 2026-06-16: Twilio 21610"));
}
