use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::adapter::{Adapter, LoraConfig};
use crate::config::{DType, Head, ModelConfig};
use crate::model::Model;
use crate::params::Projection;

const MODELS: [&str; 15] = [
    "bf16",
    "linear_rope",
    "llama",
    "llama3_rope",
    "llama_bare",
    "llama_bias",
    "mistral",
    "qwen2",
    "qwen3",
    "sequence_head",
    "sharded_f16",
    "smollm3",
    "token_head",
    "value_head",
    "yarn_rope",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The head that a fixture's folder holds, or an untied language head for the decoder that has none.
fn head_of(name: &str) -> Head {
    let head = ModelConfig::from_folder(&fixture(name)).unwrap().head;
    if name == "value_head" { Head::LanguageAndValue } else { head }
}

/// A folder with copies of a fixture's files, to be damaged.
fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn message(folder: &TempDir) -> String {
    read(folder.path()).unwrap_err().to_string()
}

/// Rewrites `model.safetensors` with each tensor passed through `change`, which may drop it; and adds others.
fn rewrite(
    folder: &TempDir,
    change: impl Fn(&str, Vec<f32>) -> Option<Vec<f32>>,
    extra: &[(&str, Vec<usize>, Vec<f32>)],
) {
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = vec![];
    let raw = |values: Vec<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if let Some(values) = change(&name, values.collect()) {
            tensors.push((name, view.shape().to_vec(), raw(values)));
        }
    }
    for (name, shape, values) in extra {
        tensors.push((name.to_string(), shape.clone(), raw(values.clone())));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

fn edit_config(folder: &TempDir, field: &str, value: Value) {
    let path = folder.path().join("config.json");
    let mut map = read_object(&path).unwrap();
    map.insert(field.into(), value);
    fs::write(path, Value::Object(map).to_string()).unwrap();
}

#[test]
fn saved_models_read_back_the_same() {
    for name in MODELS {
        let model = read_with_head(&fixture(name), head_of(name), 1).unwrap().model;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("saved");
        for (dtype, shard_bytes) in [(None, u64::MAX), (None, 3000), (Some(DType::F32), u64::MAX)] {
            let options = SaveOptions { dtype, shard_bytes, companions: Some(fixture(name)) };
            write(model.config(), &model.params, &folder, &options).unwrap();
            let again = read(&folder).unwrap();
            // Weights that came from 16 bits fit there again, so this holds for every number format.
            assert_eq!(again.params.data, model.params.data, "{name}");
            let mut expected = ModelConfig::clone(model.config());
            expected.dtype = dtype.unwrap_or(expected.dtype);
            expected.raw = again.config().raw.clone();
            assert_eq!(**again.config(), expected, "{name}");
            assert_eq!(folder.join("model.safetensors").exists(), shard_bytes == u64::MAX);
        }
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            1,
            "{name}: nothing is left beside the model"
        );
    }
}

#[test]
fn heads_come_from_the_folder() {
    let head = |name: &str| read(&fixture(name)).unwrap().config().head;
    assert_eq!(head("llama"), Head::Language);
    assert_eq!(head("value_head"), Head::LanguageAndValue);
    assert_eq!(head("sequence_head"), Head::Sequence { labels: 3 });
    assert_eq!(head("token_head"), Head::Token { labels: 4 });
}

#[test]
fn a_new_head_is_drawn_by_its_seed() {
    let load = |name: &str, head, seed| read_with_head(&fixture(name), head, seed).unwrap();
    let reward = Head::Sequence { labels: 1 };
    let first = load("mistral", reward, 7);
    assert_eq!(first.new, ["score.weight"]);
    let score = |loaded: &Loaded| loaded.model.params.tensor("score.weight").unwrap().to_vec();
    assert_eq!(score(&first), score(&load("mistral", reward, 7)));
    assert_ne!(score(&first), score(&load("mistral", reward, 8)));
    assert!(score(&first).iter().all(|weight| weight.abs() < 5.0 * 0.3), "initializer_range is 0.3");
    let decoder = read(&fixture("mistral")).unwrap();
    let name = "model.layers.1.mlp.down_proj.weight";
    assert_eq!(first.model.params.tensor(name).unwrap(), decoder.params.tensor(name).unwrap());

    assert_eq!(
        load("llama", Head::LanguageAndValue, 1).new,
        ["v_head.summary.weight", "v_head.summary.bias"]
    );
    assert!(load("value_head", Head::LanguageAndValue, 1).new.is_empty());
    assert!(load("value_head", Head::Language, 1).new.is_empty());
    assert!(load("token_head", Head::Token { labels: 4 }, 1).new.is_empty());
    // The same tensor name, but scores of sequences are not scores of tokens.
    assert_eq!(load("token_head", Head::Sequence { labels: 4 }, 1).new, ["score.weight"]);
    // An untied decoder without output embeddings can carry any head, but is no language model as it stands.
    assert_eq!(load("llama_bias", Head::Token { labels: 2 }, 1).new, ["score.weight", "score.bias"]);
    let folder = copy_of("llama_bias");
    rewrite(&folder, |name, values| (name != "lm_head.weight").then_some(values), &[]);
    assert!(message(&folder).contains("tensor `lm_head.weight`: missing"));
    assert_eq!(read_with_head(folder.path(), Head::Language, 1).unwrap().new, ["lm_head.weight"]);

    let error = read_with_head(&fixture("token_head"), Head::Token { labels: 5 }, 1).unwrap_err().to_string();
    assert!(error.contains("2 tensors cannot be used") && error.contains("needs shape [5, 16], got [4, 16]"));
}

#[test]
fn every_unfit_tensor_is_named() {
    let folder = copy_of("llama");
    rewrite(&folder, |name, values| (name != "model.norm.weight").then_some(values), &[]);
    let expected = "model.safetensors: tensor `model.norm.weight`: missing; needs shape [16]";
    assert!(message(&folder).ends_with(expected), "{}", message(&folder));

    let folder = copy_of("llama");
    let odd = [("model.layers.0.mlp.router.weight", vec![1], vec![0.0])];
    rewrite(&folder, |name, values| (!name.contains("layers.1")).then_some(values), &odd);
    edit_config(&folder, "num_hidden_layers", 4.into());
    // Three layers of nine tensors are missing, one tensor is strange.
    let text = message(&folder);
    assert!(text.contains("28 tensors cannot be used"), "{text}");
    assert!(text.ends_with("and 8 more"), "{text}");
    assert_eq!(text.lines().count(), 22, "{text}");

    let folder = copy_of("llama");
    edit_config(&folder, "intermediate_size", 25.into());
    assert!(message(&folder).contains("needs shape [25, 16], got [24, 16]"));
}

#[test]
fn harmless_tables_of_old_files_are_ignored() {
    let folder = copy_of("llama");
    let table = [("model.layers.0.self_attn.rotary_emb.inv_freq", vec![2], vec![1.0, f32::NAN])];
    rewrite(&folder, |_, values| Some(values), &table);
    assert_eq!(read(folder.path()).unwrap().params.data, read(&fixture("llama")).unwrap().params.data);
}

#[test]
fn a_tied_model_may_repeat_its_embedding_but_not_differ() {
    let folder = copy_of("llama");
    let mut embedding =
        read(folder.path()).unwrap().params.tensor("model.embed_tokens.weight").unwrap().to_vec();
    rewrite(&folder, |_, values| Some(values), &[("lm_head.weight", vec![64, 16], embedding.clone())]);
    read(folder.path()).unwrap();
    embedding[1000] += 1.0;
    let folder = copy_of("llama");
    rewrite(&folder, |_, values| Some(values), &[("lm_head.weight", vec![64, 16], embedding)]);
    assert!(message(&folder).contains("tensor `lm_head.weight`: differs from model.embed_tokens.weight"));
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let folder = copy_of("llama");
        let change = |name: &str, mut values: Vec<f32>| {
            if name == "model.layers.1.self_attn.k_proj.weight" {
                values[70] = bad;
            }
            Some(values)
        };
        rewrite(&folder, change, &[]);
        let expected = format!("tensor `model.layers.1.self_attn.k_proj.weight`: element 70 is {bad}");
        assert!(message(&folder).contains(&expected), "{}", message(&folder));
    }
    // Saving refuses them too, and what was there stays.
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("saved");
    let mut model = read(&fixture("llama")).unwrap();
    write(model.config(), &model.params, &folder, &SaveOptions::default()).unwrap();
    let before = model.params.data.clone();
    let last = before.len() - 1;
    for (value, dtype) in [(f32::NAN, DType::F32), (1e5, DType::F16)] {
        model.params.data[last] = value;
        let options = SaveOptions { dtype: Some(dtype), ..SaveOptions::default() };
        let error = write(model.config(), &model.params, &folder, &options).unwrap_err().to_string();
        assert!(error.contains("tensor `model.norm.weight`: element 15 is"), "{error}");
        assert_eq!(read(&folder).unwrap().params.data, before);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}

/// A safetensors file of a given header and so many zero bytes.
fn file_of(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn hostile_weights_files_are_errors() {
    let whole = fs::read(fixture("llama").join("model.safetensors")).unwrap();
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{"model.norm.weight":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&99_000_000u64.to_le_bytes());
    let cases: [(&str, Vec<u8>); 15] = [
        ("has 0 bytes", vec![]),
        ("has 7 bytes", whole[..7].to_vec()),
        ("says that its header has", whole[..100].to_vec()),
        ("bytes of data, the file holds", whole[..whole.len() - 1].to_vec()),
        ("bytes of data, the file holds", [&whole[..], &[0]].concat()),
        ("says that its header has 18446744073709551615 bytes", lying),
        ("says that its header has 99000000 bytes", huge),
        ("invalid offset for tensor `b`", file_of(two, 12)),
        ("bytes of data, the file holds", file_of(&one("[16]", "[0,64]"), 32)),
        ("invalid offset", file_of(&one("[16]", "[64,128]"), 128)),
        ("invalid offset", file_of(&one("[16]", "[64,0]"), 64)),
        ("invalid shape, data type, or offset", file_of(&one("[17]", "[0,64]"), 64)),
        ("overflow", file_of(&one("[4294967296,4294967296,4294967296]", "[0,64]"), 64)),
        ("line 1 column", file_of(&one("[-1]", "[0,64]"), 64)),
        ("line 1 column", file_of(&"[".repeat(10_000), 0)),
    ];
    for (expected, bytes) in cases {
        let folder = copy_of("llama");
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let text = message(&folder);
        assert!(
            text.contains(expected) && text.contains("model.safetensors"),
            "needs {expected}, got {text}"
        );
    }
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    fs::write(&path, file_of(&one("[8]", "[0,64]").replace("F32", "I64"), 64)).unwrap();
    assert!(message(&folder).contains("needs shape [16], got [8]"));
    fs::remove_file(&path).unwrap();
    assert!(message(&folder).contains("model.safetensors: No such file"));
    fs::create_dir(&path).unwrap();
    assert!(message(&folder).contains("not an ordinary file"));
}

#[test]
fn damaged_files_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut refused = 0;
    for (name, file) in
        [("llama", "model.safetensors"), ("llama", "config.json"), ("lora", "adapter_config.json")]
    {
        let folder = copy_of(name);
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        let base = ModelConfig::from_folder(&fixture("llama")).unwrap();
        for _ in 0..300 {
            let mut bytes = whole.clone();
            // Most damage in the header, where it can mislead.
            let reach = bytes.len().min(2500);
            for _ in 0..rng.random_range(1..4) {
                bytes[rng.random_range(0..reach)] = rng.random();
            }
            if rng.random_bool(0.2) {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            fs::write(&path, bytes).unwrap();
            let failed = match name {
                "lora" => read_adapter(folder.path(), &base).is_err(),
                _ => read(folder.path()).is_err(),
            };
            refused += usize::from(failed);
        }
    }
    assert!(refused > 450, "{refused} of 900 damaged files were refused");
}

#[test]
fn an_index_reaches_nowhere_else() {
    for bad in ["../llama/model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", "", "model.bin"] {
        let folder = copy_of("sharded_f16");
        let index = json!({"metadata": {}, "weight_map": {"model.norm.weight": bad}});
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let text = message(&folder);
        assert!(text.contains("field `weight_map.model.norm.weight`: needs the name of a"), "{bad}: {text}");
    }
    let folder = copy_of("sharded_f16");
    fs::remove_file(folder.path().join("model-00002-of-00004.safetensors")).unwrap();
    assert!(message(&folder).contains("model-00002-of-00004.safetensors: No such file"));

    let folder = copy_of("sharded_f16");
    let path = folder.path().join("model.safetensors.index.json");
    let mut index = read_object(&path).unwrap();
    let map = index["weight_map"].as_object_mut().unwrap();
    map.insert("model.norm.weight".into(), "model-00001-of-00004.safetensors".into());
    map.insert("ghost.weight".into(), "model-00001-of-00004.safetensors".into());
    map.shift_remove("model.layers.0.mlp.up_proj.weight");
    fs::write(&path, Value::Object(index).to_string()).unwrap();
    let text = message(&folder);
    assert!(text.contains("3 tensors cannot be used"), "{text}");
    assert!(
        text.contains(
            "`ghost.weight`: the index places it in model-00001-of-00004.safetensors, which lacks it"
        )
    );
    assert!(text.contains("`model.layers.0.mlp.up_proj.weight`: not in the index"), "{text}");
}

#[test]
fn claims_of_a_configuration_cost_no_memory() {
    for (field, value) in [
        ("num_hidden_layers", 4_000_000_000u64),
        ("vocab_size", u64::MAX),
        ("hidden_size", 1 << 40),
        ("head_dim", 1 << 30),
        ("intermediate_size", 1 << 31),
    ] {
        let folder = copy_of("llama");
        edit_config(&folder, field, value.into());
        assert!(message(&folder).contains(&format!("field `{field}`: needs")), "{}", message(&folder));
    }
    // Within the limits, but not what the files hold: 4,096 layers would take 17 M weights, this width 10^15.
    for (field, value) in
        [("num_hidden_layers", 4096), ("hidden_size", 1 << 24), ("intermediate_size", 1 << 24)]
    {
        let folder = copy_of("llama");
        edit_config(&folder, field, value.into());
        assert!(message(&folder).contains("tensors cannot be used"), "{}", message(&folder));
    }
}

#[test]
fn a_folder_with_other_things_in_it_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("thesis");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("chapter1.txt"), "long work").unwrap();
    let model = read(&fixture("llama")).unwrap();
    let error =
        write(model.config(), &model.params, &folder, &SaveOptions::default()).unwrap_err().to_string();
    assert!(error.contains("to hold nothing but a model") && error.contains("chapter1.txt"), "{error}");
    assert_eq!(fs::read_to_string(folder.join("chapter1.txt")).unwrap(), "long work");

    // A failure half-way leaves what was there, and nothing beside it.
    let folder = parent.path().join("model");
    write(model.config(), &model.params, &folder, &SaveOptions::default()).unwrap();
    let failed = atomically(&folder, |partial| {
        fs::write(partial.join("config.json"), "{}").unwrap();
        Err(Error::Cancelled)
    });
    assert!(matches!(failed, Err(Error::Cancelled)));
    assert_eq!(read(&folder).unwrap().params.data, model.params.data);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);

    // What a killed process left behind goes with the next save; what a living one is writing stays.
    let dead = parent.path().join(".model.saving-999999999-0");
    fs::create_dir(&dead).unwrap();
    atomically(&folder, |living| {
        write(model.config(), &model.params, &folder, &SaveOptions::default())?;
        assert!(living.exists() && !dead.exists());
        write_files(model.config(), &model.params, living, &SaveOptions::default())
    })
    .unwrap();
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
}

