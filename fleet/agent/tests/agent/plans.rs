//! Plans of other devices, against a fleet service that can lie about them.

use revoada_agent::PartSource;
use revoada_bundle::hash;
use revoada_bundle::plan::{Plan, PlanFacts, PlanKey};
use revoada_bundle::sign::{PublicKey, SecretKey};
use revoada_core::{Architecture, Compatibility, DeviceClass, Digest, TensorRtFlavour, TensorRtVersion};
use revoada_proto::message::{class_to_json, from_digest, to_digest};
use revoada_proto::wire::{FindPlanResponse, PlanOffer};
use revoada_proto::{Deployable, Kind};

use crate::artefacts::{Artefacts, Behaviour};
use crate::fleet::Fleet;
use crate::shell::wait_done;
use crate::shell_device::TestDevice;

/// The class of the device, which `examples/pretend_revoada.rs` builds for.
fn class() -> DeviceClass {
    DeviceClass {
        module: None,
        architecture: Architecture::new(8, 7),
        multiprocessors: Some(8),
        tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
        cuda: Some([12, 6]),
    }
}

/// A service, and a device that runs plans.
struct Scene {
    fleet: Fleet,
    artefacts: Artefacts,
    device: TestDevice,
    builder: SecretKey,
    generation: u64,
}

impl Scene {
    fn new() -> Self {
        let (fleet, artefacts) = (Fleet::start(), Artefacts::new());
        let mut device = TestDevice::new(&fleet, &artefacts.trusted());
        device.add_gpu(&class_to_json(&class()));
        device.start();
        // Whoever runs can be asked for how many rows a plan is.
        device.wait_for_model("came with the device");
        Self { fleet, artefacts, device, builder: SecretKey::generate().unwrap(), generation: 0 }
    }

    fn plan(&self, bundle: Digest, device: DeviceClass, engine: &[u8]) -> Plan {
        let key = PlanKey {
            bundle,
            device,
            compatibility: Compatibility::default(),
            precision: revoada_bundle::bundle::Precision::Fp16,
            profile: Default::default(),
            dla_core: None,
            builder: "another device".to_owned(),
        };
        Plan::seal(key, PlanFacts::default(), engine, &self.builder)
    }

    /// Puts a plan among the blobs, and says so of it.
    fn offer(&mut self, plan: &Plan, signed_by: PublicKey) -> PlanOffer {
        let digest = hash(plan.bytes());
        self.artefacts.put(PartSource::Blob(digest), plan.bytes().to_vec());
        PlanOffer { digest: to_digest(&digest), bytes: plan.bytes().len() as u64, signed_by: signed_by.to_string() }
    }

    fn model(&mut self, name: &str) -> Deployable {
        self.artefacts.make(Kind::Model, name, Behaviour::Runs)
    }

    /// Orders a model, has these plans offered, wants one built, and waits until it runs.
    fn deploy(&mut self, model: Deployable, plans: Vec<PlanOffer>) {
        self.fleet.offer(&self.artefacts);
        self.fleet.world().plans = Some(FindPlanResponse { plans, build: true });
        self.run(model);
    }

    fn run(&mut self, model: Deployable) {
        self.generation += 1;
        self.fleet.order(self.generation, &[model]);
        let report = wait_done(&self.fleet, self.generation);
        assert_eq!(report.running[&Kind::Model], model.digest);
        assert!(!self.device.config.folder.join("plans").exists(), "nothing is left of what was tried");
    }

    /// Whose plans the device has made its own.
    fn builds(&self) -> String {
        std::fs::read_to_string(self.device.config.folder.join("builds")).unwrap_or_default()
    }

    /// For which bundles plans were uploaded.
    fn uploaded(&self) -> Vec<Digest> {
        self.fleet.world().uploaded_plans.iter().map(|(header, _)| from_digest(&header.bundle).unwrap()).collect()
    }

    /// How often a plan was asked for, and from where on.
    fn asked(&self, offer: &PlanOffer) -> Vec<Option<String>> {
        let path = format!("blobs/{}", from_digest(&offer.digest).unwrap().hex());
        let world = self.fleet.world();
        world.asked.iter().filter(|(asked, _)| *asked == path).map(|(_, range)| range.clone()).collect()
    }
}

