//! What a user would pick instead: `redis-server` that syncs before it answers, and lists.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    time::Duration,
};

use tokio::process::Command;

use crate::{
    Result,
    figures::Load,
    load::{self, Connection},
    process::Process,
};

/// Finds the program, or fetches it.
const FIND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/redis.sh");

/// The list that is pushed to.
const LIST: &[u8] = b"queue";

/// How long the server may take until it answers as it should.
const START_TIME: Duration = Duration::from_secs(30);

/// How often one that does not listen yet is tried.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A server with `appendfsync always` and nothing else that writes.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Process,
    address: SocketAddr,
    push: Vec<u8>,
}

impl Redis {
    /// Starts the server in a directory of its own; `value` is what will be pushed.
    ///
    /// # Errors
    /// There is no `redis-server` and none can be fetched, or it does not do as it is told.
    pub(crate) async fn start(value: &[u8]) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("toolmesh-bench-redis-").tempdir()?;
        // It cannot say which port the system gave it; nobody takes this one in between.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let directory = data.path().as_os_str().as_bytes().to_vec();
        let mut command = Command::new(program()?);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        // A rewrite of the log in the middle of a load would be counted against it.
        command.args(["--auto-aof-rewrite-percentage", "0", "--dir"]).arg(data.path());
        let process = Process::silent(&mut command, data)?;
        let redis = Self { process, address, push: encode(&[b"LPUSH", LIST, value]) };
        // The directory says that it is ours and no other at the same port.
        let settings: [(&[u8], &[u8]); 2] = [(b"appendfsync", b"always"), (b"dir", &directory)];
        let ready = redis.sets(&settings);
        tokio::time::timeout(START_TIME, ready)
            .await
            .map_err(|_late| "redis does not answer")??;
        Ok(redis)
    }

    /// Pushes to an empty list.
    ///
    /// # Errors
    /// A push is refused.
    pub(crate) async fn load(&self, connections: usize, length: Duration) -> Result<Load> {
        let delete = encode(&[b"DEL", LIST]);
        Connection::open(self.address).await?.exchange_bytes(&delete, number).await?;
        let push = self.push.clone();
        let step = async move |connection: &mut Connection, _: usize| {
            connection.exchange_bytes(&push, number).await.map(Some)
        };
        let load = load::repeat(self.address, connections, length, step);
        self.process.loaded(load).await
    }

    /// Waits until it listens, and makes sure that it is set as it was told.
    async fn sets(&self, settings: &[(&[u8], &[u8])]) -> Result<()> {
        let mut connection = loop {
            match Connection::open(self.address).await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        for (name, value) in settings {
            let expected = encode(&[name, value]);
            let request = encode(&[b"CONFIG", b"GET", name]);
            connection.exchange_bytes(&request, |bytes| exactly(bytes, &expected)).await?;
        }
        Ok(())
    }
}

/// Where the program is, after it was fetched if need be.
fn program() -> Result<OsString> {
    let output = std::process::Command::new("sh").arg(FIND).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let program = OsString::from_vec(output.stdout.trim_ascii().to_vec());
    if Path::new(&program).exists() { Ok(program) } else { Err("redis.sh names no program".into()) }
}

/// A command, or an array of texts in an answer, in the protocol of redis.
fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The bytes of an answer that is a number; `None` as long as it is not there whole.
fn number(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(line) = bytes.strip_suffix(b"\r\n") else { return Ok(None) };
    match line {
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => Ok(Some(bytes.len())),
        _ => Err(unexpected(bytes)),
    }
}

/// The bytes of an answer that is as expected; `None` as long as it is not there whole.
fn exactly(bytes: &[u8], expected: &[u8]) -> Result<Option<usize>> {
    if bytes == expected {
        Ok(Some(bytes.len()))
    } else if expected.starts_with(bytes) {
        Ok(None)
    } else {
        Err(unexpected(bytes))
    }
}

fn unexpected(bytes: &[u8]) -> Box<dyn std::error::Error> {
    format!("redis answers {}", String::from_utf8_lossy(bytes).trim()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_and_measured() {
        assert_eq!(
            encode(&[b"LPUSH", b"queue", b""]),
            b"*3\r\n$5\r\nLPUSH\r\n$5\r\nqueue\r\n$0\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_is_whole_at_its_end_and_nothing_else_is_one() -> Result<()> {
        for arrived in [&b""[..], b":", b":12", b":12\r"] {
            assert_eq!(number(arrived)?, None);
        }
        assert_eq!(number(b":12\r\n")?, Some(5));
        assert!(number(b"-MISCONF disk\r\n").is_err());
        assert_eq!((exactly(b"*2", b"*2\r\n")?, exactly(b"*2\r\n", b"*2\r\n")?), (None, Some(4)));
        assert!(exactly(b"-ERR", b"*2\r\n").is_err());
        Ok(())
    }
}
