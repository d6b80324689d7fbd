//! An MCP client of both lifecycles that shows what is on the wire.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Map, Value, json};

use super::{Connection, Events, Outcome, Request, Response};

/// The revision without sessions.
pub(crate) const STATELESS: &str = "2026-07-28";
/// The revisions with sessions, oldest first.
pub(crate) const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// What came back for one request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The HTTP response; its body is read.
    pub(crate) response: Response,
    /// Notifications that came before the answer, in order.
    pub(crate) notifications: Vec<Value>,
    /// The JSON-RPC answer: `result` or `error`.
    pub(crate) message: Value,
}

impl Answer {
    fn of(response: Response) -> Outcome<Self> {
        let mut notifications = response.messages()?;
        let message = notifications.pop().unwrap_or_default();
        Ok(Self { response, notifications, message })
    }

    /// The result.
    ///
    /// # Errors
    /// It is an error.
    pub(crate) fn result(&self) -> Outcome<Value> {
        match self.message.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{}: {}", self.response.status, self.response.text()).into()),
        }
    }

    /// The error's code; 0: it is a result.
    pub(crate) fn code(&self) -> i64 {
        self.message["error"]["code"].as_i64().unwrap_or_default()
    }

    /// The error's text; empty: it is a result.
    pub(crate) fn text(&self) -> &str {
        self.message["error"]["message"].as_str().unwrap_or_default()
    }
}

/// A client of one revision and one principal. Each request has a connection of its own and clones
/// share what is next, so that they may be used on many threads.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: String,
    /// The revision: the one that was asked for, then the one that the node agreed to.
    pub(crate) revision: String,
    token: Option<String>,
    /// The session's id, before 2026-07-28.
    pub(crate) session: Option<String>,
    /// What the client declares with each request, on 2026-07-28.
    pub(crate) capabilities: Value,
    next_id: Arc<AtomicU64>,
}

impl Client {
    /// Opens a session if `revision` has them; else nothing is sent yet.
    pub(crate) fn connect(address: &str, revision: &str, token: Option<&str>) -> Outcome<Self> {
        let mut client = Self {
            address: address.to_owned(),
            revision: revision.to_owned(),
            token: token.map(str::to_owned),
            session: None,
            capabilities: json!({}),
            next_id: Arc::new(AtomicU64::new(1)),
        };
        if revision != STATELESS {
            client.open()?.result()?;
        }
        Ok(client)
    }

