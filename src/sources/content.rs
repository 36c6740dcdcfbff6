//! A file's content, decompressed: plain, gzip or zstd, told by its first bytes whatever its name.
//!
//! What must hold: memory is bounded whatever the content, a stream that ends in the middle is an error that names the
//! place, and a small file that unpacks without end is refused.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

/// JSON lines shrink ten- or thirtyfold, the most repetitive ones a hundredfold. More is made to fill a disk or memory.
const BOMB_RATIO: u64 = 200;

/// Below this no ratio is suspicious: a short repetitive file is no danger.
const BOMB_FLOOR: u64 = 64 * 1024 * 1024;

/// One read from the disk.
const BLOCK: usize = 256 * 1024;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
pub(super) const PARQUET: &[u8] = b"PAR1";

/// Why a file cannot be read, or not to its end. What was read before is good, and reading it again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{}: {source}", file.display())]
    Open { file: PathBuf, source: io::Error },
    #[error("{}: {place}: {source}", file.display())]
    Read { file: PathBuf, place: String, source: io::Error },
    #[error("{}: {place}: the archive ends in the middle: it was cut off, or is still being written", file.display())]
    CutOff { file: PathBuf, place: String },
    #[error(
        "{}: {place}: it unpacks to more than {BOMB_RATIO} times its size and is refused; unpack it first if it is meant",
        file.display()
    )]
    Bomb { file: PathBuf, place: String },
    #[error("{}: {why}", file.display())]
    NotOrders { file: PathBuf, why: String },
    #[error("{0} is no source of files: it is one of stripe, klaviyo, storefront, orders")]
    NotASource(crate::base::Source),
    #[error("reading stopped: a thread that decodes has failed")]
    Stopped,
}

impl FileError {
    /// What an error of reading says about the file.
    pub(super) fn reading(file: &Path, place: String, source: io::Error) -> FileError {
        let file = file.to_owned();
        match source.kind() {
            io::ErrorKind::UnexpectedEof => FileError::CutOff { file, place },
            _ if source.get_ref().is_some_and(|e| e.is::<IsBomb>()) => FileError::Bomb { file, place },
            _ => FileError::Read { file, place, source },
        }
    }
}

/// How far reading is, shared with whoever shows it.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    read: Arc<AtomicU64>,
    /// The file's size; `None` for a stream.
    pub total: Option<u64>,
}

impl Meter {
    /// Bytes read of the file as it lies, compressed or not.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The file was read to its end by other ways than the counted one.
    pub(super) fn finish(&self) {
        if let Some(total) = self.total {
            self.read.store(total, Ordering::Relaxed);
        }
    }
}

/// See the module.
pub(super) struct Content {
    /// For messages.
    pub file: PathBuf,
    pub meter: Meter,
    pub reader: Box<dyn BufRead + Send>,
    /// The first bytes after decompression.
    pub magic: Vec<u8>,
    /// Whether it was compressed.
    pub packed: bool,
}

impl Content {
    /// Of a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Content, FileError> {
        if path == Path::new("-") {
            return Content::of(Path::new("stdin"), None, Box::new(io::stdin()));
        }
        let failed = |source| FileError::Open { file: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let size = metadata.is_file().then_some(metadata.len());
        Content::of(path, size, Box::new(file))
    }

    /// Of a stream. `name` stands in messages.
    pub fn of(name: &Path, size: Option<u64>, stream: Box<dyn Read + Send>) -> Result<Content, FileError> {
        let meter = Meter { read: Arc::default(), total: size };
        let failed = |source| FileError::reading(name, "at its beginning".to_owned(), source);
        let counted = Counted { stream, read: meter.read.clone() };
        let (magic, packed) = peeked(BufReader::with_capacity(BLOCK, counted)).map_err(failed)?;
        let plain: Box<dyn Read + Send> = if magic.starts_with(GZIP) {
            Box::new(Guarded::new(MultiGzDecoder::new(packed), &meter))
        } else if magic.starts_with(ZSTD) {
            Box::new(Guarded::new(zstd::Decoder::with_buffer(packed).map_err(failed)?, &meter))
        } else {
            return Ok(Content { file: name.to_owned(), meter, reader: Box::new(packed), magic, packed: false });
        };
        let (magic, reader) = peeked(BufReader::with_capacity(BLOCK, plain)).map_err(failed)?;
        Ok(Content { file: name.to_owned(), meter, reader: Box::new(reader), magic, packed: true })
    }
}

/// A reader and, before it, what was read from it.
type Whole<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// The first four bytes, or all where there are fewer, and the reader as if they had not been read.
fn peeked<R: BufRead>(mut reader: R) -> io::Result<(Vec<u8>, Whole<R>)> {
    let mut first = Vec::with_capacity(4);
    (&mut reader).take(4).read_to_end(&mut first)?;
    Ok((first.clone(), Cursor::new(first).chain(reader)))
}

struct Counted {
    stream: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Stops a decompressor that gives far more than it was given.
struct Guarded<R> {
    inner: R,
    packed: Arc<AtomicU64>,
    unpacked: u64,
}

impl<R> Guarded<R> {
    fn new(inner: R, meter: &Meter) -> Guarded<R> {
        Guarded { inner, packed: meter.read.clone(), unpacked: 0 }
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.unpacked += read as u64;
        if self.unpacked > BOMB_FLOOR && self.unpacked / BOMB_RATIO > self.packed.load(Ordering::Relaxed) {
            return Err(io::Error::other(IsBomb));
        }
        Ok(read)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it unpacks without end")]
struct IsBomb;
