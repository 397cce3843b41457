//! Flower's objects: what a message carries, in pieces that are named by their content.
//!
//! An object is a head, a zero byte and a body. The head has its kind, the names of its children and the length of the body; the
//! name of an object is the SHA-256 of all of it, in hexadecimal digits. So a piece that two messages share is sent once, and
//! whoever receives one sees that it is the one that was meant.

use std::collections::HashSet;
use std::fmt;

use prost::bytes::Bytes;
use revoada_core::Digest;
use revoada_proto::flower::ObjectTree;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Of the body of a piece of an array.
pub const CHUNK_BYTES: usize = 5 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A slice of an array's bytes.
    ArrayChunk,
    /// An array: what it is, and its chunks.
    Array,
    /// Arrays by name.
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
    /// Records by name: what a message has to say.
    RecordDict,
    Message,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::ArrayChunk,
        Self::Array,
        Self::ArrayRecord,
        Self::ConfigRecord,
        Self::MetricRecord,
        Self::RecordDict,
        Self::Message,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ArrayChunk => "ArrayChunk",
            Self::Array => "Array",
            Self::ArrayRecord => "ArrayRecord",
            Self::ConfigRecord => "ConfigRecord",
            Self::MetricRecord => "MetricRecord",
            Self::RecordDict => "RecordDict",
            Self::Message => "Message",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
pub enum ObjectError {
    #[error("an object has no head")]
    Headless,
    #[error("the head of an object is malformed")]
    Head,
    #[error("an object says that it has {said} bytes and has {found}")]
    Length { said: usize, found: usize },
    #[error("`{text}` is no name of an object")]
    Name { text: String },
    #[error("an object has more than {max} in it")]
    TooMany { max: usize },
}

/// An object, and what it is named by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub id: Digest,
    pub content: Bytes,
}

impl Object {
    pub fn new(kind: Kind, children: &[Digest], body: &[u8]) -> Self {
        let names: Vec<String> = children.iter().map(Digest::hex).collect();
        let head = format!("{kind} {} {}\0", names.join(","), body.len());
        let content = Bytes::from([head.as_bytes(), body].concat());
        Self { id: id_of(&content), content }
    }

    /// One that has no children but `children`.
    pub fn tree(&self, children: Vec<ObjectTree>) -> ObjectTree {
        ObjectTree { object_id: self.id.hex(), children }
    }
}

pub fn id_of(content: &[u8]) -> Digest {
    Digest::new(Sha256::digest(content).into())
}

/// A name as it is written: 64 lower-case hexadecimal digits and nothing else.
pub fn parse_id(text: &str) -> Result<Digest, ObjectError> {
    let parsed = text.parse::<Digest>().ok().filter(|id| id.hex() == text);
    parsed.ok_or_else(|| ObjectError::Name { text: text.chars().take(80).collect() })
}

/// An object taken apart; the body is a part of its content, not a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub kind: Kind,
    pub children: Vec<Digest>,
    pub body: Bytes,
}

impl Parsed {
    pub fn new(content: &Bytes) -> Result<Self, ObjectError> {
        let end = content.iter().position(|byte| *byte == 0).ok_or(ObjectError::Headless)?;
        let head = std::str::from_utf8(&content[..end]).map_err(|_| ObjectError::Head)?;
        let mut parts = head.split(' ');
        let (Some(kind), Some(children), Some(length), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ObjectError::Head);
        };
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).ok_or(ObjectError::Head)?;
        let children = children.split(',').filter(|_| !children.is_empty()).map(parse_id).collect::<Result<_, _>>()?;
        let said = length.parse().ok().filter(|said: &usize| said.to_string() == length).ok_or(ObjectError::Head)?;
        let body = content.slice(end + 1..);
        if body.len() != said {
            return Err(ObjectError::Length { said, found: body.len() });
        }
        Ok(Self { kind, children, body })
    }
}

/// The names of all objects of a tree, each once; the root is the last.
pub fn names(tree: &ObjectTree, objects_max: usize) -> Result<Vec<Digest>, ObjectError> {
    fn walk(
        tree: &ObjectTree,
        max: usize,
        visited: &mut usize,
        seen: &mut HashSet<Digest>,
        names: &mut Vec<Digest>,
    ) -> Result<(), ObjectError> {
        // A tree may name one child many times.
        *visited += 1;
        if *visited > max {
            return Err(ObjectError::TooMany { max });
        }
        for child in &tree.children {
            walk(child, max, visited, seen, names)?;
        }
        let id = parse_id(&tree.object_id)?;
        if seen.insert(id) {
            names.push(id);
        }
        Ok(())
    }
    let mut names = Vec::new();
    // As deep as the decoder of messages lets a tree be.
    walk(tree, objects_max, &mut 0, &mut HashSet::new(), &mut names)?;
    Ok(names)
}

