//! What this node measures, as Prometheus reads it.
//!
//! Owns: the names, units and labels of metrics, which never change their meaning.
//! Must not know: how anything is counted: every figure is read where it is kept, when it is asked for. Nothing is registered
//! beforehand, so nothing is counted for the sake of this alone but the answers of mounts (`view::Timings`).
//! Invariant: a counter never goes back while the node runs. The number of series follows from settings and the networks and
//! origins of this node, not from peers, datasets or files.
//! Trust: none needed. Threads: any; blocks for the index. Writes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::error::{Error, Kind};
use super::report::Status;
use super::{Node, off};
use crate::view::{Counts, Source};

/// Everything that is shown, read at one moment.
#[derive(Debug)]
struct Sample {
    status: Status,
    /// Answers of mounts.
    answers: Vec<Counts>,
    /// Plain bytes of objects that were found here.
    local_bytes: u64,
    /// Bytes of objects received from and sent to peers.
    traffic: (u64, u64),
    /// By network: the round in which the newest height was decided.
    rounds: BTreeMap<String, u32>,
    process: Process,
    /// Free bytes and all bytes of the disk that the store is on.
    disk: Option<(u64, u64)>,
    /// Active and acknowledged alerts, by severity and state.
    alerts: BTreeMap<(String, String), u64>,
}

/// What the kernel says of this process.
#[derive(Debug, Default)]
struct Process {
    cpu_seconds: f64,
    threads: u64,
    open_files: u64,
}

impl Node {
    /// All metrics as text.
    pub fn metrics(&self) -> Result<String, Error> {
        let mut registry = Registry::with_prefix("bcai");
        registry.register_collector(Box::new(off(|| self.sample())?));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .map_err(|error| Error::new(Kind::Failed, format!("the metrics cannot be written: {error}")))?;
        Ok(text)
    }

    fn sample(&self) -> Result<Sample, Error> {
        let status = self.status()?;
        let mut alerts = BTreeMap::new();
        for alert in self.alerts()? {
            *alerts.entry((alert.severity.to_string(), alert.state.to_string())).or_default() += 1;
        }
        let mut rounds = BTreeMap::new();
        for chain in self.networks.all() {
            let height = chain.ledger().height();
            if height > 0 {
                rounds.insert(chain.genesis().to_string(), chain.block(height)?.certificate.round);
            }
        }
        let disk = rustix::fs::statvfs(self.paths.store()).ok();
        let size = |blocks: u64, unit: u64| blocks.saturating_mul(unit);
        Ok(Sample {
            answers: self.mounts.watches().timings().counts(),
            local_bytes: self.fetcher.stats().local_bytes,
            traffic: self.net.traffic(),
            rounds,
            process: process(Path::new("/proc/self")),
            disk: disk.map(|disk| (size(disk.f_bavail, disk.f_frsize), size(disk.f_blocks, disk.f_frsize))),
            alerts,
            status,
        })
    }
}

/// The figures of a process; zeros where they cannot be read.
fn process(proc: &Path) -> Process {
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap_or_default();
    // The second field is a name in brackets that may hold anything.
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    Process {
        cpu_seconds: (field(14) + field(15)) as f64 / ticks,
        threads: field(20),
        open_files: std::fs::read_dir(proc.join("fd")).map_or(0, |files| files.count() as u64),
    }
}

/// Writes metrics of one kind.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(&mut self.0.encode_descriptor(name, help, None, kind)?)
    }

    /// A number that rises only; `_total` is added to its name.
    fn counter<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<(&'l str, String)>, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |encoder| {
            rows.into_iter().try_for_each(|(labels, value)| match labels.is_empty() {
                true => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
                false => encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&value, None),
            })
        })
    }

    fn gauge<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<(&'l str, String)>, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |encoder| {
            rows.into_iter().try_for_each(|(labels, value)| match labels.is_empty() {
                true => encoder.encode_gauge(&value),
                false => encoder.encode_family(&labels)?.encode_gauge(&value),
            })
        })
    }

    fn one_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counter(name, help, [(Vec::new(), value as f64)])
    }

    fn one_gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauge(name, help, [(Vec::new(), value as f64)])
    }
}

fn label(name: &str, value: impl ToString) -> Vec<(&str, String)> {
    vec![(name, value.to_string())]
}

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.node(&mut writer)?;
        self.mounts(&mut writer)?;
        self.objects(&mut writer)?;
        self.cache(&mut writer)?;
        self.peers(&mut writer)?;
        self.logs(&mut writer)
    }
}

