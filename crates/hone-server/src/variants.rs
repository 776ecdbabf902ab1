//! Two variants of a model side by side: who gets which, how they compare, and the end of it.
//!
//! People are assigned by a hash of their name, so that each sees one variant; requests without a user are assigned one
//! by one. A person is the unit of comparison, with the mean of what they said of answers (thumbs, ratings, outcomes and
//! steps, from 0 to 1). Later words of a person change that person's mean; the interval takes units as they then are.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hone_store::Store;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Admin, Allowed, Read};
use crate::body::Object;
use crate::error::{ApiError, ErrorBody, Result};
use crate::fresh::Fresh;
use crate::ids;
use crate::sequential::{Arm, difference};

/// Under which the store keeps them.
const SETTING: &str = "variants";

/// Two variants of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Experiment {
    /// Names it.
    pub id: String,
    /// The model that callers ask for.
    pub model: String,
    /// The model that answers as variant a: the present one.
    pub a: String,
    /// The model that answers as variant b: the new one.
    pub b: String,
    /// Share of people who get b, from 0 to 1.
    pub share: f64,
    /// How often a difference may be claimed that is not there, at all times together.
    pub alpha: f64,
    /// The variant that everyone gets by now: `a` or `b`.
    #[serde(default)]
    pub promoted: Option<Side>,
}

/// One of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The present model.
    A,
    /// The new model.
    B,
}

impl Side {
    /// `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }
}

impl Experiment {
    /// Starts one.
    ///
    /// # Errors
    /// Says what cannot be.
    pub fn new(model: &str, a: &str, b: &str, share: f64, alpha: f64) -> Result<Self, ApiError> {
        for (name, text) in [("model", model), ("a", a), ("b", b)] {
            if text.trim().is_empty() {
                return Err(ApiError::field(name, "the name of a model", "nothing"));
            }
        }
        if a == b {
            return Err(ApiError::field("b", "another model than a", format!("{b:?} for both")));
        }
        if !(share > 0.0 && share < 1.0) {
            return Err(ApiError::field("share", "a number between 0 and 1", share));
        }
        if !(0.0001..=0.5).contains(&alpha) {
            return Err(ApiError::field("alpha", "a number from 0.0001 to 0.5", alpha));
        }
        let own = str::to_owned;
        Ok(Experiment {
            id: ids::new("ab-"),
            model: own(model),
            a: own(a),
            b: own(b),
            share,
            alpha,
            promoted: None,
        })
    }

    /// Which variant a person gets.
    pub fn side(&self, user: Option<&str>) -> Side {
        if let Some(side) = self.promoted {
            return side;
        }
        let place = match user {
            Some(user) => {
                let digest = Sha256::digest(format!("{}\n{user}", self.id).as_bytes());
                let bits = digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
                bits as f64 / u64::MAX as f64
            }
            None => rand::rng().random::<f64>(),
        };
        if place < self.share { Side::B } else { Side::A }
    }

    /// The model of a variant.
    pub fn model_of(&self, side: Side) -> &str {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// The tag of exchanges of a variant.
    pub fn tag(&self, side: Side) -> String {
        format!("variant:{}:{}", self.id, side.name())
    }

    /// What a store keeps.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn load(store: &dyn Store) -> Result<Option<Self>, hone_store::Error> {
        let text = store.setting(SETTING).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn save(&self, store: &dyn Store) -> Result<(), hone_store::Error> {
        store.set(SETTING, serde_json::to_string(self).ok()).await
    }

    /// Ends it: callers get the model that they ask for.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn clear(store: &dyn Store) -> Result<(), hone_store::Error> {
        store.set(SETTING, None).await
    }

    /// How the variants compare by now.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn figures(&self, store: &dyn Store) -> Result<Figures, hone_store::Error> {
        let mut arms = [Arm::default(); 2];
        for (arm, side) in arms.iter_mut().zip([Side::A, Side::B]) {
            let means: Vec<f64> = store.means(&self.tag(side)).await?.iter().map(|mean| mean.mean).collect();
            *arm = Arm::of(&means);
        }
        let [a, b] = arms;
        let found = difference(a, b, self.alpha);
        let decided = found.and_then(|found| match found {
            found if found.low > 0.0 => Some(Side::B),
            found if found.high < 0.0 => Some(Side::A),
            _ => None,
        });
        let body =
            |arm: Arm| ArmFigures { people: arm.count, satisfaction: (arm.count > 0).then_some(arm.mean) };
        Ok(Figures {
            experiment: self.clone(),
            a: body(a),
            b: body(b),
            difference: found.map(|found| found.estimate),
            interval: found.map(|found| [found.low, found.high]),
            better: decided,
        })
    }
}

/// What people thought of a variant.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ArmFigures {
    /// People who said something.
    pub people: u64,
    /// The mean of their means, from 0 to 1.
    pub satisfaction: Option<f64>,
}

/// How two variants compare.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Figures {
    /// The two.
    pub experiment: Experiment,
    /// Variant a.
    pub a: ArmFigures,
    /// Variant b.
    pub b: ArmFigures,
    /// Satisfaction with b less that with a; null while fewer than 25 people spoke of either.
    pub difference: Option<f64>,
    /// Holds the true difference at all times together, but for a share `alpha`.
    pub interval: Option<[f64; 2]>,
    /// The variant that is better beyond doubt, once there is one.
    pub better: Option<Side>,
}

