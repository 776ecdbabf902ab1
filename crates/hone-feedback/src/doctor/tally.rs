//! What the doctor keeps of a whole log.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::digest::{Digest, Said};
use super::report::{Agreement, Language, Lengths, Report, Source, Usable, Verdict};
use crate::convert::Shape;
use crate::error::{Fault, Problem};
use crate::feedback::FormKind;
use crate::metrics::agreement::{Level, cohen_kappa, krippendorff_alpha};
use crate::metrics::raters::{Mark, Win, dawid_skene, rater_sharpness};

/// Marks kept at most; beyond it, whole items are dropped by their hash, so that the rest stays complete.
const MARKS: usize = 1 << 20;

/// Marks and comparisons that the models of sources are fitted on at most: more change the third digit.
const FITTED: usize = 1 << 18;

/// Counts and hashes of a log, fed in the order of its lines.
#[derive(Default)]
pub(super) struct Tally {
    pub report: Report,
    file: String,
    ids_are_unique: bool,
    ids: FxHashSet<u64>,
    wholes: FxHashSet<u64>,
    /// Prompt to the splits it is in, one bit each.
    prompts: FxHashMap<u64, u32>,
    splits: Vec<String>,
    file_split: Option<u32>,
    pairs: FxHashMap<u64, bool>,
    marks: Vec<Said>,
    wins: Vec<(u64, u64, u64)>,
    /// Items are kept whose hash is below `u64::MAX >> shift`.
    shift: u32,
    names: FxHashMap<u64, String>,
    by: FxHashMap<u64, u64>,
    languages: BTreeMap<&'static str, u64>,
    lengths: [Histogram; 6],
    examples: [(u64, u64); Shape::ALL.len()],
}

/// Lengths in buckets that grow by 9 % each, with exact sum and maximum.
#[derive(Clone)]
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; 264], count: 0, sum: 0, max: 0 }
    }
}

/// Buckets per doubling: neighbours differ by 2^(1/8), 9 %.
const PER_DOUBLING: f64 = 8.0;

impl Histogram {
    fn add(&mut self, length: u32) {
        let bucket = (f64::from(length) + 1.0).log2() * PER_DOUBLING;
        self.buckets[(bucket as usize).min(263)] += 1;
        self.count += 1;
        self.sum += u64::from(length);
        self.max = self.max.max(u64::from(length));
    }

    fn quantile(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let middle = (bucket as f64 + 0.5) / PER_DOUBLING;
                return (middle.exp2() - 1.0).min(self.max as f64);
            }
        }
        self.max as f64
    }
}

impl Tally {
    /// Begins a file. Its name is the split of its records where several files are given as such.
    pub fn file(&mut self, name: &str, format: &'static str, as_split: bool) {
        self.file = name.to_owned();
        // Elsewhere an id may name an item that several rows are about.
        self.ids_are_unique = format == "hone";
        self.file_split = as_split.then(|| self.split(name));
        self.report.files.push((name.to_owned(), format));
    }

    /// The bit of a split.
    fn split(&mut self, name: &str) -> u32 {
        let place = self.splits.iter().position(|known| known == name).unwrap_or_else(|| {
            self.splits.push(name.to_owned());
            self.splits.len() - 1
        });
        1 << place.min(31)
    }

    /// Adds what is wrong with one line.
    pub fn refuse(&mut self, line: u64, faults: Vec<Fault>) {
        self.report.refused += 1;
        for fault in faults {
            self.problem(fault.at(&self.file, line));
        }
    }

    pub fn problem(&mut self, problem: Problem) {
        self.report.problems.push(problem);
    }

