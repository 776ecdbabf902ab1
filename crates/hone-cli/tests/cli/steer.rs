//! Editing the weights of model folders.

use std::path::Path;

use super::{hone, text};

/// A random model of so many layers and this width.
fn model(folder: &Path, name: &str, seed: &str, layers: &str, width: &str) {
    let sizes =
        ["--vocab", "64", "--width", width, "--layers", layers, "--heads", "4", "--feed-forward", "48"];
    let made = hone(folder, &[&["model", "new", name, "--seed", seed], &sizes[..]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
}

fn tensors(folder: &Path, name: &str) -> hone_nn::Params {
    hone_nn::folder::read(&folder.join(name)).unwrap().params
}

#[test]
fn changes_are_scaled_by_depth_and_models_merged() {
    let folder = tempfile::tempdir().unwrap();
    for (name, seed) in [("base", "1"), ("tuned", "2"), ("other", "3")] {
        model(folder.path(), name, seed, "3", "32");
    }
    let done = hone(folder.path(), &["steer", "lines", "base", "tuned", "--out", "one", "--alpha", "0.2"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout), "one: factors from 0.200 in the first of 3 blocks to 1.000 in the last\n");
    let (base, tuned, one) =
        (tensors(folder.path(), "base"), tensors(folder.path(), "tuned"), tensors(folder.path(), "one"));
    // 0.2, 0.6 and 1 in the three blocks, 0.2 outside.
    for (name, factor) in [
        ("model.layers.0.mlp.up_proj.weight", 0.2),
        ("model.layers.1.mlp.up_proj.weight", 0.6),
        ("model.layers.2.mlp.up_proj.weight", 1.0),
        ("model.embed_tokens.weight", 0.2),
    ] {
        let of = |params: &hone_nn::Params| params.tensor(name).unwrap().to_vec();
        for ((start, end), got) in of(&base).iter().zip(of(&tuned)).zip(of(&one)) {
            let expected = start + factor * (end - start);
            // The folder may hold bfloat16, of 8 bits.
            assert!((got - expected).abs() <= 0.005 * expected.abs() + 1e-6, "{name}: {got} {expected}");
        }
    }
    let same = hone(
        folder.path(),
        &["steer", "lines", "base", "tuned", "--out", "same", "--alpha", "1", "--beta", "0"],
    );
    assert!(same.status.success(), "{}", text(&same.stderr));
    let bytes = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(tensors(folder.path(), "same").data, tuned.data);
    assert_eq!(bytes("same").len(), bytes("tuned").len());

    let ask = ["steer", "lines", "base", "tuned", "other"];
    for (merge, first) in [
        // One over the number of models; 1 for a mean and for shares; more than ½ where entries are dropped.
        (&["--merge", "sum"][..], "0.500"),
        (&["--merge", "mean"], "1.000"),
        (&["--merge", "weighted", "--shares", "0.3,0.7"], "1.000"),
        (&["--merge", "ties"], ""),
        (&["--merge", "consensus"], ""),
    ] {
        let done = hone(folder.path(), &[&ask[..], merge, &["--out", merge[1]]].concat());
        assert!(done.status.success(), "{merge:?}: {}", text(&done.stderr));
        let said = text(&done.stdout);
        assert!(said.contains(&format!("factors from {first}")), "{said}");
        if first.is_empty() {
            let factor: f64 = said.split_whitespace().nth(3).unwrap().parse().unwrap();
            assert!(factor > 0.5, "{said}");
        }
        assert!(folder.path().join(merge[1]).join("config.json").exists());
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for (name, layers, width) in
        [("base", "3", "32"), ("tuned", "3", "32"), ("wide", "3", "64"), ("low", "2", "32")]
    {
        model(folder.path(), name, "1", layers, width);
    }
    // A number that is none, in the first tensor.
    model(folder.path(), "broken", "1", "3", "32");
    let path = folder.path().join("broken/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[data..data + 4].copy_from_slice(&[0xC0, 0x7F, 0xC0, 0x7F]);
    std::fs::write(&path, bytes).unwrap();
    // Another architecture: no name holds a block's index.
    for name in ["flat", "flat-tuned"] {
        let header = br#"{"body.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let file = [&(header.len() as u64).to_le_bytes()[..], header, &1f32.to_le_bytes()].concat();
        std::fs::write(folder.path().join(name).join("model.safetensors"), file).unwrap();
        std::fs::write(folder.path().join(name).join("config.json"), "{}").unwrap();
    }
    for (arguments, needle) in [
        (&["base", "wide"][..], "needs shape [64, 32] as in base, got [64, 64]"),
        (&["base", "low"], "low: lacks tensor model.layers.2."),
        (&["base", "flat"], "flat: lacks tensor model."),
        (&["base", "broken"], "broken/model.safetensors"),
        (&["flat", "flat-tuned"], "no tensor name holds the index of a block"),
        (&["base", "none"], "none"),
        (&["base", "tuned", "--alpha", "NaN"], "`alpha`: needs a finite number, got NaN"),
        (&["base", "tuned", "--merge", "weighted", "--shares", "0.5,0.5"], "needs 1 finite numbers"),
        (&["base", "tuned", "--merge", "weighted"], "--shares"),
        (&["base", "tuned", "--merge", "consensus"], "`agree`: needs 1 to 1 models, got 2"),
        (&["base", "tuned", "--merge", "ties", "--keep", "0"], "needs a share in (0, 1], got 0"),
        (&["base"], "<TUNED>"),
    ] {
        let output = hone(folder.path(), &[&["steer", "lines", "--out", "out"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(needle), "{arguments:?}: {}", text(&output.stderr));
        assert!(!folder.path().join("out").exists(), "{arguments:?}");
    }
}
