//! How events stand in a segment file: in blocks, each packed as a whole, since one event says little that the next does not say
//! again.
//!
//! ```text
//! magic 4 | packed length 4 | length 4 | events 4 | first offset 8 | its place in its group 4
//!     | crc32 of the twenty-four bytes before and all that follows 4 | packed
//! ```
//!
//! Numbers are little-endian. Packed is, for each event, the length of its body in four bytes and the body ([`record`](super::record)):
//! all of it as an LZ4 block, or as it is, and then the two lengths are equal. The place in the group
//! tells which events were written, and so synced, together: everything before the group was on disk when the group was
//! written. A block without events is a *mark*: it says that all before it are on disk; the writer leaves one when it closes.

use bytes::Bytes;
use lz4_flex::block::{compress_into, decompress, get_maximum_output_size};

pub(super) const HEADER: usize = 32;
/// Of one event's body.
pub(super) const MAX_BODY: usize = 64 << 20;
/// Before a body.
const LENGTH: usize = size_of::<u32>();
/// Of a block before it is packed, unless one event alone is larger: about what LZ4 looks back over, so that larger ones would not
/// be packed better, and what a reader unpacks for one event.
const BLOCK: usize = 60 << 10;
/// From so many bytes in one group on, blocks are left as they are: who brings so much at once, from a file, waits for the processor
/// and not for the disk.
const MANY: usize = 256 << 10;
/// A block whose lengths go beyond it is damaged, and is not waited for.
const MAX_BLOCK: usize = MAX_BODY + LENGTH;
/// Two of its bytes occur in no UTF-8 text, and seldom in what is packed; the checksum tells.
pub(super) const MAGIC: [u8; 4] = [0xf5, b'T', b'S', 0xf6];

/// A block's header, proven by its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Of its first event.
    pub first: u64,
    /// How many events of its group stand before it.
    pub place: u32,
    pub events: u32,
    /// In bytes, on disk, without the header.
    pub packed: usize,
    /// In bytes.
    unpacked: usize,
}

impl Header {
    pub fn is_mark(&self) -> bool {
        self.events == 0
    }

    /// One past its last offset.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.events))
    }

    /// Everything below was on disk before this block was written.
    pub fn group_start(&self) -> u64 {
        self.first.saturating_sub(u64::from(self.place))
    }
}

/// What the bytes at some place are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Block(Header),
    /// A block could begin here, but only so many bytes could tell.
    Needs(usize),
    Bad(&'static str),
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Parsed::Needs(HEADER);
    };
    if head[..4] != MAGIC {
        return Parsed::Bad("no block of events begins there");
    }
    let (packed, unpacked) = (word(head, 4) as usize, word(head, 8) as usize);
    let events = word(head, 12);
    let is_true =
        if events > 1 { unpacked <= BLOCK && events as usize <= unpacked / LENGTH } else { unpacked <= MAX_BLOCK };
    if packed > unpacked || !is_true {
        return Parsed::Bad("its length cannot be true");
    }
    let Some(packed_bytes) = rest.get(..packed) else {
        return Parsed::Needs(HEADER + packed);
    };
    if checksum(&head[4..28], packed_bytes) != word(head, 28) {
        return Parsed::Bad("its checksum is wrong");
    }
    Parsed::Block(Header { first: number(head, 16), place: word(head, 24), events, packed, unpacked })
}

/// The bodies of a block's events. They share one piece of memory. `None` where it was not [`Packer`] that packed it.
pub(super) fn bodies(header: &Header, packed: Bytes) -> Option<Vec<Bytes>> {
    let mut rest = match packed.len() == header.unpacked {
        true => packed,
        false => Bytes::from(decompress(&packed, header.unpacked).ok().filter(|all| all.len() == header.unpacked)?),
    };
    let mut bodies = Vec::with_capacity(header.events as usize);
    for _ in 0..header.events {
        let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        if rest.len() - LENGTH < length {
            return None;
        }
        let mut body = rest.split_to(LENGTH + length);
        bodies.push(body.split_off(LENGTH));
    }
    rest.is_empty().then_some(bodies)
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// Packs the events of one group.
pub(super) struct Packer {
    first: u64,
    events: u32,
    /// In bytes.
    taken: usize,
    /// Whole blocks, and where they begin, with the first offset of each.
    packed: Vec<u8>,
    starts: Vec<(u64, usize)>,
    /// Of the block that is not whole yet.
    open: Vec<u8>,
    in_open: u32,
}

impl Packer {
    /// `first`: the offset of the group's first event.
    pub fn new(first: u64) -> Packer {
        Packer { first, events: 0, taken: 0, packed: Vec::new(), starts: Vec::new(), open: Vec::new(), in_open: 0 }
    }

    /// Adds an event; returns its offset.
    pub fn add(&mut self, body: &[u8]) -> u64 {
        if self.open.len() + LENGTH + body.len() > BLOCK {
            self.pack();
        }
        self.open.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.open.extend_from_slice(body);
        let offset = self.end();
        self.in_open += 1;
        self.events += 1;
        self.taken += body.len();
        offset
    }

    /// How many bytes of bodies it was given.
    pub fn taken(&self) -> usize {
        self.taken
    }

    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// One past the last offset.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.events)
    }

    /// The blocks, and the first offset and the beginning of each.
    pub fn finish(mut self) -> (Vec<u8>, Vec<(u64, usize)>) {
        self.pack();
        (self.packed, self.starts)
    }

    fn pack(&mut self) {
        let events = std::mem::take(&mut self.in_open);
        if events == 0 {
            return;
        }
        let place = self.events - events;
        let first = self.first + u64::from(place);
        self.starts.push((first, self.packed.len()));
        let is_packed = self.taken < MANY;
        write(&mut self.packed, (first, place), events, &self.open, is_packed);
        self.open.clear();
    }
}

