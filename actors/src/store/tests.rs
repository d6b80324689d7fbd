#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use toolmesh_core::{
    limits,
    principal::Role,
    registry::{Invite, Write},
};
use toolmesh_store::{MemoryRecords, State, Store, Token};

use super::*;
use crate::{
    kit::{Clock, Supervisor},
    link::{Memory, Protocol, Remembered},
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
    assert_eq!((who.role, who.id.as_ref()), (Role::Client, "token:laptop"));
    assert_eq!(again.revoke_token(made.id.clone()).await, Ok(true));
    assert_eq!(again.authenticate(&secret), None);
    assert_eq!(again.revoke_token(made.id).await, Ok(false));
    records.lose_power();
    assert!(!keeper(&records).await.has_tokens());
}

#[actix::test]
async fn a_name_is_one_tokens_at_a_time_and_says_nothing_else() {
    let store = keeper(&Arc::default()).await;
    let ann = || store.create_token("ann".into(), Role::Client);
    let (made, secret) = ann().await.unwrap();
    assert_eq!(ann().await.map(drop), Err(StoreError::TokenIsThere));
    let as_id = store.create_token(made.id.clone(), Role::Client).await;
    assert_eq!(as_id.map(drop), Err(StoreError::TokenIsThere));
    for wrong in ["", "a\nb", "ann@peer:Q", &"x".repeat(65)] {
        let refused = store.create_token(wrong.into(), Role::Client).await;
        assert_eq!(refused.map(drop), Err(StoreError::NoTokenName), "{wrong:?}");
    }
    store.create_token("x".repeat(64), Role::Client).await.unwrap();
    // Whoever gets the name next is the same principal.
    let before = store.authenticate(&secret).unwrap().id;
    store.revoke_token(made.id).await.unwrap();
    let (_, secret) = ann().await.unwrap();
    assert_eq!(store.authenticate(&secret).unwrap().id, before);
    assert!(store.renamed_principals().values().any(|name| **name == *"token:ann"));
}

#[actix::test]
async fn a_token_is_watched_whoever_has_its_name() {
    let store = keeper(&Arc::default()).await;
    let ann = || store.create_token("ann".into(), Role::Client);
    let (made, secret) = ann().await.unwrap();
    let (is_good, operator) = (store.watch(&secret), store.watch("the operator's"));
    assert!(is_good() && operator() && !store.watch("tm_00")());
    store.revoke_token(made.id).await.unwrap();
    ann().await.unwrap();
    assert!(operator() && !is_good(), "the name is another token's now");
}

#[actix::test]
async fn tokens_of_older_stores_that_share_a_name_stay_apart() {
    let (fatal, _faults) = mpsc::channel(1);
    let supervisor = Supervisor::start(Clock::manual(), fatal);
    let mut state = State::default();
    for (id, name, created) in [("a", "ann", 2), ("b", "ann", 1), ("c", "x@peer:Q", 1)] {
        let sha256 = Sha256::digest(id.as_bytes()).into();
        let (id, name) = (id.to_owned(), name.to_owned());
        let token = Token { id: id.clone(), name, role: Role::Client, sha256, created };
        state.tokens.insert(id, token);
    }
    let store = Store::in_memory(Arc::default(), |_| {}).unwrap();
    let store = StoreHandle::start(store, state, "the operator's", &supervisor).await;
    let who = |secret| store.authenticate(secret).unwrap().id;
    assert_eq!(["a", "b", "c"].map(who), ["token:a", "token:ann", "token:c"].map(Arc::from));
    let renamed = store.renamed_principals();
    assert_eq!(renamed.into_iter().collect::<Vec<_>>(), [("token:b".into(), "token:ann".into())]);
    // The name goes to nobody who was another until now.
    store.revoke_token("b".into()).await.unwrap();
    assert_eq!(who("a"), "token:a".into());
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
    let learned = Remembered { protocol: Protocol::Modern, server: "2026-07-28 fs 1".into() };
    store.remember("fs", learned.clone());
    // A question behind it in the mailbox: what was told is applied by then.
    store.revoke_token("none".into()).await.unwrap();
    store.flush().await;
    assert_eq!(store.recall("fs").as_ref(), Some(&learned));
    records.lose_power();
    assert_eq!(keeper(&records).await.recall("fs"), Some(learned));
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

fn invite(expires: u64) -> Invite {
    Invite { code: [7; 32], expires, uses: 1, used_by: Default::default() }
}

#[actix::test]
async fn an_invitation_is_spent_before_it_counts_and_survives_a_crash() {
    let records = Arc::new(MemoryRecords::default());
    let store = keeper(&records).await;
    let later = Clock::unix_seconds() + 3_600;
    store.keep_invite("i".into(), invite(later)).await.unwrap();
    assert_eq!(store.invite_code("i"), Some([7; 32]));
    assert_eq!(store.spend_invite("x".into(), "a".into()).await, Ok(false));
    assert_eq!(store.spend_invite("i".into(), "a".into()).await, Ok(true));
    records.lose_power();

    let again = keeper(&records).await;
    assert_eq!(again.spend_invite("i".into(), "b".into()).await, Ok(false), "it is used up");
    assert_eq!(again.spend_invite("i".into(), "a".into()).await, Ok(true), "a lost answer");
    again.forget_invites().await.unwrap();
    assert_eq!(again.invite_code("i"), None);
    records.lose_power();
    assert_eq!(keeper(&records).await.invite_code("i"), None);
}

#[actix::test]
async fn expired_invitations_make_room_and_open_ones_are_bounded() {
    let store = keeper(&Arc::default()).await;
    let (past, later) = (1, Clock::unix_seconds() + 3_600);
    for number in 0..limits::INVITES {
        store.keep_invite(format!("old-{number}"), invite(past)).await.unwrap();
        assert_eq!(store.invite_code(&format!("old-{number}")), None);
    }
    for number in 0..limits::INVITES {
        store.keep_invite(number.to_string(), invite(later)).await.unwrap();
    }
    let full = store.keep_invite("one more".into(), invite(later)).await;
    assert_eq!(full, Err(StoreError::TooManyInvites));
}

#[actix::test]
async fn the_largest_invitation_fits_its_record() {
    let store = keeper(&Arc::default()).await;
    let id = |number| format!("12D3KooW{number:044}").into();
    let used_by = (0..limits::INVITE_USES - 1).map(id).collect();
    let later = Clock::unix_seconds() + 3_600;
    let nearly_used = Invite { used_by, uses: limits::INVITE_USES, ..invite(later) };
    store.keep_invite("i".into(), nearly_used).await.unwrap();
    assert_eq!(store.spend_invite("i".into(), id(limits::INVITE_USES)).await, Ok(true));
    assert_eq!(store.spend_invite("i".into(), "more".into()).await, Ok(false));
}

#[actix::test]
async fn what_is_known_of_other_nodes_is_kept() {
    let records = Arc::new(MemoryRecords::default());
    let store = keeper(&records).await;
    let writes = vec![Write::Trusted("a".into(), Some(1)), Write::Redeemed("i".into(), Some(2))];
    store.keep_registry(writes).await.unwrap();
    store.keep_registry(vec![Write::Trusted("a".into(), None)]).await.unwrap();
    let kept = store.registry();
    assert_eq!((kept.trusted.len(), kept.redeemed.len()), (0, 1));
    records.lose_power();
    assert_eq!(keeper(&records).await.registry(), kept);
}
