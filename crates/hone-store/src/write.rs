//! Records and feedback into rows, a whole group of writers at a time. What a writer gave wrong is found before
//! anything of it is written, so that a refused item leaves no trace and the group goes on.

use std::collections::{HashMap, HashSet};

use hone_feedback::{Fault, Feedback, Form, Prompt, Record, Response};

use crate::error::{Error, Result};
use crate::read;
use crate::rows::{self, Answer, Exchange, Item};
use crate::search::document;
use crate::sql::{Kind, Sql, Table, Value};
use crate::store::{Put, Receipt, Said, State};
use crate::tally::Tally;

const EXCHANGE: Table = Table {
    name: "exchange",
    columns: &[
        ("seq", Kind::Int),
        ("id", Kind::Text),
        ("prompt", Kind::Text),
        ("split", Kind::Text),
        ("extra", Kind::Text),
        ("day", Kind::Int),
        ("at", Kind::Int),
        ("shown", Kind::Text),
        ("session", Kind::Text),
    ],
};
const RESPONSE: Table = Table {
    name: "response",
    columns: &[
        ("exchange", Kind::Int),
        ("place", Kind::Int),
        ("id", Kind::Text),
        ("body", Kind::Text),
        ("model", Kind::Text),
        ("prompt_tokens", Kind::Int),
        ("completion_tokens", Kind::Int),
        ("latency_ms", Kind::Real),
    ],
};
const TAG: Table = Table { name: "tag", columns: &[("tag", Kind::Text), ("exchange", Kind::Int)] };
const FEEDBACK: Table = Table {
    name: "feedback",
    columns: &[
        ("seq", Kind::Int),
        ("exchange", Kind::Int),
        ("place", Kind::Int),
        ("waits", Kind::Text),
        ("key", Kind::Text),
        ("form", Kind::Text),
        ("person", Kind::Text),
        ("model", Kind::Text),
        ("value", Kind::Real),
        ("day", Kind::Int),
        ("received", Kind::Int),
        ("body", Kind::Text),
    ],
};

/// A transaction that writes: the next numbers and the changes of sums are written at its end.
pub(crate) struct Tx<'a> {
    pub sql: &'a mut dyn Sql,
    pub tally: Tally,
    exchange: i64,
    feedback: i64,
    now: i64,
}

impl<'a> Tx<'a> {
    /// Starts one.
    pub fn begin(sql: &'a mut dyn Sql) -> Result<Self> {
        sql.begin_write()?;
        match sql.query("SELECT exchange, feedback FROM counter", &[]) {
            Ok(rows) => {
                let (exchange, feedback) = rows.first().map_or((1, 1), |row| (row.int(0), row.int(1)));
                Ok(Tx { sql, tally: Tally::default(), exchange, feedback, now: rows::now() })
            }
            Err(error) => {
                let _ = sql.rollback();
                Err(error)
            }
        }
    }

    /// Ends it: what was written stays.
    pub fn commit(mut self) -> Result<()> {
        let done = self.finish();
        if done.is_err() {
            let _ = self.sql.rollback();
        }
        done
    }

    fn finish(&mut self) -> Result<()> {
        self.tally.write(self.sql)?;
        let counters = [Value::Int(self.exchange), Value::Int(self.feedback)];
        self.sql.execute("UPDATE counter SET exchange = $1, feedback = $2", &counters)?;
        self.sql.commit()
    }

    /// Ends it without effect.
    pub fn rollback(self) {
        // What fails here fails again at the next begin, where it is told.
        let _ = self.sql.rollback();
    }

    fn next_exchange(&mut self) -> i64 {
        self.exchange += 1;
        self.exchange - 1
    }

    fn next_feedback(&mut self) -> i64 {
        self.feedback += 1;
        self.feedback - 1
    }

    /// [`crate::Store::put`] of many.
    pub fn put(&mut self, all: &[&Exchange]) -> Result<Vec<Result<Put>>> {
        let mut out = Vec::with_capacity(all.len());
        let mut from = 0;
        while from < all.len() {
            // A second record of one id is merged with the first, so it needs a round of its own.
            let mut ids = HashSet::new();
            let count = all[from..].iter().take_while(|exchange| ids.insert(exchange.id.as_str())).count();
            self.put_round(&all[from..from + count], &mut out)?;
            from += count;
        }
        Ok(out)
    }

