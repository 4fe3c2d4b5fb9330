//! The chain that ties outcomes together, and the reader's rule that makes every reader see the same list.

use sha2::{Digest, Sha256};

/// First 32 hex digits of SHA-256(previous chain as ASCII ‖ payload).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain([u8; 32]);

impl Chain {
    /// The `prev` of the first outcome.
    pub const FIRST: Chain = Chain([b'0'; 32]);

    pub fn next(self, payload: &[u8]) -> Chain {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = Sha256::new().chain_update(self.0).chain_update(payload).finalize();
        let mut out = [0; 32];
        for (pair, byte) in out.chunks_exact_mut(2).zip(digest) {
            pair[0] = HEX[(byte >> 4) as usize];
            pair[1] = HEX[(byte & 15) as usize];
        }
        Chain(out)
    }
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
    pub fn parse(text: &str) -> Option<Chain> {
        let bytes: [u8; 32] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(Chain(bytes))
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record of the outcomes log as a reader meets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Position of the event that this outcome is of.
    pub src: u64,
    pub prev: Chain,
    pub chain: Chain,
}

/// Up to which outcome a reader has taken records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The `src` that is taken next.
    pub next: u64,
    pub chain: Chain,
}

impl Position {
    pub const START: Position = Position { next: 0, chain: Chain::FIRST };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next record of the one list: take it.
    Take,
    /// Written before by this or another writer: skip it.
    Skip,
    /// A later record without the one before it: wait, then go back.
    Hole,
    /// Two writers decided differently, or acknowledged data was lost: alarm and halt.
    Diverged,
}

/// The reader's rule: a record is taken only if its `src` is the next one, and its `prev` is the last `chain`.
pub fn judge(position: &Position, link: &Link, payload: &[u8]) -> Verdict {
    if link.src < position.next {
        return Verdict::Skip;
    }
    if link.src > position.next {
        return Verdict::Hole;
    }
    if link.prev == position.chain && link.prev.next(payload) == link.chain { Verdict::Take } else { Verdict::Diverged }
}
