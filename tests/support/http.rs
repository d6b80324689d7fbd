//! HTTP/1.1 on a plain socket: sends exactly what a test says, polite or not.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use super::{Outcome, PATIENCE};

/// A request as it goes out. `Host` and `Content-Length` are added unless the test sets them.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    framed: bool,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: Vec::new(), body: Vec::new(), framed: true }
    }

    /// A POST of this body with the headers that every MCP client sends.
    pub(crate) fn post(body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", "/mcp")
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream")
            .body(body)
    }

    pub(crate) fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Adds a header; the same name may come twice.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a header out, or puts another value in its place.
    pub(crate) fn set(mut self, name: &str, value: Option<&str>) -> Self {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Leaves `Content-Length` out: the test frames the body itself.
    pub(crate) fn unframed(mut self) -> Self {
        self.framed = false;
        self
    }

    fn bytes(&self, address: &str) -> Vec<u8> {
        let has =
            |name: &str| self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !has("Host") {
            head += &format!("Host: {address}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let bodied = self.method == "POST" || !self.body.is_empty();
        if self.framed && bodied && !has("Content-Length") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        let mut bytes = (head + "\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it on a connection of its own and reads the whole response.
    pub(crate) fn send(&self, address: &str) -> Outcome<Response> {
        Connection::open(address)?.send(self)
    }

    /// Sends it on a connection of its own and returns the response's head and its stream.
    pub(crate) fn listen(&self, address: &str) -> Outcome<(Response, Events)> {
        let mut connection = Connection::open(address)?;
        connection.write(&self.bytes(address))?;
        let head = connection.read_head()?;
        let body = connection.body(&head);
        Ok((head, Events { lines: BufReader::new(body) }))
    }
}

/// A response; its body is empty when only the head was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whole seconds of `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.header("Retry-After")?.parse().ok()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Outcome<Value> {
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("{error}: {} {}", self.status, self.text()).into())
    }

    /// The JSON-RPC messages of the body: one, or one an event.
    pub(crate) fn messages(&self) -> Outcome<Vec<Value>> {
        if self.is_stream() {
            return Events { lines: BufReader::new(self.body.as_slice()) }.collect();
        }
        Ok(if self.body.is_empty() { Vec::new() } else { vec![self.json()?] })
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("Content-Type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

/// A connection that is kept open between requests.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { address: address.to_owned(), reader: BufReader::new(stream) })
    }

    /// How long one read may wait; [`PATIENCE`] at first.
    pub(crate) fn patience(&self, time: Duration) -> Outcome {
        Ok(self.reader.get_ref().set_read_timeout(Some(time))?)
    }

    /// Sends a request and reads the whole response.
    pub(crate) fn send(&mut self, request: &Request) -> Outcome<Response> {
        let bytes = request.bytes(&self.address);
        self.write(&bytes)?;
        self.read()
    }

    /// Sends only the request's head and what there is of its body, and reads nothing.
    pub(crate) fn begin(&mut self, request: &Request) -> Outcome {
        let bytes = request.bytes(&self.address);
        Ok(self.write(&bytes)?)
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads one whole response.
    pub(crate) fn read(&mut self) -> Outcome<Response> {
        let mut response = self.read_head()?;
        let mut body = Vec::new();
        Body { framing: framing(&response), source: &mut self.reader }.read_to_end(&mut body)?;
        response.body = body;
        Ok(response)
    }

    /// Whether the other side still holds it and has said nothing unasked, so that a request may be
    /// sent on it.
    pub(crate) fn is_idle(&self) -> bool {
        let stream = self.reader.get_ref();
        let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
        let waits = looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.reader.buffer().is_empty() && stream.set_nonblocking(false).is_ok() && waits
    }

    /// Whether the other side has closed the connection, without more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn read_head(&mut self) -> Outcome<Response> {
        let mut line = || -> Outcome<String> {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err("the connection was closed before a response".into());
            }
            Ok(line.trim_end().to_owned())
        };
        let status = line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut response = Response { status: code.ok_or(status)?, ..Response::default() };
        loop {
            let header = line()?;
            let Some((name, value)) = header.split_once(':') else { return Ok(response) };
            response.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn body(self, head: &Response) -> Box<dyn Read + Send> {
        Box::new(Body { framing: framing(head), source: self.reader })
    }
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(u64),
    /// Bytes left of the present chunk; `None` before its size is known.
    Chunked(Option<u64>),
    Close,
    Ended,
}

fn framing(head: &Response) -> Framing {
    let length = head.header("Content-Length").and_then(|length| length.parse().ok());
    match length {
        _ if matches!(head.status, 204 | 304) => Framing::Ended,
        Some(length) => Framing::Length(length),
        None if head.header("Transfer-Encoding").is_some() => Framing::Chunked(None),
        None => Framing::Close,
    }
}

struct Body<R> {
    framing: Framing,
    source: R,
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.framing {
            Framing::Ended | Framing::Length(0) => Ok(0),
            Framing::Close => self.source.read(buffer),
            Framing::Length(left) => {
                let read = (&mut self.source).take(left).read(buffer)?;
                self.framing = Framing::Length(left - read as u64);
                Ok(read)
            }
            Framing::Chunked(None) => {
                let mut size = String::new();
                self.source.read_line(&mut size)?;
                let size = u64::from_str_radix(size.trim(), 16)
                    .map_err(|_| io::Error::other("the response was cut"))?;
                if size == 0 {
                    self.source.read_line(&mut String::new())?;
                    self.framing = Framing::Ended;
                    return Ok(0);
                }
                self.framing = Framing::Chunked(Some(size));
                self.read(buffer)
            }
            Framing::Chunked(Some(left)) => {
                let read = (&mut self.source).take(left).read(buffer)?;
                if left == read as u64 {
                    self.source.read_line(&mut String::new())?;
                    self.framing = Framing::Chunked(None);
                } else {
                    self.framing = Framing::Chunked(Some(left - read as u64));
                }
                Ok(read)
            }
        }
    }
}

/// The JSON-RPC messages of an event stream, as they come. Dropping it hangs up.
pub(crate) struct Events<R = Box<dyn Read + Send>> {
    lines: BufReader<R>,
}

impl<R: Read> Events<R> {
    /// The lines of the stream as they come, places to resume from included.
    pub(crate) fn into_lines(self) -> impl Iterator<Item = io::Result<String>> {
        self.lines.lines()
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = Outcome<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error.into())),
            }
            // An event without data only primes the stream for a resumption.
            if let Some(data) = line.strip_prefix("data:").map(str::trim).filter(|d| !d.is_empty())
            {
                return Some(serde_json::from_str(data).map_err(Into::into));
            }
        }
    }
}
