//! What was folded and is not committed yet: the rows so far, and the state that they lead to.
//!
//! What must hold: it is a run of events without a gap, and rows, state and tail are of all of them; a run that fails is
//! dropped whole. It writes nothing but the addresses that events name, which a commit's rows must find.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    LoadError, Loaded, STAGE,
    fold::Folder,
    folded::{Changes, Folded},
    publish::{self, Appends},
};
use crate::{
    base::{Logged, Micros, Offset},
    facts::loads::Load,
    lake::{Lake, Tail},
};

/// A commit costs a file and a dozen syncs a table, whatever is in it: every event is too often, some seconds are fine.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Payload that is enough for a commit, however old: it is held in memory some three times over.
const COMMIT_BYTES: u64 = 32 << 20;
/// Objects and people whose state is: each takes a kilobyte or two.
const COMMIT_STATES: usize = 100_000;

/// See the module.
pub struct Pending {
    first: Offset,
    last: Offset,
    since: Instant,
    read_at: Micros,
    loaded: Loaded,
    folded: Folded,
    /// Rows of tables that are only appended to.
    appends: Appends,
    /// What readers see meanwhile …
    tail: Tail,
    /// … and where what they do not see begins.
    hidden: Option<Offset>,
}

impl Pending {
    /// Nothing yet; `first` is the offset of the first event to come.
    pub fn new(first: Offset) -> Pending {
        Pending {
            first,
            last: first,
            since: Instant::now(),
            read_at: Micros::default(),
            loaded: Loaded::default(),
            folded: Folded::default(),
            appends: Appends::default(),
            tail: Tail::of(STAGE),
            hidden: None,
        }
    }

    /// Folds `events`, which follow on those before and are not empty. With `show` their rows go to the tail as well.
    pub fn add(
        &mut self,
        folder: &Folder,
        lake: &Lake,
        (mut events, again): (Vec<Logged>, Vec<Logged>),
        show: bool,
    ) -> Result<Loaded, LoadError> {
        let run = folder.fold(&mut self.folded, &events, &again)?;
        folder.keep_contacts(&run)?;
        run.redact(&mut events);
        let loaded = Loaded {
            events: events.len() as u64,
            bytes: events.iter().map(|e| e.envelope.payload.len() as u64).sum(),
            rejected: run.rejected,
            quarantined_facts: run.quarantined.len() as u64 - run.rejected,
            unhandled: run.unhandled,
        };
        if !show && self.hidden.is_none() {
            self.hidden = events.first().map(|e| e.offset);
        }
        self.last = events.last().map_or(self.last, |e| e.offset);
        self.read_at = Micros::now();
        self.loaded += loaded;
        let changed = if show { self.folded.rows_of(&run) } else { Changes::new() };
        let merchant = folder.merchant_id();
        let mut appends = publish::raw_appends(lake, merchant, self.first, &events, run.quarantined)?;
        appends.extend(publish::table_appends(lake, merchant, run.appended)?);
        if show {
            let hot = publish::hot_rows(lake, merchant, changed)?;
            appends.batches().for_each(|(table, batch)| self.tail.append(table, self.last.0 as i64, batch.clone()));
            hot.batches().for_each(|(changes, batch)| self.tail.lay_over(changes, batch.clone()));
        }
        self.appends.extend(appends);
        Ok(loaded)
    }

    pub fn is_due(&self) -> bool {
        self.since.elapsed() >= COMMIT_EVERY || self.is_full()
    }

    /// Whether it is time for a commit, however old it is.
    pub fn is_full(&self) -> bool {
        self.loaded.bytes >= COMMIT_BYTES || self.folded.len() >= COMMIT_STATES
    }

    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The first offset whose rows are not in the tail.
    pub fn hidden(&self) -> Option<Offset> {
        self.hidden
    }

    /// What is folded next reads `below` before the store: state that is on its way there.
    pub fn over(&mut self, below: Option<Arc<Folded>>) {
        self.folded.over(below);
    }

    /// Taken apart for its commit.
    pub fn into_parts(self) -> Parts {
        let load = Load {
            first: self.first,
            last: self.last,
            events: self.loaded.events,
            read_at: self.read_at,
            committed_at: Micros::default(),
        };
        let Pending { loaded, folded, appends, tail, hidden, .. } = self;
        Parts { load, loaded, folded, appends, tail, hidden }
    }
}

/// What a commit is made of.
pub struct Parts {
    /// All but when it was committed.
    pub load: Load,
    pub loaded: Loaded,
    pub folded: Folded,
    pub appends: Appends,
    pub tail: Tail,
    pub hidden: Option<Offset>,
}
