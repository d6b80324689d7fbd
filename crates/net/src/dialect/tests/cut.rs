//! A stream that is cut after any byte, either way: no call hangs, none runs twice, and none is
//! called not started that ran.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use proptest::prelude::*;
use serde_json::Map;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::CallError;

use super::{
    super::{PythonDialect, PythonSession},
    Memory, PATIENCE, Tools, budget, memory, ours, serve_on, terms,
};

/// Passes bytes on, `there` of them to the server and `back` of them from it, and then hangs up.
async fn cut_after(client: Memory, server: Memory, there: usize, back: usize) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let requests = async {
        let mut buffer = [0];
        for _ in 0..there {
            let Ok(1) = from_client.read(&mut buffer).await else { return };
            let Ok(()) = to_server.write_all(&buffer).await else { return };
        }
    };
    let answers = async {
        let mut buffer = [0];
        for _ in 0..back {
            let Ok(1) = from_server.read(&mut buffer).await else { return };
            let Ok(()) = to_client.write_all(&buffer).await else { return };
        }
    };
    tokio::select! { () = requests => {}, () = answers => {} }
}

async fn call_over_cut(dialect: PythonDialect, there: usize, back: usize) {
    let (tools, opened) = (Arc::new(Tools::default()), Arc::new(AtomicUsize::new(0)));
    let served = tools.clone();
    let open = move || -> futures::future::BoxFuture<'static, Result<Memory, String>> {
        let (server, to_server) = memory(64);
        serve_on(server, served.clone(), terms());
        if opened.fetch_add(1, Ordering::Relaxed) > 0 {
            return Box::pin(std::future::ready(Ok(to_server)));
        }
        let (to_client, client) = memory(64);
        tokio::spawn(cut_after(to_client, to_server, there, back));
        Box::pin(std::future::ready(Ok(client)))
    };
    let (later, never) = (Instant::now() + PATIENCE, CancellationToken::new());
    let met = PythonSession::connect(open, ours(), budget(), Some(dialect), later);
    let outcome = match timeout(PATIENCE, met).await.unwrap() {
        Ok(session) => {
            let call = session.call("echo", Map::new(), later, &never);
            timeout(PATIENCE, call).await.unwrap()
        }
        Err(error) => Err(error),
    };
    tokio::task::yield_now().await;
    let ran = tools.ran.lock().unwrap().len();
    match outcome {
        Ok(_) => assert_eq!(ran, 1),
        Err(CallError::OutcomeUnknown { .. }) => assert!(ran <= 1),
        Err(CallError::NotStarted { .. } | CallError::Answered(_)) => assert_eq!(ran, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_at_any_byte_is_told_truthfully(
        is_session: bool,
        there in 0_usize..400,
        back in 0_usize..1_500,
    ) {
        let dialect = if is_session { PythonDialect::Session } else { PythonDialect::Envelope };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(call_over_cut(dialect, there, back));
    }
}
