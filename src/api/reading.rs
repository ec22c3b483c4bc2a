//! The routes that only look: the same on the socket and behind the web page.
//!
//! Owns: which questions may be asked by everybody who is shown the node; events.
//! Must not know: who asks.
//! Invariant: none of them changes anything, and each is answered from memory or a bounded number of blocks.
//! Trust: queries are parsed strictly. Threads: those of the server.

use std::convert::Infallible;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::{Stream, stream};

use super::route;
use super::server::{Answer, PROGRESS_EVERY, Shared};
use crate::node::report::*;
use crate::node::{Error, Node};

/// As OpenMetrics names its text form.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes() -> Router<std::sync::Arc<Node>> {
    Router::new()
        .route(route::STATUS, get(status))
        .route(route::DATASETS, get(datasets))
        .route(route::CERTIFICATES, get(certificates))
        .route(route::CACHE, get(cache))
        .route(route::VALIDATORS, get(validators))
        .route(route::PEERS, get(peers))
        .route(route::JOBS, get(jobs))
        .route(route::JOB_EVENTS, get(job_events))
        .route(route::ALERTS, get(alerts))
        .route(route::METRICS, get(metrics))
}

async fn status(State(node): Shared) -> Answer<Status> {
    node.status().map(Json)
}

async fn datasets(State(node): Shared) -> Answer<Vec<Dataset>> {
    Ok(Json(node.datasets()))
}

async fn certificates(
    State(node): Shared,
    Query(request): Query<CertificatesRequest>,
) -> Answer<Vec<HeightCertificate>> {
    node.certificates(&request).map(Json)
}

async fn cache(State(node): Shared) -> Answer<CacheStatus> {
    node.cache().map(Json)
}

async fn validators(State(node): Shared, Query(request): Query<NetworkRequest>) -> Answer<ValidatorsReport> {
    node.validators(request.network.as_deref()).map(Json)
}

async fn peers(State(node): Shared) -> Json<Vec<PeerStatus>> {
    Json(node.peers())
}

async fn jobs(State(node): Shared) -> Json<Jobs> {
    Json(node.jobs())
}

/// An event `jobs` at once, and whenever something about them is another. Ends when the node does.
async fn job_events(State(node): Shared) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold((node, None), async |(node, told): (_, Option<Jobs>)| {
        let stop = node.stop_token();
        loop {
            let now = node.jobs();
            if told.as_ref() != Some(&now) {
                let event = Event::default().event("jobs").json_data(&now).ok()?;
                return Some((Ok(event), (node, Some(now))));
            }
            stop.run_until_cancelled(tokio::time::sleep(PROGRESS_EVERY)).await?;
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn alerts(State(node): Shared) -> Answer<Vec<Alert>> {
    node.alerts().map(Json)
}

/// What a node measures, in the text form of OpenMetrics.
async fn metrics(State(node): Shared) -> Result<Response, Error> {
    let text = node.metrics()?;
    Ok(([("content-type", OPEN_METRICS)], text).into_response())
}
