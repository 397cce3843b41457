//! One table of a document, and the getters that read it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::{Bound, Range, RangeBounds};
use std::time::Duration;

use toml_edit::{Item, TableLike, Value};

use super::{Document, duration_text, join, nearest, parse_duration, quoted};

/// A table that is being read. Each getter notes that its key is known, returns `None` where the
/// key is absent, and records a problem (and returns `None`) where the value is of the wrong type or
/// out of range.
#[derive(Clone)]
pub struct Table<'d> {
    document: &'d Document,
    table: &'d dyn TableLike,
    path: String,
    /// Where the table stands; `None` for the root and for tables of the overlay.
    span: Option<Range<usize>>,
    required: bool,
}

impl<'d> Table<'d> {
    pub(super) fn open(
        document: &'d Document,
        table: &'d dyn TableLike,
        path: String,
        span: Option<Range<usize>>,
    ) -> Self {
        document.asked.borrow_mut().entry(path.clone()).or_default();
        Self { document, table, path, span, required: false }
    }

    /// The same table, whose getters record a problem where their key is absent.
    pub fn required(&self) -> Self {
        Self { required: true, ..self.clone() }
    }

    /// The dotted path of the table itself; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The keys that are there, in the order of the file.
    pub fn keys(&self) -> Vec<&'d str> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.note(key);
        self.table.contains_key(key)
    }

    /// Takes every key as known: for a table whose meaning cannot be told because of a problem that is
    /// already recorded.
    pub fn ignore_rest(&self) {
        self.keys().into_iter().for_each(|key| self.note(key));
    }

    /// Records a problem with the meaning of a key, at its line where it is there.
    pub fn problem(&self, key: &str, message: impl Display) {
        self.note(key);
        let path = join(&self.path, key);
        match self.table.contains_key(key) {
            true => self.document.report(self.document.span_of(self.table, key), path, message.to_string()),
            false => self.problem_here(path, message.to_string()),
        }
    }

    pub fn string(&self, key: &str) -> Option<String> {
        self.read(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// An integer inside `range`: `1..=64`, `1..` or `..`, whose type's own range is kept, too.
    pub fn integer<T: Integer>(&self, key: &str, range: impl RangeBounds<T>) -> Option<T> {
        let value = self.value(key, "an integer")?;
        self.integer_of(value, &range, &self.place(key, value))
    }

    /// A number inside `range`, with or without a fraction; never NaN or infinite.
    pub fn float(&self, key: &str, range: impl RangeBounds<f64>) -> Option<f64> {
        let value = self.value(key, "a number")?;
        self.float_of(value, &range, &self.place(key, value))
    }

    /// A duration as a string: `500ms`, `10s`, `2m`, `1h`.
    pub fn duration(&self, key: &str, range: impl RangeBounds<Duration>) -> Option<Duration> {
        const EXPECTED: &str = "a duration such as `500ms`, `10s` or `2m`";
        let duration = self.read(key, EXPECTED, |value| value.as_str().and_then(parse_duration))?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let expected = describe(&range, |bound| duration_text(*bound));
        self.problem(key, format!("expected a duration{expected}, got {}", duration_text(duration)));
        None
    }

    /// One of a closed set of words.
    pub fn choice<T: Clone>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let got = self.read(key, format!("one of {}", quoted(words())), Value::as_str)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == got) {
            return Some(value.clone());
        }
        let hint = nearest(got, words()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        self.problem(key, format!("expected one of {}, got `{got}`{hint}", quoted(words())));
        None
    }

    pub fn strings(&self, key: &str) -> Option<Vec<String>> {
        self.list(key, "an array of strings", |value, place| match value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => self.mismatch("a string", value, place),
        })
    }

    pub fn integers<T: Integer>(&self, key: &str, range: impl RangeBounds<T>) -> Option<Vec<T>> {
        self.list(key, "an array of integers", |value, place| self.integer_of(value, &range, place))
    }

    pub fn floats(&self, key: &str, range: impl RangeBounds<f64>) -> Option<Vec<f64>> {
        self.list(key, "an array of numbers", |value, place| self.float_of(value, &range, place))
    }

    /// Arrays of numbers in an array: `[[10, 13], [16, 30]]`.
    pub fn float_lists(&self, key: &str, range: impl RangeBounds<f64>) -> Option<Vec<Vec<f64>>> {
        self.list(key, "an array of arrays of numbers", |value, place| match value.as_array() {
            Some(array) => self.each(array, place, |value, place| self.float_of(value, &range, place)),
            None => self.mismatch("an array of numbers", value, place),
        })
    }

    /// A table of any keys whose values are strings.
    pub fn string_map(&self, key: &str) -> Option<BTreeMap<String, String>> {
        let table = self.table(key)?;
        let keys = table.keys();
        let pairs: Vec<_> = keys.iter().map(|key| Some(((*key).to_owned(), table.string(key)?))).collect();
        pairs.into_iter().collect()
    }

    /// Whether the value is a string; for keys that take one or something else.
    pub fn is_string(&self, key: &str) -> bool {
        self.note(key);
        self.table.get(key).is_some_and(Item::is_str)
    }

    /// Whether the value is an array; for keys that take one or something else.
    pub fn is_array(&self, key: &str) -> bool {
        self.note(key);
        self.table.get(key).is_some_and(Item::is_array)
    }

    /// A table, however it is written: `[key]`, `key.… = …` or `key = { … }`.
    pub fn table(&self, key: &str) -> Option<Table<'d>> {
        let item = self.item(key)?;
        let Some(table) = item.as_table_like() else {
            self.problem(key, format!("expected a table, got {}", Got(item)));
            return None;
        };
        Some(Table::open(self.document, table, join(&self.path, key), self.span_or_own(key, item)))
    }

    /// An array of tables, however it is written: `[[key]]` or `key = [{ … }]`; empty where absent.
    pub fn tables(&self, key: &str) -> Vec<Table<'d>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let path = join(&self.path, key);
        let open = |index, table: &'d dyn TableLike, span: Option<Range<usize>>| {
            Table::open(self.document, table, format!("{path}[{index}]"), span.or_else(|| self.span_or_own(key, item)))
        };
        match item {
            Item::ArrayOfTables(tables) => {
                tables.iter().enumerate().map(|(index, table)| open(index, table, table.span())).collect()
            }
            Item::Value(Value::Array(array)) => {
                let tables = array.iter().enumerate().map(|(index, value)| match value.as_inline_table() {
                    Some(table) => Some(open(index, table, value.span())),
                    None => {
                        let place = Place { path: format!("{path}[{index}]"), span: value.span() };
                        self.mismatch("a table", value, &place)
                    }
                });
                tables.collect::<Vec<_>>().into_iter().flatten().collect()
            }
            _ => {
                self.problem(key, format!("expected an array of tables (`[[{key}]]`), got {}", Got(item)));
                Vec::new()
            }
        }
    }

    fn note(&self, key: &str) {
        let mut asked = self.document.asked.borrow_mut();
        asked.entry(self.path.clone()).or_default().insert(key.to_owned());
    }

    fn item(&self, key: &str) -> Option<&'d Item> {
        self.note(key);
        let item = self.table.get(key).filter(|item| !item.is_none());
        if item.is_none() && self.required {
            self.problem_here(join(&self.path, key), "this key is missing".to_owned());
        }
        item
    }

    /// Records a problem that has no line of its own: at the table's.
    fn problem_here(&self, key: String, message: String) {
        let origin = match (&self.span, self.path.is_empty(), &self.document.overlay_origin) {
            (None, false, Some(origin)) => origin.clone(),
            _ => self.document.file.clone(),
        };
        let line = self.span.as_ref().map(|span| super::line_of(&self.document.line_starts, span));
        self.document.record(origin, line, key, &message);
    }

    /// A value of no table kind.
    fn value(&self, key: &str, expected: &str) -> Option<&'d Value> {
        let item = self.item(key)?;
        if item.as_value().is_none() {
            self.problem(key, format!("expected {expected}, got {}", Got(item)));
        }
        item.as_value()
    }

    fn read<T>(&self, key: &str, expected: impl AsRef<str>, get: impl Fn(&'d Value) -> Option<T>) -> Option<T> {
        let value = self.value(key, expected.as_ref())?;
        get(value).or_else(|| self.mismatch(expected.as_ref(), value, &self.place(key, value)))
    }

    /// Reads every element, so that every bad one is reported; `None` where any is bad.
    fn list<T>(&self, key: &str, expected: &str, get: impl Fn(&'d Value, &Place) -> Option<T>) -> Option<Vec<T>> {
        let value = self.value(key, expected)?;
        let place = self.place(key, value);
        match value.as_array() {
            Some(array) => self.each(array, &place, get),
            None => self.mismatch(expected, value, &place),
        }
    }

    fn each<T>(
        &self,
        array: &'d toml_edit::Array,
        place: &Place,
        get: impl Fn(&'d Value, &Place) -> Option<T>,
    ) -> Option<Vec<T>> {
        let elements = array
            .iter()
            .enumerate()
            .map(|(index, value)| get(value, &Place { path: format!("{}[{index}]", place.path), span: value.span() }));
        elements.collect::<Vec<_>>().into_iter().collect()
    }

    fn integer_of<T: Integer>(&self, value: &Value, range: &impl RangeBounds<T>, place: &Place) -> Option<T> {
        let Some(integer) = value.as_integer() else { return self.mismatch("an integer", value, place) };
        if let Ok(integer) = T::try_from(integer)
            && range.contains(&integer)
        {
            return Some(integer);
        }
        let expected = match (range.start_bound(), range.end_bound()) {
            (Bound::Unbounded, Bound::Unbounded) => describe(&(T::MIN..=T::MAX), T::to_string),
            _ => describe(range, T::to_string),
        };
        self.document.report(
            place.span.clone(),
            place.path.clone(),
            format!("expected an integer{expected}, got {integer}"),
        );
        None
    }

    fn float_of(&self, value: &Value, range: &impl RangeBounds<f64>, place: &Place) -> Option<f64> {
        let number = value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64));
        let Some(number) = number else { return self.mismatch("a number", value, place) };
        let message = if !number.is_finite() {
            format!("expected a finite number, got {number}")
        } else if !range.contains(&number) {
            format!("expected a number{}, got {number}", describe(range, f64::to_string))
        } else {
            return Some(number);
        };
        self.document.report(place.span.clone(), place.path.clone(), message);
        None
    }

    fn mismatch<T>(&self, expected: &str, value: &Value, place: &Place) -> Option<T> {
        let message = format!("expected {expected}, got {}", GotValue(value));
        self.document.report(place.span.clone(), place.path.clone(), message);
        None
    }

    fn place(&self, key: &str, value: &Value) -> Place {
        let span = self.document.span_of(self.table, key).or_else(|| value.span());
        Place { path: join(&self.path, key), span }
    }

    fn span_or_own(&self, key: &str, item: &Item) -> Option<Range<usize>> {
        item.span().or_else(|| self.document.span_of(self.table, key))
    }
}

