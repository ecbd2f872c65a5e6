//! Frames of a link: four bytes of length, then that many bytes of one value in canonical encoding.
//!
//! The length is checked before anything is allocated. A frame of length zero is a keepalive. The first frame each way
//! is a [`Hello`], the second a [`Verdict`], all others are [`Message`]s. [`decode`] is pure and never panics: garbage
//! is an error value.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use continuum_core::codec::{self, DecodeError};
use continuum_core::id::{Boot, FederationId, Lineage, NodeId, StoreId};
use continuum_core::limits::FRAME_BYTES_MAX;
use continuum_core::node::{Message, MessageError, Plane};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of the length before each frame.
pub const HEADER_BYTES: usize = 4;
/// Bytes of a hello or verdict at most. A hello with a whole lineage takes three quarters of it.
pub const HELLO_BYTES_MAX: usize = 1024;
/// The protocol versions that this build speaks, lowest and highest.
pub const VERSIONS: (u16, u16) = (1, 1);

/// The first frame of a link, each way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Must be the one in the sender's certificate.
    pub federation: FederationId,
    /// The sender. Must be the one in its certificate.
    pub node: NodeId,
    /// The id of the sender's data directory.
    pub store: StoreId,
    /// The sender's process.
    pub boot: Boot,
    /// The boots before it.
    pub lineage: Lineage,
    /// The dialling end chooses it; the accepting end repeats it.
    pub purpose: Purpose,
    /// The lowest and the highest protocol version that the sender speaks.
    pub versions: (u16, u16),
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To learn which node answers; closed after the verdict.
    Verify,
    /// To exchange messages of one class.
    Messages(Plane),
}

/// The second frame of a link, each way: the answer to the other end's hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Messages may follow.
    Welcome,
    /// The connection closes.
    Refused(HelloRefusal),
}

/// Why a hello was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HelloRefusal {
    /// The certificate is of another federation.
    #[error("it claims another federation than its certificate")]
    Federation,
    /// The certificate is of another node.
    #[error("it claims another node than its certificate")]
    Identity,
    /// Both ends are the same node.
    #[error("it is this node itself")]
    SameNode,
    /// The ends have no protocol version in common.
    #[error("it speaks no protocol version of ours")]
    Version,
    /// The refusing end has reached its bound on connections.
    #[error("it has as many connections as it accepts")]
    TooMany,
}

impl HelloRefusal {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Federation => "hello_federation",
            Self::Identity => "hello_identity",
            Self::SameNode => "hello_same_node",
            Self::Version => "hello_version",
            Self::TooMany => "hello_too_many",
        }
    }
}

/// The highest version that both ranges contain.
#[must_use]
pub fn common_version(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let highest = ours.1.min(theirs.1);
    (highest >= ours.0.max(theirs.0)).then_some(highest)
}

/// Why a frame was refused.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection ended between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The length is past its limit. Nothing was allocated for it.
    #[error("a frame of {length} bytes, but at most {limit} are allowed")]
    TooLong {
        /// Bytes claimed.
        length: u32,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes are not the encoding of the expected type.
    #[error("garbage in a frame: {0}")]
    Garbage(#[from] DecodeError),
    /// Reading or writing failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// The label of its counter; `None` for the ordinary end of a connection.
    #[must_use]
    pub const fn label(&self) -> Option<&'static str> {
        match self {
            Self::TooLong { .. } => Some("frame_too_long"),
            Self::Garbage(_) => Some("frame_garbage"),
            Self::Closed | Self::Io(_) => None,
        }
    }
}

/// The content of the first bytes of a stream. The last number is the bytes that the frame took.
#[derive(Debug)]
pub enum Decoded {
    /// A frame of length zero.
    Keepalive(usize),
    /// A message of this version.
    Message(Box<Message>, usize),
    /// A message of a kind that a later version added.
    Unknown(u32, usize),
    /// The frame is not yet complete.
    Incomplete,
}

/// Decodes the first frame of `bytes`. Pure, and never panics.
///
/// # Errors
///
/// [`FrameError::TooLong`] or [`FrameError::Garbage`].
pub fn decode(bytes: &[u8]) -> Result<Decoded, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Decoded::Incomplete);
    };
    let length = check_length(*header, FRAME_BYTES_MAX)?;
    if length == 0 {
        return Ok(Decoded::Keepalive(HEADER_BYTES));
    }
    match rest.get(..length) {
        None => Ok(Decoded::Incomplete),
        Some(body) => {
            let taken = HEADER_BYTES + length;
            match Message::decode(body, FRAME_BYTES_MAX) {
                Ok(message) => Ok(Decoded::Message(Box::new(message), taken)),
                Err(MessageError::UnknownKind { kind }) => Ok(Decoded::Unknown(kind, taken)),
                Err(MessageError::Malformed(error)) => Err(error.into()),
            }
        }
    }
}