/// The body of an `Array`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayHead {
    pub dtype: String,
    pub shape: Vec<u64>,
    pub stype: String,
    /// Places among the children, in the order in which the chunks make up the bytes.
    #[serde(rename = "arraychunk_ids")]
    pub chunks: Vec<usize>,
}

/// The only way in which arrays are saved: as NumPy does it.
pub const NUMPY: &str = "numpy.ndarray";

/// The body of what has its children by name; the order is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named(pub Vec<(String, Digest)>);

impl Named {
    /// Each child once.
    pub fn children(&self) -> Vec<Digest> {
        let mut seen = HashSet::new();
        self.0.iter().map(|(_, id)| *id).filter(|id| seen.insert(*id)).collect()
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, id)| (name, id.hex())))
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names of objects by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let (mut named, mut seen) = (Vec::new(), HashSet::new());
                while let Some((name, id)) = map.next_entry::<String, String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom("a name is there twice"));
                    }
                    named.push((name, parse_id(&id).map_err(A::Error::custom)?));
                }
                Ok(Named(named))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_object_is_named_by_all_of_it() {
        let chunk = Object::new(Kind::ArrayChunk, &[], b"abc");
        assert_eq!(chunk.content, b"ArrayChunk  3\0abc".as_slice());
        let hex = "97563ee4a60ed81c1fc7ba92ee12a4d8eb2f3b28ca7eb5d7cbbfb4b6a2c45e9b";
        let array = Object::new(Kind::Array, &[chunk.id], b"{}");
        assert_eq!(array.content, format!("Array {} 2\0{{}}", chunk.id.hex()).into_bytes());
        assert_ne!(chunk.id, array.id);
        assert!(parse_id(hex).is_ok());
        assert!(parse_id(&hex.to_uppercase()).is_err());
        assert!(parse_id(&format!("sha256:{hex}")).is_err());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let name = "0".repeat(64);
        for (content, error) in [
            ("Array  3", ObjectError::Headless),
            ("Array 3\0abc", ObjectError::Head),
            ("Array  3 \0abc", ObjectError::Head),
            ("Arrays  3\0abc", ObjectError::Head),
            ("Array  -3\0abc", ObjectError::Head),
            ("Array  4\0abc", ObjectError::Length { said: 4, found: 3 }),
            ("Array x 3\0abc", ObjectError::Name { text: "x".to_owned() }),
            (&format!("Array {name}, 3\0abc"), ObjectError::Name { text: String::new() }),
        ] {
            assert_eq!(Parsed::new(&Bytes::copy_from_slice(content.as_bytes())), Err(error), "{content}");
        }
    }

    #[test]
    fn a_tree_is_bounded_and_its_names_are_there_once() {
        let leaf = ObjectTree { object_id: "a".repeat(64), children: Vec::new() };
        let tree = ObjectTree { object_id: "b".repeat(64), children: vec![leaf.clone(), leaf] };
        assert_eq!(
            names(&tree, 3).unwrap().iter().map(Digest::hex).collect::<Vec<_>>(),
            ["a".repeat(64), "b".repeat(64)]
        );
        assert_eq!(names(&tree, 2), Err(ObjectError::TooMany { max: 2 }));
    }

    proptest! {
        #[test]
        fn an_object_is_read_as_it_was_made(
            kind in prop::sample::select(Kind::ALL.to_vec()),
            children in prop::collection::vec(any::<[u8; 32]>().prop_map(Digest::new), 0..4),
            body in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let object = Object::new(kind, &children, &body);
            let parsed = Parsed::new(&object.content).unwrap();
            prop_assert_eq!(parsed, Parsed { kind, children, body: body.into() });
        }

        #[test]
        fn names_keep_their_order(names in prop::collection::hash_set(".{0,8}", 0..8), byte in any::<u8>()) {
            let named = Named(names.into_iter().map(|name| (name, Digest::new([byte; 32]))).collect());
            let text = serde_json::to_string(&named).unwrap();
            prop_assert_eq!(serde_json::from_str::<Named>(&text).unwrap(), named);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0_usize..64) {
            drop(Parsed::new(&bytes.clone().into()));
            let mut sound = Object::new(Kind::Array, &[Digest::new([7; 32])], b"body").content.to_vec();
            let at = at.min(sound.len());
            sound.splice(at..(at + bytes.len()).min(sound.len()), bytes.drain(..));
            if let Ok(parsed) = Parsed::new(&sound.clone().into()) {
                prop_assert_eq!(Object::new(parsed.kind, &parsed.children, &parsed.body).content, sound);
            }
        }
    }
}
