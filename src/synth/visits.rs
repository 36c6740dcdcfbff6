//! Sessions, counted: what one person did in the shop with no half hour between one thing and the next.
//!
//! Who a browser's owner is may show only later, so where somebody used two devices within one stretch of time, what they did
//! is kept until the end; of all else only the number is.

use std::collections::HashMap;

use super::crowd::{Member, Node};
use crate::base::time::MINUTE;

const PAUSE: i64 = 30 * MINUTE;

/// Something done on a page of the shop. `alone`: an order, which without anything beside it is no session.
#[derive(Clone, Copy)]
struct Deed {
    at: i64,
    device: u8,
    alone: bool,
}

#[derive(Default)]
pub(super) struct Visits {
    /// By person: the stretch of time that is not over yet.
    open: HashMap<u32, Vec<Deed>>,
    /// Stretches on several devices, with whose they are.
    mixed: Vec<(u32, Vec<Deed>)>,
    sessions: i64,
}

impl Visits {
    /// In microseconds. Deeds of a person come in the order of their times, give or take less than the pause.
    pub fn did(&mut self, person: u32, device: u8, at: i64, alone: bool) {
        let stretch = self.open.entry(person).or_default();
        let over = stretch.iter().map(|deed| deed.at).max().is_some_and(|last| at > last + PAUSE);
        let done = if over { std::mem::take(stretch) } else { Vec::new() };
        stretch.push(Deed { at, device, alone });
        self.close(person, done);
    }

    /// Closes what nothing more can lengthen.
    pub fn forget_what_is_settled(&mut self, now: i64) {
        let over: Vec<u32> = self
            .open
            .iter()
            .filter(|(_, stretch)| stretch.iter().all(|deed| deed.at < now - 2 * PAUSE))
            .map(|(person, _)| *person)
            .collect();
        for person in over {
            let stretch = self.open.remove(&person).unwrap_or_default();
            self.close(person, stretch);
        }
    }

    /// How many sessions there were, by what is known in the end of whose the devices are.
    pub fn sessions(&mut self, crowd: &[Member]) -> i64 {
        self.forget_what_is_settled(i64::MAX);
        for (person, stretch) in std::mem::take(&mut self.mixed) {
            let mut by_owner: HashMap<usize, Vec<Deed>> = HashMap::new();
            for deed in stretch {
                let owner = crowd[person as usize].home(Node::Device(deed.device));
                by_owner.entry(owner).or_default().push(deed);
            }
            self.sessions += by_owner.into_values().map(runs).sum::<i64>();
        }
        self.sessions
    }

    fn close(&mut self, person: u32, stretch: Vec<Deed>) {
        let Some(first) = stretch.first() else { return };
        if stretch.iter().any(|deed| deed.device != first.device) {
            self.mixed.push((person, stretch));
        } else {
            self.sessions += runs(stretch);
        }
    }
}

/// Into how many sessions one person's deeds fall.
fn runs(mut deeds: Vec<Deed>) -> i64 {
    deeds.sort_by_key(|deed| deed.at);
    let runs = deeds.chunk_by(|a, b| b.at - a.at <= PAUSE);
    runs.filter(|run| run.iter().any(|deed| !deed.alone)).count() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::crowd::reached;

    #[test]
    fn two_devices_are_one_session_where_they_turn_out_to_be_one_persons() {
        let count = |linked: bool| {
            let mut member = Member::default();
            if linked {
                member.seen(&[Node::Device(0), Node::Device(1)], reached::PAGE);
            }
            let mut visits = Visits::default();
            for (device, minute) in [(0, 0), (1, 10), (0, 35), (0, 90)] {
                visits.did(0, device, minute * MINUTE, false);
            }
            // An order whose page nobody saw.
            visits.did(0, 0, 200 * MINUTE, true);
            visits.sessions(&[member])
        };
        assert_eq!((count(false), count(true)), (4, 2));
    }
}
