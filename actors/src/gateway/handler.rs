//! What a client is served: the router's list and calls, in rmcp's lifecycles.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        ClientCapabilities, CompleteRequestParams, CompleteResult, CustomRequest, CustomResult,
        ErrorCode, Extensions, Implementation, InitializeRequestParams, InitializeResult,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        PaginatedRequestParams, ProgressNotification, ProgressNotificationParam, ProtocolVersion,
        ServerCapabilities, ServerConfig, ServerNotification, SubscriptionFilter,
        TASKS_EXTENSION_ID, Tool,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext},
};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    limits,
    principal::{Principal, Role},
    queue::TaskId,
    router::{Exposure, Runtime, Tool as Listed},
};

use super::{
    raw,
    tasks::{self, Tasks},
};
use crate::{
    link::{self, LinkHandle, PRINCIPAL_KEY},
    router::{Changes, Request, RouterHandle},
};

/// How long a 2026-07-28 client may keep the list before it asks again; changes are told at once
/// to who subscribes.
const LIST_TTL_MS: u64 = 5_000;

/// Whether this node has a method that rmcp reads, in a revision from 2026-07-28 on or before.
fn is_typed(method: &str, modern: bool) -> bool {
    match method {
        "initialize" | "ping" => !modern,
        "server/discover" | "subscriptions/listen" => modern,
        _ => false,
    }
}

/// Serves one session or one stateless request.
#[derive(Debug, Clone)]
pub(super) struct Handler {
    router: RouterHandle,
    /// Changes since the subscription was accepted: rmcp acknowledges it before it runs.
    changes: Arc<Mutex<Option<Changes>>>,
    /// Whom it serves, as far as that decides which list there is.
    role: Role,
    /// Calls as tasks, for those who may have some.
    tasks: Option<Tasks>,
}

impl Handler {
    pub(super) fn new(router: RouterHandle, role: Role, tasks: Option<Tasks>) -> Self {
        Self { router, changes: Arc::default(), role, tasks }
    }

    async fn call(
        &self,
        mut params: Map<String, Value>,
        context: &RequestContext<RoleServer>,
        modern: bool,
    ) -> Result<Map<String, Value>, RpcError> {
        // rmcp took the metadata out of the parameters; the call gets it back.
        if !context.meta.0.0.is_empty() {
            params.insert("_meta".into(), context.meta.0.0.clone().into());
        }
        let wants_progress = context.meta.get_progress_token().is_some();
        let (sender, progress) =
            wants_progress.then(|| mpsc::channel(limits::PROGRESS_WAITING)).unzip();
        let may_be_task = modern && declares_tasks(context);
        let call = self.make(params, principal(context), context, sender, may_be_task);
        let mut result = match progress {
            None => call.await,
            Some(progress) => Box::pin(with_progress(context, progress, call)).await,
        }?;
        let needs_input =
            result.get("resultType").and_then(Value::as_str) == Some("input_required");
        match (modern, needs_input) {
            (true, _) => {
                result.entry("resultType").or_insert_with(|| "complete".into());
            }
            (false, true) => {
                return Err(RpcError {
                    code: ErrorCode::INVALID_REQUEST.0,
                    message: "the tool needs input from its user, which protocol revision 2026-07-28 can ask for".into(),
                    data: None,
                });
            }
            (false, false) => {
                result.shift_remove("resultType");
            }
        }
        Ok(result)
    }

    /// Makes a call, as a task where it becomes one.
    async fn make(
        &self,
        params: Map<String, Value>,
        principal: Principal,
        context: &RequestContext<RoleServer>,
        progress: Option<mpsc::Sender<Map<String, Value>>>,
        may_be_task: bool,
    ) -> Result<Map<String, Value>, RpcError> {
        if let Some(tasks) = self.tasks.as_ref().filter(|_| may_be_task) {
            let call = tasks::Call {
                who: &principal,
                params: &params,
                cancel: &context.ct,
                progress: progress.as_ref(),
            };
            if let Some(answer) = Box::pin(tasks.call(&self.router, call)).await {
                return answer;
            }
        }
        let cancel = context.ct.clone();
        let request = Request { principal, params, cancel, progress, time: None };
        self.router.call(request).await.map_err(CallError::into_rpc)
    }

