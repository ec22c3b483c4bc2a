//! Bytes that look like data and are the same for the same seed.
//!
//! Owns: the generator of numbers (SplitMix64, Steele, Lea and Flood 2014: the published constants) and the three
//! looks: images, text, tokens.
//! Must not know: files.
//! Invariant: the same seed yields the same bytes, in every version of every library. Trust: none needed.
//! Threads: plain values.

/// A stream of numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of one thing, such as one file, of a corpus. Streams of different things are not related.
    pub fn of(seed: u64, thing: u64) -> Self {
        let mut mixed = Self(seed);
        let salt = mixed.next();
        let mut random = Self(salt ^ thing.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0. The bias is below 2^-32 for the small ends used here.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of a product is below `end`, so it fits.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    /// Puts `items` in another order, each order as likely as any.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// As an image or anything else that is compressed already: no codec gains on it.
    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Token ids of 16 bits, small ones far more often than large ones: compresses a little.
    pub fn tokens(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            let number = self.next();
            // Two numbers of 16 bits multiplied fall towards 0; their product's high half fits into 16 bits.
            for (a, b) in [(number, number >> 16), (number >> 32, number >> 48)] {
                let token = (((a & 0xFFFF) * (b & 0xFFFF)) >> 16) as u16;
                bytes.extend_from_slice(&token.to_le_bytes());
            }
        }
        bytes.truncate(len);
        bytes
    }
}

/// The words of a language that nobody speaks.
pub struct Language(Vec<Vec<u8>>);

impl Language {
    const WORDS: u64 = 4096;

    pub fn new(seed: u64) -> Self {
        let mut random = Random::of(seed, u64::MAX);
        let word = |_| {
            let len = random.between(2, 11);
            (0..len).map(|_| b'a' + random.below(26) as u8).collect()
        };
        Self((0..Self::WORDS).map(word).collect())
    }

    /// Sentences: a few words are frequent, most are rare, and each has one that follows it in two cases of three.
    /// LZ4 makes about two thirds of it, as it does of English.
    pub fn text(&self, random: &mut Random, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 16);
        let mut word = 0;
        while bytes.len() < len {
            word = match random.below(3) {
                0 | 1 => (word * 7 + 1) % Self::WORDS,
                _ => {
                    // The cube of a number between 0 and 1 is mostly small.
                    let at = random.below(1 << 16);
                    (((at * at) >> 16) * at * Self::WORDS) >> 32
                }
            };
            bytes.extend_from_slice(&self.0[word as usize]);
            bytes.extend_from_slice(if random.below(12) == 0 { b".\n" } else { b" " });
        }
        bytes.truncate(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        // The first outputs of SplitMix64 from 0, as published with it.
        let mut random = Random(0);
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn the_looks_compress_as_they_say() {
        let ratio = |bytes: &[u8]| bytes.len() as f64 / lz4_flex::block::compress(bytes).len() as f64;
        let mut random = Random::of(1, 2);
        let language = Language::new(1);
        assert!(ratio(&random.noise(65_536)) < 1.0);
        let tokens = ratio(&random.tokens(65_536));
        assert!((0.99..1.1).contains(&tokens), "{tokens}");
        let text = ratio(&language.text(&mut random, 65_536));
        assert!((1.3..1.9).contains(&text), "{text}");
    }

    #[test]
    fn shuffling_loses_nothing() {
        let mut items: Vec<u32> = (0..100).collect();
        Random::of(1, 1).shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort();
        assert!(items.into_iter().eq(0..100));
    }
}
