//! What a browser needs before a page of another origin may talk to the node: CORS, for the origins
//! of `gateway.allowed_origins` alone. Pages from loopback come in without it, as they did before
//! anybody configured something, and read nothing that they are not of.

use actix_web::{
    HttpResponse,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN,
            VARY,
        },
    },
};

use super::hosts::Hosts;

/// What a page may send.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");

/// What a page may read of an answer beside its body.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate, Retry-After");

/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The configured origin that a request comes from, if it comes from one.
pub(super) fn origin(hosts: &Hosts, request: &ServiceRequest) -> Option<HeaderValue> {
    let mut given = request.headers().get_all(ORIGIN);
    let origin = given.next().filter(|_| given.next().is_none())?;
    hosts.is_configured(origin.to_str().ok()?).then(|| origin.clone())
}

/// The answer to a browser that asks whether a page may send a request. It asks without a token,
/// so this comes before any principal is known, and tells no more than that the origin may.
pub(super) fn preflight(request: &ServiceRequest) -> Option<HttpResponse> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = HttpResponse::NoContent();
    response.insert_header((ACCESS_CONTROL_ALLOW_METHODS, METHODS));
    response.insert_header((ACCESS_CONTROL_MAX_AGE, MAX_AGE));
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert_header((ACCESS_CONTROL_ALLOW_HEADERS, asked.clone()));
    }
    Some(response.finish())
}

/// Lets a page of `origin` read the answer.
pub(super) fn allow<B>(response: &mut ServiceResponse<B>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use actix_web::{http::StatusCode, test::TestRequest};

    use super::*;

    fn hosts() -> Hosts {
        Hosts::new(([127, 0, 0, 1], 1).into(), &[], &["https://app.example".into()])
    }

    #[test]
    fn only_a_configured_origin_may_read() {
        let from = |origins: &[&'static str]| {
            let mut request = TestRequest::get();
            for origin in origins {
                request = request.append_header((ORIGIN, *origin));
            }
            origin(&hosts(), &request.to_srv_request()).is_some()
        };
        assert!(from(&["https://app.example"]));
        for others in [
            &[][..],
            &["http://localhost:3000"],
            &["https://evil.example"],
            &["https://app.example", "https://app.example"],
        ] {
            assert!(!from(others), "{others:?}");
        }
    }

    #[test]
    fn a_browser_that_asks_first_is_told_what_a_page_may_send() {
        let asked = TestRequest::default()
            .method(Method::OPTIONS)
            .insert_header((ACCESS_CONTROL_REQUEST_METHOD, "POST"))
            .insert_header((ACCESS_CONTROL_REQUEST_HEADERS, "authorization, mcp-session-id"));
        let answer = preflight(&asked.to_srv_request());
        let answer = answer.as_ref().map(|answer| (answer.status(), answer.headers()));
        let Some((StatusCode::NO_CONTENT, headers)) = answer else { unreachable!("{answer:?}") };
        assert_eq!(
            headers.get(ACCESS_CONTROL_ALLOW_HEADERS).map(HeaderValue::as_bytes),
            Some(&b"authorization, mcp-session-id"[..])
        );
        assert_eq!(headers.get(ACCESS_CONTROL_ALLOW_METHODS), Some(&METHODS));
        let plain = TestRequest::default().method(Method::OPTIONS).to_srv_request();
        assert!(
            preflight(&plain).is_none()
                && preflight(&TestRequest::post().to_srv_request()).is_none()
        );
    }
}
