//! A commit under way: the tables, then the state behind them, beside whatever is folded meanwhile.
//!
//! What must hold: state is stored only when every table has its rows, and the position behind them last of all, so that a
//! commit that is cut off anywhere is one that tables and state recognise when it is repeated; what it commits is seen from
//! memory until a table has it, and never from both.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

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
    /// What readers see of it beside the tables …
    tail: Arc<Mutex<Tail>>,
    /// … and where what they do not see begins.
    hidden: Option<Offset>,
    folded: Arc<Folded>,
    work: JoinHandle<Result<(), LoadError>>,
}

impl Commit {
    /// `gently`: others wait for the disk too.
    pub fn begin(rooms: Rooms, pending: Pending, gently: bool) -> Commit {
        let Parts { load, loaded, folded, appends, tail, hidden } = pending.into_parts();
        let (folded, tail) = (Arc::new(folded), Arc::new(Mutex::new(tail)));
        let work = tokio::spawn({
            let (folded, tail) = (folded.clone(), tail.clone());
            async move {
                let began = Instant::now();
                let (folder, lake, mut batch) = (rooms.folder.clone(), rooms.lake.clone(), rooms.store.batch());
                let rows = folded.clone();
                let appends = blocking(move || appends.with_rows(&lake, folder.merchant_id(), rows.rows())).await?;
                // Objects that are seen as changes of whatever there is would be seen beside themselves.
                if gently || !lock(&tail).is_empty() {
                    let mut tail = lock(&tail);
                    let laid_over = std::mem::replace(&mut *tail, appends.tail(load.last));
                    rooms.lake.replace_in_tail(&laid_over, tail.clone());
                }
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
        Commit { last: load.last, loaded, tail, hidden, folded, work }
    }

    /// Not replaced while it is held.
    pub fn tail(&self) -> MutexGuard<'_, Tail> {
        lock(&self.tail)
    }

    /// The first offset whose rows may not be seen before it is over.
    pub fn hidden(&self) -> Option<Offset> {
        self.hidden
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

fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Last, so that no two rows of `ops.loads` speak of one load.
async fn note(rooms: &Rooms, load: Load) -> Result<(), LoadError> {
    let row = loads_batch(rooms.folder.merchant_id(), &load)?;
    let at = Position { stage: STAGE, version: load.last.0 as i64 };
    rooms.lake.append(LOADS, row.schema(), &[], vec![row], at).await?;
    rooms.lake.publish();
    Ok(())
}
