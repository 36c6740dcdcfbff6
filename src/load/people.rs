//! The identity graph as the store holds it: for each identifier its component, for each component what it knows.
//!
//! Keys: `i` + world + identifier -> root; `c` + root -> log offset and component, where a root is the name of one of the
//! component's identifiers; `p` + world + phone + `:` + identifier, for the phone that was told last with it. World is `l`
//! (live) or `t` (test): they never meet.

use std::collections::{BTreeMap, BTreeSet};

use ahash::HashMap;

use super::{LoadError, folded::Change};
use crate::{
    base::{Micros, Offset, PersonId},
    facts::{
        Row, Stamped,
        identity::{Component, IdentityClaim},
    },
    store::{Batch, Keyspace, Store, StoreError},
};

/// Identifiers that are looked at for each person that may be found.
const LOOKED_AT: usize = 10;

/// The keyspace of all this.
pub(super) const PEOPLE: &str = "people";

/// The components that a batch touches, as they are by now.
#[derive(Default)]
pub struct People {
    homes: HashMap<String, usize>,
    slots: Vec<Slot>,
    /// Roots whose components were joined to others.
    gone: BTreeSet<String>,
    /// Identifiers that are new, or whose components were joined to others.
    moved: BTreeSet<String>,
    /// Slots that claims came to since [`People::fresh_rows`] was last asked.
    touched: BTreeSet<usize>,
}

#[derive(Default)]
struct Slot {
    root: String,
    livemode: bool,
    component: Component,
    last: Offset,
    /// As they were before this batch, where it may have changed them.
    before: Option<Before>,
    /// Identifiers that this batch named, and those of them that no fresh rows told of yet.
    named: BTreeSet<String>,
    fresh: BTreeSet<String>,
    /// Identifiers that nobody named before this batch, and where it named them first.
    new: BTreeMap<String, Offset>,
}

/// What of a component is kept elsewhere too.
#[derive(Default)]
struct Before {
    /// Merges that the tables know already.
    merges: BTreeSet<(PersonId, PersonId, Micros)>,
    /// The keys of phones that the store has, or will have by what is below.
    phones: BTreeSet<String>,
}

impl People {
    /// Makes one person of whom the claim names. What it lacks is read from the people on their way to the store, where there are
    /// any, and then from the store.
    pub fn join(
        &mut self,
        (store, below): (&Keyspace, Option<&People>),
        claim: &IdentityClaim,
        offset: Offset,
    ) -> Result<(), LoadError> {
        let world = world(claim.livemode);
        let names: Vec<String> = claim.identifiers.iter().map(|i| format!("{world}{}", i.id())).collect();
        let (mut homes, mut new) = (BTreeSet::new(), Vec::new());
        for name in &names {
            match self.home((store, below), name, claim.livemode)? {
                Some(home) => drop(homes.insert(home)),
                None => new.push(name[1..].to_owned()),
            }
        }
        let mut homes = homes.into_iter();
        let home = match homes.next() {
            Some(home) => home,
            None => {
                let Some(root) = names.first() else { return Ok(()) };
                self.slots.push(Slot::new(root.clone(), claim.livemode, Component::default(), offset));
                self.slots.len() - 1
            }
        };
        let others: Vec<usize> = homes.collect();
        if !others.is_empty() || !new.is_empty() || !self.slots[home].confirm(claim) {
            self.link(home, others, claim, &new, offset);
        }
        let slot = &mut self.slots[home];
        slot.last = slot.last.max(offset);
        for name in names {
            slot.named.insert(name[1..].to_owned());
            slot.fresh.insert(name[1..].to_owned());
            self.homes.insert(name, home);
        }
        self.touched.insert(home);
        Ok(())
    }

    /// Makes one component of that at `home` and those at `others`, by a claim that names identifiers which are `new`.
    fn link(&mut self, home: usize, others: Vec<usize>, claim: &IdentityClaim, new: &[String], offset: Offset) {
        let world = world(claim.livemode);
        self.slots[home].remember();
        let mut parts = vec![std::mem::take(&mut self.slots[home].component)];
        for other in others {
            let mut joined = std::mem::take(&mut self.slots[other]);
            joined.remember();
            for identifier in joined.component.identifiers() {
                let name = format!("{world}{}", identifier.id());
                self.homes.insert(name.clone(), home);
                self.moved.insert(name);
            }
            parts.push(joined.component);
            self.gone.insert(joined.root);
            let slot = &mut self.slots[home];
            if let (Some(before), Some(theirs)) = (&mut slot.before, joined.before) {
                before.merges.extend(theirs.merges);
                before.phones.extend(theirs.phones);
            }
            slot.named.extend(joined.named);
            slot.fresh.extend(joined.fresh);
            slot.new.extend(joined.new);
        }
        self.moved.extend(new.iter().map(|name| format!("{world}{name}")));
        let slot = &mut self.slots[home];
        slot.new.extend(new.iter().map(|name| (name.clone(), offset)));
        slot.component = Component::join(parts, claim);
    }

