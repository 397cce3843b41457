//! What a server has to give, and how it behaves on a device.

use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;

use revoada_agent::PartSource;
use revoada_bundle::bundle::{
    Bundle, BundleWriter, INDEX, Index, Lineage, MANIFEST, MODEL, Precision, SIGNATURE, VERSION,
};
use revoada_bundle::hash;
use revoada_bundle::sign::{PublicKey, Purpose, SecretKey};
use revoada_core::Digest;
use revoada_proto::{Deployable, Kind};

/// What running it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Runs,
    /// Runs for longer than a trial takes, and crashes then, again and again.
    CrashesMuchLater,
    FailsPreflight,
    CrashesAtLoad,
    CrashesAtFrame(u64),
    GivesNoNumbers,
    /// Has no frames.
    Hangs,
    /// The server does not have all of it.
    IsMissing,
    /// Who signed it is not trusted.
    IsAStrangers,
}

impl Behaviour {
    pub(crate) const ALL: [Self; 9] = [
        Self::Runs,
        Self::CrashesMuchLater,
        Self::FailsPreflight,
        Self::CrashesAtLoad,
        Self::CrashesAtFrame(50),
        Self::GivesNoNumbers,
        Self::Hangs,
        Self::IsMissing,
        Self::IsAStrangers,
    ];

    /// Whether it passes a trial.
    pub(crate) fn is_good(self) -> bool {
        matches!(self, Self::Runs | Self::CrashesMuchLater)
    }
}

/// A server's blobs and signatures, and how what they make up behaves.
pub(crate) struct Artefacts {
    pub(crate) parts: BTreeMap<String, Vec<u8>>,
    pub(crate) behaviours: BTreeMap<Digest, Behaviour>,
    made: Vec<Deployable>,
    key: Rc<SecretKey>,
}

impl Artefacts {
    pub(crate) fn new() -> Self {
        Self {
            parts: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            made: Vec::new(),
            key: Rc::new(SecretKey::generate().unwrap()),
        }
    }

    pub(crate) fn trusted(&self) -> Vec<PublicKey> {
        vec![self.key.public()]
    }

    pub(crate) fn get(&self, source: PartSource) -> Option<&[u8]> {
        self.parts.get(&format!("{source:?}")).map(Vec::as_slice)
    }

    pub(crate) fn put(&mut self, source: PartSource, bytes: Vec<u8>) {
        self.parts.insert(format!("{source:?}"), bytes);
    }

    pub(crate) fn remove(&mut self, source: PartSource) {
        self.parts.remove(&format!("{source:?}")).unwrap();
    }

    /// The bytes of everything that a bundle consists of.
    pub(crate) fn parts_of(&self, bundle: Digest) -> impl Iterator<Item = &[u8]> {
        let index = self.get(PartSource::Blob(bundle)).unwrap();
        let files = serde_json::from_slice::<Index>(index).unwrap().files;
        let sources = files.into_values().map(|record| PartSource::Blob(record.sha256));
        let own = [PartSource::Blob(bundle), PartSource::SignatureOf(bundle)];
        own.into_iter().chain(sources).map(|source| self.get(source).unwrap())
    }

    /// Everything that was made.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Deployable, Behaviour)> + '_ {
        self.made.iter().map(|deployable| (*deployable, self.behaviours[&deployable.digest]))
    }

    /// Something of this kind, different for each name.
    pub(crate) fn make(&mut self, kind: Kind, name: &str, behaviour: Behaviour) -> Deployable {
        let stranger = Rc::new(SecretKey::generate().unwrap());
        let key = if behaviour == Behaviour::IsAStrangers { stranger } else { Rc::clone(&self.key) };
        let digest = match kind {
            Kind::Model => self.make_bundle(name, &key),
            Kind::Pipeline => self.make_file(Purpose::Pipeline, format!("what {name} is"), &key),
            Kind::Package => self.make_file(Purpose::Package, format!("what {name} is"), &key),
        };
        if behaviour == Behaviour::IsMissing {
            self.remove(PartSource::SignatureOf(digest));
        }
        self.behaviours.insert(digest, behaviour);
        self.made.push(Deployable { kind, digest });
        Deployable { kind, digest }
    }

    /// A package that is this script.
    pub(crate) fn make_program(&mut self, script: &str) -> Deployable {
        let key = Rc::clone(&self.key);
        Deployable { kind: Kind::Package, digest: self.make_file(Purpose::Package, script.to_owned(), &key) }
    }

    fn make_file(&mut self, purpose: Purpose, content: String, key: &SecretKey) -> Digest {
        let content = content.into_bytes();
        let digest = hash(&content);
        let signature = serde_json::to_vec(&key.sign(purpose, digest)).unwrap();
        self.put(PartSource::Blob(digest), content);
        self.put(PartSource::SignatureOf(digest), signature);
        digest
    }

    fn make_bundle(&mut self, name: &str, key: &SecretKey) -> Digest {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.bundle");
        let mut writer = BundleWriter::create(&target).unwrap();
        writer.add(MODEL, format!("not really a model, but {name}").as_bytes()).unwrap();
        writer.add(MANIFEST, b"version = 1\nlabels = [\"red\", \"green\"]\n").unwrap();
        writer.add("reports/accuracy.json", format!("{{\"of\": \"{name}\"}}").as_bytes()).unwrap();
        writer.add("empty", b"").unwrap();
        let index = Index {
            version: VERSION,
            name: name.to_owned(),
            precision: Precision::Fp16,
            producer: "revoada test".to_owned(),
            licence: None,
            lineage: Lineage::default(),
            files: BTreeMap::new(),
        };
        let bundle: Bundle = writer.seal(index, Some(key)).unwrap().publish().unwrap();
        let digest = bundle.digest();
        self.put(PartSource::Blob(digest), fs::read(target.join(INDEX)).unwrap());
        self.put(PartSource::SignatureOf(digest), fs::read(target.join(SIGNATURE)).unwrap());
        for (path, record) in &bundle.index().files {
            self.put(PartSource::Blob(record.sha256), fs::read(target.join(path)).unwrap());
        }
        digest
    }
}
