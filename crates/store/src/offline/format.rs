//! The lines of an exported file: a header, a record each, and a trailer that proves that nothing
//! is missing.
//!
//! ```text
//! {"toolmesh_store":1,"node":"ada","created":1790000000}
//! {"kind":"token","key":"027431","version":1,"value":"VE10aw..."}
//! {"records":1,"sha256":"5feceb66..."}
//! ```
//!
//! Keys are in hex, values in base64, as they are stored. The checksum is over all lines before
//! the trailer, their line feeds included.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::OfflineError;
use super::verify::reason;
use crate::codec;
use crate::keys::Kind;
use crate::limits::EXPORT_LINE_BYTES;
use crate::record::Write as Change;
use crate::records;

/// The version of this format.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    toolmesh_store: u32,
    node: Option<String>,
    created: u64,
}

#[derive(Debug, Serialize)]
struct Record<'a> {
    kind: &'a str,
    key: String,
    version: Option<u16>,
    value: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Trailer {
    records: u64,
    sha256: String,
}

/// A line after the header, whichever it is.
#[derive(Debug, Deserialize)]
struct Line {
    key: Option<String>,
    value: Option<String>,
    records: Option<u64>,
    sha256: Option<String>,
}

/// Writes the lines of a file.
pub(super) struct Writer<W> {
    out: W,
    hash: Sha256,
    records: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file of the node called `node` at `created`, in seconds since 1970.
    pub(super) fn new(out: W, node: Option<String>, created: u64) -> io::Result<Self> {
        let mut writer = Self { out, hash: Sha256::new(), records: 0, bytes: 0 };
        writer.line(&Header { toolmesh_store: FORMAT, node, created })?;
        Ok(writer)
    }

    /// Writes a record.
    pub(super) fn record(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.records += 1;
        self.line(&Record {
            kind: kind.name(),
            key: hex::encode(key),
            version: codec::version(value),
            value: BASE64_STANDARD.encode(value),
        })
    }

    /// Ends the file; returns what it was written to, its records, its bytes and its checksum.
    pub(super) fn end(mut self) -> io::Result<(W, u64, u64, String)> {
        let sha256 = hex::encode(self.hash.clone().finalize());
        self.line(&Trailer { records: self.records, sha256: sha256.clone() })?;
        self.out.flush()?;
        Ok((self.out, self.records, self.bytes, sha256))
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.hash.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(&bytes)
    }
}

/// Reads the lines of a file, and believes none before it has seen the trailer.
pub(super) struct Reader<R> {
    source: R,
    path: PathBuf,
    hash: Sha256,
    line: Vec<u8>,
    number: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
    records: u64,
    last_key: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read what is called `path` in errors.
    pub(super) fn new(source: R, path: &Path) -> Result<Self, OfflineError> {
        let mut reader = Self {
            source,
            path: path.to_owned(),
            hash: Sha256::new(),
            line: Vec::new(),
            number: 0,
            bytes: 0,
            records: 0,
            last_key: Vec::new(),
        };
        if !reader.read_line()? {
            return Err(reader.malformed("the file is empty"));
        }
        let header: Header = serde_json::from_slice(&reader.line)
            .map_err(|_| reader.malformed("this is no export of a toolmesh store"))?;
        if header.toolmesh_store != FORMAT {
            let found = header.toolmesh_store;
            let why = format!("it has format {found}, which this program does not know");
            return Err(reader.malformed(why));
        }
        reader.hash.update(&reader.line);
        Ok(reader)
    }

    /// Returns the next record, or `None` once the trailer showed that there were all.
    pub(super) fn next(&mut self) -> Result<Option<Change>, OfflineError> {
        if !self.read_line()? {
            return Err(self.malformed("the file ends before its last line: it was cut"));
        }
        let line: Line = serde_json::from_slice(&self.line)
            .map_err(|error| self.malformed(error.to_string()))?;
        let (key, value) = match line {
            Line { key: Some(key), value: Some(value), .. } => (key, value),
            Line { records: Some(records), sha256: Some(sha256), .. } => {
                return self.end(records, &sha256).map(|()| None);
            }
            _ => return Err(self.malformed("it is neither a record nor the last line")),
        };
        self.hash.update(&self.line);
        self.records += 1;
        let key = hex::decode(key).map_err(|error| self.malformed(error.to_string()))?;
        let value =
            BASE64_STANDARD.decode(value).map_err(|error| self.malformed(error.to_string()))?;
        if self.records > 1 && key <= self.last_key {
            return Err(self.malformed("its records are not in order"));
        }
        records::check(&key, &value).map_err(|error| self.malformed(reason(&error)))?;
        self.last_key.clone_from(&key);
        let change = Change::Put { key, value };
        if !change.fits() {
            return Err(self.malformed("the record is larger than a record may be"));
        }
        Ok(Some(change))
    }

    fn end(&mut self, records: u64, sha256: &str) -> Result<(), OfflineError> {
        if records != self.records {
            let why = format!("it has {} records where it should have {records}", self.records);
            return Err(self.malformed(why));
        }
        if hex::encode(self.hash.clone().finalize()) != sha256 {
            return Err(self.malformed("its checksum is wrong: the file was changed"));
        }
        if self.read_line()? {
            return Err(self.malformed("there is more after the last line"));
        }
        Ok(())
    }

    /// Reads a line with its line feed; `false`: there is none.
    fn read_line(&mut self) -> Result<bool, OfflineError> {
        self.line.clear();
        self.number += 1;
        let mut limited = (&mut self.source).take(EXPORT_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.map_err(OfflineError::file(&self.path))? as u64;
        self.bytes += read;
        if read == EXPORT_LINE_BYTES && self.line.last() != Some(&b'\n') {
            return Err(self.malformed("the line is longer than any record"));
        }
        Ok(read > 0)
    }

    fn malformed(&self, reason: impl Into<String>) -> OfflineError {
        let (path, reason) = (self.path.clone(), reason.into());
        OfflineError::Malformed { path, line: self.number, reason }
    }
}
