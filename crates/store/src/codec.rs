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
    let body =
        bincode::encode_to_vec(record, config()).map_err(|e| CodecError::Body(e.to_string()))?;
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

/// Returns the version of the body in `frame`, if it is as long as a frame.
pub(crate) fn version(frame: &[u8]) -> Option<u16> {
    frame.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
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
        Ok((_, used)) => {
            Err(CodecError::Body(format!("{} bytes are left over", body.len() - used)))
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CodecError, Decode, Encode, Record, checksum, decode, encode};

    #[derive(Debug, Clone, PartialEq, Encode, Decode)]
    struct Sample {
        text: String,
        list: Vec<u64>,
    }

    impl Record for Sample {
        const MAGIC: [u8; 4] = *b"TEST";
        const VERSION: u16 = 2;
    }

    fn sample() -> Sample {
        Sample { text: "hello".to_owned(), list: vec![1, 300, u64::MAX] }
    }

    /// Puts a body in a frame whose checksum is right.
    fn frame(version: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let head = [&b"TEST"[..], &version.to_be_bytes(), &length.to_be_bytes()].concat();
        let checksum = checksum(&head, body).to_be_bytes();
        [&head[..], &checksum, body].concat()
    }

    #[test]
    fn a_record_comes_back_as_it_went() -> Result<(), CodecError> {
        assert_eq!(decode::<Sample>(&encode(&sample())?)?, sample());
        Ok(())
    }

    #[test]
    fn what_is_not_the_record_is_refused() -> Result<(), CodecError> {
        let whole = encode(&sample())?;
        let mut other = whole.clone();
        other[0] = b'X';
        assert_eq!(decode::<Sample>(&other), Err(CodecError::Magic(*b"XEST")));
        assert_eq!(decode::<Sample>(&frame(1, &whole[14..])), Err(CodecError::Version(1)));
        assert_eq!(decode::<Sample>(&frame(3, &whole[14..])), Err(CodecError::Version(3)));
        let longer = [&whole[..], &[0]].concat();
        assert!(matches!(decode::<Sample>(&longer), Err(CodecError::Length { .. })));
        let left_over = frame(2, &[&whole[14..], &[0]].concat());
        assert!(matches!(decode::<Sample>(&left_over), Err(CodecError::Body(_))));
        let huge_claim = frame(2, &[0xfd, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert!(matches!(decode::<Sample>(&huge_claim), Err(CodecError::Body(_))));
        for length in 0..whole.len() {
            assert!(matches!(decode::<Sample>(&whole[..length]), Err(CodecError::Length { .. })));
        }
        Ok(())
    }

    #[test]
    fn every_flipped_bit_is_noticed() -> Result<(), CodecError> {
        let whole = encode(&sample())?;
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Sample>(&damaged).is_err(), "bit {bit}");
        }
        Ok(())
    }

    #[test]
    fn a_record_larger_than_a_value_is_refused() {
        let large = Sample { text: "x".repeat(crate::limits::VALUE_BYTES), list: vec![] };
        assert!(matches!(encode(&large), Err(CodecError::Body(_))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode::<Sample>(&bytes).is_err());
        }

        #[test]
        fn random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(record) = decode::<Sample>(&frame(2, &body)) {
                prop_assert_eq!(encode(&record).and_then(|bytes| decode(&bytes)), Ok(record));
            }
        }
    }
}
