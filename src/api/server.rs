//! The server side of the API: routes to the node's operations. Those that only look are in `reading`.
//!
//! Owns: HTTP: status codes, streamed jobs, who may connect.
//! Must not know: how an operation works.
//! Invariant: a job whose client goes away is cancelled; a connection from another user is closed unread.
//! Trust: see `api`.
//! Threads: one task per connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{reading, route};
use crate::node::report::*;
use crate::node::{Error, Job, JobKind, Kind, Node};

/// How often a running job reports.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Largest request: a list of paths fits, a flood does not.
const BODY_MAX: usize = 4 << 20;
/// Batches of rows that wait to be sent.
const ROWS_AHEAD: usize = 4;

/// Answers requests on `listener` until `stop` is cancelled and every open request has been answered.
pub async fn serve(listener: UnixListener, node: Arc<Node>, stop: CancellationToken) -> std::io::Result<()> {
    let app = Router::new()
        .route(route::STOP, post(shut_down))
        .route(route::RESTART, post(restart))
        .route(route::CREATE, post(create))
        .route(route::JOIN, post(join))
        .route(route::SNAPSHOT, post(snapshot))
        .route(route::PUBLISH, post(publish))
        .route(route::TAG, post(tag))
        .route(route::YANK, post(yank))
        .route(route::MOUNT, post(mount))
        .route(route::MOUNT_WAIT, post(mount_wait))
        .route(route::REMOUNT, post(remount))
        .route(route::UNMOUNT, post(unmount))
        .route(route::LOG, post(log))
        .route(route::LOG_PROOF, post(prove))
        .route(route::CHECKPOINT, post(checkpoint))
        .route(route::COSIGN, post(cosign))
        .route(route::LS, post(ls))
        .route(route::RESOLVE, post(resolve))
        .route(route::DIFF, post(diff))
        .route(route::READ, post(read))
        .route(route::EXPORT, post(export))
        .route(route::BUNDLE_EXPORT, post(export_bundle))
        .route(route::BUNDLE_IMPORT, post(import_bundle))
        .route(route::SETTINGS, get(settings))
        .route(route::VERIFY, post(verify))
        .route(route::GC, post(gc))
        .route(route::TRACE, post(trace))
        .route(route::PREFETCH, post(prefetch))
        .route(route::PIN, post(pin))
        .route(route::UNPIN, post(unpin))
        .route(route::HINTS, post(hints))
        .route(route::KEYS, get(keys))
        .route(route::KEYS_ROTATE, post(rotate_key))
        .route(route::KEYS_ROTATE_DATASET, post(rotate_dataset))
        .route(route::KEYS_RIGHTS, post(change_rights))
        .route(route::VALIDATORS, post(change_operators))
        .route(route::PEER_ADD, post(add_peer))
        .route(route::PEER_BLOCK, post(block_peer))
        .route(route::PEER_ALLOW, post(allow_peer))
        .route(route::LIMIT, post(limit))
        .route(route::ALERTS_ACK, post(acknowledge))
        .merge(reading::routes())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(node);
    axum::serve(OwnersOnly(listener), app).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Accepts connections of root and of the daemon's own user.
struct OwnersOnly(UnixListener);

impl axum::serve::Listener for OwnersOnly {
    type Io = tokio::net::UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            let own = rustix::process::geteuid().as_raw();
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == own || peer.uid() == 0 => return (stream, address),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused a connection of another user"),
                Err(error) => tracing::warn!(%error, "refused a connection without credentials"),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self.kind {
            Kind::Usage => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Busy => StatusCode::CONFLICT,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::Unreachable => StatusCode::GATEWAY_TIMEOUT,
            Kind::Failed | Kind::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

pub(super) type Answer<T> = Result<Json<T>, Error>;
pub(super) type Shared = State<Arc<Node>>;

async fn shut_down(State(node): Shared) -> Json<()> {
    node.request_stop();
    Json(())
}

async fn restart(State(node): Shared) -> Answer<()> {
    node.request_restart().map(Json)
}

async fn create(State(node): Shared, Json(request): Json<CreateRequest>) -> Answer<NetworkOf> {
    node.create_network(&request).await.map(Json)
}

async fn join(State(node): Shared, Json(request): Json<JoinRequest>) -> Answer<NetworkOf> {
    node.join_network(&request).await.map(Json)
}

async fn snapshot(State(node): Shared, Json(request): Json<SnapshotRequest>) -> Response {
    let job = node.begin(JobKind::Snapshot, &request.dir.display().to_string());
    run(job, async move |job| node.snapshot(&request, &job).await)
}

async fn publish(State(node): Shared, Json(request): Json<PublishRequest>) -> Response {
    let job = node.begin(JobKind::Publish, &request.target);
    run(job, async move |job| node.publish(&request, &job).await)
}

async fn tag(State(node): Shared, Json(request): Json<TagRequest>) -> Answer<Decided> {
    node.tag(&request).await.map(Json)
}

async fn yank(State(node): Shared, Json(request): Json<YankRequest>) -> Answer<Decided> {
    node.yank(&request).await.map(Json)
}

async fn mount(State(node): Shared, Json(request): Json<MountRequest>) -> Answer<Mounted> {
    node.mount(&request).await.map(Json)
}

async fn remount(State(node): Shared, Json(request): Json<RemountRequest>) -> Answer<Remounted> {
    node.remount(&request).await.map(Json)
}

/// Answers once nothing is mounted by us at the directory.
async fn mount_wait(State(node): Shared, Json(request): Json<UnmountRequest>) -> Answer<()> {
    node.wait_unmounted(&request.dir).await.map(Json)
}

async fn unmount(State(node): Shared, Json(request): Json<UnmountRequest>) -> Answer<()> {
    node.unmount(&request).await.map(Json)
}

async fn log(State(node): Shared, Json(request): Json<Option<String>>) -> Answer<Vec<LogRow>> {
    node.log(request.as_deref()).await.map(Json)
}

async fn prove(State(node): Shared, Json(request): Json<ProofRequest>) -> Answer<Proof> {
    node.prove(&request).await.map(Json)
}

async fn checkpoint(State(node): Shared, Json(request): Json<CheckpointRequest>) -> Answer<SignedCheckpoint> {
    node.checkpoint(&request).await.map(Json)
}

async fn cosign(State(node): Shared, Json(request): Json<CosignRequest>) -> Answer<SignedCheckpoint> {
    node.cosign(&request).await.map(Json)
}

async fn ls(State(node): Shared, Json(request): Json<PathRequest>) -> Answer<Vec<Listed>> {
    node.ls(&request).await.map(Json)
}

async fn resolve(State(node): Shared, Json(request): Json<String>) -> Answer<Resolved> {
    node.resolve(&request).await.map(Json)
}

async fn diff(State(node): Shared, Json(request): Json<DiffRequest>) -> Response {
    let job = node.begin(JobKind::Diff, &format!("{} {}", request.before, request.after));
    run_with_rows(job, async move |job, rows| node.diff(&request, &job, rows).await)
}

async fn read(State(node): Shared, Json(request): Json<ReadRequest>) -> Result<Bytes, Error> {
    node.read(&request).await
}

async fn export(State(node): Shared, Json(request): Json<ExportRequest>) -> Response {
    let job = node.begin(JobKind::Export, &request.reference);
    run(job, async move |job| node.export(&request, &job).await)
}

async fn export_bundle(State(node): Shared, Json(request): Json<BundleExportRequest>) -> Response {
    let job = node.begin(JobKind::BundleExport, &request.file.display().to_string());
    run(job, async move |job| node.export_bundle(&request, &job).await)
}

async fn import_bundle(State(node): Shared, Json(request): Json<BundleImportRequest>) -> Response {
    let job = node.begin(JobKind::BundleImport, &request.file.display().to_string());
    run(job, async move |job| node.import_bundle(&request, &job).await)
}

async fn verify(State(node): Shared, Json(request): Json<VerifyRequest>) -> Response {
    let job = node.begin(JobKind::Verify, request.reference.as_deref().unwrap_or("the store"));
    run(job, async move |job| node.verify(&request, &job).await)
}

async fn gc(State(node): Shared, Json(request): Json<GcRequest>) -> Response {
    let job = node.begin(JobKind::Gc, "the store");
    run(job, async move |job| node.gc(&request, &job).await)
}

async fn trace(State(node): Shared, Json(request): Json<TraceRequest>) -> Response {
    let job = node.begin(JobKind::Trace, &request.dir.display().to_string());
    run_with_rows(job, async move |job, rows| node.trace(&request, &job, rows).await)
}

async fn prefetch(State(node): Shared, Json(request): Json<PrefetchRequest>) -> Response {
    let job = node.begin(JobKind::Prefetch, &request.reference);
    run(job, async move |job| node.prefetch(&request, &job).await)
}

async fn pin(State(node): Shared, Json(request): Json<PinRequest>) -> Response {
    let job = node.begin(JobKind::Pin, &request.reference);
    run(job, async move |job| node.pin(&request, &job).await)
}

async fn unpin(State(node): Shared, Json(request): Json<PinRequest>) -> Response {
    let job = node.begin(JobKind::Unpin, &request.reference);
    run(job, async move |job| node.unpin(&request, &job).await)
}

async fn hints(State(node): Shared, Json(request): Json<HintRequest>) -> Answer<Hinted> {
    node.hint(request).await.map(Json)
}

async fn settings(State(node): Shared) -> Answer<BTreeMap<String, String>> {
    Ok(Json(node.settings()))
}

async fn keys(State(node): Shared) -> Answer<KeysReport> {
    node.keys().map(Json)
}

async fn rotate_key(State(node): Shared) -> Answer<RotatedKey> {
    node.rotate_key().await.map(Json)
}

async fn rotate_dataset(State(node): Shared, Json(name): Json<String>) -> Answer<RotatedDataset> {
    node.rotate_dataset(&name).await.map(Json)
}

async fn change_rights(State(node): Shared, Json(request): Json<RightsRequest>) -> Answer<RightsDecided> {
    node.change_rights(&request).await.map(Json)
}

async fn change_operators(
    State(node): Shared,
    Json(request): Json<OperatorRequest>,
) -> Answer<OperatorDecided> {
    node.change_operators(&request).await.map(Json)
}

async fn add_peer(State(node): Shared, Json(request): Json<AddPeerRequest>) -> Answer<PeerOf> {
    node.add_peer(&request).await.map(Json)
}

async fn block_peer(State(node): Shared, Json(request): Json<PeerRequest>) -> Answer<PeerOf> {
    node.block_peer(&request).await.map(Json)
}

async fn allow_peer(State(node): Shared, Json(request): Json<PeerRequest>) -> Answer<PeerOf> {
    node.allow_peer(&request).await.map(Json)
}

async fn limit(State(node): Shared, Json(request): Json<LimitRequest>) -> Answer<Limits> {
    node.limit(&request).map(Json)
}

async fn acknowledge(State(node): Shared, Json(request): Json<AckRequest>) -> Answer<Acknowledged> {
    node.acknowledge(&request).map(Json)
}

/// Runs a job and streams its progress and result, one JSON line each.
fn run<T, F>(job: Job, work: impl FnOnce(Job) -> F) -> Response
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    run_with_rows(job, |job, _: mpsc::Sender<Vec<()>>| work(job))
}

/// The same of a job that also has rows to give, some at a time, and waits while nobody takes them.
fn run_with_rows<T, R, F>(job: Job, work: impl FnOnce(Job, mpsc::Sender<Vec<R>>) -> F) -> Response
where
    T: Serialize + Send + 'static,
    R: Serialize + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(ROWS_AHEAD);
    let (work, told) = (work(job.clone(), sender), job.clone());
    let task = tokio::spawn(async move {
        let result = work.await;
        told.end(result.as_ref().err());
        result
    });
    // Owned by the response body: when the client goes away, axum drops the body and this cancels the job.
    let guard = job.cancellation().drop_guard();
    let lines = stream::unfold(Some((task, receiver, job, guard)), async |state| {
        let (mut task, mut receiver, job, guard) = state?;
        let event = tokio::select! {
            // Rows first: the end is told when there are none left.
            biased;
            Some(rows) = receiver.recv() => Event::Rows(rows),
            ended = &mut task => return Some((line(&event::<T, R>(ended)), None)),
            () = tokio::time::sleep(PROGRESS_EVERY) => Event::Progress(job.progress()),
        };
        Some((line::<T, R>(&event), Some((task, receiver, job, guard))))
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn event<T, R>(ended: Result<Result<T, Error>, tokio::task::JoinError>) -> Event<T, R> {
    match ended {
        Ok(Ok(value)) => Event::Done(value),
        Ok(Err(error)) => Event::Error(error),
        Err(panic) => {
            Event::Error(Error::new(Kind::Failed, format!("the daemon failed at this job: {panic}")))
        }
    }
}

fn line<T: Serialize, R: Serialize>(event: &Event<T, R>) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line.into())
}
