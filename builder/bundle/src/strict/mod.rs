//! TOML read strictly: every problem at once, each with its line, unknown keys with the nearest
//! known one. Pure: text comes in, values and problems go out.
//!
//! A file is read through [`Table`]s, key by key. A getter that finds nothing returns `None`; one that
//! finds the wrong thing records a problem and returns `None` too, so that reading goes on and the
//! person sees everything at once. What nobody asked for is an error when the document is finished.
//!
//! ```
//! use revoada_bundle::strict::Document;
//!
//! let text = "[[stream]]\nurl = \"a.mp4\"\nqueue = 0\n";
//! let document = Document::parse("pipeline.toml", text)?;
//! for stream in document.root().tables("stream") {
//!     let _uri: Option<String> = stream.required().string("uri");
//!     let _queue: usize = stream.integer("queue", 1..=64).unwrap_or(4);
//! }
//! let problems = document.finish().unwrap_err();
//! assert_eq!(
//!     problems.to_string(),
//!     "pipeline.toml:1: stream[0].uri: this key is missing\n\
//!      pipeline.toml:2: stream[0].url: unknown key, did you mean `uri`?\n\
//!      pipeline.toml:3: stream[0].queue: expected an integer from 1 to 64, got 0"
//! );
//! # Ok::<(), revoada_bundle::strict::Problems>(())
//! ```

mod duration;
mod table;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use thiserror::Error;
use toml_edit::{DocumentMut, Item, TableLike};

pub use duration::{duration_text, parse_duration};
pub use revoada_core::nearest;
pub use table::Table;

/// A file that people write by hand has no business being longer; parsing stays instant below it.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// One thing wrong with a file (or with the command line that was laid over it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or what [`Document::overlay`] called the values that came from elsewhere.
    pub origin: String,
    /// 1-based; `None` where no place in the file can be named (a missing key of the root).
    pub line: Option<usize>,
    /// Dotted path of the key: `stream[0].uri`; empty where the whole file is meant.
    pub key: String,
    /// ``unknown key, did you mean `uri`?``
    pub message: String,
}

