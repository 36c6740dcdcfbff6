//! Objects that Stripe's API is to be asked for: those whose events leave open what they are by now, and those that a thin
//! event named and did not show.
//!
//! A key is the object's, then the time in eight bytes; a value is the time before which nobody asks again, in eight bytes, then
//! the thin event's id. What must hold: an entry goes only when an answer is in the log, when there is none to be had, or when
//! events have told meanwhile what it is for. One that comes back, because a crash or a rebuild folds its event again, costs at
//! most a question.

use super::{LoadError, fold::OBJECTS};
use crate::{
    base::{Micros, time::SECOND},
    facts::{ObjectKey, ObjectState, Table},
    store::{Batch, Keyspace, Store, StoreError},
};

const WANTED: &str = "wanted";
/// Answers have whole seconds: what is asked for within the second of its event might be answered as of before. And the twin of
/// a thin event is on the way.
const RIPE: i64 = 2 * SECOND;
/// Met wants that are struck off together: few, as one of them may be wanted again meanwhile.
const STRUCK_AT_ONCE: usize = 100;

/// What is known of `key` is to be of `since`, or later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    pub key: ObjectKey,
    pub since: Micros,
    /// The event that did not show it, by the id that its twin with the data has too. `None`: the events of that second left
    /// open which came last.
    pub event: Option<String>,
}

impl Want {
    fn key(&self) -> Vec<u8> {
        let mut bytes = self.key.to_bytes();
        bytes.extend_from_slice(&self.since.0.to_be_bytes());
        bytes
    }

    fn value(&self, not_before: Micros) -> Vec<u8> {
        let mut bytes = not_before.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(self.event.as_deref().unwrap_or_default().as_bytes());
        bytes
    }

    /// And the time before which nobody asks. `None` for what this build did not write.
    fn read(key: &[u8], value: &[u8]) -> Option<(Want, Micros)> {
        let micros = |bytes: &[u8; 8]| Micros(i64::from_be_bytes(*bytes));
        let (key, since) = key.split_last_chunk::<8>()?;
        let [table, livemode, id @ ..] = key else { return None };
        let (not_before, event) = value.split_first_chunk::<8>()?;
        let (table, livemode) = (*Table::ALL.get(usize::from(*table))?, *livemode == 1);
        let key = ObjectKey { table, livemode, id: str::from_utf8(id).ok()?.to_owned() };
        let event = (!event.is_empty()).then(|| String::from_utf8_lossy(event).into_owned());
        Some((Want { key, since: micros(since), event }, micros(not_before)))
    }
}

/// See the module. Clones are the same list.
#[derive(Clone)]
pub struct Wanted {
    entries: Keyspace,
    objects: Keyspace,
    store: Store,
}

impl Wanted {
    pub fn open(store: &Store) -> Result<Wanted, StoreError> {
        Ok(Wanted { entries: store.keyspace(WANTED)?, objects: store.keyspace(OBJECTS)?, store: store.clone() })
    }

    pub(super) fn entries(&self) -> &Keyspace {
        &self.entries
    }

    pub(super) fn add(&self, want: &Want, batch: &mut Batch) {
        batch.put(&self.entries, want.key(), want.value(Micros(0)));
    }

    /// The wants of at most `most` objects of one table and world that may be asked for at `now`, an object's together. Those
    /// that events have met by the last commit are struck off.
    pub fn ripe(&self, table: Table, livemode: bool, most: usize, now: Micros) -> Result<Vec<Vec<Want>>, LoadError> {
        let mut ripe: Vec<Vec<Want>> = Vec::new();
        self.each_open(table, livemode, |want, not_before| {
            if not_before > now || want.since.plus(RIPE) > now {
                return true;
            }
            let full = ripe.len() >= most;
            match ripe.last_mut().filter(|same| same.iter().all(|other| other.key == want.key)) {
                Some(same) => same.push(want),
                None if full => return false,
                None => ripe.push(vec![want]),
            }
            true
        })?;
        Ok(ripe)
    }

    /// How many wants of one world nothing has met by the last commit; of more than `most`, `most`. Those that are met are
    /// struck off.
    pub fn count(&self, livemode: bool, most: usize) -> Result<usize, LoadError> {
        let mut open = 0;
        for table in Table::ALL {
            self.each_open(table, livemode, |_, _| {
                open += usize::from(open < most);
                open < most
            })?;
        }
        Ok(open)
    }

    /// An answer is in the log, or there is none to be had.
    pub fn strike(&self, wants: &[Want]) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        wants.iter().for_each(|want| batch.delete(&self.entries, want.key()));
        batch.commit()
    }

    /// Nobody asks for them again before `until`.
    pub fn put_off(&self, wants: &[Want], until: Micros) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        wants.iter().for_each(|want| batch.put(&self.entries, want.key(), want.value(until)));
        batch.commit()
    }

    /// Goes through the wants that are not met as long as `go_on` says so.
    fn each_open(
        &self,
        table: Table,
        livemode: bool,
        mut go_on: impl FnMut(Want, Micros) -> bool,
    ) -> Result<(), LoadError> {
        let mut met = Vec::new();
        for entry in self.entries.prefix(&[table as u8, u8::from(livemode)]) {
            let (key, value) = entry?;
            let Some((want, not_before)) = Want::read(&key, &value) else { continue };
            if self.is_met(&want)? {
                met.push(want);
                if met.len() >= STRUCK_AT_ONCE {
                    self.strike(&std::mem::take(&mut met))?;
                }
            } else if !go_on(want, not_before) {
                break;
            }
        }
        Ok(self.strike(&met)?)
    }

    fn is_met(&self, want: &Want) -> Result<bool, LoadError> {
        Ok(match self.objects.get(&want.key.to_bytes())? {
            Some(bytes) => ObjectState::from_bytes(&bytes)?.tells_of(want.since, want.event.as_deref()),
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(id: &str, since: i64, event: Option<&str>) -> Want {
        let key = ObjectKey { table: Table::Charges, livemode: true, id: id.to_owned() };
        Want { key, since: Micros(since * SECOND), event: event.map(str::to_owned) }
    }

    #[test]
    fn what_is_wanted_is_asked_for_when_it_is_time_an_object_s_wants_together() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let wanted = Wanted::open(&store).unwrap();
        let all =
            [want("ch_1", 5, None), want("ch_1", 100, Some("evt_1")), want("ch_2", 100, None), want("ch_3", 7, None)];
        let mut batch = store.batch();
        all.iter().for_each(|want| wanted.add(want, &mut batch));
        batch.commit().unwrap();
        let ripe = |most, now| wanted.ripe(Table::Charges, true, most, Micros(now * SECOND)).unwrap().concat();
        assert_eq!(ripe(9, 200), all);
        assert_eq!(ripe(1, 200), all[..2]);
        assert_eq!(ripe(9, 101), [all[0].clone(), all[3].clone()], "the others are of just now");
        assert!(wanted.ripe(Table::Charges, false, 9, Micros(200 * SECOND)).unwrap().is_empty());
        wanted.put_off(&all[..2], Micros(300 * SECOND)).unwrap();
        assert_eq!(ripe(1, 200), all[2..3], "what is put off stands in nobody's way");
        assert_eq!(ripe(9, 300), all);
        assert_eq!(
            (wanted.count(true, 9).unwrap(), wanted.count(true, 3).unwrap(), wanted.count(false, 9).unwrap()),
            (4, 3, 0)
        );
        wanted.strike(&all[1..]).unwrap();
        assert_eq!(ripe(9, 300), all[..1]);
    }
}
