//! What can go wrong, and what TensorRT said about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::version::Version;

/// Why no library could be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "no TensorRT was found, looked for {}; it comes with JetPack, or as the packages `libnvinfer10` and \
         `libnvonnxparsers10` of NVIDIA's apt repository", Tried(.tried)
    )]
    NotFound { tried: Vec<(PathBuf, String)> },
    #[error("`{}` is no TensorRT: it has no `{symbol}`", path.display())]
    NotTensorRt { path: PathBuf, symbol: &'static str },
    #[error("`{}` is {version}, and this program speaks {}", path.display(), Spoken(.spoken))]
    NotSpoken { path: PathBuf, version: Version, spoken: Vec<Version> },
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum BuildError {
    #[error("cannot read model `{}`", path.display())]
    ReadModel {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot build plans with `{}`, which is a runtime alone", path.display())]
    NoBuilder { path: PathBuf },
    #[error("cannot build plans without TensorRT's ONNX parser, looked for `{}`: {reason}", path.display())]
    NoParser { path: PathBuf, reason: String },
    #[error("{version} cannot start a builder: {}", Said(.messages))]
    Start { version: Version, messages: Vec<Message> },
    #[error("{version} cannot read the model: {}", Parsed(.errors))]
    Parse { version: Version, errors: Vec<ParserError> },
    #[error("input `{input}` has dimensions that are not known ({dims}), and no profile gives their range")]
    NoProfile { input: String, dims: String },
    #[error("the profile's range of input `{input}` {reason}")]
    Profile { input: String, reason: String },
    #[error("{version} has no {what}")]
    Unavailable { version: Version, what: String },
    #[error("{version} refuses the timing cache: {}", Said(.messages))]
    TimingCache { version: Version, messages: Vec<Message> },
    #[error("the build was cancelled")]
    Cancelled,
    #[error("{version} cannot compile the network{}: {}", AtLayer(.layer), Said(.messages))]
    Compile { version: Version, layer: Option<String>, messages: Vec<Message> },
}

/// Why a plan does not open, or does not run.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("{version} cannot start: {}", Said(.messages))]
    Start { version: Version, messages: Vec<Message> },
    #[error("{version} cannot open the plan: {fault}")]
    Plan { version: Version, fault: PlanFault },
    #[error("{version} has no {what}")]
    Unavailable { version: Version, what: String },
    #[error("cannot {doing}: {}", Said(.messages))]
    Refused { doing: String, messages: Vec<Message> },
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanFault {
    /// It is no plan, or not a whole one.
    Damaged {
        reason: String,
    },
    /// Another version of TensorRT wrote it.
    OtherVersion {
        reason: String,
    },
    /// It was built for another device.
    OtherDevice {
        reason: String,
    },
    /// There is no device that could run it.
    NoDevice {
        reason: String,
    },
    Other {
        messages: Vec<Message>,
    },
}

impl fmt::Display for PlanFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { reason } => write!(f, "it is damaged or no plan ({reason})"),
            Self::OtherVersion { reason } => write!(f, "another version wrote it ({reason})"),
            Self::OtherDevice { reason } => write!(f, "it was built for another device ({reason})"),
            Self::NoDevice { reason } => write!(f, "there is no GPU that it could use ({reason})"),
            Self::Other { messages } => Said(messages).fmt(f),
        }
    }
}

/// A node that the parser cannot take in. Any text may be empty: TensorRT before 10 names no nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParserError {
    /// The node's place in the graph, where the error is a node's.
    pub index: Option<usize>,
    pub node: String,
    pub operator: String,
    pub description: String,
}

impl fmt::Display for ParserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.node.as_str(), self.operator.as_str(), self.index) {
            ("", "", None) => {}
            ("", "", Some(index)) => write!(f, "node {index}: ")?,
            (node, "", _) => write!(f, "node `{node}`: ")?,
            ("", operator, _) => write!(f, "a node of `{operator}`: ")?,
            (node, operator, _) => write!(f, "node `{node}` (`{operator}`): ")?,
        }
        f.write_str(&self.description)
    }
}

