//! How long to wait before asking again whoever did not answer as wanted: the one way in which anything here does.

use std::time::Duration;

/// Bounds that double with each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
}

impl Backoff {
    /// A wait after `failures` in a row: even chance of everything up to the bound ("full jitter"), so that what failed
    /// together does not come back together.
    pub fn wait(&self, failures: u32) -> Duration {
        let bound = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        bound.mul_f64(rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_below_the_bound() {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_millis(500) };
        for failures in 1..40 {
            assert!((0..100).all(|_| backoff.wait(failures) <= backoff.longest));
        }
        for (failures, bound) in [(1, 100), (2, 200), (3, 400), (4, 500)] {
            let longest = (0..1000).map(|_| backoff.wait(failures)).max().unwrap().as_millis();
            assert!(longest <= bound && longest > bound * 8 / 10, "{failures}: {longest}");
        }
    }
}
