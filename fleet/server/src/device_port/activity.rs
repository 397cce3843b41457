//! Whether a connection does anything.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// When requests of a connection last were under way, and when bytes last went over it.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    under_way: AtomicUsize,
    /// Milliseconds since the start.
    request_at: AtomicU64,
    bytes_at: AtomicU64,
}

impl Activity {
    pub(super) fn new(start: Instant) -> Arc<Self> {
        let never = AtomicU64::default;
        Arc::new(Self { start, under_way: AtomicUsize::new(0), request_at: never(), bytes_at: never() })
    }

    /// A request is under way until this is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.stamp(&self.bytes_at);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// For how long there has been no request, or, where there is one, no byte.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        let last = match self.under_way.load(Ordering::Relaxed) {
            0 => &self.request_at,
            _ => &self.bytes_at,
        };
        let last = self.start + Duration::from_millis(last.load(Ordering::Relaxed));
        now.saturating_duration_since(last)
    }

    fn stamp(&self, at: &AtomicU64) {
        let passed = self.start.elapsed().as_millis();
        at.store(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

pub(super) struct UnderWay(Arc<Activity>);

impl UnderWay {
    /// No byte goes, and that is as it should be.
    pub(super) fn touch(&self) {
        self.0.stamp(&self.0.bytes_at);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.stamp(&self.0.request_at);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose bytes are noticed.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn notice<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(done, Poll::Ready(Ok(_))) {
            self.activity.stamp(&self.activity.bytes_at);
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.notice(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.notice(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.notice(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
