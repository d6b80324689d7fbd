//! What rmcp refuses in plain text, said as JSON-RPC: clients show that, and know which request it
//! is about.

use actix_web::{
    HttpResponse,
    body::{self, BoxBody},
    dev::ServiceResponse,
    http::{StatusCode, header::CONTENT_TYPE},
};
use rmcp::model::RequestId;
use serde_json::json;
use toolmesh_core::limits;

/// What is known of the request that is answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Its id, if it has one.
    pub(super) id: Option<RequestId>,
    /// It wants a session.
    pub(super) initializes: bool,
    /// It names a session.
    pub(super) in_session: bool,
}

/// The response, or its refusal as JSON-RPC if that was in plain text.
pub(super) async fn spoken(
    response: ServiceResponse<BoxBody>,
    asked: &Asked,
) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !status.is_client_error() || kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return response;
    }
    let (request, response) = response.into_parts();
    let read = body::to_bytes_limited(response.into_body(), limits::REFUSAL_BYTES).await;
    let text = read.ok().and_then(Result::ok).unwrap_or_default();
    let (code, message) = said(status, &String::from_utf8_lossy(&text), asked);
    let error = json!({"code": code, "message": message});
    let status = if code == -32700 { StatusCode::BAD_REQUEST } else { status };
    let answer =
        HttpResponse::build(status).json(json!({"jsonrpc": "2.0", "id": asked.id, "error": error}));
    ServiceResponse::new(request, answer)
}

/// The JSON-RPC code and the text of a refusal in plain text.
fn said(status: StatusCode, text: &str, asked: &Asked) -> (i32, String) {
    if let Some((_, why)) = text.split_once("fail to deserialize request body") {
        // What is JSON to a reader of its shape, and not to one of its values.
        return (-32700, format!("the body is not JSON that can be read:{why}"));
    }
    if status == StatusCode::BAD_REQUEST && text.contains("Session ID is required") {
        return if asked.initializes {
            let needs = "protocolVersion, capabilities and clientInfo with name and version";
            (-32602, format!("params of initialize do not fit: it needs {needs}"))
        } else if asked.in_session {
            (-32600, text.to_owned())
        } else {
            let first = "send initialize first, then its Mcp-Session-Id with each request";
            (-32600, format!("nothing was done, there is no session: {first}"))
        };
    }
    (-32600, if text.is_empty() { status.to_string() } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    async fn answer(status: StatusCode, text: &'static str, asked: &Asked) -> (u16, String) {
        let response = HttpResponse::build(status).body(text);
        let request = TestRequest::post().to_http_request();
        let response = spoken(ServiceResponse::new(request, response), asked).await;
        let status = response.status().as_u16();
        let body = body::to_bytes(response.into_body()).await.unwrap_or_default();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[actix::test]
    async fn a_refusal_in_plain_text_becomes_one_of_its_request() {
        let of =
            |initializes| Asked { id: Some(RequestId::Number(7)), initializes, in_session: false };
        let required = "Bad Request: Session ID is required";
        let broken = "fail to deserialize request body lone surrogate";
        for (status, text, asked, wanted, code) in [
            (StatusCode::BAD_REQUEST, required, of(false), 400, -32600),
            (StatusCode::BAD_REQUEST, required, of(true), 400, -32602),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, broken, of(false), 400, -32700),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not JSON", of(false), 415, -32600),
            (StatusCode::NOT_ACCEPTABLE, "", of(false), 406, -32600),
        ] {
            let (status, body) = answer(status, text, &asked).await;
            assert_eq!(status, wanted, "{body}");
            let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(code)), "{body}");
        }
        let fine = answer(StatusCode::OK, "data: {}", &of(false)).await;
        assert_eq!(fine, (200, "data: {}".to_owned()));
    }
}
