//! Objects that Stripe's API is to be asked for, as their events leave open what they are by now, or what they are made of.
//!
//! A key is the object's and a zero, the time in eight bytes, the reason, and of a connected account a zero and its id; a value is
//! the time before which nobody asks again, in eight bytes. What must hold: an entry goes only when an answer is in the log, when there is none to be had, or when events
//! have told meanwhile what it is for. One that comes back, because a crash or a rebuild folds its event again, costs at most a
//! question.

use super::{LoadError, fold::OBJECTS};
use crate::{
    base::{Micros, time::SECOND},
    facts::{ObjectKey, ObjectState, Table, Want, Why},
    store::{Batch, Keyspace, Store, StoreError},
};

const WANTED: &str = "wanted";
/// Answers have whole seconds: what is asked for within the second of its event might be answered as of before. And the twin of
/// a thin event is on the way.
const RIPE: i64 = 2 * SECOND;
/// Met wants that are struck off together: few, as one of them may be wanted again meanwhile.
const STRUCK_AT_ONCE: usize = 100;

const UNDECIDED: u8 = 0;
const NOT_SHOWN: u8 = 1;
const NAMED: u8 = 2;
const PAID_OUT: u8 = 3;

fn key_of(want: &Want) -> Vec<u8> {
    let (why, id) = match &want.why {
        Why::Undecided => (UNDECIDED, ""),
        Why::NotShown { event_id } => (NOT_SHOWN, event_id.as_str()),
        Why::Named { within } => (NAMED, within.as_deref().unwrap_or_default()),
        Why::PaidOut => (PAID_OUT, ""),
    };
    let mut bytes = want.key.to_bytes();
    bytes.push(0);
    bytes.extend_from_slice(&want.since.0.to_be_bytes());
    bytes.push(why);
    bytes.extend_from_slice(id.as_bytes());
    if let Some(account) = &want.account {
        bytes.push(0);
        bytes.extend_from_slice(account.as_bytes());
    }
    bytes
}

/// `None` for what this build did not write.
fn want_of(key: &[u8]) -> Option<Want> {
    let [table, livemode, rest @ ..] = key else { return None };
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (id, rest) = (&rest[..end], &rest[end + 1..]);
    let (since, [why, told @ ..]) = rest.split_first_chunk::<8>()? else { return None };
    let text = |bytes: &[u8]| Some(str::from_utf8(bytes).ok()?.to_owned());
    let mut told = told.splitn(2, |byte| *byte == 0);
    let (named, account) = (told.next().unwrap_or_default(), told.next().and_then(text));
    let why = match *why {
        UNDECIDED => Why::Undecided,
        NOT_SHOWN => Why::NotShown { event_id: text(named)? },
        NAMED => Why::Named { within: text(named).filter(|id| !id.is_empty()) },
        PAID_OUT => Why::PaidOut,
        _ => return None,
    };
    let key = ObjectKey { table: *Table::ALL.get(usize::from(*table))?, livemode: *livemode == 1, id: text(id)? };
    Some(Want { key, since: Micros(i64::from_be_bytes(*since)), why, account })
}

