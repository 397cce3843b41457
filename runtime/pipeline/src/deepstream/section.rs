//! One group of a file, read by the tables of [`keys`](super::keys): values by the kind that the table says, and at the
//! end every key that has no effect, or is not known.

use std::cell::RefCell;
use std::collections::BTreeSet;

use revoada_bundle::strict::{Problem, nearest};

use super::file::{Entry, File, Group};
use super::keys::{Fate, GROUPS, GroupRule, KeyRule, Kind, Value, matched};

/// What is said about files, in the order in which they are read.
#[derive(Default)]
pub(super) struct Report {
    pub(super) problems: RefCell<Vec<Problem>>,
    /// Keys without effect, and replacements.
    pub(super) notes: RefCell<Vec<Problem>>,
}

impl Report {
    /// A problem with a file as a whole.
    pub(super) fn problem(&self, origin: &str, message: &str) {
        let problem =
            Problem { origin: origin.to_owned(), line: None, key: String::new(), message: message.to_owned() };
        self.problems.borrow_mut().push(problem);
    }
}

/// A file that was read, with its name for messages.
pub(super) struct Source {
    pub(super) origin: String,
    pub(super) kind: Kind,
    pub(super) file: File,
}

/// A group that counts.
pub(super) struct Section<'a> {
    source: &'a Source,
    report: &'a Report,
    pub(super) group: &'a Group,
    rule: &'static GroupRule,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Source {
    /// The groups that count, in the order of the file. Those that are switched off are only looked at for keys that
    /// nobody knows, and so are those without a meaning of their own, whose effect is told here.
    pub(super) fn sections<'a>(&'a self, report: &'a Report) -> Vec<Section<'a>> {
        let section = |group: &'a Group| {
            let Some(rule) = GroupRule::of(self.kind, &group.name) else {
                self.unknown_group(group, report);
                return None;
            };
            let section = Section { source: self, report, group, rule, asked: RefCell::default() };
            let enabled =
                !rule.has_enable || group.entry("enable").is_some_and(|entry| switch(&entry.value) != Some(false));
            match rule.whole {
                // Trackers have no switch.
                Some(fate) if enabled || self.kind == Kind::Tracker => section.tell(fate, None),
                Some(_) => {}
                None if enabled => return Some(section),
                None => section.tell_unknown(),
            }
            None
        };
        self.file.groups.iter().filter_map(section).collect()
    }

    fn unknown_group(&self, group: &Group, report: &Report) {
        let digits = group.name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (word, number) = group.name.split_at(digits);
        let names = GROUPS.iter().filter(|rule| rule.kind == self.kind).map(|rule| rule.name.trim_end_matches('#'));
        let message = match nearest(word, names) {
            Some(near) => format!("unknown group, did you mean `{near}{number}`?"),
            None => "unknown group".to_owned(),
        };
        report.problems.borrow_mut().push(Problem {
            origin: self.origin.clone(),
            line: Some(group.line),
            key: group.name.clone(),
            message,
        });
    }
}

