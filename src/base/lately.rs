//! What was asked for lately, in bounded memory: the older half is forgotten, never what is in use.

use std::{borrow::Borrow, hash::Hash};

use ahash::HashMap;

/// See the module.
pub struct Lately<K, V> {
    /// Of one of the two generations.
    most: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V: Clone> Lately<K, V> {
    /// Remembers at least the last `most` entries, and at most twice as many.
    pub fn new(most: usize) -> Lately<K, V> {
        Lately { most, young: HashMap::default(), old: HashMap::default() }
    }

    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(known) = self.young.get(key) {
            return Some(known.clone());
        }
        let (key, known) = self.old.remove_entry(key)?;
        self.insert(key, known.clone());
        Some(known)
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_the_rest_goes() {
        let mut lately = Lately::new(10);
        lately.insert(0, 'a');
        for n in 1..1000u32 {
            lately.insert(n, 'b');
            assert_eq!(lately.get(&0), Some('a'), "it was asked for {n} entries ago");
            assert_eq!(lately.get(&n.saturating_sub(4).max(1)), Some('b'), "nine others were since");
            assert!(lately.young.len() + lately.old.len() <= 20);
        }
        assert_eq!(lately.get(&500), None);
        lately.clear();
        assert_eq!(lately.get(&0), None);
    }
}
