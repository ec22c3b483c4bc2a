//! The web page: what a node shows of itself to a browser.
//!
//! Owns: the port, the files of the page, and the headers that keep a browser from doing anything else with them.
//! Must not know: what is shown; the page asks the routes of `reading`, as scripts do.
//! Invariant: nothing can be changed from here, and no more than [`CONNECTIONS`] are served at once, each for [`LIFETIME`] at
//! most. A request under a name that is not this machine's is refused unread.
//! Trust: whoever can connect may look, on purpose; what they send is bounded in size and time.
//! Threads: one task, and one for each connection. All end with the node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::reading;
use crate::node::Node;
use crate::node::report::PageStatus;

/// Connections at once. Others wait, as many as the kernel lets.
const CONNECTIONS: usize = 64;
/// How long a connection may last; whoever watches connects again.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a request may take to arrive, and a connection be idle.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of a request.
const REQUEST_MAX: usize = 16 << 10;
/// Pause before a port that is taken is tried again.
const AGAIN: Duration = Duration::from_secs(5);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and content of each file of the page.
const FILES: [(&str, &str, &str); 8] = [
    ("/", HTML, include_str!("web/page.html")),
    ("/page.css", CSS, include_str!("web/page.css")),
    ("/page.js", SCRIPT, include_str!("web/page.js")),
    ("/dom.js", SCRIPT, include_str!("web/dom.js")),
    ("/text.js", SCRIPT, include_str!("web/text.js")),
    ("/sections.js", SCRIPT, include_str!("web/sections.js")),
    ("/swarm.js", SCRIPT, include_str!("web/swarm.js")),
    ("/icon.svg", "image/svg+xml", include_str!("web/icon.svg")),
];

/// On every answer. The page is made of its own files and of nothing else, and is part of no other.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Shows the node at `address` until `stop` is cancelled. When this returns, the first attempt has been made; a port that is
/// taken is tried again, and the node says so meanwhile.
pub async fn serve(address: SocketAddr, node: Arc<Node>, stop: CancellationToken) {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "everybody who reaches this address can see the web page");
    }
    let first = open(address, &node).await;
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        let mut opened = first;
        let listener = loop {
            match opened {
                Some(listener) => break listener,
                None => tokio::time::sleep(AGAIN).await,
            }
            opened = open(address, &node).await;
        };
        accept(listener, app(node)).await;
    }));
}

async fn open(address: SocketAddr, node: &Node) -> Option<TcpListener> {
    let opened = TcpListener::bind(address).await.and_then(|listener| {
        let at = listener.local_addr()?;
        Ok((listener, at))
    });
    match opened {
        Ok((listener, at)) => {
            tracing::info!(address = %at, "the web page is open");
            node.set_page(PageStatus { address: at.to_string(), error: None });
            Some(listener)
        }
        Err(error) => {
            node.set_page(PageStatus { address: address.to_string(), error: Some(error.to_string()) });
            None
        }
    }
}

fn app(node: Arc<Node>) -> Router {
    let mut app = reading::routes().with_state(node);
    for (path, kind, text) in FILES {
        app = app.route(path, get(async move || ([(header::CONTENT_TYPE, kind)], text)));
    }
    app.layer(middleware::from_fn(guard))
}

/// Takes connections for as long as it is polled.
async fn accept(listener: TcpListener, app: Router) {
    let mut served = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = served.join_next() => continue,
            accepted = listener.accept(), if served.len() < CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                served.spawn(tokio::time::timeout(LIFETIME, answer(stream, app.clone())));
            }
            Err(error) => {
                // Out of file descriptors, mostly, which passes.
                tracing::debug!(%error, "cannot take a connection to the web page");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, app: Router) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(REQUEST_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the web page failed");
    }
}

/// A page of somebody else's can have its own name mean this machine, and then ask here in the name of its reader. It
/// cannot have an address mean another one, nor `localhost`.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if is_here(request.headers()) {
        next.run(request).await
    } else {
        let words = "this node is asked by an IP address or as localhost, and under no other name\n";
        (StatusCode::MISDIRECTED_REQUEST, words).into_response()
    };
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

/// Whatever the port: the way here may lead through a forwarded one.
fn is_here(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.as_bytes().try_into().ok());
    let Some(host) = host.filter(|_: &Authority| hosts.next().is_none()) else { return false };
    let name = host.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        is_here(&headers)
    }

    #[test]
    fn only_addresses_and_localhost_are_names_of_this_machine() {
        for own in ["127.0.0.1:7117", "127.0.0.1", "[::1]:7117", "localhost:9", "LocalHost", "192.0.2.7:80"] {
            assert!(named(&[own]), "{own}");
        }
        for other in [
            "evil.example:7117",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.example@127.0.0.1x",
            "127.0.0.1, evil.example",
            "2130706433",
            "::1",
            "[::1",
            "",
        ] {
            assert!(!named(&[other]), "{other}");
        }
        assert!(!named(&[]) && !named(&["localhost", "localhost"]));
    }
}
