//! Speed of sampling with random weights: `sample_bench [tiny|mid] [batch] [rounds] [threads]`.
//!
//! Every sequence reads 32 tokens and says 64. Prints one line per round, `seconds tokens-per-second`, and the best and
//! median at the end. `compare/sampling.py` runs it beside `transformers`.

use std::time::Instant;

use hone_nn::sample::{Engine, Options, Request};
use hone_nn::{Model, ModelConfig};

const PROMPT: usize = 32;
const NEW: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| args.get(index).map_or(Ok(default), |arg| arg.parse());
    let size = args.first().map_or("tiny", String::as_str);
    let config = match size {
        "tiny" => ModelConfig::llama(1024, 192, 6, 6, 2, 512),
        "mid" => ModelConfig::llama(16_384, 576, 12, 9, 3, 1536),
        other => return Err(format!("size: needs tiny or mid, got {other}").into()),
    };
    let (batch, rounds, threads) = (number(1, 64)?, number(2, 7)?, number(3, 2)?);
    let vocab = config.vocab_size as u32;
    let model = Model::random(config, 0);
    let packing = Instant::now();
    let engine = Engine::new(&model, Options { threads, ..Options::default() })?;
    eprintln!("{size}: packed {} MiB in {:?}", engine.weight_bytes() >> 20, packing.elapsed());
    let requests: Vec<Request> = (0..batch as u32)
        .map(|b| {
            let prompt = (0..PROMPT as u32).map(|t| (b * 7919 + t * 104_729) % vocab).collect();
            Request { seed: u64::from(b), ignore_eos: true, ..Request::new(prompt, NEW) }
        })
        .collect();
    let mut seconds = vec![];
    for _ in 0..rounds {
        let start = Instant::now();
        let completions = engine.generate(&requests)?;
        let elapsed = start.elapsed().as_secs_f64();
        let tokens: usize = completions.iter().map(|completion| completion.tokens.len()).sum();
        if tokens != batch * NEW {
            return Err(format!("needs {} tokens, got {tokens}", batch * NEW).into());
        }
        println!("{elapsed:.4} {:.0}", tokens as f64 / elapsed);
        seconds.push(elapsed);
    }
    seconds.sort_by(f64::total_cmp);
    let tokens = (batch * NEW) as f64;
    let (best, median) = (seconds[0], seconds[seconds.len() / 2]);
    eprintln!(
        "{size}, batch {batch}, {threads} threads: best {:.0}, median {:.0} tokens/s; {:.3} ms per step",
        tokens / best,
        tokens / median,
        median * 1e3 / NEW as f64
    );
    Ok(())
}
