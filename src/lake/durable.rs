//! A local object store that keeps its word: what it has answered survives a power cut.
//!
//! object_store's local store never syncs. Here a new file is written under a staging name (`<name>#<n>`, which object
//! stores do not list), synced, and only then given its own name by a hard link or a rename; after that its directory is
//! synced. So a name never shows a torn file, and an answered write is on the disk. Reading, listing and deleting are the
//! inner store's: a deletion that a power cut undoes leaves a file that no table refers to.
//!
//! A failed sync of a directory leaves it unknown whether the last name will survive. Then this store, and all that share
//! its fate, refuse every later write until a restart.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::runtime::Handle;

/// Why nothing more may be written; shared by all stores of one lake.
#[derive(Debug, Clone, Default)]
pub(super) struct Fate(Arc<OnceLock<String>>);

impl Fate {
    pub(super) fn broken(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn seal(&self, path: &FsPath, error: io::Error) -> Error {
        let reason = format!("sync of {}: {error}", path.display());
        // The first reason stands.
        self.0.set(reason).ok();
        failed(path, error)
    }

    fn check(&self) -> Result<()> {
        match self.broken() {
            Some(reason) => Err(Error::Generic { store: STORE, source: reason.into() }),
            None => Ok(()),
        }
    }
}

const STORE: &str = "durable local store";

#[derive(Debug, Clone)]
pub(super) struct DurableStore {
    inner: LocalFileSystem,
    fate: Fate,
}

impl DurableStore {
    /// All paths are below `directory`, which must exist.
    pub(super) fn below(directory: &FsPath, fate: Fate) -> Result<DurableStore> {
        Ok(DurableStore { inner: LocalFileSystem::new_with_prefix(directory)?, fate })
    }