#[test]
fn a_good_plan_is_taken_even_where_its_download_breaks_off() {
    let mut scene = Scene::new();
    let (model, builder) = (scene.model("first"), scene.builder.public());
    let plan = scene.plan(model.digest, class(), b"good");
    let offer = scene.offer(&plan, builder);
    scene.fleet.world().cut_after = Some(plan.bytes().len() - 10);
    scene.deploy(model, vec![offer.clone()]);
    let from = format!("bytes={}-", plan.bytes().len() - 10);
    assert_eq!(scene.asked(&offer), [None, Some(from)]);
    assert_eq!((scene.builds().as_str(), scene.uploaded()), ("offered\n", Vec::new()), "who takes one builds none");
}

#[test]
fn what_is_not_as_it_is_offered_is_not_taken_and_the_device_builds_its_own() {
    let mut scene = Scene::new();
    let (model, builder) = (scene.model("first"), scene.builder.public());
    let [good, of_another, for_another, bad] = [
        scene.plan(model.digest, class(), b"good"),
        scene.plan(Digest::new([7; 32]), class(), b"good"),
        scene.plan(model.digest, DeviceClass { multiprocessors: Some(16), ..class() }, b"good"),
        scene.plan(model.digest, class(), b"bad"),
    ];
    let somebody = SecretKey::generate().unwrap().public();
    let lies = [
        scene.offer(&good, somebody),
        scene.offer(&of_another, builder),
        scene.offer(&for_another, builder),
        scene.offer(&bad, builder),
    ];
    scene.deploy(model, lies.to_vec());
    assert!(lies.iter().all(|lie| scene.asked(lie).len() == 1), "each was looked at");
    assert_eq!((scene.builds().as_str(), scene.uploaded()), ("own\n", vec![model.digest]));
    let (header, bytes) = scene.fleet.world().uploaded_plans[0].clone();
    assert_eq!((header.device_class, header.latency_ms), (class_to_json(&class()), Some(2.5)));
    assert_eq!((from_digest(&header.digest).unwrap(), header.bytes), (hash(&bytes), bytes.len() as u64));
    let rows = &Plan::parse(bytes).unwrap().key().profile["x"].max.clone();
    assert_eq!(rows, &[3], "as many as the pipeline says");
}

#[test]
fn bytes_that_are_not_those_of_the_offer_are_not_taken() {
    let mut scene = Scene::new();
    let (model, builder) = (scene.model("first"), scene.builder.public());
    let plan = scene.plan(model.digest, class(), b"good");
    let offer = scene.offer(&plan, builder);
    let changed = PlanOffer { digest: to_digest(&Digest::new([1; 32])), ..offer.clone() };
    scene.artefacts.put(PartSource::Blob(Digest::new([1; 32])), plan.bytes().to_vec());
    let missing = PlanOffer { digest: to_digest(&Digest::new([2; 32])), ..offer.clone() };
    let longer = PlanOffer { bytes: offer.bytes - 1, ..offer.clone() };
    let huge = PlanOffer { digest: to_digest(&Digest::new([3; 32])), bytes: 1 << 40, ..offer.clone() };
    scene.deploy(model, vec![changed, missing, longer, huge.clone()]);
    assert_eq!((scene.builds().as_str(), scene.uploaded()), ("own\n", vec![model.digest]));
    assert_eq!(scene.asked(&huge), [], "what no device has room for is not begun");
}

#[test]
fn neither_a_service_that_is_away_nor_a_build_that_fails_keeps_a_model_from_running() {
    let mut scene = Scene::new();
    let first = scene.model("first");
    scene.fleet.offer(&scene.artefacts);
    // It answers all but what is asked of plans.
    scene.run(first);
    assert_eq!((scene.builds().as_str(), scene.uploaded()), ("own\n", Vec::new()), "it has its own all the same");
    let second = scene.model("second builds-no-plan");
    scene.deploy(second, Vec::new());
    assert_eq!((scene.builds().as_str(), scene.uploaded()), ("own\n", Vec::new()));
}
