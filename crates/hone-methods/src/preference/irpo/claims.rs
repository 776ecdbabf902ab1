//! The claims, and what they are measured on.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hone_feedback::metrics::{mean, ranking};
use hone_feedback::{Form, Record};
use hone_nn::ModelConfig;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use hone_worlds::lists::market::{self, GENRES, Market};
use hone_worlds::lists::metrics::{ndcg, recall};
use rand::Rng;

use super::lists::{Candidates, Lists, candidates};
use super::loss::{Weight, gradient, pair_coefficients};
use super::{Irpo, run};
use crate::bench;
use crate::error::{Error, Result};
use crate::method::{Claim, Job, settings};
use crate::policy::Policy;
use crate::train::Training;

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_ranks_above_start",
        says: "Held-out candidates are ranked better than by the policy at its start.",
        metric: "mean of NDCG@1, 5, 10 and Recall@5 on held-out users' lists in random order",
        baseline: "the policy at its start",
        effect: above_start,
    },
    Claim {
        name: "claim_ranks_above_dpo",
        says: "Held-out candidates are ranked better than after DPO on a pair of each list.",
        metric: "mean of NDCG@1, 5, 10 and Recall@5 on held-out users' lists in random order",
        baseline: "DPO on one relevant and one irrelevant item of each list, same lists, same steps",
        effect: above_dpo,
    },
    Claim {
        name: "claim_ranks_above_s_dpo",
        says: "Held-out candidates are ranked better than after S-DPO.",
        metric: "mean of NDCG@1, 5, 10 and Recall@5 on held-out users' lists in random order",
        baseline: "S-DPO, same lists, same steps",
        effect: above_s_dpo,
    },
    Claim {
        name: "claim_ranks_above_lipo",
        says: "Held-out candidates are ranked better than after LiPO.",
        metric: "mean of NDCG@1, 5, 10 and Recall@5 on held-out users' lists in random order",
        baseline: "LiPO's lambda loss, same lists, same steps",
        effect: above_lipo,
    },
    Claim {
        name: "claim_ranks_above_sft",
        says: "Held-out candidates are ranked better than after fine-tuning on the relevant items.",
        metric: "mean of NDCG@1, 5, 10 and Recall@5 on held-out users' lists in random order",
        baseline: "likelihood of the relevant items, same lists, same steps",
        effect: above_sft,
    },
    Claim {
        name: "claim_gains_at_the_top",
        says: "What is gained over the start is more at the top of the list than over all of it.",
        metric: "gain in the mean of NDCG@1, 2 and 3 over the start",
        baseline: "gain in NDCG@20 of the same policy",
        effect: at_the_top,
    },
    Claim {
        name: "claim_gain_raises_ndcg",
        says: "Weights with the relevance gain rank better than the discount alone.",
        metric: "NDCG@5 on held-out users' lists",
        baseline: "`weight = \"discount\"`, same lists, same steps",
        effect: gain_raises,
    },
    Claim {
        name: "claim_discount_raises_ndcg",
        says: "Weights with the position discount rank better than the gain alone.",
        metric: "NDCG@5 on held-out users' lists",
        baseline: "`weight = \"gain\"`, same lists, same steps",
        effect: discount_raises,
    },
    Claim {
        name: "claim_sparse_ticks_cost_less",
        says: "With one ticked item per list instead of graded ones, less is lost than by DPO.",
        metric: "minus what NDCG@5 loses when each list keeps one relevant item",
        baseline: "minus what DPO loses on the same lists",
        effect: sparse_costs_less,
    },
    Claim {
        name: "claim_gradients_go_to_low_items",
        says: "Items that the policy ranks too low get the larger gradients.",
        metric: "correlation of the size of an item's gradient with its rank less the rank it should have",
        baseline: "no correlation",
        effect: gradients_go_to_low,
    },
    Claim {
        name: "claim_gradients_vary_less",
        says: "The gradient of a list varies less than that of a single pair drawn from it.",
        metric: "minus the log of the variance of a list's gradient by the weights of a linear scorer",
        baseline: "a pair drawn evenly, weighted so that its mean is the same gradient",
        effect: gradients_vary_less,
    },
    Claim {
        name: "claim_shuffling_hides_the_order",
        says: "After training on shuffled candidates, NDCG@5 depends less on the order of the candidates.",
        metric: "minus the distance of NDCG@5 in random order from that in order of relevance",
        baseline: "trained on candidates in order of relevance, same lists, same steps",
        effect: shuffling_hides,
    },
    Claim {
        name: "claim_own_lists_are_better",
        says: "Lists that the policy writes teach more than given ones.",
        metric: "mean of NDCG@1, 5, 10 and Recall@5 on held-out users' lists in random order",
        baseline: "the same candidates in random order, same steps",
        effect: own_lists,
    },
];

