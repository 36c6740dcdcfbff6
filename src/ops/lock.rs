//! One process owns a directory.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::OpsError;

/// The right to write a data directory, for as long as this lives; the system takes it back when the process ends.
pub struct DirLock {
    _file: File,
}

/// What became of the wish for the lock.
pub enum Taken {
    Ours(DirLock),
    /// Another process has it; its id where it wrote one.
    Theirs(Option<u32>),
}

impl DirLock {
    /// Makes the directory where it is missing, for its owner's eyes alone (payloads name people), and takes the lock. A
    /// directory of other things is left as it is.
    pub fn take(dir: &Path) -> Result<Taken, OpsError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| OpsError::dir("make", dir, e))?;
        if is_of_others(dir).map_err(|e| OpsError::dir("read", dir, e))? {
            return Err(OpsError::Told(format!(
                "{} holds other things and is no data directory: name a new or an empty one with --data",
                dir.display()
            )));
        }
        let path = dir.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| OpsError::dir("write", &path, e))?;
        match file.try_lock() {
            Ok(()) => {
                let mut write = || -> std::io::Result<()> {
                    file.set_len(0)?;
                    file.rewind()?;
                    write!(file, "{}", std::process::id())
                };
                write().map_err(|e| OpsError::dir("write", &path, e))?;
                Ok(Taken::Ours(DirLock { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let process = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                Ok(Taken::Theirs(process))
            }
            Err(TryLockError::Error(e)) => Err(OpsError::dir("lock", &path, e)),
        }
    }
}

/// What a data directory has beside its lock: a restored one has more than one of them.
const PARTS: [&str; 4] = ["log", "lake", "state", "privacy.key"];

fn is_of_others(dir: &Path) -> std::io::Result<bool> {
    let (mut parts, mut others) = (0, false);
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name == "lock" {
            return Ok(false);
        }
        let is_part = PARTS.iter().any(|part| name == *part);
        parts += usize::from(is_part);
        // What is hidden, or at the root of a volume, is nobody's work; settings may lie here.
        others |=
            !is_part && name != "lost+found" && name != "tillstream.toml" && !name.as_encoded_bytes().starts_with(b".");
    }
    Ok(others && parts < 2)
}

/// Where a running `serve` listens for commands.
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("tillstream.sock")
}
