//! A libp2p peer by hand: TCP, Noise, Yamux and multistream-select, and nothing that helps. It opens
//! what it likes from the address that it likes, and sees every byte that it is given.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerExt, upgrade::OutboundConnectionUpgrade},
    identity::Keypair,
    noise, tcp, yamux,
};
use tokio::{
    net::TcpSocket,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// How long a node may take for anything here; after it the peer gives up.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Longest line of multistream-select that is read.
const LINE_BYTES: u8 = 127;

/// What says that both sides speak multistream-select.
const MULTISTREAM: &str = "/multistream/1.0.0";

type Socket = tcp::tokio::TcpStream;
type Muxer = yamux::Muxer<noise::Output<Socket>>;
type Reply = oneshot::Sender<io::Result<RawStream>>;

/// A stream on which a protocol was agreed.
pub(crate) type RawStream = <Muxer as libp2p::core::StreamMuxer>::Substream;

/// One connection to a node. It is closed when this is dropped.
pub(crate) struct RawPeer {
    /// Who it says it is, and proves.
    pub(crate) peer_id: PeerId,
    /// Who the node proved to be.
    pub(crate) node: PeerId,
    openings: mpsc::Sender<Reply>,
    asked: Arc<Mutex<Vec<String>>>,
    driving: JoinHandle<()>,
}

impl RawPeer {
    /// Connects to `node` from the local address `source`, as `keypair`.
    pub(crate) async fn connect(
        source: Ipv4Addr,
        node: SocketAddr,
        keypair: &Keypair,
    ) -> io::Result<Self> {
        in_time(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            let stream = socket.connect(node).await?;
            stream.set_nodelay(true)?;
            let mut stream = tcp::tokio::TcpStream(stream);
            require(&mut stream, "/noise").await?;
            let noise = noise::Config::new(keypair).map_err(io::Error::other)?;
            let secured = noise.upgrade_outbound(stream, "/noise").await;
            let (node, mut stream) = secured.map_err(io::Error::other)?;
            require(&mut stream, "/yamux/1.0.0").await?;
            let muxer = yamux::Config::default().upgrade_outbound(stream, "/yamux/1.0.0").await?;
            let (openings, lane) = mpsc::channel(1);
            let asked = Arc::default();
            let driving = tokio::spawn(drive(muxer, lane, Arc::clone(&asked)));
            let peer_id = keypair.public().to_peer_id();
            Ok(Self { peer_id, node, openings, asked, driving })
        })
        .await
    }

    /// Opens a stream and proposes `protocol`; `None` when the node does not speak it with us.
    ///
    /// # Errors
    /// The connection or the stream ended.
    pub(crate) async fn open(&self, protocol: &str) -> io::Result<Option<RawStream>> {
        in_time(async {
            let (reply, opened) = oneshot::channel();
            // When nobody takes it, the reply comes back and is dropped, which ends the wait.
            drop(self.openings.send(reply).await);
            let mut stream = opened.await.map_err(|_| io::ErrorKind::ConnectionAborted)??;
            Ok(propose(&mut stream, protocol).await?.then_some(stream))
        })
        .await
    }

    /// The protocols that the node has proposed to us so far; all were declined.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }

    /// Waits until the node has ended the connection.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        in_time(async {
            self.openings.closed().await;
            Ok(())
        })
        .await
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(ANSWER_TIME, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What happens on a connection.
enum Event {
    Opened(RawStream),
    Inbound(RawStream),
    Wanted(Reply),
    End,
}

/// Keeps a connection going until it or its [`RawPeer`] ends. What the node opens is declined.
async fn drive(mut muxer: Muxer, mut lane: mpsc::Receiver<Reply>, asked: Arc<Mutex<Vec<String>>>) {
    let mut wanted = VecDeque::new();
    loop {
        match poll_fn(|cx| poll(&mut muxer, &mut lane, !wanted.is_empty(), cx)).await {
            Event::Wanted(reply) => wanted.push_back(reply),
            Event::Opened(stream) => {
                let Some(reply) = wanted.pop_front() else { continue };
                let _nobody_waits = reply.send(Ok(stream));
            }
            Event::Inbound(stream) => {
                // A node may propose several protocols on it, and then goes away by itself.
                tokio::spawn(decline(stream, Arc::clone(&asked)));
            }
            Event::End => return,
        }
    }
}

fn poll(
    muxer: &mut Muxer,
    lane: &mut mpsc::Receiver<Reply>,
    wanting: bool,
    cx: &mut Context<'_>,
) -> Poll<Event> {
    if let Poll::Ready(Err(_)) = muxer.poll_unpin(cx) {
        return Poll::Ready(Event::End);
    }
    if let Poll::Ready(inbound) = muxer.poll_inbound_unpin(cx) {
        return Poll::Ready(inbound.map_or(Event::End, Event::Inbound));
    }
    if wanting && let Poll::Ready(opened) = muxer.poll_outbound_unpin(cx) {
        return Poll::Ready(opened.map_or(Event::End, Event::Opened));
    }
    lane.poll_recv(cx).map(|reply| reply.map_or(Event::End, Event::Wanted))
}

async fn decline(mut stream: RawStream, asked: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    read_line(&mut stream).await?;
    write_lines(&mut stream, &[MULTISTREAM]).await?;
    loop {
        let protocol = read_line(&mut stream).await?;
        if let Ok(mut asked) = asked.lock() {
            asked.push(protocol);
        }
        write_lines(&mut stream, &["na"]).await?;
    }
}

async fn require(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: &str,
) -> io::Result<()> {
    if propose(stream, protocol).await? {
        return Ok(());
    }
    Err(io::Error::other(format!("the node does not speak {protocol}")))
}

/// Says whether the other side speaks `protocol` on this stream.
async fn propose(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: &str,
) -> io::Result<bool> {
    write_lines(stream, &[MULTISTREAM, protocol]).await?;
    if read_line(stream).await? != MULTISTREAM {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(read_line(stream).await? == protocol)
}

async fn write_lines(stream: &mut (impl AsyncWrite + Unpin), lines: &[&str]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.push(u8::try_from(line.len() + 1).map_err(io::Error::other)?);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut length = [0];
    stream.read_exact(&mut length).await?;
    if length[0] > LINE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut line = vec![0; length[0].into()];
    stream.read_exact(&mut line).await?;
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    Ok(line.trim_end_matches('\n').to_owned())
}

/// The address of `/ip4/…/tcp/…[/p2p/…]`.
pub(crate) fn socket_of(multiaddr: &str) -> Option<SocketAddr> {
    let mut parts = multiaddr.split('/').skip(1);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("ip4"), Some(ip), Some("tcp"), Some(port)) => {
            Some(SocketAddr::new(IpAddr::V4(ip.parse().ok()?), port.parse().ok()?))
        }
        _ => None,
    }
}
