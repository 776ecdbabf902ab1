//! Whether a run fits, before it starts.
//!
//! What a step keeps is known beforehand: the decoder's buffers have fixed sizes per token. So the peak is added up
//! from them, compared with what the machine has left, and a run that would be killed half-way is refused at once.

use std::path::{Path, PathBuf};

use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::{Model, chunk_tokens};
use crate::params::{Layout, Projection};
use crate::train::trainer::TrainerSettings;

/// The program itself, its threads' stacks and the packing buffers of matrix products.
const PROGRAM: u64 = 16 << 20;

/// Query rows that attention treats at once, twice over: `fused::attention`.
const ATTENTION_ROWS: usize = 2 * 32;

/// Logits that one chunk holds at once: `fused::head`.
const LOGITS: usize = 1 << 23;

const MIB: f64 = 1048576.0;

/// Memory that is free to this process, and what bounds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// What says so: the machine, or the control group it runs in.
    pub bound: String,
}

/// What this process may still take, plus what it already holds: the smaller of what the machine can give and what is
/// left under every control group above the process. `None` where the system does not tell (not Linux).
pub fn room() -> Option<Room> {
    room_under(Path::new("/"))
}

/// [`room`] of the system whose files lie under `root`.
fn room_under(root: &Path) -> Option<Room> {
    let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let available = field(&meminfo, "MemAvailable:")? * 1024;
    let status = std::fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let resident = field(&status, "VmRSS:").unwrap_or(0) * 1024;
    let mut room = Room { bytes: available + resident, bound: "MemAvailable of the machine".into() };
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        // `0::/path` of version 2, or `4:memory:/path` of version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, files, cache) = match controllers {
            "" => ("sys/fs/cgroup", ["memory.max", "memory.current"], "inactive_file"),
            _ if controllers.split(',').any(|controller| controller == "memory") => (
                "sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes"],
                "total_inactive_file",
            ),
            _ => continue,
        };
        let mount = root.join(mount);
        let inside = PathBuf::from(path.trim_start_matches('/'));
        // A limit of any group above binds too. Inside a container the path may not be there; the mount itself is.
        for folder in inside.ancestors().map(|part| mount.join(part)) {
            let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
            let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
            // `max`, the absence of a limit in version 2, is no number; in version 1 it is a huge one.
            let (Some(limit), Some(used)) = (number(files[0]), number(files[1])) else { continue };
            let cached = read("memory.stat").and_then(|stat| field(&stat, cache)).unwrap_or(0);
            // What it holds of files can be dropped; what this process holds already is part of the estimate.
            let bytes = limit.saturating_sub(used.saturating_sub(cached)).saturating_add(resident);
            if bytes < room.bytes {
                let bound = format!("the limit of {:.0} MiB in {}", limit as f64 / MIB, folder.display());
                room = Room { bytes, bound };
            }
        }
    }
    Some(room)
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// How much a step asks for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Tokens of the largest part.
    pub part_tokens: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// Targets of the part that has most.
    pub part_targets: usize,
    /// Parts per step.
    pub parts: usize,
    /// Tokens of all parts together.
    pub step_tokens: usize,
}

impl Load {
    /// What these parts ask for.
    pub fn of(parts: &[Batch]) -> Load {
        let most = |count: fn(&Batch) -> usize| parts.iter().map(count).max().unwrap_or(0);
        Load {
            part_tokens: most(|part| part.tokens().len()),
            longest: most(Batch::longest),
            part_targets: most(|part| part.targets().len()),
            parts: parts.len(),
            step_tokens: parts.iter().map(|part| part.tokens().len()).sum(),
        }
    }
}

/// Peak memory of a run, by what takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// Names and bytes.
    pub items: Vec<(&'static str, u64)>,
}

impl Estimate {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of one item; 0 if there is none of that name.
    pub fn of(&self, item: &str) -> u64 {
        self.items.iter().filter(|(name, _)| *name == item).map(|(_, bytes)| bytes).sum()
    }
}

/// What the estimate needs of a model: all of it is known from the configuration alone, so a model need not be there.
#[derive(Debug, Clone)]
pub struct Sizes<'a> {
    /// The decoder.
    pub config: &'a ModelConfig,
    /// Weights of the base model.
    pub weights: usize,
    /// Rank and weights of an adapter, and whether it sits on the feed-forward layer's way down; none without one.
    pub adapter: Option<(usize, usize, bool)>,
    /// Weights that are trained.
    pub trained: usize,
    /// Whether the embeddings are among them.
    pub embeds: bool,
    /// Threads that work on it.
    pub threads: usize,
    /// Tokens of a chunk, the unit of work of one thread.
    pub chunk_tokens: usize,
}