impl Sample {
    fn node(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Self { status, process, .. } = self;
        writer.gauge(
            "build",
            "Always 1; the version is in the label",
            [(label("version", &status.version), 1.0)],
        )?;
        writer.one_gauge("uptime_seconds", "Time since the node was started", status.uptime_s)?;
        writer.one_gauge(
            "resident_memory_bytes",
            "Memory of the process that is in use",
            status.resident_bytes,
        )?;
        let cpu = [(Vec::new(), process.cpu_seconds)];
        writer.counter("cpu_seconds", "Processor time of the process", cpu)?;
        writer.one_gauge("threads", "Threads of the process", process.threads)?;
        writer.one_gauge("open_files", "File descriptors of the process", process.open_files)?;
        if let Some((free, size)) = self.disk {
            writer.one_gauge("disk_free_bytes", "Free space of the disk that the store is on", free)?;
            writer.one_gauge("disk_size_bytes", "Size of the disk that the store is on", size)?;
        }
        let alerts = self.alerts.iter().map(|((severity, state), count)| {
            (vec![("severity", severity.clone()), ("state", state.clone())], *count as f64)
        });
        writer.gauge("alerts", "What is wrong, or was, by severity and state", alerts)?;
        let mut jobs: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for job in &status.transfers {
            let sum = jobs.entry(&job.kind).or_default();
            *sum = (sum.0 + 1.0, sum.1 + job.rate);
        }
        let running = jobs.iter().map(|(kind, (count, _))| (label("kind", kind), *count));
        writer.gauge("transfers", "Jobs that run now, by kind", running)?;
        let rates = jobs.iter().map(|(kind, (_, rate))| (label("kind", kind), *rate));
        writer.gauge("transfer_bytes_per_second", "How fast they go, together", rates)
    }

