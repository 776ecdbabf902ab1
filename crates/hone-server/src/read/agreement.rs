//! How far the people who labelled the same exchanges agree beyond chance.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::Json;
use axum::extract::{Query, State};
use hone_feedback::metrics::agreement::{Level, cohen_kappa, krippendorff_alpha};
use hone_feedback::{Form, Record, text};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Read};
use crate::error::{ErrorBody, Result};
use crate::read::Filter;
use crate::read::queue::people;

/// Exchanges looked at, newest first.
const MOST: usize = 5000;
const PAGE: usize = 500;
/// Characters of one answer that are compared mark by mark.
const CHARACTERS: usize = 20_000;

/// Agreement on one form.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Measure {
    /// The form.
    form: &'static str,
    /// The quality that ratings are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    aspect: Option<String>,
    /// Things that two people or more judged: answers, pairs, steps, characters.
    units: usize,
    /// People who judged any of these.
    people: usize,
    /// Krippendorff's alpha: nominal for thumbs, comparisons, steps and spans (by character), ordinal for rankings,
    /// interval for ratings. Null where it says nothing.
    alpha: Option<f64>,
    /// Cohen's kappa, where just two people judged and the form has classes.
    kappa: Option<f64>,
}

/// Agreement on every form that was used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agreement {
    /// Exchanges looked at.
    exchanges: usize,
    /// Those that two people or more labelled.
    shared: usize,
    measures: Vec<Measure>,
}

/// What was judged: a form, and for ratings an aspect.
type Kind = (&'static str, Option<String>);
/// Marks by what was judged of it, then by who judged it. Said twice, the last counts.
type Units<'a> = BTreeMap<String, BTreeMap<&'a str, f64>>;

/// All marks.
#[derive(Default)]
struct Marks<'a>(BTreeMap<Kind, Units<'a>>);