    fn put_round(&mut self, round: &[&Exchange], out: &mut Vec<Result<Put>>) -> Result<()> {
        let keys: Vec<Value> = round.iter().map(|exchange| (&exchange.id).into()).collect();
        let known = self.sql.find("SELECT id, seq FROM exchange WHERE id", &keys, "")?;
        let known: HashMap<String, i64> =
            known.into_iter().map(|mut row| (row.text(0), row.int(1))).collect();
        let mut exchanges = Vec::new();
        let mut tags = Vec::new();
        let mut responses = Vec::new();
        let mut feedback = Vec::new();
        let first = out.len();
        let mut seqs = Vec::with_capacity(round.len());
        for exchange in round {
            if let Some(seq) = known.get(&exchange.id) {
                seqs.push(*seq);
                // Merged after the new ones are written.
                out.push(Err(Error::Closed));
                continue;
            }
            let seq = self.next_exchange();
            seqs.push(seq);
            exchanges.push(vec![
                Value::Int(seq),
                (&exchange.id).into(),
                (&exchange.prompt).into(),
                exchange.split.as_ref().into(),
                (&exchange.extra).into(),
                Value::Int(exchange.day),
                Value::Int(exchange.at),
                exchange.shown.as_ref().into(),
                exchange.session.as_ref().into(),
            ]);
            tags.extend(exchange.tags.iter().map(|tag| vec![tag.into(), Value::Int(seq)]));
            responses.extend(
                (0..).zip(&exchange.responses).map(|(place, answer)| response_row(seq, place, answer)),
            );
            for (place, item) in (1..).zip(&exchange.feedback) {
                let number = self.next_feedback();
                feedback.push(feedback_row(number, Some((seq, place)), None, None, item, self.now));
                self.tally.feedback(item);
            }
            self.tally.exchange(exchange);
            out.push(Ok(Put {
                id: exchange.id.clone(),
                new: true,
                responses: exchange.responses.len(),
                feedback: exchange.feedback.len(),
                joined: 0,
            }));
        }
        self.sql.insert(&EXCHANGE, &exchanges)?;
        self.sql.insert(&TAG, &tags)?;
        self.sql.insert(&RESPONSE, &responses)?;
        self.sql.insert(&FEEDBACK, &feedback)?;
        for ((exchange, seq), place) in round.iter().zip(&seqs).zip(first..) {
            if known.contains_key(&exchange.id) {
                out[place] = match self.merge(*seq, exchange) {
                    Ok(put) => Ok(put),
                    Err(error) if error.is_callers() => Err(error),
                    Err(error) => return Err(error),
                };
            }
        }
        self.join(round, &seqs, &mut out[first..])
    }

