//! The language that says which devices are meant.
//!
//! ```text
//! filter = and { "or" and }
//! and    = not { "and" not }
//! not    = "not" not | "(" filter ")" | "all" | "has" fact | test
//! test   = name operator value | name "in" "(" value { "," value } ")"
//! ```
//!
//! | name | value | operators |
//! |---|---|---|
//! | `id`, `class`, `module`, `architecture` | text | `=` `!=` `~` `in` |
//! | `tag` | text; equal where any tag of the device is | `=` `!=` `~` `in` |
//! | `version` | `1.2.0`, by the precedence of semantic versions | `=` `!=` `<` `<=` `>` `>=` `in` |
//! | `seen` | the time since the device was heard of: `90s`, `2h`, `7d`; never is longer than any | `<` `<=` `>` `>=` |
//! | `fact.NAME` | a number, or text | all |
//!
//! `~` compares with a pattern in which `*` stands for any text. A test of what a device has not reported is false, and
//! `!=` is the opposite of `=`. A text that is no plain word, or could be read as a number, stands in `"` with `\"` and `\\`.
//! A filter is no longer than [`BYTES_MAX`] and nested no deeper than [`DEPTH_MAX`].

mod parse;
mod print;

use std::cmp::Ordering;
use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::{DeviceId, Fact};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::inventory::Device;

pub use parse::FilterError;

/// Longer ones list devices that a tag would name.
pub const BYTES_MAX: usize = 4096;

/// Of parentheses and `not`: deeper than people write, far from the end of the stack.
pub const DEPTH_MAX: usize = 32;

/// A name of 2 kB and a thousand values for it are 2 MB when each of them is a test.
const PRINTED_BYTES_MAX: usize = 4 << 20;

/// A list of values, printed as tests, stands in parentheses that it did not have.
const PRINTED_DEPTH_MAX: usize = DEPTH_MAX + 2;

/// A filter that was read. Printed, it reads back as the same; so does what is serialised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    All,
    Test(Test),
    Has(String),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

/// What fits together, and nothing else.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Text(Name, TextOperator, String),
    Version(Operator, Version),
    Seen(Operator, Duration),
    Number(String, Operator, f64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Id,
    Tag,
    Class,
    Module,
    Architecture,
    Fact(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextOperator {
    Equal,
    Unequal,
    Like,
}

impl Filter {
    /// Every device.
    pub const ALL: Self = Self(Node::All);

    /// Whether a device is meant, `now` being the time that `seen` counts to.
    pub fn matches(&self, id: &DeviceId, device: &Device, now: Timestamp) -> bool {
        self.0.matches(id, device, now)
    }
}

impl Node {
    fn matches(&self, id: &DeviceId, device: &Device, now: Timestamp) -> bool {
        match self {
            Node::All => true,
            Node::Test(test) => test.matches(id, device, now),
            Node::Has(name) => device.facts.contains_key(name),
            Node::Not(node) => !node.matches(id, device, now),
            Node::And(nodes) => nodes.iter().all(|node| node.matches(id, device, now)),
            Node::Or(nodes) => nodes.iter().any(|node| node.matches(id, device, now)),
        }
    }
}

impl Test {
    fn matches(&self, id: &DeviceId, device: &Device, now: Timestamp) -> bool {
        match self {
            Test::Text(name, operator, value) => {
                let equal = |text: &str| match operator {
                    TextOperator::Equal | TextOperator::Unequal => text == value,
                    TextOperator::Like => is_like(text, value),
                };
                let any = match name {
                    Name::Id => equal(id.as_str()),
                    Name::Tag => device.tags.iter().any(|tag| equal(tag)),
                    Name::Class => device.class.as_ref().is_some_and(|class| equal(&class.to_string())),
                    Name::Module => device.class.as_ref().and_then(|class| class.module.as_deref()).is_some_and(equal),
                    Name::Architecture => {
                        device.class.as_ref().is_some_and(|class| equal(&class.architecture.to_string()))
                    }
                    Name::Fact(name) => match device.facts.get(name) {
                        Some(Fact::Text(text)) => equal(text),
                        Some(Fact::Number(number)) => equal(&number.to_string()),
                        None => false,
                    },
                };
                any != (*operator == TextOperator::Unequal)
            }
            Test::Version(operator, value) => {
                operator.holds(device.version.as_ref().map(|version| version.cmp_precedence(value)))
            }
            Test::Seen(operator, age) => {
                operator.holds(Some(device.seen.map_or(Ordering::Greater, |seen| now.since(seen).cmp(age))))
            }
            Test::Number(name, operator, value) => operator.holds(match device.facts.get(name) {
                Some(Fact::Number(number)) => number.partial_cmp(value),
                Some(Fact::Text(_)) | None => None,
            }),
        }
    }
}

impl Operator {
    /// Of what was reported beside the filter's value; `None` where the two cannot be compared.
    fn holds(self, ordering: Option<Ordering>) -> bool {
        match self {
            Operator::Equal => ordering == Some(Ordering::Equal),
            Operator::Unequal => ordering != Some(Ordering::Equal),
            Operator::Less => ordering.is_some_and(Ordering::is_lt),
            Operator::AtMost => ordering.is_some_and(Ordering::is_le),
            Operator::Greater => ordering.is_some_and(Ordering::is_gt),
            Operator::AtLeast => ordering.is_some_and(Ordering::is_ge),
        }
    }
}

/// Whether a text is what a pattern describes. Each piece is found as early as possible, so that the time is bounded by the
/// product of the lengths.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return text == pattern };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = text.strip_prefix(head).and_then(|text| text.strip_suffix(tail)) else { return false };
    for piece in middle.split('*') {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    true
}
