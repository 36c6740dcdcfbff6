//! Making the store whole again: once in a process, before anything is queued or sent.
//!
//! The log (and `raw.events`, where the log was trimmed) knows every message that was ever claimed. What the store lacks
//! of it, because it was lost or fell back behind a power cut, is taken up here, so that nothing is sent twice. In a
//! store that knows nothing the memberships come back from their copy: nobody enters a segment anew.

use super::{Activator, error::ActivateError, hear::Whose, patience};
use crate::{base::Micros, engine::Session};

impl Activator {
    pub(super) async fn recover(&self, session: &Session, now: Micros) -> Result<(), ActivateError> {
        let mut recovered = self.recovered.lock().await;
        if *recovered {
            return Ok(());
        }
        // First what the store knows and the log does not.
        self.outbox.log(&self.log).await?;
        let knows_nothing = self.outbox.log_mark()?.is_none();
        let end = self.read_on(Whose::Everyones).await?;
        if knows_nothing {
            let spans = self.copied_memberships(session).await?;
            let mut batch = self.store.batch();
            self.members.restore(&mut batch, &spans)?;
            batch.commit_durable()?;
        }
        self.outbox.abandon(now, patience(&self.log))?;
        self.outbox.log(&self.log).await?;
        self.outbox.set_log_mark(end)?;
        *recovered = true;
        Ok(())
    }
}