    /// Sends `initialize` and `notifications/initialized`; returns the answer to the first.
    pub(crate) fn open(&mut self) -> Outcome<Answer> {
        let params = json!({
            "protocolVersion": self.revision, "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        let answer = self.request("initialize", params)?;
        self.session = answer.response.header("Mcp-Session-Id").map(str::to_owned);
        if self.session.is_some() {
            if let Some(agreed) = answer.message["result"]["protocolVersion"].as_str() {
                agreed.clone_into(&mut self.revision);
            }
            let response = self.notify("notifications/initialized", json!({}))?;
            if response.status != 202 {
                return Err(format!("initialized: {} {}", response.status, response.text()).into());
            }
        }
        Ok(answer)
    }

    /// The HTTP request of a JSON-RPC message, to be changed before it is sent.
    pub(crate) fn http(&self, message: &Value) -> Request {
        let request = match &self.session {
            None if self.revision == STATELESS => stateless_request(message),
            _ => Request::post(message.to_string()),
        };
        self.authorized(request)
    }

    fn authorized(&self, mut request: Request) -> Request {
        if let Some(session) = &self.session {
            request = request.header("Mcp-Session-Id", session);
            // Headers name the revision since 2025-06-18.
            if self.revision.as_str() >= "2025-06-18" {
                request = request.header("MCP-Protocol-Version", &self.revision);
            }
        }
        match &self.token {
            Some(token) => request.bearer(token),
            None => request,
        }
    }

    /// The next request's JSON-RPC message, with the `_meta` that its revision needs.
    pub(crate) fn message(&self, method: &str, params: Value) -> Value {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": self.params(params)})
    }

    fn params(&self, params: Value) -> Value {
        let mut params = match params {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        if self.revision == STATELESS {
            let meta = params.entry("_meta").or_insert_with(|| json!({}));
            meta["io.modelcontextprotocol/protocolVersion"] = STATELESS.into();
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
            meta["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        }
        params.into()
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn request(&mut self, method: &str, params: Value) -> Outcome<Answer> {
        let message = self.message(method, params);
        Answer::of(self.http(&message).send(&self.address)?)
    }

    /// Sends a request on a connection that is kept.
    pub(crate) fn request_on(
        &mut self,
        connection: &mut Connection,
        method: &str,
        params: Value,
    ) -> Outcome<Answer> {
        let message = self.message(method, params);
        Answer::of(connection.send(&self.http(&message))?)
    }

    /// Sends a request and returns its answer's stream, to be read while it runs.
    pub(crate) fn stream(&mut self, method: &str, params: Value) -> Outcome<(Response, Events)> {
        let message = self.message(method, params);
        self.http(&message).listen(&self.address)
    }

    /// Sends a notification.
    pub(crate) fn notify(&mut self, method: &str, params: Value) -> Outcome<Response> {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": self.params(params)});
        self.http(&message).send(&self.address)
    }

    /// Calls a tool; `Value::Null` stands for no arguments.
    ///
    /// # Errors
    /// The answer is a JSON-RPC error, or none came.
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Outcome<Value> {
        self.try_call(tool, arguments)?.result()
    }

    /// Calls a tool, to look at what comes back.
    pub(crate) fn try_call(&mut self, tool: &str, arguments: Value) -> Outcome<Answer> {
        let arguments = if arguments.is_null() { json!({}) } else { arguments };
        self.request("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// The same client, able to be given tasks and to answer what they ask.
    pub(crate) fn with_tasks(mut self) -> Self {
        let tasks = json!({"io.modelcontextprotocol/tasks": {}});
        self.capabilities = json!({"elicitation": {}, "extensions": tasks});
        self
    }

    /// The names of all tools, on however many pages they are.
    pub(crate) fn tools(&mut self) -> Outcome<Vec<String>> {
        let mut names = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
            let page = self.request("tools/list", params)?.result()?;
            let tools = page["tools"].as_array().into_iter().flatten();
            names.extend(tools.filter_map(|tool| tool["name"].as_str()).map(str::to_owned));
            match page.get("nextCursor") {
                Some(next) => cursor = next.clone(),
                None => return Ok(names),
            }
        }
    }

    /// Whether a tool is listed.
    pub(crate) fn has(&mut self, tool: &str) -> bool {
        self.tools().is_ok_and(|tools| tools.iter().any(|name| name == tool))
    }

    /// Opens what tells of changes: the session's GET stream, or a subscription, whose
    /// acknowledgement is read already.
    pub(crate) fn changes(&mut self) -> Outcome<Events> {
        let (head, mut events) = if self.revision == STATELESS {
            let filter = json!({"notifications": {"toolsListChanged": true}});
            self.stream("subscriptions/listen", filter)?
        } else {
            let request = Request::new("GET", "/mcp").header("Accept", "text/event-stream");
            self.authorized(request).listen(&self.address)?
        };
        if head.status != 200 {
            return Err(format!("no stream: {}", head.status).into());
        }
        if self.revision == STATELESS {
            let first = events.next().ok_or("no acknowledgement")??;
            if first["method"] != "notifications/subscriptions/acknowledged" {
                return Err(format!("no acknowledgement: {first}").into());
            }
        }
        Ok(events)
    }

    /// Ends the session.
    pub(crate) fn close(&self) -> Outcome<Response> {
        self.authorized(Request::new("DELETE", "/mcp")).send(&self.address)
    }
}

/// The HTTP request of a 2026-07-28 message, with the headers that repeat its body.
pub(crate) fn stateless_request(message: &Value) -> Request {
    let request = Request::post(message.to_string())
        .header("MCP-Protocol-Version", STATELESS)
        .header("Mcp-Method", message["method"].as_str().unwrap_or_default());
    let named = match message["method"].as_str() {
        Some("tools/call") => &message["params"]["name"],
        Some("tasks/get" | "tasks/update" | "tasks/cancel") => &message["params"]["taskId"],
        _ => &Value::Null,
    };
    match named.as_str() {
        Some(name) => request.header("Mcp-Name", name),
        None => request,
    }
}
