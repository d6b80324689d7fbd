//! The journal: what was committed and is not surely in sled yet, in files of our own.
//!
//! A commit is one entry, appended with one write and synced with one `fdatasync`, on the thread that
//! commits. `docs/adr/020-a-journal-before-sled.md` says why it is not sled that does this.
//!
//! A file is named `journal-<number>`, and begins with its first entry:
//!
//! | bytes | field, big-endian |
//! |---|---|
//! | 4 | magic and version: `TMJ1` |
//! | 4 | length of the body |
//! | 8 | how much of the file was synced when this was written |
//! | 4 | crc32 of the file's number, of the two fields before and of the body |
//! | length | body: the writes, in their order |
//!
//! A write is two bytes of length and the key, then four bytes of length and the value; a length of
//! `u32::MAX` and no value removes the key. After the last entry come zeros up to the file's end.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::limits::JOURNAL_STEP_BYTES;
use crate::record::{RecordsError, Write};

const MAGIC: [u8; 4] = *b"TMJ1";
const HEADER: usize = 20;
const PREFIX: &str = "journal-";
/// The length that stands for a key that is removed.
const DELETED: u32 = u32::MAX;

/// The file that is written to.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    number: u64,
    file: File,
    /// Bytes of its entries.
    end: u64,
    /// Bytes of them that were synced.
    synced: u64,
    /// Bytes of the file.
    length: u64,
    /// The entry that is put together.
    buffer: Vec<u8>,
}

impl Journal {
    /// Begins an empty file `number` in `directory`.
    pub(crate) fn begin(directory: &Path, number: u64) -> io::Result<Self> {
        let path = path(directory, number);
        // One of this number can only be what a start left that was killed right here.
        let file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_len(JOURNAL_STEP_BYTES)?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok(Self {
            directory: directory.to_owned(),
            number,
            file,
            end: 0,
            synced: 0,
            length: JOURNAL_STEP_BYTES,
            buffer: Vec::new(),
        })
    }

    /// Goes on in a new file. This one must be synced, and stays.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        *self = Self::begin(&self.directory, self.number + 1)?;
        Ok(())
    }

    /// Writes one entry; it survives the end of the process from now on.
    pub(crate) fn append(&mut self, writes: &[Write]) -> Result<(), RecordsError> {
        self.buffer.clear();
        self.buffer.resize(HEADER, 0);
        for write in writes {
            put(&mut self.buffer, write)?;
        }
        let (header, body) = self.buffer.split_at_mut(HEADER);
        let length = u32::try_from(body.len()).map_err(|_| too_large())?;
        header.copy_from_slice(&Header { length, synced: self.synced }.bytes(self.number, body));
        let end = self.end + self.buffer.len() as u64;
        if end > self.length {
            // In steps, because a sync that finds the file longer than before costs more.
            let length = end.next_multiple_of(JOURNAL_STEP_BYTES);
            self.file.set_len(length)?;
            self.length = length;
        }
        self.file.write_all_at(&self.buffer, self.end)?;
        self.end = end;
        // What one large commit took is not held for good.
        self.buffer.shrink_to(JOURNAL_STEP_BYTES as usize);
        Ok(())
    }

    /// Has all entries survive the loss of power.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.end;
        Ok(())
    }

    /// Returns the number of its file.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns how many bytes of its entries were synced.
    #[cfg(test)]
    pub(crate) fn synced_bytes(&self) -> u64 {
        self.synced
    }

    /// Returns the bytes of its entries.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }
}

/// Removes the journals in `directory` before `number`: what they hold must be synced elsewhere.
///
/// One that came back after a loss of power would be read before those after it, which is right as
/// long as those have all that came since. So none is removed before this is sure.
pub(crate) fn remove_before(directory: &Path, number: u64) -> io::Result<()> {
    let old: Vec<u64> = numbers(directory)?.into_iter().filter(|old| *old < number).collect();
    for old in &old {
        fs::remove_file(path(directory, *old))?;
    }
    if old.is_empty() { Ok(()) } else { File::open(directory)?.sync_all() }
}

/// Hands the writes of every whole entry in the journals of `directory` to `each`, in the order in
/// which they were committed. Returns the number of the last file, if there is one, and how many
/// entries there were.
///
/// # Errors
///
/// An entry is damaged that was synced once, a file cannot be read, or `each` fails.
pub(crate) fn replay(
    directory: &Path,
    each: &mut dyn FnMut(&[Write]) -> Result<(), RecordsError>,
) -> Result<(Option<u64>, u64), RecordsError> {
    let (mut last, mut entries, mut cut) = (None, 0, None);
    for number in numbers(directory)? {
        let file = File::open(path(directory, number))?;
        let mut left = file.metadata()?.len();
        let (mut file, mut at) = (BufReader::new(file), 0);
        while let Some((body, bytes)) = read(&mut file, number, left)? {
            // A file is synced before the next one has an entry.
            if let Some((number, at)) = cut {
                return Err(damaged(number, at));
            }
            each(&writes(&body)?)?;
            (left, at, entries) = (left - bytes, at + bytes, entries + 1);
        }
        let mut rest = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.read_to_end(&mut rest)?;
        if synced_beyond(&rest, number, at) {
            return Err(damaged(number, at));
        }
        if rest.iter().any(|byte| *byte != 0) {
            cut = Some((number, at));
        }
        last = Some(number);
    }
    Ok((last, entries))
}