    /// Paths are absolute.
    pub(super) fn whole(fate: Fate) -> DurableStore {
        DurableStore { inner: LocalFileSystem::new(), fate }
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "durable {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) || !options.attributes.is_empty() {
            // The inner store refuses these by itself, in its own words.
            return self.inner.put_opts(location, payload, options).await;
        }
        self.fate.check()?;
        let path = self.inner.path_to_filesystem(location)?;
        let (fate, create) = (self.fate.clone(), matches!(options.mode, PutMode::Create));
        blocking(move || {
            let (mut staged, mut file) = Staged::open(&path)?;
            payload.iter().try_for_each(|part| file.write_all(part)).map_err(|e| failed(&path, e))?;
            staged.publish(&file, create, &fate)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return self.inner.put_multipart_opts(location, options).await;
        }
        self.fate.check()?;
        let path = self.inner.path_to_filesystem(location)?;
        let (staged, file) = blocking(move || Staged::open(&path)).await?;
        let file = Arc::new(Mutex::new(file));
        Ok(Box::new(Upload { staged: Some(staged), file, offset: 0, fate: self.fate.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.fate.check()?;
        self.inner.copy_opts(from, to, options).await?;
        self.sync_name(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.fate.check()?;
        self.inner.rename_opts(from, to, options).await?;
        self.sync_name(to).await
    }
}

impl DurableStore {
    /// Syncs a file that got its name by a copy or a rename, and the directory that holds the name.
    async fn sync_name(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let fate = self.fate.clone();
        blocking(move || {
            File::open(&path).and_then(|f| f.sync_all()).map_err(|e| fate.seal(&path, e))?;
            sync_parent(&path).map_err(|e| fate.seal(&path, e))
        })
        .await
    }
}

/// A file under its staging name; removed when dropped before it was published.
#[derive(Debug)]
struct Staged {
    staging: PathBuf,
    path: PathBuf,
    published: bool,
}

impl Staged {
    fn open(path: &FsPath) -> Result<(Staged, File)> {
        if let Some(parent) = path.parent() {
            create_directories(parent).map_err(|e| failed(parent, e))?;
        }
        for n in 1_u32.. {
            let mut staging = path.as_os_str().to_owned();
            staging.push(format!("#{n}"));
            let staging = PathBuf::from(staging);
            match OpenOptions::new().write(true).create_new(true).open(&staging) {
                Ok(file) => return Ok((Staged { staging, path: path.to_owned(), published: false }, file)),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(failed(&staging, e)),
            }
        }
        Err(failed(path, io::Error::other("no free staging name")))
    }

    /// Gives the file its name, once its content is on the disk. `create`: fails when the name is taken.
    fn publish(&mut self, file: &File, create: bool, fate: &Fate) -> Result<PutResult> {
        // Nothing has seen this file yet: should the sync fail, it is thrown away and the next try writes a new one.
        file.sync_all().map_err(|e| failed(&self.path, e))?;
        let named =
            if create { fs::hard_link(&self.staging, &self.path) } else { fs::rename(&self.staging, &self.path) };
        named.map_err(|e| failed(&self.path, e))?;
        self.published = !create;
        sync_parent(&self.path).map_err(|e| fate.seal(&self.path, e))?;
        Ok(PutResult { e_tag: None, version: None })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // What stays is swept at the next start.
            fs::remove_file(&self.staging).ok();
        }
    }
}

#[derive(Debug)]
struct Upload {
    staged: Option<Staged>,
    file: Arc<Mutex<File>>,
    offset: u64,
    fate: Fate,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.offset;
        self.offset += data.content_length() as u64;
        let file = self.file.clone();
        let path = self.staged.as_ref().map(|s| s.path.clone()).unwrap_or_default();
        blocking(move || {
            // Whatever a panic of another part left behind is overwritten by seeking first.
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(offset)).map_err(|e| failed(&path, e))?;
            data.iter().try_for_each(|part| file.write_all(part)).map_err(|e| failed(&path, e))
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.fate.check()?;
        let Some(mut staged) = self.staged.take() else { return Err(ended()) };
        let (file, fate) = (self.file.clone(), self.fate.clone());
        blocking(move || {
            let file = file.lock().unwrap_or_else(PoisonError::into_inner);
            staged.publish(&file, false, &fate)
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged.take().map(drop).ok_or_else(ended)
    }
}

fn ended() -> Error {
    Error::Generic { store: STORE, source: "the upload has been completed or aborted already".into() }
}

/// Makes `directory` and what is missing above it, each one's name synced before anything is put into it.
pub(super) fn create_directories(directory: &FsPath) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_directories(parent)?;
    }
    match fs::create_dir(directory) {
        Ok(()) => sync_parent(directory),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

pub(super) fn sync_directory(directory: &FsPath) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn sync_parent(path: &FsPath) -> io::Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => sync_directory(parent),
        None => sync_directory(FsPath::new(".")),
    }
}

/// Whether `name` is one that an unfinished write left behind.
pub(super) fn is_staging_name(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn failed(path: &FsPath, source: io::Error) -> Error {
    let (path, source) = (path.display().to_string(), source);
    match source.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: STORE, source: source.into() },
    }
}

/// Runs file work where waiting is allowed; the kernel's own threads have no runtime and wait themselves.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // Boxed, as a task's code is compiled for each type of work.
    let work: Box<dyn FnOnce() -> Result<T> + Send> = Box::new(work);
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?,
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn names(directory: &FsPath) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_taken_name_is_never_overwritten_by_create() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::below(dir.path(), Fate::default()).unwrap();
        let path = Path::from("log/0.json");
        let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
        store.put_opts(&path, "first".into(), create()).await.unwrap();
        let error = store.put_opts(&path, "second".into(), create()).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
        store.put(&path, "third".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "third");
        assert_eq!(names(&dir.path().join("log")), ["0.json"], "no staging file is left");
    }

    #[tokio::test]
    async fn an_upload_shows_its_name_only_when_complete() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::below(dir.path(), Fate::default()).unwrap();
        let path = Path::from("part.parquet");
        let mut upload = store.put_multipart(&path).await.unwrap();
        let (one, two) = (upload.put_part("hello ".into()), upload.put_part("world".into()));
        two.await.unwrap();
        one.await.unwrap();
        assert!(matches!(store.head(&path).await.unwrap_err(), Error::NotFound { .. }));
        assert!(names(dir.path()).iter().all(|n| is_staging_name(n)));
        upload.complete().await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "hello world");

        let dropped = store.put_multipart(&Path::from("gone.parquet")).await.unwrap();
        drop(dropped);
        assert_eq!(names(dir.path()), ["part.parquet"]);
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_more_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let fate = Fate::default();
        let store = DurableStore::below(dir.path(), fate.clone()).unwrap();
        fate.seal(FsPath::new("somewhere"), io::Error::other("input/output error"));
        let error = store.put(&Path::from("x"), "y".into()).await.unwrap_err();
        assert!(error.to_string().contains("sync of somewhere"), "{error}");
        assert!(store.put_multipart(&Path::from("x")).await.is_err());
        assert!(names(dir.path()).is_empty());
    }
}
