//! What a SuperNode says, call by call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost::bytes::Bytes;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use revoada_core::Digest;
use revoada_fleet::flower::NodeKey;
use revoada_fleet::flower::objects::{ArrayHead, CHUNK_BYTES, Kind, NUMPY, Named, Object, Parsed, id_of, parse_id};
use revoada_proto::flower::metric_record::Item;
use revoada_proto::flower::metric_record_value::Value;
use revoada_proto::flower::{
    ActivateNodeRequest, ActivateNodeResponse, ConfirmMessageReceivedRequest, ConfirmMessageReceivedResponse,
    DeactivateNodeRequest, DeactivateNodeResponse, Message, Metadata, MetricRecord, MetricRecordValue, Node,
    ObjectTree, PullMessagesRequest, PullMessagesResponse, PullObjectRequest, PullObjectResponse, PushMessagesRequest,
    PushMessagesResponse, PushObjectRequest, PushObjectResponse, SendNodeHeartbeatRequest, SendNodeHeartbeatResponse,
};

pub(crate) struct NodeClient {
    agent: ureq::Agent,
    address: SocketAddr,
    pub(crate) key: KeyPair,
    pub(crate) id: u64,
    /// When it says that it is.
    pub(crate) clock: fn() -> SystemTime,
}

/// A status and what is said with it.
pub(crate) type Refused = (u16, String);

pub(crate) fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

pub(crate) fn public(key: &KeyPair) -> NodeKey {
    NodeKey::from_der(&key.subject_public_key_info()).unwrap()
}

