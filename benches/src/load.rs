//! The load generator: connections that write a prepared request and read its response, over and
//! over.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
    time::Instant,
};

use crate::{Result, figures::Load, wire};

/// Room for a response at first; it grows with what arrives.
const BUFFER: usize = 16 << 10;

/// The largest response that is read.
const RESPONSE_MAX: usize = 64 << 20;

/// One keep-alive connection with one request under way at most.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(crate) async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Writes a request, reads the whole response and gives it to `look`. Returns its bytes.
    ///
    /// # Errors
    /// What comes is no response, or not what `look` expects.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        mut look: impl FnMut(&wire::Response<'_>) -> Result<()>,
    ) -> Result<usize> {
        self.exchange_bytes(request, |bytes| {
            let Some(response) = wire::parse(bytes)? else { return Ok(None) };
            look(&response)?;
            Ok(Some(response.length))
        })
        .await
    }

    /// Writes a request and reads until `whole` says of how many bytes the response is. Returns them.
    ///
    /// # Errors
    /// The connection ends before, or `whole` does not like what comes.
    pub(crate) async fn exchange_bytes(
        &mut self,
        request: &[u8],
        mut whole: impl FnMut(&[u8]) -> Result<Option<usize>>,
    ) -> Result<usize> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection in the middle of a call".into());
            }
            if let Some(length) = whole(&self.buffer)? {
                return Ok(length);
            }
            if self.buffer.len() > RESPONSE_MAX {
                return Err("the response does not end".into());
            }
        }
    }

    /// Makes one call and returns its result, and how long it took without reading the result.
    ///
    /// # Errors
    /// The server answers with anything but a result that is not an error of its tool.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<(Value, Duration)> {
        let (mut status, mut body) = (0, Vec::new());
        let before = Instant::now();
        self.exchange(request, |response| {
            status = response.status;
            body = response.body.to_vec();
            Ok(())
        })
        .await?;
        let taken = before.elapsed();
        let refused = || refused(status, &body);
        let mut message: Value =
            serde_json::from_slice(&body).map_err(|error| format!("{}: {error}", refused()))?;
        let result = message.get_mut("result").map(Value::take).ok_or_else(refused)?;
        if result["isError"] == true { Err(refused()) } else { Ok((result, taken)) }
    }
}

/// A result, cheaply told; [`once`] looks closely.
///
/// # Errors
/// It is none, or an error of the tool.
pub(crate) fn is_result(response: &wire::Response<'_>) -> Result<()> {
    holds(response, &[b"\"result\""])
}

/// A result that has all of `parts` in it, cheaply told.
///
/// # Errors
/// It is none, or an error of the tool, or a part is missing.
pub(crate) fn holds(response: &wire::Response<'_>, parts: &[&[u8]]) -> Result<()> {
    let body = &response.body;
    let holds = response.status == 200
        && parts.iter().all(|part| wire::find(body, part).is_some())
        && wire::find(body, b"\"isError\":true").is_none();
    if holds { Ok(()) } else { Err(refused(response.status, body)) }
}

/// Tells of an answer that is not what is measured.
pub(crate) fn refused(status: u16, body: &[u8]) -> Box<dyn std::error::Error> {
    format!("a call was answered with status {status}: {}", String::from_utf8_lossy(body)).into()
}

/// Makes one call and returns its result: says that a load would measure what it is meant to.
///
/// # Errors
/// The server answers with anything but a result that is not an error of its tool.
pub(crate) async fn once(to: SocketAddr, request: &[u8]) -> Result<Value> {
    Ok(Connection::open(to).await?.ask(request).await?.0)
}

/// Keeps `connections` busy for `length`, each with one call at a time; the requests take turns.
///
/// # Errors
/// The first call that is not answered with a result ends the load.
pub(crate) async fn run(
    to: SocketAddr,
    requests: &[Vec<u8>],
    connections: usize,
    length: Duration,
) -> Result<Load> {
    let requests: Rc<[Vec<u8>]> = requests.into();
    let step = async move |connection: &mut Connection, turn: usize| {
        let Some(request) = requests.get(turn % requests.len().max(1)) else { return Ok(None) };
        connection.exchange(request, is_result).await.map(Some)
    };
    repeat(to, connections, length, step).await
}

/// Keeps `connections` busy with a step of any kind, which is given its connection and how many
/// steps that has done, and returns the bytes of its last response. Ends after `length`; a connection
/// ends before when its step returns `None`. What is counted and timed is a whole step.
///
/// # Errors
/// The first step that fails ends the load.
pub(crate) async fn repeat(
    to: SocketAddr,
    connections: usize,
    length: Duration,
    step: impl AsyncFn(&mut Connection, usize) -> Result<Option<usize>> + 'static,
) -> Result<Load> {
    let step = Rc::new(step);
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(to).await?);
    }
    let started = Instant::now();
    let until = started + length;
    let local = LocalSet::new();
    let tasks: Vec<_> = open
        .into_iter()
        .map(|mut connection| {
            let step = step.clone();
            local.spawn_local(async move {
                let (mut times, mut bytes) = (Vec::new(), 0);
                loop {
                    let before = Instant::now();
                    if before >= until {
                        break;
                    }
                    match step(&mut connection, times.len()).await {
                        Ok(Some(last)) => bytes = last,
                        Ok(None) => break,
                        Err(error) => return Err(error.to_string()),
                    }
                    times.push(before.elapsed());
                }
                Ok((times, bytes))
            })
        })
        .collect();
    let (mut times, mut bytes) = (Vec::new(), 0);
    local
        .run_until(async {
            for task in tasks {
                let (own, last) = task.await??;
                times.extend(own);
                bytes = last;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })
        .await?;
    Ok(Load::of(times, started.elapsed(), bytes))
}
