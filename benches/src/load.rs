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
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Writes a request, reads the whole response and gives it to `look`. Returns its bytes.
    async fn exchange(
        &mut self,
        request: &[u8],
        look: impl FnOnce(&wire::Response<'_>) -> Result<()>,
    ) -> Result<usize> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection in the middle of a call".into());
            }
            if let Some(response) = wire::parse(&self.buffer)? {
                look(&response)?;
                return Ok(response.length);
            }
            if self.buffer.len() > RESPONSE_MAX {
                return Err("the response does not end".into());
            }
        }
    }
}

/// A result, cheaply told; `once` looks closely.
fn is_result(response: &wire::Response<'_>) -> Result<()> {
    let is_result = response.status == 200 && wire::find(&response.body, b"\"result\"").is_some();
    if is_result { Ok(()) } else { Err(refused(response)) }
}

fn refused(response: &wire::Response<'_>) -> Box<dyn std::error::Error> {
    let body = String::from_utf8_lossy(&response.body);
    format!("a call was answered with status {}: {body}", response.status).into()
}

/// Makes one call and returns its result: says that a load would measure what it is meant to.
///
/// # Errors
/// The server answers with anything but a result that is not an error of its tool.
pub(crate) async fn once(to: SocketAddr, request: &[u8]) -> Result<Value> {
    let mut result = Value::Null;
    let look = |response: &wire::Response<'_>| {
        let mut message: Value = serde_json::from_slice(&response.body)
            .map_err(|error| format!("{}: {error}", refused(response)))?;
        result = message.get_mut("result").map(Value::take).ok_or_else(|| refused(response))?;
        if result["isError"] == true { Err(refused(response)) } else { Ok(()) }
    };
    Connection::open(to).await?.exchange(request, look).await?;
    Ok(result)
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
            let requests = requests.clone();
            local.spawn_local(async move {
                let (mut times, mut bytes) = (Vec::new(), 0);
                for request in requests.iter().cycle() {
                    let before = Instant::now();
                    if before >= until {
                        break;
                    }
                    bytes = connection
                        .exchange(request, is_result)
                        .await
                        .map_err(|error| error.to_string())?;
                    times.push(before.elapsed());
                }
                Ok::<_, String>((times, bytes))
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
