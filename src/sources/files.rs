//! From a file to batches of envelopes, in the file's order.
//!
//! One thread reads and unpacks, others decode, each taking every n-th group of lines; the batches are taken from them in
//! turn, so that order costs nothing. All queues are short: a slow taker slows the reader, and memory stays bounded.
//!
//! ```text
//!              ┌─► decode ─┐
//!  read lines ─┤           ├─► batches in turn
//!              └─► decode ─┘
//! ```

use std::{
    io::Read,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use chrono_tz::Tz;

use super::{
    EXCERPT, Rejected,
    content::{Content, FileError, Meter},
    decode,
    lines::{Line, LineText, Lines},
    orders::{Orders, OrdersMapping},
    rejected::REJECTED,
};
use crate::base::{Envelope, Micros, Source};

/// A group of lines is handed to a thread when it has this much text: far more than handing over costs, and small beside
/// the memory that a query has.
const GROUP_BYTES: usize = 512 * 1024;

/// And at most so many lines, so that a batch is one group commit of the log and not ten.
const GROUP_LINES: usize = 1024;

/// Groups that wait before each thread.
const QUEUE: usize = 2;

/// How a file is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stands in every envelope.
    pub received_at: Micros,
    /// How many threads decode; at least one does.
    pub threads: usize,
    /// The merchant's: local times in orders are read in it.
    pub zone: Tz,
    /// Columns of orders that the user named.
    pub orders: OrdersMapping,
}

/// Some envelopes, in the file's order, rejected input among them.
#[derive(Debug, Default)]
pub struct Batch {
    pub envelopes: Vec<Envelope>,
    /// Lines, or for orders rows, that were read for these.
    pub read: u64,
    pub rejected: u64,
    /// Of their text, unpacked; for orders, of their payloads.
    pub bytes: u64,
}

impl Batch {
    pub(super) fn add(&mut self, envelope: Envelope) {
        self.rejected += u64::from(envelope.event_type == REJECTED);
        self.envelopes.push(envelope);
    }
}

/// The batches of one file. After an error there are no more.
pub struct Batches {
    /// How much of the file has been read.
    pub meter: Meter,
    kind: Kind,
}

enum Kind {
    Events(Decoding),
    Orders(Box<Orders>),
}

/// The envelopes of a file; `-` is standard input. Blocking: call it where blocking is allowed.
pub fn open(source: Source, path: &Path, options: &Options) -> Result<Batches, FileError> {
    batches(source, Content::open(path)?, Some(path), options)
}

/// The same from a stream, an upload for one. `name` stands in messages.
pub fn from_reader(
    source: Source,
    name: &str,
    stream: Box<dyn Read + Send>,
    options: &Options,
) -> Result<Batches, FileError> {
    batches(source, Content::of(Path::new(name), None, stream)?, None, options)
}

fn batches(source: Source, content: Content, path: Option<&Path>, options: &Options) -> Result<Batches, FileError> {
    let meter = content.meter.clone();
    let kind = match source {
        Source::Stripe | Source::Klaviyo | Source::Storefront => {
            Kind::Events(Decoding::start(source, Lines::new(content), options))
        }
        Source::Orders => Kind::Orders(Box::new(Orders::new(content, path, options)?)),
        Source::Tillstream | Source::Twilio | Source::Aliyun => return Err(FileError::NotASource(source)),
    };
    Ok(Batches { meter, kind })
}

impl Iterator for Batches {
    type Item = Result<Batch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.kind {
            Kind::Events(decoding) => decoding.next(),
            Kind::Orders(orders) => orders.next(),
        }
    }
}

/// What goes to a thread that decodes.
enum Work {
    Lines(Vec<Line>),
    Failed(FileError),
    /// Without this, an end is a thread that failed.
    End,
}

/// What comes back.
enum Done {
    Batch(Batch),
    Failed(FileError),
    End,
}

struct Decoding {
    done: Vec<Receiver<Done>>,
    turn: usize,
    ended: bool,
}

impl Decoding {
    fn start(source: Source, lines: Lines, options: &Options) -> Decoding {
        let received_at = options.received_at;
        let (queues, done) = (0..options.threads.max(1))
            .map(|_| {
                let (work, works) = sync_channel(QUEUE);
                let (out, done) = sync_channel(QUEUE);
                thread::spawn(move || decode_groups(source, received_at, &works, &out));
                (work, done)
            })
            .unzip();
        thread::spawn(move || read_groups(lines, queues));
        Decoding { done, turn: 0, ended: false }
    }

    fn next(&mut self) -> Option<Result<Batch, FileError>> {
        if self.ended {
            return None;
        }
        let done = self.done[self.turn].recv();
        self.turn = (self.turn + 1) % self.done.len();
        self.ended = !matches!(done, Ok(Done::Batch(_)));
        match done {
            Ok(Done::Batch(batch)) => Some(Ok(batch)),
            Ok(Done::Failed(error)) => Some(Err(error)),
            Ok(Done::End) => None,
            Err(_) => Some(Err(FileError::Stopped)),
        }
    }
}

/// Deals the groups out in turn. A queue that nobody takes from any more ends the reading.
fn read_groups(mut lines: Lines, queues: Vec<SyncSender<Work>>) {
    for queue in queues.iter().cycle() {
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut failed = None;
        while bytes < GROUP_BYTES && group.len() < GROUP_LINES {
            match lines.next() {
                Some(Ok(line)) => {
                    bytes += line.len();
                    group.push(line);
                }
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        // What was read before an error is good: it goes first, and the error or the end follows in the next turn.
        let last = group.is_empty();
        let work = match failed {
            Some(error) if last => Work::Failed(error),
            Some(error) => {
                lines.fail(error);
                Work::Lines(group)
            }
            None if last => Work::End,
            None => Work::Lines(group),
        };
        if queue.send(work).is_err() || last {
            return;
        }
    }
}

fn decode_groups(source: Source, received_at: Micros, works: &Receiver<Work>, out: &SyncSender<Done>) {
    for work in works {
        let done = match work {
            Work::Lines(lines) => Done::Batch(decode_lines(source, received_at, lines)),
            Work::Failed(error) => Done::Failed(error),
            Work::End => Done::End,
        };
        if out.send(done).is_err() {
            return;
        }
    }
}

fn decode_lines(source: Source, received_at: Micros, lines: Vec<Line>) -> Batch {
    let mut batch = Batch { envelopes: Vec::with_capacity(lines.len()), ..Batch::default() };
    for line in lines {
        batch.read += 1;
        batch.bytes += line.len() as u64;
        batch.add(match line.text {
            LineText::Whole(text) => decode(source, &text, received_at)
                .unwrap_or_else(|rejected| rejected.in_line(line.number).envelope(source, &text, received_at)),
            LineText::TooLong { excerpt, bytes, print } => {
                Rejected::TooLarge { bytes, kept: EXCERPT }.envelope_of(source, &excerpt, print, received_at)
            }
        });
    }
    batch
}
