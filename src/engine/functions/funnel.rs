//! How far one person got through a funnel: ClickHouse's `windowFunnel`, as a function of the *set* of events.
//!
//! Events are read in the order of time, and those of one moment in the order of the steps that they fill. A level is
//! the longest run of steps 1, 2, 3 … that lies within the window, which starts at its step 1; a later step 1 starts
//! a new run. Per level only the run that started last is kept: whatever fits the window of an earlier start fits its
//! window too.
//!
//! Where ClickHouse's answer depends on accidents, ours does not: a repeated step under `strict_deduplication` ends
//! with the highest level reached, whatever the event before it was, and under `strict_order` a new step 1 after
//! step 2 ends the run (ClickHouse's releases differ on it; its own test suite and PostHog's strict funnel say so).

use std::str::FromStr;

/// One event: its time, and one bit for each step whose condition it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub at: i64,
    pub steps: u32,
}

/// Steps that a funnel may have: the bits of [`Event::steps`].
pub(super) const MAX_STEPS: usize = 32;

/// How strictly the steps follow one another. Several may be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Mode {
    /// Nothing else between the steps: an event that fills none ends the run.
    pub order: bool,
    /// Each step later than the one before, not at the same moment.
    pub increase: bool,
    /// One event fills one step.
    pub once: bool,
    /// A step that comes again ends the run.
    pub deduplication: bool,
    /// The steps in any order: the largest number of different steps in one window.
    pub unordered: bool,
}

pub(super) const MODES: [&str; 6] =
    ["default", "strict_order", "strict_increase", "strict_once", "strict_deduplication", "unordered"];

impl FromStr for Mode {
    /// The name that is none.
    type Err = String;

    /// Names of [`MODES`], separated by commas.
    fn from_str(text: &str) -> Result<Mode, String> {
        let mut mode = Mode::default();
        for name in text.split(',').map(str::trim) {
            match name {
                "default" => {}
                "strict_order" => mode.order = true,
                "strict_increase" => mode.increase = true,
                "strict_once" => mode.once = true,
                "strict_deduplication" => mode.deduplication = true,
                "unordered" => mode.unordered = true,
                other => return Err(other.to_owned()),
            }
        }
        Ok(mode)
    }
}

/// The level that `events` reach in a funnel of `steps` steps, 0 to `steps`. `window` is in the unit of the times and
/// inclusive. Sorts `events`.
pub(super) fn level(events: &mut [Event], steps: usize, window: i64, mode: Mode) -> usize {
    events.sort_unstable();
    if mode.unordered {
        return unordered(events, window);
    }
    let mut run = Run { runs: [None; MAX_STEPS], steps, window, mode };
    for moment in events.chunk_by(|a, b| a.at == b.at) {
        if run.step_through(moment) {
            break;
        }
    }
    run.level()
}

/// The start and the last event of a run.
#[derive(Clone, Copy)]
struct Reached {
    start: i64,
    last: i64,
}

struct Run {
    /// By step: the run that reached it and started last. Without gaps from the first.
    runs: [Option<Reached>; MAX_STEPS],
    steps: usize,
    window: i64,
    mode: Mode,
}

impl Run {
    fn level(&self) -> usize {
        self.runs[..self.steps].iter().take_while(|r| r.is_some()).count()
    }

    /// Takes all events of one moment, sorted by steps; true where nothing later can count.
    fn step_through(&mut self, moment: &[Event]) -> bool {
        let (Some(first), any) = (moment.first(), moment.iter().fold(0, |all, e| all | e.steps)) else { return false };
        if self.mode.order && first.steps == 0 && self.runs[0].is_some() {
            return true;
        }
        let before = self.runs;
        for step in (0..self.steps).filter(|s| any & (1 << s) != 0) {
            if step == 0 {
                if self.mode.order && self.runs.get(1).is_some_and(Option::is_some) {
                    return true;
                }
                self.runs[0] = Some(Reached { start: first.at, last: first.at });
                continue;
            }
            if self.is_broken_by(step) {
                return true;
            }
            if let Some(start) = self.start_of(step, moment, &before) {
                self.runs[step] = Some(Reached { start, last: first.at });
                if step + 1 == self.steps {
                    return true;
                }
            }
            let again = moment.iter().filter(|e| e.steps & (1 << step) != 0).count() > 1;
            if self.mode.deduplication && again && self.runs[step].is_some() {
                return true;
            }
        }
        false
    }

    /// Whether `step`, not the first, comes again or out of order.
    fn is_broken_by(&self, step: usize) -> bool {
        (self.mode.deduplication && self.runs[step].is_some())
            || (self.mode.order && self.runs[0].is_some() && self.runs[step - 1].is_none())
    }

