//! How a record becomes bytes: a frame around bincode. The only module that knows bincode.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic: which record this is |
//! | 2 | version of its body, big-endian |
//! | 4 | length of the body, big-endian |
//! | 4 | crc32 of all the rest, big-endian |
//! | length | body: bincode 2, variable-length integers |
//!
//! bincode is not self-describing: a body read as the wrong version would be misread, so an
//! unknown version is refused. It is never used for bytes that come from a peer.

pub(crate) use bincode::{Decode, Encode};

use crate::limits::VALUE_BYTES;

const HEADER: usize = 14;

/// A type with a place on disk. Changing its fields is a new version and a new golden file.
pub(crate) trait Record: Encode + Decode<()> {
    /// Names the record on disk; no two types share one.
    const MAGIC: [u8; 4];
    /// The version of the body that [`encode`] writes.
    const VERSION: u16;
}

/// Why bytes are not the record they should be, or a record cannot become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside the header, or after less or more than the header announces.
    #[error("the record has {actual} bytes where its frame needs {expected}")]
    Length {
        /// Bytes that a whole frame would have.
        expected: usize,
        /// Bytes that there are.
        actual: usize,
    },
    /// The bytes are another record, or none.
    #[error("the record is of another type (magic {0:02x?})")]
    Magic([u8; 4]),
    /// A newer program wrote the record.
    #[error("the record has version {0}, which this program does not know: use a newer one")]
    Version(u16),
    /// A bit has changed since the record was written.
    #[error("the record's checksum is wrong")]
    Checksum,
    /// The frame is whole and its body is not what the version says.
    #[error("the record's body is malformed: {0}")]
    Body(String),
}

/// Returns `record` in its frame. Fails only if the body is larger than a value may be.
pub(crate) fn encode<R: Record>(record: &R) -> Result<Vec<u8>, CodecError> {
    let body = bincode::encode_to_vec(record, config()).map_err(|e| CodecError::Body(e.to_string()))?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= VALUE_BYTES - HEADER)
        .ok_or_else(|| CodecError::Body(format!("{} bytes are too many", body.len())))?;
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend(R::MAGIC);
    frame.extend(R::VERSION.to_be_bytes());
    frame.extend(length.to_be_bytes());
    let checksum = checksum(&frame, &body);
    frame.extend(checksum.to_be_bytes());
    frame.extend(body);
    Ok(frame)
}

/// Reads back what [`encode`] wrote; anything else is refused.
pub(crate) fn decode<R: Record>(frame: &[u8]) -> Result<R, CodecError> {
    let short = CodecError::Length { expected: HEADER, actual: frame.len() };
    let (magic, rest) = frame.split_first_chunk().ok_or_else(|| short.clone())?;
    let (version, rest) = rest.split_first_chunk().ok_or_else(|| short.clone())?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(|| short.clone())?;
    let (expected_checksum, body) = rest.split_first_chunk().ok_or(short)?;
    if *magic != R::MAGIC {
        return Err(CodecError::Magic(*magic));
    }
    let expected = HEADER.saturating_add(u32::from_be_bytes(*length) as usize);
    if frame.len() != expected {
        return Err(CodecError::Length { expected, actual: frame.len() });
    }
    if checksum(&frame[..HEADER - 4], body) != u32::from_be_bytes(*expected_checksum) {
        return Err(CodecError::Checksum);
    }
    let version = u16::from_be_bytes(*version);
    if version != R::VERSION {
        return Err(CodecError::Version(version));
    }
    match bincode::decode_from_slice(body, config()) {
        Ok((record, used)) if used == body.len() => Ok(record),
        Ok((_, used)) => Err(CodecError::Body(format!("{} bytes are left over", body.len() - used))),
        Err(error) => Err(CodecError::Body(error.to_string())),
    }
}

/// Without the limit a claimed length of a few bytes could ask for all memory.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<VALUE_BYTES>()
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}
