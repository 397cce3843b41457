//! What was typed: a file's text, and flags laid over it.

use std::path::{Path, PathBuf};

use revoada_bundle::strict::{Document, Problems};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use super::{PipelineConfig, SourceConfig, check, read};

/// What a flag sets a key to.
pub use toml_edit::Value;

/// What problems with flags are said to come from.
const FLAGS: &str = "command line";

/// A pipeline as it was typed. Flags win over the file; the streams or sinks that flags add replace
/// all of the file's.
#[derive(Clone, Debug)]
pub struct Draft {
    /// For messages.
    file: String,
    text: Option<String>,
    /// What paths in the file are relative to.
    folder: PathBuf,
    /// What paths in flags are relative to, where that is not the same.
    flags_folder: PathBuf,
    flags: DocumentMut,
    every_stream: DocumentMut,
}

impl Draft {
    /// A pipeline that is wholly described by flags; its paths stay as they are typed.
    pub fn empty() -> Self {
        Self {
            file: FLAGS.into(),
            text: None,
            folder: PathBuf::new(),
            flags_folder: PathBuf::new(),
            flags: DocumentMut::new(),
            every_stream: DocumentMut::new(),
        }
    }

    /// Starts from a file's text. Paths in it are relative to the file's folder, those of flags to
    /// `working_folder`.
    pub fn from_file(file: &Path, text: &str, working_folder: &Path) -> Self {
        Self {
            file: file.display().to_string(),
            text: Some(text.to_owned()),
            folder: file.parent().unwrap_or(Path::new("")).to_owned(),
            flags_folder: working_folder.to_owned(),
            ..Self::empty()
        }
    }

    /// Sets a key of a table (`model.backend`), whatever the file says of it.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = self.value(key, value.into());
        set(self.flags.as_table_mut(), key, value);
    }

    /// Sets a key (`interval`, `reconnect.stall_ms`) of every stream, whatever the file says of it.
    pub fn set_every_stream(&mut self, key: &str, value: impl Into<Value>) {
        set(self.every_stream.as_table_mut(), key, value.into());
    }

    /// Adds a stream; the first one replaces all streams of the file.
    pub fn add_stream(&mut self, uri: &str) {
        let mut stream = Table::new();
        stream.insert("uri", Item::Value(self.value("uri", uri.into())));
        self.push("stream", stream);
    }

    /// Adds a sink; the first one replaces all sinks of the file.
    pub fn add_sink<'k, V: Into<Value>>(&mut self, kind: &str, options: impl IntoIterator<Item = (&'k str, V)>) {
        let mut sink = Table::new();
        sink.insert("type", Item::Value(kind.into()));
        for (key, value) in options {
            sink.insert(key, Item::Value(self.value(key, value.into())));
        }
        self.push("sink", sink);
    }

    /// The checked pipeline, or every problem at once.
    pub fn check(&self) -> Result<PipelineConfig, Problems> {
        let mut document = match &self.text {
            Some(text) => Document::parse(&self.file, text)?,
            None => Document::empty(&self.file),
        };
        document.overlay(FLAGS, self.flags.clone());
        document.overlay_each("stream", &self.every_stream);
        checked(document, &self.folder)
    }

    /// A path or URI typed as a flag, made independent of the file's folder.
    fn value(&self, key: &str, value: Value) -> Value {
        let Some(text) = value.as_str().filter(|_| !self.flags_folder.as_os_str().is_empty()) else { return value };
        match key.rsplit('.').next() {
            Some(
                "path" | "folder" | "manifest" | "labels" | "socket" | "snapshots" | "password_file" | "token_file"
                | "ca_file",
            ) => self.flags_folder.join(text).display().to_string().into(),
            Some("uri") => match SourceConfig::parse(text) {
                Ok(source) => source.relative_to(&self.flags_folder).uri().into(),
                Err(_) => value,
            },
            _ => value,
        }
    }

    fn push(&mut self, key: &str, table: Table) {
        let tables = self.flags.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        tables.as_array_of_tables_mut().expect("only this function sets the key").push(table);
    }
}

/// What a document says, where it is right.
pub(super) fn checked(document: Document, folder: &Path) -> Result<PipelineConfig, Problems> {
    let config = {
        let root = document.root();
        let drafted = read::pipeline(&root, folder);
        check::pipeline(&root, &drafted);
        drafted.config()
    };
    document.finish()?;
    Ok(config.expect("what could not be read was recorded as a problem"))
}

/// Sets a dotted key, making the tables on the way.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key, Item::Value(value));
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Item::Table(Table::new()));
            let inner = inner.as_table_mut().expect("keys of flags name either a table or a value");
            set(inner, rest, value);
        }
    }
}