    /// Where the component of an identifier lies, read on first sight.
    fn home(
        &mut self,
        (store, below): (&Keyspace, Option<&People>),
        name: &str,
        livemode: bool,
    ) -> Result<Option<usize>, LoadError> {
        if let Some(home) = self.homes.get(name) {
            return Ok(Some(*home));
        }
        let held = below.and_then(|b| b.homes.get(name).and_then(|home| b.slots.get(*home)));
        let slot = match held {
            Some(slot) => Slot::new(slot.root.clone(), livemode, slot.component.clone(), slot.last),
            None => {
                let Some(root) = store.get(format!("i{name}").as_bytes())? else { return Ok(None) };
                let root = String::from_utf8_lossy(root.as_ref()).into_owned();
                let Some(bytes) = store.get(format!("c{root}").as_bytes())? else { return Ok(None) };
                let (last, component) = read(bytes.as_ref())?;
                Slot::new(root, livemode, component, last)
            }
        };
        let home = self.slots.len();
        for identifier in slot.component.identifiers() {
            self.homes.insert(format!("{}{}", &name[..1], identifier.id()), home);
        }
        self.slots.push(slot);
        Ok(Some(home))
    }

    /// Components, those that were joined to others among them.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The identities that the batch named, and the merges that the tables do not know yet; of what is surely new the offset at
    /// which it came.
    pub fn rows(&self) -> impl Iterator<Item = Change> + '_ {
        self.slots.iter().flat_map(|slot| slot.rows(&slot.named))
    }

    /// Those of them that came, or may have changed, since this was last asked.
    pub fn fresh_rows(&mut self) -> Vec<Change> {
        let mut rows = Vec::new();
        for touched in std::mem::take(&mut self.touched) {
            let fresh = std::mem::take(&mut self.slots[touched].fresh);
            rows.extend(self.slots[touched].rows(&fresh));
        }
        rows
    }

    pub fn store_changes(&self, store: &Keyspace, batch: &mut Batch) -> Result<(), LoadError> {
        for root in &self.gone {
            batch.delete(store, format!("c{root}").into_bytes());
        }
        for name in &self.moved {
            if let Some(home) = self.homes.get(name) {
                batch.put(store, format!("i{name}").into_bytes(), self.slots[*home].root.as_bytes());
            }
        }
        for slot in self.slots.iter().filter(|s| !s.named.is_empty()) {
            let mut value = slot.last.0.to_be_bytes().to_vec();
            value.extend(slot.component.to_bytes().map_err(state_error)?);
            batch.put(store, format!("c{}", slot.root).into_bytes(), value);
            if let Some(before) = &slot.before {
                let phones = phone_keys(slot.livemode, &slot.component);
                before.phones.difference(&phones).for_each(|left| batch.delete(store, left.as_bytes()));
                phones.difference(&before.phones).for_each(|new| batch.put(store, new.as_bytes(), []));
            }
        }
        Ok(())
    }
}

impl Slot {
    fn new(root: String, livemode: bool, component: Component, last: Offset) -> Slot {
        Slot { root, livemode, component, last, ..Slot::default() }
    }

    /// To be called before links change, or phones.
    fn remember(&mut self) {
        let merges = || self.component.merges().into_iter().collect();
        let before = || Before { merges: merges(), phones: phone_keys(self.livemode, &self.component) };
        if self.before.is_none() {
            self.before = Some(before());
        }
    }

    /// See [`Component::confirm`].
    fn confirm(&mut self, claim: &IdentityClaim) -> bool {
        let told = claim.attributes.phone.as_ref();
        if claim.erases || told.is_some_and(|phone| !self.component.is_reached_by(phone, &claim.identifiers)) {
            self.remember();
        }
        self.component.confirm(claim)
    }