fn not_before(value: &[u8]) -> Micros {
    value.try_into().map_or(Micros(0), |bytes| Micros(i64::from_be_bytes(bytes)))
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

    /// Where an answer could tell.
    pub(super) fn add(&self, want: &Want, batch: &mut Batch) {
        if want.asked_for().is_some() {
            batch.put(&self.entries, key_of(want), Micros(0).0.to_be_bytes());
        }
    }

    /// The wants of one table and world that may be asked for at `now`, those of one question together, and at most `most`
    /// questions. Those that events had met by the last commit are struck off instead.
    pub fn take_ripe(
        &self,
        (table, livemode): (Table, bool),
        most: usize,
        now: Micros,
    ) -> Result<Vec<Vec<Want>>, LoadError> {
        let (mut ripe, mut met): (Vec<Vec<Want>>, Vec<Want>) = Default::default();
        for entry in self.entries.prefix(&[table as u8, u8::from(livemode)]) {
            let (key, value) = entry?;
            let Some(want) = want_of(&key).filter(|want| want.since.plus(RIPE) <= now) else { continue };
            if not_before(&value) > now {
                continue;
            }
            if self.is_met(&want)? {
                met.push(want);
                if met.len() >= STRUCK_AT_ONCE {
                    self.strike(&std::mem::take(&mut met))?;
                }
                continue;
            }
            let full = ripe.len() >= most;
            let alike = |other: &Want| {
                (&other.key, other.asked_for(), &other.account) == (&want.key, want.asked_for(), &want.account)
            };
            match ripe.last_mut().filter(|same| same.iter().all(alike)) {
                Some(same) => same.push(want),
                None if full => break,
                None => ripe.push(vec![want]),
            }
        }
        self.strike(&met)?;
        Ok(ripe)
    }

    /// Strikes off all wants that events had met by the last commit: where nobody asks, nobody else does.
    pub fn strike_met(&self) -> Result<(), LoadError> {
        let mut met = Vec::new();
        for entry in self.entries.prefix(b"") {
            let (key, _) = entry?;
            let Some(want) = want_of(&key) else { continue };
            if self.is_met(&want)? {
                met.push(want);
            }
            if met.len() >= STRUCK_AT_ONCE {
                self.strike(&std::mem::take(&mut met))?;
            }
        }
        Ok(self.strike(&met)?)
    }

    /// How many wants of one world nothing had met by the last commit; of more than `most`, `most`.
    pub fn count(&self, livemode: bool, most: usize) -> Result<usize, LoadError> {
        let mut open = 0;
        for table in Table::ALL {
            for entry in self.entries.prefix(&[table as u8, u8::from(livemode)]) {
                let (key, _) = entry?;
                let Some(want) = want_of(&key) else { continue };
                open += usize::from(!self.is_met(&want)?);
                if open >= most {
                    return Ok(most);
                }
            }
        }
        Ok(open)
    }

    /// An answer is in the log, or there is none to be had.
    pub fn strike(&self, wants: &[Want]) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        wants.iter().for_each(|want| batch.delete(&self.entries, key_of(want)));
        batch.commit()
    }

    /// Nobody asks for them again before `until`.
    pub fn put_off(&self, wants: &[Want], until: Micros) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        wants.iter().for_each(|want| batch.put(&self.entries, key_of(want), until.0.to_be_bytes()));
        batch.commit()
    }

    fn is_met(&self, want: &Want) -> Result<bool, LoadError> {
        Ok(match self.objects.get(&want.key.to_bytes())? {
            Some(bytes) => ObjectState::from_bytes(&bytes)?.meets(want),
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(id: &str, since: i64, why: Why) -> Want {
        let key = ObjectKey { table: Table::Charges, livemode: true, id: id.to_owned() };
        Want { key, since: Micros(since * SECOND), why, account: None }
    }

    #[test]
    fn what_is_wanted_is_asked_for_when_it_is_time_an_object_s_wants_together() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let wanted = Wanted::open(&store).unwrap();
        let all = [
            want("ch_1", 5, Why::Undecided),
            want("ch_1", 100, Why::NotShown { event_id: "evt_1".to_owned() }),
            want("ch_2", 100, Why::Undecided),
            Want { account: Some("acct_1".to_owned()), ..want("ch_3", 7, Why::Undecided) },
        ];
        let mut batch = store.batch();
        all.iter().for_each(|want| wanted.add(want, &mut batch));
        batch.commit().unwrap();
        let ripe = |most, now| wanted.take_ripe((Table::Charges, true), most, Micros(now * SECOND)).unwrap().concat();
        assert_eq!(ripe(9, 200), all);
        assert_eq!(ripe(1, 200), all[..2]);
        assert_eq!(ripe(9, 101), [all[0].clone(), all[3].clone()], "the others are of just now");
        assert!(wanted.take_ripe((Table::Charges, false), 9, Micros(200 * SECOND)).unwrap().is_empty());
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
