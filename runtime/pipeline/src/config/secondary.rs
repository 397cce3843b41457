//! `[[secondary]]`: further models, that read the objects which the first one found, or whole frames as it does.

use std::path::Path;

use revoada_bundle::strict::Table;
use revoada_core::Size;
use toml_edit::{Item, Table as TomlTable};

use super::{ModelConfig, print, read};

/// More models than a cascade of any use; each has an engine in memory.
pub(super) const SECONDARIES_MAX: usize = 16;
/// Pictures of one inference.
const BATCH_MAX: usize = 64;
const BATCH_DEFAULT: usize = 8;
/// Objects of one frame that a model is asked about.
const OBJECTS_MAX: usize = 1024;
const OBJECTS_DEFAULT: usize = 32;
const EVERY_MAX: u32 = 1_000_000;
const NAME_CHARS_MAX: usize = 64;

/// One more model.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondaryConfig {
    /// What its answers are called; the model's own name where there is none.
    pub name: Option<String>,
    pub model: ModelConfig,
    pub reads: Reads,
    /// Most pictures of one inference.
    pub batch_max: usize,
}

/// What a secondary model is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Reads {
    /// Every n-th of the frames that the first model reads, whole. What it finds counts as the first one's.
    Frames {
        every: u32,
    },
    Objects(ObjectsConfig),
}

/// Which objects a model is asked about, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectsConfig {
    /// Labels of their classes; empty: all.
    pub on: Vec<String>,
    /// Width and height, each of which an object has at least, in pixels of the frame.
    pub size_min: Size,
    /// And at most.
    pub size_max: Option<Size>,
    /// Grow each box by this fraction of its size on every side.
    pub margin: f32,
    /// Ask again about an object that is tracked after so many frames; `None`: once. One that is not tracked is asked
    /// about in every frame.
    pub every: Option<u32>,
    /// Most objects of one frame, the largest first.
    pub objects_max: usize,
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            on: Vec::new(),
            size_min: Size::new(16, 16),
            size_max: None,
            margin: 0.0,
            every: None,
            objects_max: OBJECTS_DEFAULT,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Objects,
    Frames,
}

const KINDS: [(&str, Kind); 2] = [("objects", Kind::Objects), ("frames", Kind::Frames)];

/// Reads one table, whose other keys are those of `[model]`.
pub(super) fn secondary(table: &Table<'_>, folder: &Path) -> Option<SecondaryConfig> {
    let name = table.string("name").and_then(|name| {
        let fits = !name.trim().is_empty() && name.chars().count() <= NAME_CHARS_MAX;
        if !fits {
            table.problem("name", format!("expected 1 to {NAME_CHARS_MAX} characters"));
        }
        fits.then_some(name)
    });
    let every = table.integer("every", 1..=EVERY_MAX);
    let reads = match table.choice("reads", &KINDS).unwrap_or(Kind::Objects) {
        Kind::Objects => Reads::Objects(objects(table, every)),
        Kind::Frames => {
            for key in ["on", "size_min", "size_max", "margin", "objects_max"] {
                if table.has(key) {
                    table.problem(key, "has no effect on a model that reads whole frames");
                }
            }
            Reads::Frames { every: every.unwrap_or(1) }
        }
    };
    if matches!(reads, Reads::Objects(_)) && table.has("tiles") {
        table.problem("tiles", "has no effect on a model that reads objects");
    }
    if table.has("concurrent_max") {
        table.problem("concurrent_max", "has no effect: a further model is asked about one batch after the other");
    }
    let batch_max = table.integer("batch_max", 1..=BATCH_MAX).unwrap_or(BATCH_DEFAULT);
    Some(SecondaryConfig { name, model: read::model(table, folder)?, reads, batch_max })
}

fn objects(table: &Table<'_>, every: Option<u32>) -> ObjectsConfig {
    let default = ObjectsConfig::default();
    let size_min = read::size(table, "size_min").unwrap_or(default.size_min);
    let size_max = read::size(table, "size_max");
    if size_max.is_some_and(|max| max.width < size_min.width || max.height < size_min.height) {
        table.problem("size_max", format!("is less than `size_min`, {size_min}"));
    }
    ObjectsConfig {
        on: table.strings("on").unwrap_or_default(),
        size_min,
        size_max,
        margin: table.float("margin", 0.0..=2.0).map_or(default.margin, |margin| margin as f32),
        every,
        objects_max: table.integer("objects_max", 1..=OBJECTS_MAX).unwrap_or(default.objects_max),
    }
}

/// As [`secondary`] reads it.
pub(super) fn to_table(config: &SecondaryConfig) -> TomlTable {
    let mut out = print::model(&config.model);
    let mut put = |key: &str, value: toml_edit::Value| drop(out.insert(key, Item::Value(value)));
    if let Some(name) = &config.name {
        put("name", name.as_str().into());
    }
    put("batch_max", print::integer(config.batch_max as u64));
    match &config.reads {
        Reads::Frames { every } => {
            put("reads", "frames".into());
            put("every", print::integer((*every).into()));
        }
        Reads::Objects(objects) => {
            put("reads", "objects".into());
            if !objects.on.is_empty() {
                put("on", objects.on.iter().map(String::as_str).collect());
            }
            put("size_min", print::size(objects.size_min));
            if let Some(size_max) = objects.size_max {
                put("size_max", print::size(size_max));
            }
            put("margin", print::number(objects.margin));
            if let Some(every) = objects.every {
                put("every", print::integer(every.into()));
            }
            put("objects_max", print::integer(objects.objects_max as u64));
        }
    }
    out
}
