//! Reading the log for what matters to whoever sends: our own records, and what providers say of their own accord.
//!
//! A receipt moves its message on by the state machine of [`State`], which never goes back and never leaves a final state,
//! so that receipts may come in any order and more than once. STOP and START are taken up at once: before each group of
//! texts the log is read to its end. Up to where it was read is kept; after a crash a stretch is read again, which changes
//! nothing.

use std::ops::Range;

use super::{
    Activator,
    channel::twilio::explain,
    error::ActivateError,
    message::{Medium, Message, State},
    outbox::Word,
    record::Record,
};
use crate::{
    base::{Envelope, Logged, Offset, Source},
    facts::provider::{Fate, Said, Sender, said},
    load,
    log::EventLog,
};

/// Payload bytes that one read of the log takes.
const READ_BYTES: usize = 8 << 20;

/// Whose events are taken up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of providers: our own records came from this very process, where no other has a part in the log.
    Providers,
    Everyones,
}

impl Activator {
    /// Takes up what providers said since the last time. Only while no text is under way: a receipt that came before we
    /// wrote down the provider's id for its message would find none.
    pub(super) async fn hear(&self) -> Result<(), ActivateError> {
        let whose = if self.log.is_shared() { Whose::Everyones } else { Whose::Providers };
        let (mark, end) = (self.outbox.log_mark()?, self.read_on(whose).await?);
        if mark == Some(end) { Ok(()) } else { self.outbox.set_log_mark(end) }
    }

    /// Reads from where it was last read to the end of the log, and says where that is.
    pub(super) async fn read_on(&self, whose: Whose) -> Result<Offset, ActivateError> {
        self.log.catch_up().await?;
        let (mut next, end) = (self.outbox.log_mark()?.unwrap_or_default(), self.log.end());
        let start = self.log.start();
        if next < start {
            self.take_up_from_tables(next..start, whose).await?;
            next = start;
        }
        while next < end {
            let (events, there) = read(self.log.clone(), next, end).await?;
            // A stretch that the log's disk lost.
            if next < there.start {
                self.take_up_from_tables(next..there.start, whose).await?;
            }
            self.take_up(&events, whose)?;
            next = there.end;
        }
        Ok(next)
    }

    /// What is not in the log any more. Looked at after the log, which is trimmed behind what is published; a session may be
    /// of before.
    async fn take_up_from_tables(&self, stretch: Range<Offset>, whose: Whose) -> Result<(), ActivateError> {
        let tables = self.lake.snapshot();
        let sources = Source::ALL.into_iter().filter(|source| matters(*source));
        self.take_up(&load::events_of(&tables, sources, stretch).await?, whose)
    }

    fn take_up(&self, events: &[Logged], whose: Whose) -> Result<(), ActivateError> {
        for Logged { envelope: event, .. } in events {
            match event.source {
                Source::Tillstream if whose == Whose::Everyones => {
                    self.outbox.restore(Record::parse(&event.event_type, &event.payload))?;
                }
                Source::Tillstream => {}
                // What cannot be read is in quarantine for somebody to see.
                _ => {
                    if let Ok(Some(said)) = said(event) {
                        self.heed(event, said)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn heed(&self, event: &Envelope, said: Said) -> Result<(), ActivateError> {
        match said {
            Said::Receipt { provider_id, fate, code } => {
                let Some(message) = self.outbox.by_provider_id(&provider_id)?.filter(|m| is_by(m, event.source)) else {
                    return Ok(());
                };
                let state = match fate {
                    Fate::Sent => State::Sent,
                    Fate::Delivered | Fate::Opened => State::Delivered,
                    Fate::Failed => State::Failed,
                };
                let reason = code.map(|code| why(event.source, &code));
                self.outbox.change(&message.key, state, event.occurred_at, |m| m.reason = reason)?;
                Ok(())
            }
            Said::Stop(sender) => self.outbox.heed(&self.word(event, &sender, false)),
            Said::Start(sender) => self.outbox.heed(&self.word(event, &sender, true)),
        }
    }

    fn word(&self, event: &Envelope, sender: &Sender, lifted: bool) -> Word {
        Word {
            medium: Medium::Sms,
            destination_hash: sender.hash(&self.names),
            source: event.source.to_string(),
            reason: Said::reason(lifted).to_owned(),
            at: event.occurred_at,
            lifted,
        }
    }
}

fn is_by(message: &Message, source: Source) -> bool {
    message.provider.as_deref() == Some(source.as_str())
}

fn why(source: Source, code: &str) -> String {
    match (source, code.parse()) {
        (Source::Twilio, Ok(code)) => explain(code, None),
        _ => format!("{source} {code}"),
    }
}

fn matters(source: Source) -> bool {
    matches!(source, Source::Tillstream | Source::Twilio | Source::Aliyun)
}

/// What matters in the next stretch that the log has, and which stretch that is: an empty one at `end` where it has none.
async fn read(log: EventLog, from: Offset, end: Offset) -> Result<(Vec<Logged>, Range<Offset>), ActivateError> {
    tokio::task::spawn_blocking(move || {
        let mut logged = log.read(from, READ_BYTES)?;
        let there = match (logged.first(), logged.last()) {
            (Some(first), Some(last)) => first.offset..last.offset.next(),
            _ => end..end,
        };
        logged.retain(|l| matters(l.envelope.source));
        Ok((logged, there))
    })
    .await?
}
