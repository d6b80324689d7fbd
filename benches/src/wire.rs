//! Reads HTTP/1.1 responses: just enough of it for servers that we start ourselves.

use std::{borrow::Cow, fmt};

/// A whole response at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    /// The status code.
    pub(crate) status: u16,
    /// The body, without the marks of chunks.
    pub(crate) body: Cow<'a, [u8]>,
    /// Bytes of the buffer that are this response's.
    pub(crate) length: usize,
}

/// Bytes that no HTTP/1.1 server of ours sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadResponse(&'static str);

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's answer cannot be read: {}", self.0)
    }
}

impl std::error::Error for BadResponse {}

/// How the body ends.
enum Framing {
    Length(usize),
    Chunked,
}

/// Parses the response at the start of `buffer`; `None` as long as it is not there whole.
///
/// # Errors
/// The bytes are no response, or one whose end cannot be told without closing the connection.
pub(crate) fn parse(buffer: &[u8]) -> Result<Option<Response<'_>>, BadResponse> {
    let Some(head_end) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
    let (head, rest) = (&buffer[..head_end], &buffer[head_end + 4..]);
    let (status, framing) = parse_head(head)?;
    let body = match framing {
        Framing::Length(length) => rest.get(..length).map(|body| (Cow::Borrowed(body), length)),
        Framing::Chunked => parse_chunks(rest)?.map(|(body, length)| (Cow::Owned(body), length)),
    };
    Ok(body.map(|(body, length)| Response { status, body, length: head_end + 4 + length }))
}

fn parse_head(head: &[u8]) -> Result<(u16, Framing), BadResponse> {
    let head = std::str::from_utf8(head).map_err(|_| BadResponse("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or(BadResponse("no HTTP/1.1 status line"))?;
    let mut framing = matches!(status, 204 | 304).then_some(Framing::Length(0));
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(BadResponse("a header without a colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_| BadResponse("a length that is no number"))?;
            framing = Some(Framing::Length(length));
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(BadResponse("a transfer encoding other than chunked"));
            }
            framing = Some(Framing::Chunked);
        }
    }
    Ok((status, framing.ok_or(BadResponse("a body without a length"))?))
}

/// The body and the bytes it took; `None` as long as the last chunk is not there.
fn parse_chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, BadResponse> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line_end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&bytes[at..at + line_end]).unwrap_or_default();
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16)
            .map_err(|_| BadResponse("a chunk whose size is no number"))?;
        let start = at + line_end + 2;
        let Some(end) = start.checked_add(size).filter(|end| end.checked_add(2).is_some()) else {
            return Err(BadResponse("a chunk larger than memory"));
        };
        let Some(chunk) = bytes.get(start..end + 2) else { return Ok(None) };
        let (data, ending) = chunk.split_at(size);
        if ending != b"\r\n" {
            return Err(BadResponse(if size == 0 {
                "trailers"
            } else {
                "a chunk without its end"
            }));
        }
        if size == 0 {
            return Ok(Some((body, end + 2)));
        }
        body.extend_from_slice(data);
        at = end + 2;
    }
}

/// Where `needle` begins in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-type: text/plain\r\n\r\nhelloHTTP/1.1 404";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\nb;note=1\r\n, and more.\r\n0\r\n\r\nnext";

    #[test]
    fn a_body_is_as_long_as_its_length_says() {
        let response =
            Response { status: 200, body: Cow::Borrowed(b"hello"), length: PLAIN.len() - 12 };
        assert_eq!(parse(PLAIN), Ok(Some(response)));
    }

    #[test]
    fn chunks_are_joined() {
        let body = Cow::Owned(b"hello, and more.".to_vec());
        assert_eq!(
            parse(CHUNKED),
            Ok(Some(Response { status: 200, body, length: CHUNKED.len() - 4 }))
        );
    }

    #[test]
    fn what_has_not_all_arrived_is_waited_for() {
        for (whole, length) in [(PLAIN, PLAIN.len() - 12), (CHUNKED, CHUNKED.len() - 4)] {
            for arrived in 0..length {
                assert_eq!(parse(&whole[..arrived]), Ok(None), "after {arrived} bytes");
            }
        }
    }

    #[test]
    fn some_statuses_have_no_body() {
        let response = Response { status: 204, body: Cow::Borrowed(b"".as_slice()), length: 27 };
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(Some(response)));
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        for bytes in [
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n".as_slice(),
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            b"\xff\xfe\r\n\r\n",
        ] {
            assert!(parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
