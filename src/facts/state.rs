//! The state of one object: what the *set* of its events says, folded.
//!
//! Admitting is a join: commutative, associative, idempotent. So any order, any repetition and any split into batches
//! of the same events gives the same state, byte for byte. What can no longer matter is dropped: of the sights
//! only those of the leading second stay, so a state stays small however long its object lives.

use ahash::HashMap;
use serde::{Deserialize, Serialize};

use super::{
    Row, complete, fold,
    observation::{Fact, Mark, ObjectKey, Observation, Part, Sight},
    table::Table,
    want::{Want, Why},
};
use crate::base::{Micros, Offset};

/// The first byte of stored state. Another one is of another build.
const FORMAT: u8 = 8;

/// Stored fold state that is not of this build. All of it can be made again from `raw.events`.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("stored fold state is empty: `tillstream rebuild` makes it again from raw.events")]
    Empty,
    #[error("stored fold state is of format {0}, not {FORMAT}: `tillstream rebuild` makes it again from raw.events")]
    Format(u8),
    #[error("stored fold state cannot be read ({0}): `tillstream rebuild` makes it again from raw.events")]
    Bytes(#[from] postcard::Error),
}

pub(super) fn to_bytes<T: Serialize>(state: &T) -> Result<Vec<u8>, StateError> {
    Ok(postcard::to_stdvec(&(FORMAT, state))?)
}

pub(super) fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StateError> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => Ok(postcard::from_bytes(rest)?),
        Some((other, _)) => Err(StateError::Format(*other)),
        None => Err(StateError::Empty),
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectState {
    key: ObjectKey,
    offsets: Option<(Offset, Offset)>,
    /// Of each lane the leading second's sights, in the order of `place`.
    sights: Vec<Sight>,
    /// By mark.
    marks: Vec<(Mark, Micros)>,
    /// By id.
    parts: Vec<Part>,
}

