//! What keeps the store itself.

use std::path::Path;

use super::Result;

/// The store as a whole.
pub trait Upkeep {
    /// Whether it can be read and written.
    fn check(&self) -> Result<()>;

    /// Writes a copy of everything as it is at one moment, while others read and write. The target appears whole or not at
    /// all, and only its owner may read it; a copy that is there is replaced, a database in use is not.
    fn backup(&self, target: &Path) -> Result<()>;
}
