//! Embedded keyed state: memberships, fold state, indexes, the outbox; and the vault for personal data.
//!
//! A [`Batch`] is written as a whole or not at all, over any number of keyspaces, and batches survive in the order in
//! which they were committed: after a crash some of the last may be missing, never one from the middle. What is kept
//! here can be rebuilt from the log or the tables; the only copy of an event never is kept here, since the engine
//! below drops what it cannot decode at start. The only room that names fjall.

mod error;
mod key_file;
mod keyspace;
mod privacy;
mod seal;
mod vault;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use fjall::{
    CompressionType, Database, KeyspaceCreateOptions, PersistMode,
    compaction::Leveled,
    config::{
        BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
    },
};

pub use self::{
    error::{StoreError, remedy},
    keyspace::{Batch, Entry, Keyspace, Slice},
    privacy::privacy_key,
    vault::{Kept, Vault},
};

/// Recently read blocks of all keyspaces.
const CACHE_BYTES: u64 = 64 << 20;
/// What a crash may leave to be replayed at the next start.
const JOURNAL_BYTES: u64 = 128 << 20;
/// Of one keyspace, before it goes to disk: there are a dozen keyspaces, so not the engine's 64 MiB.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// So many of them lie on the disk side by side before they are merged into what is there: each merge writes all of that
/// again.
const MEMTABLES: u8 = 8;
/// Of one file that a merge makes, which is synced as a whole while others wait for the disk.
const TABLE_BYTES: u64 = 8 << 20;
/// A name for the folder until it is whole.
const UNFINISHED: &str = "new";

/// The opened state folder. Clones are the same store; it is closed when they and their keyspaces are all gone.
#[derive(Clone)]
pub struct Store {
    db: Database,
    dir: Arc<Path>,
}

impl Store {
    /// Opens the folder, or makes it. One process at a time.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let failed = |e| StoreError::of(dir, e);
        make_whole(dir)?;
        Ok(Store { db: builder(dir).open().map_err(failed)?, dir: dir.into() })
    }

    /// The keyspace of that name, made if it is not there; one that is there keeps its options. Names are 1 to 255 bytes.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace, StoreError> {
        self.keyspace_of(name, options(CompressionType::Lz4))
    }

    /// The same, for keys and values that do not compress: digests and what is encrypted.
    pub fn keyspace_of_noise(&self, name: &str) -> Result<Keyspace, StoreError> {
        self.keyspace_of(name, options(CompressionType::None))
    }

    fn keyspace_of(&self, name: &str, options: KeyspaceCreateOptions) -> Result<Keyspace, StoreError> {
        if name.is_empty() || name.len() > 255 {
            return Err(StoreError::Name { name: name.to_owned() });
        }
        let inner = self.db.keyspace(name, || options).map_err(|e| StoreError::of(&self.dir, e))?;
        Ok(Keyspace::new(self.db.clone(), inner, self.dir.clone()))
    }

    pub fn batch(&self) -> Batch {
        Batch::new(self.db.batch(), self.dir.clone())
    }

    /// Returns when every batch committed until now would survive a power cut.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.db.persist(PersistMode::SyncData).map_err(|e| StoreError::of(&self.dir, e))
    }

    /// On disk, the journal included.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.db.disk_space().map_err(|e| StoreError::of(&self.dir, e))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Syncs a directory: what was made, renamed or deleted in it is so for good.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Of the engine's threads the first merges nothing, but spins while a merge waits for the others, of which one alone may be
/// busy for long. One in all could wait for itself.
const THREADS: usize = 3;

fn builder(dir: &Path) -> fjall::DatabaseBuilder<Database> {
    Database::builder(dir).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL_BYTES).worker_threads(THREADS)
}

/// Filters stay in memory whole, ten bits a key, so that asking for an absent key reads no disk: most keys that the
/// log asks for are absent.
fn options(compression: CompressionType) -> KeyspaceCreateOptions {
    let merging = Leveled::default().with_l0_threshold(MEMTABLES).with_table_target_size(TABLE_BYTES);
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(merging))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0))))
        .filter_block_partitioning_policy(PartitioningPolicy::all(false))
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .data_block_compression_policy(CompressionPolicy::all(compression))
}

/// A process killed while the engine makes its first files leaves a folder that the engine refuses ever after. So the
/// folder is made under another name, which the next start may throw away, and renamed when it is whole.
fn make_whole(dir: &Path) -> Result<(), StoreError> {
    let io = |e| StoreError::io(dir, e);
    let occupied = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(io(e)),
    };
    let Some(parent) = dir.parent().filter(|_| !occupied) else {
        return Ok(());
    };
    let unfinished = unfinished(dir);
    if unfinished.try_exists().map_err(io)? {
        fs::remove_dir_all(&unfinished).map_err(io)?;
    }
    fs::create_dir_all(&unfinished).map_err(io)?;
    private(&unfinished).map_err(io)?;
    drop(builder(&unfinished).open().map_err(|e| StoreError::of(dir, e))?);
    fs::rename(&unfinished, dir).map_err(io)?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    sync_dir(parent).map_err(io)
}

fn unfinished(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    dir.with_file_name(name)
}

/// Others on the machine have no business in it.
fn private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests;