    /// Answers a request about a task.
    async fn task(
        &self,
        verb: raw::Verb,
        method: &str,
        params: Map<String, Value>,
        context: &RequestContext<RoleServer>,
        modern: bool,
    ) -> Result<Map<String, Value>, ErrorData> {
        let Some(tasks) = self.tasks.as_ref().filter(|_| modern) else {
            return Err(unknown(method));
        };
        let mut who = principal(context);
        // A member asks for whom its client is, and has looked at what that declares.
        if who.role == Role::Peer {
            if let Some(name) = context.meta.0.0.get(PRINCIPAL_KEY).and_then(Value::as_str) {
                who = who.on_behalf_of(name);
            }
        } else if !declares_tasks(context) {
            let required = ClientCapabilities::builder().enable_tasks().build();
            return Err(ErrorData::missing_required_client_capability(required));
        }
        if let Some(owner) = self.task_owner(&params, &who, tasks) {
            return ask_owner(owner?, method, params, &who, context.ct.clone())
                .await
                .map_err(error_data);
        }
        tasks.answer(verb, &params, &who).await.map_err(error_data)
    }

    /// The link to the node that owns the task which a client asks about, where that is another.
    fn task_owner(
        &self,
        params: &Map<String, Value>,
        who: &Principal,
        tasks: &Tasks,
    ) -> Option<Result<LinkHandle, ErrorData>> {
        let id: TaskId = params.get("taskId")?.as_str()?.parse().ok()?;
        if who.role == Role::Peer || tasks.owns(id) {
            return None;
        }
        let (alias, link) = self.router.owner_of(id)?;
        Some(link.ok_or_else(|| {
            let message = format!(
                "{alias} has this task and is not connected at the moment; ask again when it is back"
            );
            ErrorData::internal_error(message, Some(serde_json::json!({"retryable": true})))
        }))
    }

