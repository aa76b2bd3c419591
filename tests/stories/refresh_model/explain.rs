//! Compares what was answered with the model.

use std::collections::HashSet;

use super::chain::{Answer, Call, Chain, Rules};

/// Everything that a session may be, as far as can be told from outside.
pub type Chains = HashSet<Chain>;

/// A call and what was answered; `None` where the caller went away before.
pub type Said = (Call, Option<Answer>);

/// What a session may be after calls that were made at once: calls take effect one after another, and there must be
/// an order in which the model answers the same. Empty where there is none. `instants` are all that the clock has
/// shown, up to now.
pub fn explain(before: &Chains, said: &[Said], rules: &Rules, instants: &[i64]) -> Chains {
    let now = instants.last().copied().unwrap_or_default();
    let lost = said.iter().filter(|(call, answer)| answer.is_none() && *call != Call::Verify);
    let answered: Vec<(Call, Answer)> =
        said.iter().filter_map(|(call, answer)| Some((*call, (*answer)?))).collect();
    let all: u32 = (1 << answered.len()) - 1;
    let begin = |chain: &Chain| {
        let chain = lost.clone().fold(chain.clone(), |chain, (call, _)| chain.with_pending(*call, now));
        (chain, all)
    };
    let mut open: Vec<(Chain, u32)> = before.iter().map(begin).collect();
    let mut seen: HashSet<(Chain, u32)> = open.iter().cloned().collect();
    let mut after = Chains::new();
    while let Some((chain, left)) = open.pop() {
        if left == 0 {
            after.insert(chain.clone().settled());
        }
        let mut next: Vec<(Chain, u32)> =
            chain.pending_done(rules, instants).into_iter().map(|chain| (chain, left)).collect();
        for (index, (call, answer)) in answered.iter().enumerate().filter(|(index, _)| left & 1 << index != 0)
        {
            let taken = chain.take(*call, rules, now).into_iter();
            let fitting = taken.filter(|(said, _)| said == answer);
            next.extend(fitting.map(|(_, chain)| (chain, left & !(1 << index))));
        }
        open.extend(next.into_iter().filter(|state| seen.insert(state.clone())));
    }
    after
}

const RULES: Rules = Rules { grace: 10, access_ttl: 20, idle_ttl: 60, absolute_ttl: 200 };

fn is_possible(said: &[&[Said]]) -> bool {
    let mut chains = Chains::from([Chain::new(&RULES, 0)]);
    for said in said {
        chains = explain(&chains, said, &RULES, &[0]);
    }
    !chains.is_empty()
}

#[test]
fn the_model_tells_right_from_wrong() {
    let tokens = |generation| (Call::Refresh(generation), Some(Answer::Tokens));
    let reused = |generation| (Call::Refresh(generation), Some(Answer::Reused));
    let lost = |generation| (Call::Refresh(generation), None);
    assert!(is_possible(&[&[tokens(0)], &[tokens(0)], &[tokens(1)], &[reused(0)]]));
    assert!(!is_possible(&[&[tokens(0)], &[tokens(1)], &[tokens(0)]]), "its successor is used");
    assert!(!is_possible(&[&[tokens(0)], &[reused(0)]]), "that was a retry");
    assert!(is_possible(&[&[reused(0), tokens(1), tokens(0)]]), "in another order");
    assert!(!is_possible(&[&[reused(0), tokens(0)]]), "in no order");
    assert!(is_possible(&[&[lost(0)], &[tokens(1)], &[reused(0)]]), "it was done before the caller left");
    assert!(!is_possible(&[&[tokens(1)]]), "nobody can have that token");
}