/// An integer type whose whole range can be named in a message.
pub trait Integer: Copy + PartialOrd + Display + TryFrom<i64> {
    const MIN: Self;
    const MAX: Self;
}

macro_rules! integers {
    ($($type:ty),*) => { $(impl Integer for $type {
        const MIN: Self = <$type>::MIN;
        const MAX: Self = <$type>::MAX;
    })* };
}

integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

struct Place {
    path: String,
    span: Option<Range<usize>>,
}

/// ` from 1 to 64`, ` of at least 1`; empty for a range without bounds.
fn describe<T>(range: &impl RangeBounds<T>, text: impl Fn(&T) -> String) -> String {
    match (range.start_bound(), range.end_bound()) {
        (Bound::Unbounded, Bound::Unbounded) => String::new(),
        (Bound::Included(low), Bound::Unbounded) => format!(" of at least {}", text(low)),
        (Bound::Excluded(low), Bound::Unbounded) => format!(" above {}", text(low)),
        (Bound::Unbounded, Bound::Included(high)) => format!(" of at most {}", text(high)),
        (Bound::Unbounded, Bound::Excluded(high)) => format!(" below {}", text(high)),
        (Bound::Included(low), Bound::Included(high)) => format!(" from {} to {}", text(low), text(high)),
        (Bound::Included(low), Bound::Excluded(high)) => format!(" from {} to below {}", text(low), text(high)),
        (Bound::Excluded(low), Bound::Included(high)) => format!(" above {} and at most {}", text(low), text(high)),
        (Bound::Excluded(low), Bound::Excluded(high)) => format!(" above {} and below {}", text(low), text(high)),
    }
}

/// `the string `x``, `an array`: what stood where something else was expected.
struct Got<'a>(&'a Item);

impl Display for Got<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Item::Value(value) => GotValue(value).fmt(f),
            Item::ArrayOfTables(_) => f.write_str("an array of tables"),
            Item::Table(_) | Item::None => f.write_str("a table"),
        }
    }
}

struct GotValue<'a>(&'a Value);

impl Display for GotValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// So that a message stays a line.
        const CHARACTERS_MAX: usize = 40;
        match self.0 {
            Value::String(text) => {
                let text = text.value();
                let start: String = text.chars().take(CHARACTERS_MAX).collect();
                let rest = if start.len() < text.len() { "…" } else { "" };
                write!(f, "the string `{start}{rest}`")
            }
            Value::Integer(integer) => write!(f, "the integer {}", integer.value()),
            Value::Float(number) => write!(f, "the number {}", number.value()),
            Value::Boolean(truth) => write!(f, "the boolean {}", truth.value()),
            Value::Datetime(time) => write!(f, "the date {}", time.value()),
            Value::Array(_) => f.write_str("an array"),
            Value::InlineTable(_) => f.write_str("a table"),
        }
    }
}
