//! Reading a filter: words, then recursive descent over them.

use std::str::FromStr;

use semver::Version;
use thiserror::Error;

use super::{
    BYTES_MAX, DEPTH_MAX, Filter, Name, Node, Operator, PRINTED_BYTES_MAX, PRINTED_DEPTH_MAX, Test, TextOperator,
};

const NAMES: &str = "`id`, `tag`, `class`, `module`, `architecture`, `version`, `seen` or `fact.NAME`";

/// How much of a filter an error shows.
const SHOWN_CHARS: usize = 24;

/// A text that is no filter, and where it stops being one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read the filter at character {character}, {place}: {message}")]
pub struct FilterError {
    /// From 1.
    character: usize,
    /// ``before `…` `` or `its end`.
    place: String,
    message: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Word {
    Plain(String),
    Quoted(String),
    /// An operator, a parenthesis or a comma.
    Sign(&'static str),
    End,
}

/// The longer first, where one begins another.
const SIGNS: [&str; 10] = ["!=", "<=", ">=", "=", "<", ">", "~", "(", ")", ","];

pub(super) fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+' | '/' | '*')
}

pub(super) fn is_keyword(text: &str) -> bool {
    matches!(text, "all" | "and" | "or" | "not" | "in" | "has")
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text, BYTES_MAX, DEPTH_MAX)
    }
}

/// Also what is longer than people write: printed, `in` is a test of each value, and numbers have all of their digits.
impl TryFrom<String> for Filter {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, FilterError> {
        Self::parse(&text, PRINTED_BYTES_MAX, PRINTED_DEPTH_MAX)
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.to_string()
    }
}

impl Filter {
    fn parse(text: &str, bytes_max: usize, depth_max: usize) -> Result<Self, FilterError> {
        if text.len() > bytes_max {
            return Err(refuse(text, 0, format!("{} bytes are more than {bytes_max}", text.len())));
        }
        let mut parser = Parser { text, words: words(text)?, next: 0, depth_max };
        let node = parser.or(0)?;
        match parser.word() {
            Word::End => Ok(Self(node)),
            _ => Err(parser.expected("`and`, `or` or the end")),
        }
    }
}

fn refuse(text: &str, at: usize, message: String) -> FilterError {
    let left = &text[at..];
    let shown: String = left.chars().take(SHOWN_CHARS).collect();
    let more = if shown.len() < left.len() { "…" } else { "" };
    let place = match left.is_empty() {
        true => "its end".to_owned(),
        false => format!("before `{}{more}`", shown.escape_debug()),
    };
    FilterError { character: text[..at].chars().count() + 1, place, message }
}

/// Each with the byte that it begins at; the last is [`Word::End`].
fn words(text: &str) -> Result<Vec<(usize, Word)>, FilterError> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let left = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| left.starts_with(sign)) {
            words.push((at, Word::Sign(sign)));
            at += sign.len();
        } else if first == '"' {
            let (quoted, bytes) = quoted(left).map_err(|message| refuse(text, at, message))?;
            words.push((at, Word::Quoted(quoted)));
            at += bytes;
        } else if is_word_char(first) {
            let bytes = left.find(|c| !is_word_char(c)).unwrap_or(left.len());
            words.push((at, Word::Plain(left[..bytes].to_owned())));
            at += bytes;
        } else {
            return Err(refuse(text, at, "expected a word, an operator or `\"`".to_owned()));
        }
    }
    words.push((text.len(), Word::End));
    Ok(words)
}

/// A text that begins with `"`: what it says, and how many bytes it takes.
fn quoted(left: &str) -> Result<(String, usize), String> {
    let mut said = String::new();
    let mut chars = left.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((said, at + 1)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => said.push(escaped),
                _ => return Err("after `\\` only `\"` and `\\` may stand".to_owned()),
            },
            c => said.push(c),
        }
    }
    Err("the closing `\"` is missing".to_owned())
}

struct Parser<'a> {
    text: &'a str,
    words: Vec<(usize, Word)>,
    /// Never past the last, which is [`Word::End`].
    next: usize,
    depth_max: usize,
}

