//! DeepStream's YAML: a mapping of groups, each a mapping of keys to plain values. A list is read as the key file would
//! write it, with `;` between its elements.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser};

use super::file::Reader;

/// Files have two levels, and a third for lists. Whoever nests deeper has another kind of file.
const DEPTH_MAX: usize = 8;

/// OpenCV's first line, which trackers' files have. It looks like a directive of YAML and is none.
const OPENCV_HEADER: &str = "%YAML:";

enum Node {
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Pair>),
}

struct Pair {
    key: String,
    line: usize,
    value: Node,
}

/// A collection that is not complete.
enum Open {
    Sequence(Vec<Node>),
    /// The key that waits for its value stands last.
    Mapping(Vec<Pair>, Option<(String, usize)>),
}

/// Why the text is no tree, and the line.
struct Refused(usize, String);

pub(super) fn read(text: &str, reader: &mut Reader) {
    // YAML takes a lone carriage return for the end of a line, and editors do not.
    let text = text.replace('\r', "");
    let root = match tree(&without_header(&text)) {
        Ok(Some(root)) => root,
        Ok(None) => return,
        Err(Refused(line, message)) => return reader.problem(Some(line), "", message),
    };
    let Node::Mapping(groups) = root else {
        return reader.problem(Some(1), "", "expected groups of keys such as `osd:`");
    };
    for Pair { key: name, line, value } in groups {
        match value {
            Node::Mapping(keys) => {
                let group = reader.group(&name, line);
                keys.into_iter().for_each(|pair| entry(reader, group, &name, pair));
            }
            // A group whose keys are all commented out.
            Node::Scalar(text) if matches!(text.as_str(), "" | "~" | "null") => {
                reader.group(&name, line);
            }
            Node::Scalar(_) | Node::Sequence(_) => reader.problem(Some(line), &name, "expected keys below this group"),
        }
    }
}

fn entry(reader: &mut Reader, group: usize, group_name: &str, Pair { key, line, value }: Pair) {
    let value = match value {
        Node::Scalar(text) => Some(text),
        Node::Sequence(elements) => {
            let texts = elements.into_iter().map(|element| match element {
                Node::Scalar(text) => Some(text),
                Node::Sequence(_) | Node::Mapping(_) => None,
            });
            texts.collect::<Option<Vec<String>>>().map(|texts| texts.join(";"))
        }
        Node::Mapping(_) => None,
    };
    match value {
        Some(value) => reader.entry(group, &key, value, line),
        None => reader.problem(Some(line), &format!("{group_name}.{key}"), "expected a plain value or a list of them"),
    }
}

/// Blanked out rather than removed, so that lines keep their numbers.
fn without_header(text: &str) -> Cow<'_, str> {
    let blank = text.len() - text.trim_start().len();
    match text[blank..].strip_prefix(OPENCV_HEADER) {
        Some(after) => {
            let rest = after.split_once('\n').map_or("", |(_, rest)| rest);
            let lines = text[..blank].matches('\n').count() + 1;
            Cow::Owned("\n".repeat(lines) + rest)
        }
        None => Cow::Borrowed(text),
    }
}

/// The first document of a text; `None` where it is empty.
fn tree(text: &str) -> Result<Option<Node>, Refused> {
    // What is missed at the end of a text is missed on its last line, though the parser has passed it.
    let lines = text.lines().count().max(1);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let line = error.marker().line().clamp(1, lines);
            Refused(line, error.info().to_owned())
        })?;
        let line = span.start.line().clamp(1, lines);
        let complete = match event {
            Event::Scalar(text, ..) => Node::Scalar(text.into_owned()),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH_MAX => {
                return Err(Refused(line, "is nested deeper than any file of DeepStream".to_owned()));
            }
            Event::SequenceStart(..) => {
                open.push(Open::Sequence(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(elements)) => Node::Sequence(elements),
                Some(Open::Mapping(pairs, _)) => Node::Mapping(pairs),
                None => return Err(Refused(line, "ends a list that did not begin".to_owned())),
            },
            Event::Alias(_) => return Err(Refused(line, "aliases are not read; write the value out".to_owned())),
            Event::DocumentEnd => break,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => continue,
        };
        match open.last_mut() {
            Some(Open::Sequence(elements)) => elements.push(complete),
            Some(Open::Mapping(pairs, waiting)) => match (waiting.take(), complete) {
                (Some((key, line)), value) => pairs.push(Pair { key, line, value }),
                (None, Node::Scalar(key)) => *waiting = Some((key, line)),
                (None, _) => return Err(Refused(line, "expected a key, got a list or a mapping".to_owned())),
            },
            None => root = Some(complete),
        }
    }
    // A text of comments is a document that holds one empty scalar.
    Ok(root.filter(|root| !matches!(root, Node::Scalar(text) if text.is_empty() || text == "~")))
}
