//! The last word, at each place where one can be given, on whether a destination may be written to.
//!
//! Words of one place on one destination are sights of one row: the latest holds, and of two at one moment the no. A yes
//! lifts only what was said at the same place: who texts START takes back a STOP, not a complaint about an e-mail.

use super::{
    decode::Event,
    observation::{Observation, Sight, Step},
    rows::Suppression,
    table::Table,
};
use crate::base::Micros;

pub(super) struct Word<'a> {
    pub channel: &'a str,
    pub destination_hash: &'a str,
    pub reason: Option<String>,
    pub at: Micros,
    /// Where it was said.
    pub source: &'a str,
    pub lifted: bool,
}

/// Adds what the event says to what is known of the destination.
pub(super) fn say(event: &mut Event, word: Word<'_>) {
    let Word { channel, destination_hash, reason, at, source, lifted } = word;
    let suppression_id = format!("{channel}:{destination_hash}:{source}");
    let key = event.key(Table::Suppressions, &suppression_id);
    let envelope = event.envelope;
    let row = Suppression {
        suppression_id,
        event_id: envelope.event_id.clone(),
        channel: channel.to_owned(),
        destination_hash: destination_hash.to_owned(),
        reason,
        at,
        source: source.to_owned(),
        lifted,
    };
    let sight = Sight {
        at,
        own: true,
        whole: true,
        step: Step { rank: u8::from(!lifted), ..Step::default() },
        event_id: envelope.event_id.clone(),
        event_digest: envelope.digest,
        account: None,
        state: envelope.digest,
        prior: None,
        row: row.into(),
    };
    event.decoded.observations.push(Observation { key, sight: Some(sight), marks: Vec::new(), parts: Vec::new() });
}
