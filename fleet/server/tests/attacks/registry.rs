//! Those who would bring something in that its owner never signed.

use revoada_bundle::hash;
use revoada_bundle::sign::{Purpose, SecretKey, Signature};
use revoada_core::Digest;
use serde_json::{Value, json};

use super::siege::{Answer, Siege};

async fn register(siege: &Siege, kind: &str, digest: Digest, signature: &Signature) -> Answer {
    let form = json!({ "version": "1", "digest": digest, "signature": signature });
    siege.ask("POST", &format!("/api/v1/artefacts/{kind}/evil/versions"), form).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_registered_that_its_owner_has_not_signed_for_just_that() {
    let siege = Siege::begin().await;
    let digest = siege.keep(b"version = 1\n").await;
    let stranger = SecretKey::generate().unwrap();
    register(&siege, "pipeline", digest, &stranger.sign(Purpose::Pipeline, digest)).await.expect(403);
    let of_another = siege.owner.sign(Purpose::Pipeline, Digest::new([7; 32]));
    register(&siege, "pipeline", digest, &of_another).await.expect(422);
    register(&siege, "pipeline", digest, &siege.owner.sign(Purpose::Package, digest)).await.expect(422);
    // The owner's name over a stranger's signature.
    let bytes = stranger.sign(Purpose::Pipeline, digest).to_bytes().unwrap();
    register(&siege, "pipeline", digest, &Signature::from_bytes(siege.owner.public(), &bytes)).await.expect(422);
    let unsigned = json!({ "version": "1", "digest": digest });
    siege.ask("POST", "/api/v1/artefacts/pipeline/evil/versions", unsigned).await.expect(422);
    assert_eq!(siege.ask("GET", "/api/v1/artefacts", Value::Null).await.expect(200).json(), json!([]));
    register(&siege, "pipeline", digest, &siege.owner.sign(Purpose::Pipeline, digest)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_not_what_its_name_says_is_dropped() {
    let siege = Siege::begin().await;
    let digest = hash(b"what was signed");
    siege.upload(digest, b"something else").await.expect(422);
    siege.ask("POST", &format!("/api/v1/blobs/{digest}/complete"), Value::Null).await.expect(409);
    register(&siege, "package", digest, &siege.owner.sign(Purpose::Package, digest)).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_does_not_reach_out_of_its_folder_even_where_its_owner_signs_it() {
    let siege = Siege::begin().await;
    let file = siege.keep(b"root::0:0::/:/bin/sh\n").await;
    for path in ["../../etc/passwd", "/etc/passwd", "labels/../../x", "./x", ""] {
        let record = json!({ "sha256": file, "bytes": 21 });
        let index = json!({
            "version": 1, "name": "evil", "precision": "fp16", "producer": "evil 1", "licence": null,
            "lineage": { "source": null, "parent": null, "steps": [] },
            "files": { "model.onnx": record, "manifest.toml": record, path: record },
        });
        let index = siege.keep(index.to_string().as_bytes()).await;
        let answer = register(&siege, "model", index, &siege.owner.sign(Purpose::Bundle, index)).await.expect(422);
        assert!(answer.text.contains("outside the bundle"), "{path}: {answer:?}");
    }
}
