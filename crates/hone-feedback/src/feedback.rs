//! Every form that feedback takes.

use std::borrow::Cow;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Fault;
use crate::record::{Content, kind_of};

/// One thing said about a record: its form, and who said it, when, and about which aspect.
///
/// As JSON it is one flat object whose `form` names the variant of [`Form`].
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    /// What was said.
    pub form: Form,
    /// Who said it: a person, model, tool or simulator, as in `user:42`.
    pub by: Option<String>,
    /// When it was said, RFC 3339.
    pub at: Option<String>,
    /// Which quality it is about, as in `helpful`. None: the whole.
    pub aspect: Option<String>,
    /// Words that came with it: a reason, a test's output. Of critiques and rules the words are in the form.
    pub text: Option<String>,
    /// Fields that Hone does not know, kept as they came.
    pub extra: Map<String, Value>,
}

/// The forms of feedback. `on`, `better`, `worse` and `order` name responses by id.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Good or bad.
    Thumb {
        /// The response.
        on: String,
        /// `true` is good.
        value: bool,
    },
    /// A mark on a scale.
    Rating {
        /// The response.
        on: String,
        /// The mark, larger is better.
        value: f64,
        /// Lowest and highest mark there is. None: unknown.
        scale: Option<[f64; 2]>,
    },
    /// One response is better than another. A tie is a ranking with both in one place.
    Comparison {
        /// The better response.
        better: String,
        /// The worse response.
        worse: String,
    },
    /// An order, best first; responses in one place are tied.
    Ranking {
        /// The places, each with its responses.
        order: Vec<Vec<String>>,
    },
    /// A comment in words.
    Critique {
        /// The response; None: the whole exchange.
        on: Option<String>,
        /// The comment.
        text: String,
    },
    /// A corrected version of a response.
    Edit {
        /// The response that was corrected.
        on: String,
        /// The whole corrected text.
        content: Content,
    },
    /// A judgement of a part of a response.
    Span {
        /// The response.
        on: String,
        /// First Unicode scalar value of the part, from 0.
        start: usize,
        /// One past its last Unicode scalar value.
        end: usize,
        /// What kind of part it is, as in `unsupported`.
        label: Option<String>,
        /// How good it is; below 0 is bad.
        value: Option<f64>,
    },
    /// A judgement of one step of a response.
    Step {
        /// The response.
        on: String,
        /// The step, from 0.
        index: usize,
        /// Whether the step is right.
        correct: bool,
    },
    /// What a check found: tests, a verifier, a linter.
    Outcome {
        /// The response.
        on: String,
        /// The check.
        check: String,
        /// Whether it passed.
        passed: bool,
    },
    /// What somebody did with a response: accepted, copied, asked again.
    Event {
        /// The response; None: the whole exchange.
        on: Option<String>,
        /// What happened.
        event: String,
        /// How much of it. None: it happened.
        value: Option<f64>,
    },
    /// A rule that later answers must keep.
    Rule {
        /// The rule.
        text: String,
        /// Where it holds. None: everywhere.
        scope: Option<String>,
    },
}

/// The names of the forms, without their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants are those of Form")]
pub enum FormKind {
    Thumb,
    Rating,
    Comparison,
    Ranking,
    Critique,
    Edit,
    Span,
    Step,
    Outcome,
    Event,
    Rule,
}

impl FormKind {
    /// Every form, in the order of the documentation.
    pub const ALL: [FormKind; 11] = [
        FormKind::Thumb,
        FormKind::Rating,
        FormKind::Comparison,
        FormKind::Ranking,
        FormKind::Critique,
        FormKind::Edit,
        FormKind::Span,
        FormKind::Step,
        FormKind::Outcome,
        FormKind::Event,
        FormKind::Rule,
    ];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            FormKind::Thumb => "thumb",
            FormKind::Rating => "rating",
            FormKind::Comparison => "comparison",
            FormKind::Ranking => "ranking",
            FormKind::Critique => "critique",
            FormKind::Edit => "edit",
            FormKind::Span => "span",
            FormKind::Step => "step",
            FormKind::Outcome => "outcome",
            FormKind::Event => "event",
            FormKind::Rule => "rule",
        }
    }

    /// The form called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl std::fmt::Display for FormKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl Form {
    /// Its name.
    pub fn kind(&self) -> FormKind {
        match self {
            Form::Thumb { .. } => FormKind::Thumb,
            Form::Rating { .. } => FormKind::Rating,
            Form::Comparison { .. } => FormKind::Comparison,
            Form::Ranking { .. } => FormKind::Ranking,
            Form::Critique { .. } => FormKind::Critique,
            Form::Edit { .. } => FormKind::Edit,
            Form::Span { .. } => FormKind::Span,
            Form::Step { .. } => FormKind::Step,
            Form::Outcome { .. } => FormKind::Outcome,
            Form::Event { .. } => FormKind::Event,
            Form::Rule { .. } => FormKind::Rule,
        }
    }

    /// The names of its own fields in JSON.
    pub(crate) fn fields(&self) -> &'static [&'static str] {
        match self {
            Form::Thumb { .. } => &["on", "value"],
            Form::Rating { .. } => &["on", "value", "scale"],
            Form::Comparison { .. } => &["better", "worse"],
            Form::Ranking { .. } => &["order"],
            Form::Critique { .. } => &["on", "text"],
            Form::Edit { .. } => &["on", "content"],
            Form::Span { .. } => &["on", "start", "end", "label", "value"],
            Form::Step { .. } => &["on", "index", "correct"],
            Form::Outcome { .. } => &["on", "check", "passed"],
            Form::Event { .. } => &["on", "event", "value"],
            Form::Rule { .. } => &["text", "scope"],
        }
    }

    /// The one response it is about, where it is about one.
    pub fn on(&self) -> Option<&str> {
        match self {
            Form::Thumb { on, .. }
            | Form::Rating { on, .. }
            | Form::Edit { on, .. }
            | Form::Span { on, .. }
            | Form::Step { on, .. }
            | Form::Outcome { on, .. } => Some(on),
            Form::Critique { on, .. } | Form::Event { on, .. } => on.as_deref(),
            Form::Comparison { .. } | Form::Ranking { .. } | Form::Rule { .. } => None,
        }
    }
}