    /// Adds what is new of a record to the stored one.
    fn merge(&mut self, seq: i64, exchange: &Exchange) -> Result<Put> {
        let stored = read::pieces(self.sql, &[seq])?.pop().unwrap_or_default();
        let conflict =
            |field: String| Err(Error::Conflict { what: format!("record {:?}", exchange.id), field });
        for (field, same) in [
            ("prompt", stored.prompt == exchange.prompt),
            ("split", stored.split == exchange.split),
            ("unknown fields", stored.extra == exchange.extra),
        ] {
            if !same {
                return conflict(field.to_owned());
            }
        }
        let record = stored.record()?;
        let mut added = Vec::new();
        for (index, answer) in exchange.responses.iter().enumerate() {
            match record.responses.iter().position(|response| response.id == answer.id) {
                Some(at) if stored.responses.get(at) == Some(&answer.body) => {}
                Some(_) => return conflict(format!("responses[{index}]")),
                None => added.push(answer),
            }
        }
        // Said twice is two items: as many are added as there are more than before.
        let mut there: HashMap<&str, usize> = HashMap::new();
        for body in &stored.feedback {
            *there.entry(body).or_default() += 1;
        }
        let mut said = Vec::new();
        for item in &exchange.feedback {
            match there.get_mut(item.body.as_str()).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => said.push(item),
            }
        }
        let place = stored.responses.len() as i64;
        let rows: Vec<_> =
            (place..).zip(&added).map(|(place, answer)| response_row(seq, place, answer)).collect();
        self.sql.insert(&RESPONSE, &rows)?;
        for answer in &added {
            let sizes = [
                answer.prompt_tokens.map(|n| n as f64),
                answer.completion_tokens.map(|n| n as f64),
                answer.latency_ms,
            ];
            self.tally.response(exchange.day, answer.model.as_deref(), sizes, 1);
        }
        let mut place = self.last_places(&[seq])?.get(&seq).copied().unwrap_or_default();
        let mut rows = Vec::new();
        for item in &said {
            place += 1;
            let number = self.next_feedback();
            rows.push(feedback_row(number, Some((seq, place)), None, None, item, self.now));
            self.tally.feedback(item);
        }
        self.sql.insert(&FEEDBACK, &rows)?;
        if !added.is_empty() {
            self.index_exchange(seq)?;
        }
        Ok(Put {
            id: exchange.id.clone(),
            new: false,
            responses: added.len(),
            feedback: said.len(),
            joined: 0,
        })
    }

    fn index_exchange(&mut self, seq: i64) -> Result<()> {
        let Some(stored) = read::pieces(self.sql, &[seq])?.pop() else { return Ok(()) };
        let text = crate::search::words(&rows::text(&stored.prompt, &stored.responses));
        match document(seq, 0) {
            Some(document) => self.sql.index(&[(document, text)]),
            None => Ok(()),
        }
    }

    fn last_places(&mut self, seqs: &[i64]) -> Result<HashMap<i64, i64>> {
        let keys: Vec<Value> = seqs.iter().map(|seq| Value::Int(*seq)).collect();
        // The last entry of the index for each; a grouped maximum would read all that was ever said of it.
        let select = "SELECT seq, coalesce((SELECT max(place) FROM feedback WHERE exchange = e.seq), 0) \
                      FROM exchange e WHERE seq";
        let rows = self.sql.find(select, &keys, "")?;
        Ok(rows.iter().map(|row| (row.int(0), row.int(1))).collect())
    }

    /// Joins feedback that came before these records.
    fn join(&mut self, round: &[&Exchange], seqs: &[i64], out: &mut [Result<Put>]) -> Result<()> {
        let any = self
            .sql
            .query("SELECT 1 FROM feedback WHERE waits IS NOT NULL AND fault IS NULL LIMIT 1", &[])?;
        if any.is_empty() {
            return Ok(());
        }
        let mut owner: HashMap<String, usize> = HashMap::new();
        for (index, exchange) in round.iter().enumerate().filter(|(index, _)| out[*index].is_ok()) {
            owner.entry(format!("exchange {}", exchange.id)).or_insert(index);
            for answer in &exchange.responses {
                owner.entry(format!("response {}", answer.id)).or_insert(index);
            }
        }
        let keys: Vec<Value> = owner.keys().map(Value::from).collect();
        let select = "SELECT seq, waits, body FROM feedback WHERE waits";
        let mut early = self.sql.find(select, &keys, "AND fault IS NULL")?;
        early.sort_by_key(|row| row.int(0));
        for mut row in early {
            let (number, waits, body) = (row.int(0), row.text(1), row.text(2));
            let Some(index) = owner.get(&waits).copied() else { continue };
            let (exchange, seq) = (round[index], seqs[index]);
            let feedback = rows::feedback(&body).map_err(|fault| Error::unsound("stored feedback", fault))?;
            let record = Record { feedback: vec![feedback.clone()], ..exchange.record.clone() };
            if let Some(fault) =
                record.validate().into_iter().find(|fault| fault.field.starts_with("feedback[0]"))
            {
                self.sql.execute(
                    "UPDATE feedback SET fault = $1 WHERE seq = $2",
                    &[(&fault.to_string()).into(), Value::Int(number)],
                )?;
                continue;
            }
            let model = rows::named(&feedback.form).and_then(|id| record.response(id)?.model.as_deref());
            let item =
                Item::new(&feedback, model, self.now).map_err(|fault| Error::unsound("feedback", fault))?;
            let place = self.last_places(&[seq])?.get(&seq).copied().unwrap_or_default() + 1;
            self.sql.execute(
                "UPDATE feedback SET exchange = $1, place = $2, model = $3, waits = NULL WHERE seq = $4",
                &[Value::Int(seq), Value::Int(place), item.model.as_ref().into(), Value::Int(number)],
            )?;
            self.tally.feedback(&item);
            if let (Some(words), Some(document)) = (rows::said(&body), document(seq, place)) {
                self.sql.index(&[(document, crate::search::words(&words))])?;
            }
            if let Ok(put) = &mut out[index] {
                put.joined += 1;
            }
        }
        Ok(())
    }

    /// [`crate::Store::say`] of many.
    pub fn say(&mut self, all: &[&Said]) -> Result<Vec<Result<Receipt>>> {
        let target = Targets::find(self.sql, all)?;
        let keys: Vec<Value> = all.iter().filter_map(|said| said.key.as_ref().map(Value::from)).collect();
        let mut by_key: HashMap<String, (i64, String)> = HashMap::new();
        for mut row in self.sql.find("SELECT key, seq, body FROM feedback WHERE key", &keys, "")? {
            by_key.insert(row.text(0), (row.int(1), row.text(2)));
        }
        let mut out = Vec::with_capacity(all.len());
        let mut items = Vec::new();
        for said in all {
            if let Some(key) = &said.key
                && let Some((number, body)) = by_key.get(key)
            {
                out.push(repeated(key, *number, body, &said.feedback));
                continue;
            }
            let at = match target.of(self.sql, said) {
                Ok(at) => at,
                Err(error) if error.is_callers() => {
                    out.push(Err(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut feedback = said.feedback.clone();
            feedback.at.get_or_insert_with(|| rows::rfc3339(self.now));
            let item = match Item::new(&feedback, at.model.as_deref(), self.now) {
                Ok(item) => item,
                Err(fault) => {
                    out.push(Err(Error::unsound("feedback", fault)));
                    continue;
                }
            };
            let number = self.next_feedback();
            let exchange = match (at.exchange, &at.waits) {
                (None, None) => Some(self.exchange_of_a_rule(number)?),
                (exchange, _) => exchange,
            };
            if let Some(key) = &said.key {
                by_key.insert(key.clone(), (number, item.body.clone()));
            }
            let state = if exchange.is_some() { State::Joined } else { State::Early };
            out.push(Ok(Receipt { id: format!("fb-{number}"), state }));
            if exchange.is_some() {
                self.tally.feedback(&item);
            }
            items.push((number, exchange, at.waits, said.key.as_deref(), item));
        }
        let seqs: Vec<i64> = items.iter().filter_map(|item| item.1).collect();
        let mut places = self.last_places(&seqs)?;
        let mut rows = Vec::with_capacity(items.len());
        for (number, exchange, waits, key, item) in &items {
            let at = exchange.map(|seq| {
                let place = places.entry(seq).or_default();
                *place += 1;
                (seq, *place)
            });
            rows.push(feedback_row(*number, at, waits.as_deref(), *key, item, self.now));
        }
        self.sql.insert(&FEEDBACK, &rows)?;
        Ok(out)
    }

    /// A rule about no exchange in particular gets one of its own, without prompt and responses.
    fn exchange_of_a_rule(&mut self, number: i64) -> Result<i64> {
        let seq = self.next_exchange();
        let (id, day) = (format!("rule-{number}"), rows::day(self.now));
        let row = vec![
            Value::Int(seq),
            (&id).into(),
            "[]".into(),
            Value::Null,
            "{}".into(),
            Value::Int(day),
            Value::Int(self.now),
            Value::Null,
            Value::Null,
        ];
        self.sql.insert(&EXCHANGE, &[row])?;
        self.tally.add(day, None, "exchange", None, 1);
        Ok(seq)
    }
}

/// Where feedback goes.
struct Target {
    /// Its exchange, if that is stored.
    exchange: Option<i64>,
    /// What it waits for otherwise. Neither: it is about no exchange.
    waits: Option<String>,
    /// The model of the response.
    model: Option<String>,
}

/// A response that feedback may be about.
struct Known {
    exchange: i64,
    place: i64,
    model: Option<String>,
}

/// The exchanges and responses that a group of items names, found together.
struct Targets {
    exchanges: HashMap<String, i64>,
    responses: HashMap<String, Vec<Known>>,
}

impl Targets {
    fn find(sql: &mut dyn Sql, all: &[&Said]) -> Result<Self> {
        let ids: Vec<Value> = all.iter().filter_map(|said| said.exchange.as_ref().map(Value::from)).collect();
        let exchanges = sql.find("SELECT id, seq FROM exchange WHERE id", &ids, "")?;
        let names: HashSet<&str> = all.iter().flat_map(|said| rows::names(&said.feedback.form)).collect();
        let names: Vec<Value> = names.into_iter().map(Value::from).collect();
        let mut responses: HashMap<String, Vec<Known>> = HashMap::new();
        for mut row in sql.find("SELECT id, exchange, place, model FROM response WHERE id", &names, "")? {
            let known = Known { exchange: row.int(1), place: row.int(2), model: row.maybe_text(3) };
            responses.entry(row.text(0)).or_default().push(known);
        }
        let exchanges = exchanges.into_iter().map(|mut row| (row.text(0), row.int(1))).collect();
        Ok(Targets { exchanges, responses })
    }

    /// Where an item goes, if it is sound.
    fn of(&self, sql: &mut dyn Sql, said: &Said) -> Result<Target> {
        let form = &said.feedback.form;
        let names = rows::names(form);
        for text in names.iter().copied().chain(said.exchange.as_deref()).chain(said.key.as_deref()) {
            rows::name("on", text).map_err(|fault| Error::unsound("feedback", fault))?;
        }
        let known = |name: &str| self.responses.get(name).map_or(&[][..], Vec::as_slice);
        let exchange = match (&said.exchange, names.first()) {
            (Some(id), _) => self.exchanges.get(id).copied(),
            (None, Some(first)) => {
                let known = known(first);
                if known.len() > 1 {
                    return Err(Error::Ambiguous { on: (*first).to_owned(), count: known.len() });
                }
                known.first().map(|known| known.exchange)
            }
            (None, None) if matches!(form, Form::Rule { .. }) => {
                sound(&said.feedback, Vec::new())?;
                return Ok(Target { exchange: None, waits: None, model: None });
            }
            (None, None) => return Err(Error::NoTarget { form: form.kind().name() }),
        };
        let Some(exchange) = exchange else {
            // What it is about is checked when that comes; the rest now.
            let stand_ins = names.iter().map(|name| Response::new(*name, "…")).collect();
            if !matches!(form, Form::Span { .. } | Form::Step { .. }) {
                sound(&said.feedback, stand_ins)?;
            }
            let waits = match (&said.exchange, names.first()) {
                (Some(id), _) => format!("exchange {id}"),
                (None, first) => format!("response {}", first.copied().unwrap_or_default()),
            };
            return Ok(Target { exchange: None, waits: Some(waits), model: None });
        };
        let mut responses = Vec::with_capacity(names.len());
        let mut model = None;
        for name in &names {
            let Some(known) = known(name).iter().find(|known| known.exchange == exchange) else { continue };
            if Some(*name) == rows::named(form) {
                model.clone_from(&known.model);
            }
            if responses.iter().any(|response: &Response| response.id == *name) {
                continue;
            }
            // Only places in a text need the text.
            responses.push(if matches!(form, Form::Span { .. } | Form::Step { .. }) {
                let at = [Value::Int(exchange), Value::Int(known.place)];
                let rows = sql.query("SELECT body FROM response WHERE exchange = $1 AND place = $2", &at)?;
                let body = rows.into_iter().next().map(|mut row| row.text(0)).unwrap_or_default();
                serde_json::from_str(&body).map_err(|error| {
                    Error::unsound("stored response", Fault::new("", "JSON", error.to_string()))
                })?
            } else {
                Response::new(*name, "…")
            });
        }
        sound(&said.feedback, responses)?;
        Ok(Target { exchange: Some(exchange), waits: None, model })
    }
}

/// Whether feedback is sound beside these responses.
fn sound(feedback: &Feedback, responses: Vec<Response>) -> Result<()> {
    let prompt = Prompt::Text("…".into());
    let record = Record { responses, feedback: vec![feedback.clone()], ..Record::new("feedback", prompt) };
    match record.validate().into_iter().next() {
        None => Ok(()),
        Some(mut fault) => {
            fault.field = fault.field.trim_start_matches("feedback[0].").to_owned();
            Err(Error::unsound("feedback", fault))
        }
    }
}

/// The answer to feedback whose key was used before.
fn repeated(key: &str, number: i64, stored: &str, again: &Feedback) -> Result<Receipt> {
    let same = rows::feedback(stored).is_ok_and(|mut stored| {
        if again.at.is_none() {
            // The time was the store's own.
            stored.at = None;
        }
        stored == *again
    });
    if same {
        Ok(Receipt { id: format!("fb-{number}"), state: State::Repeated })
    } else {
        Err(Error::KeyReused { key: key.to_owned() })
    }
}

fn response_row(exchange: i64, place: i64, answer: &Answer) -> Vec<Value<'_>> {
    vec![
        Value::Int(exchange),
        Value::Int(place),
        (&answer.id).into(),
        (&answer.body).into(),
        answer.model.as_ref().into(),
        answer.prompt_tokens.into(),
        answer.completion_tokens.into(),
        answer.latency_ms.into(),
    ]
}

fn feedback_row<'a>(
    number: i64,
    at: Option<(i64, i64)>,
    waits: Option<&'a str>,
    key: Option<&'a str>,
    item: &'a Item,
    now: i64,
) -> Vec<Value<'a>> {
    vec![
        Value::Int(number),
        at.map(|(exchange, _)| exchange).into(),
        at.map(|(_, place)| place).into(),
        waits.into(),
        key.into(),
        item.form.into(),
        item.person.as_ref().into(),
        item.model.as_ref().into(),
        item.value.into(),
        Value::Int(item.day),
        Value::Int(now),
        (&item.body).into(),
    ]
}