/// Encodes one value as a frame; `None` when it would exceed [`FRAME_BYTES_MAX`].
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Option<Bytes> {
    let mut body = Vec::with_capacity(256);
    body.put_u32(0);
    codec::encode_into(value, &mut body);
    let length = body.len() - HEADER_BYTES;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    body[..HEADER_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    Some(body.into())
}

/// Reads one frame into `body`, and returns its length: zero for a keepalive.
///
/// # Errors
///
/// [`FrameError`].
pub async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    body: &mut BytesMut,
    limit: usize,
) -> Result<usize, FrameError> {
    let mut header = [0; HEADER_BYTES];
    if reader.read(&mut header[..1]).await? == 0 {
        return Err(FrameError::Closed);
    }
    reader.read_exact(&mut header[1..]).await?;
    let length = check_length(header, limit)?;
    body.clear();
    body.resize(length, 0);
    reader.read_exact(body).await?;
    Ok(length)
}

/// Reads one value, skipping keepalives.
///
/// # Errors
///
/// [`FrameError`].
pub async fn read_value<T, R>(reader: &mut R, limit: usize) -> Result<T, FrameError>
where
    T: Serialize + DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let mut body = BytesMut::new();
    while read(reader, &mut body, limit).await? == 0 {}
    Ok(codec::decode(&body, limit)?)
}

/// Writes one value as a frame and flushes it.
///
/// # Errors
///
/// The connection's own; a value too long for a frame is `InvalidInput`.
pub async fn write_value<T: Serialize, W: AsyncWrite + Unpin>(
    writer: &mut W,
    value: &T,
) -> io::Result<()> {
    let frame = encode(value).ok_or(io::ErrorKind::InvalidInput)?;
    writer.write_all(&frame).await?;
    writer.flush().await
}

fn check_length(header: [u8; HEADER_BYTES], limit: usize) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(header);
    match usize::try_from(length) {
        Ok(within) if within <= limit => Ok(within),
        _ => Err(FrameError::TooLong { length, limit }),
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::node::Refusal;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_decodes_only_when_it_is_complete() {
        let known = Boot { count: 3, nonce: 7 };
        let refused = Message::Refused { refusal: Refusal::Cloned, known };
        let frame = encode(&refused).unwrap();
        for cut in 0..frame.len() {
            assert!(matches!(decode(&frame[..cut]), Ok(Decoded::Incomplete)), "cut at {cut}");
        }
        let Ok(Decoded::Message(message, taken)) = decode(&frame) else { panic!("a message") };
        assert_eq!((*message, taken), (refused, frame.len()));
        assert!(matches!(decode(&[0; 4]), Ok(Decoded::Keepalive(4))));
    }

    #[test]
    fn four_gigabytes_are_refused_by_their_length_alone() {
        let error = decode(&[0xff; 4]).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { length: u32::MAX, .. }), "{error}");
        assert_eq!(error.label(), Some("frame_too_long"));
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(common_version((1, 3), (2, 5)), Some(3));
        assert_eq!(common_version((1, 1), (1, 1)), Some(1));
        assert_eq!(common_version((1, 2), (3, 4)), None);
    }

    #[test]
    fn a_message_of_a_later_kind_takes_exactly_its_frame() {
        let frame = encode(&(Message::KINDS + 2, "what a later version says")).unwrap();
        let decoded = decode(&frame);
        let Ok(Decoded::Unknown(kind, taken)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((kind, taken), (Message::KINDS + 2, frame.len()));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Decoded::Message(message, taken)) = decode(&bytes) {
                let again = encode(&*message).unwrap();
                prop_assert_eq!(&again[..], &bytes[..taken]);
            }
        }

        #[test]
        fn a_framed_body_of_any_bytes_is_refused_or_canonical(
            body in proptest::collection::vec(any::<u8>(), 1..200),
        ) {
            let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
            bytes.extend(&body);
            match decode(&bytes) {
                Ok(Decoded::Message(message, taken)) => {
                    prop_assert_eq!(taken, bytes.len());
                    prop_assert_eq!(&encode(&*message).unwrap()[..], &bytes[..]);
                }
                Ok(Decoded::Unknown(kind, taken)) => {
                    prop_assert!(kind >= Message::KINDS && taken == bytes.len());
                }
                Ok(other) => prop_assert!(false, "{:?}", other),
                Err(error) => prop_assert_eq!(error.label(), Some("frame_garbage")),
            }
        }
    }
}