    fn rows(&self, named: &BTreeSet<String>) -> impl Iterator<Item = Change> + use<> {
        let named = self.component.identity_rows_of(named).into_iter();
        let named = named.map(|row| (self.new.get(&row.identity_id).copied(), Row::from(row)));
        let merges = self.before.iter().flat_map(|before| {
            let rows = self.component.merge_rows().into_iter();
            rows.filter(|m| !before.merges.contains(&(m.old.clone(), m.new.clone(), m.merged_at)))
        });
        let rows: Vec<_> = named.chain(merges.map(|row| (None, Row::from(row)))).collect();
        let (livemode, offset) = (self.livemode, self.last);
        rows.into_iter()
            .map(move |(first, row)| Change { row: Stamped { row, account: None, livemode, offset }, first })
    }
}

fn world(livemode: bool) -> char {
    if livemode { 'l' } else { 't' }
}

fn phone_keys(livemode: bool, component: &Component) -> BTreeSet<String> {
    let world = world(livemode);
    component.phones().map(|(phone, identifier)| format!("p{world}{phone}:{}", identifier.id())).collect()
}

/// Whom an identifier of this name names, in one world, as of the last commit.
pub fn component(store: &Store, livemode: bool, identifier: &str) -> Result<Option<Component>, LoadError> {
    let store = store.keyspace(PEOPLE)?;
    let Some(root) = store.get(format!("i{}{identifier}", world(livemode)).as_bytes())? else { return Ok(None) };
    let Some(bytes) = store.get(&[b"c", root.as_ref()].concat())? else { return Ok(None) };
    Ok(Some(read(bytes.as_ref())?.1))
}

/// Who has which phone, as of the last commit.
#[derive(Clone)]
pub struct PhoneBook(Keyspace);

impl PhoneBook {
    pub fn open(store: &Store) -> Result<PhoneBook, StoreError> {
        Ok(PhoneBook(store.keyspace(PEOPLE)?))
    }

    /// How many people were last known by the phone of this hash; of more than `most`, `most`. Of a phone that goes with very
    /// many identifiers not all are looked at.
    pub fn people(&self, livemode: bool, phone: &str, most: usize) -> Result<usize, StoreError> {
        let (world, mut roots) = (world(livemode), BTreeSet::new());
        let prefix = format!("p{world}{phone}:");
        for entry in self.0.prefix(prefix.as_bytes()).take(most.saturating_mul(LOOKED_AT)) {
            let (key, _) = entry?;
            let home = [b"i", world.to_string().as_bytes(), key.get(prefix.len()..).unwrap_or_default()].concat();
            roots.extend(self.0.get(&home)?.map(|root| root.to_vec()));
            if roots.len() >= most {
                break;
            }
        }
        Ok(roots.len())
    }
}

/// Every row of the identity tables, from all that the store holds.
pub fn all_rows(store: &Keyspace) -> impl Iterator<Item = Result<Vec<Stamped>, LoadError>> + use<> {
    store.prefix(b"c").map(|entry| {
        let (key, bytes) = entry?;
        let (offset, component) = read(bytes.as_ref())?;
        let livemode = key.as_ref().get(1) == Some(&b'l');
        let identities = component.identity_rows().into_iter().map(Row::from);
        let merges = component.merge_rows().into_iter().map(Row::from);
        Ok(identities.chain(merges).map(|row| Stamped { row, account: None, livemode, offset }).collect())
    })
}

fn read(bytes: &[u8]) -> Result<(Offset, Component), LoadError> {
    let (offset, component) =
        bytes.split_first_chunk::<8>().ok_or_else(|| LoadError::Identity("cut short".to_owned()))?;
    Ok((Offset(u64::from_be_bytes(*offset)), Component::from_bytes(component).map_err(state_error)?))
}

