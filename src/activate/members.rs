//! Who is in a segment, since when, and who came and went: the difference between two looks.
//!
//! A membership is a person and an occurrence (the cart, the payment; empty where the row names none), live and test data
//! apart. [`diff`] is pure. A person who was merged into another takes their memberships along: that is neither an entry
//! nor an exit. The store's copy is the truth; `segments.memberships` follows it.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{error::ActivateError, key, message::Columns};
use crate::{
    base::{Micros, PersonId},
    store::{Batch, Keyspace, Store},
};

/// Names one membership within a segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberKey {
    pub person_id: PersonId,
    pub occurrence: String,
    pub livemode: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub key: MemberKey,
    pub entered_at: Micros,
    /// The row as last seen.
    pub columns: Columns,
}

/// One row of a segment's query.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub key: MemberKey,
    /// From when on the row makes a member; `None`: at once.
    pub due_at: Option<Micros>,
    pub columns: Columns,
}

/// What one look at a segment changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diff {
    pub entered: Vec<Member>,
    pub exited: Vec<Member>,
    /// Members as before.
    pub lasting: Vec<Member>,
    /// Those of them that have other columns now, or the name that a merge gave them: places in `lasting`.
    pub changed: Vec<usize>,
    /// The names that those had.
    pub renamed: Vec<MemberKey>,
    pub members: usize,
    /// The first row that is not yet due.
    pub next_due: Option<Micros>,
}

/// A stored membership, or several that a merge made one: the earliest entry counts.
struct Before {
    entered_at: Micros,
    columns: Columns,
    /// Under these names it is stored.
    names: Vec<MemberKey>,
}

/// Compares what is stored with the rows of now. `merges` says who is now called what.
pub fn diff(stored: Vec<Member>, rows: Vec<Row>, merges: &HashMap<PersonId, PersonId>, as_of: Micros) -> Diff {
    let mut before: BTreeMap<MemberKey, Before> = BTreeMap::new();
    for Member { key: name, entered_at, columns } in stored {
        let key = MemberKey { person_id: current(&name.person_id, merges), ..name.clone() };
        let known = before.entry(key).or_insert(Before { entered_at, columns, names: Vec::new() });
        known.entered_at = known.entered_at.min(entered_at);
        known.names.push(name);
    }
    let mut diff = Diff::default();
    let mut now: BTreeMap<MemberKey, Row> = BTreeMap::new();
    for row in rows {
        match row.due_at {
            Some(due) if due > as_of => diff.next_due = Some(diff.next_due.map_or(due, |d| d.min(due))),
            _ => drop(now.entry(row.key.clone()).or_insert(row)),
        }
    }
    diff.members = now.len();
    for (key, Row { columns, .. }) in now {
        let Some(known) = before.remove(&key) else {
            diff.entered.push(Member { key, entered_at: as_of, columns });
            continue;
        };
        if known.columns != columns || known.names.iter().any(|name| *name != key) {
            diff.renamed.extend(known.names.into_iter().filter(|name| *name != key));
            diff.changed.push(diff.lasting.len());
        }
        diff.lasting.push(Member { key, entered_at: known.entered_at, columns });
    }
    for (key, known) in before {
        diff.renamed.extend(known.names.into_iter().filter(|name| *name != key));
        diff.exited.push(Member { key, entered_at: known.entered_at, columns: known.columns });
    }
    diff
}

/// Who this person is called now, by however many merges.
pub fn current(person: &PersonId, merges: &HashMap<PersonId, PersonId>) -> PersonId {
    let mut name = person;
    // The table leads straight to the newest name; a stale copy may need a step more, and never a circle.
    for _ in 0..8 {
        match merges.get(name) {
            Some(next) if next != name => name = next,
            _ => break,
        }
    }
    name.clone()
}

/// What is remembered of the last look at a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    pub as_of: Micros,
    /// When to look again even if nothing happens: the first `due_at`, or the next repetition of a trigger.
    pub next: Option<Micros>,
    pub members: usize,
}

/// The memberships in the store.
pub struct Memberships {
    current: Keyspace,
    /// Ended ones.
    history: Keyspace,
    meta: Keyspace,
}

/// A membership that ended, or (`exited_at` is `None`) lasts.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub segment: String,
    pub key: MemberKey,
    pub entered_at: Micros,
    pub exited_at: Option<Micros>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    entered_at: Micros,
    columns: Columns,
}

const COPY_STALE: &[u8] = b"memberships_copy_stale";

impl Memberships {
    pub fn open(store: &Store) -> Result<Memberships, ActivateError> {
        Ok(Memberships {
            current: store.keyspace("memberships")?,
            history: store.keyspace("memberships_ended")?,
            meta: store.keyspace("activate")?,
        })
    }

    pub fn of(&self, segment: &str) -> Result<Vec<Member>, ActivateError> {
        let prefix = prefix(segment);
        let member = |(name, value): (crate::store::Slice, crate::store::Slice)| {
            let key = parse_key(&name[prefix.len()..])?;
            let stored: Stored = serde_json::from_slice(&value).ok()?;
            Some(Member { key, entered_at: stored.entered_at, columns: stored.columns })
        };
        let entries = self.current.prefix(&prefix);
        entries.filter_map(|entry| entry.map_err(ActivateError::from).map(member).transpose()).collect()
    }