/// Users with latent tastes over named items, and a policy that writes lists of these items in any order.
struct Shop {
    seed: u64,
    market: Market,
    counts: [usize; 3],
    start: Arc<PathBuf>,
}

const USERS: usize = 260;
const HELD_OUT: usize = 60;
/// Longest list of the shop with its context, in tokens.
const SHOP_TOKENS: usize = 64;

/// What is read off the held-out lists.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    /// Mean NDCG at 1, 2, 3, 5, 10, 20.
    ndcg: [f64; 6],
    recall: f64,
}

impl Ranked {
    /// Mean of NDCG@1, 5, 10 and Recall@5.
    fn overall(&self) -> f64 {
        mean(&[self.ndcg[0], self.ndcg[3], self.ndcg[4], self.recall])
    }

    fn ndcg_5(&self) -> f64 {
        self.ndcg[3]
    }

    fn top(&self) -> f64 {
        mean(&self.ndcg[..3])
    }

    fn whole(&self) -> f64 {
        self.ndcg[5]
    }
}

impl Shop {
    fn new(seed: u64, items: usize) -> Result<Shop> {
        static LARGE: OnceLock<Result<Arc<PathBuf>, String>> = OnceLock::new();
        static SMALL: OnceLock<Result<Arc<PathBuf>, String>> = OnceLock::new();
        let sizes = market::Settings { users: USERS, items, ..market::Settings::default() };
        let market = Market::new(&sizes, seed)?;
        let place = if items == 200 { &LARGE } else { &SMALL };
        // Names do not depend on the seed, so neither does the start.
        let start =
            place.get_or_init(|| shop_policy(&market).map(Arc::new).map_err(|e| e.to_string())).clone();
        let start = start.map_err(|problem| Error::File { path: "bench".into(), problem })?;
        Ok(Shop { seed, market, counts: [3, 5, 12], start })
    }

    fn policy(&self) -> Result<Policy> {
        let mut policy = Policy::from_folder(&self.start)?;
        policy.model.threads = 1;
        Ok(policy)
    }

    /// One list per user; `ticks` keeps the first so many relevant items and no grades.
    fn records(&self, users: std::ops::Range<usize>, ticks: Option<usize>) -> Result<Vec<Record>> {
        users
            .map(|user| {
                let list = self.market.candidates(user, self.counts, self.seed)?;
                let mut record = Record::new(user.to_string(), context(&self.market.users[user]));
                let mut ticked = 0;
                for (&product, &grade) in list.products.iter().zip(&list.grades) {
                    let id = product.to_string();
                    let value = match ticks {
                        None => grade,
                        Some(most) if grade > 0.0 && ticked < most => {
                            ticked += 1;
                            1.0
                        }
                        Some(_) => 0.0,
                    };
                    let rating = Form::Rating { on: id.clone(), value, scale: Some([0.0, 2.0]) };
                    record = record.respond(id, self.market.products[product].name.as_str()).say(rating);
                }
                Ok(record)
            })
            .collect()
    }

