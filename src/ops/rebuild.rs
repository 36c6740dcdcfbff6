//! Tables again from `raw.events`, and the past from a part of it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Instance, OpsError};
use crate::{
    base::{Progress, suggest},
    facts::Table,
    load::{Refolded, Until, refold},
};

impl Instance {
    /// Makes `tables` (all where empty) again; returns how many rows they have.
    pub async fn rebuild(&self, tables: &[String], progress: &dyn Progress) -> Result<u64, OpsError> {
        let tables = tables.iter().map(|name| known(name)).collect::<Result<Vec<_>, _>>()?;
        let mut loader = self.loader.lock().await;
        loader.settle().await?;
        let refolded = self.refold(Until::default(), progress).await?;
        let rows = loader.rebuild(refolded, &tables).await?;
        // Only now: state that cannot be read is what a rebuild may be for.
        loader.drain(progress).await?;
        Ok(rows)
    }

    /// Tables as the chosen events make them, in a scratch directory.
    pub(super) async fn refold(&self, until: Until, progress: &dyn Progress) -> Result<Refolded, OpsError> {
        static REFOLDS: AtomicU64 = AtomicU64::new(0);
        let scratch = self.dir.join("tmp").join(format!("refold-{}", REFOLDS.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&scratch).map_err(|e| OpsError::dir("make", &scratch, e))?;
        let _raw = self.reading_raw.read().await;
        let decoder = self.decoder();
        let facts = (decoder, self.settings.merchant.id.as_str());
        Ok(refold(&self.lake.snapshot(), until, &scratch, &self.privacy_key, facts, progress).await?)
    }
}

fn known(name: &str) -> Result<Table, OpsError> {
    let names = Table::ALL.map(Table::name);
    Table::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| {
        let hint = suggest::did_you_mean(name, names);
        OpsError::Unknown(format!("{name} is not a table that events make{hint}; these are: {}", names.join(", ")))
    })
}
