//! Messages of gRPC on the body of a stream.
//!
//! Tonic's own codec would do, were these messages not weights: it copies each message that it sends for each who is sent it,
//! and makes room for as many bytes as whoever sends one says that it will have.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, HttpBody};
use prost::bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// A byte that says whether the message is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Room that is made for a message before its bytes come: enough for small networks, and no memory until it is written to.
const ROOM_BYTES: usize = 4 << 20;
/// What is shorter is sent together with what stands next to it.
const PIECE_BYTES_MIN: usize = 16 << 10;

#[derive(Debug, Error)]
pub(super) enum FramingError {
    #[error("a message has {bytes} bytes, and may have {max}")]
    TooLong { bytes: usize, max: usize },
    #[error("a message is compressed, or none")]
    Flag,
    #[error("the stream ended within a message")]
    CutOff,
    #[error("the stream broke off")]
    Broken(#[source] axum::Error),
}

/// The messages that come on a stream.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    /// What has come of what was not read yet.
    rest: Bytes,
    message_bytes_max: usize,
}

impl Incoming {
    pub(super) fn new(body: Body, message_bytes_max: usize) -> Self {
        Self { body, rest: Bytes::new(), message_bytes_max }
    }

    /// Waits until something comes: whether that is more than the end. It may be dropped and called again: nothing is lost.
    pub(super) async fn fill(&mut self) -> Result<bool, FramingError> {
        while self.rest.is_empty() {
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                None => return Ok(false),
                Some(Err(error)) => return Err(FramingError::Broken(error)),
                // Trailers say nothing that we need.
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        Ok(true)
    }

    /// The next message; `None` at the end. Dropped before it is there, the stream is of no more use.
    pub(super) async fn message(&mut self) -> Result<Option<Bytes>, FramingError> {
        let mut prefix = Vec::with_capacity(PREFIX_BYTES);
        if !self.read(&mut prefix, PREFIX_BYTES).await? {
            return if prefix.is_empty() { Ok(None) } else { Err(FramingError::CutOff) };
        }
        let (flag, length) = prefix.split_first().expect("the prefix was read");
        if *flag != 0 {
            return Err(FramingError::Flag);
        }
        let length = u32::from_be_bytes(length.try_into().expect("the prefix was read")) as usize;
        if length > self.message_bytes_max {
            return Err(FramingError::TooLong { bytes: length, max: self.message_bytes_max });
        }
        // The room grows with what comes, not with what was said to come.
        let mut message = Vec::with_capacity(length.min(ROOM_BYTES));
        if !self.read(&mut message, length).await? {
            return Err(FramingError::CutOff);
        }
        Ok(Some(message.into()))
    }

    /// Adds bytes until there are so many; whether there are.
    async fn read(&mut self, target: &mut Vec<u8>, length: usize) -> Result<bool, FramingError> {
        while target.len() < length {
            if !self.fill().await? {
                return Ok(false);
            }
            let missing = length - target.len();
            if target.len() + self.rest.len() > target.capacity() {
                target.reserve_exact(target.len().min(missing).max(self.rest.len().min(missing)));
            }
            target.extend_from_slice(&self.rest.split_to(missing.min(self.rest.len())));
        }
        Ok(true)
    }
}

/// A message that is sent in pieces, the larger of which are shared with whoever else holds them.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    ready: Vec<Bytes>,
    last: BytesMut,
}

impl Pieces {
    /// A message of so many bytes, which are to follow.
    pub(super) fn new(message_bytes: u32) -> Self {
        let mut pieces = Self::default();
        pieces.last.put_u8(0);
        pieces.last.put_u32(message_bytes);
        pieces
    }

    /// What is small is written here.
    pub(super) fn small(&mut self) -> &mut BytesMut {
        &mut self.last
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < PIECE_BYTES_MIN {
            self.last.extend_from_slice(&bytes);
            return;
        }
        if !self.last.is_empty() {
            self.ready.push(self.last.split().freeze());
        }
        self.ready.push(bytes);
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if !self.last.is_empty() {
            self.ready.push(self.last.freeze());
        }
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that comes in pieces of so many bytes.
    fn body(bytes: &[u8], piece: usize) -> Body {
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok::<_, axum::Error>(piece.to_vec())).collect();
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    fn message(length: usize) -> Vec<u8> {
        let mut pieces = Pieces::new(u32::try_from(length).unwrap());
        pieces.push(vec![7; length].into());
        pieces.finish().concat()
    }

    #[tokio::test]
    async fn messages_are_read_however_their_bytes_come() {
        let bytes = [message(3), message(0), message(3_000_000), message(20_000)].concat();
        for piece in [1, 4, 5, 6, 16 << 10, bytes.len()] {
            let mut incoming = Incoming::new(body(&bytes, piece), 3_000_000);
            for length in [3, 0, 3_000_000, 20_000] {
                let read = incoming.message().await.unwrap().unwrap();
                assert_eq!((read.len(), read.iter().all(|byte| *byte == 7)), (length, true));
            }
            assert!(incoming.message().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let mut compressed = message(3);
        compressed[0] = 1;
        for (bytes, text) in [
            (&message(11)[..], "a message has 11 bytes, and may have 10"),
            (&[0, 255, 255, 255, 255], "a message has 4294967295 bytes, and may have 10"),
            (&message(10)[..14], "the stream ended within a message"),
            (&[0, 0], "the stream ended within a message"),
            (&compressed, "a message is compressed, or none"),
        ] {
            let refusal = Incoming::new(body(bytes, 100), 10).message().await.unwrap_err();
            assert_eq!(refusal.to_string(), text);
        }
    }

    #[tokio::test]
    async fn a_long_message_that_was_only_announced_takes_no_room() {
        let mut target = Vec::with_capacity(ROOM_BYTES);
        let mut incoming = Incoming::new(body(&vec![0; 6 << 20], 16 << 10), usize::MAX);
        assert!(!incoming.read(&mut target, 2 << 30).await.unwrap());
        assert!(target.capacity() <= 12 << 20, "{}", target.capacity());
    }

    #[test]
    fn large_pieces_are_shared_and_small_ones_are_put_together() {
        let large = Bytes::from(vec![1; PIECE_BYTES_MIN]);
        let mut pieces = Pieces::new(9);
        pieces.push(Bytes::from_static(b"ab"));
        pieces.push(large.clone());
        pieces.push(Bytes::from_static(b"c"));
        pieces.small().put_u8(b'd');
        let pieces = pieces.finish();
        assert_eq!(pieces, [&[0, 0, 0, 0, 9, b'a', b'b'][..], &large, b"cd"]);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
    }
}
