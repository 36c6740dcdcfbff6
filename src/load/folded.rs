//! What events were folded to: state that is not stored yet, and the rows that it makes.
//!
//! What must hold: state is stored when the tables hold its rows, and whoever tells others of itself after those that hear it
//! ([`Folded::store`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ahash::HashMap;

use super::{
    LoadError,
    fold::{Folder, Run},
    people::{self, People},
};
use crate::{
    base::Offset,
    facts::{ObjectKey, ObjectState, Stamped, Table, Want},
    store::Batch,
};

/// Objects a batch: the store takes one batch at a time, and others have some too.
const STORED_AT_ONCE: usize = 2_000;

/// A row, and the offset of the first event that its object's state holds: it tells a new object from a known one.
/// `None` where that is not known.
#[derive(Debug, Clone)]
pub struct Change {
    pub row: Stamped,
    pub first: Option<Offset>,
}

/// Rows by the table that they belong to, in the order of their offsets.
pub type Changes = BTreeMap<Table, Vec<Change>>;

/// State that events led to and that is not stored yet.
#[derive(Default)]
pub struct Folded {
    pub(super) objects: HashMap<ObjectKey, ObjectState>,
    pub(super) people: People,
    /// Whether the event at an offset is undecodable, where that changed.
    pub(super) undecodable: BTreeMap<Offset, bool>,
    /// What single events left open.
    pub(super) wanted: BTreeSet<Want>,
    /// State before this that is on its way to the store.
    pub(super) below: Option<Arc<Folded>>,
}

impl Folded {
    /// What it lacks is read from `below` before the store.
    pub fn over(&mut self, below: Option<Arc<Folded>>) {
        self.below = below;
    }

    /// Objects and people whose state is held.
    pub fn len(&self) -> usize {
        self.objects.len() + self.people.len()
    }

    /// The newest row of every object and person that the events changed.
    pub fn rows(&self) -> Changes {
        by_table(self.objects.values().filter_map(changed_row).chain(self.people.rows()))
    }

    /// Those of them that `run`, the last one folded, changed.
    pub fn rows_of(&mut self, run: &Run) -> Changes {
        let people = self.people.fresh_rows();
        let objects = run.touched.iter().filter_map(|key| self.objects.get(key)).filter_map(changed_row);
        by_table(objects.chain(people))
    }

    /// Stores the state and puts what is to go with the loader's position into `batch`. To be called when the tables hold
    /// the rows: a state that is ahead of the position takes in the same events again, and is the same.
    ///
    /// Objects go before, in batches, with `gently` each synced before the next: the disk then never has so much to write at
    /// once that others wait for it.
    pub fn store(&self, folder: &Folder, gently: bool, batch: &mut Batch) -> Result<(), LoadError> {
        let mut objects = self.in_order().into_iter().peekable();
        while objects.peek().is_some() {
            let mut some = folder.store.batch();
            for (key, state) in objects.by_ref().take(STORED_AT_ONCE) {
                some.put(&folder.objects, key, state.to_bytes()?);
                state.undecided().iter().for_each(|want| folder.wanted.add(want, &mut some));
            }
            some.commit()?;
            if gently {
                folder.store.sync()?;
            }
        }
        self.wanted.iter().for_each(|want| folder.wanted.add(want, batch));
        // That an event is mended must not be known before what it says is.
        for (offset, undecodable) in &self.undecodable {
            match undecodable {
                true => batch.put(&folder.undecodable, offset.0.to_be_bytes(), []),
                false => batch.delete(&folder.undecodable, offset.0.to_be_bytes()),
            }
        }
        self.people.store_changes(&folder.people, batch)
    }

    /// The objects, neighbours in the store's tree one after the other, the last first. An object's echoes are told only when
    /// it changes ([`ObjectState::admit_and_tell`]), so those that hear them must not be stored after it: who tells is an intent, and
    /// intents are the first table.
    fn in_order(&self) -> Vec<(Vec<u8>, &ObjectState)> {
        let mut objects: Vec<_> = self.objects.iter().map(|(key, state)| (key.to_bytes(), state)).collect();
        objects.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        objects
    }
}

fn by_table(rows: impl Iterator<Item = Change>) -> Changes {
    let mut all = Changes::new();
    for change in rows {
        all.entry(change.row.row.table()).or_default().push(change);
    }
    sort(&mut all);
    all
}

pub(super) fn sort(changes: &mut Changes) {
    for changes in changes.values_mut() {
        changes.sort_by_key(|c| c.row.offset);
    }
}

fn changed_row(state: &ObjectState) -> Option<Change> {
    stamped(state).map(|row| Change { row, first: state.first_offset() })
}

fn stamped(state: &ObjectState) -> Option<Stamped> {
    let (row, offset) = (state.row()?, state.last_offset()?);
    let account = state.account().map(str::to_owned);
    Some(Stamped { row, account, livemode: state.key().livemode, offset })
}

