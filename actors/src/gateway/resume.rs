//! Answers that come while the client of a session is away for a moment.
//!
//! rmcp forgets a request with its answer, whether that reached the client or not. So what is left of
//! a stream that its client dropped is read on for a moment, and kept for who comes back for it.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{Stream, StreamExt};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId};
use tokio::sync::oneshot;
use toolmesh_core::limits;

type Events = Pin<Box<dyn Stream<Item = ServerSseMessage> + Send + Sync>>;

/// A stream by its session and its number in that.
type Key = (SessionId, u64);

/// What is left of the streams that were dropped a moment ago.
#[derive(Debug, Clone, Default)]
pub(super) struct Leftovers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    left: HashMap<Key, Left>,
    /// Streams that are being read on or kept, also those that were fetched meanwhile.
    count: usize,
    /// Streams that ever were kept.
    ever: u64,
}

#[derive(Debug)]
struct Left {
    rest: oneshot::Receiver<VecDeque<ServerSseMessage>>,
    /// Which of those that ever were it is: a stream that was fetched may be dropped again.
    which: u64,
}

impl Leftovers {
    /// The stream of a request of `session`, of which nothing is lost for a moment when it is
    /// dropped.
    pub(super) fn follow(
        &self,
        session: &SessionId,
        events: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static,
    ) -> Followed {
        let (session, leftovers) = (session.clone(), self.clone());
        Followed { session, leftovers, number: None, events: Some(Box::pin(events)) }
    }

