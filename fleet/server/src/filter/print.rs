//! A filter as text that reads back as the same filter.

use std::fmt;

use super::parse::{is_keyword, is_word_char};
use super::{Filter, Name, Node, Operator, Test, TextOperator};

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::All => f.write_str("all"),
            Node::Test(test) => test.fmt(f),
            Node::Has(name) => write!(f, "has fact.{name}"),
            Node::Not(node) => {
                f.write_str("not ")?;
                node.fmt_within(f)
            }
            Node::And(nodes) => fmt_joined(f, nodes, " and "),
            Node::Or(nodes) => fmt_joined(f, nodes, " or "),
        }
    }
}

fn fmt_joined(f: &mut fmt::Formatter<'_>, nodes: &[Node], word: &str) -> fmt::Result {
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        node.fmt_within(f)?;
    }
    Ok(())
}

impl Node {
    fn fmt_within(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::And(_) | Node::Or(_) => write!(f, "({self})"),
            _ => fmt::Display::fmt(self, f),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Text(name, operator, value) => {
                write!(f, "{name} {operator} ")?;
                fmt_text(f, value)
            }
            Test::Version(operator, version) => write!(f, "version {operator} {version}"),
            Test::Seen(operator, age) => {
                write!(f, "seen {operator} \"{}\"", humantime::format_duration(*age))
            }
            Test::Number(name, operator, number) => write!(f, "fact.{name} {operator} {number}"),
        }
    }
}

fn fmt_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let is_plain = !text.is_empty() && text.chars().all(is_word_char) && !is_keyword(text);
    if is_plain && text.parse::<f64>().is_err() {
        return f.write_str(text);
    }
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Id => f.write_str("id"),
            Name::Tag => f.write_str("tag"),
            Name::Class => f.write_str("class"),
            Name::Module => f.write_str("module"),
            Name::Architecture => f.write_str("architecture"),
            Name::Fact(name) => write!(f, "fact.{name}"),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Equal => "=",
            Operator::Unequal => "!=",
            Operator::Less => "<",
            Operator::AtMost => "<=",
            Operator::Greater => ">",
            Operator::AtLeast => ">=",
        })
    }
}

impl fmt::Display for TextOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TextOperator::Equal => "=",
            TextOperator::Unequal => "!=",
            TextOperator::Like => "~",
        })
    }
}
