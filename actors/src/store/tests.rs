#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;

use tokio::sync::mpsc;
use toolmesh_core::principal::Role;
use toolmesh_store::{MemoryRecords, State, Store};

use super::*;
use crate::{
    kit::{Clock, Supervisor},
    link::{Memory, Protocol},
};

async fn keeper(records: &Arc<MemoryRecords>) -> StoreHandle {
    let (fatal, _faults) = mpsc::channel(1);
    let supervisor = Supervisor::start(Clock::manual(), fatal);
    let state = State::load(records.as_ref()).unwrap();
    let store = Store::in_memory(records.clone(), |_| {}).unwrap();
    StoreHandle::start(store, state, "the operator's", &supervisor).await
}

#[actix::test]
async fn a_token_opens_until_it_is_revoked_and_survives_a_crash() {
    let records = Arc::new(MemoryRecords::default());
    let store = keeper(&records).await;
    let (made, secret) = store.create_token("laptop".into(), Role::Client).await.unwrap();
    records.lose_power();

    let again = keeper(&records).await;
    let who = again.authenticate(&secret).unwrap();
    assert_eq!((who.role, who.id.as_ref()), (Role::Client, format!("token:{}", made.id).as_str()));
    assert_eq!(again.revoke_token(made.id.clone()).await, Ok(true));
    assert_eq!(again.authenticate(&secret), None);
    assert_eq!(again.revoke_token(made.id).await, Ok(false));
    records.lose_power();
    assert!(!keeper(&records).await.has_tokens());
}

#[actix::test]
async fn only_the_operators_file_opens_as_operator() {
    let store = keeper(&Arc::default()).await;
    assert_eq!(store.authenticate("the operator's").map(|who| who.role), Some(Role::Operator));
    for wrong in ["", "the operator", "the operator's ", "tm_00"] {
        assert_eq!(store.authenticate(wrong), None, "{wrong:?}");
    }
}

#[actix::test]
async fn the_lifecycle_of_an_upstream_is_remembered() {
    let records = Arc::new(MemoryRecords::default());
    let store = keeper(&records).await;
    assert_eq!(store.recall("fs"), None);
    store.remember("fs", Protocol::Modern, "2026-07-28");
    // A question behind it in the mailbox: what was told is applied by then.
    store.revoke_token("none".into()).await.unwrap();
    store.flush().await;
    assert_eq!(store.recall("fs"), Some(Protocol::Modern));
    records.lose_power();
    assert_eq!(keeper(&records).await.recall("fs"), Some(Protocol::Modern));
}

#[actix::test]
async fn the_name_is_kept() {
    let records = Arc::new(MemoryRecords::default());
    let store = keeper(&records).await;
    assert_eq!(store.node_name(), None);
    store.keep_name("ada".into()).await.unwrap();
    records.lose_power();
    assert_eq!(keeper(&records).await.node_name().as_deref(), Some("ada"));
}
