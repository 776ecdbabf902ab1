//! What reward models share: the head, the scoring, and how good the scores are.

use candle_core::Tensor;
use hone_feedback::metrics;
use hone_nn::config::Head;
use hone_nn::{Batch, Outputs, Want, loss};

use crate::data::{Example, Examples};
use crate::error::Result;
use crate::method::Job;
use crate::policy::Policy;
use crate::train::{self, Part, Training};

/// A decoder whose head scores a whole response or each of its tokens.
#[derive(Debug)]
pub struct RewardModel {
    /// The scoring model with its text side.
    pub policy: Policy,
}

/// Want for scores alone.
fn scores() -> Want {
    Want { scores: true, ..Want::default() }
}

impl RewardModel {
    /// `[examples][sequences]`: the score of each whole response. No unit.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] for sequences that the model cannot read, or a model that scores tokens.
    pub fn score(&self, examples: &[Example]) -> Result<Vec<Vec<f32>>> {
        train::evaluate(&self.policy.model, examples, &scores(), |_, outputs| {
            Ok(sequence_scores(outputs)?.to_vec1()?)
        })
    }

    /// `[examples][marks]`: probability of each mark that it is positive (a right step, a faulty token).
    ///
    /// # Errors
    /// As [`RewardModel::score`], for a model that scores sequences.
    pub fn score_marks(&self, examples: &[Example]) -> Result<Vec<Vec<f32>>> {
        let mut rows = vec![];
        for chunk in examples.chunks(64) {
            let batch = train::batch_of(&self.policy.model, chunk)?;
            let outputs = hone_nn::Network::evaluate(&self.policy.model, &batch, &scores())?;
            let logits = mark_scores(chunk.iter(), &batch, &outputs)?.to_vec1::<f32>()?;
            let mut logits = logits.into_iter().map(|x| 1.0 / (1.0 + (-x).exp()));
            rows.extend(chunk.iter().map(|e| logits.by_ref().take(e.marks.len()).collect::<Vec<f32>>()));
        }
        Ok(rows)
    }
}

/// `[B]`: the scores of a sequence head.
///
/// # Errors
/// Without such a head.
pub fn sequence_scores(outputs: &Outputs) -> hone_nn::Result<Tensor> {
    Ok(head(outputs)?.squeeze(1)?)
}

/// The scores of the tokens that examples mark, in their order.
///
/// # Errors
/// Without a token head.
pub fn mark_scores<'a>(
    examples: impl Iterator<Item = &'a Example>,
    batch: &Batch,
    outputs: &Outputs,
) -> hone_nn::Result<Tensor> {
    let rows: Vec<u32> = examples
        .enumerate()
        .flat_map(|(i, example)| example.marks.iter().map(move |(at, _)| (batch.rows(i).start + at) as u32))
        .collect();
    let scores = head(outputs)?.squeeze(1)?;
    let rows = Tensor::new(rows, scores.device())?;
    Ok(scores.index_select(&rows, 0)?)
}

fn head(outputs: &Outputs) -> hone_nn::Result<&Tensor> {
    outputs.scores.as_ref().ok_or_else(|| hone_nn::Error::argument("model", "a score head", "none"))
}

/// Sum of `−log P(label)` in nats, from `[n]` logits and labels of 0 or 1.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn binary_cross_entropy(logits: &Tensor, labels: &[f32]) -> hone_nn::Result<Tensor> {
    // −log σ(x) for 1, −log σ(−x) for 0.
    let signs = Tensor::new(labels.iter().map(|l| 2.0 * l - 1.0).collect::<Vec<f32>>(), logits.device())?;
    Ok(loss::log_sigmoid(&(logits * signs.to_dtype(logits.dtype())?)?)?.sum_all()?.neg()?)
}

