//! Reading what strangers post: so much a request, so much at once, and not for long.
//!
//! What must hold: memory is taken for bytes that arrived, never for bytes that were announced, and all requests of one
//! source together take no more than a fixed part of it, so that none takes another's. Who sends slowly is cut off; who
//! finds no room is told to come again.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::{HeaderMap, header},
};
use bytes::BytesMut;
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::sources::EVENT_LIMIT;

/// Bytes of one source's bodies that are held at once, waiting for the rest of them or for the log. The log's own queue is
/// twice that.
const ROOM: usize = 16 << 20;
/// A megabyte in this time is what a bad mobile connection brings.
const READ_TIME: Duration = Duration::from_secs(10);

/// So much more of a body that is too large is read before its sender is answered, and for so long.
const LINGER_BYTES: usize = 8 << 20;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Where the bodies of one source are read.
pub struct Inlet {
    room: Arc<Semaphore>,
}

/// A body, and its place, which is given back when this goes.
pub struct Taken {
    pub bytes: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the body is larger than {EVENT_LIMIT} bytes: send less at once")]
    TooLarge,
    #[error("the body did not arrive within {} s", READ_TIME.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    Broken,
    #[error("too much is being received at once: try again in a second")]
    Full,
}

impl Inlet {
    pub fn new() -> Inlet {
        Inlet { room: Arc::new(Semaphore::new(ROOM)) }
    }

    /// All of a body.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Taken, Fault> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let mut pieces = body.into_data_stream();
        let taken = match announced {
            Some(bytes) if bytes > EVENT_LIMIT => Err(Fault::TooLarge),
            _ => timeout(READ_TIME, self.gather(&mut pieces)).await.unwrap_or(Err(Fault::TooSlow)),
        };
        if matches!(taken, Err(Fault::TooLarge)) {
            // Whoever is cut off while sending does not hear why.
            drop(timeout(LINGER_TIME, discard(&mut pieces)).await);
        }
        taken
    }

    async fn gather(&self, pieces: &mut BodyDataStream) -> Result<Taken, Fault> {
        let mut taken = Taken { bytes: Bytes::new(), room: None };
        let mut joined = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Fault::Broken)?;
            let held = joined.len() + taken.bytes.len();
            if held + piece.len() > EVENT_LIMIT {
                return Err(Fault::TooLarge);
            }
            taken.extend_room(self.room(piece.len())?);
            // Most bodies are one piece, which needs no copy.
            if held == 0 {
                taken.bytes = piece;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut taken.bytes));
                joined.extend_from_slice(&piece);
            }
        }
        if !joined.is_empty() {
            taken.bytes = joined.freeze();
        }
        Ok(taken)
    }

    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let bytes = u32::try_from(bytes).map_err(|_| Fault::TooLarge)?;
        self.room.clone().try_acquire_many_owned(bytes).map_err(|_| Fault::Full)
    }
}

/// Reads on and keeps nothing.
async fn discard(pieces: &mut BodyDataStream) {
    let mut left = LINGER_BYTES;
    while left > 0
        && let Some(Ok(piece)) = pieces.next().await
    {
        left = left.saturating_sub(piece.len());
    }
}

impl Taken {
    fn extend_room(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{Stream, stream};

    use super::*;

    type Piece = Result<Bytes, std::io::Error>;

    async fn read(inlet: &Inlet, pieces: impl Stream<Item = Piece> + Send + 'static) -> Result<Taken, Fault> {
        inlet.read(&HeaderMap::new(), Body::from_stream(pieces)).await
    }

    fn pieces(sizes: &[usize]) -> impl Stream<Item = Piece> + Send + 'static {
        let pieces: Vec<Piece> = sizes.iter().enumerate().map(|(i, n)| Ok(vec![i as u8; *n].into())).collect();
        stream::iter(pieces)
    }

    #[tokio::test]
    async fn pieces_are_joined_and_their_room_given_back() {
        let inlet = Inlet::new();
        let taken = read(&inlet, pieces(&[3, 0, 2, 1])).await.unwrap();
        assert_eq!(taken.bytes, [0, 0, 0, 2, 2, 3].as_slice());
        assert_eq!(inlet.room.available_permits(), ROOM - 6);
        drop(taken);
        assert_eq!(inlet.room.available_permits(), ROOM);
        assert_eq!(read(&inlet, pieces(&[])).await.unwrap().bytes, b"".as_slice());
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
        let inlet = Inlet::new();
        assert_eq!(read(&inlet, pieces(&[EVENT_LIMIT, 1])).await.err(), Some(Fault::TooLarge));
        assert_eq!(read(&inlet, pieces(&[EVENT_LIMIT - 1, 1])).await.map(|t| t.bytes.len()).ok(), Some(EVENT_LIMIT));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, (EVENT_LIMIT + 1).into());
        let never = Body::from_stream(stream::pending::<Piece>());
        assert_eq!(inlet.read(&headers, never).await.err(), Some(Fault::TooLarge));
        assert_eq!(inlet.room.available_permits(), ROOM);
    }

    #[tokio::test]
    async fn where_there_is_no_room_nobody_waits() {
        let inlet = Inlet::new();
        let most = inlet.room(ROOM - 1).unwrap();
        assert_eq!(read(&inlet, pieces(&[1, 1])).await.err(), Some(Fault::Full));
        drop(most);
        assert!(read(&inlet, pieces(&[1, 1])).await.is_ok());
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]);
        assert_eq!(read(&inlet, broken).await.err(), Some(Fault::Broken));
    }
}
