//! The client side of the API: one short connection per call.
//!
//! Owns: turning answers, progress lines and failures back into values.
//! Must not know: what the calls mean.
//! Invariant: a call ends with the daemon's own error, or one that says that the daemon went away.
//! Trust: the daemon is ours; its answers are still parsed, never assumed.
//! Threads: the caller's runtime.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::node::report::{Event, Progress};
use crate::node::{Error, Kind};

/// Longest line of a streamed job.
const LINE_MAX: usize = 16 << 20;

/// Calls the daemon behind one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// Whether a daemon accepts connections now.
    pub async fn is_up(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// A plain question.
    pub async fn get<A: DeserializeOwned>(&self, route: &str) -> Result<A, Error> {
        let response = self.send(Method::GET, route, Bytes::new()).await?;
        parse(&self.bytes(response).await?)
    }

    /// A question whose answer is text.
    pub async fn get_text(&self, route: &str) -> Result<String, Error> {
        let response = self.send(Method::GET, route, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&self.bytes(response).await?).into_owned())
    }

    /// A question with a body.
    pub async fn post<A: DeserializeOwned>(&self, route: &str, body: &impl Serialize) -> Result<A, Error> {
        parse(&self.post_bytes(route, body).await?)
    }

    /// A question whose answer is raw bytes.
    pub async fn post_bytes(&self, route: &str, body: &impl Serialize) -> Result<Bytes, Error> {
        let response = self.send(Method::POST, route, to_json(body)?).await?;
        self.bytes(response).await
    }

    /// A long job: calls `progress` as it advances. Dropping the future cancels the job.
    pub async fn job<A: DeserializeOwned>(
        &self,
        route: &str,
        body: &impl Serialize,
        progress: impl FnMut(Progress),
    ) -> Result<A, Error> {
        self.job_with_rows(route, body, progress, |_: Vec<()>| {}).await
    }

    /// The same of a job that also answers with rows: calls `rows` as they come.
    pub async fn job_with_rows<A: DeserializeOwned, R: DeserializeOwned>(
        &self,
        route: &str,
        body: &impl Serialize,
        mut progress: impl FnMut(Progress),
        mut rows: impl FnMut(Vec<R>),
    ) -> Result<A, Error> {
        let mut response = self.send(Method::POST, route, to_json(body)?).await?;
        if !response.status().is_success() {
            return Err(parse::<Error>(&self.bytes(response).await?)?);
        }
        let mut pending = Vec::new();
        while let Some(frame) = response.frame().await {
            let frame = frame.map_err(|error| self.gone(error))?;
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                match parse::<Event<A, R>>(&line)? {
                    Event::Progress(now) => progress(now),
                    Event::Rows(more) => rows(more),
                    Event::Done(answer) => return Ok(answer),
                    Event::Error(error) => return Err(error),
                }
            }
            if pending.len() > LINE_MAX {
                return Err(Error::new(Kind::Failed, "the daemon sent a line without end"));
            }
        }
        Err(self.gone("it closed the connection before it was done"))
    }

    async fn send(&self, method: Method, route: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            Error::new(Kind::Unreachable, format!("no daemon answers at {}: {error}", self.socket.display()))
                .hint("start it with `bcai daemon`")
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.gone(e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(route)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::new(Kind::Failed, format!("cannot form a request: {error}")))?;
        sender.send_request(request).await.map_err(|error| self.gone(error))
    }

    async fn bytes(&self, response: Response<Incoming>) -> Result<Bytes, Error> {
        let ok = response.status().is_success();
        let body = response.into_body().collect().await.map_err(|error| self.gone(error))?.to_bytes();
        if ok { Ok(body) } else { Err(parse::<Error>(&body)?) }
    }

    fn gone(&self, cause: impl std::fmt::Display) -> Error {
        Error::new(Kind::Unreachable, format!("the daemon at {} went away: {cause}", self.socket.display()))
            .hint("its last words are in daemon.log beside the socket; run the command again to restart it")
    }
}

fn to_json(body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Error::usage(format!("cannot send this request: {error}")))
}

fn parse<A: DeserializeOwned>(bytes: &[u8]) -> Result<A, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Kind::Failed, format!("the daemon's answer is not understood: {error}"))
            .hint("command and daemon may be of different versions: run `bcai stop` and try again")
    })
}