impl<'a> Section<'a> {
    pub(super) fn name(&self) -> &'a str {
        &self.group.name
    }

    /// The name of the table's row, such as `source#`.
    pub(super) fn rule_name(&self) -> &'static str {
        self.rule.name
    }

    /// Takes every key as asked for, where nothing can be made of them because of a problem that is told.
    pub(super) fn ask_all(&self) {
        self.asked.borrow_mut().extend(self.rule.keys.iter().map(|rule| rule.name));
    }

    /// What the `#` of the group's name stands for; `None` where it has no number.
    pub(super) fn number(&self) -> Option<usize> {
        matched(self.rule.name, &self.group.name)?.parse().ok()
    }

    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.report.problems.borrow_mut().push(self.said(key, message.into()));
    }

    /// Something that becomes other than it was asked for.
    pub(super) fn note(&self, key: &str, message: impl Into<String>) {
        self.report.notes.borrow_mut().push(self.said(key, message.into()));
    }

    fn said(&self, key: &str, message: String) -> Problem {
        let line = self.group.entry(key).map_or(self.group.line, |entry| entry.line);
        let key = if key.is_empty() { self.group.name.clone() } else { format!("{}.{key}", self.group.name) };
        Problem { origin: self.source.origin.clone(), line: Some(line), key, message }
    }

    fn entry(&self, key: &'static str, value: &[Value]) -> Option<&'a Entry> {
        let (rule, _) = self.rule.key(key).expect("code asks for keys of the table");
        debug_assert!(value.contains(&rule.value), "`{key}` is {:?} by the table", rule.value);
        self.asked.borrow_mut().insert(rule.name);
        self.group.entry(key).filter(|entry| !entry.value.is_empty())
    }

    fn read<T>(&self, key: &'static str, kind: Value, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let entry = self.entry(key, &[kind])?;
        let value = parse(&entry.value);
        if value.is_none() {
            self.mismatch(&entry.key, expected, &entry.value);
        }
        value
    }

    fn mismatch(&self, key: &str, expected: &str, got: &str) {
        let got: String = got.chars().take(40).collect();
        self.problem(key, format!("expected {expected}, got `{got}`"));
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.asked.borrow_mut().insert(key);
        self.group.entry(key).is_some()
    }

    pub(super) fn switch(&self, key: &'static str) -> Option<bool> {
        self.read(key, Value::Switch, "0 or 1", switch)
    }

    pub(super) fn integer(&self, key: &'static str) -> Option<i64> {
        self.read(key, Value::Integer, "an integer", |text| first_word(text).parse().ok())
    }

    /// Not negative.
    pub(super) fn count(&self, key: &'static str) -> Option<u32> {
        let count = |text: &str| first_word(text).parse().ok().filter(|count| *count <= COUNT_MAX);
        self.read(key, Value::Integer, "an integer that is not negative", count)
    }

    pub(super) fn number_of(&self, key: &'static str) -> Option<f64> {
        self.read(key, Value::Number, "a number", number)
    }

    pub(super) fn fraction(&self, key: &'static str) -> Option<f64> {
        let fraction = |text: &str| number(text).filter(|number| (0.0..=1.0).contains(number));
        self.read(key, Value::Number, "a number from 0 to 1", fraction)
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.entry(key, &[Value::Text, Value::Path]).map(|entry| entry.value.as_str())
    }

    pub(super) fn integers(&self, key: &'static str) -> Option<Vec<i64>> {
        self.read(key, Value::Integers, "integers with `;` between them", |text| list(text, |word| word.parse().ok()))
    }

    pub(super) fn numbers(&self, key: &'static str) -> Option<Vec<f64>> {
        self.read(key, Value::Numbers, "numbers with `;` between them", |text| list(text, number))
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.entry(key, &[Value::Texts]).map(|entry| texts(&entry.value))
    }

    /// Keys of a pattern that ends in `*`: what stands for it, the whole key, and its numbers.
    pub(super) fn named_numbers(&self, pattern: &'static str) -> Vec<(&'a str, &'a str, Vec<f64>)> {
        self.asked.borrow_mut().insert(pattern);
        let entries = self.group.entries.iter().filter_map(|entry| {
            let (rule, name) = self.rule.key(&entry.key).filter(|(rule, _)| rule.name == pattern)?;
            debug_assert_eq!(rule.value, Value::Numbers);
            let numbers = list(&entry.value, number);
            if numbers.is_none() {
                self.mismatch(&entry.key, "numbers with `;` between them", &entry.value);
            }
            Some((name, entry.key.as_str(), numbers?))
        });
        entries.collect()
    }

    /// Tells of every key that nobody knows, that has no effect, or that cannot be without one.
    pub(super) fn finish(self) {
        self.tell_unknown();
        for entry in &self.group.entries {
            let Some((rule, _)) = self.rule.key(&entry.key) else { continue };
            match rule.fate {
                Fate::Becomes(_) => {
                    let asked = self.asked.borrow().contains(rule.name);
                    debug_assert!(
                        asked,
                        "[{}] {} is said to become something and nobody asks for it",
                        self.rule.name, rule.name
                    );
                }
                Fate::Refused(_) if is_default(rule, &entry.value) => {}
                fate => self.tell(fate, Some(&entry.key)),
            }
        }
    }

    fn tell(&self, fate: Fate, key: Option<&str>) {
        let key = key.unwrap_or_default();
        match fate {
            Fate::Becomes(_) => {}
            Fate::Nothing(reason) => self.note(key, format!("has no effect: {reason}")),
            Fate::Refused(reason) => self.problem(key, reason),
        }
    }

    fn tell_unknown(&self) {
        for entry in &self.group.entries {
            if self.rule.key(&entry.key).is_none() {
                let names = self.rule.keys.iter().map(|rule| rule.name.trim_end_matches(['#', '*']));
                let message = match nearest(&entry.key, names.filter(|name| !name.is_empty())) {
                    Some(near) => format!("unknown key, did you mean `{near}`?"),
                    None => "unknown key".to_owned(),
                };
                self.problem(&entry.key, message);
            }
        }
    }
}

/// Counts and sizes beyond it are mistakes; far below where arithmetic with them overflows.
const COUNT_MAX: u32 = 1 << 24;

fn is_default(rule: &KeyRule, value: &str) -> bool {
    match rule.value {
        Value::Switch => switch(value) == switch(rule.default),
        Value::Integer | Value::Number => number(value) == number(rule.default),
        _ => value == rule.default,
    }
}

/// A comment may stand behind a number, which GLib does not mind either.
fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match first_word(text) {
        "true" | "True" => Some(true),
        "false" | "False" => Some(false),
        word => word.parse::<i64>().ok().map(|number| number != 0),
    }
}

fn number(text: &str) -> Option<f64> {
    first_word(text).parse().ok().filter(|number: &f64| number.is_finite() && number.abs() < 1e30)
}

/// The last `;` may be left out.
fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let text = text.trim().trim_end_matches(';');
    if text.is_empty() { Some(Vec::new()) } else { text.split(';').map(|word| parse(word.trim())).collect() }
}

/// `\;` is a semicolon in an element.
pub(super) fn texts(text: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let last = elements.last_mut().expect("there is always one");
        match character {
            '\\' if characters.peek() == Some(&';') => {
                characters.next();
                last.push(';');
            }
            ';' => elements.push(String::new()),
            _ => last.push(character),
        }
    }
    let elements = elements.into_iter().map(|element| element.trim().to_owned());
    elements.filter(|element| !element.is_empty()).collect()
}
