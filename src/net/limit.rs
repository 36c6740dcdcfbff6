//! How often an address may be called, and a pause when a server asks for one.
//!
//! What must hold: in no stretch of a limit's length do more calls start than it allows. Providers count in fixed
//! windows, and a plain token bucket (a full bucket, then its refill) would put nearly twice the limit into one; so the
//! turns of the last calls are kept, and a call waits until one of them is old enough. A turn is reserved at once, so
//! calls go out in the order in which they came.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// At most `requests` in any stretch of `per`, to addresses that start with `prefix`.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Of the whole address, as `https://a.klaviyo.com/api/events`; every limit whose prefix fits applies.
    pub prefix: String,
    pub requests: u32,
    pub per: Duration,
}

pub(super) struct Limits {
    state: Mutex<State>,
}

struct State {
    windows: Vec<Window>,
    /// By host: when it will be called again.
    pauses: HashMap<String, Instant>,
}

struct Window {
    limit: Limit,
    /// Of the last `limit.requests` calls, oldest first.
    turns: VecDeque<Instant>,
}

impl Limits {
    pub fn new(limits: Vec<Limit>) -> Limits {
        let windows = limits.into_iter().map(|limit| Window { limit, turns: VecDeque::new() }).collect();
        Limits { state: Mutex::new(State { windows, pauses: HashMap::new() }) }
    }

    /// Takes a turn in every limit that fits and tells when it is.
    pub fn reserve(&self, url: &str, host: &str, now: Instant) -> Instant {
        let mut state = self.lock();
        let mut turn = state.pauses.get(host).copied().unwrap_or(now).max(now);
        for window in state.windows.iter().filter(|w| w.fits(url)) {
            turn = turn.max(window.free_at().unwrap_or(now));
        }
        for window in state.windows.iter_mut().filter(|w| w.fits(url)) {
            window.take(turn);
        }
        turn
    }

    /// The host said 429: nobody calls it before `until`.
    pub fn pause(&self, host: &str, until: Instant) {
        let mut state = self.lock();
        let pause = state.pauses.entry(host.to_owned()).or_insert(until);
        *pause = (*pause).max(until);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For who calls us: who comes more often than the limit is told how long to stay away.
pub struct Gate(Mutex<Window>);

impl Gate {
    pub fn new(requests: u32, per: Duration) -> Gate {
        let limit = Limit { prefix: String::new(), requests, per };
        Gate(Mutex::new(Window { limit, turns: VecDeque::new() }))
    }

    /// Takes a turn.
    ///
    /// # Errors
    /// How long it is until the next, where there is none now.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match window.free_at().map(|at| at.saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                window.take(now);
                Ok(())
            }
        }
    }
}

impl Window {
    fn fits(&self, url: &str) -> bool {
        url.starts_with(&self.limit.prefix)
    }

    fn is_full(&self) -> bool {
        self.turns.len() >= self.limit.requests.max(1) as usize
    }

    fn free_at(&self) -> Option<Instant> {
        self.turns.front().filter(|_| self.is_full()).map(|oldest| *oldest + self.limit.per)
    }

    fn take(&mut self, turn: Instant) {
        if self.is_full() {
            self.turns.pop_front();
        }
        self.turns.push_back(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(prefix: &str, requests: u32, seconds: u64) -> Limit {
        Limit { prefix: prefix.to_owned(), requests, per: Duration::from_secs(seconds) }
    }

    #[test]
    fn no_window_holds_more_than_the_limit() {
        let limits = Limits::new(vec![limit("http://a/events", 3, 1), limit("http://a/", 10, 60)]);
        let start = Instant::now();
        let turns: Vec<_> = (0..25).map(|_| limits.reserve("http://a/events", "a", start)).collect();
        for (i, turn) in turns.iter().enumerate() {
            for (requests, per) in [(3, Duration::from_secs(1)), (10, Duration::from_secs(60))] {
                let within = turns[i..].iter().filter(|t| **t < *turn + per).count();
                assert!(within <= requests, "{within} in {per:?}");
            }
        }
        assert_eq!(turns[9] - start, Duration::from_secs(3), "and no slower than the limit allows");
        assert_eq!(turns[24] - start, Duration::from_secs(121));
        assert_eq!(limits.reserve("http://b/", "b", start), start, "another address does not wait");
    }

    #[test]
    fn who_comes_too_often_is_sent_away_for_as_long_as_it_takes() {
        let gate = Gate::new(3, Duration::from_secs(1));
        let start = Instant::now();
        let at = |millis: u64| gate.admit(start + Duration::from_millis(millis));
        assert_eq!((at(0), at(400), at(800)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(at(900), Err(Duration::from_millis(100)));
        assert_eq!(at(1000), Ok(()), "the first is a second ago");
        assert_eq!(at(1001), Err(Duration::from_millis(399)));
    }

    #[test]
    fn a_paused_host_waits_as_a_whole() {
        let limits = Limits::new(Vec::new());
        let now = Instant::now();
        limits.pause("a", now + Duration::from_secs(5));
        limits.pause("a", now + Duration::from_secs(2));
        assert_eq!(limits.reserve("http://a/x", "a", now), now + Duration::from_secs(5));
        assert_eq!(limits.reserve("http://b/x", "b", now), now);
    }
}
