//! Memory for requests and answers, over all connections.
//!
//! The first bytes of each request and of each answer are free: their sum is bounded by the number of connections. So
//! small requests are served also when large ones have used up the budget. All further bytes are charged as they
//! arrive, and never by what a client declares. This module bounds no time.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{BUSY, Problem};

/// Bytes of one request or answer that are not charged.
pub(super) const FREE_BYTES: usize = 64 << 10;

/// Kibibytes above those, over all connections.
const SHARED_KIB: u32 = 128 << 10;

/// Bytes of an answer that are given to the connection at once. It takes the next ones when it has sent these.
const SLICE_BYTES: usize = 32 << 10;

/// A budget that many share.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(SHARED_KIB as usize)))
    }

    /// An account that nothing is charged to yet. Its end gives everything back.
    pub(super) fn open(&self) -> Account {
        Account { budget: Self(Arc::clone(&self.0)), bytes: 0, permit: None }
    }
}

#[cfg(test)]
impl Budget {
    pub(super) fn is_unused(&self) -> bool {
        self.0.available_permits() == SHARED_KIB as usize
    }
}

/// The bytes of one request or answer.
#[derive(Debug)]
pub(super) struct Account {
    budget: Budget,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Account {
    /// Charges further bytes.
    ///
    /// # Errors
    ///
    /// [`BUSY`] when the budget is used up.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(bytes);
        let kib = self.bytes.saturating_sub(FREE_BYTES).div_ceil(1024);
        // A single answer above the whole budget is sent alone.
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).min(SHARED_KIB);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (kib as usize).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget.0).try_acquire_many_owned(missing);
        let Ok(more) = more else { return Err(used_up()) };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

fn used_up() -> Problem {
    Problem::new(
        &BUSY,
        "the node has reached its bound on large requests and answers in memory",
        format!("wait a moment and repeat it, or stay below {} KiB", FREE_BYTES >> 10),
    )
}

/// The bytes of an answer, which give back their charge when the last of them is sent.
struct Charged {
    bytes: Bytes,
    _account: Account,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body in slices.
struct Sliced(Bytes);

impl hyper::body::Body for Sliced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.0.len().min(SLICE_BYTES);
        let slice = (length > 0).then(|| self.0.split_to(length));
        Poll::Ready(slice.map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// Charges an answer's bytes until the client has read them.
///
/// # Errors
///
/// [`BUSY`] when the budget is used up.
pub(super) async fn charged(budget: &Budget, response: Response) -> Result<Response, Problem> {
    let size = response.body().size_hint().exact();
    if size.is_none_or(|size| size <= FREE_BYTES as u64) {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    // All answers are in memory already.
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut account = budget.open();
    account.charge(bytes.len())?;
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let bytes = Bytes::from_owner(Charged { bytes, _account: account });
    Ok(Response::from_parts(parts, Body::new(Sliced(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_are_free_also_when_large_ones_used_everything_up() {
        let budget = Budget::new();
        let mut large = budget.open();
        assert!(large.charge(FREE_BYTES + ((SHARED_KIB as usize) << 10)).is_ok());
        let mut small = budget.open();
        assert!(small.charge(FREE_BYTES).is_ok());
        assert_eq!(small.charge(1).err().map(|problem| problem.kind), Some(&BUSY));
        drop(large);
        assert!(small.charge(0).is_ok());
        assert_eq!(budget.0.available_permits(), SHARED_KIB as usize - 1);
    }

    #[tokio::test]
    async fn an_answer_is_charged_until_its_last_byte_is_dropped() {
        let budget = Budget::new();
        let whole = || budget.is_unused();
        let small = Response::new(Body::from(vec![7; FREE_BYTES]));
        drop(charged(&budget, small).await.expect("free"));
        assert!(whole());
        let large = Response::new(Body::from(vec![7; 3 * FREE_BYTES]));
        let mut body = charged(&budget, large).await.expect("room").into_body();
        let mut length = 0;
        let mut last = Bytes::new();
        while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
            last = frame.expect("in memory").into_data().expect("data");
            assert!(last.len() <= SLICE_BYTES);
            length += last.len();
        }
        drop(body);
        assert_eq!(length, 3 * FREE_BYTES);
        assert!(!whole());
        drop(last);
        assert!(whole());
    }
}
