//! A commit under way: the tables, then the state behind them, beside whatever is folded meanwhile.
//!
//! What must hold: state is stored only when every table has its rows, and the position behind them last of all, so that a
//! commit that is cut off anywhere is one that tables and state recognise when it is repeated; what it commits is seen from
//! memory until it is over.

use std::{sync::Arc, time::Instant};

use tokio::task::JoinHandle;

use super::{
    LoadError, Loaded, NEXT, STAGE, TABLES, blocking,
    fold::Folder,
    folded::Folded,
    pending::{Parts, Pending},
    recall,
};
use crate::{
    base::{Micros, Offset},
    facts::loads::{LOADS, Load, loads_batch},
    lake::{Lake, Position, Tail},
    store::{Keyspace, Store},
    telemetry,
};

/// Where a commit goes.
pub struct Rooms {
    pub lake: Lake,
    pub store: Store,
    pub progress: Keyspace,
    pub folder: Arc<Folder>,
}

/// See the module. It goes on when this is dropped.
pub struct Commit {
    last: Offset,
    loaded: Loaded,
    /// What readers see until it is over.
    tail: Tail,
    folded: Arc<Folded>,
    work: JoinHandle<Result<(), LoadError>>,
}

impl Commit {
    /// `gently`: others wait for the disk too.
    pub fn begin(rooms: Rooms, pending: Pending, gently: bool) -> Commit {
        let Parts { load, loaded, folded, appends, tail } = pending.into_parts();
        let folded = Arc::new(folded);
        let work = tokio::spawn({
            let folded = folded.clone();
            async move {
                let began = Instant::now();
                let (folder, lake, mut batch) = (rooms.folder.clone(), rooms.lake.clone(), rooms.store.batch());
                let rows = folded.clone();
                let appends = blocking(move || appends.with_rows(&lake, folder.merchant_id(), rows.rows())).await?;
                appends.commit(&rooms.lake, load.last).await?;
                rooms.lake.publish();
                batch.put(&rooms.progress, NEXT, load.last.next().0.to_be_bytes());
                batch.put(&rooms.progress, TABLES, recall::versions(&rooms.lake));
                let folder = rooms.folder.clone();
                blocking(move || {
                    folded.store(&folder, gently, &mut batch)?;
                    Ok(batch.commit()?)
                })
                .await?;
                note(&rooms, Load { committed_at: Micros::now(), ..load }).await?;
                let quarantined = loaded.rejected + loaded.quarantined_facts;
                telemetry::loaded(loaded.events, quarantined, began.elapsed().as_secs_f64());
                telemetry::unhandled_type(loaded.unhandled);
                Ok(())
            }
        });
        Commit { last: load.last, loaded, tail, folded, work }
    }

    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The state that it stores.
    pub fn folded(&self) -> Arc<Folded> {
        self.folded.clone()
    }

    pub fn is_over(&self) -> bool {
        self.work.is_finished()
    }

    /// The first offset behind it.
    pub fn next(&self) -> Offset {
        self.last.next()
    }

    pub fn loaded(&self) -> Loaded {
        self.loaded
    }

    /// Waits for its end; once.
    pub async fn end(&mut self) -> Result<(), LoadError> {
        (&mut self.work).await.map_err(|e| LoadError::CutOff(e.to_string()))?
    }
}

/// Last, so that no two rows of `ops.loads` speak of one load.
async fn note(rooms: &Rooms, load: Load) -> Result<(), LoadError> {
    let row = loads_batch(rooms.folder.merchant_id(), &load)?;
    let at = Position { stage: STAGE, version: load.last.0 as i64 };
    rooms.lake.append(LOADS, row.schema(), &[], vec![row], at).await?;
    rooms.lake.publish();
    Ok(())
}
