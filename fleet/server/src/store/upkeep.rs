//! What keeps the store itself.

use std::path::Path;

use super::Result;

pub trait Upkeep {
    /// Whether it can be read and written.
    fn check(&self) -> Result<()>;

    /// Writes a copy of everything as it is at one moment, while others read and write. The target appears whole or not at
    /// all; one that is there is replaced.
    fn backup(&self, target: &Path) -> Result<()>;
}
