//! Random numbers and file content that a seed brings back.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough to choose what a test does next.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// So many bytes, none of them zero: a hole cannot be taken for them. Each has seven bits of chance, so an eighth is to be
    /// gained by compressing them.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.words(length, 0x0101_0101_0101_0101)
    }

    /// So many bytes that nothing makes shorter.
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        self.words(length, 0)
    }

    fn words(&mut self, length: usize, always_set: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&(self.number() | always_set).to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
