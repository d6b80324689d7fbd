//! The server to compare with: the echo tool on rmcp-actix-web and nothing else, as its users
//! would write it.

use std::sync::Arc;

use actix_web::{App, HttpServer};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
        ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::streamable_http_server::session::local::LocalSessionManager,
};
use rmcp_actix_web::transport::StreamableHttpService;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Result;

/// The one tool, the same as the node's with the feature `bench-tools`.
pub(crate) const TOOL: &str = "bench_echo";

/// Offers the one tool.
#[derive(Debug, Clone)]
pub(crate) struct Echo;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    message: String,
}

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("bare", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> std::result::Result<ListToolsResult, ErrorData> {
        let schema = json!({
            "type": "object",
            "properties": {"message": {"type": "string", "description": "What to answer."}},
            "required": ["message"],
            "additionalProperties": false,
        });
        let schema = schema.as_object().cloned().unwrap_or_default();
        let tool = Tool::new(TOOL, "Answers with its message.", schema);
        Ok(ListToolsResult::with_all_items(vec![tool]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> std::result::Result<CallToolResponse, ErrorData> {
        if request.name != TOOL {
            return Err(ErrorData::invalid_params(format!("unknown tool: {}", request.name), None));
        }
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let Arguments { message } = serde_json::from_value(arguments)
            .map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
        Ok(CallToolResult::success(vec![ContentBlock::text(message)]).into())
    }
}

/// Serves until the process is killed, and prints the address when ready.
///
/// # Errors
/// The system gives no port.
pub(crate) async fn serve() -> Result<()> {
    let service = StreamableHttpService::builder()
        .service_factory(Arc::new(|| Ok(Echo)))
        .session_manager(Arc::new(LocalSessionManager::default()))
        .json_response(true)
        .build();
    // As many workers as the node has: actix-web's default, one a core.
    let server =
        HttpServer::new(move || App::new().service(service.clone().scope_with_path("/mcp")))
            .tcp_nodelay(true)
            .bind("127.0.0.1:0")?;
    for address in server.addrs() {
        println!("{}", json!({"http": format!("http://{address}")}));
    }
    Ok(server.run().await?)
}
