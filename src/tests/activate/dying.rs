//! Wherever a process dies, the next makes the best of it, and nobody is told twice.

use std::{collections::BTreeSet, future::Future, pin::pin, task::Poll};

use super::{
    NOW, PHONE,
    provider::Provider,
    queued,
    shop::{Shop, at},
};
use crate::{
    activate::State,
    base::time::{HOUR, MINUTE},
};

/// Polls a future `polls` times and drops it: the process that ran it died there. Without a number it runs to its end.
/// Returns how often it was polled.
async fn die_after<F: Future>(future: F, polls: Option<usize>) -> usize {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|cx| {
        if polls == Some(polled) {
            return Poll::Ready(polled);
        }
        polled += 1;
        future.as_mut().poll(cx).map(|_| polled)
    })
    .await
}

/// One life of a process over a shop with three abandoned carts, that ends after so many polls of its work; then another
/// that must make the best of it. Returns how often the work was polled.
async fn live_and_die(polls: Option<usize>, dispatching: bool) -> usize {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    for i in 0..3 {
        let person = shop.person(&format!("p{i}"), &format!("+44740012345{i}"));
        shop.agrees(&person, "sms");
        shop.cart(&person, &format!("c{i}"), at(NOW).plus(-HOUR));
    }
    let now = at(NOW);
    let run = shop.open(now).await;
    let session = run.session(now);
    let polled = if dispatching {
        run.evaluate(now).await;
        die_after(run.activator.dispatch(&session, now), polls).await
    } else {
        die_after(run.activator.evaluate(&session, now), polls).await
    };
    drop(session);
    run.close();

    let run = shop.open(now.plus(MINUTE)).await;
    for minute in 2..4 {
        run.evaluate(now.plus(minute * MINUTE)).await;
        run.dispatch(now.plus(minute * MINUTE)).await;
    }
    let to: Vec<String> = provider.sent().into_iter().map(|s| s.to).collect();
    let different: BTreeSet<&String> = to.iter().collect();
    let place = format!("dispatching {dispatching}, cut after {polled} polls");
    assert_eq!(to.len(), different.len(), "somebody was texted twice: {place}");
    // What was claimed and never reached the provider is unknown; what was not claimed still went.
    let states: Vec<State> = run.stored_states().into_values().collect();
    let count = |state| states.iter().filter(|s| **s == state).count();
    assert_eq!((count(State::Sent), count(State::Sent) + count(State::Unknown)), (to.len(), 3), "{place}: {states:?}");
    // The log tells the same as the store.
    assert_eq!(run.logged_states(), run.stored_states(), "{place}");
    polled
}

#[tokio::test]
async fn wherever_the_process_dies_nobody_is_texted_twice() {
    for (dispatching, places) in [(false, 6), (true, 18)] {
        let whole = live_and_die(None, dispatching).await;
        assert!(whole > 5, "{whole}");
        for place in 0..places {
            live_and_die(Some(place * whole / places), dispatching).await;
        }
    }
}

#[tokio::test]
async fn a_lost_store_knows_from_the_log_what_was_sent() {
    let provider = Provider::start().await;
    let mut shop = Shop::new(&provider);
    let ann = shop.person("ann", PHONE);
    let bob = shop.person("bob", "+447400123457");
    for (person, cart) in [(&ann, "c1"), (&bob, "c2")] {
        shop.agrees(person, "sms");
        shop.cart(person, cart, at(NOW).plus(-HOUR));
    }
    let now = at(NOW);
    let run = shop.open(now).await;
    run.evaluate(now).await;
    run.dispatch(now).await;
    let before = run.stored_states();
    assert_eq!(provider.sent().len(), 2);
    run.close();

    shop.lose_the_store();
    let later = now.plus(HOUR);
    let run = shop.open(later).await;
    assert_eq!(queued(&run.evaluate(later).await), 0, "nobody enters anew");
    run.dispatch(later).await;
    assert_eq!(run.stored_states(), before);
    assert_eq!(provider.sent().len(), 2);
}
