//! DeepStream's files, read as they are: deepstream-app's, nvinfer's, nvdsanalytics' and the tracker's, as key files or
//! YAML. They become a pipeline in our own words, which is all that runs.
//!
//! Every key that is known stands in one table, with its default and what becomes of it; [`keys_page`] prints it. Whatever
//! has no effect is a note, whatever cannot be honoured or is not known is a problem, and all of them are told at once.
//! Pure: files come through the function that is passed in.
//!
//! ```
//! use std::path::Path;
//!
//! let app = "[source0]\nenable=1\ntype=2\nuri=file://clip.mp4\n\
//!            [primary-gie]\nenable=1\nconfig-file=infer.txt\n\
//!            [sink0]\nenable=1\ntype=1\ngpu-id=0\n";
//! let infer = "[property]\nonnx-file=model.onnx\nnetwork-type=1\n";
//! let mut read = |path: &Path| match path.to_str() {
//!     Some("dir/app.txt") => Ok(app.as_bytes().to_vec()),
//!     Some("dir/infer.txt") => Ok(infer.as_bytes().to_vec()),
//!     _ => Err(std::io::ErrorKind::NotFound.into()),
//! };
//! let converted = revoada_pipeline::deepstream::convert(Path::new("dir/app.txt"), Path::new(""), &mut read)?;
//! assert!(converted.toml.contains("path = \"model.onnx\""), "{}", converted.toml);
//! assert_eq!(
//!     converted.notes_text(),
//!     "dir/app.txt:11: sink0.gpu-id: has no effect: there is one GPU, the backend's\n"
//! );
//! # Ok::<(), revoada_pipeline::config::Problems>(())
//! ```

mod analytics;
mod app;
mod file;
mod infer;
mod key_file;
mod keys;
mod page;
mod record;
mod section;
mod sink;
mod source;
mod tracker;
mod yaml;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::path::{Component, Path, PathBuf};

use revoada_bundle::strict::{Problem, Problems};

pub use page::keys_page;

use file::File;
use keys::Kind;
use section::{Report, Source};

/// Reads a file's bytes.
pub type Read<'a> = dyn FnMut(&Path) -> io::Result<Vec<u8>> + 'a;

/// A pipeline of DeepStream in our words.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// A pipeline's file.
    pub toml: String,
    /// What has no effect, and why; what becomes other than it was asked for.
    pub notes: Vec<Problem>,
}

impl Converted {
    /// The notes, a line each; those of a file that say the same share one.
    pub fn notes_text(&self) -> String {
        struct Said<'n> {
            first: &'n Problem,
            lines: Vec<String>,
            keys: Vec<&'n str>,
        }
        let mut said: Vec<Said<'_>> = Vec::new();
        for note in &self.notes {
            let same =
                said.iter().position(|said| said.first.origin == note.origin && said.first.message == note.message);
            let place = same.unwrap_or_else(|| {
                said.push(Said { first: note, lines: Vec::new(), keys: Vec::new() });
                said.len() - 1
            });
            said[place].lines.extend(note.line.map(|line| line.to_string()));
            said[place].keys.push(&note.key);
        }
        let mut text = String::new();
        for Said { first, lines, keys } in said {
            let (lines, keys) = (lines.join(","), keys.join(", "));
            writeln!(text, "{}:{lines}: {keys}: {}", first.origin, first.message)
                .expect("a string takes whatever is written to it");
        }
        text
    }
}

/// Converts the application's file at `path`, and those that it names, which are read by `read`. Paths in the result are
/// relative to the folder of `path`, and begin with `base` where that is not empty.
pub fn convert(path: &Path, base: &Path, read: &mut Read<'_>) -> Result<Converted, Problems> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let files = Files { folder, base: base.to_owned(), read: RefCell::new(read) };
    let report = Report::default();
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    let toml = match files.load(Kind::App, &name, &report) {
        Ok(mut source) => {
            source::expand(&mut source.file, &files, |line, message| {
                let problem = Problem {
                    origin: source.origin.clone(),
                    line: Some(line),
                    key: "source.csv-file-path".into(),
                    message,
                };
                report.problems.borrow_mut().push(problem);
            });
            app::pipeline(&source, &files, &report).to_string()
        }
        Err(message) => {
            let problem = Problem { origin: path.display().to_string(), line: None, key: String::new(), message };
            report.problems.borrow_mut().push(problem);
            String::new()
        }
    };
    let (mut problems, mut notes) = (report.problems.into_inner(), report.notes.into_inner());
    let file = path.display().to_string();
    for said in [&mut problems, &mut notes] {
        // The application's own come first, in its order.
        said.sort_by_key(|said| (said.origin != file, said.origin.clone(), said.line));
    }
    if problems.is_empty() { Ok(Converted { toml, notes }) } else { Err(Problems { file, problems }) }
}

/// The files of an application. Paths are relative to its folder.
struct Files<'a> {
    folder: PathBuf,
    base: PathBuf,
    read: RefCell<&'a mut Read<'a>>,
}

impl Files<'_> {
    /// A path that a file in `folder` names.
    fn resolve(&self, folder: &Path, named: &str) -> PathBuf {
        let mut plain = PathBuf::new();
        for component in folder.join(named).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                    plain.pop();
                }
                other => plain.push(other),
            }
        }
        plain
    }

    /// A path as the result says it.
    fn shown(&self, path: &Path) -> String {
        self.base.join(path).display().to_string()
    }

    fn text(&self, path: &Path) -> Result<String, String> {
        let bytes = self.bytes(path)?;
        String::from_utf8(bytes).map_err(|_| format!("`{}` is not a text in UTF-8", path.display()))
    }

    fn bytes(&self, path: &Path) -> Result<Vec<u8>, String> {
        let path = self.folder.join(path);
        (self.read.borrow_mut())(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))
    }

    /// Reads a file, and tells what is wrong with its text.
    fn load(&self, kind: Kind, path: &Path, report: &Report) -> Result<Source, String> {
        let bytes = self.bytes(path)?;
        let path = self.folder.join(path);
        let (file, problems) = File::parse(&path, &bytes);
        report.problems.borrow_mut().extend(problems);
        Ok(Source { origin: path.display().to_string(), kind, file })
    }
}
