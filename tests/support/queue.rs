//! Callers of the task queue that live through the death of their node: one connection, kept open
//! while there is someone at the other end, and for each call what is known of it.

use serde_json::{Value, json};

use super::{Answer, Client, Connection, Outcome, STATELESS};

/// Statuses with which the gateway turns a request away before anything is done: too many at once,
/// or the node stops.
const TURNED_AWAY: [u16; 2] = [429, 503];

/// What became of a call.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// It was done: what the tool says of it.
    Done(Value),
    /// It was refused, and changed nothing.
    Refused(Refusal),
    /// Nobody took the connection, so it changed nothing.
    NotSent,
    /// It was sent, and whether it was done is unknown.
    Lost(String),
}

/// Why a call was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// The queue's code; `not_started`, `http STATUS` or `rpc CODE` where it did not get that far.
    pub(crate) code: String,
    /// The whole answer.
    pub(crate) body: Value,
}

impl Refusal {
    /// Whether the same call may succeed later.
    pub(crate) fn retryable(&self) -> bool {
        let by_gateway = TURNED_AWAY.iter().any(|status| self.code == format!("http {status}"));
        // The node that was to be asked was not reached.
        let not_started = self.code == "not_started";
        by_gateway || not_started || self.body["structuredContent"]["error"]["retryable"] == true
    }
}

impl Reply {
    /// What the tool said.
    ///
    /// # Errors
    /// It was not done.
    pub(crate) fn done(self) -> Outcome<Value> {
        match self {
            Self::Done(value) => Ok(value),
            other => Err(format!("not done: {other:?}").into()),
        }
    }

    /// The code with which it was refused; empty if it was not.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.code,
            _ => "",
        }
    }

    fn of(answer: &Answer) -> Self {
        let status = answer.response.status;
        let refused = |code: String, body: Value| Self::Refused(Refusal { code, body });
        if TURNED_AWAY.contains(&status) {
            return refused(format!("http {status}"), answer.response.text().into());
        }
        if let Some(error) = answer.message.get("error") {
            return match error["data"]["kind"].as_str() {
                Some("outcome_unknown") => Self::Lost(error.to_string()),
                Some("not_started") => refused("not_started".to_owned(), error.clone()),
                _ => refused(format!("rpc {}", error["code"]), error.clone()),
            };
        }
        let Some(result) = answer.message.get("result") else {
            return refused(format!("http {status}"), answer.response.text().into());
        };
        if result["isError"] != true {
            return Self::Done(result["structuredContent"].clone());
        }
        let code = result["structuredContent"]["error"]["code"].as_str().unwrap_or("none");
        match code {
            // The storage failed under it: it may be there after a restart. Or another node may have it.
            "store_failed" | "outcome_unknown" => Self::Lost(result.to_string()),
            code => refused(code.to_owned(), result.clone()),
        }
    }
}

/// Calls the queue's tools on one connection.
#[derive(Debug)]
pub(crate) struct Caller {
    address: String,
    client: Client,
    connection: Option<Connection>,
}

impl Caller {
    /// A caller without a token; nothing is sent yet.
    pub(crate) fn new(address: &str) -> Outcome<Self> {
        Self::with_token(address, None)
    }

    /// A caller with this token.
    pub(crate) fn with_token(address: &str, token: Option<&str>) -> Outcome<Self> {
        let client = Client::connect(address, STATELESS, token)?;
        Ok(Self { address: address.to_owned(), client, connection: None })
    }

    /// Calls `p2p_taskqueue_NAME`.
    pub(crate) fn call(&mut self, name: &str, arguments: &Value) -> Reply {
        let params = json!({"name": format!("p2p_taskqueue_{name}"), "arguments": arguments});
        let kept = self.connection.take().filter(Connection::is_idle);
        let Some(mut connection) = kept.or_else(|| Connection::open(&self.address).ok()) else {
            return Reply::NotSent;
        };
        match self.client.request_on(&mut connection, "tools/call", params) {
            Ok(answer) => {
                let closing = answer.response.header("Connection").unwrap_or_default();
                if !closing.eq_ignore_ascii_case("close") {
                    self.connection = Some(connection);
                }
                Reply::of(&answer)
            }
            Err(error) => Reply::Lost(error.to_string()),
        }
    }

    /// Calls `p2p_taskqueue_NAME`, which must be done.
    ///
    /// # Errors
    /// It was not.
    pub(crate) fn get(&mut self, name: &str, arguments: &Value) -> Outcome<Value> {
        let reply = self.call(name, arguments);
        reply.done().map_err(|error| format!("{name} {arguments}: {error}").into())
    }

    /// Every task that this caller may see, newest first.
    ///
    /// # Errors
    /// A page could not be had.
    pub(crate) fn list(&mut self) -> Outcome<Vec<Value>> {
        self.pages("list_tasks", json!({}))
    }

    /// Reads all pages of a listing; `arguments` are an object.
    ///
    /// # Errors
    /// A page could not be had.
    pub(crate) fn pages(&mut self, name: &str, mut arguments: Value) -> Outcome<Vec<Value>> {
        let mut tasks = Vec::new();
        arguments["limit"] = 500.into();
        loop {
            let mut page = self.get(name, &arguments)?;
            let Value::Array(found) = page["tasks"].take() else {
                return Err(format!("{name} lists no tasks: {page}").into());
            };
            tasks.extend(found);
            match page.get("next_cursor").filter(|cursor| !cursor.is_null()) {
                Some(cursor) => arguments["cursor"] = cursor.clone(),
                None => return Ok(tasks),
            }
        }
    }
}
