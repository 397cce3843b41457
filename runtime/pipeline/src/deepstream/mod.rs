//! DeepStream's configuration files, read as they are and said in ours.
#![allow(dead_code)]
mod file;
mod key_file;
mod yaml;

#[cfg(test)]
mod tests;
