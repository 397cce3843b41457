//! A file in either spelling: groups of keys, each with the line that it stands on.

use std::path::Path;

use revoada_bundle::strict::{Problem, TEXT_BYTES_MAX};

use super::{key_file, yaml};

/// A file's groups in their order. What could not be read is among the problems that come with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    /// 1-based, like every line here.
    pub(super) line: usize,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

impl File {
    /// Reads the bytes of a file; its name tells the spelling, and is what problems name. A problem does not end the
    /// reading, so that all of them are told at once.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> (Self, Vec<Problem>) {
        let mut reader = Reader { origin: path.display().to_string(), file: Self::default(), problems: Vec::new() };
        if bytes.len() > TEXT_BYTES_MAX {
            reader.problem(None, "", format!("{} bytes long, at most {TEXT_BYTES_MAX} are read", bytes.len()));
        } else {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
                    match is_yaml(path) {
                        true => yaml::read(text, &mut reader),
                        false => key_file::read(text, &mut reader),
                    }
                }
                Err(error) => {
                    let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
                    reader.problem(Some(line), "", "is not a text in UTF-8");
                }
            }
        }
        (reader.file, reader.problems)
    }
}

impl Group {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

fn is_yaml(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["yml", "yaml"].iter().any(|yaml| yaml.eq_ignore_ascii_case(extension))
}

/// A file that is being read.
pub(super) struct Reader {
    origin: String,
    file: File,
    problems: Vec<Problem>,
}

impl Reader {
    /// A message stays a line, though it may quote a text of several.
    pub(super) fn problem(&mut self, line: Option<usize>, key: &str, message: impl Into<String>) {
        let message = message.into().replace(char::is_control, " ");
        let key = key.replace(char::is_control, " ");
        self.problems.push(Problem { origin: self.origin.clone(), line, key, message });
    }

    /// Begins a group, or goes on with it where it was there before. Returns its place.
    pub(super) fn group(&mut self, name: &str, line: usize) -> usize {
        let groups = &mut self.file.groups;
        groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
            groups.push(Group { name: name.to_owned(), line, entries: Vec::new() });
            groups.len() - 1
        })
    }

    /// Adds a key to a group. DeepStream takes the last of two; which of them was meant is for a person to say.
    pub(super) fn entry(&mut self, group: usize, key: &str, value: String, line: usize) {
        let group = &mut self.file.groups[group];
        if let Some(first) = group.entry(key) {
            let message = format!("stands on line {}, too; remove one of the two", first.line);
            let path = format!("{}.{key}", group.name);
            return self.problem(Some(line), &path, message);
        }
        group.entries.push(Entry { key: key.to_owned(), value, line });
    }
}