/// Of a log that ends before `next`.
pub(super) fn mark(next: u64) -> Vec<u8> {
    let mut mark = Vec::new();
    write(&mut mark, (next, 0), 0, &[], false);
    mark
}

fn write(out: &mut Vec<u8>, (first, place): (u64, u32), events: u32, unpacked: &[u8], is_packed: bool) {
    let start = out.len();
    out.resize(start + HEADER, 0);
    let packed = if is_packed { pack(out, unpacked) } else { None };
    let packed = packed.unwrap_or_else(|| {
        out.extend_from_slice(unpacked);
        unpacked.len()
    });
    let (head, packed_bytes) = out[start..].split_at_mut(HEADER);
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&(packed as u32).to_le_bytes());
    head[8..12].copy_from_slice(&(unpacked.len() as u32).to_le_bytes());
    head[12..16].copy_from_slice(&events.to_le_bytes());
    head[16..24].copy_from_slice(&first.to_le_bytes());
    head[24..28].copy_from_slice(&place.to_le_bytes());
    let crc = checksum(&head[4..28], packed_bytes);
    head[28..].copy_from_slice(&crc.to_le_bytes());
}

/// Appends `unpacked`, packed, if that is shorter; returns in how many bytes.
fn pack(out: &mut Vec<u8>, unpacked: &[u8]) -> Option<usize> {
    let start = out.len();
    out.resize(start + get_maximum_output_size(unpacked.len()), 0);
    let packed = compress_into(unpacked, &mut out[start..]).ok().filter(|packed| *packed < unpacked.len());
    out.truncate(start + packed.unwrap_or(0));
    packed
}

