//! The order of events within one second: which sight of an object came last.
//!
//! Stripe's times have whole seconds and say nothing on the order inside one. An order is admitted where the creation
//! comes first, each step can follow the one before it, and each sight that tells what the object was before follows a
//! sight of just that. If all admitted orders end in one row, that is the state; if not, it is ambiguous, and a choice
//! is made that depends on the events alone. No arrival order enters anywhere.

use super::observation::Sight;

/// Above so many distinct sights in one second, orders are not searched: the search doubles with each.
const SEARCHED: usize = 10;

/// The index of the last sight, and whether that is certain. `sights`: distinct, of one second, not empty.
pub(super) fn last(sights: &[Sight]) -> (usize, bool) {
    if sights.len() == 1 {
        return (0, true);
    }
    let distinct = moments(sights);
    let by_links = ends(
        sights,
        &distinct,
        |a, b| follows(a, b) && b.prior.is_none_or(|p| p == a.state),
        |b| b.prior.is_none_or(|p| distinct.iter().all(|&i| sights[i].state != p || p == b.state)),
    );
    let candidates = match by_links {
        Some(ends) if !ends.is_empty() => ends,
        // Between two of the sights lies one that was never received: links alone decide nothing.
        _ => match ends(sights, &distinct, follows, |_| true) {
            Some(ends) if !ends.is_empty() => ends,
            _ => return (choice(sights, &distinct), agree(sights, &distinct)),
        },
    };
    (choice(sights, &candidates), agree(sights, &candidates))
}

fn follows(a: &Sight, b: &Sight) -> bool {
    a.step.may_precede(&b.step)
}

/// The sights less those that show the same moment as another: the same change told by two event types.
fn moments(sights: &[Sight]) -> Vec<usize> {
    let better = |a: &Sight, b: &Sight| standing(a) > standing(b);
    let hidden = |i: usize| {
        let a = &sights[i];
        sights.iter().enumerate().any(|(j, b)| {
            let same_change = a.prior == b.prior && a.step.phase.min(1) == b.step.phase.min(1) && better(b, a);
            let told_better = a.prior.is_none() && b.prior.is_some() && a.step.phase > 0;
            i != j && a.state == b.state && a.row == b.row && (same_change || told_better)
        })
    };
    (0..sights.len()).filter(|&i| !hidden(i)).collect()
}

/// Which sights an admitted order of all can end in. `None` where there are too many to search.
fn ends(
    sights: &[Sight],
    among: &[usize],
    may_follow: impl Fn(&Sight, &Sight) -> bool,
    may_start: impl Fn(&Sight) -> bool,
) -> Option<Vec<usize>> {
    let n = among.len();
    if n > SEARCHED {
        return None;
    }
    // reached[set] = the sights that an admitted order of just this set can end in, as bits.
    let mut reached = vec![0u32; 1 << n];
    let allowed: Vec<u32> = (0..n)
        .map(|b| (0..n).filter(|&a| a != b && may_follow(&sights[among[a]], &sights[among[b]])).map(|a| 1 << a).sum())
        .collect();
    for set in 1usize..1 << n {
        for b in (0..n).filter(|b| set >> b & 1 == 1) {
            let rest = set & !(1 << b);
            let start = rest == 0 && may_start(&sights[among[b]]);
            if start || reached[rest] & allowed[b] != 0 {
                reached[set] |= 1 << b;
            }
        }
    }
    let all = reached.last().copied().unwrap_or_default();
    Some((0..n).filter(|b| all >> b & 1 == 1).map(|b| among[b]).collect())
}

/// Whether all of these show one row.
fn agree(sights: &[Sight], among: &[usize]) -> bool {
    among.windows(2).all(|pair| sights[pair[0]].row == sights[pair[1]].row)
}

/// The one to take of several that may be last.
fn choice(sights: &[Sight], among: &[usize]) -> usize {
    among.iter().copied().max_by_key(|&i| standing(&sights[i])).unwrap_or_default()
}

/// What decides between sights where nothing else does: the type's rank, then what the event says, so that a twin
/// under another id changes nothing, then the event.
pub(super) type Standing<'a> = (u8, u64, Option<u64>, &'a str, u64);

pub(super) fn standing(sight: &Sight) -> Standing<'_> {
    (sight.step.rank, sight.state.0, sight.prior.map(|p| p.0), &sight.event_id, sight.event_digest.0)
}
