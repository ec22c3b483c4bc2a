//! Proofs of versions for those who have no log.
//!
//! Owns: making one of a log that is here, and checking one against a network's id.
//! Must not know: where the file comes from or goes.
//! Invariant: a proof is handed out only after it has passed the check that its reader will make.
//! Trust: a proof that is checked is foreign; the network's id is the user's. Threads: the runtime; reads the whole log
//! once. Checking needs neither node nor disk.

use data_encoding::BASE64;

use super::error::{Error, Kind};
use super::report::{Proof, ProofRequest, Proven, ProvenHead, Withdrawn};
use super::{Named, Node, Reference, Uri, off};
use crate::chain::{Chain, ChainError};
use crate::id::{Genesis, LogRoot};
use crate::log::Ledger;
use crate::log::light::{Climb, Trusted, Update};
use crate::log::merkle;
use crate::log::proof::{self, VersionProof, VersionProofError};

/// What a proof is checked against: a network, and what the user expects it to be about.
#[derive(Debug, Clone)]
pub struct Expected {
    genesis: Genesis,
    named: Option<Named>,
}

impl std::str::FromStr for Expected {
    type Err = Error;

    /// From a network's id or a URI of the version.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(genesis) = text.parse() {
            return Ok(Self { genesis, named: None });
        }
        match text.parse() {
            Ok(Reference::Uri(Uri { genesis, pin: None, named, .. })) => {
                Ok(Self { genesis, named: Some(named) })
            }
            Ok(Reference::Uri(_)) => Err(Error::usage(format!(
                "whether the log has led to the head that is pinned in `{text}` cannot be told from a proof: leave out @HEIGHT:HASH"
            ))),
            _ => Err(Error::usage(format!("`{text}` names no network"))
                .hint("give its id, which is the first part of every bcai:// URI, or such a URI")),
        }
    }
}

/// What the bytes of a proof prove about what is expected. Needs nothing but both.
pub fn check_proof(bytes: &[u8], expected: &Expected) -> Result<Proven, Error> {
    let proven = VersionProof::verify(bytes, expected.genesis)?;
    if let Some(Named { name, selector }) = &expected.named {
        let latest = proven.latest.as_ref().map(|label| label.as_str());
        let wanted = match selector.as_deref() {
            None | Some(crate::log::LATEST) => latest,
            label => label,
        };
        if *name != proven.name.as_str() || wanted != Some(proven.version.label.as_str()) {
            let found = format!("{}@{}", proven.name, proven.version.label);
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "the proof is of {found}, not of {}",
                    expected.named.as_ref().map_or(name.clone(), Named::to_string)
                ),
            )
            .hint("ask for a proof of that version; what a tag means cannot be proven by this file"));
        }
    }
    Ok(report(expected.genesis, proven))
}

fn report(genesis: Genesis, proven: proof::Proven) -> Proven {
    let proof::Proven { head, version, .. } = proven;
    Proven {
        genesis: genesis.to_string(),
        name: proven.name.to_string(),
        version: version.label.to_string(),
        snapshot: version.snapshot.to_string(),
        bytes: version.bytes,
        inodes: version.inodes,
        author: version.author.to_string(),
        owner: proven.owner.to_string(),
        entry: proven.entry.to_string(),
        index: proven.index,
        height: version.published.height,
        time_ms: version.published.time_ms,
        withdrawn: version.yanked.map(|yanked| Withdrawn {
            reason: yanked.reason.to_string(),
            height: yanked.stamp.height,
            time_ms: yanked.stamp.time_ms,
        }),
        latest: proven.latest.map(|label| label.to_string()),
        head: ProvenHead {
            height: head.height,
            time_ms: head.time_ms,
            header: head.id().to_string(),
            entries: head.log_size,
            signers: proven.signers,
            validators: proven.validators,
        },
    }
}

impl Node {
    /// Proves a version to whoever has the network's id.
    pub async fn prove(&self, request: &ProofRequest) -> Result<Proof, Error> {
        let (chain, named, behind) = match request.reference.parse()? {
            Reference::Named(named) => (self.networks.default_network()?, named, false),
            Reference::Uri(uri) => {
                let joined = self.join(&uri).await?;
                (joined.chain, uri.named, joined.behind)
            }
            Reference::Snapshot(id) => {
                return Err(Error::usage(format!("a snapshot such as {id} is in no log by itself"))
                    .hint("name a version: bcai log --proof NAME@VERSION"));
            }
        };
        self.networks.check_whole(&chain.genesis())?;
        if behind {
            let (genesis, height) = (chain.genesis(), chain.ledger().height());
            let message =
                format!("the log of network {genesis} is still being fetched: height {height} so far");
            return Err(Error::new(Kind::Unreachable, message)
                .hint("try again in a while; `bcai status` shows its height"));
        }
        let bytes = off(|| prove(&chain, &named))?;
        let proven = check_proof(&bytes, &Expected { genesis: chain.genesis(), named: None })?;
        Ok(Proof { proof: BASE64.encode(&bytes), proven })
    }
}

fn prove(chain: &Chain, named: &Named) -> Result<Vec<u8>, Error> {
    let ledger = chain.ledger();
    let version = ledger.resolve(&named.name, named.selector.as_deref())?;
    let leaves = leaves(chain, ledger.height())?;
    let block = chain.block(version.published.height)?;
    let found = block.body.entries.into_iter().find(|entry| entry.id() == version.published.entry);
    let entry = found.ok_or(VersionProofError::Unfit("the log has no such entry"))?;
    let index = leaves.iter().position(|leaf| *leaf == merkle::leaf(&entry.encode())).unwrap_or(leaves.len());
    let name = named.name.parse()?;
    let steps = steps(chain, &ledger)?;
    let proof = VersionProof::new(&ledger, (&name, &version.label), steps, &leaves, (index, entry))?;
    Ok(proof.encode())
}

/// The leaves of all entries up to `height`, in their order.
pub(super) fn leaves(chain: &Chain, height: u64) -> Result<Vec<LogRoot>, ChainError> {
    let mut leaves = Vec::new();
    for height in 1..=height {
        leaves.extend(chain.block(height)?.body.entries.iter().map(|entry| merkle::leaf(&entry.encode())));
    }
    Ok(leaves)
}

/// The way from the genesis to the head of `ledger`, as a light client goes it.
fn steps(chain: &Chain, ledger: &Ledger) -> Result<Vec<Update>, Error> {
    let mut climb = Climb::new(Trusted::at_genesis(ledger.document()), ledger.height());
    let mut steps = Vec::new();
    while let Some(height) = climb.wants() {
        let believed = climb.offer(chain.update(height)?).map_err(VersionProofError::from)?;
        steps.extend(believed);
    }
    Ok(steps)
}
