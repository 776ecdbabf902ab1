use std::path::PathBuf;

use super::*;

/// A tiny BERT that `compare/encoder.py` wrote, with what sentence-transformers makes of four texts.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert-tiny")
}

fn expected() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture().join("expected.safetensors"), &Device::Cpu).unwrap()
}

fn sequences() -> Vec<Vec<u32>> {
    let read = |name: &str| expected()[name].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
    let tokens = read("tokens");
    let mut rest = &tokens[..];
    let mut cut = |length: u32| {
        let (first, others) = rest.split_at(length as usize);
        rest = others;
        first.to_vec()
    };
    read("lengths").into_iter().map(&mut cut).collect()
}

fn encoder() -> Encoder {
    Encoder::from_folder(&fixture(), &Device::Cpu).unwrap()
}

fn assert_close(got: &[Vec<f32>], expected: &Tensor, what: &str) {
    let expected = expected.to_vec2::<f32>().unwrap();
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got.len(), expected.len());
        let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{what}: {worst}");
    }
}

/// A copy of the fixture whose files may be changed.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let files = [
        "config.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
        "tokenizer_config.json",
    ];
    for file in files {
        std::fs::copy(fixture().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn refusal(folder: &Path) -> String {
    let message = Encoder::from_folder(folder, &Device::Cpu).err().unwrap().to_string();
    message.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn vectors_equal_those_of_sentence_transformers() {
    let (expected, sequences) = (expected(), sequences());
    let mut encoder = encoder();
    assert_eq!(encoder.modules, Modules { pooling: Pooling::Mean, normalise: true });
    assert_eq!(encoder.max_tokens(), 20);
    assert_eq!(sequences.iter().map(Vec::len).max(), Some(19));
    let poolings = [
        ("mean", Pooling::Mean),
        ("cls", Pooling::Cls),
        ("mean_sqrt_len_tokens", Pooling::MeanSqrtLength),
        ("weightedmean", Pooling::WeightedMean),
        ("lasttoken", Pooling::LastToken),
    ];
    for (name, pooling) in poolings {
        encoder.modules = Modules { pooling, normalise: true };
        assert_close(&encoder.embed(&sequences).unwrap(), &expected[&format!("{name}.normalised")], name);
        encoder.modules.normalise = false;
        assert_close(&encoder.embed(&sequences).unwrap(), &expected[name], name);
    }
}

#[test]
fn company_changes_nothing() {
    let encoder = encoder();
    // Enough for several parts of different lengths.
    let many: Vec<Vec<u32>> = (0..600).map(|i| (0..=i % 20).map(|t| (t * 7 + i) % 22).collect()).collect();
    let vectors = encoder.embed(&many).unwrap();
    for index in [0, 3, 59, 599] {
        let alone = encoder.embed(&many[index..index + 1]).unwrap();
        assert_close(
            &alone,
            &Tensor::new(vectors[index..index + 1].to_vec(), &Device::Cpu).unwrap(),
            "alone",
        );
    }
    assert!(encoder.embed(&[]).unwrap().is_empty());
}

#[test]
fn poolings_are_read_in_either_spelling() {
    let folder = copy();
    let pooling = |text: &str| {
        std::fs::write(folder.path().join("1_Pooling/config.json"), text).unwrap();
        config::read_modules(folder.path()).map(|modules| modules.pooling)
    };
    assert_eq!(pooling(r#"{"pooling_mode": "lasttoken"}"#).unwrap(), Pooling::LastToken);
    assert_eq!(pooling(r#"{"pooling_mode_cls_token": true}"#).unwrap(), Pooling::Cls);
    let max = pooling(r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}"#);
    assert!(max.unwrap_err().to_string().ends_with("got mean and max"));
    std::fs::remove_file(folder.path().join("modules.json")).unwrap();
    let plain = Modules { pooling: Pooling::Mean, normalise: false };
    assert_eq!(config::read_modules(folder.path()).unwrap(), plain);
}

#[test]
fn folders_that_cannot_be_used_are_refused_by_file_and_field() {
    let changes = [
        ("config.json", "\"gelu\"", "\"relu\"", "config.json: field `hidden_act`: needs gelu, got relu"),
        ("config.json", "\"bert\"", "\"mpnet\"", "config.json: field `model_type`: needs bert, got mpnet"),
        (
            "config.json",
            "\"num_attention_heads\": 3",
            "\"num_attention_heads\": 5",
            "config.json: field `num_attention_heads`: needs a divisor of hidden_size, got 5",
        ),
        (
            "config.json",
            "\"vocab_size\": 22",
            "\"vocab_size\": 23",
            "model.safetensors: tensor `embeddings.word_embeddings.weight`: needs shape [23, 12], got [22, 12]",
        ),
        (
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "model.safetensors: tensor `encoder.layer.2.attention.self.query.weight`: missing; needs shape [12, 12]",
        ),
        (
            "modules.json",
            "\"1_Pooling\"",
            "\"../1_Pooling\"",
            "modules.json: field `path`: needs the name of a folder inside, got ../1_Pooling",
        ),
    ];
    for (file, from, to, message) in changes {
        let folder = copy();
        edit(folder.path(), file, from, to);
        assert_eq!(refusal(folder.path()), message);
    }
    let folder = copy();
    edit(folder.path(), "modules.json", "normalize.Normalize", "dense.Dense");
    assert!(refusal(folder.path()).contains("field `2.type`: needs Transformer, then Pooling"));
    edit(folder.path(), "config.json", "\"hidden_size\"", "\"width\"");
    assert!(refusal(folder.path()).contains("missing field `hidden_size`"));
}

#[test]
fn broken_weights_are_refused() {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(refusal(folder.path()).contains("not a valid safetensors file"), "{length} bytes");
    }
    let mut spoiled = bytes.clone();
    // The first number after the header, whose length the first eight bytes give.
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    spoiled[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, spoiled).unwrap();
    assert!(refusal(folder.path()).ends_with("holds a value that is not finite"));
}

#[test]
fn sequences_that_cannot_be_read_are_named() {
    let encoder = encoder();
    let refused = |sequence: Vec<u32>| encoder.embed(&[vec![1], sequence]).unwrap_err().to_string();
    assert_eq!(refused(vec![]), "sequence 1: has no token; needs at least 1");
    assert_eq!(refused(vec![1; 21]), "sequence 1: has 21 tokens; the encoder takes 20");
    assert_eq!(refused(vec![22]), "sequence 1: holds token 22; the encoder's vocabulary ends at 21");
}
