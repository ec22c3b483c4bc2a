//! Servers of files for tests: an S3 server with its own signatures, and a plain HTTP server. Both run until the test
//! process ends.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub const ACCESS_KEY: &str = "AKIAEXAMPLE";
pub const SECRET_KEY: &str = "example-secret-key";

/// Runs `accept` for every connection, on a runtime of its own.
fn listen<F>(accept: impl Fn(TokioIo<tokio::net::TcpStream>) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(accept(TokioIo::new(socket)));
            }
        })
    });
    told.recv().unwrap()
}

/// An S3 server over the folder `root`, each of whose folders is a bucket. Without keys it takes unsigned requests.
pub fn s3(root: &Path, keys: Option<(&str, &str)>) -> SocketAddr {
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    if let Some((access, secret)) = keys {
        builder.set_auth(s3s::auth::SimpleAuth::from_single(access, secret));
    }
    let service = builder.build();
    listen(move |socket| {
        let service = service.clone();
        async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(socket, service).await;
        }
    })
}

/// A server of the files below `root`; `ranges` says whether it answers requests for a part of one.
pub fn web(root: PathBuf, ranges: bool) -> SocketAddr {
    listen(move |socket| {
        let root = root.clone();
        async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = file(&root, &request, ranges);
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(socket, answer).await;
        }
    })
}

fn file(root: &Path, request: &Request<Incoming>, ranges: bool) -> Response<Full<Bytes>> {
    let answer = Response::builder();
    let path = root.join(request.uri().path().trim_start_matches('/'));
    let Ok(mut file) = std::fs::File::open(path) else {
        return answer.status(StatusCode::NOT_FOUND).body(Full::default()).unwrap();
    };
    let len = file.metadata().unwrap().len();
    let asked = request.headers().get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let (from, to, answer) = match asked.filter(|_| ranges).and_then(|range| range.split_once('-')) {
        Some((from, to)) => {
            let (from, to) =
                (from.parse::<u64>().unwrap(), to.parse::<u64>().unwrap().min(len.saturating_sub(1)));
            if from >= len {
                return answer.status(StatusCode::RANGE_NOT_SATISFIABLE).body(Full::default()).unwrap();
            }
            let content = format!("bytes {from}-{to}/{len}");
            (from, to + 1, answer.status(StatusCode::PARTIAL_CONTENT).header("content-range", content))
        }
        None => (0, len, answer),
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.take(to - from).read_to_end(&mut bytes).unwrap();
    answer.body(Full::new(bytes.into())).unwrap()
}
