//! From records to tokenised examples of one shape; what cannot be used is counted by reason, never dropped silently.

use hone_feedback::convert::{self, Losses, Shape};
use hone_feedback::{Content, Prompt, Record};

use crate::error::{Error, Result};
use crate::policy::{Policy, Sequence, refusal};

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
    /// Scalars: the mark as a share of its scale, in [0, 1]. Demonstrations, spans and steps: empty.
    pub labels: Vec<f32>,
    /// Spans and steps: positions in the one sequence and what is said there; empty otherwise.
    pub marks: Vec<(usize, f32)>,
}

impl Examples {
    /// Examples of `shape` from records, each sequence of at most `max_tokens`.
    ///
    /// Records that the template or the tokenizer refuses are counted among the losses.
    ///
    /// # Errors
    /// [`Error::Log`] with the first refused record if there are refused ones and no example is left; errors of
    /// [`Policy::encode`] that are not the fault of one record.
    pub fn from_records(
        policy: &Policy,
        records: &[Record],
        shape: Shape,
        max_tokens: usize,
    ) -> Result<Examples> {
        let mut reader = Reader { policy, max_tokens, out: Examples::default(), refused: None };
        let mut first = None;
        for (index, record) in records.iter().enumerate() {
            reader.read(index, record, shape)?;
            first = first.or_else(|| reader.refused.take().map(|why| (&record.id, why)));
        }
        match first {
            // What refuses everything is a fault of the template, not of records.
            Some((id, why)) if reader.out.is_empty() => {
                let count = records.len();
                Err(Error::Log(format!("record {id}: {why}; none of {count} records could be encoded")))
            }
            _ => Ok(reader.out),
        }
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
    /// Why the newest of the refused was.
    refused: Option<hone_lm::Error>,
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
                    // A mark of 1 to 100 or a number of seconds would drown the shares.
                    if !item.scaled {
                        losses.add("marks without a known scale");
                        continue;
                    }
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
        let why = match self.policy.encode(prompt, response, self.max_tokens) {
            Ok(Some(sequence)) => return Ok(Some(sequence)),
            Ok(None) => "responses longer than the model or the settings allow".to_string(),
            Err(Error::Model(error)) => match refusal(&error) {
                Some(why) => {
                    self.refused = Some(error);
                    why
                }
                None => return Err(Error::Model(error)),
            },
            Err(error) => return Err(error),
        };
        self.out.losses.add(&why);
        Ok(None)
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
        let mut rest = convert::span_labels(from, losses);
        // All spans of a response together, wherever they stand in the record: a token has one value.
        while let Some(&convert::SpanLabel { prompt, content, .. }) = rest.first() {
            let (of_one, others) = rest.into_iter().partition(|span| std::ptr::eq(span.content, content));
            let of_one: Vec<convert::SpanLabel<'_>> = of_one;
            rest = others;
            let response = content.text();
            let Some(sequence) = self.encode(prompt, &response)? else { continue };
            let places = self.policy.response_spans(&sequence, &response)?;
            let known: Vec<usize> = (0..places.len()).filter(|&at| places[at].is_some()).collect();
            let offsets: Vec<(usize, usize)> = known.iter().filter_map(|&at| places[at]).collect();
            let values = convert::token_labels(&of_one, &offsets, losses);
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

#[cfg(test)]
mod tests {
    use hone_feedback::{Form, Message};
    use hone_lm::ChatTemplate;

    use super::*;
    use crate::bench::Bench;

    /// A policy whose template takes neither a system message nor two turns of one side in a row.
    fn strict() -> Policy {
        let source = "{% for m in messages %}\
            {% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
            {% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}\
            {{ m.content }}{% if m.role == 'assistant' and m.content != 'w0' %}</s>{% else %} {% endif %}{% endfor %}";
        let template = Some(ChatTemplate::from_source(source, &[]).unwrap());
        Policy { template, ..Bench::new(1).unwrap().policy().unwrap() }
    }

    fn asked(id: &str, turns: &[(&str, &str)], answer: &str) -> Record {
        let messages = turns.iter().map(|(role, text)| Message::new(*role, *text)).collect();
        let record = Record::new(id, Prompt::Messages(messages)).respond("a", answer).respond("b", "w2 w3");
        record.say(Form::Comparison { better: "a".into(), worse: "b".into() })
    }

    #[test]
    fn records_that_the_template_refuses_are_counted() {
        let records = [
            asked("system", &[("system", "say"), ("user", "say w1")], "w1"),
            asked("twice", &[("user", "say w1"), ("assistant", "w1")], "w1"),
            // The template forgets the stop token of this one.
            asked("endless", &[("user", "say w1")], "w0"),
            asked("good", &[("user", "say w1")], "w1"),
        ];
        let policy = strict();
        let examples = Examples::from_records(&policy, &records, Shape::Pairs, 64).unwrap();
        assert_eq!(examples.items.iter().map(|item| item.record).collect::<Vec<_>>(), [3]);
        let why = "the template refuses the messages: ";
        assert_eq!(examples.losses.of(&format!("{why}System role not supported")), 1);
        assert_eq!(examples.losses.of(&format!("{why}Roles must alternate")), 1);
        assert_eq!(examples.losses.of("no stop token ends the answer"), 1);

        let error = Examples::from_records(&policy, &records[..3], Shape::Pairs, 64).unwrap_err().to_string();
        assert!(error.starts_with("record system: "), "{error}");
        assert!(error.contains("System role not supported"), "{error}");
        assert!(error.ends_with("none of 3 records could be encoded"), "{error}");
        // Records without an example of the shape are no refusal.
        assert!(Examples::from_records(&policy, &records, Shape::StepLabels, 64).unwrap().is_empty());
    }

    #[test]
    fn spans_of_one_response_are_one_example() {
        let span = |on: &str, start, value| Form::Span {
            on: on.into(),
            start,
            end: start + 2,
            label: None,
            value: Some(value),
        };
        let record = Record::new("r", Prompt::Text("say w1".into()))
            .respond("a", "w1 w2 w3")
            .respond("b", "w4 w5")
            .say(span("a", 0, -1.0))
            .say(span("b", 3, -1.0))
            .say(span("a", 6, 1.0));
        let policy = Bench::new(1).unwrap().policy().unwrap();
        let examples = Examples::from_records(&policy, &[record], Shape::SpanLabels, 64).unwrap();
        let values: Vec<Vec<f32>> =
            examples.items.iter().map(|item| item.marks.iter().map(|(_, value)| *value).collect()).collect();
        assert_eq!(values, [vec![-1.0, 0.0, 1.0], vec![0.0, -1.0]]);
    }

    #[test]
    fn marks_without_a_scale_are_no_targets() {
        let rating = |value, scale| Form::Rating { on: "a".into(), value, scale };
        let record = Record::new("r", Prompt::Text("say w1".into()))
            .respond("a", "w1")
            .say(rating(4.0, Some([1.0, 5.0])))
            .say(rating(87.0, None));
        let policy = Bench::new(1).unwrap().policy().unwrap();
        let examples = Examples::from_records(&policy, &[record], Shape::ScalarTargets, 64).unwrap();
        // (4 − 1) / (5 − 1).
        assert_eq!(examples.items.iter().map(|item| item.labels[0]).collect::<Vec<_>>(), [0.75]);
        assert_eq!(examples.losses.of("marks without a known scale"), 1);
    }
}
