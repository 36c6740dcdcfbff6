//! From directories to tables: finding them at the start, making one.
//!
//! A directory without a commit is no table. Files in it that no commit names are left for upkeep: should its log have been
//! lost, they are all that there is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;

use super::durable::{Fate, create_directories, is_staging_name, sync_directory};
use super::error::{LakeError, Result};
use super::log::LOG_DIRECTORY;
use super::table::Table;

/// The absolute path of `root`, made when it is missing.
pub(super) async fn root(root: &Path) -> Result<PathBuf> {
    let root = root.to_owned();
    let shown = root.clone();
    blocking("the lake", "open", &shown, move || {
        let root = std::path::absolute(root)?;
        create_directories(&root)?;
        root.canonicalize()
    })
    .await
}

/// The tables below `root`.
pub(super) async fn tables(root: &Path, fate: &Fate) -> Result<BTreeMap<Arc<str>, Arc<Table>>> {
    let below = root.to_owned();
    let found = blocking("the lake", "list", root, move || find(&below)).await?;
    let opened = stream::iter(found).map(|(name, directory)| table(name, directory, fate));
    let opened: Vec<Arc<Table>> = opened.buffered(4).try_collect().await?;
    Ok(opened.into_iter().map(|table| (table.name.clone(), table)).collect())
}

/// A table in a directory of its own, without a commit yet.
pub(super) fn make(root: &Path, name: &str, fate: &Fate) -> Result<Arc<Table>> {
    let Some((schema, table)) = name.split_once('.').filter(|(s, t)| is_name(s) && is_name(t)) else {
        return Err(LakeError::BadName(name.to_owned()));
    };
    let directory = root.join(schema).join(table);
    create_directories(&directory.join(LOG_DIRECTORY))
        .map_err(|e| LakeError::storage(name, "make the directory", &directory, e))?;
    Table::new(name.into(), Arc::new(directory), fate.clone()).map(Arc::new)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Names and directories that may be tables, with what was left half-written in them cleared away.
fn find(root: &Path) -> io::Result<Vec<(Arc<str>, PathBuf)>> {
    let mut found = Vec::new();
    for schema in directories(root)? {
        for (table, directory) in directories(&schema.1)? {
            sweep(&directory)?;
            // A commit may have its name and not yet a synced one, when the last process was killed in between.
            if directory.join(LOG_DIRECTORY).is_dir() {
                sync_directory(&directory.join(LOG_DIRECTORY))?;
            }
            found.push((format!("{}.{table}", schema.0).into(), directory));
        }
    }
    Ok(found)
}

/// The subdirectories that can be a schema or a table.
fn directories(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_name(&name) && entry.path().is_dir() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Deletes what writers left under staging names; at the start there is no other writer.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep(&entry.path())?;
        } else if is_staging_name(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn table(name: Arc<str>, directory: PathBuf, fate: &Fate) -> Result<Arc<Table>> {
    let table = Table::new(name.clone(), Arc::new(directory), fate.clone())?;
    table.turn().await.reload().await?;
    if table.state().is_none() {
        let files = table.directory.clone();
        let left = blocking(&name, "list", &files.clone(), move || holds_files(&files)).await?;
        if left {
            tracing::warn!(
                table = &*name,
                directory = %table.directory.display(),
                "there are files and no commit: if its log was lost, restore it from a backup before anything is written"
            );
        }
    }
    // Without a commit it is kept all the same: the first append finds its directory made.
    Ok(Arc::new(table))
}

fn holds_files(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || holds_files(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn blocking<T: Send + 'static>(
    table: &str,
    doing: &'static str,
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    // Boxed, as a task's code is compiled for each type of work.
    let work: Box<dyn FnOnce() -> io::Result<T> + Send> = Box::new(work);
    let done = spawn_blocking(work).await.map_err(|e| LakeError::storage(table, doing, path, e))?;
    done.map_err(|e| LakeError::storage(table, doing, path, e))
}