    /// Adds a sound record.
    pub fn add(&mut self, digest: Digest) {
        let line = digest.line;
        // Before anything can refuse the record: its thread sends each name only once.
        self.names.extend(digest.names);
        if let Some(id) = digest.id
            && !self.ids.insert(id)
        {
            self.report.repeated_ids.add(&self.file, line);
            if self.ids_are_unique {
                return self.refuse(
                    line,
                    vec![Fault::new("id", "an id of its own", "one that an earlier record has")],
                );
            }
        }
        self.report.records += 1;
        self.report.responses += u64::from(digest.responses);
        if !self.wholes.insert(digest.whole) {
            self.report.duplicates.add(&self.file, line);
        }
        let split = match &digest.split {
            Some(name) => self.split(name),
            None => self.file_split.unwrap_or_default(),
        };
        let seen = self.prompts.entry(digest.prompt).or_default();
        // Told once, when a second split is met.
        if split != 0 && *seen != 0 && *seen & split == 0 {
            self.report.leaks.add(&self.file, line);
        }
        *seen |= split;
        for (kind, count) in FormKind::ALL.into_iter().zip(digest.forms).filter(|(_, count)| *count > 0) {
            *self.report.forms.entry(kind).or_default() += u64::from(count);
        }
        for ((records, examples), count) in self.examples.iter_mut().zip(digest.examples) {
            *records += u64::from(count > 0);
            *examples += u64::from(count);
        }
        self.lengths[0].add(digest.prompt_length.0);
        self.lengths[1].add(digest.prompt_length.1);
        for (words, characters) in digest.response_lengths {
            self.lengths[2].add(words);
            self.lengths[3].add(characters);
        }
        if let Some(sample) = digest.sample {
            self.report.sampled += 1;
            *self.languages.entry(sample.language).or_default() += 1;
            sample.prompt_tokens.into_iter().for_each(|count| self.lengths[4].add(count));
            sample.response_tokens.into_iter().for_each(|count| self.lengths[5].add(count));
        }
        for (key, order) in digest.pairs {
            match self.pairs.insert(key, order) {
                Some(before) if before != order => self.report.swapped_pairs.add(&self.file, line),
                _ => {}
            }
        }
        (0..digest.tied).for_each(|_| self.report.tied_pairs.add(&self.file, line));
        if digest.contradiction {
            self.report.contradictions.add(&self.file, line);
        }
        for by in digest.by {
            *self.by.entry(by).or_default() += 1;
        }
        let kept = |item: u64, shift: u32| item <= u64::MAX >> shift;
        self.marks.extend(digest.marks.into_iter().filter(|mark| kept(mark.item, self.shift)));
        self.wins.extend(digest.wins.into_iter().filter(|_| kept(digest.prompt, self.shift)));
        while self.marks.len() > MARKS || self.wins.len() > MARKS {
            self.shift += 1;
            let shift = self.shift;
            self.marks.retain(|mark| kept(mark.item, shift));
            self.wins.truncate(MARKS / 2);
        }
    }

    /// The report. `most_refused`: the share of refused lines past which training may not go on.
    pub fn finish(mut self, most_refused: f64) -> Report {
        let mut report = std::mem::take(&mut self.report);
        report.prompts = self.prompts.len() as u64;
        let sampled = report.sampled.max(1) as f64;
        let languages =
            self.languages.iter().map(|(code, count)| Language { code, share: *count as f64 / sampled });
        report.languages = languages.collect();
        report.languages.sort_by(|a, b| b.share.total_cmp(&a.share));
        let names = [
            ("prompt", "words"),
            ("prompt", "characters"),
            ("response", "words"),
            ("response", "characters"),
            ("prompt", "tokens"),
            ("response", "tokens"),
        ];
        let measured = self.lengths.iter().zip(names).filter(|(lengths, _)| lengths.count > 0);
        report.lengths = measured
            .map(|(lengths, (of, unit))| Lengths {
                of,
                unit,
                count: lengths.count,
                mean: lengths.sum as f64 / lengths.count as f64,
                median: lengths.quantile(0.5),
                p95: lengths.quantile(0.95),
                max: lengths.max,
            })
            .collect();
        let records = report.records.max(1) as f64;
        let usable = Shape::ALL.into_iter().zip(self.examples);
        report.usable = usable
            .map(|(shape, (with, examples))| Usable {
                shape: shape.name(),
                records: with,
                share: with as f64 / records,
                examples,
            })
            .collect();
        self.agree(&mut report);
        self.sources(&mut report);
        report.verdict = verdict(&report, most_refused);
        report
    }

    /// Agreement per question.
    fn agree(&mut self, report: &mut Report) {
        self.marks.sort_by_key(|mark| (mark.form, mark.aspect, mark.item, mark.by));
        // A source that marks an item twice counts once, with its first mark.
        self.marks.dedup_by_key(|mark| (mark.form, mark.aspect, mark.item, mark.by));
        for question in self.marks.chunk_by(|a, b| (a.form, a.aspect) == (b.form, b.aspect)) {
            let shared: Vec<&[Said]> =
                question.chunk_by(|a, b| a.item == b.item).filter(|item| item.len() > 1).collect();
            if shared.is_empty() {
                continue;
            }
            let units: Vec<Vec<f64>> =
                shared.iter().map(|item| item.iter().map(|mark| f64::from(mark.value)).collect()).collect();
            let alpha = |level| krippendorff_alpha(units.iter().map(Vec::as_slice), level);
            let graded = question[0].form == FormKind::Rating;
            report.agreement.push(Agreement {
                form: question[0].form,
                aspect: self.names.get(&question[0].aspect).cloned(),
                items: shared.len() as u64,
                marks: shared.iter().map(|item| item.len() as u64).sum(),
                kappa: kappa(&shared),
                alpha_nominal: alpha(Level::Nominal),
                alpha_ordinal: graded.then(|| alpha(Level::Ordinal)).flatten(),
                alpha_interval: graded.then(|| alpha(Level::Interval)).flatten(),
            });
        }
    }

