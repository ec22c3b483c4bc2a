//! The bookkeeping of both sides against each other, the scheduler alone and in a crowd, and every decoder against junk.

mod books;
mod crowd;
mod scheduler;
mod wire;

use proptest::prelude::*;

use super::Class;
use crate::id::{Kind, ObjectId};

fn object(n: u64) -> ObjectId {
    ObjectId::of(Kind::Chunk, &n.to_le_bytes())
}

fn objects(numbers: std::ops::Range<u64>) -> Vec<ObjectId> {
    numbers.map(object).collect()
}

fn any_class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}