impl<'a> Sizes<'a> {
    /// Those of a model that is there.
    pub fn of(model: &'a Model) -> Sizes<'a> {
        let adapter = model.adapter.as_ref().map(|adapter| {
            let down = adapter.config.targets.contains(&Projection::Down);
            (adapter.config.rank, adapter.params.data.len(), down)
        });
        Sizes {
            config: model.config(),
            weights: model.params.data.len(),
            adapter,
            trained: model.gradient_len(),
            embeds: model.gradient_place(model.places().embed).is_some(),
            threads: model.threads,
            chunk_tokens: model.chunk_tokens,
        }
    }

    /// Those of a model of this configuration, all of whose weights are trained on `threads` threads.
    pub fn planned(config: &'a ModelConfig, threads: usize) -> Sizes<'a> {
        let weights = Layout::decoder(config).0.total();
        let chunk_tokens = chunk_tokens(config);
        Sizes { config, weights, adapter: None, trained: weights, embeds: true, threads, chunk_tokens }
    }
}

/// Peak memory of training `model` with `settings` on steps of at most `load`, within a quarter either way.
pub fn estimate(model: &Model, settings: &TrainerSettings, load: Load) -> Estimate {
    estimate_sizes(&Sizes::of(model), settings.ema_decay.is_some(), load)
}

/// [`estimate`] from sizes alone; `average` if an average of the weights is kept.
pub fn estimate_sizes(sizes: &Sizes<'_>, average: bool, load: Load) -> Estimate {
    let config = sizes.config;
    let (d, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let (query, kv) = (config.query_width(), config.kv_width());
    let trained = sizes.trained;

    // Buffers of a chunk that live from its forward to its backward pass, in numbers per token.
    let head_norms = if config.qk_norm { query + kv + config.heads + config.kv_heads } else { 0 };
    let layer = 2 * d + 2 + (query + 2 * kv) + head_norms + config.heads + query + 2 * f;
    let kept = config.layers * layer + 2 * d + 1;
    let parts_at_once = sizes.threads.clamp(1, load.parts.max(1));
    let rows = parts_at_once * load.part_tokens;
    let chunk = load.part_tokens.min(sizes.chunk_tokens.max(load.longest)).max(1);
    let chunks = parts_at_once * load.part_tokens.div_ceil(chunk);
    let threads = sizes.threads.clamp(1, chunks.max(1));
    let targets = parts_at_once * load.part_targets;
    let (logits, head) = if config.head.has_language() {
        let held = load.part_targets.min(chunk).min((LOGITS / v).max(16));
        (chunks * held * v + threads * v, targets * 2 * d)
    } else {
        (0, 0)
    };

    // Buffers of a thread, in numbers per token of a chunk.
    let adapted_down = sizes.adapter.is_some_and(|(.., down)| down);
    let widest = d.max(query).max(if adapted_down { f } else { 0 });
    let low = sizes.adapter.map_or(0, |(rank, ..)| 2 * rank);
    let embeds = sizes.embeds;
    let scratch = 3 * d + f + widest + (query + 2 * kv) + low + if embeds { d } else { 0 };
    let scratch = threads * (chunk * scratch + ATTENTION_ROWS * load.longest);
    let embed_rows = if embeds { load.step_tokens.min(v) * d } else { 0 };

    let numbers = |count: usize| 4 * count as u64;
    let adapter_weights = sizes.adapter.map_or(0, |(_, weights, _)| weights);
    let items = [
        ("weights", numbers(sizes.weights + adapter_weights)),
        ("gradient", numbers(trained + embed_rows)),
        ("optimiser moments", numbers(2 * trained)),
        ("average of weights", if average { numbers(trained) } else { 0 }),
        ("activations", numbers(rows * kept + head + scratch)),
        ("logits", numbers(logits)),
        ("program", PROGRAM),
    ];
    Estimate { items: items.into_iter().filter(|(_, bytes)| *bytes > 0).collect() }
}

/// Refuses a run that needs more than there is.
///
/// # Errors
/// [`Error::Argument`] with both numbers, what takes most, and what to lower.
pub fn check(estimate: &Estimate, room: &Room) -> Result<()> {
    if estimate.total() <= room.bytes {
        return Ok(());
    }
    let mut items = estimate.items.clone();
    items.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let list: Vec<String> =
        items.iter().map(|(name, bytes)| format!("{name} {:.0}", *bytes as f64 / MIB)).collect();
    let activations = estimate.of("activations") + estimate.of("logits");
    let state =
        estimate.of("gradient") + estimate.of("optimiser moments") + estimate.of("average of weights");
    let advice = match estimate.of("weights").max(activations).max(state) {
        most if most == activations => "take fewer tokens per part",
        most if most == state => "train an adapter, or keep no average",
        _ => "take a smaller model",
    };
    let needed =
        format!("{:.0} MiB for this run ({} MiB): {advice}", estimate.total() as f64 / MIB, list.join(", "));
    Err(Error::argument("memory", needed, format!("{:.0} MiB ({})", room.bytes as f64 / MIB, room.bound)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Adapter, LoraConfig};
    use crate::config::ModelConfig;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn machine(cgroup: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n");
        write(root.path(), "proc/self/status", "Name:\tx\nVmRSS:\t    500 kB\n");
        write(root.path(), "proc/self/cgroup", cgroup);
        root
    }

    #[test]
    fn the_tightest_limit_binds() {
        // 4000 + 500 kB of the machine.
        let root = machine("0::/a/b\n");
        assert_eq!(room_under(root.path()).unwrap().bytes, 4500 * 1024);
        write(root.path(), "sys/fs/cgroup/a/b/memory.max", "max\n");
        write(root.path(), "sys/fs/cgroup/a/b/memory.current", "1000\n");
        assert_eq!(room_under(root.path()).unwrap().bytes, 4500 * 1024);
        // The group above: limit 2,000,000, used 900,000 of which 100,000 can be dropped, 512,000 are ours.
        write(root.path(), "sys/fs/cgroup/a/memory.max", "2000000\n");
        write(root.path(), "sys/fs/cgroup/a/memory.current", "900000\n");
        write(root.path(), "sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 100000\n");
        let room = room_under(root.path()).unwrap();
        assert_eq!(room.bytes, 2_000_000 - 800_000 + 512_000);
        assert!(room.bound.starts_with("the limit of 2 MiB in ") && room.bound.ends_with("sys/fs/cgroup/a"));

        let root = machine("5:devices:/\n4:cpu,memory:/job/7\n");
        write(root.path(), "sys/fs/cgroup/memory/job/7/memory.limit_in_bytes", "9223372036854771712\n");
        write(root.path(), "sys/fs/cgroup/memory/job/7/memory.usage_in_bytes", "100\n");
        assert_eq!(room_under(root.path()).unwrap().bytes, 4500 * 1024);
        // In a container the mount shows the own group at its top.
        write(root.path(), "sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n");
        write(root.path(), "sys/fs/cgroup/memory/memory.usage_in_bytes", "400000\n");
        assert_eq!(room_under(root.path()).unwrap().bytes, 600_000 + 512_000);
        assert!(room_under(&root.path().join("nothing")).is_none());
    }

    fn load(part_tokens: usize, parts: usize) -> Load {
        Load { part_tokens, longest: 96, part_targets: part_tokens, parts, step_tokens: part_tokens * parts }
    }

    #[test]
    fn weights_and_state_are_counted_exactly() {
        let config = ModelConfig::llama(1024, 192, 6, 6, 2, 512);
        // Embedding 1024 · 192; a layer: norms 384, qkv 320 · 192, out 192 · 192, three of 512 · 192; last norm 192.
        let count: u64 = 1024 * 192 + 6 * (384 + 320 * 192 + 192 * 192 + 3 * 512 * 192) + 192;
        let mut model = Model::random(config, 0);
        model.threads = 2;
        let settings = TrainerSettings { ema_decay: Some(0.9), ..Default::default() };
        let full = estimate(&model, &settings, load(768, 8));
        assert_eq!(full.of("weights"), 4 * count);
        assert_eq!(full.of("optimiser moments"), 8 * count);
        assert_eq!(full.of("average of weights"), 4 * count);
        // All 1024 tokens may occur in 6144.
        assert_eq!(full.of("gradient"), 4 * (count + 1024 * 192));
        // Two threads hold 768 targets each, and a row of logits.
        assert_eq!(full.of("logits"), 4 * (2 * 768 * 1024 + 2 * 1024));
        assert_eq!(full.total(), full.items.iter().map(|(_, bytes)| bytes).sum::<u64>());
        // The same from the configuration alone.
        assert_eq!(estimate_sizes(&Sizes::planned(model.config(), 2), true, load(768, 8)), full);

        model.attach(Adapter::new(LoraConfig::default(), model.config(), 1).unwrap());
        let adapter = estimate(&model, &TrainerSettings::default(), load(768, 8));
        // Rank 8 on query 192 → 192 and value 192 → 64, in six layers.
        let own = 6 * 8 * (192 + 192 + 192 + 64);
        assert_eq!(adapter.of("gradient"), 4 * own);
        assert_eq!(adapter.of("weights"), 4 * (count + own));
    }

    #[test]
    fn activations_grow_with_what_is_held_at_once() {
        let mut model = Model::random(ModelConfig::llama(1024, 192, 6, 6, 2, 512), 0);
        let mut of = |threads, part_tokens, parts| {
            model.threads = threads;
            estimate(&model, &TrainerSettings::default(), load(part_tokens, parts)).of("activations") as f64
        };
        let one = of(1, 768, 8);
        assert_eq!(of(1, 768, 100), one);
        assert_eq!(of(2, 768, 8), 2.0 * one);
        assert_eq!(of(2, 768, 1), one);
        // One part of 6144 tokens keeps eight chunks, on the scratch buffers of one or two threads.
        let whole = of(1, 6144, 1);
        assert!(whole > 6.0 * one && whole < 8.0 * one);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        let estimate =
            Estimate { items: vec![("weights", 10 << 20), ("activations", 70 << 20), ("logits", 5 << 20)] };
        let room = |mib: u64| Room { bytes: mib << 20, bound: "MemAvailable of the machine".into() };
        check(&estimate, &room(85)).unwrap();
        let message = check(&estimate, &room(84)).unwrap_err().to_string();
        let expected = "`memory`: needs 85 MiB for this run (activations 70, weights 10, logits 5 MiB): \
                        take fewer tokens per part, got 84 MiB (MemAvailable of the machine)";
        assert_eq!(message, expected);
    }
}