/// Trains a head on the job's policy.
///
/// # Errors
/// As [`train::descend`].
pub fn fit(
    job: Job<'_>,
    head: Head,
    examples: &Examples,
    training: &Training,
    part_loss: impl Fn(&Part<'_>) -> hone_nn::Result<hone_nn::Loss> + Sync,
) -> Result<RewardModel> {
    let mut policy = job.policy;
    let model = policy.model_with_head(head, hone_nn::train::seed::sub_seed(job.seed, "head"))?;
    policy.model = train::descend(model, examples, training, job.seed, &job.session, &scores(), part_loss)?;
    Ok(RewardModel { policy })
}

/// How well scores order pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct PairReport {
    /// 1 where the chosen response scores higher, ½ for equal scores, 0 otherwise; one per pair.
    pub hits: Vec<f64>,
    /// The same for the rule "the longer one": what length alone would reach.
    pub longer: Vec<f64>,
    /// Expected calibration error of `σ(difference)` in 10 bins; `None` without a pair.
    pub calibration: Option<f64>,
}

/// Scores of pairs against their labels. Of the two directions of the length rule the better one is counted, so that
/// the baseline is the strongest that length can give.
pub fn pair_report(scores: &[Vec<f32>], examples: &[Example]) -> PairReport {
    let gaps: Vec<f64> = scores.iter().map(|s| f64::from(s[0]) - f64::from(s[1])).collect();
    let hits: Vec<f64> = gaps.iter().map(|&gap| hit(gap)).collect();
    let length = |example: &Example, at: usize| example.sequences[at].targets() as f64;
    let mut longer: Vec<f64> = examples.iter().map(|e| hit(length(e, 0) - length(e, 1))).collect();
    if metrics::mean(&longer) < 0.5 {
        longer.iter_mut().for_each(|value| *value = 1.0 - *value);
    }
    // A pair has no first response, so confidence is that of the side the model takes.
    let confidence: Vec<f64> = gaps.iter().map(|gap| 1.0 / (1.0 + (-gap.abs()).exp())).collect();
    let right: Vec<bool> = gaps.iter().map(|&gap| gap > 0.0).collect();
    PairReport { hits, longer, calibration: metrics::calibration_error(&confidence, &right, 10) }
}

/// 1 for a gap above 0, 0 for one below, ½ for none.
pub fn hit(gap: f64) -> f64 {
    match gap.total_cmp(&0.0) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 0.5,
    }
}

/// Area under the ROC curve: how often a positive scores above a negative, ties counting half. `None` where one side
/// is empty.
pub fn auc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let ranks = metrics::ranking::ranks(scores);
    let n = positive.iter().filter(|&&p| p).count() as f64;
    let m = positive.len() as f64 - n;
    if n == 0.0 || m == 0.0 || scores.len() != positive.len() {
        return None;
    }
    let sum: f64 = ranks.iter().zip(positive).filter(|(_, p)| **p).map(|(rank, _)| rank).sum();
    Some((sum - n * (n + 1.0) / 2.0) / (n * m))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::policy::Sequence;

    #[test]
    fn cross_entropy_by_hand() {
        // σ(0) = ½ for either label: ln 2 each; label 0 at logit ln 3: P(1) = ¾, −ln ¼ = 1.38629.
        let logits = Tensor::new(&[0.0f64, 0.0, 3.0f64.ln()], &Device::Cpu).unwrap();
        let sum = loss::scalar(&binary_cross_entropy(&logits, &[1.0, 0.0, 0.0]).unwrap()).unwrap();
        assert!((sum - (2.0 * 2.0f64.ln() + 4.0f64.ln())).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn areas_by_hand() {
        // Positives 3 and 1 against negatives 2 and 1: wins 1 + 1, then 0 + ½ of 4.
        assert_eq!(auc(&[3.0, 1.0, 2.0, 1.0], &[true, true, false, false]), Some(0.625));
        assert_eq!(auc(&[1.0], &[true]), None);
    }

    #[test]
    fn pairs_are_compared_with_the_better_length_rule() {
        let of = |targets: [usize; 2]| Example {
            record: 0,
            sequences: targets.map(|n| Sequence::of_tokens(&[1], &vec![2; n])).to_vec(),
            labels: vec![0.0],
            marks: vec![],
        };
        let examples = [of([1, 2]), of([1, 3]), of([5, 2])];
        let report = pair_report(&[vec![1.0, 0.0], vec![0.0, 0.0], vec![0.0, 1.0]], &examples);
        assert_eq!(report.hits, [1.0, 0.5, 0.0]);
        // "The longer one" is right once of three times, "the shorter one" twice.
        assert_eq!(report.longer, [1.0, 1.0, 0.0]);
    }
}
