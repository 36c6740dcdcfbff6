//! The Delta log of one table: reading a version from it, and writing the next.
//!
//! Reading is the library's. Writing is one file put under a name that must not exist, so of two writers one wins, and the
//! other is told. A table keeps the names of the stages that write to it in its own description, because the log can be
//! asked how far a stage has come only by its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Schema;
use deltalake_core::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake_core::kernel::transaction::{CommitData, TransactionError};
use deltalake_core::kernel::{
    Action, Add, LogicalFileView, Metadata, MetadataExt, Protocol, Remove, StructType, Transaction, new_metadata,
};
use deltalake_core::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::durable::{DurableStore, Fate};
use super::error::{LakeError, Result};
use super::files::FULL_FILE;
use super::state::{Change, Layout, TableState};

/// The key of a table's description that holds the names of its stages, a JSON list.
const STAGES: &str = "tillstream.stages";

/// A checkpoint repeats every removed file until it is this old. The library's week would be half a million of them, were a
/// file made and merged away every second.
const SETTINGS: [(&str, &str); 1] = [("delta.deletedFileRetentionDuration", "interval 1 hours")];

pub(super) const LOG_DIRECTORY: &str = "_delta_log";

/// The log of the table in `directory`, which must exist.
pub(super) fn open(table: &str, directory: &Path, fate: &Fate) -> Result<LogStoreRef> {
    let below =
        DurableStore::below(directory, fate.clone()).map_err(|e| LakeError::storage(table, "open", directory, e))?;
    let url = Url::from_directory_path(directory).map_err(|()| {
        LakeError::storage(table, "open", directory, "the path is not absolute, or not one that a URL can hold")
    })?;
    let whole = DurableStore::whole(fate.clone());
    Ok(default_logstore(Arc::new(below), Arc::new(whole), &url, &StorageConfig::default()))
}

/// The newest version in the log; `None` when there is no commit.
pub(super) async fn read(name: &Arc<str>, directory: &Arc<PathBuf>, log: &LogStoreRef) -> Result<Option<TableState>> {
    let corrupt =
        |detail: String| LakeError::Corrupt { table: name.to_string(), path: directory.as_path().to_owned(), detail };
    if !holds_a_commit(&corrupt, log).await? {
        return Ok(None);
    }
    let mut table = DeltaTable::new(log.clone());
    table.load().await.map_err(|e| reading(name, directory, e))?;
    let snapshot = table.snapshot().map_err(|e| corrupt(e.to_string()))?;
    let unsupported =
        |what: String| LakeError::Unsupported { table: name.to_string(), path: directory.as_path().to_owned(), what };
    let (reader, writer) = (snapshot.protocol().min_reader_version(), snapshot.protocol().min_writer_version());
    if reader > 1 || writer > 2 {
        return Err(unsupported(format!("Delta protocol {reader}/{writer}")));
    }
    let views: Vec<_> =
        table.get_active_add_actions_by_predicate(None).try_collect().await.map_err(|e| reading(name, directory, e))?;
    if views.iter().any(|view| view.deletion_vector_descriptor().is_some()) {
        return Err(unsupported("deletion vectors".into()));
    }
    // They come newest first.
    let adds = views.iter().rev().map(add).collect();
    let metadata = snapshot.metadata().clone();
    let mut positions = BTreeMap::new();
    for stage in stages(&metadata) {
        let version = snapshot.transaction_version(log.as_ref(), &stage).await;
        if let Some(version) = version.map_err(|e| reading(name, directory, e))? {
            positions.insert(stage, version);
        }
    }
    let layout = layout(name, &metadata).map_err(|e| corrupt(e.to_string()))?;
    let version = snapshot.version();
    TableState::new(name.clone(), directory.clone(), version, (metadata, Arc::new(layout)), adds, positions).map(Some)
}

fn add(view: &LogicalFileView) -> Add {
    Add {
        path: view.path().into_owned(),
        partition_values: view.partition_values_map(),
        size: view.size(),
        modification_time: view.modification_time(),
        data_change: true,
        stats: view.stats(),
        ..Default::default()
    }
}

/// The version of the newest checkpoint, as the hint beside the log says; 0 without one.
pub(super) async fn checkpointed(log: &LogStoreRef) -> u64 {
    #[derive(Deserialize)]
    struct Hint {
        version: u64,
    }
    let hint = StorePath::from_iter([LOG_DIRECTORY, "_last_checkpoint"]);
    // Only a hint: without it a checkpoint is written sooner.
    let Ok(read) = log.object_store(None).get(&hint).await else { return 0 };
    let Ok(bytes) = read.bytes().await else { return 0 };
    serde_json::from_slice::<Hint>(&bytes).map_or(0, |hint| hint.version)
}