#[test]
fn companions_travel_along() {
    let source = copy_of("llama");
    fs::write(source.path().join("tokenizer.json"), "{}").unwrap();
    fs::create_dir(source.path().join("additional_chat_templates")).unwrap();
    fs::write(source.path().join("additional_chat_templates/tool.jinja"), "t").unwrap();
    fs::write(source.path().join("generation_config.json"), r#"{"temperature": 0.6}"#).unwrap();
    let model = read(source.path()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("saved");
    let options = SaveOptions { companions: Some(source.path().into()), ..SaveOptions::default() };
    write(model.config(), &model.params, &folder, &options).unwrap();
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(text("tokenizer.json"), "{}");
    assert_eq!(text("additional_chat_templates/tool.jinja"), "t");
    assert_eq!(text("generation_config.json"), r#"{"temperature": 0.6}"#);
    // Onto itself: the folder is source and target at once.
    let options = SaveOptions { companions: Some(folder.clone()), ..options };
    write(model.config(), &model.params, &folder, &options).unwrap();
    assert_eq!(text("additional_chat_templates/tool.jinja"), "t");
    assert!(!folder.join("expected.safetensors").exists());
}

#[test]
fn adapters_are_read_as_peft_writes_them() {
    let llama = ModelConfig::from_folder(&fixture("llama")).unwrap();
    let qwen3 = ModelConfig::from_folder(&fixture("qwen3")).unwrap();
    let all = read_adapter(&fixture("lora"), &llama).unwrap();
    assert_eq!(all.config.targets, Projection::ALL);
    assert_eq!((all.config.layers.clone(), all.config.rank, all.scale()), (None, 3, 5.0 / 3.0));
    let stabilised = read_adapter(&fixture("lora_rs"), &qwen3).unwrap();
    assert_eq!(stabilised.config.targets, [Projection::Query, Projection::Down]);
    // 6 / √4 = 3.
    assert_eq!((stabilised.config.layers.clone(), stabilised.scale()), (Some(vec![1]), 3.0));
    let regex = read_adapter(&fixture("lora_regex"), &llama).unwrap();
    assert_eq!(regex.config.targets, [Projection::Key, Projection::Output, Projection::Up]);

    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("adapter");
    for (adapter, config) in [(all, &llama), (stabilised, &qwen3), (regex, &llama)] {
        write_adapter(&adapter, config, &folder).unwrap();
        let again = read_adapter(&folder, config).unwrap();
        assert_eq!(again.config, adapter.config);
        assert_eq!(again.params.data, adapter.params.data);
    }
}

#[test]
fn merged_weights_are_those_of_peft() {
    for (name, base) in [("lora", "llama"), ("lora_rs", "qwen3"), ("lora_regex", "llama")] {
        let mut model = read(&fixture(base)).unwrap();
        model.attach(read_adapter(&fixture(name), model.config()).unwrap());
        let bytes = fs::read(fixture(name).join("expected.safetensors")).unwrap();
        let site = "model.layers.1.self_attn.q_proj.weight";
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let stored = stored.tensor(&format!("merged.{site}")).unwrap();
        let expected = stored.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let merged = merge(&model);
        for (merged, expected) in merged.tensor(site).unwrap().iter().zip(expected) {
            assert!((merged - expected).abs() < 1e-6, "{name}: {merged} against {expected}");
        }
        assert_ne!(merged.data, model.params.data);
        model.detach();
        assert_eq!(merge(&model).data, model.params.data);
    }
}

#[test]
fn adapters_of_other_kinds_are_refused_by_name() {
    let model = ModelConfig::from_folder(&fixture("llama")).unwrap();
    for (field, value) in [
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["score"])),
        ("rank_pattern", json!({"q_proj": 4})),
        ("alpha_pattern", json!({"q_proj": 4})),
        ("peft_type", json!("IA3")),
        ("bias", json!("all")),
        ("fan_in_fan_out", json!(true)),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("layer_replication", json!([[0, 2]])),
        ("some_future_field", json!(3)),
        ("r", json!(0)),
        ("r", json!(1u64 << 40)),
        ("lora_alpha", json!("much")),
        ("target_modules", json!(["c_attn"])),
        ("target_modules", json!("(?=x)q_proj")),
        ("target_modules", json!(["layers.0.self_attn.q_proj", "layers.1.self_attn.k_proj"])),
        ("layers_to_transform", json!([0, 2])),
        ("layers_pattern", json!("h")),
    ] {
        let folder = copy_of("lora");
        let path = folder.path().join("adapter_config.json");
        let mut map = read_object(&path).unwrap();
        map.insert(field.into(), value);
        fs::write(&path, Value::Object(map).to_string()).unwrap();
        let error = read_adapter(folder.path(), &model).unwrap_err();
        assert!(error.to_string().contains(&format!("field `{field}`")), "{error}");
    }
    // Enormous, but in range: refused by the file's shapes before anything is allocated.
    let folder = copy_of("lora");
    let path = folder.path().join("adapter_config.json");
    let mut map = read_object(&path).unwrap();
    map.insert("r".into(), 65_536.into());
    map.insert("target_modules".into(), json!(["q_proj", "lm_head"]));
    fs::write(&path, Value::Object(map).to_string()).unwrap();
    let error = read_adapter(folder.path(), &model).unwrap_err().to_string();
    // Two layers: four factors of q_proj have the wrong rank, 24 others have no place.
    assert!(
        error.contains("28 tensors cannot be used") && error.contains("needs shape [65536, 16]"),
        "{error}"
    );
}

#[test]
fn a_fresh_adapter_merges_to_nothing() {
    let mut model = Model::random(ModelConfig::llama(32, 16, 2, 2, 1, 24), 3);
    let config = LoraConfig { layers: Some(vec![1]), ..LoraConfig::default() };
    model.attach(Adapter::new(config, model.config(), 1).unwrap());
    assert_eq!(merge(&model).data, model.params.data);
    assert!(model.adapter.as_ref().unwrap().site(0, Projection::Query).is_none());
    assert!(model.adapter.as_ref().unwrap().site(1, Projection::Query).is_some());
}