/// `pipeline.toml:3: stream[0].uri: this key is missing`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything wrong with a file, in the order of its lines; printed one problem a line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", lines(problems))]
pub struct Problems {
    pub file: String,
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// A parsed file that is being read.
#[derive(Debug)]
pub struct Document {
    file: String,
    /// Byte offset of the start of every line but the first.
    line_starts: Vec<usize>,
    root: toml_edit::Table,
    /// What [`Document::overlay`] called its values.
    overlay_origin: Option<String>,
    problems: RefCell<Vec<Problem>>,
    /// By path of an opened table, the keys that somebody asked for.
    asked: RefCell<BTreeMap<String, BTreeSet<String>>>,
}

impl Document {
    /// Parses a file's text; `file` is only for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let refuse = |line, message| Problems {
            file: file.to_owned(),
            problems: vec![Problem { origin: file.to_owned(), line, key: String::new(), message }],
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(refuse(None, format!("{} bytes long, at most {TEXT_BYTES_MAX} are read", text.len())));
        }
        let line_starts: Vec<usize> = text.match_indices('\n').map(|(offset, _)| offset + 1).collect();
        match toml_edit::Document::parse(text) {
            Ok(parsed) => Ok(Self { line_starts, root: parsed.into_table(), ..Self::empty(file) }),
            Err(error) => {
                let line = error.span().map(|span| line_of(&line_starts, &span));
                Err(refuse(line, error.message().trim().replace('\n', ", ")))
            }
        }
    }

    /// A document without keys: what is described wholly by an [overlay](Self::overlay). `origin` is
    /// where missing keys are missed.
    pub fn empty(origin: &str) -> Self {
        Self {
            file: origin.to_owned(),
            line_starts: Vec::new(),
            root: toml_edit::Table::new(),
            overlay_origin: None,
            problems: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// Lays values from elsewhere (flags) over the file's: tables are merged key by key, everything
    /// else, arrays of tables included, is replaced. Problems with these values name `origin` and
    /// no line. Only one overlay is kept apart by name.
    pub fn overlay(&mut self, origin: &str, values: DocumentMut) {
        self.overlay_origin = Some(origin.to_owned());
        merge(&mut self.root, values.as_table());
    }

    /// Lays values over every table of the array `key`, under the same origin as
    /// [`Document::overlay`]; call it after that.
    pub fn overlay_each(&mut self, key: &str, values: &DocumentMut) {
        match self.root.get_mut(key) {
            Some(Item::ArrayOfTables(tables)) => tables.iter_mut().for_each(|table| merge(table, values.as_table())),
            Some(Item::Value(toml_edit::Value::Array(array))) => {
                let tables = array.iter_mut().filter_map(|value| value.as_inline_table_mut());
                tables.for_each(|table| merge(table, values.as_table()));
            }
            _ => {}
        }
    }

    pub fn root(&self) -> Table<'_> {
        Table::open(self, &self.root, String::new(), None)
    }

    /// Every problem that reading recorded, and every key that nobody asked for.
    pub fn finish(self) -> Result<(), Problems> {
        self.report_unknown("", &self.root);
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(());
        }
        // What the file says comes first, in its order; a stable sort keeps the order of reading
        // within a line.
        problems.sort_by_key(|problem| (problem.origin != self.file, problem.line));
        Err(Problems { file: self.file, problems })
    }

    fn report_unknown(&self, path: &str, table: &dyn TableLike) {
        let asked = self.asked.borrow();
        let Some(known) = asked.get(path) else { return };
        for (key, item) in table.iter() {
            let key_path = join(path, key);
            if !known.contains(key) {
                let hint = match nearest(key, known.iter().map(String::as_str)) {
                    Some(near) => format!("unknown key, did you mean `{near}`?"),
                    None if known.is_empty() => "unknown key".to_owned(),
                    None => format!("unknown key, choose from {}", quoted(known.iter().map(String::as_str))),
                };
                self.report(self.span_of(table, key), key_path, hint);
            } else if let Some(inner) = item.as_table_like() {
                self.report_unknown(&key_path, inner);
            } else {
                for (index, element) in elements(item).into_iter().enumerate() {
                    self.report_unknown(&format!("{key_path}[{index}]"), element);
                }
            }
        }
    }

    /// Records a problem with something that stands in the file at `span`, or in the overlay where
    /// there is none.
    fn report(&self, span: Option<Range<usize>>, key: String, message: String) {
        let (origin, line) = match (&span, &self.overlay_origin) {
            (None, Some(origin)) => (origin.clone(), None),
            _ => (self.file.clone(), span.map(|span| line_of(&self.line_starts, &span))),
        };
        self.record(origin, line, key, &message);
    }

    /// Each problem stays one line, though a message may quote a string of several.
    fn record(&self, origin: String, line: Option<usize>, key: String, message: &str) {
        let message = message.replace(char::is_control, " ");
        self.problems.borrow_mut().push(Problem { origin, line, key, message });
    }

    /// Where a key stands; its value's place where the key itself has none.
    fn span_of(&self, table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
        let (key, item) = table.get_key_value(key)?;
        key.span().or_else(|| item.span())
    }
}

fn line_of(line_starts: &[usize], span: &Range<usize>) -> usize {
    line_starts.partition_point(|start| *start <= span.start) + 1
}

fn merge(target: &mut dyn TableLike, values: &dyn TableLike) {
    for (key, value) in values.iter() {
        if let Some(inner) = value.as_table_like()
            && let Some(target) = target.get_mut(key).and_then(Item::as_table_like_mut)
        {
            merge(target, inner);
            continue;
        }
        // Removed first, because a key that stays keeps the place of the value that it had.
        target.remove(key);
        target.insert(key, value.clone());
    }
}

/// The tables of an array of tables, however it is written; empty for everything else.
fn elements(item: &Item) -> Vec<&dyn TableLike> {
    match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
        Item::Value(toml_edit::Value::Array(array)) => {
            array.iter().filter_map(|value| value.as_inline_table()).map(|table| table as &dyn TableLike).collect()
        }
        _ => Vec::new(),
    }
}

fn join(path: &str, key: &str) -> String {
    let key = toml_edit::Key::new(key);
    let key = key.display_repr();
    if path.is_empty() { key.into_owned() } else { format!("{path}.{key}") }
}

fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn problems(text: &str, read: impl FnOnce(&Table<'_>)) -> String {
        let document = Document::parse("a.toml", text).expect("the test's text is TOML");
        read(&document.root());
        document.finish().map_or_else(|problems| problems.to_string(), |()| String::new())
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = Document::parse("a.toml", "a = 1\nb = [1,\n").unwrap_err();
        assert!(error.to_string().starts_with("a.toml:"), "{error}");
        assert!(error.problems[0].line >= Some(2), "{error}");
        let error = Document::parse("a.toml", "a = 1\na = 2\n").unwrap_err();
        assert_eq!(error.to_string(), "a.toml:2: duplicate key");
    }

    #[test]
    fn wrong_types_say_what_was_expected_and_what_was_got() {
        let text = "s = 1\ni = \"x\"\nf = true\nb = 1.5\nl = [\"a\", 2]\nt = 3\ntt = [1]\nc = \"rgv\"\nd = 5\n";
        let got = problems(text, |root| {
            assert_eq!(root.string("s"), None);
            assert_eq!(root.integer::<u32>("i", ..), None);
            assert_eq!(root.float("f", ..), None);
            assert_eq!(root.boolean("b"), None);
            assert_eq!(root.strings("l"), None);
            assert!(root.table("t").is_none());
            assert!(root.tables("tt").is_empty());
            assert_eq!(root.choice("c", &[("rgb", 1), ("bgr", 2)]), None);
            assert_eq!(root.duration("d", ..), None);
        });
        let expected = "a.toml:1: s: expected a string, got the integer 1\n\
            a.toml:2: i: expected an integer, got the string `x`\n\
            a.toml:3: f: expected a number, got the boolean true\n\
            a.toml:4: b: expected true or false, got the number 1.5\n\
            a.toml:5: l[1]: expected a string, got the integer 2\n\
            a.toml:6: t: expected a table, got the integer 3\n\
            a.toml:7: tt[0]: expected a table, got the integer 1\n\
            a.toml:8: c: expected one of `rgb`, `bgr`, got `rgv`, did you mean `rgb`?\n\
            a.toml:9: d: expected a duration such as `500ms`, `10s` or `2m`, got the integer 5";
        assert_eq!(got, expected);
    }

    #[test]
    fn ranges_are_kept_and_named() {
        let got = problems("a = 0\nb = 300\nc = 2\nd = nan\ne = -1\nf = \"1h\"\n", |root| {
            assert_eq!(root.integer("a", 1u32..=8), None);
            assert_eq!(root.integer::<u8>("b", ..), None);
            assert_eq!(root.float("c", 0.0..=1.0), None);
            assert_eq!(root.float("d", ..), None);
            assert_eq!(root.integer("e", 0usize..), None);
            assert_eq!(root.duration("f", ..=Duration::from_secs(60)), None);
        });
        let expected = "a.toml:1: a: expected an integer from 1 to 8, got 0\n\
            a.toml:2: b: expected an integer from 0 to 255, got 300\n\
            a.toml:3: c: expected a number from 0 to 1, got 2\n\
            a.toml:4: d: expected a finite number, got NaN\n\
            a.toml:5: e: expected an integer of at least 0, got -1\n\
            a.toml:6: f: expected a duration of at most 1m, got 1h";
        assert_eq!(got, expected);
    }

    #[test]
    fn what_nobody_asked_for_is_an_error_at_any_depth() {
        let text = "uri = 1\n[a.b]\nuro = 2\n[[c]]\nx = 1\n[[c]]\ny = 1\nzz = 1\n[d]\n";
        let got = problems(text, |root| {
            root.table("a").and_then(|a| a.table("b")).and_then(|b| b.string("uri"));
            for c in root.tables("c") {
                assert!(c.integer::<u32>("x", ..).is_some() || c.integer::<u32>("y", ..).is_some());
            }
        });
        let expected = "a.toml:1: uri: unknown key, choose from `a`, `c`\n\
            a.toml:3: a.b.uro: unknown key, did you mean `uri`?\n\
            a.toml:8: c[1].zz: unknown key, choose from `x`, `y`\n\
            a.toml:9: d: unknown key, choose from `a`, `c`";
        assert_eq!(got, expected);
    }

    #[test]
    fn a_missing_key_is_missed_at_its_table() {
        let got = problems("\n[a]\n", |root| {
            root.required().string("name");
            root.table("a").map(|a| a.required().string("uri"));
            root.required().table("b");
        });
        let expected =
            "a.toml: name: this key is missing\na.toml: b: this key is missing\na.toml:2: a.uri: this key is missing";
        assert_eq!(got, expected);
    }

    #[test]
    fn an_overlay_replaces_values_and_answers_for_its_own() {
        let mut document = Document::parse("a.toml", "[a]\nx = 1\ny = 2\n[[s]]\nz = 1\n").unwrap();
        let flags = "a.x = 7\na.w = 1\ns = [{ z = 2 }, { z = \"no\" }]\n".parse().unwrap();
        document.overlay("command line", flags);
        let a = document.root().table("a").unwrap();
        assert_eq!((a.integer("x", 0..10), a.integer("y", 0..1)), (Some(7), None));
        let s: Vec<Option<i64>> = document.root().tables("s").iter().map(|s| s.integer("z", ..)).collect();
        assert_eq!(s, [Some(2), None]);
        let expected = "a.toml:3: a.y: expected an integer from 0 to below 1, got 2\n\
            command line: s[1].z: expected an integer, got the string `no`\n\
            command line: a.w: unknown key, choose from `x`, `y`";
        assert_eq!(document.finish().unwrap_err().to_string(), expected);
    }

    #[test]
    fn an_overlay_of_each_table_leaves_the_rest_of_it_alone() {
        for text in ["[[s]]\nz = 1\nk = 5\n[[s]]\n", "s = [{ z = 1, k = 5 }, {}]\n"] {
            let mut document = Document::parse("a.toml", text).unwrap();
            document.overlay("command line", DocumentMut::new());
            document.overlay_each("s", &"z = 9\n".parse().unwrap());
            let tables = document.root().tables("s");
            let z: Vec<Option<i64>> = tables.iter().map(|s| s.integer("z", 0..=8)).collect();
            let k: Vec<Option<i64>> = tables.iter().map(|s| s.integer("k", ..)).collect();
            assert_eq!((z, k), (vec![None, None], vec![Some(5), None]));
            drop(tables);
            let expected = "command line: s[0].z: expected an integer from 0 to 8, got 9\n\
                command line: s[1].z: expected an integer from 0 to 8, got 9";
            assert_eq!(document.finish().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn semantic_problems_stand_at_their_key() {
        let got = problems("a = 1\n[t]\nb = 2\n", |root| {
            root.integer::<u32>("a", ..);
            root.problem("a", "too few for `t`");
            let t = root.table("t").unwrap();
            t.ignore_rest();
            t.problem("absent", "needs `b`");
        });
        assert_eq!(got, "a.toml:1: a: too few for `t`\na.toml:2: t.absent: needs `b`");
    }

    #[test]
    fn a_problem_stays_one_line_whatever_it_quotes() {
        let got = problems("a = \"x\\ny\"\nb = \"x\\r\\ny\"\n\"c\\n\" = 1\n", |root| {
            root.choice("a", &[("z", 1)]);
            root.problem("b", format!("cannot read `{}`", root.string("b").unwrap()));
        });
        let expected = "a.toml:1: a: expected one of `z`, got `x y`\n\
            a.toml:2: b: cannot read `x  y`\n\
            a.toml:3: \"c\\n\": unknown key, choose from `a`, `b`";
        assert_eq!(got, expected);
    }

    #[test]
    fn lists_and_maps_are_read_whole() {
        let got = problems("f = [1, 2.5]\nm = { a = \"x\", \"b c\" = \"y\" }\ni = [1, 2]\n", |root| {
            assert_eq!(root.floats("f", 0.0..), Some(vec![1.0, 2.5]));
            assert_eq!(root.integers("i", 0u8..), Some(vec![1, 2]));
            let map = root.string_map("m").unwrap();
            assert_eq!(map.into_iter().collect::<Vec<_>>(), [("a".into(), "x".into()), ("b c".into(), "y".into())]);
        });
        assert_eq!(got, "");
    }

    #[test]
    fn a_text_past_the_bound_is_refused() {
        let error = Document::parse("a.toml", &" ".repeat(TEXT_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error.to_string(), "a.toml: 4194305 bytes long, at most 4194304 are read");
    }
}
