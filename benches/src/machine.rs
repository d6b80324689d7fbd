//! What the machine itself gives: syncs to disk and round trips over loopback.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{Result, figures::Load};

/// What is written before each sync: a page.
const PAGE: [u8; 4096] = [7; 4096];

/// Calls of `fdatasync` a second, each after a page was written over.
///
/// # Errors
/// The directory cannot be written to.
pub(crate) fn fdatasyncs_per_second(directory: &Path, length: Duration) -> Result<f64> {
    Ok(fdatasyncs(directory, length)?.per_second)
}

/// Calls of `fdatasync`, each after a page was written over, which is part of its time.
///
/// # Errors
/// The directory cannot be written to.
pub(crate) fn fdatasyncs(directory: &Path, length: Duration) -> Result<Load> {
    let mut file = Overwritten::new(tempfile::tempfile_in(directory)?, &PAGE)?;
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < length {
        let before = Instant::now();
        file.write(&PAGE)?;
        times.push(before.elapsed());
    }
    Ok(Load::of(times, started.elapsed(), PAGE.len()))
}

/// A file whose beginning is written over and synced: its size stays, so that a sync is of data alone.
#[derive(Debug)]
pub(crate) struct Overwritten(File);

impl Overwritten {
    /// Writes `first` into an empty file, so that there is something to write over.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub(crate) fn new(mut file: File, first: &[u8]) -> std::io::Result<Self> {
        file.write_all(first)?;
        file.sync_all()?;
        Ok(Self(file))
    }

    /// Writes and syncs; blocks until the disk has it.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(bytes)?;
        self.0.sync_data()
    }
}

/// Sends back what it receives until the process is killed, and prints the address when ready.
///
/// # Errors
/// The system gives no port.
pub(crate) async fn serve_echo() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", json!({"http": format!("http://{}", listener.local_addr()?)}));
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = [0; 16 << 10];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Round trips of `bytes` to the raw echo on as many connections.
///
/// # Errors
/// The echo went away.
pub(crate) async fn echo(
    to: SocketAddr,
    bytes: usize,
    connections: usize,
    length: Duration,
) -> Result<Load> {
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    let until = started + length;
    for _ in 0..connections {
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        tasks.spawn(async move {
            let (sent, mut received, mut times) = (vec![b'x'; bytes], vec![0; bytes], Vec::new());
            loop {
                let before = Instant::now();
                if before >= until {
                    return Ok::<_, std::io::Error>(times);
                }
                stream.write_all(&sent).await?;
                stream.read_exact(&mut received).await?;
                times.push(before.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(own) = tasks.join_next().await {
        times.extend(own??);
    }
    Ok(Load::of(times, started.elapsed(), bytes))
}