impl NodeClient {
    pub(crate) fn new(address: SocketAddr, key: KeyPair) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
        Self { agent: config.build().into(), address, key, id: 0, clock: SystemTime::now }
    }

    /// One that is there.
    pub(crate) fn active(address: SocketAddr, key: KeyPair) -> Self {
        let mut client = Self::new(address, key);
        client.activate().unwrap();
        client
    }

    pub(crate) fn call<T: prost::Message + Default>(
        &self,
        call: &str,
        request: &impl prost::Message,
    ) -> Result<T, Refused> {
        let url = format!("http://{}/v1/fleet/{call}", self.address);
        let time = humantime::format_rfc3339_micros((self.clock)()).to_string().replace('Z', "+00:00");
        let signature = self.key.sign(time.as_bytes()).unwrap();
        let sent = self
            .agent
            .post(&url)
            .header("content-type", "application/protobuf")
            .header("flwr-public-key", STANDARD.encode(self.key.public_key_pem()))
            .header("flwr-signature", STANDARD.encode(signature))
            .header("flwr-timestamp", time)
            .send(&request.encode_to_vec());
        let mut response = sent.unwrap();
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(32 << 20).read_to_vec().unwrap();
        match status {
            200 => Ok(T::decode(body.as_slice()).unwrap()),
            _ => {
                let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(said["code"], status, "{said}");
                Err((status, said["detail"].as_str().unwrap().to_owned()))
            }
        }
    }

    pub(crate) fn node(&self) -> Option<Node> {
        Some(Node { node_id: self.id })
    }

    pub(crate) fn activate(&mut self) -> Result<u64, Refused> {
        let public_key = self.key.public_key_pem().into();
        let request = ActivateNodeRequest { public_key, heartbeat_interval: 30.0 };
        self.id = self.call::<ActivateNodeResponse>("activate-node", &request)?.node_id;
        Ok(self.id)
    }

    pub(crate) fn heartbeat(&self) -> Result<bool, Refused> {
        let request = SendNodeHeartbeatRequest { node: self.node(), heartbeat_interval: 30.0 };
        self.call::<SendNodeHeartbeatResponse>("send-node-heartbeat", &request).map(|response| response.success)
    }

    pub(crate) fn leave(&self) -> Result<(), Refused> {
        let request = DeactivateNodeRequest { node_id: self.id };
        self.call::<DeactivateNodeResponse>("deactivate-node", &request).map(drop)
    }

    pub(crate) fn pull(&self) -> Result<Option<(Message, ObjectTree)>, Refused> {
        let response: PullMessagesResponse = self.call("pull-messages", &PullMessagesRequest { node: self.node() })?;
        Ok(response.messages_list.into_iter().zip(response.message_object_trees).next())
    }

    /// Asks again as long as there is nothing.
    pub(crate) fn wait(&self) -> (Message, ObjectTree) {
        (0..100).find_map(|_| self.pull().unwrap()).expect("there is a message")
    }

    pub(crate) fn object(&self, run_id: u64, name: &str) -> Option<Bytes> {
        let request = PullObjectRequest { node: self.node(), run_id, object_id: name.to_owned() };
        let response: PullObjectResponse = self.call("pull-object", &request).unwrap();
        assert_eq!(response.object_found, response.object_available);
        response.object_found.then_some(response.object_content)
    }

    /// All objects of a message, each of which is what its name says.
    pub(crate) fn objects(&self, run_id: u64, tree: &ObjectTree) -> BTreeMap<Digest, Parsed> {
        let names = revoada_fleet::flower::objects::names(tree, 1000).unwrap();
        let objects = names.into_iter().map(|name| {
            let content = self.object(run_id, &name.hex()).unwrap();
            assert_eq!(id_of(&content), name);
            (name, Parsed::new(&content).unwrap())
        });
        objects.collect()
    }

    pub(crate) fn confirm(&self, run_id: u64, message: &Message) {
        let message_object_id = message.metadata.as_ref().unwrap().message_id.clone();
        let request = ConfirmMessageReceivedRequest { node: self.node(), run_id, message_object_id };
        self.call::<ConfirmMessageReceivedResponse>("confirm-message-received", &request).unwrap();
    }

    pub(crate) fn push(&self, message: Message, tree: ObjectTree) -> Result<PushMessagesResponse, Refused> {
        let request = PushMessagesRequest {
            node: self.node(),
            messages_list: vec![message],
            message_object_trees: vec![tree],
            clientapp_runtime_list: vec![1.5],
        };
        self.call("push-messages", &request)
    }

    pub(crate) fn put(&self, run_id: u64, session: &str, name: &str, content: &Bytes) -> Result<bool, Refused> {
        let request = PushObjectRequest {
            node: self.node(),
            run_id,
            object_id: name.to_owned(),
            object_content: content.clone(),
            session_id: session.to_owned(),
        };
        self.call::<PushObjectResponse>("push-object", &request).map(|response| response.stored)
    }

    /// Sends a whole reply; how many objects were asked for.
    pub(crate) fn answer(&self, to: &Message, reply: &OwnReply) -> Result<usize, Refused> {
        let run = to.metadata.as_ref().unwrap().run_id;
        let pushed = self.push(reply.message.clone(), reply.tree.clone())?;
        for name in &pushed.objects_to_push {
            let content = &reply.objects[&parse_id(name).unwrap()];
            assert!(self.put(run, &pushed.session_id, name, content)?);
        }
        Ok(pushed.objects_to_push.len())
    }

    /// A reply to a message, as a client's program makes it.
    pub(crate) fn reply(&self, to: &Message, tensors: &[(&str, &[u8])], metrics: &[(&str, Value)]) -> OwnReply {
        let mut objects = BTreeMap::new();
        let mut keep = |object: &Object| drop(objects.insert(object.id, object.content.clone()));
        let (mut arrays, mut below) = (Named::default(), Vec::new());
        for (name, bytes) in tensors {
            let chunks: Vec<_> =
                bytes.chunks(CHUNK_BYTES).map(|chunk| Object::new(Kind::ArrayChunk, &[], chunk)).collect();
            chunks.iter().for_each(&mut keep);
            let head = ArrayHead {
                dtype: "float32".to_owned(),
                shape: Vec::new(),
                stype: NUMPY.to_owned(),
                chunks: (0..chunks.len()).collect(),
            };
            let children: Vec<_> = chunks.iter().map(|chunk| chunk.id).collect();
            let array = Object::new(Kind::Array, &children, &serde_json::to_vec(&head).unwrap());
            keep(&array);
            below.push(array.tree(chunks.iter().map(|chunk| chunk.tree(Vec::new())).collect()));
            arrays.0.push(((*name).to_owned(), array.id));
        }
        let record = Object::new(Kind::ArrayRecord, &arrays.children(), &serde_json::to_vec(&arrays).unwrap());
        keep(&record);
        let items = metrics.iter().map(|(name, value)| Item {
            key: (*name).to_owned(),
            value: Some(MetricRecordValue { value: Some(value.clone()) }),
        });
        let numbers = Object::new(Kind::MetricRecord, &[], &MetricRecord { items: items.collect() }.encode_to_vec());
        keep(&numbers);
        let named = Named(vec![("arrays".to_owned(), record.id), ("metrics".to_owned(), numbers.id)]);
        let records = Object::new(Kind::RecordDict, &named.children(), &serde_json::to_vec(&named).unwrap());
        keep(&records);
        let mut message = self.bare(to);
        let whole = Object::new(Kind::Message, &[records.id], &message.encode_to_vec());
        keep(&whole);
        message.metadata.as_mut().unwrap().message_id = whole.id.hex();
        // Its objects are the content, of which nothing stands in the message.
        message.content = Some(Default::default());
        let tree = whole.tree(vec![records.tree(vec![record.tree(below), numbers.tree(Vec::new())])]);
        OwnReply { message, tree, objects }
    }

    pub(crate) fn bare(&self, to: &Message) -> Message {
        let to = to.metadata.as_ref().unwrap();
        let metadata = Metadata {
            run_id: to.run_id,
            src_node_id: self.id,
            dst_node_id: to.src_node_id,
            reply_to_message_id: to.message_id.clone(),
            group_id: to.group_id.clone(),
            ttl: 60.0,
            message_type: to.message_type.clone(),
            created_at: to.created_at + 1.0,
            ..Metadata::default()
        };
        Message { metadata: Some(metadata), content: None, error: None }
    }
}

pub(crate) struct OwnReply {
    pub(crate) message: Message,
    pub(crate) tree: ObjectTree,
    pub(crate) objects: BTreeMap<Digest, Bytes>,
}
