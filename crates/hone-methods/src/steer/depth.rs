//! How deep a tensor lies, read from its name.

/// Names of lists of blocks in the layouts of Hugging Face and OpenCLIP.
const LISTS: [&str; 6] = ["layers", "layer", "h", "block", "blocks", "resblocks"];

/// A tensor's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block<'a> {
    /// What comes before the index, such as `model.layers`: encoder and decoder, or image and text tower, are stacks of
    /// their own.
    pub stack: &'a str,
    /// Index of the block, from 0.
    pub index: usize,
}

/// The block a tensor lies in, or `None` for embeddings, last norms and heads.
///
/// The outermost index counts: `encoder.block.3.layer.0` is block 3.
pub fn block_of(name: &str) -> Option<Block<'_>> {
    let mut start = 0;
    let mut before = "";
    for part in name.split('.') {
        if LISTS.contains(&before)
            && let Ok(index) = part.parse()
        {
            return Some(Block { stack: &name[..start - 1], index });
        }
        before = part;
        start += part.len() + 1;
    }
    None
}

/// Depth of each tensor in `[0, 1]`: 0 for the first block of its stack and what lies in none, 1 for the last.
#[derive(Debug, Clone, Default)]
pub struct Depths {
    /// Stacks with the number of their blocks.
    stacks: Vec<(String, usize)>,
}

impl Depths {
    /// The stacks that these tensors form.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Depths {
        let mut depths = Depths::default();
        for block in names.into_iter().filter_map(block_of) {
            match depths.stacks.iter_mut().find(|(stack, _)| stack == block.stack) {
                Some((_, blocks)) => *blocks = (*blocks).max(block.index + 1),
                None => depths.stacks.push((block.stack.into(), block.index + 1)),
            }
        }
        depths
    }

    /// Blocks of the tallest stack.
    pub fn blocks(&self) -> usize {
        self.stacks.iter().map(|(_, blocks)| *blocks).max().unwrap_or(0)
    }

    /// `(l − 1) / (L − 1)` for block `l` of `L`. The one block of a stack of one is its last.
    pub fn of_tensor(&self, name: &str) -> f64 {
        let Some(block) = block_of(name) else { return 0.0 };
        match self.stacks.iter().find(|(stack, _)| stack == block.stack) {
            Some((_, blocks)) if *blocks > 1 => block.index as f64 / (*blocks - 1) as f64,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_index_counts() {
        let block = |name| block_of(name).map(|block| (block.stack, block.index));
        assert_eq!(block("model.layers.11.mlp.up_proj.weight"), Some(("model.layers", 11)));
        assert_eq!(block("encoder.block.3.layer.0.SelfAttention.q.weight"), Some(("encoder.block", 3)));
        assert_eq!(
            block("visual.transformer.resblocks.0.ln_1.weight"),
            Some(("visual.transformer.resblocks", 0))
        );
        assert_eq!(block("transformer.h.7.attn.bias"), Some(("transformer.h", 7)));
        assert_eq!(block("h.7.attn.bias"), Some(("h", 7)));
        assert_eq!(block("model.embed_tokens.weight"), None);
        assert_eq!(block("lm_head.weight"), None);
        // An expert's number is no block.
        assert_eq!(block("model.layers.2.mlp.experts.5.w1"), Some(("model.layers", 2)));
    }

    #[test]
    fn depth_is_counted_in_each_stack() {
        let names: Vec<String> = (0..4)
            .map(|i| format!("encoder.block.{i}.w"))
            .chain((0..2).map(|i| format!("decoder.block.{i}.w")))
            .collect();
        let depths = Depths::of(names.iter().map(String::as_str));
        assert_eq!(depths.blocks(), 4);
        assert!((depths.of_tensor("encoder.block.1.w") - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(depths.of_tensor("decoder.block.1.w"), 1.0);
        assert_eq!(depths.of_tensor("decoder.block.0.w"), 0.0);
        assert_eq!(depths.of_tensor("shared.weight"), 0.0);
        assert_eq!(Depths::of(["layers.0.w"]).of_tensor("layers.0.w"), 1.0);
    }
}