    fn own(&self, own: &str) -> Result<toml::Table> {
        let mut whole: toml::Table = bench::quick(own)?;
        for (key, value) in [("separator", " , "), ("role", "as_is")] {
            whole.entry(key).or_insert(value.into());
        }
        if !own.contains("epochs")
            && let Some(training) = whole.get_mut("training").and_then(toml::Value::as_table_mut)
        {
            training.insert("epochs".into(), 8.0.into());
        }
        Ok(whole)
    }

    /// The policy after `run` with these settings.
    fn after(&self, own: &str, ticks: Option<usize>) -> Result<Policy> {
        let train = self.records(0..USERS - HELD_OUT, ticks)?;
        let settings = self.own(own)?;
        let (policy, seed) = (self.policy()?, self.seed);
        let session = crate::train::Session::default();
        run(Job { policy, records: &train, oracle: None, settings: &settings, seed, session })?.policy()
    }

    /// Lists of held-out users in random order, or in order of relevance.
    fn held_out(&self, policy: &Policy, random: bool) -> Result<Lists> {
        let own: Irpo = settings("irpo", &self.own(&format!("shuffle = {random}"))?)?;
        let mut losses = hone_feedback::convert::Losses::default();
        let mut all = candidates(&self.records(USERS - HELD_OUT..USERS, None)?, &own, &mut losses);
        all.iter_mut().for_each(best_first);
        Lists::of(policy, &all, &own, SHOP_TOKENS, sub_seed(self.seed, "held out"))
    }

    fn ranked(&self, policy: &Policy, random: bool) -> Result<Ranked> {
        let lists = self.held_out(policy, random)?;
        let (mut ndcgs, mut recalls) = (vec![], vec![]);
        for (scores, list) in lists.item_logps(&policy.model)?.iter().zip(&lists.listed) {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let grades: Vec<f64> = order.iter().map(|&at| list.relevance[at]).collect();
            ndcgs.push([1, 2, 3, 5, 10, 20].map(|k| ndcg(&grades, &grades, k)));
            recalls.push(recall(&grades, &grades, 5));
        }
        let at = |k: usize| mean(&ndcgs.iter().map(|each| each[k]).collect::<Vec<_>>());
        Ok(Ranked { ndcg: std::array::from_fn(at), recall: mean(&recalls) })
    }

    fn trained(&self, own: &str) -> Result<Ranked> {
        self.ranked(&self.after(own, None)?, true)
    }
}

fn best_first(of: &mut Candidates) {
    let mut order: Vec<usize> = (0..of.items.len()).collect();
    order.sort_by_key(|&at| of.target_ranks[at]);
    of.items = order.iter().map(|&at| of.items[at].clone()).collect();
    of.relevance = order.iter().map(|&at| of.relevance[at]).collect();
    of.target_ranks = order.iter().map(|&at| of.target_ranks[at]).collect();
}

/// The two genres that a user likes best.
fn context(taste: &[f64]) -> String {
    let mut order: Vec<usize> = (0..taste.len()).collect();
    order.sort_by(|&a, &b| taste[b].total_cmp(&taste[a]));
    let words: Vec<&str> = order.iter().take(2).map(|&at| GENRES[at].0).collect();
    format!("likes {}", words.join(" "))
}

/// A policy that writes 20 of the market's names in any order, whatever the context.
fn shop_policy(market: &Market) -> Result<PathBuf> {
    let mut rng = rng(0, "shop");
    let names: Vec<String> = market.products.iter().map(|product| product.name.clone()).collect();
    let shown: Vec<(String, String)> = (0..192)
        .map(|_| {
            let words = [0, 1].map(|_| GENRES[rng.random_range(0..GENRES.len())].0);
            let mut list = names.clone();
            shuffle(&mut list, &mut rng);
            (format!("likes {}", words.join(" ")), list[..20].join(" , "))
        })
        .collect();
    let words = ["likes", ","].into_iter().chain(GENRES.iter().map(|genre| genre.0)).map(String::from);
    let name = format!("shop-{}", names.len());
    let config = |vocabulary| ModelConfig::llama(vocabulary, 32, 1, 2, 2, 64);
    let training = Training { learning_rate: 3e-3, epochs: 4.0, ..Training::default() };
    bench::fitted(&name, &words.chain(names).collect::<Vec<_>>(), config, &shown, &training)
}

