//! What the machine itself gives: syncs to disk and round trips over loopback.

use std::{
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
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&PAGE)?;
    file.sync_all()?;
    let started = Instant::now();
    let mut syncs = 0_u32;
    while started.elapsed() < length {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&PAGE)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / started.elapsed().as_secs_f64())
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