    fn list(
        &self,
        params: &Map<String, Value>,
        who: &Principal,
        modern: bool,
    ) -> Result<Map<String, Value>, RpcError> {
        let cursor = match params.get("cursor") {
            None | Some(Value::Null) => None,
            Some(Value::String(cursor)) => Some(cursor.as_str()),
            Some(_) => return Err(RpcError::invalid_params("params.cursor: a string is expected")),
        };
        let view = self.router.view();
        let settings = view.settings();
        let catalogue = view.catalogue();
        // How tools are exposed is for models; other nodes have their own clients to show them to.
        let exposure = if who.role == Role::Peer { Exposure::Flat } else { settings.exposure };
        let page = catalogue.page(who, exposure, cursor, settings.page_size.max(1))?;
        let shown = page.tools.iter().map(|tool| Value::Object(definition(tool, who.role)));
        let tools = shown.collect();
        let mut result = Map::from_iter([("tools".to_owned(), Value::Array(tools))]);
        if let Some(next) = page.next {
            result.insert("nextCursor".into(), next.into());
        }
        if modern {
            result.insert("resultType".into(), "complete".into());
            result.insert("ttlMs".into(), LIST_TTL_MS.into());
            result.insert("cacheScope".into(), "private".into()); // What is listed depends on the role.
        }
        Ok(result)
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let mut capabilities =
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        if self.tasks.is_some() {
            let tasks = (TASKS_EXTENSION_ID.to_owned(), Map::new());
            capabilities.extensions.get_or_insert_default().extend([tasks]);
        }
        capabilities.experimental = Some(self.router.instance().capability());
        let mut name = Implementation::new("toolmesh", env!("CARGO_PKG_VERSION"));
        name.title = Some("toolmesh".into());
        let mut info = ServerConfig::new(capabilities)
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
            .with_server_info(name);
        info.instructions = Some(
            "Tools of several MCP servers behind one endpoint; names start with the server's. \
             Use tools_search to find a tool and tools_dispatch to call any by name."
                .into(),
        );
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::KNOWN_VERSIONS)
    }

    /// Older revisions have no such tasks.
    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        let mut result = self.negotiate_initialize(&request)?;
        result.capabilities.extensions = None;
        Ok(result)
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let CustomRequest { method, params, .. } = request;
        let modern = context
            .protocol_version()
            .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
        let Some(request) = raw::unmark(&method, params) else {
            // rmcp takes what does not fit its types for a method that it does not know.
            return Err(if is_typed(&method, modern) {
                ErrorData::invalid_params(format!("params of {method} do not fit"), None)
            } else {
                unknown(&method)
            });
        };
        let result = match request {
            // Boxed: rmcp moves the whole of a handler several times before it runs.
            raw::Request::Call(params) => {
                Box::pin(self.call(params, &context, modern)).await.map_err(error_data)
            }
            raw::Request::List(params) => {
                self.list(&params, &principal(&context), modern).map_err(error_data)
            }
            raw::Request::Task(verb, params) => {
                Box::pin(self.task(verb, &method, params, &context, modern)).await
            }
        };
        result.map(|result| CustomResult(result.into()))
    }

    // What is not declared is not there, rather than empty.

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(unknown("prompts/list"))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Err(unknown("resources/list"))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Err(unknown("resources/templates/list"))
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(unknown("completion/complete"))
    }

    /// rmcp checks `Mcp-Param-*` headers against the schema; tools that ask for none need no look.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let catalogue = self.router.view().catalogue();
        let tool = catalogue.listed(self.role, name).filter(|tool| tool.has_header_parameters)?;
        serde_json::from_value(tool.definition.clone().into()).ok()
    }

    /// Tells a session of an older revision when the list really changed.
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let mut changes = self.router.view().changes(self.role);
        let peer = context.peer;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    more = changes.changed() => {
                        if !more || peer.notify_tool_list_changed().await.is_err() {
                            return;
                        }
                    }
                    () = tokio::time::sleep(limits::SESSION_CHECK) => {
                        if peer.is_transport_closed() {
                            return;
                        }
                    }
                }
            }
        });
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        let changes = self.router.view().changes(self.role);
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = Some(changes);
        let ours = SubscriptionFilter::builder().tools_list_changed().build();
        Some(requested.intersection(&ours))
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let accepted = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut changes = accepted.unwrap_or_else(|| self.router.view().changes(self.role));
        if subscription.accepted().tools_list_changed != Some(true) {
            subscription.cancelled().await;
            return Ok(());
        }
        loop {
            tokio::select! {
                () = subscription.cancelled() => return Ok(()),
                more = changes.changed() => {
                    if !more || subscription.sink().notify_tool_list_changed().await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// A tool as it is listed. Other nodes know what a node's own tools return: that is most of such a
/// list, and who asks for many and reads none has each of them held.
fn definition(tool: &Listed, role: Role) -> Map<String, Value> {
    let leave_out = role == Role::Peer && tool.is_at(&Runtime::Local);
    let kept = tool.definition.iter().filter(|(key, _)| !leave_out || *key != "outputSchema");
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Who asks: the guard put it into the HTTP request that rmcp hands on, the mesh into the request
/// itself. Without one, nobody.
fn principal(context: &RequestContext<RoleServer>) -> Principal {
    let http = || {
        let parts = context.extensions.get::<Parts>()?;
        parts.extensions.get::<Extensions>()?.get::<Principal>()
    };
    let principal = context.extensions.get::<Principal>().or_else(http);
    principal.cloned().unwrap_or_else(|| Principal::new("nobody", Role::Peer))
}

/// Whether the client of a request can be given a task.
fn declares_tasks(context: &RequestContext<RoleServer>) -> bool {
    context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks())
}

/// Asks the owner of a task what a client of this node asked about it.
async fn ask_owner(
    link: LinkHandle,
    method: &str,
    mut params: Map<String, Value>,
    who: &Principal,
    cancel: CancellationToken,
) -> Result<Map<String, Value>, RpcError> {
    params.shift_remove("_meta");
    let behalf = Some(who.name().clone());
    let call = link::Call { cancel, behalf, ..link::Call::new(method, params, limits::TOOL_TIME) };
    let no_answer = |error: CallError| match error {
        CallError::Answered(error) => error,
        error if error.why() == Some(Why::Cancelled) => error.into_rpc(),
        // Each of them may be asked twice.
        _ => RpcError {
            code: ErrorCode::INTERNAL_ERROR.0,
            message: "the node that has this task gave no answer; ask again when it is back".into(),
            data: Some(serde_json::json!({"retryable": true})),
        },
    };
    match link.forward(call).await.map_err(no_answer)? {
        Value::Object(mut result) => {
            result.shift_remove("_meta");
            Ok(result)
        }
        _ => Err(RpcError::invalid_params("the owner of the task gave no result object")),
    }
}

/// Passes progress on, in order and before the result.
async fn with_progress<T>(
    context: &RequestContext<RoleServer>,
    mut progress: mpsc::Receiver<Map<String, Value>>,
    call: impl Future<Output = T>,
) -> T {
    let mut call = std::pin::pin!(call);
    let result = loop {
        tokio::select! {
            biased;
            Some(news) = progress.recv() => notify(context, news).await,
            result = &mut call => break result,
        }
    };
    while let Ok(news) = progress.try_recv() {
        notify(context, news).await;
    }
    result
}

async fn notify(context: &RequestContext<RoleServer>, mut news: Map<String, Value>) {
    let Some(token) = context.meta.get_progress_token() else { return };
    if let Ok(token) = serde_json::to_value(token) {
        news.insert("progressToken".into(), token);
    }
    let Ok(params) = serde_json::from_value::<ProgressNotificationParam>(news.into()) else {
        tracing::debug!("an upstream's progress has no number");
        return;
    };
    let news = ServerNotification::ProgressNotification(ProgressNotification::new(params));
    if context.peer.send_notification(news).await.is_err() {
        tracing::debug!("the client is gone before its progress");
    }
}

fn unknown(method: &str) -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("unknown method: {method}"), None)
}

fn error_data(error: RpcError) -> ErrorData {
    ErrorData::new(ErrorCode(error.code), error.message, error.data)
}
