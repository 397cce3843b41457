//! The files and programs of the machine that is looked at. Tests put a folder in the place of `/`, and programs of
//! their own into the `PATH`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `dpkg`'s list of packages is the longest file that is read: some megabytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Debug)]
pub(super) struct System {
    root: PathBuf,
}

impl System {
    /// `root` is `/`, but in tests.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// `path`, which begins with `/`, on this system.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text; `None` where it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        read(&self.path(path))
    }

    /// A file's first line, without the marks that device trees end and releases begin with.
    pub(super) fn line(&self, path: &str) -> Option<String> {
        first_line(&self.text(path)?)
    }

    /// The file names of a folder, sorted; none where it cannot be read.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// What a program says on standard output; the error continues a sentence.
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = run.map_err(|error| format!("`{program}` cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
        return Err(format!("`{program}` ended with {}: {said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn first_line(text: &str) -> Option<String> {
    text.lines().next().map(|line| line.trim_matches(['\0', ' ', '#', '\t']).to_owned())
}