    fn mounts(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut ways: BTreeMap<&str, f64> = BTreeMap::new();
        self.status.mounts.iter().for_each(|mount| *ways.entry(&mount.io).or_default() += 1.0);
        let mounts = ways.into_iter().map(|(io, count)| (label("io", io), count));
        writer.gauge("mounts", "Mounts, by the way in which contents reach their readers", mounts)?;
        let help = "How long the kernel waited for an answer of a mount; what it reads out of its page cache is not seen";
        // Only what has happened: most ways of asking never do.
        let seen = || self.answers.iter().filter(|counts| counts.answers() > 0);
        writer.family("fuse_operation_seconds", help, MetricType::Histogram, |encoder| {
            seen().try_for_each(|counts| {
                let labels = answer_labels(counts);
                encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    counts.seconds,
                    counts.answers(),
                    &counts.buckets,
                    None,
                )
            })
        })?;
        let failed = seen().map(|counts| (answer_labels(counts), counts.failed as f64));
        writer.counter("fuse_failures", "Answers that said EIO or ETIMEDOUT", failed)?;
        let ahead = || self.status.mounts.iter().filter_map(|mount| mount.ahead.as_ref());
        let readers = ahead().map(|ahead| ahead.readers).sum();
        writer.one_gauge("ahead_readers", "Readers in order that are fetched ahead of", readers)?;
        let window = ahead().map(|ahead| ahead.window_bytes).max().unwrap_or(0);
        writer.one_gauge("ahead_window_bytes", "Bytes fetched ahead of one of them, at most", window)?;
        let unread = ahead().map(|ahead| ahead.unread_bytes).sum();
        writer.one_gauge(
            "ahead_unread_bytes",
            "Bytes fetched ahead in versions that are mounted, whose readers left before they read them",
            unread,
        )
    }

    fn objects(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Self { status, .. } = self;
        let fetch = &status.fetch;
        let bytes = [
            (label("source", Source::Here.name()), self.local_bytes as f64),
            (label("source", Source::Elsewhere.name()), fetch.fetched_bytes as f64),
        ];
        writer.counter(
            "object_bytes",
            "Plain bytes of objects that were found here by who needed them, or fetched",
            bytes,
        )?;
        let objects = [
            (label("source", Source::Here.name()), fetch.local_hits as f64),
            (label("source", Source::Elsewhere.name()), fetch.fetched as f64),
        ];
        writer.counter(
            "objects_got",
            "Objects that were found here by who needed them, or fetched",
            objects,
        )?;
        writer.one_counter("fetch_retries", "Further rounds of asking after a failed one", fetch.retries)?;
        writer.one_counter(
            "corrupt_objects",
            "Objects that were not what their ids say, here or as an answer",
            fetch.corrupt,
        )?;
        let origin = |read: fn(&super::report::OriginStatus) -> u64| {
            status.origins.iter().map(move |origin| (label("origin", &origin.url), read(origin) as f64))
        };
        writer.counter("origin_bytes", "Bytes read from an origin", origin(|origin| origin.bytes_in))?;
        writer.counter("origin_requests", "Requests to an origin", origin(|origin| origin.requests))?;
        writer.counter("origin_failures", "Requests to an origin that failed", origin(|origin| origin.failed))
    }

    fn cache(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Self { status, .. } = self;
        let cache = &status.cache;
        let kinds = [
            ("evictable", cache.cached_bytes),
            ("pinned", cache.pinned_bytes),
            ("blob_files", cache.blob_file_bytes),
        ];
        let kinds = kinds.map(|(kind, bytes)| (label("kind", kind), bytes as f64));
        writer.gauge("cache_bytes", "What the cache occupies on disk, by kind", kinds)?;
        writer.one_gauge("cache_max_bytes", "The budget of the cache", cache.max_bytes)?;
        writer.one_counter("cache_hits", "Objects that readers found here", cache.hits)?;
        writer.one_counter("cache_misses", "Objects that readers had to wait for", cache.misses)?;
        writer.one_counter("cache_evicted_objects", "Objects that were evicted", cache.evicted)?;
        writer.one_counter("cache_evicted_bytes", "Their bytes as stored", cache.evicted_bytes)?;
        writer.one_counter(
            "cache_bypassed_objects",
            "Objects that were fetched and not cached",
            cache.bypassed,
        )?;
        writer.one_gauge("stored_objects", "Objects in the store", status.store.objects)?;
        writer.one_gauge("published_bytes", "Bytes of published objects as stored", cache.published_bytes)?;
        writer.one_gauge(
            "in_place_bytes",
            "Bytes of objects in files that were published in place",
            cache.in_place_bytes,
        )
    }

    fn peers(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut kinds: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for peer in &self.status.peers {
            *kinds.entry((&peer.state, &peer.grade)).or_default() += 1.0;
        }
        let peers = kinds.into_iter().map(|((state, grade), count)| {
            (vec![("state", state.to_owned()), ("grade", grade.to_owned())], count)
        });
        writer.gauge("peers", "Peers that are known, by state and grade", peers)?;
        let windows = self.status.peers.iter().filter_map(|peer| peer.window_bytes).sum();
        writer.one_gauge(
            "peer_window_bytes",
            "Bytes that no reader waits for and that may be on their way from all peers together",
            windows,
        )?;
        let classes = self.status.fetch.classes.iter();
        let classes = classes.map(|class| (label("class", &class.class), class.bytes as f64));
        writer.counter("fetched_class_bytes", "Plain bytes fetched from elsewhere, by reason", classes)?;
        let traffic = [("in", self.traffic.0), ("out", self.traffic.1)];
        let traffic = traffic.map(|(direction, bytes)| (label("direction", direction), bytes as f64));
        writer.counter("peer_bytes", "Bytes of objects received from and sent to peers", traffic)?;
        let limits = [("in", self.status.limits.download), ("out", self.status.limits.upload)];
        let limits = limits
            .into_iter()
            .filter_map(|(direction, limit)| Some((label("direction", direction), limit? as f64)));
        writer.gauge("peer_limit_bytes_per_second", "Limits that a user has set", limits)
    }

    fn logs(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let networks = &self.status.networks;
        let each = |read: &dyn Fn(&super::report::NetworkStatus) -> Option<f64>| {
            let rows = networks.iter();
            rows.filter_map(|network| Some((label("network", &network.genesis), read(network)?)))
                .collect::<Vec<_>>()
        };
        let height = each(&|network| Some(network.height as f64));
        writer.gauge("log_height", "Height that is known of a network's log", height)?;
        let round = each(&|network| self.rounds.get(&network.genesis).map(|round| f64::from(*round)));
        writer.gauge(
            "log_round",
            "Round in which that height was decided: 0 unless a proposer was late",
            round,
        )?;
        let age = each(&|network| network.head_age_s.map(|age| age as f64));
        writer.gauge("log_age_seconds", "Age of the newest block", age)?;
        let validator = each(&|network| Some(f64::from(u8::from(network.validator))));
        writer.gauge("log_validator", "Whether this node decides the log", validator)?;
        let forked = each(&|network| Some(f64::from(u8::from(network.forked.is_some()))));
        writer.gauge("log_forked", "Whether the log was seen to have forked", forked)?;
        let datasets = each(&|network| Some(network.datasets as f64));
        writer.gauge("datasets", "Datasets in a network's log", datasets)?;
        let replicas = &self.status.replicas;
        let under = replicas.iter().map(|r| (label("network", &r.genesis), r.under.len() as f64));
        writer.gauge(
            "under_replicated_versions",
            "Versions that are on fewer storage nodes than they should be",
            under,
        )?;
        let nodes = replicas.iter().flat_map(|replica| {
            let states = [("alive", replica.alive), ("silent", replica.nodes.saturating_sub(replica.alive))];
            states.map(|(state, count)| {
                (vec![("network", replica.genesis.clone()), ("state", state.to_owned())], count as f64)
            })
        });
        writer.gauge(
            "storage_nodes",
            "Storage nodes of a network, by whether they have answered lately",
            nodes,
        )
    }
}

/// The labels of a histogram.
fn answer_labels(counts: &Counts) -> Vec<(&'static str, String)> {
    vec![("operation", counts.operation.name().into()), ("source", counts.source.name().into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_has_its_figures() {
        let dir = tempfile::tempdir().unwrap();
        let rest: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        std::fs::write(dir.path().join("stat"), format!("7 (a ) b) R {}", rest.join(" "))).unwrap();
        let found = process(dir.path());
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((found.cpu_seconds, found.threads, found.open_files), (29.0 / ticks, 20, 0));
        let own = process(Path::new("/proc/self"));
        assert!(own.threads >= 1 && own.open_files >= 1, "{own:?}");
        assert_eq!(process(Path::new("/nowhere")).threads, 0);
    }
}
