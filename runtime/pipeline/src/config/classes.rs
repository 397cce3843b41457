//! `[[model.class]]`: what becomes of a class once it is decoded.

use std::fmt;

use revoada_bundle::strict::Table;

use super::SIDE_PIXELS_MAX;
use super::print::{integer, number, table};

/// More classes than any detector has rules for; looked through for each detection.
const RULES_MAX: usize = 1024;

/// Which detections and classes of one kind are results. What is `None` bounds nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassRule {
    /// `None`: every class that has no rule of its own.
    pub class: Option<ClassName>,
    /// None of them is a result.
    pub drop: bool,
    /// Least score.
    pub score_min: Option<f32>,
    /// Most results of one picture: the best.
    pub results_max: Option<usize>,
    /// Of a detection's box, in pixels of the picture, like those below.
    pub width_min: Option<u32>,
    pub height_min: Option<u32>,
    pub width_max: Option<u32>,
    pub height_max: Option<u32>,
}

/// A class as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassName {
    Index(u32),
    Label(String),
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Label(label) => f.write_str(label),
        }
    }
}

pub(super) fn read(model: &Table<'_>) -> Vec<ClassRule> {
    let tables = model.tables("class");
    if tables.len() > RULES_MAX {
        model.problem("class", format!("{} of them, at most {RULES_MAX} are kept", tables.len()));
    }
    let mut rules: Vec<ClassRule> = Vec::new();
    for table in tables {
        let rule = rule(&table);
        if rules.iter().any(|other| other.class == rule.class) {
            table.problem("class", "there is another table for this class");
        }
        rules.push(rule);
    }
    rules
}

fn rule(table: &Table<'_>) -> ClassRule {
    let class = match table.is_string("class") {
        true => table.string("class").map(ClassName::Label),
        false => table.integer("class", 0u32..).map(ClassName::Index),
    };
    let side = |key| table.integer(key, 0..=SIDE_PIXELS_MAX);
    let rule = ClassRule {
        class,
        drop: table.boolean("drop").unwrap_or(false),
        score_min: table.float("score_min", 0.0..=1.0).map(|score| score as f32),
        results_max: table.integer("results_max", 1usize..),
        width_min: side("width_min"),
        height_min: side("height_min"),
        width_max: side("width_max"),
        height_max: side("height_max"),
    };
    for (key, least, most) in
        [("width_max", rule.width_min, rule.width_max), ("height_max", rule.height_min, rule.height_max)]
    {
        if let (Some(least), Some(most)) = (least, most)
            && most < least
        {
            table.problem(key, format!("is less than the least, {least}"));
        }
    }
    rule
}

pub(super) fn print(rule: &ClassRule) -> toml_edit::Table {
    let mut out = table([]);
    let options = [
        (
            "class",
            rule.class.as_ref().map(|class| match class {
                ClassName::Index(index) => integer((*index).into()),
                ClassName::Label(label) => label.as_str().into(),
            }),
        ),
        ("drop", Some(rule.drop.into())),
        ("score_min", rule.score_min.map(number)),
        ("results_max", rule.results_max.map(|most| integer(most as u64))),
        ("width_min", rule.width_min.map(|side| integer(side.into()))),
        ("height_min", rule.height_min.map(|side| integer(side.into()))),
        ("width_max", rule.width_max.map(|side| integer(side.into()))),
        ("height_max", rule.height_max.map(|side| integer(side.into()))),
    ];
    for (key, value) in options {
        if let Some(value) = value {
            out.insert(key, toml_edit::Item::Value(value));
        }
    }
    out
}