/// One thing that TensorRT said to have gone wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// TensorRT's own number for the kind of error; `None` for a line of its log and for an exception.
    pub code: Option<i32>,
    pub text: String,
}

impl Message {
    pub(crate) fn logged(text: &str) -> Self {
        Self { code: None, text: plain(text) }
    }

    pub(crate) fn recorded(code: i32, text: &str) -> Self {
        let code = (code != crate::sys::TRT_EXCEPTION).then_some(code);
        Self { code, text: plain(text) }
    }
}

/// The part of one of TensorRT's messages that is meant for people. They come as `IBuilder::build: Error Code 4:
/// Internal Error (What is wrong. In function at /_src/file.cpp:25)`, and CUDA's errors inside the brackets once more.
/// Empty where nothing is.
pub(crate) fn plain(text: &str) -> String {
    let inner = text.split_once("Error Code ").and_then(|(_, rest)| rest.split_once(" ("));
    let inner = inner.map_or(text, |(_, inner)| inner.strip_suffix(')').unwrap_or(inner));
    if let Some(start) = inner.find("(cudaError ") {
        return inner[start + 1..].trim_end_matches(')').to_owned();
    }
    if inner.starts_with("In ") && inner.contains(" at /") {
        return String::new();
    }
    let place = inner.match_indices(" In ").find(|(start, _)| inner[*start..].contains(" at /"));
    let inner = place.map_or(inner, |(start, _)| &inner[..start]);
    let said: Vec<&str> = inner.split("; ").map(without_place).collect();
    said.join("; ").trim().trim_end_matches('.').to_owned()
}

/// Leaves out `[file.cpp:25: function] ` at the beginning.
fn without_place(text: &str) -> &str {
    let place = text.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    place.filter(|(place, _)| place.contains(".cpp:")).map_or(text, |(_, said)| said)
}

/// What is wrong with a plan, by TensorRT's words. A plan that cannot be read is that, however much the missing GPU
/// is complained of as well.
pub(crate) fn fault_in(messages: Vec<Message>) -> PlanFault {
    let find = |words: &[&str]| {
        let holds = |message: &&Message| words.iter().any(|word| message.text.contains(word));
        // What stands before it is the condition that did not hold, and what follows the first sentence is advice.
        let reason = |text: &str| {
            let text = text.split_once(" failed.").map_or(text, |(_, after)| after).trim_start();
            text.split_once(". Check that").map_or(text, |(reason, _)| reason).to_owned()
        };
        messages.iter().find(holds).map(|message| reason(&message.text))
    };
    // Versions 8 and 10 speak of a version tag and of the library's version; only the former stands in an assertion
    // of the serialisation.
    if let Some(reason) = find(&["Version tag", "not compatible with this version", "library version"]) {
        PlanFault::OtherVersion { reason }
    } else if let Some(reason) = find(&["incompatible device", "compute capability", "expecting compute"]) {
        PlanFault::OtherDevice { reason }
    } else if let Some(reason) = find(&["Serialization", "bufferSize", "empty memory buffer", "Magic tag"]) {
        PlanFault::Damaged { reason }
    } else if let Some(reason) = find(&NO_DEVICE) {
        PlanFault::NoDevice { reason }
    } else {
        PlanFault::Other { messages }
    }
}

/// CUDA's numbers for a driver that is missing or too old, and for no device.
pub(crate) const NO_DEVICE: [&str; 2] = ["cudaError 35:", "cudaError 100:"];

/// The network's layer that the messages speak of: the longest name that stands in one of them as a whole word.
pub(crate) fn layer_in<'a>(messages: &[Message], layers: impl Iterator<Item = &'a str>) -> Option<String> {
    let stands_in = |text: &str, name: &str| {
        text.match_indices(name).any(|(start, _)| {
            let part_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.');
            let before = text[..start].chars().next_back();
            let after = text[start + name.len()..].chars().next();
            // A full stop may end the sentence.
            !before.is_some_and(part_of_word) && !after.is_some_and(|c| c != '.' && part_of_word(c))
        })
    };
    layers
        .filter(|name| !name.is_empty() && messages.iter().any(|message| stands_in(&message.text, name)))
        .max_by_key(|name| name.len())
        .map(str::to_owned)
}

