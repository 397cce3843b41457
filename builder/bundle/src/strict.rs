//! TOML read strictly: every problem at once, each with its line, unknown keys with the nearest
//! known one. Files are read through a [`Table`], key by key; what nobody asked for is an error.

use thiserror::Error;

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// 1-based; `None` where no place in the file can be named (a missing key of the root).
    pub line: Option<usize>,
    /// Dotted path of the key: `stream[0].uri`.
    pub key: String,
    /// `unknown key, did you mean `uri`?`
    pub message: String,
}

/// Everything wrong with a file, in the order of its lines.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{file}` has {} problem(s)", problems.len())]
pub struct Problems {
    pub file: String,
    pub problems: Vec<Problem>,
}
