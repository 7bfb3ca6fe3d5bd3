//! Every example of the protocol (`vectors.json`, made by the reference client) holds for us.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rsa::{PrivateKey, pkcs8::DecodePrivateKey as _};
use serde_json::Value as Json;
use teracron_agent::config;
use teracron_common::Sampling;
use wire::{
    Fields, Limits, MAX_ERROR_MESSAGE, Sample, Span, Status, Value, cut, metrics_body, spans_body,
};
use wire::{
    api_key,
    seal::{HEAD_BYTES, Plaintext, Sealer},
};

static VECTORS: LazyLock<Json> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../crates/wire/tests/vectors.json")).unwrap()
});

fn list(name: &str) -> &'static [Json] {
    VECTORS[name].as_array().unwrap()
}

fn private_key() -> PrivateKey {
    PrivateKey::from_pkcs8_pem(VECTORS["test_private_key_pem"].as_str().unwrap()).unwrap()
}

#[test]
fn api_keys() {
    for vector in list("api_keys") {
        let key = vector["key"].as_str().unwrap();
        assert_eq!(api_key::mask(key), vector["masked"].as_str().unwrap());
        match api_key::decode(key) {
            Ok(decoded) => {
                assert_eq!(vector["slug"], decoded.slug, "{vector}");
                assert_eq!(vector["public_key_pem"], decoded.public_key);
            }
            Err(error) => assert_eq!(vector["error"], true, "{error}: {vector}"),
        }
    }
    let small = api_key::decode(
        VECTORS["api_key_2048_refused_at_envelope"]
            .as_str()
            .unwrap(),
    );
    assert_eq!(
        api_key::parse_public_key(&small.unwrap().public_key).unwrap_err(),
        api_key::KeyError::Size
    );
}

#[test]
fn domains() {
    for vector in list("domains") {
        let host = config::sanitise(vector["given"].as_str().unwrap());
        assert_eq!(vector["host"], host);
        assert_eq!(
            vector["allowed"],
            config::is_allowed(&host, false),
            "{vector}"
        );
    }
    for evil in [
        "user@www.teracron.com",
        "evil.org?.teracron.com",
        "a b.teracron.com",
        "x\\.teracron.com",
    ] {
        assert!(!config::is_allowed(evil, true), "{evil}");
    }
}

#[test]
fn sampling() {
    for vector in list("sampling") {
        let id = u128::from_str_radix(vector[0].as_str().unwrap(), 16).unwrap();
        let kept = Sampling::of(vector[1].as_f64().unwrap()).keeps([(id >> 64) as u64, id as u64]);
        assert_eq!(vector[2], kept, "{vector}");
    }
}

#[test]
fn metrics() {
    for vector in list("metrics") {
        let samples: Vec<Sample> = vector["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| {
                let number = |key: &str| snapshot[key].as_u64().unwrap();
                let cpu = snapshot["cpu_usage"].as_f64().unwrap();
                Sample {
                    timestamp: number("timestamp"),
                    vms: number("heap_total"),
                    uss: number("heap_used"),
                    rss: number("rss"),
                    cpu: (cpu >= 0.0).then(|| (cpu * 10_000.0).round_ties_even() as u64),
                }
            })
            .collect();
        let text = |key: &str| vector[key].as_str().unwrap();
        let body = metrics_body(&samples, text("sdk_version"), text("runtime_version"));
        let lag = vector["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .any(|snapshot| snapshot["event_loop_lag_ms"].as_f64().unwrap() >= 0.0);
        // A process without an event loop, as all of ours are.
        if !lag {
            let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(vector["protobuf_hex"], hex);
        }
    }
}

fn fields(object: &Json, limits: Limits) -> Fields {
    let mut fields = Fields::default();
    for (key, value) in object.as_object().into_iter().flatten() {
        let value = match value {
            Json::Bool(flag) => Value::Flag(*flag),
            Json::String(text) => Value::Text(text.clone()),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Value::Whole(whole),
                None => Value::Number(number.as_f64().unwrap()),
            },
            // Python objects, which a native program does not have.
            _ => continue,
        };
        fields.set(key.clone(), value, limits);
    }
    fields
}

#[test]
fn limits_of_spans() {
    for vector in list("span_limits") {
        let wanted = &vector["result"];
        let text = |key: &str| wanted[key].as_str().map(str::to_owned);
        let id = |key: &str| {
            text(key).map_or([0, 0], |id| {
                let id = u128::from_str_radix(&id, 16).unwrap();
                [(id >> 64) as u64, id as u64]
            })
        };
        let mut error_message = vector["error_message"].as_str().map(str::to_owned);
        if let Some(message) = &mut error_message {
            cut(message, MAX_ERROR_MESSAGE);
        }
        let span = Span {
            trace_id: id("trace_id"),
            span_id: [1, 2],
            parent_id: id("parent_span_id"),
            workflow: text("workflow").unwrap().into(),
            operation: text("operation").unwrap().into(),
            status: match wanted["status"].as_str().unwrap() {
                "failed" => Status::Failed,
                "succeeded" => Status::Succeeded,
                _ => Status::Started,
            },
            started_at: 5,
            duration_ms: wanted["duration_ms"].as_f64().unwrap(),
            error_type: text("error_type"),
            error_message,
            metadata: fields(&vector["metadata"], Limits::METADATA),
            captured_params: fields(&vector["captured_params"], Limits::CAPTURED),
        };
        let body: Json = serde_json::from_slice(&spans_body("a-b-001", &[span])).unwrap();
        assert_eq!(body["type"], "trace");
        assert_eq!(body["project_slug"], "a-b-001");
        let sent = &body["spans"][0];
        for (key, value) in wanted.as_object().unwrap() {
            // Which of more than 32 keys stay is told by their order, which this file's reader loses.
            if sent[key]
                .as_object()
                .is_some_and(|object| object.len() == 32)
            {
                assert_eq!(value.as_object().unwrap().len(), 32);
                continue;
            }
            assert_eq!(&sent[key], value, "{key}");
        }
    }
}

#[test]
fn envelopes_open_with_the_private_key() {
    use aes_gcm::{Aes256Gcm, KeyInit as _, aead::Aead as _};
    let private = private_key();
    let open = |envelope: &[u8]| -> Vec<u8> {
        let (key, rest) = envelope.split_at(512);
        let key = private.oaep_decrypt::<sha2::Sha256>(key).unwrap();
        let (iv, rest) = rest.split_at(12);
        let (tag, body) = rest.split_at(16);
        let cipher = Aes256Gcm::new_from_slice(&key).unwrap();
        cipher
            .decrypt(iv.try_into().unwrap(), [body, tag].concat().as_slice())
            .unwrap()
    };
    let sealer = Sealer::new(
        api_key::parse_public_key(VECTORS["public_key_pem"].as_str().unwrap()).unwrap(),
    );
    for vector in list("envelopes") {
        let bytes = |key: &str| STANDARD.decode(vector[key].as_str().unwrap()).unwrap();
        let plaintext = bytes("plaintext_b64");
        // What the reference sealed, and what we seal.
        assert_eq!(open(&bytes("envelope_b64")), plaintext);
        let first = sealer
            .seal(Plaintext::from_bytes(plaintext.clone()))
            .unwrap();
        let second = sealer
            .seal(Plaintext::from_bytes(plaintext.clone()))
            .unwrap();
        assert_eq!(first.len(), HEAD_BYTES + plaintext.len());
        assert_eq!(open(&first), plaintext);
        assert!(first[..512] != second[..512] && first[512..540] != second[512..540]);
    }
    assert_eq!(HEAD_BYTES, 540);
}