fn state_error(error: impl std::fmt::Display) -> LoadError {
    LoadError::Identity(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Pseudonymizer,
        facts::identity::{Attributes, Identifier, IdentifierKind, Phone},
    };

    fn claim(at: i64, names: &[&str], phone: &str) -> IdentityClaim {
        let key = Pseudonymizer::new(&[7; 32]);
        let mut identifiers: Vec<_> =
            names.iter().map(|name| Identifier::new(&key, IdentifierKind::User, (*name).to_owned())).collect();
        identifiers.sort();
        let phone =
            Phone { hash: phone.to_owned(), region: None, kind: "mobile".to_owned(), carrier: None, time_zones: None };
        let attributes = Attributes { phone: Some(phone), ..Attributes::default() };
        IdentityClaim { at: Micros(at), livemode: true, identifiers, attributes, erases: false }
    }

    /// How many people have each phone after each batch of claims, and all that is stored in the end.
    fn admitted(batches: &[&[IdentityClaim]], phones: &[&str]) -> (Vec<Vec<usize>>, Vec<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let (keyspace, book) = (store.keyspace(PEOPLE).unwrap(), PhoneBook::open(&store).unwrap());
        let mut counts = Vec::new();
        for claims in batches {
            let mut people = People::default();
            for claim in *claims {
                people.join((&keyspace, None), claim, Offset(0)).unwrap();
            }
            let mut batch = store.batch();
            people.store_changes(&keyspace, &mut batch).unwrap();
            batch.commit().unwrap();
            counts.push(phones.iter().map(|phone| book.people(true, phone, 9).unwrap()).collect());
        }
        let keys = keyspace.prefix(b"").map(|entry| entry.unwrap().0.to_vec()).collect();
        (counts, keys)
    }

    #[test]
    fn a_phone_counts_for_whoever_it_was_told_of_last() {
        let claims = [
            claim(1, &["ann"], "p1"),
            claim(2, &["bob"], "p1"),
            claim(3, &["bob"], "p2"),
            claim(4, &["cid"], "p1"),
            claim(5, &["ann", "cid"], "p1"),
        ];
        let each: Vec<&[IdentityClaim]> = claims.chunks(1).collect();
        let (counts, one_by_one) = admitted(&each, &["p1", "p2"]);
        assert_eq!(counts, [[1, 0], [2, 0], [1, 1], [2, 1], [1, 1]]);
        assert_eq!(admitted(&[&claims], &["p1", "p2"]), (vec![vec![1, 1]], one_by_one));
    }

    /// What is stored of claims of which the first are on their way to the store while the others are folded: identifiers with
    /// their components, whatever roots are called, and phones.
    fn stored(first: &[IdentityClaim], others: &[IdentityClaim]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let keyspace = store.keyspace(PEOPLE).unwrap();
        let (mut below, mut people) = (People::default(), People::default());
        for claim in first {
            below.join((&keyspace, None), claim, Offset(0)).unwrap();
        }
        for claim in others {
            people.join((&keyspace, Some(&below)), claim, Offset(0)).unwrap();
        }
        for people in [below, people] {
            let mut batch = store.batch();
            people.store_changes(&keyspace, &mut batch).unwrap();
            batch.commit().unwrap();
        }
        let roots = keyspace.prefix(b"c").count();
        let homes: HashMap<Vec<u8>, Vec<u8>> = keyspace
            .prefix(b"i")
            .map(|entry| entry.map(|(name, root)| (name.to_vec(), [b"c", root.as_ref()].concat())).unwrap())
            .collect();
        assert_eq!(homes.values().collect::<BTreeSet<_>>().len(), roots, "no component is left behind");
        let phones = keyspace.prefix(b"p").map(|entry| (entry.unwrap().0.to_vec(), Vec::new()));
        let homes = homes.iter().map(|(name, root)| (name.clone(), keyspace.get(root).unwrap().unwrap().to_vec()));
        let mut all: Vec<_> = homes.chain(phones).collect();
        all.sort();
        all
    }

    #[test]
    fn people_are_the_same_over_a_commit_that_is_under_way() {
        let claims = [
            claim(1, &["ann", "phone"], "p1"),
            claim(2, &["bob"], "p1"),
            claim(3, &["cid"], "p3"),
            claim(4, &["phone"], "p2"),
            claim(5, &["bob", "phone"], "p2"),
            claim(6, &["ann", "bob", "cid", "dan"], "p1"),
            IdentityClaim { erases: true, ..claim(7, &["bob"], "p1") },
        ];
        let whole = stored(&claims, &[]);
        let components: BTreeSet<_> = whole.iter().filter(|(key, _)| key[0] == b'i').map(|(_, value)| value).collect();
        assert_eq!(components.len(), 1, "they are one person in the end");
        let phones = whole.iter().filter(|(key, _)| key[0] == b'p').count();
        assert_eq!(phones, 4, "and of who is forgotten no phone is known");
        for cut in 0..claims.len() {
            assert_eq!(stored(&claims[..cut], &claims[cut..]), whole, "cut after {cut}");
        }
    }
}
