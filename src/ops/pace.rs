//! How often what follows every commit may run.
//!
//! It reads all that a shop has seen, and beside a steady flow of events it would take all of a machine: after each time
//! others have it for longer than that took, and nobody waits for long.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For so many times as long as the work took others have the machine …
const REST: u32 = 4;
/// … but not for longer than a message may be late.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Work was done from `began` to `ended`. A rest that is longer than what that earns goes on.
    pub fn worked(&self, began: Instant, ended: Instant) {
        let until = ended + ((ended - began) * REST).min(LONGEST_REST);
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *rests = (*rests).max(Some(until));
    }

    pub fn rests(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_as_long_as_the_work_wants_and_not_cut_short_by_a_shorter_one() {
        let (pace, began) = (Pace::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(!pace.rests(began));
        pace.worked(at(0), at(2));
        assert!(pace.rests(at(9)) && !pace.rests(at(10)));
        pace.worked(at(2), at(3));
        assert!(pace.rests(at(9)) && !pace.rests(at(10)), "a second of work after two");
        pace.worked(at(10), at(10 + 3_600));
        assert!(pace.rests(at(3_669)) && !pace.rests(at(3_670)), "a minute at most");
    }
}