    /// Takes what was left of a stream that has ended since its client dropped it after `last`.
    pub(super) async fn take(
        &self,
        session: &SessionId,
        last: &str,
    ) -> Option<VecDeque<ServerSseMessage>> {
        let left = self.kept().left.remove(&(session.clone(), number(last)?))?;
        left.rest.await.ok()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a stream that was dropped, if there may be one more.
    fn note(&self, key: Key, rest: oneshot::Receiver<VecDeque<ServerSseMessage>>) -> Option<u64> {
        let mut kept = self.kept();
        if kept.count >= limits::STREAMS_KEPT {
            return None;
        }
        kept.count += 1;
        kept.ever += 1;
        let which = kept.ever;
        kept.left.insert(key, Left { rest, which });
        Some(which)
    }

    /// Forgets a stream whose moment is over, and none that was dropped since.
    fn forget(&self, key: &Key, which: u64) {
        let mut kept = self.kept();
        kept.count -= 1;
        if kept.left.get(key).is_some_and(|left| left.which == which) {
            kept.left.remove(key);
        }
    }

    /// Reads a dropped stream to its end and keeps that for a moment, if there may be one more.
    fn keep(&self, key: Key, mut events: Events) {
        // A worker that shuts down drops bodies after its runtime.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (send, rest) = oneshot::channel();
        let Some(which) = self.note(key.clone(), rest) else {
            tracing::debug!("more streams were dropped than are kept: the rest of one is lost");
            return;
        };
        let leftovers = self.clone();
        runtime.spawn(async move {
            let read = async {
                let mut kept = VecDeque::new();
                while let Some(event) = events.next().await {
                    if kept.len() == limits::EVENTS_KEPT {
                        kept.pop_front(); // The answer is the last.
                    }
                    kept.push_back(event);
                }
                let _nobody_came = send.send(kept);
            };
            let time = tokio::time::sleep(limits::RESUME_GRACE * 2);
            let ((), _late) =
                tokio::join!(time, tokio::time::timeout(limits::RESUME_GRACE * 2, read));
            leftovers.forget(&key, which);
        });
    }
}

/// The place after `last`: a client names the last event that it has.
pub(super) fn after(last: &str) -> String {
    // Without a number it is of the stream that listens, whose first event has the id of its
    // beginning.
    let place = last.split_once('/').and_then(|(index, number)| {
        let next = index.parse::<usize>().ok()?.checked_add(1)?;
        Some(format!("{next}/{number}"))
    });
    place.unwrap_or_else(|| last.to_owned())
}

fn number(event: &str) -> Option<u64> {
    event.split_once('/')?.1.parse().ok()
}

/// A stream that leaves its rest behind when it is dropped.
pub(super) struct Followed {
    session: SessionId,
    leftovers: Leftovers,
    number: Option<u64>,
    events: Option<Events>,
}

impl Stream for Followed {
    type Item = ServerSseMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        let polled = events.poll_next_unpin(cx);
        match &polled {
            Poll::Ready(Some(event)) => {
                let number = event.event_id.as_deref().and_then(number);
                self.number = self.number.or(number);
            }
            Poll::Ready(None) => self.events = None,
            Poll::Pending => {}
        }
        polled
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let (Some(number), Some(events)) = (self.number, self.events.take()) {
            self.leftovers.keep((self.session.clone(), number), events);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(id: &str) -> ServerSseMessage {
        ServerSseMessage::priming(id, Duration::ZERO)
    }

    fn ids(events: &VecDeque<ServerSseMessage>) -> Vec<&str> {
        events.iter().filter_map(|event| event.event_id.as_deref()).collect()
    }

    #[actix::test]
    async fn what_was_not_read_is_left_for_a_moment() {
        let (leftovers, session): (Leftovers, SessionId) = (Leftovers::default(), "s".into());
        let events = || futures::stream::iter(["0/4", "1/4", "2/4"].map(event));
        let mut stream = leftovers.follow(&session, events());
        assert!(stream.next().await.is_some());
        drop(stream);
        assert!(leftovers.take(&session, "0/5").await.is_none(), "of another request");
        assert!(leftovers.take(&"t".into(), "0/4").await.is_none(), "of another session");
        let left = leftovers.take(&session, "0/4").await.unwrap_or_default();
        assert_eq!(ids(&left), ["1/4", "2/4"]);
        assert!(leftovers.take(&session, "0/4").await.is_none(), "once");

        let read = leftovers.follow(&session, events()).count().await;
        assert_eq!(read, 3);
        assert!(leftovers.take(&session, "0/4").await.is_none(), "nothing is left of it");
    }

    #[actix::test]
    async fn of_a_long_rest_the_end_is_kept() {
        let (leftovers, session): (Leftovers, SessionId) = (Leftovers::default(), "s".into());
        let many = (0..limits::EVENTS_KEPT * 3).map(|index| event(&format!("{index}/0")));
        let mut stream = leftovers.follow(&session, futures::stream::iter(many));
        assert!(stream.next().await.is_some());
        drop(stream);
        let left = leftovers.take(&session, "0/0").await.unwrap_or_default();
        assert_eq!(left.len(), limits::EVENTS_KEPT);
        let last = format!("{}/0", limits::EVENTS_KEPT * 3 - 1);
        assert_eq!(ids(&left).last(), Some(&last.as_str()));
    }

    /// Begins a stream of three events and drops it.
    async fn begin(leftovers: &Leftovers, session: &SessionId, number: usize) {
        let ids = (0..3).map(|index| event(&format!("{index}/{number}")));
        let mut stream = leftovers.follow(session, futures::stream::iter(ids.collect::<Vec<_>>()));
        assert!(stream.next().await.is_some());
    }

    #[actix::test]
    async fn of_as_many_streams_as_are_kept_nothing_is_lost_and_of_one_more_the_rest() {
        let (leftovers, session): (Leftovers, SessionId) = (Leftovers::default(), "s".into());
        let others: Vec<_> = (1..limits::STREAMS_KEPT)
            .filter_map(|number| {
                let key = ("t".into(), u64::try_from(number).ok()?);
                let which = leftovers.note(key.clone(), oneshot::channel().1)?;
                Some((key, which))
            })
            .collect();
        assert_eq!(others.len(), limits::STREAMS_KEPT - 1);
        begin(&leftovers, &session, 0).await;
        assert!(leftovers.take(&session, "0/0").await.is_some(), "the last that is kept");
        begin(&leftovers, &session, 1).await;
        assert!(leftovers.take(&session, "0/1").await.is_none(), "that is read on all the same");
        for (key, which) in &others {
            leftovers.forget(key, *which);
        }
        assert!(leftovers.kept().left.is_empty());
        begin(&leftovers, &session, 2).await;
        assert!(leftovers.take(&session, "0/2").await.is_some(), "there is room again");
    }

    #[actix::test]
    async fn a_stream_that_is_dropped_again_has_a_moment_of_its_own() {
        let (leftovers, key): (Leftovers, Key) = (Leftovers::default(), ("s".into(), 4));
        let first = leftovers.note(key.clone(), oneshot::channel().1).unwrap_or_default();
        assert!(leftovers.take(&key.0, "0/4").await.is_none(), "it was not read to its end");
        begin(&leftovers, &key.0, 4).await;
        leftovers.forget(&key, first);
        let left = leftovers.take(&key.0, "0/4").await.unwrap_or_default();
        assert_eq!(ids(&left), ["1/4", "2/4"], "the time of the first is over, not of this");
    }

    #[test]
    fn a_client_goes_on_after_what_it_has() {
        for (last, next) in [("0/4", "1/4"), ("7/0", "8/0"), ("0", "0"), ("", ""), ("x/y", "x/y")] {
            assert_eq!(after(last), next);
        }
    }
}
