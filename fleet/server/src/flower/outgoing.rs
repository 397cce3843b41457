//! A task as a SuperNode is sent it.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use prost::bytes::Bytes;
use revoada_core::Digest;
use revoada_proto::flower::config_record::Item;
use revoada_proto::flower::config_record_value::Value as Wire;
use revoada_proto::flower::{ConfigRecord, ConfigRecordValue, Message, Metadata, ObjectTree};

use super::objects::{ArrayHead, CHUNK_BYTES, Kind, NUMPY, Named, Object};
use crate::learning::{Config, Sheet, Value};

/// The weights of a task as objects: the same for all who are sent them, and most of what they are sent.
#[derive(Debug)]
pub struct Arrays {
    record: Object,
    tree: ObjectTree,
    objects: HashMap<Digest, Bytes>,
}

impl Arrays {
    /// Copies and hashes all of them: for a thread that may take its time.
    pub fn new(sheet: &Sheet) -> Self {
        let mut objects = HashMap::new();
        let mut keep = |object: &Object| drop(objects.insert(object.id, object.content.clone()));
        let (mut named, mut trees) = (Named::default(), HashMap::new());
        for ((name, element, shape), bytes) in sheet.tensors().zip(sheet.arrays()) {
            let (mut children, mut leaves, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
            for slice in bytes.chunks(CHUNK_BYTES) {
                let chunk = Object::new(Kind::ArrayChunk, &[], slice);
                let place = children.iter().position(|child| *child == chunk.id);
                chunks.push(place.unwrap_or(children.len()));
                if place.is_none() {
                    children.push(chunk.id);
                    leaves.push(chunk.tree(Vec::new()));
                    keep(&chunk);
                }
            }
            let head = ArrayHead {
                dtype: element.name().to_owned(),
                shape: shape.iter().map(|size| *size as u64).collect(),
                stype: NUMPY.to_owned(),
                chunks,
            };
            let array = Object::new(Kind::Array, &children, &json(&head));
            keep(&array);
            trees.insert(array.id, array.tree(leaves));
            named.0.push((name.to_owned(), array.id));
        }
        let children = named.children();
        let record = Object::new(Kind::ArrayRecord, &children, &json(&named));
        keep(&record);
        let below = children.iter().map(|child| trees.remove(child).expect("each array has a tree")).collect();
        Self { tree: record.tree(below), record, objects }
    }

    pub fn object(&self, id: &Digest) -> Option<&Bytes> {
        self.objects.get(id)
    }
}

fn json(body: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("names and numbers are JSON")
}

/// A message to a SuperNode: what is its own, and what it shares.
#[derive(Debug)]
pub struct Outgoing {
    /// With its name, and without what it carries.
    pub message: Message,
    pub tree: ObjectTree,
    objects: [Object; 3],
    arrays: Arc<Arrays>,
}

impl Outgoing {
    /// `metadata` has no `message_id` yet.
    pub fn new(metadata: Metadata, round: u64, config: &Config, arrays: Arc<Arrays>) -> Self {
        assert!(metadata.message_id.is_empty(), "a message is named by what it is");
        let config = Object::new(Kind::ConfigRecord, &[], &config_record(round, config).encode_to_vec());
        let named = Named(vec![("arrays".to_owned(), arrays.record.id), ("config".to_owned(), config.id)]);
        let records = Object::new(Kind::RecordDict, &named.children(), &json(&named));
        let mut message = Message { metadata: Some(metadata), content: None, error: None };
        let whole = Object::new(Kind::Message, &[records.id], &message.encode_to_vec());
        let below = vec![arrays.tree.clone(), config.tree(Vec::new())];
        let tree = whole.tree(vec![records.tree(below)]);
        message.metadata.as_mut().expect("it was given").message_id = whole.id.hex();
        message.content = Some(Default::default());
        Self { message, tree, objects: [whole, records, config], arrays }
    }

    pub fn id(&self) -> Digest {
        self.objects[0].id
    }

    /// One of those that it is made of.
    pub fn object(&self, id: &Digest) -> Option<&Bytes> {
        let own = self.objects.iter().find(|object| object.id == *id).map(|object| &object.content);
        own.or_else(|| self.arrays.object(id))
    }
}

/// With the number of the round, which Flower's own programs look for under this name.
fn config_record(round: u64, config: &Config) -> ConfigRecord {
    let round = ("server-round", Wire::Sint64(i64::try_from(round).unwrap_or(i64::MAX)));
    let others = config.iter().filter(|(name, _)| *name != "server-round").map(|(name, value)| {
        let value = match value {
            Value::Bool(value) => Wire::Bool(*value),
            Value::Integer(value) => Wire::Sint64(*value),
            Value::Double(value) => Wire::Double(*value),
            Value::Text(value) => Wire::String(value.clone()),
            Value::Bytes(value) => Wire::Bytes(Bytes::copy_from_slice(value)),
        };
        (name.as_str(), value)
    });
    let items = std::iter::once(round)
        .chain(others)
        .map(|(name, value)| Item { key: name.to_owned(), value: Some(ConfigRecordValue { value: Some(value) }) });
    ConfigRecord { items: items.collect() }
}
