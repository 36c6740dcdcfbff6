//! The thread that adds identities to the index, beside the writer.
//!
//! The store takes one batch at a time, and a large one of the loader's holds it for a good part of a second: whoever waits
//! for the log's answer must not wait for that. Until they are in the index, identities are found here.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use ahash::HashMap;

use super::index::{Covered, Entry, Index, Key};
use crate::store::StoreError;

/// Entries that may wait: some megabytes, and what a start after a crash reads from the log again.
const MOST: usize = 100_000;

type Entries = HashMap<Key, Entry>;

/// The writer's end of it. Its errors are for good: duplicates can no longer be told.
pub(super) struct Keeper {
    /// Those that came since the last were handed over …
    fresh: Entries,
    covered: Covered,
    /// … and those that were, and are not known to be in the index yet.
    leaving: Option<Arc<Entries>>,
    out: mpsc::Sender<(Arc<Entries>, Covered)>,
    added: mpsc::Receiver<Result<(), StoreError>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub fn start(index: Index) -> io::Result<Keeper> {
        let (out, taken) = mpsc::channel::<(Arc<Entries>, Covered)>();
        let (tell, added) = mpsc::channel();
        let keep = move || {
            for (entries, covered) in taken {
                let added = index.add(entries.iter().map(|(key, entry)| (*key, *entry)), covered);
                // Where some are missing none may follow: what the index lacks is always the end of the log.
                let failed = added.is_err();
                if tell.send(added).is_err() || failed {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("log-index".into()).spawn(keep)?;
        let covered = Covered { end: 0, segment: 0 };
        Ok(Keeper { fresh: Entries::default(), covered, leaving: None, out, added, thread })
    }

    /// What is on its way to the index under a key.
    pub fn find(&self, key: &Key) -> Option<Entry> {
        self.fresh.get(key).or_else(|| self.leaving.as_ref()?.get(key)).copied()
    }

    /// Sees to it that `entries` come into the index, which then goes as far as `covered`.
    pub fn keep(&mut self, entries: Entries, covered: Covered) -> Result<(), String> {
        self.covered = covered;
        match self.fresh.is_empty() {
            true => self.fresh = entries,
            false => self.fresh.extend(entries),
        }
        self.go_on()?;
        while self.fresh.len() > MOST {
            self.wait()?;
            self.go_on()?;
        }
        Ok(())
    }

    /// Whether something waits to be handed over.
    pub fn is_waiting(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Hands over what waits, unless the thread is busy with what it was given before.
    pub fn go_on(&mut self) -> Result<(), String> {
        if self.leaving.is_some() {
            match self.added.try_recv() {
                Ok(added) => self.over(added)?,
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => return Err(ended()),
            }
        }
        if self.is_waiting() {
            let leaving = Arc::new(std::mem::take(&mut self.fresh));
            self.out.send((leaving.clone(), self.covered)).map_err(|_| ended())?;
            self.leaving = Some(leaving);
        }
        Ok(())
    }

    /// All of it in the index, and the thread at its end.
    pub fn close(mut self) -> Result<(), String> {
        while self.is_waiting() || self.leaving.is_some() {
            self.wait()?;
            self.go_on()?;
        }
        drop(self.out);
        self.thread.join().map_err(|_| ended())
    }

    fn wait(&mut self) -> Result<(), String> {
        match self.leaving {
            Some(_) => self.added.recv().map_err(|_| ended()).and_then(|added| self.over(added)),
            None => Ok(()),
        }
    }

    fn over(&mut self, added: Result<(), StoreError>) -> Result<(), String> {
        self.leaving = None;
        added.map_err(|e| e.to_string())
    }
}

fn ended() -> String {
    "the thread that keeps the index ended abnormally".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Digest, Offset},
        store::Store,
    };

    #[test]
    fn identities_are_found_from_when_they_came_and_are_in_the_index_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&Store::open(&dir.path().join("state")).unwrap()).unwrap();
        let mut keeper = Keeper::start(index.clone()).unwrap();
        let key = |n: u64| -> Key { std::array::from_fn(|i| n.to_be_bytes()[i % 8]) };
        let entry = |n| Entry { offset: Offset(n), says: (n % 2 == 0).then_some(Digest(!n)) };
        // Groups of some, and one that is more than may wait.
        let groups = (0..50).map(|n| n * 10..(n + 1) * 10).chain(std::iter::once(500..501 + MOST as u64));
        for group in groups {
            let end = group.end;
            let entries = group.clone().map(|n| (key(n), entry(n)));
            keeper.keep(entries.collect(), Covered { end, segment: 0 }).unwrap();
            for n in group.step_by(7) {
                let found = keeper.find(&key(n)).or_else(|| index.find(&key(n)).unwrap());
                assert_eq!(found, Some(entry(n)));
            }
            assert!(keeper.fresh.len() <= MOST);
        }
        assert_eq!(keeper.find(&key(u64::MAX)), None);
        keeper.close().unwrap();
        let end = 501 + MOST as u64;
        assert_eq!(index.covered().unwrap(), Some(Covered { end, segment: 0 }));
        assert!((0..end).all(|n| index.find(&key(n)).unwrap() == Some(entry(n))));
    }
}