    /// The latest start of a run that an event of this moment brings to `step`.
    fn start_of(&self, step: usize, moment: &[Event], before: &[Option<Reached>; MAX_STEPS]) -> Option<i64> {
        let at = moment.first()?.at;
        let fits = |run: &Reached| at <= run.start.saturating_add(self.window);
        let earlier = |run: &Reached| !self.mode.increase || run.last < at;
        if !self.mode.once {
            return self.runs[step - 1].filter(|r| fits(r) && earlier(r)).map(|r| r.start);
        }
        if self.mode.increase {
            return before[step - 1].filter(fits).map(|r| r.start);
        }
        // The run may take several steps at this moment, each by an event of its own: from a start here, or from any
        // level reached before. A run that reached less started no earlier, so the first that works is the latest.
        if matches(0..=step, moment) {
            return Some(at);
        }
        (0..step)
            .filter_map(|reached| before[reached].filter(fits).map(|run| (reached, run)))
            .find(|(reached, _)| matches(reached + 1..=step, moment))
            .map(|(_, run)| run.start)
    }
}

/// Whether each of `steps` can be filled by an event of its own (augmenting paths, as by Kuhn).
fn matches(steps: std::ops::RangeInclusive<usize>, events: &[Event]) -> bool {
    let mut taken: Vec<Option<usize>> = vec![None; events.len()];
    steps.into_iter().all(|step| fill(step, events, &mut taken, &mut vec![false; events.len()]))
}

fn fill(step: usize, events: &[Event], taken: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for i in 0..events.len() {
        if events[i].steps & (1 << step) == 0 || std::mem::replace(&mut tried[i], true) {
            continue;
        }
        if taken[i].is_none_or(|other| fill(other, events, taken, tried)) {
            taken[i] = Some(step);
            return true;
        }
    }
    false
}