fn checksum(header: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(packed);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Events that repeat one another, and such as cannot be packed.
    fn groups() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let alike = (0..60_000usize, any::<u8>()).prop_map(|(n, byte)| vec![byte; n]);
        let noise = prop::collection::vec(any::<u8>(), 0..300);
        prop::collection::vec(prop_oneof![alike, noise], 0..12)
    }

    fn packed(first: u64, group: &[Vec<u8>]) -> (Vec<u8>, Vec<(u64, usize)>) {
        let mut packer = Packer::new(first);
        for (n, body) in group.iter().enumerate() {
            assert_eq!(packer.add(body), first + n as u64);
        }
        assert_eq!((packer.taken(), packer.end()), (group.iter().map(Vec::len).sum(), first + group.len() as u64));
        packer.finish()
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(group in groups(), first in 0..u64::MAX / 2) {
            let (bytes, starts) = packed(first, &group);
            let mut found = Vec::new();
            let mut rest = Bytes::from(bytes.clone());
            for (offset, start) in starts {
                prop_assert_eq!(start, bytes.len() - rest.len());
                for cut in (0..HEADER).chain([HEADER, rest.len() / 2]).filter(|cut| *cut < rest.len()) {
                    let is_honest = match parse(&rest[..cut]) {
                        Parsed::Needs(n) => n > cut,
                        Parsed::Block(header) => HEADER + header.packed <= cut,
                        Parsed::Bad(_) => false,
                    };
                    prop_assert!(is_honest, "cut at {cut}");
                }
                let Parsed::Block(header) = parse(&rest) else { panic!("no block at {start}") };
                prop_assert_eq!((header.first, header.group_start()), (offset, first));
                prop_assert_eq!(header.first, first + found.len() as u64);
                let block = rest.split_to(HEADER + header.packed);
                found.extend(bodies(&header, block.slice(HEADER..)).unwrap());
                prop_assert_eq!(header.end(), first + found.len() as u64);
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(found, group);
        }

        #[test]
        fn one_wrong_bit_is_seen(group in groups(), bit: prop::sample::Index) {
            prop_assume!(!group.is_empty());
            let (mut bytes, starts) = packed(7, &group);
            bytes.truncate(starts.get(1).map_or(bytes.len(), |(_, second)| *second));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let is_seen = !matches!(parse(&bytes), Parsed::Block(_));
            prop_assert!(is_seen);
        }

        #[test]
        fn what_nobody_packed_is_no_event_and_no_crash(noise: Vec<u8>, unpacked in 0..500usize, events in 0..5u32) {
            for unpacked in [unpacked, noise.len()] {
                let header = Header { first: 0, place: 0, events, packed: noise.len(), unpacked };
                let found = bodies(&header, noise.clone().into()).unwrap_or_default();
                prop_assert!(found.iter().map(|body| LENGTH + body.len()).sum::<usize>() <= unpacked);
            }
        }

        #[test]
        fn what_was_packed_and_changed_since_is_no_crash(group in groups(), at: prop::sample::Index, byte: u8) {
            let (bytes, starts) = packed(7, &group);
            prop_assume!(!starts.is_empty());
            let Parsed::Block(header) = parse(&bytes) else { panic!("no block") };
            let mut block = bytes[HEADER..HEADER + header.packed].to_vec();
            prop_assume!(!block.is_empty());
            let at = at.index(block.len());
            block[at] = byte;
            let found = bodies(&header, block.into()).unwrap_or_default();
            prop_assert!(found.is_empty() || found.len() == header.events as usize);
        }
    }

    #[test]
    fn blocks_are_no_larger_than_one_reads_at_once_and_those_of_a_file_are_not_packed() {
        let group = vec![vec![b'x'; 20_000]; 40];
        let (bytes, starts) = packed(0, &group);
        let blocks: Vec<Header> = starts
            .iter()
            .filter_map(|(_, at)| match parse(&bytes[*at..]) {
                Parsed::Block(header) => Some(header),
                _ => None,
            })
            .collect();
        assert!(blocks.len() > 1 && blocks.len() == starts.len() && blocks.iter().all(|b| b.unpacked <= BLOCK));
        let left = blocks.iter().filter(|b| b.packed == b.unpacked).count();
        assert!(left > 0 && left < blocks.len(), "{left} of {}", blocks.len());
        let large = vec![b'x'; 2 * BLOCK];
        let (bytes, _) = packed(0, &[vec![1], large.clone(), vec![2]]);
        let mut rest = Bytes::from(bytes);
        let found: Vec<Vec<Bytes>> = std::iter::from_fn(|| match parse(&rest) {
            Parsed::Block(header) => bodies(&header, rest.split_to(HEADER + header.packed).slice(HEADER..)),
            _ => None,
        })
        .collect();
        assert_eq!(
            found,
            [[Bytes::from(vec![1])], [Bytes::from(large)], [Bytes::from(vec![2])]],
            "one too large stands alone"
        );
    }

    #[test]
    fn lengths_that_no_writer_gives_are_refused() {
        let told = |events: u32, unpacked: usize| {
            let mut head = mark(0);
            head[8..12].copy_from_slice(&(unpacked as u32).to_le_bytes());
            head[12..16].copy_from_slice(&events.to_le_bytes());
            parse(&head)
        };
        let bad = Parsed::Bad("its length cannot be true");
        assert!(told(2, BLOCK + 1) == bad && told(3, 2 * LENGTH) == bad && told(1, MAX_BLOCK + 1) == bad);
        assert!(told(2, BLOCK) != bad && told(2, 2 * LENGTH) != bad && told(1, MAX_BLOCK) != bad);
    }

    #[test]
    fn a_mark_is_a_block_of_no_event() {
        let mark = mark(9);
        let Parsed::Block(header) = parse(&mark) else { panic!("{mark:?}") };
        assert!(header.is_mark() && header.first == 9 && mark.len() == HEADER);
    }

    #[test]
    fn events_that_are_alike_take_the_room_of_few() {
        let event =
            |n: usize| format!("{{\"id\":\"evt_{n}\",\"object\":\"event\",\"data\":{{\"amount\":{}}}}}", n * 7919);
        let group: Vec<Vec<u8>> = (0..200).map(|n| event(n).into_bytes()).collect();
        let (bytes, _) = packed(0, &group);
        let taken: usize = group.iter().map(Vec::len).sum();
        assert!(bytes.len() * 2 < taken, "{} of {taken}", bytes.len());
    }
}
