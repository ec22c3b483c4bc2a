//! The one encoding of everything that is hashed, signed or sent: canonical CBOR, bounded on the way in.
//!
//! Owns: the rule that a value has exactly one encoding, and the check of it.
//! Must not know: any particular format; types carry their own `minicbor` derive.
//! Invariant: `decode(encode(v)) == v`, and `decode` accepts no bytes that `encode` would not have written.
//! Trust: `decode` takes bytes from anyone. It never panics, and never allocates by a length it has not
//! seen backed by input.
//! Threads: pure functions.

use minicbor::{Decode, Encode};

/// Why foreign bytes were refused. Always the sender's fault or corruption; never worth a retry of the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{what} is {len} bytes long, over its limit of {max}")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error("{what} does not decode: {cause}")]
    Malformed { what: &'static str, cause: String },
    #[error("{what} is not in canonical form")]
    NotCanonical { what: &'static str },
}

/// The canonical encoding of `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a `Vec` cannot fail, and our own types never return an encoding error.
    minicbor::encode(value, &mut bytes).expect("encoding into memory is infallible");
    bytes
}

/// Decodes `bytes`, which must be the whole and canonical encoding of a `T` and at most `max` bytes long.
/// `what` names the object in the error.
pub fn decode<T>(what: &'static str, bytes: &[u8], max: usize) -> Result<T, CodecError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    if bytes.len() > max {
        return Err(CodecError::TooLong { what, len: bytes.len(), max });
    }
    let value: T =
        minicbor::decode(bytes).map_err(|error| CodecError::Malformed { what, cause: error.to_string() })?;
    // Comparing with our own encoding catches at once trailing bytes, long-form integers,
    // indefinite lengths and unknown fields: all the ways in which CBOR has two spellings.
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical { what });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Sample {
        #[n(0)]
        number: u64,
        #[n(1)]
        list: Vec<u32>,
    }

    #[test]
    fn round_trips() {
        let sample = Sample { number: 7, list: vec![1, 2, 3] };
        assert_eq!(decode::<Sample>("sample", &encode(&sample), 100), Ok(sample));
    }

    #[test]
    fn second_spellings_are_refused() {
        let canonical = encode(&Sample { number: 7, list: vec![] });
        let mut trailing = canonical.clone();
        trailing.push(0);
        // 0x18 0x07 is the two-byte spelling of 7.
        let long_form = [&canonical[..1], &[0x18, 0x07], &canonical[2..]].concat();
        for bytes in [trailing, long_form] {
            assert_eq!(
                decode::<Sample>("sample", &bytes, 100),
                Err(CodecError::NotCanonical { what: "sample" }),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn a_length_without_content_allocates_nothing() {
        // An array that claims 2^32 elements and brings none.
        let claim = [0x82, 0x07, 0x9a, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decode::<Sample>("sample", &claim, 100), Err(CodecError::Malformed { .. })));
        assert!(matches!(decode::<Sample>("sample", &claim, 3), Err(CodecError::TooLong { .. })));
    }
}
