//! A connection whose other end must take what it asked for in time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Longest time for the other end to take one answer.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Ends with an error when an answer is not taken in time, also when it is taken one byte after the other.
#[derive(Debug)]
pub(crate) struct DeadlineStream<S> {
    inner: S,
    taken_within: Duration,
    // From the first time that the other end made us wait until all is written.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> DeadlineStream<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            taken_within: TAKEN_WITHIN,
            limit: None,
        }
    }

    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let within = self.taken_within;
            let limit = self
                .limit
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
            if limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// Called when all that there was is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.limit = None;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn ends_with(
        taken_within: Duration,
        reader: impl AsyncFnOnce(tokio::io::DuplexStream),
    ) -> io::Result<()> {
        let (ours, theirs) = duplex(100);
        let mut ours = DeadlineStream {
            taken_within,
            ..DeadlineStream::new(ours)
        };
        let writing = async {
            ours.write_all(&[0; 100_000]).await?;
            ours.flush().await
        };
        tokio::select! {
            written = writing => written,
            () = async { reader(theirs).await; std::future::pending().await } => Ok(()),
        }
    }

    // By the real clock: tokio's paused one is a feature with which CI would build everything a second time.
    #[tokio::test]
    async fn who_takes_nothing_or_a_byte_now_and_then_is_cut_off_and_who_takes_it_all_is_not() {
        let fast = ends_with(TAKEN_WITHIN, async |mut s| {
            let _ = s.read_to_end(&mut Vec::new()).await;
        });
        assert!(fast.await.is_ok());
        let soon = Duration::from_millis(100);
        let asleep = ends_with(soon, async |s| {
            std::future::pending::<()>().await;
            drop(s);
        });
        assert_eq!(asleep.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // All of it would take a quarter of an hour.
        let trickle = ends_with(soon, async |mut s| {
            loop {
                let _ = s.read_u8().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert_eq!(trickle.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