/// Reads the entry that comes next and returns its body and the bytes it takes; `None`: the rest is
/// no whole entry. `left` bytes are left in the file.
fn read(
    file: &mut impl Read,
    number: u64,
    left: u64,
) -> Result<Option<(Vec<u8>, u64)>, RecordsError> {
    let mut header = [0; HEADER];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let Some(found) = Header::of(&header) else { return Ok(None) };
    let bytes = HEADER as u64 + u64::from(found.length);
    if bytes > left {
        return Ok(None);
    }
    let mut body = vec![0; found.length as usize];
    file.read_exact(&mut body)?;
    Ok((found.bytes(number, &body) == header).then_some((body, bytes)))
}

/// Tells whether `rest`, which begins at byte `at` of a file with what is no whole entry, has a whole
/// one later that was written when more than `at` was synced. If so what is there was whole once; if
/// not it is what a crash left of entries that nobody was told of.
fn synced_beyond(rest: &[u8], number: u64, at: u64) -> bool {
    let candidates = rest.windows(HEADER).enumerate().skip(1);
    let mut candidates = candidates.filter(|(_, header)| header.starts_with(&MAGIC));
    candidates.any(|(offset, header)| {
        let Some(found) = Header::of(header).filter(|found| found.synced > at) else {
            return false;
        };
        let end = offset + HEADER + found.length as usize;
        let body = rest.get(offset + HEADER..end);
        body.is_some_and(|body| found.bytes(number, body) == header)
    })
}

/// What stands before an entry's body.
struct Header {
    length: u32,
    synced: u64,
}

impl Header {
    fn of(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (synced, _checksum) = rest.split_first_chunk()?;
        Some(Self { length: u32::from_be_bytes(*length), synced: u64::from_be_bytes(*synced) })
    }

    /// Its bytes, with the checksum of `body` in the file `number`.
    fn bytes(&self, number: u64, body: &[u8]) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.synced.to_be_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&number.to_be_bytes());
        checksum.update(&bytes[4..16]);
        checksum.update(body);
        bytes[16..].copy_from_slice(&checksum.finalize().to_be_bytes());
        bytes
    }
}

fn put(buffer: &mut Vec<u8>, write: &Write) -> Result<(), RecordsError> {
    let (key, value) = (write.key(), write.value());
    let key_length = u16::try_from(key.len()).map_err(|_| too_large())?;
    buffer.extend(key_length.to_be_bytes());
    buffer.extend(key);
    let length = value.map_or(Ok(DELETED), |value| u32::try_from(value.len()));
    buffer.extend(length.map_err(|_| too_large())?.to_be_bytes());
    buffer.extend(value.unwrap_or_default());
    Ok(())
}

fn damaged(number: u64, at: u64) -> RecordsError {
    let why = format!("the journal {number} is damaged at byte {at}, and was whole before");
    RecordsError::Damaged(why)
}

fn too_large() -> RecordsError {
    io::Error::new(ErrorKind::InvalidInput, "a commit is too large for the journal").into()
}

/// Returns the writes of a body whose checksum was right.
fn writes(body: &[u8]) -> Result<Vec<Write>, RecordsError> {
    let (mut rest, mut writes) = (body, Vec::new());
    while !rest.is_empty() {
        let write = take(&mut rest);
        let odd =
            || RecordsError::Damaged("an entry of the journal has an unknown form".to_owned());
        writes.push(write.ok_or_else(odd)?);
    }
    Ok(writes)
}

fn take(rest: &mut &[u8]) -> Option<Write> {
    let key_length = rest.split_off(..2)?.try_into().ok().map(u16::from_be_bytes)?;
    let key = rest.split_off(..usize::from(key_length))?.to_vec();
    let length = rest.split_off(..4)?.try_into().ok().map(u32::from_be_bytes)?;
    if length == DELETED {
        return Some(Write::Delete { key });
    }
    let value = rest.split_off(..length as usize)?.to_vec();
    Some(Write::Put { key, value })
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number}"))
}

/// Returns the numbers of the journals in `directory`, the least first.
fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u64>().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests;
