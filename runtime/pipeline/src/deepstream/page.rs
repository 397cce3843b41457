//! `KEYS.md`: the tables of [`keys`](super::keys) for people.

use std::fmt::Write as _;

use super::keys::{Fate, GROUPS, GroupRule, KeyRule, Kind, PARSERS, Value};

const FILES: [(Kind, &str); 4] = [
    (Kind::App, "deepstream-app"),
    (Kind::Infer, "nvinfer"),
    (Kind::Tracker, "NvMultiObjectTracker"),
    (Kind::Analytics, "nvdsanalytics"),
];

const INTRODUCTION: &str = "\
# DeepStream's keys

What `revoada run --deepstream FILE` and `revoada convert FILE` make of each key, as key file or YAML. This page is made
from the tables that the program reads files by; `UPDATE_GOLDEN=1 cargo test --package revoada-pipeline --test deepstream`
writes it anew. Keys of ours are those of a pipeline's file; `input`, `output` and `manifest` are those of a model's
manifest, which stands in the pipeline's file as `[model.manifest]`.

A key that is not in these tables is an error that names the nearest known one. A key without effect is a note. Relative
paths are those of the folder of the file that names them. `#` stands for a number and `*` for a name.
";

/// The page, in Markdown.
pub fn keys_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (kind, name) in FILES {
        line(&mut page, format_args!("\n## {name}"));
        let groups = || GROUPS.iter().filter(|group| group.kind == kind);
        let mut shown: Vec<*const [KeyRule]> = Vec::new();
        for group in groups().filter(|group| group.whole.is_none()) {
            line(&mut page, format_args!("\n### {}\n", title(group)));
            if let Some(same) = shown.iter().position(|keys| std::ptr::eq(*keys, group.keys)) {
                let same = groups().filter(|group| group.whole.is_none()).nth(same).map(title).unwrap_or_default();
                line(&mut page, format_args!("The keys of {same}."));
            } else {
                keys(&mut page, group);
            }
            shown.push(group.keys);
        }
        let whole: Vec<_> = groups().filter_map(|group| Some((title(group), group.whole?))).collect();
        if !whole.is_empty() {
            line(&mut page, format_args!("\n### Other groups\n\n| group | |\n|---|---|"));
            for (title, fate) in whole {
                line(&mut page, format_args!("| {title} | {} |", fate_text(fate)));
            }
        }
        match kind {
            Kind::Infer => parsers(&mut page),
            Kind::Tracker => line(&mut page, format_args!("{TRACKERS}")),
            Kind::App | Kind::Analytics => {}
        }
    }
    page
}

const TRACKERS: &str = "
### Which tracker

| DeepStream's | is one with | becomes |
|---|---|---|
| IOU | no type set | `sort` |
| NvSORT | `stateEstimatorType` | `sort` |
| NvDeepSORT | `reidType` | `ocsort` |
| NvDCF | `visualTrackerType` | `ocsort` |";

fn parsers(page: &mut String) {
    line(page, format_args!("\n### Parsers of boxes\n\n| parse-bbox-func-name | decoder |\n|---|---|"));
    line(page, format_args!("| none: nvinfer's own | `detectnet` |"));
    for (parser, decoder) in PARSERS {
        let decoder = decoder.map_or_else(|| "guessed from the outputs".to_owned(), |decoder| format!("`{decoder}`"));
        line(page, format_args!("| {parser} | {decoder} |"));
    }
    line(page, format_args!("| others | guessed from the outputs |"));
}

fn keys(page: &mut String, group: &GroupRule) {
    line(page, format_args!("| key | value | default | |\n|---|---|---|---|"));
    for key in group.keys {
        let name = key.name.replace('*', "\\*");
        line(page, format_args!("| {name} | {} | {} | {} |", value_text(key.value), key.default, fate_text(key.fate)));
    }
}

fn title(group: &GroupRule) -> String {
    format!("`{}`", group.name)
}

fn value_text(value: Value) -> &'static str {
    match value {
        Value::Switch => "0, 1",
        Value::Integer => "integer",
        Value::Number => "number",
        Value::Text => "text",
        Value::Path => "path",
        Value::Integers => "integers",
        Value::Numbers => "numbers",
        Value::Texts => "texts",
    }
}

fn fate_text(fate: Fate) -> String {
    match fate {
        Fate::Becomes(what) => what.to_owned(),
        Fate::Nothing(reason) => format!("no effect: {reason}"),
        Fate::Refused(reason) => format!("refused: {reason}"),
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("a string takes whatever is written to it");
}