/// The largest number of different steps in one window.
fn unordered(events: &[Event], window: i64) -> usize {
    let (mut counts, mut first, mut most) = ([0usize; MAX_STEPS], 0, 0);
    let bits = |steps: u32| (0..MAX_STEPS).filter(move |s| steps & (1 << s) != 0);
    for event in events {
        bits(event.steps).for_each(|s| counts[s] += 1);
        while events[first].at.saturating_add(window) < event.at {
            bits(events[first].steps).for_each(|s| counts[s] -= 1);
            first += 1;
        }
        most = most.max(counts.iter().filter(|c| **c > 0).count());
    }
    most
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn level_of(events: &[(i64, u32)], steps: usize, window: i64, mode: &str) -> usize {
        let mut events: Vec<Event> = events.iter().map(|(at, steps)| Event { at: *at, steps: *steps }).collect();
        level(&mut events, steps, window, mode.parse().unwrap())
    }

    /// PostHog's names for what we call otherwise; Mixpanel's anchored window is not ours, which restarts.
    fn our_mode(case: &Value) -> String {
        let names: Vec<&str> = case["mode"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
        match names.join(",").as_str() {
            "ordered" | "first-entry anchored" => "default".to_owned(),
            "strict" => "strict_order".to_owned(),
            ours => ours.to_owned(),
        }
    }

    /// `=x` or `<=x`, as the cases write their conditions.
    fn holds(condition: &str, event: &Value) -> bool {
        let text = event.as_str().map_or_else(|| event.to_string(), str::to_owned);
        let number = |bound: &str| event.as_i64().unwrap().cmp(&bound.parse().unwrap());
        if let Some(bound) = condition.strip_prefix("<=") {
            number(bound).is_le()
        } else if let Some(bound) = condition.strip_prefix(">=") {
            number(bound).is_ge()
        } else {
            condition.strip_prefix('=').unwrap() == text
        }
    }

    /// Levels by user; u64 times beyond i64 would not fit, and none of the cases has them.
    fn levels(case: &Value) -> std::collections::BTreeMap<String, usize> {
        let steps: Vec<&str> = case["steps"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
        let mode: Mode = our_mode(case).parse().unwrap();
        let mut users = std::collections::BTreeMap::<String, Vec<Event>>::new();
        for event in case["events"].as_array().unwrap() {
            let filled =
                steps.iter().enumerate().filter(|(_, c)| holds(c, &event[2])).fold(0, |all, (i, _)| all | 1 << i);
            if filled != 0 || mode.order {
                let event_of = Event { at: event[1].as_i64().unwrap(), steps: filled };
                users.entry(event[0].to_string()).or_default().push(event_of);
            } else {
                users.entry(event[0].to_string()).or_default();
            }
        }
        let window = case["window"].as_i64().unwrap();
        users.into_iter().map(|(u, mut e)| (u, level(&mut e, steps.len(), window, mode))).collect()
    }

    #[test]
    fn reference_cases_have_their_levels() {
        let dir = std::env::var("TILLSTREAM_REFERENCE").unwrap_or_else(|_| "../shared/reference".to_owned());
        let Ok(text) = std::fs::read_to_string(format!("{dir}/funnel/funnel_cases.json")) else {
            assert!(!(std::env::var("CI").is_ok() && std::path::Path::new("../shared").exists()), "no reference data");
            eprintln!("skipped: no reference data");
            return;
        };
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        let mut ran = 0;
        for case in cases.iter().filter(|c| c["required"] != false) {
            let (id, ours) = (&case["id"], levels(case));
            if let Some(expected) = case["expected_level_per_user"].as_object() {
                for (user, level) in expected {
                    // The one case that documents another product's semantics, and says what ours gives.
                    let level = if id == "mp-01" { 3 } else { level.as_u64().unwrap() as usize };
                    assert_eq!(ours[user], level, "{id}, user {user}");
                }
            } else {
                for (step, people) in case["expected_step_counts"].as_array().unwrap().iter().enumerate() {
                    let reached = ours.values().filter(|l| **l > step).count() as u64;
                    assert_eq!(reached, people.as_u64().unwrap(), "{id}, step {}", step + 1);
                }
            }
            ran += 1;
        }
        assert_eq!(ran, cases.len() - 5);
        for case in cases.iter().filter(|c| c["mode"] == serde_json::json!(["strict_order"]) && c["required"] == false)
        {
            for (user, level) in case["upstream_reference"].as_object().unwrap() {
                assert_eq!(levels(case)[user] as u64, level.as_u64().unwrap(), "{}, user {user}", case["id"]);
            }
        }
    }

    #[test]
    fn a_later_first_step_restarts_the_window_and_the_window_is_inclusive() {
        assert_eq!(level_of(&[(0, 1), (1800, 1), (2700, 2), (4500, 4)], 3, 3600, "default"), 3);
        assert_eq!(level_of(&[(0, 1), (10, 2)], 2, 10, "default"), 2);
        assert_eq!(level_of(&[(0, 1), (11, 2)], 2, 10, "default"), 1);
    }

    #[test]
    fn once_gives_every_step_an_event_of_its_own() {
        // Three steps, three events of one moment: a, b fill step 2 or 3, c only step 2.
        assert_eq!(level_of(&[(0, 1), (0, 0b110), (0, 0b010)], 3, 9, "strict_once"), 3);
        assert_eq!(level_of(&[(0, 0b111)], 3, 9, "strict_once"), 1);
        assert_eq!(level_of(&[(0, 0b111)], 3, 9, "default"), 3);
        assert_eq!(level_of(&[(0, 0b111), (1, 0b111)], 3, 9, "strict_once"), 2);
    }

    #[test]
    fn a_repeat_under_deduplication_ends_with_the_level_reached() {
        assert_eq!(level_of(&[(0, 1), (1, 2), (2, 8), (3, 2)], 4, 9, "strict_deduplication"), 2);
        assert_eq!(level_of(&[(0, 1), (1, 2), (2, 1), (3, 2), (4, 4)], 3, 9, "strict_deduplication"), 2);
    }

    /// The longest run that any choice of events in time order allows, by trying them all.
    fn exhaustive(events: &[Event], steps: usize, window: i64, mode: Mode) -> usize {
        // `used`: one bit an event.
        fn from(all: &[Event], step: usize, steps: usize, last: i64, until: i64, used: u32, mode: Mode) -> usize {
            let mut best = step;
            for (i, e) in all.iter().enumerate().filter(|(_, e)| step < steps && e.steps & (1 << step) != 0) {
                let after = if mode.increase { e.at > last } else { e.at >= last };
                if after && e.at <= until && !(mode.once && used & (1 << i) != 0) {
                    best = best.max(from(all, step + 1, steps, e.at, until, used | 1 << i, mode));
                }
            }
            best
        }
        let starts = (0..events.len()).filter(|i| events[*i].steps & 1 != 0);
        let level = |i: usize| from(events, 1, steps, events[i].at, events[i].at + window, 1 << i, mode);
        starts.map(level).max().unwrap_or(0)
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        proptest::collection::vec((0i64..12, 0u32..8), 0..10)
            .prop_map(|all| all.into_iter().map(|(at, steps)| Event { at, steps }).collect())
    }

    proptest! {
        #[test]
        fn the_default_level_is_the_longest_run_there_is(mut events in events(), window in 0i64..8) {
            let mode = Mode::default();
            let longest = exhaustive(&events, 3, window, mode);
            prop_assert_eq!(level(&mut events, 3, window, mode), longest);
        }

        #[test]
        fn once_is_the_longest_run_of_different_events(mut events in events(), window in 0i64..8, later in any::<bool>()) {
            let mode = Mode { once: true, increase: later, ..Mode::default() };
            let longest = exhaustive(&events, 3, window, mode);
            prop_assert_eq!(level(&mut events, 3, window, mode), longest);
        }

        #[test]
        fn no_order_of_arrival_changes_a_level(events in events(), window in 0i64..8, seed in any::<u64>()) {
            use rand::{SeedableRng, seq::SliceRandom};
            let mut shuffled = events.clone();
            shuffled.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            for name in MODES.into_iter().chain(["strict_order,strict_once", "strict_once,strict_deduplication"]) {
                let mode: Mode = name.parse().unwrap();
                prop_assert_eq!(
                    level(&mut events.clone(), 3, window, mode), level(&mut shuffled, 3, window, mode), "{}", name);
            }
        }
    }
}