/// How far people agree on exchanges that keep every condition; the newest 5000.
#[utoipa::path(get, path = "/api/queue/agreement", tag = "labels", params(Filter),
    responses((status = 200, body = Agreement), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn agreement(
    State(app): State<App>,
    _: Allowed<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<Agreement>> {
    let mut query = filter.query(PAGE)?;
    let (mut exchanges, mut records) = (0, Vec::new());
    while exchanges < MOST {
        let page = app.store.search(query.clone()).await?;
        exchanges += page.hits.len();
        records.extend(page.hits.into_iter().filter(|record| people(record).len() > 1));
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    Ok(Json(Agreement { exchanges, shared: records.len(), measures: measures(&records) }))
}

fn measures(records: &[Record]) -> Vec<Measure> {
    let mut marks = Marks::default();
    let mut labels: BTreeMap<String, f64> = BTreeMap::new();
    for record in records {
        marks.read(record, &mut labels);
    }
    let measure = |((form, aspect), units): (Kind, Units)| {
        let shared: Vec<BTreeMap<&str, f64>> = units.into_values().filter(|unit| unit.len() > 1).collect();
        let who: BTreeSet<&str> = shared.iter().flat_map(|unit| unit.keys().copied()).collect();
        let values: Vec<Vec<f64>> = shared.iter().map(|unit| unit.values().copied().collect()).collect();
        let level = match form {
            "rating" => Level::Interval,
            "ranking" => Level::Ordinal,
            _ => Level::Nominal,
        };
        let alpha = krippendorff_alpha(values.iter().map(Vec::as_slice), level);
        // Each unit has the marks of the same two people in the order of their names.
        let kappa = if who.len() == 2 && level == Level::Nominal {
            let side = |side: usize| {
                values.iter().filter_map(|unit| unit.get(side).map(|mark| *mark as i64)).collect::<Vec<_>>()
            };
            cohen_kappa(&side(0), &side(1))
        } else {
            None
        };
        (!shared.is_empty()).then_some(Measure {
            form,
            aspect,
            units: shared.len(),
            people: who.len(),
            alpha,
            kappa,
        })
    };
    marks.0.into_iter().filter_map(measure).collect()
}

impl<'a> Marks<'a> {
    fn put(&mut self, form: &'static str, aspect: Option<&str>, unit: String, by: &'a str, mark: f64) {
        let units = self.0.entry((form, aspect.map(str::to_owned))).or_default();
        units.entry(unit).or_default().insert(by, mark);
    }

    fn read(&mut self, record: &'a Record, labels: &mut BTreeMap<String, f64>) {
        let shown = people(record);
        // Per answer and person: the class of every character, 0 where nothing is marked.
        let mut spans: HashMap<(&str, &str), Vec<f64>> = HashMap::new();
        for item in &record.feedback {
            let Some(by) = item.by.as_deref().filter(|by| shown.contains(by)) else { continue };
            let unit = |parts: &[&str]| serde_json::to_string(&(&record.id, parts)).unwrap_or_default();
            match &item.form {
                Form::Thumb { on, value } => {
                    self.put("thumb", None, unit(&[on]), by, f64::from(u8::from(*value)))
                }
                Form::Rating { on, value, .. } => {
                    self.put("rating", item.aspect.as_deref(), unit(&[on]), by, *value)
                }
                Form::Comparison { better, worse } => {
                    let pair =
                        if better < worse { [better.as_str(), worse] } else { [worse.as_str(), better] };
                    self.put("comparison", None, unit(&pair), by, f64::from(u8::from(better < worse)));
                }
                Form::Ranking { order } => {
                    for (place, ids) in order.iter().enumerate() {
                        for id in ids {
                            self.put("ranking", None, unit(&[id]), by, place as f64);
                        }
                    }
                }
                Form::Step { on, index, correct } => {
                    self.put(
                        "step",
                        None,
                        unit(&[on, &index.to_string()]),
                        by,
                        f64::from(u8::from(*correct)),
                    );
                }
                Form::Span { on, start, end, label, .. } => {
                    let Some(response) = record.response(on) else { continue };
                    let length = text::length(&response.content.text()).min(CHARACTERS);
                    let next = labels.len() as f64 + 1.0;
                    let class = *labels.entry(label.clone().unwrap_or_default()).or_insert(next);
                    let marks = spans.entry((on.as_str(), by)).or_insert_with(|| vec![0.0; length]);
                    for mark in marks.iter_mut().take(*end).skip(*start) {
                        *mark = class;
                    }
                }
                _ => {}
            }
        }
        for ((on, by), marks) in spans {
            for (at, mark) in marks.into_iter().enumerate() {
                let unit = serde_json::to_string(&(&record.id, on, at)).unwrap_or_default();
                self.put("span", None, unit, by, mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_people_by_hand() {
        let line = |id: &str, a: bool, b: bool| {
            let thumb = |value: bool, by: &str| {
                format!(r#"{{"form":"thumb","on":"x","value":{value},"by":"user:{by}"}}"#)
            };
            let spans = r#"{"form":"span","on":"x","start":0,"end":2,"label":"l","by":"user:a"},{"form":"span","on":"x","start":1,"end":2,"label":"l","by":"user:b"}"#;
            let text = format!(
                r#"{{"id":"{id}","prompt":"p","responses":[{{"id":"x","content":"abcd"}}],"feedback":[{},{},{spans}]}}"#,
                thumb(a, "a"),
                thumb(b, "b")
            );
            Record::from_json(text.as_bytes()).expect("a record")
        };
        let found = measures(&[
            line("1", true, true),
            line("2", false, false),
            line("3", true, false),
            line("4", true, true),
        ]);
        // Thumbs: marks 5 good, 3 bad; one unit of four differs. Alpha: observed 2, expected 2·5·3 = 30, so
        // 1 − 7·2/30 = 0.53333. Kappa: observed 3/4, chance 3/4·2/4 + 1/4·2/4 = 1/2, so 1/2.
        let thumb = found.iter().find(|one| one.form == "thumb").expect("thumbs");
        assert_eq!((thumb.units, thumb.people), (4, 2));
        assert!((thumb.alpha.expect("alpha") - (1.0 - 14.0 / 30.0)).abs() < 1e-12);
        assert!((thumb.kappa.expect("kappa") - 0.5).abs() < 1e-12);
        // Spans: per answer of four characters a marks 2 and b 1, one differs. Of 16 characters observed 12/16;
        // chance 8/16·4/16 + 8/16·12/16 = 1/2: kappa 1/2.
        let span = found.iter().find(|one| one.form == "span").expect("spans");
        assert_eq!(span.units, 16);
        assert!((span.kappa.expect("kappa") - 0.5).abs() < 1e-12);
    }
}