impl From<Form> for Feedback {
    fn from(form: Form) -> Self {
        Feedback { form, by: None, at: None, aspect: None, text: None, extra: Map::new() }
    }
}

impl Feedback {
    /// The same feedback, said by `who`.
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// The same feedback, about `aspect`.
    #[must_use]
    pub fn about(mut self, aspect: impl Into<String>) -> Self {
        self.aspect = Some(aspect.into());
        self
    }

    /// The same feedback with words.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// All words in it: of a critique or rule the form's own, else those that came with it.
    pub fn words(&self) -> Option<&str> {
        match &self.form {
            Form::Critique { text, .. } | Form::Rule { text, .. } => Some(text),
            _ => self.text.as_deref(),
        }
    }

    /// Feedback from its JSON object. What the form does not know stays in `extra`.
    ///
    /// # Errors
    /// The field that is missing or of the wrong type.
    pub fn from_object(object: Map<String, Value>) -> Result<Self, Fault> {
        Fields(object.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect()).feedback()
    }
}

/// Takes typed fields out of an object and leaves the rest. A few fields are found faster in a list than in a map.
struct Fields<'a>(Vec<(Cow<'a, str>, Value)>);

impl Fields<'_> {
    fn feedback(mut self) -> Result<Feedback, Fault> {
        let fields = &mut self;
        let name = fields.text("form")?;
        let kind = FormKind::named(&name).ok_or_else(|| {
            Fault::new(
                "form",
                "one of thumb, rating, comparison, ranking, critique, edit, span, step, outcome, event, rule",
                format!("{name:?}"),
            )
        })?;
        let form = match kind {
            FormKind::Thumb => Form::Thumb { on: fields.text("on")?, value: fields.boolean("value")? },
            FormKind::Rating => Form::Rating {
                on: fields.text("on")?,
                value: fields.number("value")?,
                scale: fields.scale()?,
            },
            FormKind::Comparison => {
                Form::Comparison { better: fields.text("better")?, worse: fields.text("worse")? }
            }
            FormKind::Ranking => Form::Ranking { order: fields.order()? },
            FormKind::Critique => Form::Critique { on: fields.maybe_text("on")?, text: fields.text("text")? },
            FormKind::Edit => Form::Edit { on: fields.text("on")?, content: fields.content()? },
            FormKind::Span => Form::Span {
                on: fields.text("on")?,
                start: fields.count("start")?,
                end: fields.count("end")?,
                label: fields.maybe_text("label")?,
                value: fields.maybe_number("value")?,
            },
            FormKind::Step => Form::Step {
                on: fields.text("on")?,
                index: fields.count("index")?,
                correct: fields.boolean("correct")?,
            },
            FormKind::Outcome => Form::Outcome {
                on: fields.text("on")?,
                check: fields.text("check")?,
                passed: fields.boolean("passed")?,
            },
            FormKind::Event => Form::Event {
                on: fields.maybe_text("on")?,
                event: fields.text("event")?,
                value: fields.maybe_number("value")?,
            },
            FormKind::Rule => Form::Rule { text: fields.text("text")?, scope: fields.maybe_text("scope")? },
        };
        Ok(Feedback {
            form,
            by: fields.maybe_text("by")?,
            at: fields.maybe_text("at")?,
            aspect: fields.maybe_text("aspect")?,
            text: fields.maybe_text("text")?,
            extra: self.0.into_iter().map(|(name, value)| (name.into_owned(), value)).collect(),
        })
    }

    /// `null` counts as absent.
    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        // What stays keeps its order, so that a round trip prints it as it came.
        Some(self.0.remove(at).1).filter(|value| !value.is_null())
    }

    fn need<T>(
        &mut self,
        name: &str,
        needed: &str,
        read: impl Fn(&mut Value) -> Option<T>,
    ) -> Result<T, Fault> {
        match self.take(name) {
            None => Err(Fault::new(name, needed, "nothing")),
            Some(mut value) => read(&mut value).ok_or_else(|| wrong(name, needed, &value)),
        }
    }

    fn maybe<T>(
        &mut self,
        name: &str,
        needed: &str,
        read: impl Fn(&mut Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(mut value) => read(&mut value).map(Some).ok_or_else(|| wrong(name, needed, &value)),
        }
    }

    fn text(&mut self, name: &str) -> Result<String, Fault> {
        self.need(name, "text", owned_text)
    }

    fn maybe_text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.maybe(name, "text", owned_text)
    }

    fn boolean(&mut self, name: &str) -> Result<bool, Fault> {
        self.need(name, "true or false", |value| value.as_bool())
    }

    fn number(&mut self, name: &str) -> Result<f64, Fault> {
        self.need(name, "a number", |value| value.as_f64())
    }

    fn maybe_number(&mut self, name: &str) -> Result<Option<f64>, Fault> {
        self.maybe(name, "a number", |value| value.as_f64())
    }

    fn count(&mut self, name: &str) -> Result<usize, Fault> {
        self.need(name, "a whole number from 0", |value| usize::try_from(value.as_u64()?).ok())
    }

    fn scale(&mut self) -> Result<Option<[f64; 2]>, Fault> {
        self.maybe("scale", "a list of two numbers, lowest first", |value| {
            match value.as_array()?.as_slice() {
                [low, high] => Some([low.as_f64()?, high.as_f64()?]),
                _ => None,
            }
        })
    }

    fn order(&mut self) -> Result<Vec<Vec<String>>, Fault> {
        self.need("order", "a list of lists of response ids, best first", |value| {
            let places = value.as_array()?.iter();
            places
                .map(|place| place.as_array()?.iter().map(|id| Some(id.as_str()?.to_owned())).collect())
                .collect()
        })
    }

    fn content(&mut self) -> Result<Content, Fault> {
        self.need("content", "text, a list of messages or a list of parts", |value| {
            Content::deserialize(&*value).ok()
        })
    }
}

