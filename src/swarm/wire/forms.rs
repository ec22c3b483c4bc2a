//! The payloads of messages as they are spelt in CBOR; the types of [`super`] hold only what has been checked.
//!
//! Owns: the order and types of fields, and the checks of what is not a type's own.
//! Must not know: what a message leads to.
//! Invariant: that of [`super`].
//! Trust: decodes bytes from anyone.
//! Threads: pure functions.

use minicbor::{Decode, Encode};

use super::{Have, MAX_PEER, Presence, Redirect, Reject, Want, Watch, WireError, bounded, out_of_range};
use crate::id::{ID_LEN, Kind, ObjectId};
use crate::swarm::{Class, MAX_OBJECT};

/// Length of an object's name: a kind byte and a hash.
const OBJECT_LEN: usize = 1 + ID_LEN;

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct WantForm {
    #[n(0)]
    pub(super) first: u64,
    #[n(1)]
    pub(super) class: u8,
    #[n(2)]
    pub(super) deadline_ms: u32,
    #[n(3)]
    pub(super) credit: u32,
    /// A kind byte and a hash for each object, one after the other.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(super) objects: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct RejectForm {
    #[n(0)]
    pub(super) reason: u8,
    #[n(1)]
    pub(super) requests: Vec<u64>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct CancelForm {
    #[n(0)]
    pub(super) requests: Vec<u64>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct CreditForm {
    #[n(0)]
    pub(super) grants: Vec<(u64, u32)>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct AttachForm {
    #[n(0)]
    pub(super) session: u64,
    #[n(1)]
    pub(super) lane: u8,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct WatchForm {
    #[n(0)]
    first: u64,
    /// Like those of [`WantForm`].
    #[cbor(n(1), with = "minicbor::bytes")]
    objects: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct HaveForm {
    #[n(0)]
    presence: u8,
    #[n(1)]
    watches: Vec<u64>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct RedirectForm {
    #[cbor(n(0), with = "minicbor::bytes")]
    peer: Vec<u8>,
    #[n(1)]
    requests: Vec<u64>,
}

fn named(objects: &[ObjectId]) -> Vec<u8> {
    objects.iter().flat_map(|object| [object.kind as u8].into_iter().chain(object.hash)).collect()
}

/// The objects of a list, whose first has the number `first`: the number after the last must exist too, so that
/// sessions can count on.
fn objects(first: u64, bytes: &[u8]) -> Result<Vec<ObjectId>, WireError> {
    let (named, rest) = bytes.as_chunks::<OBJECT_LEN>();
    if !rest.is_empty() {
        return Err(out_of_range("length of the objects", bytes.len() as u64));
    }
    bounded("number of objects", named.len())?;
    first.checked_add(named.len() as u64).ok_or(out_of_range("number of the first object", first))?;
    let object = |[kind, hash @ ..]: &[u8; OBJECT_LEN]| {
        let kind = Kind::try_from(*kind).map_err(|byte| out_of_range("object kind", byte.into()))?;
        Ok(ObjectId { kind, hash: *hash })
    };
    named.iter().map(object).collect()
}

impl From<&Want> for WantForm {
    fn from(want: &Want) -> Self {
        let Want { first, class, deadline_ms, credit, .. } = *want;
        WantForm { first, class: class as u8, deadline_ms, credit, objects: named(&want.objects) }
    }
}

impl TryFrom<WantForm> for Want {
    type Error = WireError;
    fn try_from(form: WantForm) -> Result<Want, WireError> {
        let WantForm { first, class, deadline_ms, credit, .. } = form;
        let objects = objects(first, &form.objects)?;
        if !(1..=MAX_OBJECT).contains(&credit) {
            return Err(out_of_range("credit", credit.into()));
        }
        let class = Class::try_from(class).map_err(|byte| out_of_range("class", byte.into()))?;
        Ok(Want { first, class, deadline_ms, credit, objects })
    }
}

impl From<&Watch> for WatchForm {
    fn from(watch: &Watch) -> Self {
        WatchForm { first: watch.first, objects: named(&watch.objects) }
    }
}

impl TryFrom<WatchForm> for Watch {
    type Error = WireError;
    fn try_from(form: WatchForm) -> Result<Watch, WireError> {
        Ok(Watch { first: form.first, objects: objects(form.first, &form.objects)? })
    }
}

impl From<&Have> for HaveForm {
    fn from(have: &Have) -> Self {
        HaveForm { presence: have.presence as u8, watches: have.watches.clone() }
    }
}

impl TryFrom<HaveForm> for Have {
    type Error = WireError;
    fn try_from(form: HaveForm) -> Result<Have, WireError> {
        bounded("number of watches", form.watches.len())?;
        let presence = match form.presence {
            0 => Presence::Here,
            1 => Presence::Coming,
            2 => Presence::Absent,
            other => return Err(out_of_range("presence", other.into())),
        };
        Ok(Have { presence, watches: form.watches })
    }
}

impl From<&Redirect> for RedirectForm {
    fn from(redirect: &Redirect) -> Self {
        RedirectForm { peer: redirect.peer.clone(), requests: redirect.requests.clone() }
    }
}

impl TryFrom<RedirectForm> for Redirect {
    type Error = WireError;
    fn try_from(form: RedirectForm) -> Result<Redirect, WireError> {
        bounded("number of requests", form.requests.len())?;
        if !(1..=MAX_PEER).contains(&form.peer.len()) {
            return Err(out_of_range("length of the peer's id", form.peer.len() as u64));
        }
        Ok(Redirect { peer: form.peer, requests: form.requests })
    }
}

impl From<&Reject> for RejectForm {
    fn from(reject: &Reject) -> Self {
        RejectForm { reason: reject.reason.into(), requests: reject.requests.clone() }
    }
}

impl TryFrom<RejectForm> for Reject {
    type Error = WireError;
    fn try_from(form: RejectForm) -> Result<Reject, WireError> {
        bounded("number of requests", form.requests.len())?;
        Ok(Reject { reason: form.reason.into(), requests: form.requests })
    }
}
