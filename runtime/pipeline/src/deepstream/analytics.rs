//! An nvdsanalytics file, as `[analytics]`.

use std::collections::BTreeSet;

use toml_edit::{Array, ArrayOfTables, Item, Table, Value, value};

use super::section::{Report, Section, Source};

/// What the file says, and whether its shapes are drawn.
pub(super) struct Analytics {
    /// `None` where it is switched off.
    pub(super) table: Option<Table>,
    pub(super) drawn: bool,
}

/// The rules so far, with the names that are taken, kind by kind.
struct Rules<'a> {
    /// Ids of the pipeline's streams.
    streams: &'a [String],
    labels: &'a [String],
    lines: Named,
    regions: Named,
    directions: Named,
}

#[derive(Default)]
struct Named {
    tables: ArrayOfTables,
    names: BTreeSet<String>,
}

pub(super) fn analytics(source: &Source, streams: &[String], labels: &[String], report: &Report) -> Analytics {
    let sections = source.sections(report);
    let mut rules =
        Rules { streams, labels, lines: Named::default(), regions: Named::default(), directions: Named::default() };
    let (mut table, mut enabled, mut drawn) = (Table::new(), true, true);
    for section in &sections {
        match section.name() {
            "property" => {
                enabled = section.switch("enable").unwrap_or(true);
                drawn = section.integer("osd-mode") != Some(0);
                if let (Some(width), Some(height)) = (section.count("config-width"), section.count("config-height")) {
                    table.insert("reference", value(format!("{width}x{height}")));
                }
            }
            _ => rules.add(section),
        }
    }
    sections.into_iter().for_each(Section::finish);
    let kinds = [("line", rules.lines), ("region", rules.regions), ("direction", rules.directions)];
    let mut any = false;
    for (kind, rules) in kinds {
        if !rules.tables.is_empty() {
            any = true;
            table.insert(kind, Item::ArrayOfTables(rules.tables));
        }
    }
    Analytics { table: Some(table).filter(|_| any && enabled), drawn }
}

impl Rules<'_> {
    fn add(&mut self, section: &Section<'_>) {
        section.switch("enable");
        let Some(stream) = section.number().and_then(|number| self.streams.get(number)) else {
            section.ask_all();
            return section.note("", format!("has no effect: the application has {} streams", self.streams.len()));
        };
        let classes = self.classes(section);
        let scoped = |mut table: Table| {
            if self.streams.len() > 1 {
                table.insert("streams", value([stream.as_str()].into_iter().collect::<Array>()));
            }
            if !classes.is_empty() {
                table.insert("classes", value(classes.iter().collect::<Array>()));
            }
            table
        };
        match section.name().rsplit_once("-stream-").map_or("", |(kind, _)| kind) {
            "roi-filtering" => {
                let inverse = section.switch("inverse-roi") == Some(true);
                for (label, key, numbers) in section.named_numbers("roi-*") {
                    let Some(mut table) = polygon(section, key, &numbers) else { continue };
                    if inverse {
                        table.insert("inverse", value(true));
                    }
                    self.regions.push(label, stream, scoped(table));
                }
            }
            "overcrowding" => {
                let objects = section.count("object-threshold").unwrap_or(1).max(1);
                let after_ms = section.count("time-threshold").unwrap_or(2000);
                for (label, key, numbers) in section.named_numbers("roi-*") {
                    let Some(mut table) = polygon(section, key, &numbers) else { continue };
                    let crowd = [
                        ("objects_max", Value::from(i64::from(objects - 1))),
                        ("after_s", (f64::from(after_ms) / 1000.0).into()),
                    ];
                    table.insert("overcrowding", value(crowd.into_iter().collect::<toml_edit::InlineTable>()));
                    self.regions.push(label, stream, scoped(table));
                }
            }
            "line-crossing" => {
                let extended = section.switch("extended").unwrap_or(true);
                let mode = mode(section, "loose");
                for (label, key, numbers) in section.named_numbers("line-crossing-*") {
                    let (direction, line) = match numbers.as_slice() {
                        [direction @ .., a, b, c, d] if matches!(direction.len(), 0 | 4) => {
                            (direction, [*a, *b, *c, *d])
                        }
                        _ => {
                            section.problem(key, "expected a direction and a line, of two points each: 8 numbers");
                            continue;
                        }
                    };
                    let mut table = points(&line);
                    if !direction.is_empty() {
                        table.insert("direction", points(direction).remove("points").unwrap_or_default());
                    }
                    table.insert("mode", value(mode));
                    table.insert("extended", value(extended));
                    self.lines.push(label, stream, scoped(table));
                }
            }
            _ => {
                let angle_deg = match mode(section, "balanced") {
                    "strict" => 30.0,
                    "balanced" => 60.0,
                    _ => 90.0,
                };
                for (label, key, numbers) in section.named_numbers("direction-*") {
                    if numbers.len() != 4 {
                        section.problem(key, "expected two points: 4 numbers");
                        continue;
                    }
                    let mut table = points(&numbers);
                    table.insert("angle_deg", value(angle_deg));
                    self.directions.push(label, stream, scoped(table));
                }
            }
        }
    }

    /// By their labels; empty: all.
    fn classes(&self, section: &Section<'_>) -> Vec<String> {
        let classes = section.integers("class-id").unwrap_or_default();
        if classes.contains(&-1) {
            return Vec::new();
        }
        let label = |class: &i64| {
            let label = usize::try_from(*class).ok().and_then(|class| self.labels.get(class));
            if label.is_none() {
                section.problem("class-id", format!("the model has no label for class {class}"));
            }
            label.cloned()
        };
        classes.iter().filter_map(label).collect()
    }
}

impl Named {
    /// A name is a kind's own; what several streams call alike gets the stream's behind it.
    fn push(&mut self, label: &str, stream: &str, mut rule: Table) {
        let mut name = label.to_owned();
        if self.names.contains(&name) {
            name = format!("{label} {stream}");
        }
        let mut numbered = (2..).map(|number| format!("{label} {stream} {number}"));
        while !self.names.insert(name.clone()) {
            name = numbered.next().expect("numbers do not end");
        }
        rule.insert("name", value(name));
        self.tables.push(rule);
    }
}

fn mode(section: &Section<'_>, default: &'static str) -> &'static str {
    let Some(typed) = section.text("mode") else { return default };
    let known = ["strict", "balanced", "loose"].into_iter().find(|known| *known == typed);
    known.unwrap_or_else(|| {
        section.problem("mode", format!("expected `strict`, `balanced` or `loose`, got `{typed}`"));
        default
    })
}

fn polygon(section: &Section<'_>, key: &str, numbers: &[f64]) -> Option<Table> {
    if numbers.len() >= 6 && numbers.len().is_multiple_of(2) {
        return Some(points(numbers));
    }
    section.problem(key, "expected at least three points of two numbers each");
    None
}

fn points(numbers: &[f64]) -> Table {
    let whole = |number: f64| match number.fract() == 0.0 {
        true => Value::from(number as i64),
        false => number.into(),
    };
    let points: Array =
        numbers.as_chunks::<2>().0.iter().map(|point| Value::Array(point.map(whole).into_iter().collect())).collect();
    let mut table = Table::new();
    table.insert("points", value(points));
    table
}