/// The variants as the running service knows them.
#[derive(Default)]
pub(crate) struct Variants(Fresh<Option<Experiment>>);

impl Variants {
    /// The model that is to answer, and the tag of the exchange, where the model asked for has variants.
    pub async fn assign(
        &self,
        store: &dyn Store,
        model: &str,
        user: Option<&str>,
    ) -> Option<(String, String, Side)> {
        // The store may be away; answers go on.
        let known = self.0.get(|| async { Ok(Experiment::load(store).await?) }).await.ok()?;
        let experiment = (*known).as_ref().filter(|experiment| experiment.model == model)?;
        let side = experiment.side(user);
        Some((experiment.model_of(side).to_owned(), experiment.tag(side), side))
    }
}

/// Two variants to compare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExperimentOrder {
    /// The model that callers ask for.
    model: String,
    /// The present model.
    a: String,
    /// The new model.
    b: String,
    /// Share of people who get b. Without: a half.
    share: Option<f64>,
    /// How often a difference may be claimed that is not there. Without: 0.05.
    alpha: Option<f64>,
}

/// The variant to promote.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promotion {
    /// `a` or `b`.
    winner: Side,
}

fn none() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "needed two variants that are compared, got none")
}

/// How the variants compare by now.
#[utoipa::path(get, path = "/v1/variants", tag = "variants",
    responses((status = 200, body = Figures), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn show(State(app): State<App>, _: Allowed<Read>) -> Result<Json<Figures>> {
    let experiment = Experiment::load(&*app.store).await?.ok_or_else(none)?;
    Ok(Json(experiment.figures(&*app.store).await?))
}

/// Starts to compare two variants, in place of those that were.
#[utoipa::path(put, path = "/v1/variants", tag = "variants", request_body = ExperimentOrder,
    responses((status = 200, body = Experiment), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 415, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn compare(
    State(app): State<App>,
    _: Allowed<Admin>,
    order: Object,
) -> Result<Json<Experiment>> {
    let order: ExperimentOrder = read(order)?;
    let (share, alpha) = (order.share.unwrap_or(0.5), order.alpha.unwrap_or(0.05));
    let experiment = Experiment::new(&order.model, &order.a, &order.b, share, alpha)?;
    for (name, model) in [("a", &experiment.a), ("b", &experiment.b)] {
        if !app.backends.iter().any(|backend| backend.serves(model)) {
            return Err(ApiError::field(name, "a model that a backend serves", format!("{model:?}")));
        }
    }
    experiment.save(&*app.store).await?;
    app.variants.0.put(Some(experiment.clone()));
    Ok(Json(experiment))
}

/// Gives one variant to everyone.
#[utoipa::path(post, path = "/v1/variants/promote", tag = "variants", request_body = Promotion,
    responses((status = 200, body = Experiment), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn promote(
    State(app): State<App>,
    _: Allowed<Admin>,
    order: Object,
) -> Result<Json<Experiment>> {
    let order: Promotion = read(order)?;
    let mut experiment = Experiment::load(&*app.store).await?.ok_or_else(none)?;
    experiment.promoted = Some(order.winner);
    experiment.save(&*app.store).await?;
    app.variants.0.put(Some(experiment.clone()));
    Ok(Json(experiment))
}

/// Ends the comparison: callers get the model that they ask for.
#[utoipa::path(delete, path = "/v1/variants", tag = "variants",
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn end(State(app): State<App>, _: Allowed<Admin>) -> Result<StatusCode> {
    Experiment::clear(&*app.store).await?;
    app.variants.0.put(None);
    Ok(StatusCode::NO_CONTENT)
}

fn read<T: serde::de::DeserializeOwned>(order: Object) -> Result<T> {
    serde_json::from_value(serde_json::Value::Object(order.fields))
        .map_err(|error| ApiError::field("body", "the fields that the document names", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_keep_their_variant_and_shares_are_kept() {
        let mut experiment = Experiment::new("m", "m-1", "m-2", 0.3, 0.05).expect("sound");
        let side = |experiment: &Experiment, user: usize| experiment.side(Some(&format!("user:{user}")));
        let b = (0..10_000).filter(|user| side(&experiment, *user) == Side::B).count();
        // Binomial with mean 3000 and standard deviation 46.
        assert!((2800..3200).contains(&b), "{b}");
        assert!((0..100).all(|user| side(&experiment, user) == side(&experiment, user)));
        let alone = (0..10_000).filter(|_| experiment.side(None) == Side::B).count();
        assert!((2800..3200).contains(&alone), "{alone}");
        experiment.promoted = Some(Side::A);
        assert!((0..100).all(|user| side(&experiment, user) == Side::A));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |a: &str, b: &str, share: f64, alpha: f64| {
            Experiment::new("m", a, b, share, alpha)
                .map(|_| ())
                .map_err(|error| error.param.unwrap_or_default())
        };
        assert_eq!(error("x", "x", 0.5, 0.05), Err("b".into()));
        assert_eq!(error("", "x", 0.5, 0.05), Err("a".into()));
        assert_eq!(error("x", "y", 1.0, 0.05), Err("share".into()));
        assert_eq!(error("x", "y", f64::NAN, 0.05), Err("share".into()));
        assert_eq!(error("x", "y", 0.5, 0.0), Err("alpha".into()));
        assert_eq!(error("x", "y", 0.5, 0.05), Ok(()));
    }
}
