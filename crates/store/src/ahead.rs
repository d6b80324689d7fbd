//! Reads the log beside sled while it opens.
//!
//! sled goes through its pages in the order of their keys and waits for each piece. On a machine
//! that was just started none of it is in the system's cache; read from front to back beside it,
//! it is there when sled asks.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::limits::{READ_AHEAD_BYTES, READ_AHEAD_FROM_BYTES};

/// Bytes of one read: large enough for a disk, small enough to be told to stop.
const STEP: usize = 1024 * 1024;

/// Reads ahead until it is dropped, or until there is no more.
#[derive(Debug)]
pub(crate) struct ReadAhead(Arc<AtomicBool>);

impl ReadAhead {
    /// Begins to read the file at `path`. That it cannot be read, or no thread be had, costs time
    /// and nothing else.
    pub(crate) fn start(path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let large = |file: &File| file.metadata().is_ok_and(|it| it.len() >= READ_AHEAD_FROM_BYTES);
        if let Some(file) = File::open(path).ok().filter(large) {
            let stop = Arc::clone(&stop);
            let reading = move || read(file.take(READ_AHEAD_BYTES), &stop);
            let thread = std::thread::Builder::new().name("store-read-ahead".to_owned());
            if let Err(error) = thread.spawn(reading) {
                tracing::debug!(%error, "the store is not read ahead");
            }
        }
        Self(stop)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read(mut file: impl Read, stop: &AtomicBool) {
    let mut buffer = vec![0; STEP];
    while !stop.load(Ordering::Relaxed) && file.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{self, Read};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::read;

    /// Has `left` reads, and asks to stop at the second.
    struct Source<'a> {
        left: u32,
        reads: &'a Cell<u32>,
        stop: Option<&'a AtomicBool>,
    }

    impl Read for Source<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads.set(self.reads.get() + 1);
            if let (2, Some(stop)) = (self.reads.get(), self.stop) {
                stop.store(true, Ordering::Relaxed);
            }
            let more = self.left > 0;
            self.left = self.left.saturating_sub(1);
            Ok(if more { buffer.len() } else { 0 })
        }
    }

    #[test]
    fn it_ends_with_the_file_or_when_told() {
        let (reads, stop) = (Cell::new(0), AtomicBool::new(false));
        read(Source { left: 4, reads: &reads, stop: None }, &stop);
        assert_eq!(reads.replace(0), 5, "four and the end");
        read(Source { left: 100, reads: &reads, stop: Some(&stop) }, &stop);
        assert_eq!(reads.get(), 2);
    }
}