/// Looks through the names in the log. An empty commit is damage that the library would take for a commit of nothing.
async fn holds_a_commit(corrupt: &impl Fn(String) -> LakeError, log: &LogStoreRef) -> Result<bool> {
    let store = log.object_store(None);
    let listed = store.list(Some(&StorePath::from(LOG_DIRECTORY))).try_collect::<Vec<ObjectMeta>>().await;
    let mut found = false;
    for entry in listed.map_err(|e| corrupt(e.to_string()))? {
        let Some(file) = entry.location.filename() else { continue };
        let commit = file.strip_suffix(".json").is_some_and(|v| v.len() == 20 && v.bytes().all(|b| b.is_ascii_digit()));
        if commit && entry.size == 0 {
            return Err(corrupt(format!("its commit {LOG_DIRECTORY}/{file} is empty")));
        }
        found |= commit || file.contains(".checkpoint.");
    }
    Ok(found)
}

fn layout(name: &str, metadata: &Metadata) -> Result<Layout> {
    let schema: StructType = metadata.parse_schema().map_err(|e| LakeError::schema(name, e.to_string()))?;
    let schema: Schema = (&schema).try_into_arrow().map_err(|e| LakeError::schema(name, e.to_string()))?;
    Layout::new(name, Arc::new(schema), metadata.partition_columns())
}

fn reading(name: &str, directory: &Path, error: DeltaTableError) -> LakeError {
    match error {
        DeltaTableError::ObjectStore { source } => LakeError::storage(name, "read the log in", directory, source),
        DeltaTableError::Io { source } => LakeError::storage(name, "read the log in", directory, source),
        other => LakeError::Corrupt { table: name.to_owned(), path: directory.to_owned(), detail: other.to_string() },
    }
}

fn stages(metadata: &Metadata) -> Vec<String> {
    metadata.configuration().get(STAGES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The description of a table with `layout`: a new one, or `old` changed.
pub(super) fn describe(name: &str, layout: &Layout, old: Option<&Metadata>) -> Result<Metadata> {
    let bad = |e: &dyn std::fmt::Display| LakeError::schema(name, e.to_string());
    let schema: StructType = layout.schema.as_ref().try_into_kernel().map_err(|e| bad(&e))?;
    let kept = match old {
        Some(old) => old.configuration().clone(),
        None => SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    let metadata = new_metadata(&schema, &layout.partition_by, kept).and_then(|m| m.with_name(name.to_owned()));
    let metadata = match old {
        Some(old) => metadata.and_then(|m| m.with_table_id(old.id().to_owned())),
        None => metadata,
    };
    metadata.map_err(|e| bad(&e))
}

/// `metadata` with `stage` among its stages; `None` when it is there already.
pub(super) fn with_stage(name: &str, metadata: &Metadata, stage: &str) -> Result<Option<Metadata>> {
    let mut known = stages(metadata);
    if known.iter().any(|s| s == stage) {
        return Ok(None);
    }
    known.push(stage.to_owned());
    let added = metadata.clone().add_config_key(STAGES.to_owned(), json!(known).to_string());
    added.map(Some).map_err(|e| LakeError::schema(name, e.to_string()))
}

/// What a commit is for, as the log's readers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Append,
    Replace,
    Compact,
}

/// Puts `change` into the log; it leads to `next`.
pub(super) async fn write(
    log: &LogStoreRef,
    purpose: Purpose,
    next: &TableState,
    change: &Change,
) -> Result<(), TransactionError> {
    let operation = match purpose {
        Purpose::Compact => DeltaOperation::Optimize { predicate: None, target_size: FULL_FILE as i64 },
        Purpose::Append | Purpose::Replace => DeltaOperation::Write {
            mode: if purpose == Purpose::Append { SaveMode::Append } else { SaveMode::Overwrite },
            partition_by: (!next.layout.partition_by.is_empty()).then(|| next.layout.partition_by.clone()),
            predicate: None,
        },
    };
    let transactions = change.position.iter().map(|(stage, at)| Transaction::new(stage, *at)).collect();
    let actions = actions(next.version, purpose, change)?;
    let data = CommitData::new(actions, operation, Default::default(), transactions);
    log.write_commit_entry(next.version, CommitOrBytes::LogBytes(data.get_bytes()?), Default::default()).await
}

fn actions(version: u64, purpose: Purpose, change: &Change) -> Result<Vec<Action>, TransactionError> {
    let mut actions = Vec::with_capacity(change.added.len() + change.removed.len() + 2);
    if version == 0 {
        let protocol: Protocol = serde_json::from_value(json!({"minReaderVersion": 1, "minWriterVersion": 2}))
            .map_err(|json_err| TransactionError::SerializeLogJson { json_err })?;
        actions.push(Action::Protocol(protocol));
    }
    if let Some((metadata, _)) = &change.described {
        actions.push(Action::Metadata(metadata.clone()));
    }
    let data_change = purpose != Purpose::Compact;
    let now = chrono::Utc::now().timestamp_millis();
    actions.extend(change.removed.iter().map(|file| {
        Action::Remove(Remove {
            path: file.add.path.clone(),
            data_change,
            deletion_timestamp: Some(now),
            extended_file_metadata: Some(true),
            partition_values: Some(file.add.partition_values.clone()),
            size: Some(file.add.size),
            ..Default::default()
        })
    }));
    actions.extend(change.added.iter().map(|add| Action::Add(Add { data_change, ..add.clone() })));
    Ok(actions)
}