fn owned_text(value: &mut Value) -> Option<String> {
    match value {
        Value::String(text) => Some(std::mem::take(text)),
        _ => None,
    }
}

fn wrong(name: &str, needed: &str, value: &Value) -> Fault {
    let got = match value {
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned() + " " + &value.to_string(),
        _ => value.to_string(),
    };
    Fault::new(name, needed, got)
}

impl<'de> Deserialize<'de> for Feedback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, Value)> = Vec::with_capacity(8);
                while let Some((Name(name), value)) = map.next_entry()? {
                    // As in a map: of a key that is given twice, the last value stays.
                    match fields.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, old)) => *old = value,
                        None => fields.push((name, value)),
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)?.feedback().map_err(de::Error::custom)
    }
}

/// A key, borrowed from the input where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Whole numbers print without a point, as they came.
struct Plain(f64);

impl Serialize for Plain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Beyond 2^53 an f64 is no longer every whole number.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if self.0.fract() == 0.0 && self.0.abs() < EXACT {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl Serialize for Feedback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("form", self.form.kind().name())?;
        if let Some(on) = self.form.on() {
            map.serialize_entry("on", on)?;
        }
        match &self.form {
            Form::Thumb { value, .. } => map.serialize_entry("value", value)?,
            Form::Rating { value, scale, .. } => {
                map.serialize_entry("value", &Plain(*value))?;
                if let Some([low, high]) = scale {
                    map.serialize_entry("scale", &[Plain(*low), Plain(*high)])?;
                }
            }
            Form::Comparison { better, worse } => {
                map.serialize_entry("better", better)?;
                map.serialize_entry("worse", worse)?;
            }
            Form::Ranking { order } => map.serialize_entry("order", order)?,
            Form::Critique { text, .. } => map.serialize_entry("text", text)?,
            Form::Edit { content, .. } => map.serialize_entry("content", content)?,
            Form::Span { start, end, label, value, .. } => {
                map.serialize_entry("start", start)?;
                map.serialize_entry("end", end)?;
                if let Some(label) = label {
                    map.serialize_entry("label", label)?;
                }
                if let Some(value) = value {
                    map.serialize_entry("value", &Plain(*value))?;
                }
            }
            Form::Step { index, correct, .. } => {
                map.serialize_entry("index", index)?;
                map.serialize_entry("correct", correct)?;
            }
            Form::Outcome { check, passed, .. } => {
                map.serialize_entry("check", check)?;
                map.serialize_entry("passed", passed)?;
            }
            Form::Event { event, value, .. } => {
                map.serialize_entry("event", event)?;
                if let Some(value) = value {
                    map.serialize_entry("value", &Plain(*value))?;
                }
            }
            Form::Rule { text, scope } => {
                map.serialize_entry("text", text)?;
                if let Some(scope) = scope {
                    map.serialize_entry("scope", scope)?;
                }
            }
        }
        for (key, value) in
            [("aspect", &self.aspect), ("text", &self.text), ("by", &self.by), ("at", &self.at)]
        {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in &self.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