    /// Sources and how far they can be relied on.
    fn sources(&mut self, report: &mut Report) {
        let mut raters: FxHashMap<u64, u32> = FxHashMap::default();
        let mut items: FxHashMap<u64, u32> = FxHashMap::default();
        let number = |map: &mut FxHashMap<u64, u32>, key: u64| {
            let next = map.len() as u32;
            *map.entry(key).or_insert(next)
        };
        let truths = self
            .marks
            .iter()
            .filter(|mark| matches!(mark.form, FormKind::Thumb | FormKind::Outcome | FormKind::Step));
        let truths: Vec<&Said> = truths.collect();
        let mut marks = Vec::new();
        for item in truths.chunk_by(|a, b| (a.form, a.aspect, a.item) == (b.form, b.aspect, b.item)) {
            if marks.len() >= FITTED {
                break;
            }
            // An item of one mark says nothing about who is right.
            for mark in item.iter().filter(|_| item.len() > 1) {
                marks.push(Mark {
                    item: number(&mut items, super::digest::mix(&[mark.item, mark.aspect, mark.form as u64])),
                    rater: number(&mut raters, mark.by),
                    class: mark.value as u16,
                });
            }
        }
        let skene = (!marks.is_empty()).then(|| dawid_skene(&marks, items.len(), raters.len(), 2, 50));
        let mut judges: FxHashMap<u64, u32> = FxHashMap::default();
        let mut texts: FxHashMap<u64, u32> = FxHashMap::default();
        let wins: Vec<Win> = self
            .wins
            .iter()
            .take(FITTED)
            .map(|(by, winner, loser)| Win {
                rater: number(&mut judges, *by),
                winner: number(&mut texts, *winner),
                loser: number(&mut texts, *loser),
            })
            .collect();
        // One judge alone is the crowd.
        let sharp = (judges.len() > 1).then(|| rater_sharpness(&wins, texts.len(), judges.len()));
        report.sources = self
            .by
            .iter()
            .map(|(by, count)| Source {
                name: self.names.get(by).cloned().unwrap_or_default(),
                items: *count,
                right: skene.as_ref().and_then(|skene| Some(skene.reliability(*raters.get(by)? as usize))),
                sharpness: sharp.as_ref().and_then(|sharp| sharp.get(*judges.get(by)? as usize).copied()),
            })
            .collect();
        report.sources.sort_by(|a, b| b.items.cmp(&a.items).then_with(|| a.name.cmp(&b.name)));
        report.sources.truncate(100);
    }
}

/// Cohen's kappa of the two sources who share most items.
fn kappa(shared: &[&[Said]]) -> Option<f64> {
    let mut together: FxHashMap<(u64, u64), u32> = FxHashMap::default();
    for item in shared {
        // Items of a crowd would give its square in pairs.
        for (place, a) in item.iter().take(16).enumerate() {
            item[place + 1..].iter().take(16).for_each(|b| *together.entry((a.by, b.by)).or_default() += 1);
        }
    }
    let ((first, second), _) = together.into_iter().max_by_key(|(pair, count)| (*count, *pair))?;
    let mark =
        |item: &[Said], by: u64| item.iter().find(|mark| mark.by == by).map(|mark| mark.value.to_bits());
    let both = shared.iter().filter_map(|item| Some((mark(item, first)?, mark(item, second)?)));
    let (a, b): (Vec<u32>, Vec<u32>) = both.unzip();
    cohen_kappa(&a, &b)
}

fn verdict(report: &Report, most_refused: f64) -> Verdict {
    let mut reasons = Vec::new();
    let lines = report.records + report.refused;
    if report.records == 0 {
        reasons.push(if lines == 0 {
            "The log is empty.".to_owned()
        } else {
            "No line gives a sound record.".to_owned()
        });
    } else if report.refused as f64 > most_refused * lines as f64 {
        reasons.push(format!("{} of {lines} lines are refused.", report.refused));
    }
    if report.records > 0 && report.usable.iter().all(|usable| usable.examples == 0) {
        reasons.push("No record holds feedback that a method can use.".to_owned());
    }
    if report.leaks.count > 0 {
        reasons.push(format!("{} prompts lie in more than one split.", report.leaks.count));
    }
    match (reasons.is_empty(), report.refused) {
        (false, _) => Verdict::Stop { reasons },
        (true, 0) => Verdict::Go,
        (true, refused) => Verdict::GoWithout { refused },
    }
}
