//! The parts of `cargo xtask` that tests may want for themselves: servers to run against.

use std::path::Path;

pub mod attend;
pub mod stack;

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
