//! Configs that are none, or not of the image that names them.

use serde_json::json;

use super::*;

/// An image of so many layers.
fn image(layers: usize, media_type: &str) -> ImageManifest {
    let blob = |media_type: &str| json!({"mediaType": media_type, "digest": Digest::of("x"), "size": 1});
    let layers: Vec<_> = (0..layers).map(|_| blob(media_type)).collect();
    let text =
        json!({"schemaVersion": 2, "config": blob("application/vnd.oci.image.config.v1+json"), "layers": layers});
    serde_json::from_value(text).unwrap()
}

fn config(diff_ids: &serde_json::Value) -> Vec<u8> {
    json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes()
}

#[test]
fn a_config_has_a_diff_id_for_each_layer() {
    let (gzip, id) = ("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of("tar").to_string());
    assert!(layers_of(&image(2, gzip), &config(&json!([id, id]))).is_ok());
    for (layers, ids) in [(2, json!([id])), (1, json!([id, id])), (0, json!([id])), (1, json!(null))] {
        let error = layers_of(&image(layers, gzip), &config(&ids)).unwrap_err();
        assert!(error.contains(&format!("{layers} layers, but ")), "{error}");
    }
    for ids in [json!(id), json!({"0": id}), json!(["sha512:00"]), json!(["../x"]), json!([1])] {
        let error = layers_of(&image(1, gzip), &config(&ids)).unwrap_err();
        assert!(error.starts_with("its config: "), "{error}");
    }
    assert!(layers_of(&image(1, "text/html"), &config(&json!([id]))).unwrap_err().contains("unknown media type"));
}

#[test]
fn a_config_that_is_none_is_named_and_no_stack_is_used_up_by_it() {
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
    let odd = r#"{"config":{"Env":"PATH=/"}}"#;
    for text in ["", "[]", "null", "1", "\"x\"", "{", odd, r#"{"rootfs":"x"}"#, &deep] {
        let error = layers_of(&image(0, ""), text.as_bytes()).unwrap_err();
        assert!(error.starts_with("its config: "), "{:.40}: {error}", text);
    }
}
