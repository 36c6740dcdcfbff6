//! The lines of a file, with their numbers. A line of any length is read in bounded memory.

use std::{
    io::{self, BufRead, Read},
    path::PathBuf,
};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{
    EVENT_LIMIT, EXCERPT,
    content::{Content, FileError},
    rejected::Print,
};

const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// A line that holds something, without its end.
pub(super) struct Line {
    /// From 1; blank lines count.
    pub number: u64,
    pub text: LineText,
}

pub(super) enum LineText {
    Whole(Bytes),
    /// Longer than [`EVENT_LIMIT`]: its beginning, its length and the fingerprint of all of it.
    TooLong {
        excerpt: Bytes,
        bytes: u64,
        print: Print,
    },
}

pub(super) struct Lines {
    file: PathBuf,
    reader: Box<dyn BufRead + Send>,
    number: u64,
    /// Bytes of content before the next line.
    position: u64,
    buffer: Vec<u8>,
    ended: bool,
    /// An error that was read ahead and is still to be told.
    error: Option<FileError>,
}

impl Line {
    pub fn len(&self) -> usize {
        match &self.text {
            LineText::Whole(text) => text.len(),
            LineText::TooLong { bytes, .. } => usize::try_from(*bytes).unwrap_or(usize::MAX),
        }
    }
}

impl Lines {
    pub fn new(content: Content) -> Lines {
        let Content { file, reader, .. } = content;
        Lines { file, reader, number: 0, position: 0, buffer: Vec::new(), ended: false, error: None }
    }

    /// Puts an error back, to be the next item.
    pub fn fail(&mut self, error: FileError) {
        self.error = Some(error);
    }

    /// The next line that is not blank.
    fn advance(&mut self) -> io::Result<Option<Line>> {
        loop {
            self.buffer.clear();
            let limit = EVENT_LIMIT as u64 + 2;
            let read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            let complete = self.buffer.last() == Some(&b'\n');
            self.position += read as u64;
            if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            if !complete && read as u64 == limit {
                return self.too_long().map(Some);
            }
            let line = trimmed(&self.buffer);
            if line.len() > EVENT_LIMIT {
                return self.too_long().map(Some);
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                let text = LineText::Whole(Bytes::copy_from_slice(line));
                return Ok(Some(Line { number: self.number, text }));
            }
        }
    }

    /// Passes over the rest of a line of which the buffer holds the beginning.
    fn too_long(&mut self) -> io::Result<Line> {
        let mut hasher = Xxh3::new();
        let excerpt = Bytes::copy_from_slice(&self.buffer[..EXCERPT]);
        let mut complete = self.buffer.last() == Some(&b'\n');
        let mut bytes = self.buffer.len() as u64;
        hasher.update(&self.buffer);
        while !complete {
            let block = self.reader.fill_buf()?;
            if block.is_empty() {
                break;
            }
            let end = block.iter().position(|b| *b == b'\n');
            let used = end.map_or(block.len(), |e| e + 1);
            hasher.update(&block[..used]);
            self.reader.consume(used);
            bytes += used as u64;
            self.position += used as u64;
            complete = end.is_some();
        }
        let print = Print::of_parts(&hasher);
        Ok(Line { number: self.number, text: LineText::TooLong { excerpt, bytes, print } })
    }
}

impl Iterator for Lines {
    type Item = Result<Line, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        if self.ended {
            return None;
        }
        match self.advance() {
            Ok(Some(line)) => Some(Ok(line)),
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(source) => {
                self.ended = true;
                let place = format!("after line {}, byte {} of its content", self.number, self.position);
                Some(Err(FileError::reading(&self.file, place, source)))
            }
        }
    }
}

/// Without the end of the line.
fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
