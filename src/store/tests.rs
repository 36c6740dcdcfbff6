//! Batches, iterators, the vault and the key, as the rooms above rely on them.

use super::*;

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

#[test]
fn a_batch_over_two_keyspaces_survives_whole() {
    let (dir, store) = open();
    let (a, b) = (store.keyspace("a").unwrap(), store.keyspace("b").unwrap());
    let mut batch = store.batch();
    batch.put(&a, *b"k1", *b"v1");
    batch.put(&a, *b"k2", *b"v2");
    batch.put(&b, *b"k1", *b"w1");
    assert_eq!(a.get(b"k1").unwrap(), None);
    batch.commit_durable().unwrap();
    let mut batch = store.batch();
    batch.delete(&a, *b"k2");
    batch.commit().unwrap();
    drop((a, b, store));

    let store = Store::open(&dir.path().join("state")).unwrap();
    let (a, b) = (store.keyspace("a").unwrap(), store.keyspace("b").unwrap());
    assert_eq!(a.get(b"k1").unwrap().as_deref(), Some(b"v1".as_slice()));
    assert_eq!(a.get(b"k2").unwrap(), None);
    assert_eq!(b.get(b"k1").unwrap().as_deref(), Some(b"w1".as_slice()));
}

#[test]
fn iterators_see_one_moment_in_the_order_of_keys() {
    let (_dir, store) = open();
    let a = store.keyspace("a").unwrap();
    let put = |keys: &[&str]| {
        let mut batch = store.batch();
        keys.iter().for_each(|k| batch.put(&a, *k, *k));
        batch.commit().unwrap();
    };
    put(&["b2", "a", "b1", "c"]);
    let before = a.prefix(b"b");
    put(&["b3"]);
    let keys = |entries: Vec<Result<Entry, StoreError>>| -> Vec<String> {
        entries.into_iter().map(|e| String::from_utf8(e.unwrap().0.to_vec()).unwrap()).collect()
    };
    assert_eq!(keys(before.collect()), ["b1", "b2"]);
    assert_eq!(keys(a.prefix(b"b").collect()), ["b1", "b2", "b3"]);
    assert_eq!(keys(a.prefix(b"").rev().take(1).collect()), ["c"]);
}

#[test]
fn a_cleared_keyspace_stays_cleared_and_what_came_after_stays() {
    let (dir, store) = open();
    let a = store.keyspace("a").unwrap();
    for (key, clear) in [("old", true), ("new", false)] {
        let mut batch = store.batch();
        batch.put(&a, key, "x");
        batch.commit().unwrap();
        if clear {
            a.clear().unwrap();
            assert_eq!(a.prefix(b"").count(), 0);
        }
    }
    drop((a, store));
    let store = Store::open(&dir.path().join("state")).unwrap();
    let a = store.keyspace("a").unwrap();
    assert!(!a.contains(b"old").unwrap());
    assert!(a.contains(b"new").unwrap());
}

#[test]
fn a_store_in_use_says_so() {
    let (dir, _store) = open();
    let error = Store::open(&dir.path().join("state")).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn a_start_that_was_killed_half_way_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join("state.new");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("0.jnl"), b"").unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    Store::open(&dir.path().join("state")).unwrap();
    assert!(!half.exists());
}

#[test]
fn a_key_too_long_is_an_error_and_no_panic() {
    let (_dir, store) = open();
    let a = store.keyspace("a").unwrap();
    let mut batch = store.batch();
    batch.put(&a, *b"good", *b"");
    batch.put(&a, vec![1; 70_000], *b"");
    assert!(matches!(batch.commit(), Err(StoreError::Key { bytes: 70_000, .. })));
    assert!(!a.contains(b"good").unwrap());
    assert!(matches!(store.keyspace(""), Err(StoreError::Name { .. })));
}

fn keep(vault: &Vault, texts: &[(&str, &str, &str, &str)]) {
    let mut sealing = vault.sealing();
    texts.iter().for_each(|(kind, hash, owner, text)| sealing.put(kind, hash, owner, text).unwrap());
    sealing.commit().unwrap();
}

#[test]
fn the_vault_gives_back_what_it_keeps_and_shows_nothing_on_disk() {
    let (dir, store) = open();
    let vault = Vault::new(&store, &[7; 32]).unwrap();
    let ann = [("email", "h1", "ann", "ann@example.com")];
    keep(&vault, &ann);
    store.sync().unwrap();
    assert_eq!(vault.get("email", "h1").unwrap().as_deref(), Some("ann@example.com"));
    assert_eq!(vault.get("phone", "h1").unwrap(), None);

    let journal = || fs::read(dir.path().join("state/0.jnl")).unwrap();
    let before = journal();
    keep(&vault, &ann);
    store.sync().unwrap();
    assert!(journal() == before, "what is kept is not written again");
    assert!(before.windows(2).any(|w| w == b"h1"));
    assert!(!before.windows(11).any(|w| w == b"example.com"));
}