fn above(seed: u64, objective: &str) -> Result<f64> {
    let shop = Shop::new(seed, 200)?;
    let other = shop.trained(&format!("objective = \"{objective}\""))?;
    Ok(shop.trained("")?.overall() - other.overall())
}

pub(super) fn above_start(seed: u64) -> Result<f64> {
    let shop = Shop::new(seed, 200)?;
    Ok(shop.trained("")?.overall() - shop.ranked(&shop.policy()?, true)?.overall())
}

pub(super) fn above_dpo(seed: u64) -> Result<f64> {
    above(seed, "dpo")
}

pub(super) fn above_s_dpo(seed: u64) -> Result<f64> {
    above(seed, "s_dpo")
}

pub(super) fn above_lipo(seed: u64) -> Result<f64> {
    // Its loss over all pairs takes ten times as long, so both get three passes.
    let shop = Shop::new(seed, 200)?;
    let short = "[training]\nepochs = 3.0";
    let other = shop.trained(&format!("objective = \"lipo\"\n{short}"))?;
    Ok(shop.trained(short)?.overall() - other.overall())
}

pub(super) fn above_sft(seed: u64) -> Result<f64> {
    above(seed, "sft")
}

pub(super) fn at_the_top(seed: u64) -> Result<f64> {
    let shop = Shop::new(seed, 200)?;
    let (now, then) = (shop.trained("")?, shop.ranked(&shop.policy()?, true)?);
    Ok((now.top() - then.top()) - (now.whole() - then.whole()))
}

fn weighted(seed: u64, weight: &str) -> Result<f64> {
    let shop = Shop::new(seed, 200)?;
    let other = shop.trained(&format!("weight = \"{weight}\""))?;
    Ok(shop.trained("")?.ndcg_5() - other.ndcg_5())
}

pub(super) fn gain_raises(seed: u64) -> Result<f64> {
    weighted(seed, "discount")
}

pub(super) fn discount_raises(seed: u64) -> Result<f64> {
    weighted(seed, "gain")
}

pub(super) fn sparse_costs_less(seed: u64) -> Result<f64> {
    let shop = Shop::new(seed, 200)?;
    let lost = |objective: &str| -> Result<f64> {
        let own = format!("objective = \"{objective}\"");
        let sparse = shop.ranked(&shop.after(&own, Some(1))?, true)?;
        Ok(shop.trained(&own)?.ndcg_5() - sparse.ndcg_5())
    };
    Ok(lost("dpo")? - lost("irpo")?)
}

pub(super) fn gradients_go_to_low(seed: u64) -> Result<f64> {
    let shop = Shop::new(seed, 200)?;
    let start = shop.policy()?;
    // After one pass, when some items are right and some are not.
    let after = shop.after("[training]\nepochs = 1.0", None)?;
    let lists = shop.held_out(&start, true)?;
    let (old, new) = (lists.item_logps(&start.model)?, lists.item_logps(&after.model)?);
    let each = lists.listed.iter().zip(old.iter().zip(&new)).filter_map(|(list, (old, new))| {
        let scores: Vec<f64> = old.iter().zip(new).map(|(o, n)| f64::from(n - o)).collect();
        let slopes = gradient(&scores, &ndcg_weights(&list.relevance, &list.target_ranks));
        // Ranks from the best; equally relevant items share theirs.
        let descending = |values: &[f64]| ranking::ranks(&values.iter().map(|v| -v).collect::<Vec<_>>());
        let (is, should) = (descending(&scores), descending(&list.relevance));
        let errors: Vec<f64> = is.iter().zip(should).map(|(is, should)| is - should).collect();
        ranking::pearson(&slopes.iter().map(|slope| slope.abs()).collect::<Vec<_>>(), &errors)
    });
    Ok(mean(&each.collect::<Vec<_>>()))
}