    /// The last look at a segment; `None` before the first.
    pub fn look(&self, segment: &str) -> Result<Option<Look>, ActivateError> {
        let bytes = self.meta.get(&look_key(segment))?;
        Ok(bytes.and_then(|b| postcard::from_bytes(&b).ok()))
    }

    /// Adds what a look found to `batch`.
    pub fn write(&self, batch: &mut Batch, segment: &str, diff: &Diff, look: Look) -> Result<(), ActivateError> {
        for member in &diff.entered {
            self.put(batch, segment, member)?;
        }
        for key in &diff.renamed {
            batch.delete(&self.current, name(segment, key));
        }
        for member in diff.changed.iter().filter_map(|place| diff.lasting.get(*place)) {
            self.put(batch, segment, member)?;
        }
        for member in &diff.exited {
            batch.delete(&self.current, name(segment, &member.key));
            let mut ended = name(segment, &member.key);
            ended.push(0);
            ended.extend_from_slice(&member.entered_at.0.to_be_bytes());
            batch.put(&self.history, ended, look.as_of.0.to_be_bytes());
        }
        if !(diff.entered.is_empty() && diff.exited.is_empty() && diff.renamed.is_empty()) {
            batch.put(&self.meta, COPY_STALE, *b"1");
        }
        let bytes = postcard::to_stdvec(&look).map_err(ActivateError::Packing)?;
        batch.put(&self.meta, look_key(segment), bytes);
        Ok(())
    }

    /// Every membership there is and was.
    pub fn spans(&self) -> Result<Vec<Span>, ActivateError> {
        let mut spans = Vec::new();
        for entry in self.current.prefix(b"") {
            let (name, value) = entry?;
            if let (Some((segment, key)), Ok(stored)) = (parse_name(&name), serde_json::from_slice::<Stored>(&value)) {
                spans.push(Span { segment, key, entered_at: stored.entered_at, exited_at: None });
            }
        }
        for entry in self.history.prefix(b"") {
            let (name, exited) = entry?;
            let (Some((name, entered)), Some(exited_at)) = (split_time(&name), time(&exited)) else {
                continue;
            };
            if let Some((segment, key)) = parse_name(name) {
                spans.push(Span { segment, key, entered_at: entered, exited_at: Some(exited_at) });
            }
        }
        Ok(spans)
    }

    /// Takes up memberships from their copy, in a store that has none.
    pub fn restore(&self, batch: &mut Batch, spans: &[Span]) -> Result<(), ActivateError> {
        let mut looks: BTreeMap<&str, Look> = BTreeMap::new();
        for span in spans {
            let look = looks.entry(&span.segment).or_default();
            look.as_of = look.as_of.max(span.exited_at.unwrap_or(span.entered_at));
            match span.exited_at {
                None => {
                    let member = Member { key: span.key.clone(), entered_at: span.entered_at, columns: Columns::new() };
                    self.put(batch, &span.segment, &member)?;
                }
                Some(exited) => {
                    let mut ended = name(&span.segment, &span.key);
                    ended.push(0);
                    ended.extend_from_slice(&span.entered_at.0.to_be_bytes());
                    batch.put(&self.history, ended, exited.0.to_be_bytes());
                }
            }
        }
        for (segment, look) in looks {
            let bytes = postcard::to_stdvec(&look).map_err(ActivateError::Packing)?;
            batch.put(&self.meta, look_key(segment), bytes);
        }
        Ok(())
    }

    /// Does the copy lag behind?
    pub fn copy_is_stale(&self) -> Result<bool, ActivateError> {
        Ok(self.meta.contains(COPY_STALE)?)
    }

    pub fn copy_is_fresh(&self, batch: &mut Batch) {
        batch.delete(&self.meta, COPY_STALE);
    }

    fn put(&self, batch: &mut Batch, segment: &str, member: &Member) -> Result<(), ActivateError> {
        let stored = Stored { entered_at: member.entered_at, columns: member.columns.clone() };
        let bytes = serde_json::to_vec(&stored);
        let bytes = bytes.map_err(|source| ActivateError::Encoding { what: "a membership", source })?;
        batch.put(&self.current, name(segment, &member.key), bytes);
        Ok(())
    }
}

/// When the next repetition of an `every` trigger falls due for any of these members.
pub fn next_repetition(members: impl Iterator<Item = Micros>, every: i64, as_of: Micros) -> Option<Micros> {
    members.map(|entered| entered.plus((key::repetition(entered, every, as_of) + 1).saturating_mul(every))).min()
}

fn prefix(segment: &str) -> Vec<u8> {
    [segment.as_bytes(), b"\0"].concat()
}

fn look_key(segment: &str) -> Vec<u8> {
    [b"look\0", segment.as_bytes()].concat()
}

