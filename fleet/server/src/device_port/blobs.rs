//! Blobs and their signatures, by `GET` and `HEAD`.
//!
//! A blob is named by its content, so that what is said of it never changes: its entity tag is its digest, and a range of it
//! that is asked for after an interruption is of the same bytes.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use prost::bytes::Bytes;
use revoada_core::{Digest, causes, sentence_of};
use revoada_proto::DeviceId;
use thiserror::Error;
use tracing::{error, warn};

use super::activity::{Activity, UnderWay};
use super::downloads::{Download, Downloads};
use super::quota::Full;
use super::service::{BlobError, BlobSource};
use crate::tls::{Admission, Peer};

/// A device that is refused for a full port comes again after this.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

pub(super) struct Blobs<B> {
    pub(super) source: Arc<B>,
    pub(super) downloads: Arc<Downloads>,
    pub(super) admission: Arc<dyn Admission>,
}

pub(super) async fn blob<B: BlobSource>(
    State(blobs): State<Arc<Blobs<B>>>,
    Extension(peer): Extension<Peer>,
    Extension(activity): Extension<Arc<Activity>>,
    Path(digest): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let Ok(digest) = digest.parse::<Digest>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let size = match blobs.source.size(&digest).await {
        Ok(Some(size)) => size,
        Ok(None) => return StatusCode::NOT_FOUND.into_response(),
        Err(error) => return unreadable(&error),
    };
    // A range says something of `GET` alone.
    let asked = headers.get(RANGE).filter(|_| method == Method::GET).and_then(|range| range.to_str().ok());
    let (status, range) = match asked.map_or(Asked::Whole, |range| asked_range(range, size)) {
        Asked::Whole => (StatusCode::OK, 0..size),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Nothing => {
            let range = (CONTENT_RANGE, text(format!("bytes */{size}")));
            return (StatusCode::RANGE_NOT_SATISFIABLE, [range]).into_response();
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let download = match blobs.downloads.begin(&peer.device) {
            Ok(download) => download,
            Err(full) => return come_again(full),
        };
        match blobs.source.read(&digest, range.clone()).await {
            Ok(content) => send(Sending {
                digest,
                content,
                missing: range.end - range.start,
                download,
                request: activity.request(),
                peer,
                admission: Arc::clone(&blobs.admission),
            }),
            Err(error) => return unreadable(&error),
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(ETAG, text(format!("\"{}\"", digest.hex())));
    if status == StatusCode::PARTIAL_CONTENT {
        headers.insert(CONTENT_RANGE, text(format!("bytes {}-{}/{size}", range.start, range.end - 1)));
    }
    response
}

pub(super) async fn signature<B: BlobSource>(
    State(blobs): State<Arc<Blobs<B>>>,
    Path(digest): Path<String>,
) -> Response {
    let Ok(digest) = digest.parse::<Digest>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match blobs.source.signature(&digest).await {
        Ok(Some(signature)) => Json(signature).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => unreadable(&error),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    /// Where the blob has no byte.
    Nothing,
}

/// What a `Range` header asks for (RFC 9110, section 14). One that is malformed, or asks for several ranges, counts as none.
fn asked_range(header: &str, size: u64) -> Asked {
    // As many digits as there are, as a number; `None` for no digits.
    let number = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|digit| digit.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
        _ => None,
    };
    let ends = header.trim().strip_prefix("bytes=").and_then(|ends| ends.trim().split_once('-'));
    let Some((Some(first), Some(last))) = ends.map(|(first, last)| (number(first), number(last))) else {
        return Asked::Whole;
    };
    let range = match (first, last) {
        (None, None) => return Asked::Whole,
        (Some(first), Some(last)) if first > last => return Asked::Whole,
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1)).min(size),
        (None, Some(count)) => size.saturating_sub(count)..size,
    };
    if range.start < range.end { Asked::Part(range) } else { Asked::Nothing }
}

#[derive(Debug, Error)]
enum SendError {
    #[error(transparent)]
    Read(#[from] BlobError),
    #[error("blob `{digest}` ended {missing} bytes early")]
    Short { digest: Digest, missing: u64 },
    #[error("`{device}` was revoked in the middle of a download")]
    Revoked { device: DeviceId },
}

struct Sending {
    digest: Digest,
    content: BoxStream<'static, Result<Bytes, BlobError>>,
    missing: u64,
    download: Download,
    /// Held for as long as the body is.
    request: UnderWay,
    peer: Peer,
    admission: Arc<dyn Admission>,
}

/// The body: exactly as many bytes as were promised, or an error that ends the connection's stream.
fn send(sending: Sending) -> Body {
    Body::from_stream(stream::try_unfold(sending, |mut sending| async move {
        if sending.missing == 0 {
            return Ok(None);
        }
        match sending.next().await {
            Ok(piece) => Ok(Some((piece, sending))),
            Err(error) => {
                warn!(error = %sentence_of(causes(&error)), "a download was broken off");
                Err(error)
            }
        }
    }))
}

impl Sending {
    async fn next(&mut self) -> Result<Bytes, SendError> {
        if !self.admission.admits(&self.peer.device, &self.peer.serial) {
            return Err(SendError::Revoked { device: self.peer.device.clone() });
        }
        let short = SendError::Short { digest: self.digest, missing: self.missing };
        let mut piece = self.content.next().await.ok_or(short)??;
        piece.truncate(usize::try_from(self.missing).unwrap_or(usize::MAX));
        self.missing -= piece.len() as u64;
        self.download.pass(piece.len(), &self.request).await;
        Ok(piece)
    }
}

fn come_again(full: Full) -> Response {
    let status = match full {
        Full::Device => StatusCode::TOO_MANY_REQUESTS,
        Full::All => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(RETRY_AFTER, RETRY_AFTER_SECONDS)]).into_response()
}

fn unreadable(error: &BlobError) -> Response {
    error!(error = %sentence_of(causes(error)), "a blob cannot be read");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits are fit for a header")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (header, size, expected) in [
            ("bytes=0-0", 10, Asked::Part(0..1)),
            ("bytes=2-4", 10, Asked::Part(2..5)),
            ("bytes=2-", 10, Asked::Part(2..10)),
            ("bytes=9-99999999999999999999999", 10, Asked::Part(9..10)),
            ("bytes=-3", 10, Asked::Part(7..10)),
            ("bytes=-99", 10, Asked::Part(0..10)),
            ("bytes=10-", 10, Asked::Nothing),
            ("bytes=99999999999999999999999-", 10, Asked::Nothing),
            ("bytes=-0", 10, Asked::Nothing),
            ("bytes=0-", 0, Asked::Nothing),
            ("bytes=4-2", 10, Asked::Whole),
            ("bytes=-", 10, Asked::Whole),
            ("bytes=0-1,4-5", 10, Asked::Whole),
            ("bytes=+1-2", 10, Asked::Whole),
            ("bytes=1--2", 10, Asked::Whole),
            ("items=0-1", 10, Asked::Whole),
            ("", 10, Asked::Whole),
        ] {
            assert_eq!(asked_range(header, size), expected, "{header} of {size}");
        }
    }

    proptest! {
        #[test]
        fn no_header_asks_for_what_a_blob_does_not_have(header in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}|.*", size: u64) {
            if let Asked::Part(range) = asked_range(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