fn ndcg_weights(relevance: &[f64], target_ranks: &[usize]) -> Vec<f64> {
    relevance.iter().zip(target_ranks).map(|(&r, &t)| Weight::Ndcg.of(r, t)).collect()
}

/// Log of the variance of a pair's gradient less that of the whole list's, by the weights of a linear scorer whose inputs
/// are the products of a user's and an item's traits.
pub(super) fn gradients_vary_less(seed: u64) -> Result<f64> {
    let sizes = market::Settings { users: 200, items: 200, ..market::Settings::default() };
    let market = Market::new(&sizes, seed)?;
    let mut rng = rng(seed, "pairs");
    let theta: Vec<f64> = GENRES.iter().map(|_| rng.random::<f64>() - 0.5).collect();
    let (mut whole, mut single) = (vec![], vec![]);
    for user in 0..market.users.len() {
        let list = market.candidates(user, [3, 5, 12], seed)?;
        let inputs: Vec<Vec<f64>> = list
            .products
            .iter()
            .map(|&p| market.users[user].iter().zip(&market.products[p].latent).map(|(a, b)| a * b).collect())
            .collect();
        let scores: Vec<f64> =
            inputs.iter().map(|x: &Vec<f64>| x.iter().zip(&theta).map(|(a, b)| a * b).sum()).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| list.grades[b].total_cmp(&list.grades[a]));
        let mut ranks = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &item)| ranks[item] = at + 1);
        let pairs = pair_coefficients(&scores, &ndcg_weights(&list.grades, &ranks));
        let of = |&(i, j, c): &(usize, usize, f64), times: f64| -> Vec<f64> {
            inputs[j].iter().zip(&inputs[i]).map(|(xj, xi)| times * c * (xj - xi)).collect()
        };
        let mut sum = vec![0.0; theta.len()];
        for pair in &pairs {
            sum.iter_mut().zip(of(pair, 1.0)).for_each(|(sum, part)| *sum += part);
        }
        whole.push(sum);
        single.push(of(&pairs[rng.random_range(0..pairs.len())], pairs.len() as f64));
    }
    Ok((variance(&single) / variance(&whole)).ln())
}

/// Mean squared distance from the mean.
fn variance(vectors: &[Vec<f64>]) -> f64 {
    let n = vectors.len() as f64;
    let dims = vectors.first().map_or(0, Vec::len);
    let centre: Vec<f64> = (0..dims).map(|d| vectors.iter().map(|v| v[d]).sum::<f64>() / n).collect();
    let far = |v: &Vec<f64>| v.iter().zip(&centre).map(|(x, c)| (x - c).powi(2)).sum::<f64>();
    vectors.iter().map(far).sum::<f64>() / n
}

pub(super) fn shuffling_hides(seed: u64) -> Result<f64> {
    let shop = Shop::new(seed, 200)?;
    let distance = |policy: &Policy| -> Result<f64> {
        Ok((shop.ranked(policy, true)?.ndcg_5() - shop.ranked(policy, false)?.ndcg_5()).abs())
    };
    let mut sorted = shop.records(0..USERS - HELD_OUT, None)?;
    for record in &mut sorted {
        let grade = |form: &Form| if let Form::Rating { value, .. } = form { *value } else { 0.0 };
        record.feedback.sort_by(|a, b| grade(&b.form).total_cmp(&grade(&a.form)));
    }
    let settings = shop.own("shuffle = false")?;
    let session = crate::train::Session::default();
    let policy = shop.policy()?;
    let job = Job { policy, records: &sorted, oracle: None, settings: &settings, seed, session };
    let sorted = run(job)?.policy()?;
    Ok(distance(&sorted)? - distance(&shop.after("", None)?)?)
}

pub(super) fn own_lists(seed: u64) -> Result<f64> {
    let shop = Shop::new(seed, 60)?;
    let own = shop.trained("on_policy_rounds = 3\n[draw]\nmax_tokens = 40")?;
    Ok(own.overall() - shop.trained("")?.overall())
}