/// Puts a part of what is not yet in the full-text index there. Returns whether all is.
pub(crate) fn index_some(sql: &mut dyn Sql) -> Result<bool> {
    const PART: i64 = 2000;
    let rows = sql.query("SELECT exchange, feedback FROM indexed", &[])?;
    let (exchange, feedback) = rows.first().map_or((0, 0), |row| (row.int(0), row.int(1)));
    let rows = sql.query(
        "SELECT seq FROM exchange WHERE seq > $1 ORDER BY seq LIMIT $2",
        &[Value::Int(exchange), Value::Int(PART)],
    )?;
    let seqs: Vec<i64> = rows.iter().map(|row| row.int(0)).collect();
    let mut documents = Vec::new();
    for stored in read::pieces(sql, &seqs)? {
        let text = rows::text(&stored.prompt, &stored.responses);
        documents.extend(document(stored.seq, 0).map(|document| (document, crate::search::words(&text))));
    }
    let mut items = sql.query(
        "SELECT seq, exchange, place, body FROM feedback WHERE seq > $1 ORDER BY seq LIMIT $2",
        &[Value::Int(feedback), Value::Int(4 * PART)],
    )?;
    for row in &mut items {
        // What waits is indexed when it is joined.
        if let (Some(exchange), Some(words)) = (row.maybe_int(1), rows::said(&row.text(3))) {
            let number = document(exchange, row.int(2));
            documents.extend(number.map(|number| (number, crate::search::words(&words))));
        }
    }
    if seqs.is_empty() && items.is_empty() {
        return Ok(true);
    }
    sql.index(&documents)?;
    let last = [
        Value::Int(seqs.last().copied().unwrap_or(exchange)),
        Value::Int(items.last().map_or(feedback, |row| row.int(0))),
    ];
    sql.execute("UPDATE indexed SET exchange = $1, feedback = $2", &last)?;
    Ok((seqs.len() as i64) < PART && (items.len() as i64) < 4 * PART)
}
