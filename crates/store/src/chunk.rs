//! How a value is laid out on sled: inline while it is small, else a manifest and chunks.
//!
//! Physical keys start with a byte that keeps records and chunks apart, physical values with a
//! byte that says which of the two forms follows. Callers of the port see neither.

use crate::limits::PIECE_BYTES;
use crate::record::RecordsError;

const RECORD: u8 = 0;
const CHUNK: u8 = 1;
/// The key of the record that says how all this is laid out; neither a record's nor a chunk's.
pub(crate) const LAYOUT_KEY: [u8; 1] = [2];
/// Its value today: the version of this module's layout, with a journal before sled.
pub(crate) const LAYOUT: [u8; 4] = 2_u32.to_be_bytes();
/// Its value where all is in sled. A program of that time would not read the journal, so such a
/// store is given today's layout before it has one.
pub(crate) const LAYOUT_WITHOUT_JOURNAL: [u8; 4] = 1_u32.to_be_bytes();
const INLINE: u8 = 0;
const CHUNKED: u8 = 1;

/// Returns the physical key, or key prefix, of the record `key`.
pub(crate) fn record_key(key: &[u8]) -> Vec<u8> {
    [&[RECORD], key].concat()
}

/// Returns the logical key of a physical one.
pub(crate) fn logical_key(physical: &[u8]) -> &[u8] {
    physical.get(1..).unwrap_or_default()
}

/// Returns the physical key of the chunk `index` of `key`. Only keys of equal length can meet,
/// and those differ before the index.
pub(crate) fn chunk_key(key: &[u8], index: u32) -> Vec<u8> {
    [&[CHUNK], key, &index.to_be_bytes()].concat()
}

/// A physical value as it is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// Where the value is.
    Chunked(Manifest),
}

/// How a chunked value was cut. The size of a chunk is stored, so that the limit may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Bytes of the whole value.
    pub(crate) total: u32,
    /// Bytes of every chunk but the last.
    pub(crate) piece: u32,
}

impl Manifest {
    /// Returns the number of chunks.
    pub(crate) fn count(self) -> u32 {
        self.total.div_ceil(self.piece)
    }
}

/// A value cut for sled: what goes under the record's key, and the chunks.
pub(crate) struct Cut<'a> {
    pub(crate) head: Vec<u8>,
    pub(crate) chunks: std::slice::Chunks<'a, u8>,
}

/// Cuts `value`, which is at most [`VALUE_BYTES`](crate::limits::VALUE_BYTES) long.
pub(crate) fn cut(value: &[u8]) -> Cut<'_> {
    if value.len() < PIECE_BYTES {
        return Cut { head: [&[INLINE], value].concat(), chunks: [].chunks(PIECE_BYTES) };
    }
    let (total, piece) = (value.len() as u32, PIECE_BYTES as u32);
    let head = [&[CHUNKED][..], &total.to_be_bytes(), &piece.to_be_bytes()].concat();
    Cut { head, chunks: value.chunks(PIECE_BYTES) }
}

/// Reads what [`cut`] made the head of.
pub(crate) fn parse(head: &[u8]) -> Result<Stored<'_>, RecordsError> {
    match head.split_first() {
        Some((&INLINE, value)) => Ok(Stored::Inline(value)),
        Some((&CHUNKED, &[a, b, c, d, e, f, g, h])) => {
            let (total, piece) =
                (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
            if piece == 0 {
                return Err(RecordsError::Damaged("a manifest has chunks of no bytes".to_owned()));
            }
            Ok(Stored::Chunked(Manifest { total, piece }))
        }
        _ => Err(RecordsError::Damaged("a value has an unknown form".to_owned())),
    }
}
