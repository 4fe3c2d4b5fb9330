//! A small source of chance for the demo's stories.

/// SplitMix64: enough for stories, and for nothing that must not be guessed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` up to and including `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low + 1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.between(1, 100) <= chance
    }

    /// An index below `len`; the first ones are drawn more often, as a few links carry most of the traffic.
    pub fn skewed(&mut self, len: usize) -> usize {
        let (a, b) = (self.between(0, len as u64 - 1), self.between(0, len as u64 - 1));
        a.min(b) as usize
    }

    pub fn word(&mut self, chars: u32) -> String {
        (0..chars).map(|_| char::from(b"abcdefghijkmnpqrstuvwxyz23456789"[(self.draw() % 32) as usize])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_range_and_reach_its_ends() {
        let mut dice = Dice::new(7);
        let drawn: std::collections::BTreeSet<u64> = (0..1_000).map(|_| dice.between(3, 6)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert!((0..1_000).all(|_| dice.skewed(5) < 5));
        assert_eq!(dice.word(12).len(), 12);
    }
}