#[test]
fn an_entry_of_the_vault_cannot_stand_for_another() {
    let (_dir, store) = open();
    let vault = Vault::new(&store, &[7; 32]).unwrap();
    keep(&vault, &[("email", "h1", "ann", "ann@example.com")]);
    let entries = store.keyspace("vault_entries").unwrap();
    let sealed = entries.get(b"email\0h1\0ann").unwrap().unwrap();
    let mut batch = store.batch();
    batch.put(&entries, *b"email\0h2\0ann", sealed);
    batch.commit().unwrap();
    assert!(matches!(vault.get("email", "h2"), Err(StoreError::Sealed { .. })));
}

#[test]
fn who_is_forgotten_loses_their_key_and_nobody_else_theirs() {
    let (dir, store) = open();
    let vault = Vault::new(&store, &[7; 32]).unwrap();
    keep(&vault, &[("email", "h1", "ann", "ann@example.com"), ("phone", "h2", "ann", "+447400123456")]);
    keep(&vault, &[("phone", "h2", "bob", "+447400123456"), ("email", "h3", "bob", "bob@example.com")]);
    let keys = store.keyspace("vault_keys").unwrap();
    let anns = keys.get(b"ann").unwrap().unwrap();
    let ann = std::collections::HashSet::from(["ann".to_owned()]);
    assert_eq!(vault.kept_of(&ann).unwrap().len(), 2);
    let wrapping = || fs::read(dir.path().join("vault.keys")).unwrap();
    let before = wrapping();
    assert_eq!(vault.forget(&ann).unwrap(), 2);
    assert!(wrapping() != before && wrapping().len() == before.len());
    let vault = Vault::new(&store, &[7; 32]).unwrap();
    assert_eq!(vault.get("email", "h1").unwrap(), None);
    assert_eq!(
        vault.get("phone", "h2").unwrap().as_deref(),
        Some("+447400123456"),
        "the phone that both have is Bob's"
    );
    assert_eq!(vault.get("email", "h3").unwrap().as_deref(), Some("bob@example.com"));
    assert!(vault.kept_of(&ann).unwrap().is_empty());

    // Her key, as the store's files may still hold it, opens no more.
    let mut batch = store.batch();
    batch.put(&keys, *b"ann", anns);
    batch.commit().unwrap();
    keep(&vault, &[("email", "h1", "ann", "ann@example.com")]);
    assert_eq!(
        vault.get("email", "h1").unwrap().as_deref(),
        Some("ann@example.com"),
        "she came again, under a new key"
    );
}

/// The vault remembers what it kept lately, to keep it no second time.
#[test]
fn what_is_remembered_is_what_is_kept_last_and_does_not_outlive_it() {
    let (_dir, store) = open();
    let vault = Vault::new(&store, &[7; 32]).unwrap();
    let named = |name| keep(&vault, &[("name", "h1", "ann", name)]);
    let kept = || vault.get("name", "h1").unwrap();
    ["Ann Smith", "A. Smith", "Ann Smith"].into_iter().for_each(named);
    assert_eq!(kept().as_deref(), Some("Ann Smith"));
    vault.forget(&["ann".to_owned()].into()).unwrap();
    assert_eq!(kept(), None);
    named("Ann Smith");
    assert_eq!(kept().as_deref(), Some("Ann Smith"), "she came again");
}

#[test]
fn forgetting_that_was_cut_off_is_ended_by_the_next() {
    let (dir, store) = open();
    let vault = Vault::new(&store, &[7; 32]).unwrap();
    keep(&vault, &[("email", "h1", "ann", "ann@example.com"), ("email", "h3", "bob", "bob@example.com")]);
    let file = dir.path().join("vault.keys");
    let before = fs::read(&file).unwrap();
    vault.forget(&["ann".to_owned()].into()).unwrap();
    // As if the machine had stopped before any of it was on the disk but the entries that went.
    drop(vault);
    fs::write(&file, before).unwrap();
    let vault = Vault::new(&store, &[7; 32]).unwrap();
    assert!(vault.get("email", "h3").is_err(), "the file is not the one that it was made with");
    keep(&vault, &[("email", "h3", "bob", "bob@example.com")]);
    assert_eq!(vault.get("email", "h3").unwrap().as_deref(), Some("bob@example.com"));
    assert_eq!(vault.forget(&["bob".to_owned()].into()).unwrap(), 1);
    assert_eq!(vault.get("email", "h3").unwrap(), None);
}

#[test]
fn another_privacy_key_is_refused() {
    let (_dir, store) = open();
    Vault::new(&store, &[7; 32]).unwrap();
    let error = Vault::new(&store, &[8; 32]).err().unwrap();
    assert!(matches!(error, StoreError::WrongKey { .. }), "{error}");
    Vault::new(&store, &[7; 32]).unwrap();
}

#[test]
fn the_privacy_key_is_made_once_and_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("privacy.key");
    let key = privacy_key(&path).unwrap();
    assert_eq!(key, privacy_key(&path).unwrap());
    assert_ne!(key, privacy_key(&dir.path().join("other.key")).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");

    fs::write(&path, b"short").unwrap();
    assert!(matches!(privacy_key(&path), Err(StoreError::BadKeyFile { bytes: 5, .. })));
}
