//! Whether people are written to, and whether that is as it should be.

use super::Finding;
use crate::{
    activate::{Message, State},
    base::{Micros, time::DAY},
    ops::Instance,
    pipeline,
};

/// How far back messages are looked at.
const WEEK: i64 = 7 * DAY;

impl Instance {
    /// Segments that are left as they are. In a new directory they all may be, and what a check found is a finding of the
    /// runs: so it is no fault.
    pub(super) async fn held_segments(&self) -> Finding {
        let fault = |error: String| Finding::fault("segments", error, "tillstream check");
        let now = Micros::now();
        let session = match self.session(now) {
            Ok(session) => session,
            Err(error) => return fault(error.to_string()),
        };
        let (mut number, mut held) = (0, Vec::new());
        for segment in self.project.segments() {
            number += 1;
            match pipeline::doubt(&session, &self.lake, &self.project, &segment.table(), now).await {
                Ok(None) => {}
                Ok(Some(why)) => held.push(format!("{}: {why}", segment.name)),
                Err(error) => return fault(error.to_string()),
            }
        }
        let found = match held.first() {
            None => format!("{number} are looked at"),
            Some(first) => format!("{} of {number} are left as they are, the first {first}", held.len()),
        };
        Finding::new("segments", true, found, "")
    }

    /// Messages of late of which nobody knows whether they went, or that are tried again; and what became of the others.
    pub(super) fn messages(&self) -> Finding {
        let since = Micros::now().0 - WEEK;
        let (mut sent, mut failed): (usize, usize) = Default::default();
        let (mut doubtful, mut waiting): (Vec<Message>, Vec<Message>) = Default::default();
        for message in self.activator.messages() {
            match message {
                Err(error) => return Finding::fault("messages", error.to_string(), "tillstream rebuild"),
                Ok(message) => match message.state {
                    State::Queued if message.attempt > 0 => doubtful.push(message),
                    State::Queued => waiting.push(message),
                    _ if message.went_at().0 < since => {}
                    State::Unknown => doubtful.push(message),
                    State::Sent | State::Delivered => sent += 1,
                    State::Failed => failed += 1,
                    State::Claimed | State::Skipped => {}
                },
            }
        }
        let mut found = format!("in the last seven days {sent} were sent and {failed} failed");
        let last = |messages: &[Message]| {
            let last = messages.iter().max_by_key(|m| m.went_at())?;
            let why = last.reason.as_deref().unwrap_or("its turn has not come");
            Some(format!("{} by {}: {why}", last.trigger, last.medium.spoken()))
        };
        if let Some(last) = last(&waiting) {
            found += &format!("; {} wait, the last of {last}", waiting.len());
        }
        match last(&doubtful) {
            None => Finding::new("messages", true, found, ""),
            Some(last) => {
                found += &format!("; {} are tried again or may not have gone, the last of {last}", doubtful.len());
                let remedy =
                    "see the provider's settings, and SELECT * FROM ops.messages WHERE state IN ('queued', 'unknown')";
                Finding::fault("messages", found, remedy)
            }
        }
    }
}
