//! Chat templates: a conversation to the text that the model was trained on.
//!
//! Renders as `apply_chat_template` of transformers does, byte for byte: the same Jinja settings, globals, filters and
//! Python methods, the same choice among named templates, the same treatment of empty fields and of reasoning.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use minijinja::Environment;
use serde_json::{Map, Value};

use crate::error::{Error, Result, form};
use crate::message::Message;
use crate::tokenizer::Tokenizer;

mod generation;
mod mask;
mod python;

pub use mask::{MaskScope, MaskedTokens, check_stop_in_mask};
pub use python::Clock;

/// Names under which a message carries its reasoning; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Steps that one rendering may take: a template is foreign code, and a conversation of a thousand messages takes
/// some 100,000.
const FUEL: u64 = 50_000_000;

/// The chat templates of a model.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    sources: BTreeMap<String, String>,
    special: Vec<(String, String)>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("names", &self.sources.keys()).finish_non_exhaustive()
    }
}

/// What a template sees beside the messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// Name of the template; without, `tool_use` where there are tools and such a template, else `default`.
    pub template: Option<String>,
    /// Tools that may be called, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// Documents to answer from, each an object.
    pub documents: Option<Vec<Value>>,
    /// Ends with the header of an answer, so that the model writes the answer.
    pub add_generation_prompt: bool,
    /// Leaves the last message open, so that the model goes on writing it.
    pub continue_final_message: bool,
    /// Further variables, such as `enable_thinking`. They win over the special tokens.
    pub arguments: Map<String, Value>,
}

impl ChatTemplate {
    /// The templates of a model folder: `chat_template.jinja` and `additional_chat_templates/*.jinja`, or else
    /// `chat_template` in `tokenizer_config.json` (a string, or a list of named ones). `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Config`], or [`Error::Template`] for one that does not parse.
    pub fn from_folder(folder: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let folder = folder.as_ref();
        let mut sources = BTreeMap::new();
        let file = folder.join("chat_template.jinja");
        if file.exists() {
            sources.insert("default".to_owned(), read(&file)?);
        }
        let more = folder.join("additional_chat_templates");
        if more.is_dir() {
            let entries =
                std::fs::read_dir(&more).map_err(|source| Error::Read { path: more.clone(), source })?;
            for entry in entries {
                let path = entry.map_err(|source| Error::Read { path: more.clone(), source })?.path();
                if path.extension().is_some_and(|e| e == "jinja")
                    && let Some(name) = path.file_stem().and_then(|s| s.to_str())
                {
                    sources.insert(name.to_owned(), read(&path)?);
                }
            }
        }
        if sources.is_empty() {
            sources = from_config(folder, tokenizer.config())?;
        }
        if sources.is_empty() {
            return Ok(None);
        }
        let special = tokenizer.special_tokens().map(|(n, t)| (n.to_owned(), t.to_owned())).collect();
        Self::new(sources, special, Clock::System).map(Some)
    }

    /// One template from its source, with special tokens by name (`bos_token`, …).
    ///
    /// # Errors
    /// [`Error::Template`] if it does not parse.
    pub fn from_source(source: &str, special: &[(&str, &str)]) -> Result<Self> {
        let special = special.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect();
        Self::new(BTreeMap::from([("default".to_owned(), source.to_owned())]), special, Clock::System)
    }

    /// Named templates, with special tokens by name and a clock for `strftime_now`.
    ///
    /// # Errors
    /// [`Error::Template`] for one that does not parse.
    pub fn new(
        sources: BTreeMap<String, String>,
        special: Vec<(String, String)>,
        clock: Clock,
    ) -> Result<Self> {
        let mut environment = python::environment(clock);
        environment.set_fuel(Some(FUEL));
        for (name, source) in &sources {
            let rewritten = generation::rewrite(source);
            environment.add_template_owned(name.clone(), rewritten).map_err(|e| template_error(name, &e))?;
        }
        Ok(ChatTemplate { environment: Arc::new(environment), sources, special })
    }

    /// Whether the template marks the assistant's text with `{% generation %}`.
    pub fn marks_generation(&self, options: &RenderOptions) -> bool {
        self.pick(options).is_ok_and(|name| generation::has_tag(&self.sources[name]))
    }

