//! Whether the tables can be read, and are in a good shape.

use super::{Finding, PATIENCE};
use crate::{facts::Table, lake::changes_of, ops::Instance};

/// More files in one table than this, and every query feels them: upkeep merges them long before.
const FILES: usize = 2000;

impl Instance {
    pub(super) fn tables_finding(&self) -> Finding {
        let snapshot = self.lake.snapshot();
        let tables: Vec<(String, usize, u64)> = snapshot
            .tables()
            .into_iter()
            .map(|t| (snapshot.files(&t).unwrap_or(0), snapshot.bytes(&t).unwrap_or(0), t))
            .map(|(files, bytes, table)| (table, files, bytes))
            .collect();
        let (files, bytes) = tables.iter().fold((0, 0), |(f, b), t| (f + t.1, b + t.2));
        let found = format!("{} tables of {files} files, {:.1} MB", tables.len(), bytes as f64 / 1e6);
        match tables.into_iter().max_by_key(|t| t.1).filter(|t| t.1 > FILES) {
            None => Finding::new("tables", true, found, ""),
            Some((table, files, _)) => Finding::new(
                "tables",
                false,
                format!("{found}; {table} alone has {files} files"),
                "upkeep does not keep up: see its errors in the log of serve, and whether the disk is busy",
            ),
        }
    }

    /// Whether all that the tables' logs name can be read.
    pub(super) async fn files(&self) -> Finding {
        let snapshot = self.lake.snapshot();
        let inspected = match tokio::task::spawn_blocking(move || snapshot.inspect(PATIENCE)).await {
            Ok(inspected) => inspected,
            Err(error) => return Finding::fault("files", error.to_string(), "tillstream doctor once more"),
        };
        let Some(first) = inspected.damaged.first() else {
            let found = format!("{} files of tables, {} of them read to the end", inspected.files, inspected.read);
            return Finding::new("files", true, found, "");
        };
        let (table, path, number) = (&first.table, first.path.display(), inspected.damaged.len());
        let found = format!("{number} cannot be read, the first: {path} of {table}: {}", first.why);
        let is_of_events = Table::ALL.iter().any(|t| t.name() == table || changes_of(t.name()) == *table);
        let remedy = match table.split_once('.') {
            _ if is_of_events => "tillstream rebuild".to_owned(),
            Some(("marts", _)) => "tillstream run --full".to_owned(),
            Some(("raw", _)) => format!("restore {path} from a backup: no other table has what it holds"),
            Some(("ops", name)) => format!(
                "restore {path} from a backup; or stop serve and remove {}, to begin that record anew",
                self.dir.join("lake/ops").join(name).display()
            ),
            _ => format!("restore {path} from a backup"),
        };
        Finding::fault("files", found, &remedy)
    }
}
