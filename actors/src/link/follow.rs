//! Following what a server offers.

use std::{sync::Arc, time::Duration};

use rmcp::model::{ProtocolVersion, SubscriptionFilter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{mcp::Mcp, session::Session};

/// Time between two looks at what a Python peer offers: it tells nobody when that changes.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Sees to it that `changes` tells of changed tools, until `close`. Servers of the older revisions
/// tell without being asked.
pub(super) fn follow(session: &Session, changes: watch::Sender<u64>, close: CancellationToken) {
    match session {
        Session::Mcp(mcp) => {
            let is_modern = mcp.server.protocol.as_str() >= ProtocolVersion::V_2026_07_28.as_str();
            if is_modern && mcp.server.tells_changes {
                tokio::spawn(subscribe(mcp.clone(), changes, close));
            }
        }
        Session::Python(_) => {
            tokio::spawn(async move {
                while close.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_some() {
                    changes.send_modify(|times| *times += 1);
                }
            });
        }
    }
}

/// Keeps asking a 2026-07-28 server to tell of changed tools, until `close`.
async fn subscribe(session: Arc<Mcp>, changes: watch::Sender<u64>, close: CancellationToken) {
    let mut pause = Duration::from_secs(1);
    while !close.is_cancelled() && !session.tap.ended.is_cancelled() {
        let filter = SubscriptionFilter::builder().tools_list_changed().build();
        let subscribed = tokio::select! {
            subscribed = session.peer.listen(filter) => subscribed,
            () = close.cancelled() => return,
        };
        match subscribed {
            Ok(mut subscription) => {
                pause = Duration::from_secs(1);
                changes.send_modify(|times| *times += 1); // What changed while nobody listened.
                loop {
                    tokio::select! {
                        () = close.cancelled() => return,
                        news = subscription.next() => match news {
                            Ok(Some(_changed)) => changes.send_modify(|times| *times += 1),
                            Ok(None) | Err(_) => break,
                        },
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the server does not take a subscription"),
        }
        tokio::select! {
            () = close.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(60)),
        }
    }
}