/// Most errors come in a chain of which the first says the cause; the rest is in the log.
const SAID_MAX: usize = 3;

struct Said<'a>(&'a [Message]);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it does not say why");
        }
        list(f, self.0.iter().map(|message| &message.text), "; ")
    }
}

struct Parsed<'a>(&'a [ParserError]);

impl fmt::Display for Parsed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it does not say why");
        }
        list(f, self.0.iter(), "; ")
    }
}

fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl ExactSizeIterator<Item = T>,
    between: &str,
) -> fmt::Result {
    let left = items.len().saturating_sub(SAID_MAX);
    for (index, item) in items.take(SAID_MAX).enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { between })?;
    }
    if left > 0 {
        write!(f, "{between}and {left} more")?;
    }
    Ok(())
}

struct AtLayer<'a>(&'a Option<String>);

impl fmt::Display for AtLayer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |layer| write!(f, " at layer `{layer}`"))
    }
}

struct Tried<'a>(&'a [(PathBuf, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, (path, reason)) in self.0.iter().enumerate() {
            write!(f, "{}`{}` ({reason})", if index == 0 { "" } else { ", " }, path.display())?;
        }
        Ok(())
    }
}

struct Spoken<'a>(&'a [Version]);

impl fmt::Display for Spoken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, version) in self.0.iter().enumerate() {
            write!(f, "{}{version}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_freed_from_what_only_their_authors_need() {
        for (text, expected) in [
            (
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion a == b failed. \
                 In parsePlan at /_src/runtime.cpp:780)",
                "Serialization assertion a == b failed",
            ),
            (
                "IBuilder::build: Error Code 1: Cuda Runtime (In generate at /_src/a.cpp:221 (cudaError 35: CUDA driver \
                 version is insufficient for CUDA runtime version))",
                "cudaError 35: CUDA driver version is insufficient for CUDA runtime version",
            ),
            (
                "Error Code 1: Myelin ([a.cpp:1676: pick] No tactic fits.; [a.cpp:264: run] Error during selection)",
                "No tactic fits.; Error during selection",
            ),
            ("[a.cpp::f::229] Error Code 1: Cuda Runtime (In f at /_src/a.cpp:229)", ""),
            ("In input (pictures), minShape is wrong.", "In input (pictures), minShape is wrong"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    /// The sentences are those of TensorRT 8, 10 and RTX 1.7.
    #[test]
    fn a_plan_s_fault_is_known_by_what_tensorrt_says() {
        let fault = |texts: &[&str]| fault_in(texts.iter().map(|text| Message::recorded(1, text)).collect());
        let no_device = "Error Code 1: Cuda Runtime (In f at /a:1 (cudaError 35: CUDA driver version is insufficient))";
        for text in [
            "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: \
             Current Version: 43, Serialized Engine Version: 96",
            "The engine plan file is not compatible with this version of TensorRT, expecting library version 8.6.1 got \
             8.5.3, please rebuild.",
        ] {
            assert!(matches!(fault(&[text, no_device]), PlanFault::OtherVersion { .. }), "{text}");
        }
        let text = "The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 8.6, \
                    please rebuild.";
        assert!(matches!(fault(&[text]), PlanFault::OtherDevice { .. }));
        let text = "Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match";
        assert!(matches!(fault(&[no_device, text]), PlanFault::Damaged { .. }));
        assert!(matches!(fault(&[no_device]), PlanFault::NoDevice { .. }));
        assert!(matches!(fault(&["Something else"]), PlanFault::Other { .. }));
    }

    #[test]
    fn the_layer_that_an_error_speaks_of_is_the_longest_whole_name() {
        let messages = [Message::recorded(4, "/body/Conv_1: kernel weights has count 3 but 6 was expected.")];
        let layers = ["Conv_1", "/body/Conv_1", "/body/Conv_10", "body"];
        assert_eq!(layer_in(&messages, layers.into_iter()), Some("/body/Conv_1".to_owned()));
        assert_eq!(layer_in(&messages, ["Conv"].into_iter()), None);
    }
}
