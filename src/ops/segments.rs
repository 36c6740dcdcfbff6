//! What marketing sees: segments with their members, triggers with their messages.

use super::{Instance, OpsError};
use crate::{
    activate::{Dispatched, MemberRow, Preview, SegmentSummary, TriggerSummary},
    base::{Micros, progress::Silent},
};

impl Instance {
    pub fn segments(&self) -> Result<Vec<SegmentSummary>, OpsError> {
        Ok(self.activator.segments()?)
    }

    pub fn members(&self, segment: &str) -> Result<Vec<MemberRow>, OpsError> {
        Ok(self.activator.members(segment)?)
    }

    pub fn triggers(&self) -> Result<Vec<TriggerSummary>, OpsError> {
        Ok(self.activator.triggers()?)
    }

    /// Who would get what now, who would not, and why. Changes nothing.
    pub async fn preview(&self, trigger: &str) -> Result<Vec<Preview>, OpsError> {
        self.load(&Silent).await?;
        let now = Micros::now();
        Ok(self.activator.preview(trigger, &self.session(now)?, now).await?)
    }

    /// Looks at the segments, queues what the triggers want, and sends what is due.
    pub async fn send(&self, trigger: &str) -> Result<Dispatched, OpsError> {
        self.activator.known(trigger)?;
        // Whoever paid or unsubscribed a moment ago must be known to have.
        self.load(&Silent).await?;
        let (_, dispatched) = self.activate(None).await?;
        Ok(Dispatched {
            messages: dispatched.messages.into_iter().filter(|m| m.trigger == trigger).collect(),
            ..dispatched
        })
    }
}
