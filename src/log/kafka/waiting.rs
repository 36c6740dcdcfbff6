//! Appends that wait for their records to come back: each record carries a mark, by which the follower knows whom to tell
//! what became of it.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::log::Appended;

/// Of this process and of the record.
pub(super) type Mark = [u8; 16];

pub(super) struct Waiting {
    /// By chance, so that another process's records, and those of an earlier one, are not taken for ours.
    process: u64,
    next: AtomicU64,
    waiters: Mutex<HashMap<Mark, oneshot::Sender<Appended>>>,
}

/// A record's mark, good until this is dropped.
pub(super) struct Ticket<'a> {
    waiting: &'a Waiting,
    mark: Mark,
    told: oneshot::Receiver<Appended>,
}

impl Waiting {
    pub fn new() -> Waiting {
        Waiting { process: rand::random(), next: AtomicU64::new(0), waiters: Mutex::default() }
    }

    pub fn ticket(&self) -> Ticket<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut mark = Mark::default();
        mark[..8].copy_from_slice(&self.process.to_be_bytes());
        mark[8..].copy_from_slice(&number.to_be_bytes());
        let (tell, told) = oneshot::channel();
        self.waiters().insert(mark, tell);
        Ticket { waiting: self, mark, told }
    }

    /// Tells whoever waits for the record with this mark; false where nobody does.
    pub fn tell(&self, mark: &[u8], became: Appended) -> bool {
        let waiter = self.waiters().remove(mark);
        waiter.is_some_and(|waiter| waiter.send(became).is_ok())
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<Mark, oneshot::Sender<Appended>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    pub fn mark(&self) -> Mark {
        self.mark
    }

    pub async fn arrived(mut self) -> Option<Appended> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.waiters().remove(&self.mark);
    }
}
