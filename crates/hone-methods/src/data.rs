//! From records to tokenised examples of one shape; what cannot be used is counted by reason, never dropped silently.

use hone_feedback::convert::{self, Losses, Shape};
use hone_feedback::{Content, Prompt, Record};

use crate::error::Result;
use crate::policy::{Policy, Sequence};

/// Examples of one shape, and what was left out on the way.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    /// The examples, in the order of their records.
    pub items: Vec<Example>,
    /// What the shape could not hold, and what did not fit, by reason.
    pub losses: Losses,
    /// Prompts that were cut at their start to fit.
    pub cut: usize,
}

/// What a loss needs together.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Index of the record in the slice that was converted.
    pub record: usize,
    /// One sequence for an answer, chosen and rejected for a pair, `K` for a list.
    pub sequences: Vec<Sequence>,
    /// By shape. Pairs: the margin, in shares of the scale, or 0. Lists: `[K]`, larger is better. Binary: 1 or 0.
    /// Scalars: the target. Demonstrations, spans and steps: empty.
    pub labels: Vec<f32>,
    /// Spans and steps: positions in the one sequence and what is said there; empty otherwise.
    pub marks: Vec<(usize, f32)>,
}

impl Examples {
    /// Examples of `shape` from records, each sequence of at most `max_tokens`.
    ///
    /// # Errors
    /// Those of [`Policy::encode`]: a template that cannot render, a stop token outside the mask.
    pub fn from_records(
        policy: &Policy,
        records: &[Record],
        shape: Shape,
        max_tokens: usize,
    ) -> Result<Examples> {
        let mut reader = Reader { policy, max_tokens, out: Examples::default() };
        for (index, record) in records.iter().enumerate() {
            reader.read(index, record, shape)?;
        }
        Ok(reader.out)
    }

    /// Tokens of each example, `[len]`.
    pub fn sizes(&self) -> Vec<usize> {
        self.items.iter().map(|item| item.sequences.iter().map(|s| s.tokens.len()).sum()).collect()
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

struct Reader<'a> {
    policy: &'a Policy,
    max_tokens: usize,
    out: Examples,
}

impl Reader<'_> {
    fn read(&mut self, record: usize, from: &Record, shape: Shape) -> Result<()> {
        // Losses are collected beside the examples, whose borrowing of the record ends first.
        let mut losses = Losses::default();
        match shape {
            Shape::Demonstrations => {
                for item in convert::demonstrations(from, &mut losses) {
                    self.add(record, item.prompt, &[item.content], vec![])?;
                }
            }
            Shape::Pairs => {
                for item in convert::pairs(from, &mut losses) {
                    let margin = item.margin.unwrap_or(0.0) as f32;
                    self.add(record, item.prompt, &[item.chosen, item.rejected], vec![margin])?;
                }
            }
            Shape::Lists => {
                for item in convert::lists(from, &mut losses) {
                    let labels = item.labels.iter().map(|&label| label as f32).collect();
                    self.add(record, item.prompt, &item.contents, labels)?;
                }
            }
            Shape::BinaryLabels => {
                for item in convert::binary_labels(from, &mut losses) {
                    let label = f32::from(u8::from(item.good));
                    self.add(record, item.prompt, &[item.content], vec![label])?;
                }
            }
            Shape::ScalarTargets => {
                for item in convert::scalar_targets(from, &mut losses) {
                    self.add(record, item.prompt, &[item.content], vec![item.value as f32])?;
                }
            }
            Shape::StepLabels => {
                for item in convert::step_labels(from, &mut losses) {
                    self.steps(record, &item, &mut losses)?;
                }
            }
            Shape::SpanLabels => self.spans(record, from, &mut losses)?,
            // Conditions become prompts in the methods that use them.
            Shape::Conditions => {}
        }
        self.out.losses.merge(&losses);
        Ok(())
    }

    fn add(&mut self, record: usize, prompt: &Prompt, contents: &[&Content], labels: Vec<f32>) -> Result<()> {
        let mut sequences = Vec::with_capacity(contents.len());
        for content in contents {
            match self.encode(prompt, &content.text())? {
                Some(sequence) => sequences.push(sequence),
                None => return Ok(()),
            }
        }
        self.out.cut += sequences.iter().filter(|sequence| sequence.cut > 0).count();
        self.out.items.push(Example { record, sequences, labels, marks: vec![] });
        Ok(())
    }

    fn encode(&mut self, prompt: &Prompt, response: &str) -> Result<Option<Sequence>> {
        if response.trim().is_empty() {
            self.out.losses.add("empty responses");
            return Ok(None);
        }
        let sequence = self.policy.encode(prompt, response, self.max_tokens)?;
        if sequence.is_none() {
            self.out.losses.add("responses longer than the model or the settings allow");
        }
        Ok(sequence)
    }

    /// The step's mark stands at its last token, where all of it has been read.
    fn steps(&mut self, record: usize, item: &convert::StepLabels<'_>, losses: &mut Losses) -> Result<()> {
        let response = item.steps.join("\n");
        let Some(sequence) = self.encode(item.prompt, &response)? else { return Ok(()) };
        let spans = self.policy.response_spans(&sequence, &response)?;
        let mut end = 0;
        let mut marks = vec![];
        for (step, correct) in item.steps.iter().zip(&item.correct) {
            end += step.chars().count();
            let last = spans.iter().rposition(|span| span.is_some_and(|(start, _)| start < end));
            match (correct, last) {
                (Some(correct), Some(at)) => marks.push((at, f32::from(u8::from(*correct)))),
                (Some(_), None) => losses.add("steps without a token"),
                (None, _) => {}
            }
            // The line break between steps.
            end += 1;
        }
        self.push_marked(record, sequence, marks);
        Ok(())
    }

    /// Every token of a marked response gets the value of the spans over it, or 0.
    fn spans(&mut self, record: usize, from: &Record, losses: &mut Losses) -> Result<()> {
        let spans = convert::span_labels(from, losses);
        let mut rest = spans.as_slice();
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|span| std::ptr::eq(span.content, first.content)).count();
            let (of_one, others) = rest.split_at(same);
            rest = others;
            let response = first.content.text();
            let Some(sequence) = self.encode(first.prompt, &response)? else { continue };
            let places = self.policy.response_spans(&sequence, &response)?;
            let known: Vec<usize> = (0..places.len()).filter(|&at| places[at].is_some()).collect();
            let offsets: Vec<(usize, usize)> = known.iter().filter_map(|&at| places[at]).collect();
            let values = convert::token_labels(of_one, &offsets, losses);
            let marks = known.into_iter().zip(values).map(|(at, value)| (at, value as f32)).collect();
            self.push_marked(record, sequence, marks);
        }
        Ok(())
    }

    fn push_marked(&mut self, record: usize, sequence: Sequence, marks: Vec<(usize, f32)>) {
        if marks.is_empty() {
            return;
        }
        self.out.cut += usize::from(sequence.cut > 0);
        self.out.items.push(Example { record, sequences: vec![sequence], labels: vec![], marks });
    }
}
