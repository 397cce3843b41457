//! The planner is arithmetic: this looks at what its code names.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_planner_does_no_io_reads_no_clock_and_draws_no_chance() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/planner")];
    folders.push(folders[0].with_file_name("filter"));
    let mut files: Vec<PathBuf> = vec![folders[0].with_file_name("inventory.rs")];
    for folder in folders {
        files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    assert!(files.len() >= 12, "only {files:?} were found");
    // The order of a hash map's entries is chance.
    let foreign = [
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "std::thread",
        "Instant",
        "SystemTime",
        "HashMap",
        "HashSet",
        "rand",
    ];
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let named = foreign.iter().find(|word| code.contains(*word));
            assert!(named.is_none(), "{}:{}: `{}`", file.display(), index + 1, line.trim());
        }
    }
}