/// Every row of the folded tables, a table after the other, from all state that the store holds.
pub fn all_rows(folder: &Folder) -> impl Iterator<Item = Result<Stamped, LoadError>> + use<> {
    let objects = folder.objects.prefix(b"").filter_map(|entry| {
        let read = || -> Result<Option<Stamped>, LoadError> {
            let (_, bytes) = entry?;
            Ok(stamped(&ObjectState::from_bytes(bytes.as_ref())?))
        };
        read().transpose()
    });
    let people = people::all_rows(&folder.people).flat_map(|rows| match rows {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    objects.chain(people)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Logged, Micros, Pseudonymizer, SharedAddresses, Source},
        facts::{Decoder, Row},
        store::{Store, Vault},
        tests::facts::envelope,
    };

    fn event(offset: u64, kind: &str, object: &str) -> Logged {
        let payload = format!(r#"{{"id":"evt_{offset}","type":"{kind}","data":{{"object":{object}}}}}"#);
        let at = Micros::from_seconds(1_700_000_000 + offset as i64).unwrap();
        let envelope = envelope(Source::Stripe, &format!("evt_{offset}"), kind, at, &payload);
        Logged { offset: Offset(offset), envelope }
    }

    /// An intent whose charge hears from it alone which invoice it is of.
    fn paid() -> [Logged; 3] {
        let made = r#""created":1700000000,"amount":1200,"currency":"eur","status":"succeeded""#;
        [
            event(
                0,
                "charge.succeeded",
                &format!(r#"{{"id":"ch_1","object":"charge","payment_intent":"pi_1",{made}}}"#),
            ),
            event(
                1,
                "payment_intent.succeeded",
                &format!(r#"{{"id":"pi_1","object":"payment_intent","latest_charge":"ch_1",{made}}}"#),
            ),
            event(
                2,
                "invoice_payment.paid",
                r#"{"id":"inpay_1","object":"invoice_payment","amount_paid":1200,"created":1700000000,"currency":"eur",
                    "invoice":"in_1","payment":{"payment_intent":"pi_1","type":"payment_intent"},"status":"paid"}"#,
            ),
        ]
    }

    /// A failed try to pay the intent.
    fn declined(offset: u64, id: &str, created: i64) -> Logged {
        let object = format!(
            r#"{{"id":"{id}","object":"charge","payment_intent":"pi_1","amount":1200,"currency":"eur","status":"failed",
                "created":{created}}}"#
        );
        event(offset, "charge.failed", &object)
    }

    struct Home {
        store: Store,
        folder: Folder,
        _dir: tempfile::TempDir,
    }

    impl Home {
        /// One that stored what `events` come to.
        fn after(events: &[Logged]) -> Home {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("state")).unwrap();
            let vault = Vault::new(&store, &[7; 32]).unwrap();
            let decoder = Decoder::new(Pseudonymizer::new(&[7; 32]), None, SharedAddresses::default());
            let home = Home { folder: Folder::open(&store, vault, decoder, "m").unwrap(), store, _dir: dir };
            home.at_the_end_of(events);
            home
        }

        fn folded(&self, events: &[Logged]) -> Folded {
            let mut folded = Folded::default();
            self.folder.fold(&mut folded, events, &[]).unwrap();
            folded
        }

        /// All that is stored once the events were folded to their end.
        fn at_the_end_of(&self, events: &[Logged]) -> Vec<(Vec<u8>, Vec<u8>)> {
            let mut batch = self.store.batch();
            self.folded(events).store(&self.folder, false, &mut batch).unwrap();
            batch.commit().unwrap();
            let entries = self.folder.objects.prefix(b"").chain(self.folder.people.prefix(b""));
            entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
        }
    }

    /// All that is stored of `events` after those `before`, wherever storing is cut off the first time.
    fn however_cut(before: &[Logged], events: &[Logged]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let whole = Home::after(before).at_the_end_of(events);
        let objects = Home::after(before).folded(events).in_order().len();
        assert!(objects > 2);
        for cut in 0..=objects {
            let home = Home::after(before);
            let folded = home.folded(events);
            let mut batch = home.store.batch();
            for (key, state) in folded.in_order().into_iter().take(cut) {
                batch.put(&home.folder.objects, key, state.to_bytes().unwrap());
            }
            batch.commit().unwrap();
            assert_eq!(home.at_the_end_of(events), whole, "the first {cut} of {objects} were stored");
        }
        whole
    }

    fn row_of(state: &[(Vec<u8>, Vec<u8>)], table: Table, id: &str) -> Row {
        let is = |key: &[u8]| key.ends_with(id.as_bytes()) && key[0] == table as u8;
        let (_, bytes) = state.iter().find(|(key, _)| is(key)).unwrap();
        ObjectState::from_bytes(bytes).unwrap().row().unwrap()
    }

    #[test]
    fn state_that_was_stored_in_part_is_whole_when_the_events_are_folded_again() {
        let whole = however_cut(&[], &paid());
        let Row::Charge(charge) = row_of(&whole, Table::Charges, "ch_1") else { panic!("a charge") };
        assert_eq!(charge.invoice_id.as_deref(), Some("in_1"), "the charge heard it");
    }

    /// Of what they hear some had heard a part before: a try between two that have their numbers, and the invoice of all.
    #[test]
    fn what_is_heard_anew_is_heard_however_storing_is_cut_off() {
        let before = [declined(0, "ch_a", 1_700_000_100), declined(1, "ch_c", 1_700_000_300)];
        let [.., invoiced] = paid();
        let whole =
            however_cut(&before, &[declined(2, "ch_b", 1_700_000_200), Logged { offset: Offset(3), ..invoiced }]);
        let attempts = ["ch_a", "ch_b", "ch_c"].map(|id| match row_of(&whole, Table::PaymentAttempts, id) {
            Row::PaymentAttempt(attempt) => (attempt.attempt_no, attempt.invoice_id),
            other => panic!("{other:?}"),
        });
        assert_eq!(attempts, [1, 2, 3].map(|no| (Some(no), Some("in_1".to_owned()))));
    }
}
