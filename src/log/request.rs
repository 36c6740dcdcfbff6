//! What an appender hands to the writer: its events, ready to be written but for their offsets.
//!
//! Encoding is done here, by the appender's own thread: the one writer only looks up, packs and syncs.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Appended, block::MAX_BODY, error::AppendError, index::Keys, record};
use crate::base::Envelope;

/// A long append is cut into requests of about this size, so that they can wait for room one by one.
const PART: usize = 1 << 20;
/// What an event costs in the queue beside its payload.
const OVERHEAD: usize = 512;

pub(super) type Answer = Result<Vec<Appended>, AppendError>;

pub(super) struct Request {
    events: Vec<Prepared>,
    bodies: Vec<u8>,
    answer: oneshot::Sender<Answer>,
    /// Given back just before the request is answered.
    room: Option<OwnedSemaphorePermit>,
    begins_segment: bool,
}

struct Prepared {
    keys: Keys,
    /// Where its body ends; it begins where the one before ends.
    end: usize,
}

/// `envelopes`, in order, in parts of about [`PART`] bytes.
pub(super) fn parts(envelopes: Vec<Envelope>) -> impl Iterator<Item = Vec<Envelope>> {
    let mut rest = envelopes.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut part = Vec::new();
        while bytes < PART
            && let Some(envelope) = rest.next()
        {
            bytes += envelope.payload.len() + OVERHEAD;
            part.push(envelope);
        }
        (!part.is_empty()).then_some(part)
    })
}

pub(super) fn prepare(envelopes: &[Envelope]) -> Result<(Request, oneshot::Receiver<Answer>), AppendError> {
    let mut bodies = Vec::with_capacity(envelopes.iter().map(|e| e.payload.len() + OVERHEAD).sum());
    let mut events = Vec::with_capacity(envelopes.len());
    for envelope in envelopes {
        let start = bodies.len();
        bodies = record::encode(envelope, bodies).map_err(|e| AppendError::Write { reason: e.to_string() })?;
        let bytes = bodies.len() - start;
        if bytes > MAX_BODY {
            return Err(AppendError::TooLarge { event_id: envelope.event_id.clone(), bytes, limit: MAX_BODY });
        }
        events.push(Prepared { keys: Keys::of(envelope), end: bodies.len() });
    }
    let (answer, answered) = oneshot::channel();
    Ok((Request { events, bodies, answer, room: None, begins_segment: false }, answered))
}

/// Of no event: what was asked for before lies in other segments than what is asked for after. The answer is where the new
/// one begins.
pub(super) fn new_segment() -> (Request, oneshot::Receiver<Answer>) {
    let (answer, answered) = oneshot::channel();
    (Request { events: Vec::new(), bodies: Vec::new(), answer, room: None, begins_segment: true }, answered)
}

impl Request {
    pub fn with_room(self, room: OwnedSemaphorePermit) -> Request {
        Request { room: Some(room), ..self }
    }

    pub fn begins_segment(&self) -> bool {
        self.begins_segment
    }

    /// What it costs while it waits.
    pub fn bytes(&self) -> usize {
        self.bodies.len() + OVERHEAD * (1 + self.events.len())
    }

    /// Keys and body of each event, in order.
    pub fn events(&self) -> impl Iterator<Item = (&Keys, &[u8])> {
        let mut start = 0;
        self.events.iter().map(move |event| {
            let body = &self.bodies[std::mem::replace(&mut start, event.end)..event.end];
            (&event.keys, body)
        })
    }

    pub fn answer(self, answer: Answer) {
        drop(self.room);
        // Nobody waits where the appender was cancelled; what was stored stays stored.
        drop(self.answer.send(answer));
    }
}