impl Parser<'_> {
    fn word(&self) -> &Word {
        &self.words[self.next].1
    }

    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.words.len() - 1);
    }

    fn refuse_at(&self, index: usize, message: String) -> FilterError {
        refuse(self.text, self.words[index].0, message)
    }

    fn expected(&self, what: &str) -> FilterError {
        self.refuse_at(self.next, format!("expected {what}"))
    }

    /// Takes the word, where it is the next.
    fn takes(&mut self, keyword: &str) -> bool {
        let is_next = match self.word() {
            Word::Plain(word) => word == keyword,
            Word::Sign(sign) => *sign == keyword,
            Word::Quoted(_) | Word::End => false,
        };
        if is_next {
            self.advance();
        }
        is_next
    }

    fn or(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.and(depth)?];
        while self.takes("or") {
            nodes.push(self.and(depth)?);
        }
        Ok(one_or(nodes, Node::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.not(depth)?];
        while self.takes("and") {
            nodes.push(self.not(depth)?);
        }
        Ok(one_or(nodes, Node::And))
    }

    fn not(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > self.depth_max {
            return Err(self.refuse_at(self.next, format!("nested deeper than {}", self.depth_max)));
        }
        if self.takes("not") {
            return Ok(Node::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.takes("(") {
            let node = self.or(depth + 1)?;
            return if self.takes(")") { Ok(node) } else { Err(self.expected("`and`, `or` or `)`")) };
        }
        if self.takes("all") {
            return Ok(Node::All);
        }
        if self.takes("has") {
            return match self.fact_name() {
                Some(name) => {
                    self.advance();
                    Ok(Node::Has(name))
                }
                None => Err(self.expected("`fact.NAME`")),
            };
        }
        self.tests()
    }

    /// The next word, where it is `fact.` and a name.
    fn fact_name(&self) -> Option<String> {
        match self.word() {
            Word::Plain(word) => word.strip_prefix("fact.").filter(|name| !name.is_empty()).map(str::to_owned),
            _ => None,
        }
    }

    fn tests(&mut self) -> Result<Node, FilterError> {
        let name = match self.word() {
            Word::Plain(word) if !is_keyword(word) => word.clone(),
            _ => return Err(self.expected(NAMES)),
        };
        let name_at = self.next;
        self.advance();
        let operator_at = self.next;
        if self.takes("in") {
            let mut nodes = Vec::new();
            if !self.takes("(") {
                return Err(self.expected("`(`"));
            }
            loop {
                nodes.push(self.test(&name, name_at, "=", operator_at)?);
                if self.takes(")") {
                    return Ok(one_or(nodes, Node::Or));
                }
                if !self.takes(",") {
                    return Err(self.expected("`,` or `)`"));
                }
            }
        }
        let operator = match self.word() {
            Word::Sign(sign) if !matches!(*sign, "(" | ")" | ",") => *sign,
            _ => return Err(self.expected("`=`, `!=`, `<`, `<=`, `>`, `>=`, `~` or `in`")),
        };
        self.advance();
        self.test(&name, name_at, operator, operator_at)
    }

    /// A test whose name and operator were read; the value is next.
    fn test(&mut self, name: &str, name_at: usize, sign: &str, operator_at: usize) -> Result<Node, FilterError> {
        let (value, is_quoted) = match self.word() {
            Word::Plain(word) if !is_keyword(word) => (word.clone(), false),
            Word::Quoted(text) => (text.clone(), true),
            _ => return Err(self.expected("a value")),
        };
        let value_at = self.next;
        let unfit = || self.refuse_at(operator_at, format!("`{sign}` does not fit `{name}`"));
        let test = match name {
            "version" => {
                let version = Version::parse(&value)
                    .map_err(|_| self.refuse_at(value_at, "expected a version like `1.2.0`".to_owned()))?;
                Test::Version(operator(sign).ok_or_else(unfit)?, version)
            }
            "seen" => {
                let age = humantime::parse_duration(&value)
                    .map_err(|_| self.refuse_at(value_at, "expected a time like `90s`, `2h` or `7d`".to_owned()))?;
                match operator(sign) {
                    None | Some(Operator::Equal | Operator::Unequal) => return Err(unfit()),
                    Some(operator) => Test::Seen(operator, age),
                }
            }
            _ => {
                let name = self.name(name, name_at)?;
                let number = value.parse::<f64>().ok().filter(|number| !is_quoted && number.is_finite());
                match (name, operator(sign), number) {
                    (Name::Fact(name), Some(operator), Some(number)) => Test::Number(name, operator, number),
                    (name, ..) => Test::Text(name, text_operator(sign).ok_or_else(unfit)?, value),
                }
            }
        };
        self.advance();
        Ok(Node::Test(test))
    }

    fn name(&self, name: &str, at: usize) -> Result<Name, FilterError> {
        Ok(match name {
            "id" => Name::Id,
            "tag" => Name::Tag,
            "class" => Name::Class,
            "module" => Name::Module,
            "architecture" => Name::Architecture,
            _ => match name.strip_prefix("fact.").filter(|name| !name.is_empty()) {
                Some(fact) => Name::Fact(fact.to_owned()),
                None => return Err(self.refuse_at(at, format!("expected {NAMES}"))),
            },
        })
    }
}

fn one_or(mut nodes: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => several(nodes),
    }
}

fn operator(sign: &str) -> Option<Operator> {
    Some(match sign {
        "=" => Operator::Equal,
        "!=" => Operator::Unequal,
        "<" => Operator::Less,
        "<=" => Operator::AtMost,
        ">" => Operator::Greater,
        ">=" => Operator::AtLeast,
        _ => return None,
    })
}

fn text_operator(sign: &str) -> Option<TextOperator> {
    Some(match sign {
        "=" => TextOperator::Equal,
        "!=" => TextOperator::Unequal,
        "~" => TextOperator::Like,
        _ => return None,
    })
}