    /// Names and sources.
    pub fn sources(&self) -> &BTreeMap<String, String> {
        &self.sources
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`Error::TemplateRefused`] with the template's own words, [`Error::Template`] where it fails,
    /// [`Error::TemplateName`], [`Error::Empty`] for no messages, [`Error::Message`].
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        Ok(self.render_with(messages, options, None)?.0)
    }

    /// Renders; with `markers`, text inside `{% generation %}` is put between them. Also returns the template's name.
    fn render_with(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        markers: Option<(char, char)>,
    ) -> Result<(String, &str)> {
        let name = self.pick(options)?;
        if messages.is_empty() {
            return Err(Error::Empty { index: 0, what: "conversation" });
        }
        if options.continue_final_message && options.add_generation_prompt {
            return Err(Error::Setting {
                index: 0,
                field: "continue_final_message",
                needed: "add_generation_prompt to be off: a message is either continued or begun",
                got: "both".into(),
            });
        }
        let mut chat: Vec<Value> = messages.iter().map(|m| Value::Object(template_fields(m))).collect();
        let open = if options.continue_final_message { Some(open_last(&mut chat)?) } else { None };

        let list = |items: &Option<Vec<Value>>| items.clone().map_or(Value::Null, Value::Array);
        let mut context = Map::new();
        for (name, token) in &self.special {
            context.insert(name.clone(), Value::String(token.clone()));
        }
        for (name, value) in &options.arguments {
            context.insert(name.clone(), value.clone());
        }
        context.insert("messages".into(), Value::Array(chat));
        context.insert("tools".into(), list(&options.tools));
        context.insert("documents".into(), list(&options.documents));
        context.insert("add_generation_prompt".into(), Value::Bool(options.add_generation_prompt));
        if let Some((start, end)) = markers {
            let pair = Value::String([start, end].iter().collect());
            context.insert(generation::MARKERS.into(), pair);
        }

        let template = self.environment.get_template(name).map_err(|e| template_error(name, &e))?;
        let text =
            template.render(minijinja::value::Serde(&context)).map_err(|e| template_error(name, &e))?;
        let text = match open {
            Some(content) => cut_open(text, &content, messages.len() - 1)?,
            None => text,
        };
        Ok((text, name))
    }

    fn pick(&self, options: &RenderOptions) -> Result<&str> {
        let wanted = match &options.template {
            Some(name) => name.as_str(),
            None if options.tools.is_some() && self.sources.contains_key("tool_use") => "tool_use",
            None => "default",
        };
        match self.sources.get_key_value(wanted) {
            Some((name, _)) => Ok(name),
            None => Err(Error::TemplateName {
                wanted: wanted.to_owned(),
                known: self.sources.keys().cloned().collect(),
            }),
        }
    }
}

/// What marks the end of an open message, as transformers does it: the trailing space shows whether the template trims.
const OPEN_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Appends the tag to the last message's text and returns that text.
fn open_last(chat: &mut [Value]) -> Result<String> {
    let index = chat.len() - 1;
    let content = chat[index].get_mut("content");
    let got = content.as_ref().map_or("no content".to_owned(), |c| form(c));
    let text = match content {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(parts)) => {
            parts.iter_mut().rev().find_map(|part| part.get_mut("text")).and_then(|text| match text {
                Value::String(text) => Some(text),
                _ => None,
            })
        }
        _ => None,
    };
    match text {
        Some(text) => {
            let before = text.clone();
            text.push_str(OPEN_TAG);
            Ok(before)
        }
        None => Err(Error::Message { index, needed: "text to continue", got }),
    }
}

fn cut_open(text: String, content: &str, index: usize) -> Result<String> {
    let at = text.rfind(OPEN_TAG.trim_end()).filter(|_| text.contains(content.trim()));
    let Some(at) = at else {
        return Err(Error::Message {
            index,
            needed: "a template that writes the message as it is, so that it can be continued",
            got: "a template that leaves parts of it out".into(),
        });
    };
    let head = &text[..at];
    Ok(if text[at..].starts_with(OPEN_TAG) { head.to_owned() } else { head.trim_end().to_owned() })
}

/// The fields as templates get them: none that are null, reasoning under the names that templates read.
fn template_fields(message: &Message) -> Map<String, Value> {
    let fields: Map<String, Value> =
        message.fields().iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() else {
        return fields;
    };
    let mut aliased = Map::new();
    aliased.insert("thinking".into(), reasoning.clone());
    aliased.extend(fields);
    aliased.insert("reasoning_content".into(), reasoning);
    aliased
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

fn from_config(folder: &Path, config: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    let wrong = |field: String, needed, got: &Value| Error::Config {
        path: folder.join("tokenizer_config.json"),
        field,
        needed,
        got: form(got),
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::String(source)) => Ok(BTreeMap::from([("default".to_owned(), source.clone())])),
        Some(Value::Array(named)) => {
            let mut sources = BTreeMap::new();
            for (i, entry) in named.iter().enumerate() {
                match (entry.get("name"), entry.get("template")) {
                    (Some(Value::String(name)), Some(Value::String(source))) => {
                        sources.insert(name.clone(), source.clone());
                    }
                    _ => return Err(wrong(format!("chat_template[{i}]"), "`name` and `template`", entry)),
                }
            }
            Ok(sources)
        }
        Some(other) => Err(wrong("chat_template".into(), "a string or a list of named templates", other)),
    }
}

fn template_error(name: &str, error: &minijinja::Error) -> Error {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = source {
        if let Some(python::Raised(message)) = e.downcast_ref() {
            return Error::TemplateRefused { name: name.to_owned(), message: message.clone() };
        }
        source = e.source();
    }
    let detail =
        error.detail().map_or_else(|| error.kind().to_string(), |d| format!("{}: {d}", error.kind()));
    Error::Template { name: name.to_owned(), line: error.line().unwrap_or(0), message: detail }
}
