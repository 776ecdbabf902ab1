//! Embeds token sequences with a sentence encoder: `embed FOLDER TOKENS.json VECTORS.json`.
//!
//! `TOKENS.json` holds a list of lists of token ids; `VECTORS.json` gets a list of vectors. Prints the seconds taken,
//! loading not included. `compare/encoder.py` compares the result with sentence-transformers.

use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use hone_nn::encoder::Encoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, tokens, vectors] = &arguments[..] else {
        return Err("usage: embed FOLDER TOKENS.json VECTORS.json".into());
    };
    let sequences: Vec<Vec<u32>> = serde_json::from_str(&std::fs::read_to_string(tokens)?)?;
    let encoder = Encoder::from_folder(Path::new(folder), &Device::Cpu)?;
    let start = Instant::now();
    let embedded = encoder.embed(&sequences)?;
    println!("{}", start.elapsed().as_secs_f64());
    std::fs::write(vectors, serde_json::to_string(&embedded)?)?;
    Ok(())
}
