//! What the logs say, for people and scripts.
//!
//! Owns: the listing of datasets and of committed heights.
//! Must not know: how they were decided.
//! Invariant: shows exactly what is committed; withdrawn versions included.
//! Trust: entries were checked when they were committed. Threads: the runtime; reads memory and one file.

use bytesize::ByteSize;

use super::error::{Error, Kind};
use super::report::{CertificatesRequest, Dataset, HeightCertificate, LogEntry, LogRow, Seat, Version};
use super::{Node, Reference, off};
use crate::chain::Chain;
use crate::log::{Entry, EntryBody, Ledger, ValidatorChange};

/// Certificates of one answer.
const CERTIFICATES: usize = 64;
/// Of the newest heights, if none are named.
const NEWEST: u64 = 32;

impl Node {
    /// All datasets of all networks this node follows.
    pub fn datasets(&self) -> Vec<Dataset> {
        self.networks.all().iter().flat_map(|chain| datasets(chain)).collect()
    }

    /// The committed heights that concern a dataset of the default network, or of another that a URI names, or all that hold
    /// an entry, oldest first.
    pub async fn log(&self, subject: Option<&str>) -> Result<Vec<LogRow>, Error> {
        let reference: Option<Reference> = subject.map(str::parse).transpose()?;
        let (chain, name) = match &reference {
            Some(Reference::Uri(uri)) => (self.join(uri).await?.chain, Some(uri.named.name.as_str())),
            Some(Reference::Named(named)) => (self.networks.default_network()?, Some(named.name.as_str())),
            _ => (self.networks.default_network()?, subject),
        };
        let mut rows = Vec::new();
        for height in 1..=chain.ledger().height() {
            let block = off(|| chain.block(height))?;
            let concerns = |entry: &&Entry| {
                name.is_none_or(|name| entry.body.name().is_some_and(|about| about.as_str() == name))
            };
            let entries: Vec<_> = block.body.entries.iter().filter(concerns).map(row).collect();
            if !entries.is_empty() {
                rows.push(LogRow {
                    height,
                    header: block.header.id().to_string(),
                    time_ms: block.header.time_ms,
                    round: block.certificate.round,
                    signers: block.certificate.signers().count(),
                    validators: chain.ledger().validators().members().len(),
                    entries,
                });
            }
        }
        if let (Some(name), true) = (name, rows.is_empty()) {
            return Err(crate::log::Refusal::NoDataset { name: name.chars().take(80).collect() }.into());
        }
        Ok(rows)
    }

    /// Who has signed some heights of a network, in the order in which they are named.
    pub fn certificates(&self, request: &CertificatesRequest) -> Result<Vec<HeightCertificate>, Error> {
        let chain = self.followed(request.network.parse()?)?;
        let ledger = chain.ledger();
        let newest = ledger.height();
        let named = request.heights.split(',').map(str::trim).filter(|height| !height.is_empty());
        let mut heights: Vec<u64> = named
            .map(|height| height.parse().ok().filter(|height| (1..=newest).contains(height)))
            .collect::<Option<_>>()
            .ok_or_else(|| {
                Error::usage(format!(
                    "`{}` are not heights of this log, which has {newest}",
                    request.heights.chars().take(80).collect::<String>()
                ))
            })?;
        if heights.is_empty() {
            heights.extend((newest.saturating_sub(NEWEST) + 1..=newest).rev());
        }
        if heights.len() > CERTIFICATES {
            return Err(Error::new(Kind::Usage, format!("more than {CERTIFICATES} heights at once")));
        }
        heights.into_iter().map(|height| certificate(&chain, &ledger, height)).collect()
    }
}

fn certificate(chain: &Chain, ledger: &Ledger, height: u64) -> Result<HeightCertificate, Error> {
    let block = off(|| chain.block(height))?;
    let set = ledger.validators_at(height).ok_or_else(|| {
        Error::new(Kind::Failed, format!("the validators of height {height} are not known"))
    })?;
    let signers: Vec<usize> = block.certificate.signers().collect();
    let seats = set.members().iter().enumerate().map(|(at, member)| Seat {
        voter: member.key.to_string(),
        weight: member.weight,
        signed: signers.contains(&at),
    });
    let seats: Vec<Seat> = seats.collect();
    Ok(HeightCertificate {
        height,
        header: block.header.id().to_string(),
        time_ms: block.header.time_ms,
        round: block.certificate.round,
        entries: block.body.entries.len(),
        signed_weight: seats.iter().filter(|seat| seat.signed).map(|seat| seat.weight).sum(),
        weight: set.total_weight(),
        seats,
    })
}

fn datasets(chain: &Chain) -> Vec<Dataset> {
    let ledger = chain.ledger();
    let rows = ledger.datasets().map(|dataset| {
        let latest = dataset.latest().map(|version| version.label.clone());
        let versions = dataset.versions.iter().map(|version| {
            let tags = dataset.tags.iter().filter(|(_, target)| target.version == version.label);
            let mut tags: Vec<_> = tags.map(|(tag, _)| tag.to_string()).collect();
            if latest.as_ref() == Some(&version.label) {
                tags.insert(0, crate::log::LATEST.into());
            }
            Version {
                version: version.label.to_string(),
                tags,
                snapshot: version.snapshot.to_string(),
                bytes: version.bytes,
                height: version.published.height,
                time_ms: version.published.time_ms,
                yanked: version.yanked.as_ref().map(|yanked| yanked.reason.to_string()),
            }
        });
        Dataset {
            name: dataset.name.to_string(),
            genesis: chain.genesis().to_string(),
            owner: dataset.owner.to_string(),
            versions: versions.collect(),
        }
    });
    rows.collect()
}

fn row(entry: &Entry) -> LogEntry {
    let summary = match &entry.body {
        EntryBody::Publish(publish) => format!(
            "publish {}@{} as {} ({})",
            publish.name,
            publish.version,
            publish.snapshot.short(),
            ByteSize(publish.bytes).display().iec()
        ),
        EntryBody::Tag(tag) => format!("tag {}@{} as {}", tag.name, tag.version, tag.tag),
        EntryBody::Yank(yank) => format!("withdraw {}@{}: {}", yank.name, yank.version, yank.reason),
        EntryBody::Grant(grant) => format!("grant {} to {}: {}", grant.name, grant.to, grant.roles),
        EntryBody::Role(change) => format!("roles of {}: {}", change.to, change.roles),
        EntryBody::Rotate(rotate) => format!("rotate key to {}", rotate.to),
        EntryBody::Validator(ValidatorChange::Join { voter, .. }) => {
            format!("join the validators with {voter}")
        }
        EntryBody::Validator(ValidatorChange::Leave) => "leave the validators".to_owned(),
        EntryBody::Validator(ValidatorChange::Release { operator }) => {
            format!("release {operator} from jail")
        }
        EntryBody::Stake(stake) => format!("stake of {}: {}", stake.holder, stake.amount),
        EntryBody::Delegate(delegate) => format!("delegate stake to {}", delegate.to),
        EntryBody::StorageCommit(commit) => {
            format!("store {}@{} in epoch {}", commit.name, commit.version, commit.epoch)
        }
        EntryBody::StorageReceipt(receipt) => {
            format!("prove storage of {} in epoch {}", receipt.answered.snapshot, receipt.answered.epoch)
        }
        EntryBody::Evidence(evidence) => {
            format!("evidence against {} at height {}", evidence.voter, evidence.height)
        }
        EntryBody::Params(_) => "change the parameters".to_owned(),
    };
    LogEntry { id: entry.id().to_string(), author: entry.author.to_string(), summary }
}
