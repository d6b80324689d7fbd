//! `toolmesh token`: through the running node, else straight in its store, so that there can be a
//! token before the first start.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use toolmesh_actors::store::{TokenView, create_token_offline, revoke_token_offline};
use toolmesh_core::principal::Role;
use toolmesh_store::{OpenError, Options, State, Store};

use super::args::{self, Common, TokenCommand};
use super::client::Client;
use super::locate::Locator;
use super::output::{Failure, Report};
use super::text::{columns, text_of};
use crate::config;

/// Directory of the records in the data directory.
const STORE_DIRECTORY: &str = "store";

/// Creates, lists or revokes tokens.
pub(crate) async fn run(common: &Common, command: &TokenCommand) -> Result<Report, Failure> {
    let locator = Locator::as_operator(common);
    let value = if locator.runs() {
        ask(&Client::connect(common)?, command).await?
    } else {
        with_store(&locator.data_directory()?, command)?
    };
    let text = match command {
        TokenCommand::Create { .. } => created(&value),
        TokenCommand::List => list(&value),
        TokenCommand::Revoke { id } => format!("token {id} is revoked"),
    };
    Ok(Report::new(text, value))
}

async fn ask(client: &Client, command: &TokenCommand) -> Result<Value, Failure> {
    match command {
        TokenCommand::Create { name, role } => {
            let role = Role::from(*role).to_string();
            client.ask("token_create", json!({"name": name, "role": role})).await
        }
        TokenCommand::List => client.ask("token_list", json!({})).await,
        TokenCommand::Revoke { id } => client.ask("token_revoke", json!({"id": id})).await,
    }
}

/// Does what `command` says in the store of a node that does not run.
fn with_store(data: &Path, command: &TokenCommand) -> Result<Value, Failure> {
    config::prepare(data).map_err(|error| not_kept(&error))?;
    let options = Options::new(data.join(STORE_DIRECTORY));
    let opened = Store::load::<State>(options, |_| {}).map_err(|error| match error {
        OpenError::InUse { .. } => Failure::new(
            "a node that is starting or stopping uses this data directory",
            "repeat in a moment",
        ),
        error => not_kept(&error),
    })?;
    let outcome = change(&opened.store, &opened.state, command);
    opened.store.close();
    outcome
}

fn change(store: &Store, state: &State, command: &TokenCommand) -> Result<Value, Failure> {
    match command {
        TokenCommand::Create { name, role } => {
            let role = Role::from(*role);
            let (view, secret) = create_token_offline(store, state, name.clone(), role, now())
                .map_err(|error| not_kept(&error))?;
            Ok(json!({"id": view.id, "name": view.name, "role": view.role, "token": secret}))
        }
        TokenCommand::List => {
            let tokens: Vec<TokenView> = state.tokens.values().map(TokenView::from).collect();
            Ok(json!({"tokens": tokens}))
        }
        TokenCommand::Revoke { id } => {
            match revoke_token_offline(store, state, id).map_err(|error| not_kept(&error))? {
                true => Ok(json!({"id": id, "revoked": true})),
                false => Err(Failure::new(
                    format!("there is no token {id:?}"),
                    "see their ids: toolmesh token list",
                )),
            }
        }
    }
}

fn created(token: &Value) -> String {
    format!(
        "{}\n\nThis is the token {:?} with the role {}, shown this once. A client sends it as\n  \
         Authorization: Bearer TOKEN\nRevoke it with: toolmesh token revoke {}",
        text_of(token, "token"),
        text_of(token, "name"),
        text_of(token, "role"),
        text_of(token, "id"),
    )
}

fn list(value: &Value) -> String {
    let tokens = value["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    if tokens.is_empty() {
        return "no tokens; create one: toolmesh token create NAME".to_owned();
    }
    let mut rows = vec![["id", "role", "created", "name"].map(str::to_owned).to_vec()];
    for token in tokens {
        let age = now().saturating_sub(token["created"].as_u64().unwrap_or(0));
        let created = format!("{} ago", super::text::duration(age));
        rows.push(vec![
            text_of(token, "id"),
            text_of(token, "role"),
            created,
            text_of(token, "name"),
        ]);
    }
    columns(&rows, 0)
}

fn not_kept(error: &dyn std::error::Error) -> Failure {
    Failure::new(error.to_string(), "see: toolmesh doctor")
}

/// Returns the seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "what is dated is dated with the time of day")]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl From<args::Role> for Role {
    fn from(role: args::Role) -> Self {
        match role {
            args::Role::Client => Self::Client,
            args::Role::Operator => Self::Operator,
        }
    }
}