impl ObjectState {
    pub fn new(key: ObjectKey) -> ObjectState {
        ObjectState { key, offsets: None, sights: Vec::new(), marks: Vec::new(), parts: Vec::new() }
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<ObjectState, StateError> {
        from_bytes(bytes)
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        to_bytes(self)
    }

    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Takes in what an event at `offset` says. Whether that changed the state (offsets aside): where not, nothing
    /// needs to be stored or written again.
    pub fn admit(&mut self, observation: Observation, offset: Offset) -> bool {
        self.offsets = Some(match self.offsets {
            Some((first, last)) => (first.min(offset), last.max(offset)),
            None => (offset, offset),
        });
        let mut changed = false;
        for (mark, at) in observation.marks {
            changed |= self.admit_mark(mark, at);
        }
        for part in observation.parts {
            changed |= self.admit_part(part);
        }
        changed | observation.sight.is_some_and(|sight| self.admit_sight(sight))
    }

    /// The first and the last log offset of the events admitted.
    pub fn first_offset(&self) -> Option<Offset> {
        self.offsets.map(|(first, _)| first)
    }

    pub fn last_offset(&self) -> Option<Offset> {
        self.offsets.map(|(_, last)| last)
    }

    /// To ask for, where the sights that lead are of one second and leave open which was the last.
    pub fn undecided(&self) -> Option<Want> {
        // Of most objects one sight leads, and nothing has to be searched.
        let (sight, certain) = if self.sights.len() < 2 { None } else { self.leading().pop() }?;
        let account = || self.account().map(str::to_owned);
        (!certain).then(|| Want { key: self.key.clone(), since: sight.at, why: Why::Undecided, account: account() })
    }

    /// Whether the events say by now what `want` is for: what the object was, whole and for certain, in a later second, or
    /// else in that second if they are enough for that. To the second, as events are. What is only named is met by any sight.
    pub fn meets(&self, want: &Want) -> bool {
        if want.why == Why::PaidOut {
            return self.parts.iter().any(|part| matches!(part.fact, Fact::Listed));
        }
        let Some((sight, certain)) = self.leading().pop() else { return false };
        if matches!(want.why, Why::Named { .. }) {
            return sight.whole;
        }
        let (last, since) = (sight.at.seconds(), want.since.seconds());
        let is_enough = || match &want.why {
            Why::NotShown { event_id } => self.sights.iter().any(|sight| sight.event_id == *event_id),
            _ => true,
        };
        certain && sight.whole && (last > since || last == since && is_enough())
    }

    /// Of each lane the sight that came last, and whether that is certain.
    fn leading(&self) -> Vec<(&Sight, bool)> {
        let lanes = self.sights.chunk_by(|a, b| a.step.lane == b.step.lane);
        let last = |lane| {
            let (i, certain) = fold::last(lane);
            (&lane[i], certain)
        };
        lanes.map(last).collect()
    }

    /// The account at the provider that the object is of, where what leads names one.
    pub fn account(&self) -> Option<&str> {
        self.sights.iter().rev().find_map(|sight| sight.account.as_deref())
    }

    /// The object's one row; `None` while only other objects spoke of it.
    pub fn row(&self) -> Option<Row> {
        let mut leading = self.leading();
        let (sight, certain) = leading.pop()?;
        let mut row = sight.row.clone();
        for (earlier, _) in leading.iter().rev() {
            complete::fill(&mut row, &earlier.row);
        }
        let known = complete::Known { at: sight.at, marks: &self.marks, parts: &self.parts, ambiguous: !certain };
        known.complete(&mut row);
        Some(row)
    }

    /// [`ObjectState::admit`], and what others must hear of this object by now and have not heard. `None`: nothing changed.
    pub fn admit_and_tell(&mut self, observation: Observation, offset: Offset) -> Option<Vec<Observation>> {
        let told = self.echoes();
        if !self.admit(observation, offset) {
            return None;
        }
        let mut echoes = self.echoes();
        let told: HashMap<&ObjectKey, &[Part]> = told.iter().map(|echo| (&echo.key, echo.parts.as_slice())).collect();
        // A card tester's intent has a thousand attempts, and one more changes none of them.
        echoes.retain(|echo| told.get(&echo.key).is_none_or(|parts| *parts != echo.parts));
        Some(echoes)
    }

    /// What the set of this object's events says of others, which no single event could: the attempts of an intent are of
    /// the invoice that the intent is of, and within the session that it is paid in, one after the other. To be admitted at
    /// the offset that changed it.
    fn echoes(&self) -> Vec<Observation> {
        if self.key.table != Table::PaymentIntents {
            return Vec::new();
        }
        let mut attempts: Vec<&Part> = self.parts.iter().filter(|p| matches!(p.fact, Fact::Attempt { .. })).collect();
        attempts.sort_unstable_by_key(|attempt| attempt.place());
        let of = |is: fn(&Fact) -> bool| self.parts.iter().filter(move |part| is(&part.fact));
        let invoices: Vec<Part> = of(|fact| matches!(fact, Fact::Invoiced)).cloned().collect();
        let sessions =
            of(|fact| matches!(fact, Fact::Payer { .. })).map(|p| Part { fact: Fact::WithinSession, ..p.clone() });
        let shared: Vec<Part> = invoices.iter().cloned().chain(sessions).collect();
        let mut echoes = Vec::new();
        for (no, attempt) in (1..).zip(&attempts) {
            // An only one is the first, and need not be told.
            let numbered = (attempts.len() > 1).then(|| Part {
                id: self.key.id.clone(),
                at: attempt.place().0,
                fact: Fact::Numbered(no),
            });
            let parts = shared.iter().cloned().chain(numbered).collect();
            // One that made no charge is named after its intent.
            let charged = (!attempt.id.contains(':')).then(|| (Table::Charges, invoices.clone()));
            for (table, parts) in charged.into_iter().chain([(Table::PaymentAttempts, parts)]) {
                let key = ObjectKey { table, id: attempt.id.clone(), ..self.key };
                echoes.push(Observation { key, sight: None, marks: Vec::new(), parts });
            }
        }
        echoes.retain(|echo| !echo.parts.is_empty());
        echoes
    }

    fn admit_mark(&mut self, mark: Mark, at: Micros) -> bool {
        match self.marks.binary_search_by_key(&mark, |(m, _)| *m) {
            Ok(i) if self.marks[i].1 <= at => false,
            Ok(i) => {
                self.marks[i].1 = at;
                true
            }
            Err(i) => {
                self.marks.insert(i, (mark, at));
                true
            }
        }
    }

    fn admit_part(&mut self, part: Part) -> bool {
        match self.parts.binary_search_by(|p| p.id.cmp(&part.id)) {
            Ok(i) => {
                let before = self.parts[i].clone();
                self.parts[i].merge(part);
                self.parts[i] != before
            }
            Err(i) => {
                self.parts.insert(i, part);
                true
            }
        }
    }

    fn admit_sight(&mut self, sight: Sight) -> bool {
        let rivals = || self.sights.iter().enumerate().filter(|(_, s)| s.step.lane == sight.step.lane);
        if rivals().any(|(_, s)| weight(s) > weight(&sight)) {
            return false;
        }
        // Of twins, two events that tell the same, one is kept.
        if let Some((i, twin)) = rivals().find(|(_, s)| weight(s) == weight(&sight) && twins(s, &sight)) {
            let takes_over = fold::standing(&sight) > fold::standing(twin);
            if takes_over {
                self.sights.remove(i);
                self.insert(sight);
            }
            return takes_over;
        }
        self.sights.retain(|s| s.step.lane != sight.step.lane || weight(s) == weight(&sight));
        self.insert(sight);
        true
    }

    fn insert(&mut self, sight: Sight) {
        let at = self.sights.partition_point(|s| place(s) < place(&sight));
        self.sights.insert(at, sight);
    }
}

/// What outweighs what: the whole object a hint; the settled the open; then the later the earlier; then the event's own
/// object one that was carried along.
fn weight(sight: &Sight) -> (bool, u8, Micros, bool) {
    (sight.whole, sight.step.settled, sight.at, sight.own)
}

fn place(sight: &Sight) -> (u8, fold::Standing<'_>) {
    (sight.step.lane, fold::standing(sight))
}

fn twins(a: &Sight, b: &Sight) -> bool {
    a.state == b.state && a.prior == b.prior && a.step == b.step && a.row == b.row
}