/// `segment 0 mode person 0 occurrence`.
fn name(segment: &str, key: &MemberKey) -> Vec<u8> {
    let mode: &[u8] = if key.livemode { b"L" } else { b"T" };
    [segment.as_bytes(), b"\0", mode, key.person_id.0.as_bytes(), b"\0", key.occurrence.as_bytes()].concat()
}

fn parse_name(name: &[u8]) -> Option<(String, MemberKey)> {
    let end = name.iter().position(|b| *b == 0)?;
    Some((String::from_utf8(name[..end].to_vec()).ok()?, parse_key(&name[end + 1..])?))
}

fn parse_key(rest: &[u8]) -> Option<MemberKey> {
    let (mode, rest) = rest.split_first()?;
    let text = std::str::from_utf8(rest).ok()?;
    let (person, occurrence) = text.split_once('\0')?;
    let livemode = *mode == b'L';
    Some(MemberKey { person_id: PersonId(person.to_owned()), occurrence: occurrence.to_owned(), livemode })
}

fn split_time(name: &[u8]) -> Option<(&[u8], Micros)> {
    let (name, at) = name.split_at_checked(name.len().checked_sub(8)?)?;
    Some((name.strip_suffix(b"\0")?, time(at)?))
}

fn time(bytes: &[u8]) -> Option<Micros> {
    Some(Micros(i64::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> PersonId {
        PersonId(name.to_owned())
    }

    fn key_of(person: &str, occurrence: &str) -> MemberKey {
        MemberKey { person_id: id(person), occurrence: occurrence.to_owned(), livemode: true }
    }

    fn member(person: &str, occurrence: &str, entered: i64) -> Member {
        Member { key: key_of(person, occurrence), entered_at: Micros(entered), columns: Columns::new() }
    }

    fn row(person: &str, occurrence: &str, due: Option<i64>) -> Row {
        Row { key: key_of(person, occurrence), due_at: due.map(Micros), columns: Columns::new() }
    }

    const NOW: Micros = Micros(100);

    #[test]
    fn who_is_not_yet_due_is_no_member_but_a_timer() {
        let found = diff(
            vec![],
            vec![row("a", "c1", Some(100)), row("b", "c2", Some(150)), row("c", "c3", Some(120))],
            &HashMap::new(),
            NOW,
        );
        assert_eq!(found.entered, [member("a", "c1", 100)]);
        assert_eq!(found.next_due, Some(Micros(120)));
    }

    #[test]
    fn a_member_whose_cart_is_touched_again_leaves_until_it_is_due() {
        let found = diff(vec![member("a", "c1", 10)], vec![row("a", "c1", Some(130))], &HashMap::new(), NOW);
        assert_eq!(found.exited, [member("a", "c1", 10)]);
        assert_eq!(found.next_due, Some(Micros(130)));
    }

    #[test]
    fn a_merge_neither_enters_nor_exits() {
        let merges = HashMap::from([(id("old"), id("new"))]);
        let found = diff(vec![member("old", "c1", 10)], vec![row("new", "c1", None)], &merges, NOW);
        assert_eq!((found.entered.len(), found.exited.len()), (0, 0));
        assert_eq!((found.lasting, found.changed), (vec![member("new", "c1", 10)], vec![0]));
        assert_eq!(found.renamed, [key_of("old", "c1")]);
    }

    #[test]
    fn two_memberships_that_become_one_keep_the_earlier_entry() {
        let merges = HashMap::from([(id("a"), id("b")), (id("c"), id("b"))]);
        for order in [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]] {
            let stored = order.iter().map(|p| member(p, "c1", if *p == "a" { 5 } else { 20 })).collect();
            let found = diff(stored, vec![row("b", "c1", None)], &merges, NOW);
            assert_eq!((found.entered.len(), found.exited.len()), (0, 0), "{order:?}");
            assert_eq!(found.lasting, [member("b", "c1", 5)], "{order:?}");
            assert_eq!(found.changed, [0], "{order:?}");
            let mut renamed = found.renamed.clone();
            renamed.sort();
            assert_eq!(renamed, [key_of("a", "c1"), key_of("c", "c1")], "{order:?}");
        }
    }

    #[test]
    fn a_merged_person_who_left_is_removed_from_where_they_stood() {
        let merges = HashMap::from([(id("old"), id("new"))]);
        let found = diff(vec![member("old", "c1", 10)], vec![], &merges, NOW);
        assert_eq!(found.exited, [member("new", "c1", 10)]);
        assert_eq!(found.renamed, [key_of("old", "c1")]);
    }

    #[test]
    fn names_are_read_back_as_written() {
        let key = MemberKey { person_id: id("per_1"), occurrence: "cart\n7".to_owned(), livemode: false };
        assert_eq!(parse_name(&name("cart_abandoned", &key)), Some(("cart_abandoned".to_owned(), key)));
    }

    #[test]
    fn the_next_repetition_is_of_the_member_who_is_first() {
        let entered = [Micros(0), Micros(70)];
        assert_eq!(next_repetition(entered.into_iter(), 60, Micros(100)), Some(Micros(120)));
        assert_eq!(next_repetition(entered.into_iter(), 60, Micros(125)), Some(Micros(130)));
    }
}
